// SPDX-License-Identifier: MIT OR Apache-2.0
//! Copies a file of which every page is cached, by the ways there are to do its writes: in the submitter's context, tried with
//! `RWF_NOWAIT` first, or on threads.
//!
//! ```text
//! cargo run --release -p sq-file --example write_paths -- [DIR] [MIB] [ROUNDS] [KIB]
//! ```
//!
//! The target file is truncated and written anew each time, and removed before the next. Rounds are interleaved; each line is
//! the median. The plain loop and cp(1) are beside it. On a busy machine compare the CPU time: others do not take from it.

use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use liburing_shm::opcode::{ReadFixed, Target, WriteFixed};
use liburing_shm::{Backend, Ring};
use rustix::time::{ClockId, clock_gettime};
use sq_driver::Errno;
use sq_driver::abi::Segment;
use sq_file::What;
use sq_file::process::{FileIo, Found, Limits, System, Threads};

const DEPTH: u16 = 16;

type Way = Box<dyn FnMut()>;

/// What is done with a write that may not wait.
#[derive(Clone, Copy)]
enum Writes {
    /// It is made all the same.
    Inline,
    /// It is tried with `RWF_NOWAIT`.
    NoWait,
    /// It goes to the threads.
    Threads,
}

struct Policy(Writes);

impl FileIo for Policy {
    unsafe fn look(&self, target: usize, what: What) -> Result<Found, Errno> {
        // SAFETY: the caller's contract.
        unsafe { System.look(target, what) }
    }

    unsafe fn read(&self, target: usize, off: u64, to: &[Segment], wait: bool) -> Result<usize, Errno> {
        // SAFETY: the caller's contract.
        unsafe { System.read(target, off, to, wait) }
    }

    unsafe fn write(&self, target: usize, off: u64, from: &[Segment], wait: bool) -> Result<usize, Errno> {
        match self.0 {
            // SAFETY: the caller's contract.
            Writes::Inline => unsafe { System.write(target, off, from, true) },
            Writes::NoWait if !wait => {
                let fd = i32::try_from(target - 1).unwrap();
                // SAFETY: open during the call, by the trait's contract.
                let fd = unsafe { BorrowedFd::borrow_raw(fd) };
                // SAFETY: the example writes from buffers of its ring, which nobody changes while a write of them is in flight.
                let bytes = unsafe {
                    std::slice::from_raw_parts(
                        std::ptr::with_exposed_provenance::<u8>(from[0].addr as usize),
                        from[0].len as usize,
                    )
                };
                let nowait = rustix::io::ReadWriteFlags::NOWAIT;
                rustix::io::pwritev2(fd, &[std::io::IoSlice::new(bytes)], off, nowait)
                    .map_err(|errno| Errno::new(errno.raw_os_error()).unwrap())
            }
            // SAFETY: the caller's contract.
            _ => unsafe { System.write(target, off, from, wait) },
        }
    }

    unsafe fn sync(&self, target: usize, data_only: bool) -> Result<(), Errno> {
        // SAFETY: the caller's contract.
        unsafe { System.sync(target, data_only) }
    }
}

fn main() {
    let mut args = std::env::args().skip(1);
    let dir = args.next().unwrap_or_else(|| std::env::temp_dir().display().to_string());
    let mib: usize = args.next().map_or(512, |text| text.parse().expect("MIB is a number"));
    let rounds: usize = args.next().map_or(5, |text| text.parse().expect("ROUNDS is a number"));
    let kib: u32 = args.next().map_or(128, |text| text.parse().expect("KIB is a number"));
    let block = kib << 10;
    let (from, to) = (Path::new(&dir).join("sq-write-paths.from"), Path::new(&dir).join("sq-write-paths.to"));
    fs::write(&from, vec![0x5au8; mib << 20]).expect("the source can be written");

    let ring = |writes: Writes, threads: usize| {
        let limits = Limits { in_turn: threads, ..Limits::default() };
        let driver = sq_file::File::new(Threads::new(Policy(writes), limits));
        let backend = Backend::embedded(driver).unwrap();
        let ring = Ring::builder(u32::from(DEPTH)).pool(DEPTH, block).build(&backend).unwrap();
        let (from, to) = (from.clone(), to.clone());
        let mut ring = Some(ring);
        Box::new(move || {
            let (from, to) = open(&from, &to);
            copy(ring.as_mut().unwrap(), block, &from, &to);
        }) as Way
    };
    let mut ways: Vec<(&str, Way)> = vec![
        ("plain pread/pwrite", {
            let (from, to) = (from.clone(), to.clone());
            Box::new(move || {
                let (from, to) = open(&from, &to);
                plain(block, &from, &to);
            })
        }),
        ("cp --reflink=never --sparse=never", {
            let (from, to) = (from.clone(), to.clone());
            Box::new(move || {
                let args = ["--reflink=never", "--sparse=never"];
                assert!(Command::new("cp").args(args).arg(&from).arg(&to).status().unwrap().success());
            })
        }),
        ("ring, writes inline", ring(Writes::Inline, 8)),
        ("ring, writes RWF_NOWAIT, then threads", ring(Writes::NoWait, 8)),
        ("ring, writes on 1 thread", ring(Writes::Threads, 1)),
        ("ring, writes on 2 threads", ring(Writes::Threads, 2)),
        ("ring, writes on 4 threads", ring(Writes::Threads, 4)),
        ("ring, writes on 8 threads", ring(Writes::Threads, 8)),
    ];
    let mut times = vec![Vec::new(); ways.len()];
    for _ in 0..rounds {
        for ((_, way), times) in ways.iter_mut().zip(&mut times) {
            let _ = fs::remove_file(&to);
            let (start, cpu) = (Instant::now(), cpu());
            way();
            times.push((start.elapsed(), self::cpu() - cpu));
        }
    }
    println!("{mib} MiB in {dir}, blocks of {kib} KiB, depth {DEPTH}, median of {rounds}");
    for ((name, _), times) in ways.iter().zip(&mut times) {
        let mut median = |of: fn(&(Duration, Duration)) -> Duration| {
            times.sort_by_key(of);
            of(&times[times.len() / 2]).as_secs_f64()
        };
        let bytes = (mib << 20) as f64;
        let (rate, cost) =
            (bytes / 1e6 / median(|time| time.0), median(|time| time.1) * 1e9 / (bytes / f64::from(block)));
        println!("{name:40} {rate:6.0} MB/s {cost:8.0} ns of CPU a block");
    }
    let _ = fs::remove_file(&from);
    let _ = fs::remove_file(&to);
}

/// CPU time of this process, its threads included, its children (cp) not.
fn cpu() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

fn open(from: &Path, to: &Path) -> (File, File) {
    let to = OpenOptions::new().write(true).create(true).truncate(true).open(to).unwrap();
    (File::open(from).unwrap(), to)
}

fn plain(block: u32, from: &File, to: &File) {
    let mut bytes = vec![0u8; block as usize];
    let mut off = 0;
    loop {
        let got = from.read_at(&mut bytes, off).unwrap();
        if got == 0 {
            return;
        }
        to.write_all_at(&bytes[..got], off).unwrap();
        off += got as u64;
    }
}

fn copy(ring: &mut Ring, block: u32, from: &File, to: &File) {
    ring.submitter().register_files(&[from.as_fd(), to.as_fd()]).unwrap();
    let size = from.metadata().unwrap().len();
    let (mut next, mut busy) = (0u64, 0u32);
    let mut at = [0u64; DEPTH as usize];
    let mut free: Vec<u16> = (0..DEPTH).collect();
    loop {
        while next < size
            && let Some(buffer) = free.pop()
        {
            at[usize::from(buffer)] = next;
            let read = ReadFixed::new(Target::Fixed(0), buffer, 0, block).offset(next).build();
            ring.submission().push(read.user_data(u64::from(buffer))).unwrap();
            next += u64::from(block);
            busy += 1;
        }
        if busy == 0 {
            break;
        }
        ring.submit_and_wait(1).unwrap();
        let done: Vec<_> = ring.completion().reap().collect();
        for completion in done {
            let len = completion.result().unwrap();
            let buffer = completion.user_data() as u16;
            if completion.user_data() >> 16 != 0 {
                free.push(buffer);
                busy -= 1;
                continue;
            }
            let write = WriteFixed::new(Target::Fixed(1), buffer, 0, len).offset(at[usize::from(buffer)]).build();
            ring.submission().push(write.user_data(u64::from(buffer) | 1 << 16)).unwrap();
        }
    }
    ring.submitter().unregister_files().unwrap();
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Blocks of 4 KiB at random places of a file, with 1 to 128 operations in flight: the file driver's ring, io_uring, and one `pread` or
//! `pwrite` after the other. Both queues have registered files and buffers. Through the page cache, and past it.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use io_uring::{IoUring, opcode, types};
use liburing_shm::Ring;
use liburing_shm::opcode::{ReadFixed, Target, WriteFixed};

use crate::host::{Group, Home, Host, SYSTEM, good, homes, id, skip};

const BLOCK: u32 = 4096;
const BLOCKS: u64 = 16 << 10;
const DEPTHS: [u16; 4] = [1, 8, 32, 128];

#[repr(C, align(4096))]
#[derive(Clone)]
struct Block([u8; BLOCK as usize]);

#[derive(Clone, Copy)]
struct Way {
    write: bool,
    direct: bool,
}

pub(crate) fn rows(c: &mut Criterion, host: &Host) {
    let scratch = Scratch::new();
    let homes = homes(sq_file::File::in_process());
    for direct in [false, true] {
        if direct && scratch.open(true).is_none() {
            skip(
                "storage past the page cache",
                "this file system has no O_DIRECT; set SQ_SCRATCH to a folder of one that has",
            );
            continue;
        }
        for write in [false, true] {
            let way = Way { write, direct };
            let (place, what) = (if direct { "direct" } else { "cached" }, if write { "write" } else { "read" });
            let mut group = c.benchmark_group(format!("storage {place} {what}"));
            for depth in DEPTHS {
                group.throughput(Throughput::Elements(depth.into()));
                for home in &homes {
                    let setup = || Ours::new(home, &scratch, depth, way);
                    queue(&mut group, &format!("ring {} caller", home.name), crosses(home), depth, way, setup);
                }
                if host.io_uring {
                    queue(&mut group, "io_uring", SYSTEM, depth, way, || Theirs::new(&scratch, depth, way));
                }
            }
            plain(&mut group, &scratch, way);
            group.finish();
        }
    }
}

/// An embedded driver makes the system calls itself, one an operation.
fn crosses(home: &Home) -> &'static str {
    if home.crosses == SYSTEM { SYSTEM } else { "function call and system call" }
}

/// A file of blocks with something in them; it goes when this goes.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let dir = std::env::var_os("SQ_SCRATCH").map_or_else(std::env::temp_dir, PathBuf::from);
        let scratch = Self(dir.join(format!("sq-bench-{}", std::process::id())));
        let file = File::create(&scratch.0).expect("a file in SQ_SCRATCH or the temporary folder");
        let piece = vec![1; 1 << 20];
        for at in (0..BLOCKS * u64::from(BLOCK)).step_by(piece.len()) {
            file.write_all_at(&piece, at).expect("room for 64 MiB");
        }
        file.sync_all().expect("a file that was written can be flushed");
        scratch
    }

    fn open(&self, direct: bool) -> Option<File> {
        let flags = if direct { libc::O_DIRECT } else { 0 };
        OpenOptions::new().read(true).write(true).custom_flags(flags).open(&self.0).ok()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// xorshift64: good enough to spread blocks.
struct Places(u64);

impl Places {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % BLOCKS * u64::from(BLOCK)
    }
}

trait Queue {
    fn push(&mut self, slot: u16, offset: u64, way: Way);
    /// Submits and waits for one completion at least.
    fn wait(&mut self);
    /// Adds the slots of what is complete.
    fn reap(&mut self, idle: &mut Vec<u16>);
}

fn queue<Q: Queue>(group: &mut Group<'_>, name: &str, crosses: &str, depth: u16, way: Way, setup: impl FnOnce() -> Q) {
    let (mut setup, mut queue) = (Some(setup), None);
    let mut places = Places(0x9e37_79b9_7f4a_7c15);
    group.bench_function(id(name, crosses, depth), |b| {
        let queue = queue.get_or_insert_with(|| setup.take().expect("it is called once")());
        b.iter_custom(|rounds| run(queue, depth, rounds * u64::from(depth), way, &mut places));
    });
}

/// `operations`, with `depth` of them in flight while there are as many.
fn run(queue: &mut impl Queue, depth: u16, operations: u64, way: Way, places: &mut Places) -> Duration {
    let mut idle: Vec<u16> = (0..depth).collect();
    let mut left = operations;
    let start = Instant::now();
    while left > 0 || idle.len() < depth.into() {
        while left > 0
            && let Some(slot) = idle.pop()
        {
            queue.push(slot, places.next(), way);
            left -= 1;
        }
        queue.wait();
        queue.reap(&mut idle);
    }
    start.elapsed()
}

struct Ours(Ring);

impl Ours {
    fn new(home: &Home, scratch: &Scratch, depth: u16, way: Way) -> Self {
        let ring = Ring::builder(u32::from(depth) * 2).pool(depth, BLOCK).build(&home.backend).expect("a ring");
        let file = scratch.open(way.direct).expect("it was opened before");
        ring.submitter().register_files(&[file.as_fd()]).expect("the driver takes files");
        Self(ring)
    }
}

impl Queue for Ours {
    fn push(&mut self, slot: u16, offset: u64, way: Way) {
        let file = Target::Fixed(0);
        let entry = if way.write {
            WriteFixed::new(file, slot, 0, BLOCK).offset(offset).build()
        } else {
            ReadFixed::new(file, slot, 0, BLOCK).offset(offset).build()
        };
        self.0.submission().push(entry.user_data(slot.into())).expect("the ring has room for all in flight");
    }

    fn wait(&mut self) {
        self.0.submit_and_wait(1).expect("the operations are accepted");
    }

    fn reap(&mut self, idle: &mut Vec<u16>) {
        for done in self.0.completion().reap() {
            assert_eq!(good(&done), BLOCK, "a whole block");
            idle.push(done.user_data() as u16);
        }
    }
}

struct Theirs {
    uring: IoUring,
    blocks: Vec<Block>,
}

impl Theirs {
    fn new(scratch: &Scratch, depth: u16, way: Way) -> Self {
        let uring = IoUring::new(u32::from(depth) * 2).expect("an io_uring");
        let mut blocks = vec![Block([1; BLOCK as usize]); depth.into()];
        let file = scratch.open(way.direct).expect("it was opened before");
        uring.submitter().register_files(&[file.as_raw_fd()]).expect("io_uring takes files");
        let pieces: Vec<_> = blocks
            .iter_mut()
            .map(|block| libc::iovec { iov_base: block.0.as_mut_ptr().cast(), iov_len: block.0.len() })
            .collect();
        // SAFETY: the blocks live in the same value as the ring, behind it.
        unsafe { uring.submitter().register_buffers(&pieces) }.expect("io_uring takes buffers");
        Self { uring, blocks }
    }
}

impl Queue for Theirs {
    fn push(&mut self, slot: u16, offset: u64, way: Way) {
        let block = self.blocks[usize::from(slot)].0.as_mut_ptr();
        let file = types::Fixed(0);
        let entry = if way.write {
            opcode::WriteFixed::new(file, block, BLOCK, slot).offset(offset).build()
        } else {
            opcode::ReadFixed::new(file, block, BLOCK, slot).offset(offset).build()
        };
        let mut sq = self.uring.submission();
        // SAFETY: the block is this value's, and in this operation's hands until it has completed.
        unsafe { sq.push(&entry.user_data(slot.into())) }.expect("the ring has room for all in flight");
    }

    fn wait(&mut self) {
        self.uring.submit_and_wait(1).expect("io_uring takes the operations");
    }

    fn reap(&mut self, idle: &mut Vec<u16>) {
        for done in self.uring.completion() {
            assert_eq!(done.result(), BLOCK as i32, "a whole block");
            idle.push(done.user_data() as u16);
        }
    }
}

fn plain(group: &mut Group<'_>, scratch: &Scratch, way: Way) {
    group.throughput(Throughput::Elements(1));
    let name = if way.write { "pwrite" } else { "pread" };
    let mut state = None;
    group.bench_function(id(name, SYSTEM, 1), |b| {
        let (file, block, places) = state.get_or_insert_with(|| {
            let file = scratch.open(way.direct).expect("it was opened before");
            (file, Box::new(Block([1; BLOCK as usize])), Places(0x9e37_79b9_7f4a_7c15))
        });
        b.iter(|| {
            let offset = places.next();
            let done = if way.write { file.write_at(&block.0, offset) } else { file.read_at(&mut block.0, offset) };
            assert_eq!(done.expect("a file that was opened"), BLOCK as usize);
        });
    });
}

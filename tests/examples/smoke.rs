// SPDX-License-Identifier: MIT OR Apache-2.0
//! A quick look at a loaded module: `smoke /dev/sqnull`. One line a check; exit code 1 if one fails.
//!
//! It shows what only a real device has (files, mappings, another process). What a ring does is the conformance suite's.

use std::env;
use std::error::Error;
use std::ffi::c_void;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::process::{Command, ExitCode, Stdio};
use std::ptr::null_mut;
use std::time::{Duration, Instant};

use liburing_shm::opcode::{AsyncCancel, Cmd, Nop};
use liburing_shm::{Backend, CancelFlags, Completion, Errno, Ring, SqeFlags, Wait};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno as Os;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode};
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap, mprotect, munmap};
use sq_uapi::{SqSetup, ioctl};

type Outcome = Result<(), Box<dyn Error>>;
type Check = (&'static str, fn(&str) -> Outcome);

fn main() -> ExitCode {
    let args: Vec<String> = env::args().collect();
    let node = args.get(1).cloned().unwrap_or_else(|| "/dev/sqnull".into());
    match args.get(2).map(String::as_str) {
        Some("stranger") => return stranger(args.get(3).and_then(|fd| fd.parse().ok()).unwrap_or(-1)),
        Some("hang") => return hang(&node),
        _ => {}
    }
    let checks: &[Check] = &[
        ("query without a ring", query),
        ("256 nops, 32 a doorbell", |node| nops(node, false)),
        ("256 nops by a worker", |node| nops(node, true)),
        ("echo with 32-byte completions", echo),
        ("delay, inline and by a worker", |node| delay(node, false).and_then(|()| delay(node, true))),
        ("never, canceled by an entry and by a call", never),
        ("wait ends by timeout", timeout),
        ("eventfd is signalled", eventfd_signal),
        ("one ring a file, polling mode refused", setups),
        ("mappings: read-only, shared, inside", mappings),
        ("poll on the file", poll_file),
        ("another process gets EXDEV", strangers),
        ("kill -9 with requests in flight", killed),
    ];
    let mut failed = 0;
    for (name, check) in checks {
        match check(&node) {
            Ok(()) => println!("ok      {name}"),
            Err(why) => {
                failed += 1;
                println!("FAILED  {name}: {why}");
            }
        }
    }
    ExitCode::from(u8::from(failed > 0))
}

macro_rules! want {
    ($left:expr, $right:expr) => {{
        let (left, right) = (&$left, &$right);
        if left != right {
            return Err(format!("line {}: {left:?}, not {right:?}", line!()).into());
        }
    }};
}

fn command(op: u32, first: u64, second: u64) -> liburing_shm::Entry {
    struct Words<const OP: u32>([u8; 16]);
    impl<const OP: u32> liburing_shm::opcode::Command for Words<OP> {
        const CMD_OP: u32 = OP;
        type Bytes = [u8; 16];
        fn to_bytes(&self) -> [u8; 16] {
            self.0
        }
    }
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&first.to_le_bytes());
    bytes[8..].copy_from_slice(&second.to_le_bytes());
    match op {
        sq_null::cmd::ECHO => Cmd::new(&Words::<{ sq_null::cmd::ECHO }>(bytes)).build(),
        sq_null::cmd::DELAY => Cmd::new(&Words::<{ sq_null::cmd::DELAY }>(bytes)).build(),
        _ => Cmd::new(&Words::<{ sq_null::cmd::NEVER }>(bytes)).build(),
    }
}

fn reap(ring: &mut Ring) -> Vec<Completion> {
    ring.completion().reap().collect()
}

fn query(node: &str) -> Outcome {
    let answer = Backend::device(node).query()?;
    want!(answer.abi_version, sq_uapi::consts::ABI_VERSION);
    want!(&answer.driver[..5], b"null\0");
    want!(answer.features & sq_uapi::consts::features::EMBEDDED, 0);
    Ok(())
}

fn nops(node: &str, worker: bool) -> Outcome {
    let builder = Ring::builder(32);
    let mut ring = if worker { builder.worker() } else { builder }.build(&Backend::device(node))?;
    for batch in 0..8u64 {
        for n in 0..32 {
            // Every fourth is deferred.
            let flags = if n % 4 == 0 { SqeFlags::ASYNC } else { SqeFlags::empty() };
            ring.submission().push(Nop::new().build().user_data(batch << 8 | n).flags(flags))?;
        }
        ring.submit_and_wait(32)?;
        let mut done: Vec<_> = reap(&mut ring).iter().map(|c| (c.user_data(), c.result())).collect();
        done.sort_by_key(|(data, _)| *data);
        want!(done, (0..32).map(|n| (batch << 8 | n, Ok(0))).collect::<Vec<_>>());
    }
    let stats = ring.submitter().stats()?;
    want!((stats.entries, stats.completions, stats.inflight), (256, 256, 0));
    Ok(())
}

fn echo(node: &str) -> Outcome {
    let mut ring = Ring::builder(4).wide_completions().build(&Backend::device(node))?;
    ring.submission().push(command(sq_null::cmd::ECHO, 0x1234, u64::MAX).user_data(u64::MAX))?;
    ring.submit_and_wait(1)?;
    let [done] = reap(&mut ring)[..] else { return Err("not one completion".into()) };
    want!((done.user_data(), done.result(), done.extra()), (u64::MAX, Ok(0x1234), [0x1234, u64::MAX]));
    Ok(())
}

fn delay(node: &str, worker: bool) -> Outcome {
    let builder = Ring::builder(8);
    let mut ring = if worker { builder.worker() } else { builder }.build(&Backend::device(node))?;
    let start = Instant::now();
    for ms in [30u64, 10, 20] {
        ring.submission().push(command(sq_null::cmd::DELAY, ms * 1_000_000, ms).user_data(ms))?;
    }
    ring.submit_and_wait(3)?;
    want!(start.elapsed() >= Duration::from_millis(30), true);
    // On a busy machine all are late, and the order is nobody's promise.
    let mut done: Vec<_> = reap(&mut ring).iter().map(|c| (c.user_data(), c.result())).collect();
    done.sort_by_key(|(data, _)| *data);
    want!(done, [(10, Ok(10)), (20, Ok(20)), (30, Ok(30))]);
    Ok(())
}

fn never(node: &str) -> Outcome {
    let mut ring = Ring::builder(8).build(&Backend::device(node))?;
    for data in [1, 2, 3] {
        ring.submission().push(command(sq_null::cmd::NEVER, 0, 0).user_data(data))?;
    }
    ring.submit()?;
    want!(ring.completion().ready(), 0);
    ring.submission().push(AsyncCancel::user_data(2).build().user_data(9))?;
    ring.submit_and_wait(2)?;
    let mut done: Vec<_> = reap(&mut ring).iter().map(|c| (c.user_data(), c.result())).collect();
    done.sort_by_key(|(data, _)| *data);
    want!(done, [(2, Err(Errno::ECANCELED)), (9, Ok(0))]);
    want!(ring.submitter().cancel(CancelFlags::ANY, 0, 0)?, 2);
    ring.submitter().wait(&Wait::new(2))?;
    want!(reap(&mut ring).iter().all(|c| c.result() == Err(Errno::ECANCELED)), true);
    want!(ring.submitter().stats()?.inflight, 0);
    Ok(())
}

fn timeout(node: &str) -> Outcome {
    let ring = Ring::builder(8).build(&Backend::device(node))?;
    let start = Instant::now();
    let ended = ring.submitter().wait(&Wait::new(1).timeout(Duration::from_millis(20)));
    want!(errno(ended), Errno::ETIME);
    want!(start.elapsed() >= Duration::from_millis(20), true);
    Ok(())
}

fn eventfd_signal(node: &str) -> Outcome {
    use std::os::fd::AsFd;
    let mut ring = Ring::builder(8).build(&Backend::device(node))?;
    let event = eventfd(0, EventfdFlags::CLOEXEC)?;
    ring.submitter().register_eventfd(event.as_fd())?;
    want!(errno(ring.submitter().register_eventfd(event.as_fd())), Errno::EBUSY);
    for _ in 0..2 {
        ring.submission().push(Nop::new().build())?;
        ring.submit()?;
    }
    let mut count = [0; 8];
    rustix::io::read(&event, &mut count)?;
    want!(u64::from_ne_bytes(count), 2);
    ring.submitter().unregister_eventfd()?;
    Ok(())
}

fn setups(node: &str) -> Outcome {
    let (file, _) = bare_ring(node)?;
    want!(call(&file, ioctl::SETUP, &mut setup_argument()), Err(Os::BUSY));
    let polling = Ring::builder(8).poll(Duration::from_millis(1)).build(&Backend::device(node));
    want!(errno(polling), Errno::EOPNOTSUPP);
    // A file without a ring.
    let empty = open(node, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    want!(call(&empty, ioctl::ENTER, &mut []), Err(Os::NXIO));
    want!(call(&empty, 0xdead, &mut []), Err(Os::NOTTY));
    want!(call(&empty, ioctl::SETUP, &mut [2, 0, 0, 0]), Err(Os::INVAL));
    Ok(())
}

fn mappings(node: &str) -> Outcome {
    const RW: ProtFlags = ProtFlags::READ.union(ProtFlags::WRITE);
    let (file, setup) = bare_ring(node)?;
    let map = |region: sq_uapi::SqRegion, len: u64, prot, flags| {
        // SAFETY: a new mapping where the kernel likes disturbs nothing.
        unsafe { mmap(null_mut(), len as usize, prot, flags, &file, region.offset) }.map(|at| at as usize)
    };
    let (kernel, user) = (setup.kernel, setup.user);
    want!(map(kernel, kernel.size, RW, MapFlags::SHARED), Err(Os::ACCESS));
    want!(map(user, user.size, RW, MapFlags::PRIVATE), Err(Os::INVAL));
    want!(map(user, user.size + 4096, RW, MapFlags::SHARED), Err(Os::INVAL));
    want!(map(user, user.size, RW | ProtFlags::EXEC, MapFlags::SHARED), Err(Os::ACCESS));
    let at = map(kernel, kernel.size, ProtFlags::READ, MapFlags::SHARED)? as *mut c_void;
    // SAFETY: the mapping above, of which nothing is made.
    let writable = unsafe { mprotect(at, kernel.size as usize, MprotectFlags::READ | MprotectFlags::WRITE) };
    want!(writable, Err(Os::ACCESS));
    // Alive after the descriptor: sq_state says that the ring wants its doorbell.
    drop(file);
    let state = at.cast::<u8>().wrapping_add(setup.offsets.sq_state as usize).cast::<u32>();
    // SAFETY: inside the mapping, aligned; the kernel side does not write any more.
    let state = unsafe { state.read_volatile() };
    want!(state, 1);
    // SAFETY: the mapping above.
    unsafe { munmap(at, kernel.size as usize) }?;
    Ok(())
}

fn poll_file(node: &str) -> Outcome {
    let (file, setup) = bare_ring(node)?;
    let ready = |wait_ms: i64| {
        let timeout = Timespec { tv_sec: 0, tv_nsec: wait_ms * 1_000_000 };
        poll(&mut [PollFd::new(&file, PollFlags::IN)], Some(&timeout))
    };
    want!(ready(0)?, 0);
    // SAFETY: as in `mappings`.
    let at = unsafe {
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        mmap(null_mut(), setup.user.size as usize, prot, MapFlags::SHARED, &file, setup.user.offset)
    }?;
    // A command that completes 20 ms later, written by hand: DELAY is command 2.
    let words: [u64; 8] = [46 | u64::from(u32::MAX) << 32, 2, 0, 0, 7, 0, 20_000_000, 0];
    let place = |offset: u32| at.cast::<u8>().wrapping_add(offset as usize);
    // SAFETY: the first entry lies inside the mapping.
    unsafe { place(setup.offsets.sqes).cast::<[u64; 8]>().write_volatile(words) };
    // SAFETY: the tail lies inside the mapping.
    unsafe { place(setup.offsets.sq_tail).cast::<u32>().write_volatile(1) };
    want!(call(&file, ioctl::ENTER, &mut []), Ok(1));
    want!(ready(0)?, 0);
    want!(ready(900)?, 1);
    // SAFETY: the mapping above.
    unsafe { munmap(at, setup.user.size as usize) }?;
    Ok(())
}

fn strangers(node: &str) -> Outcome {
    let (file, _) = bare_ring(node)?;
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty())?;
    let fd = file.as_raw_fd().to_string();
    let child = Command::new(env::current_exe()?).args([node, "stranger", &fd]).status()?;
    want!(child.code(), Some(0));
    want!(call(&file, ioctl::ENTER, &mut []), Ok(0));
    Ok(())
}

/// In another process, with a ring's descriptor.
fn stranger(fd: RawFd) -> ExitCode {
    // SAFETY: the parent left it open, and nothing here closes it.
    let file = unsafe { BorrowedFd::borrow_raw(fd) };
    let refused = |result: Result<u32, Os>| result == Err(Os::XDEV);
    // SAFETY: as in `mappings`.
    let map = unsafe { mmap(null_mut(), 4096, ProtFlags::READ, MapFlags::SHARED, file, 0) };
    let all = refused(call(file, ioctl::ENTER, &mut []))
        && refused(call(file, ioctl::REGISTER, &mut argument(40)))
        && refused(call(file, ioctl::QUIESCE, &mut argument(32)))
        && refused(map.map(|_| 0))
        && call(file, ioctl::STATS, &mut argument(104)).is_ok();
    ExitCode::from(u8::from(!all))
}

fn killed(node: &str) -> Outcome {
    for _ in 0..5 {
        let mut child = Command::new(env::current_exe()?).args([node, "hang"]).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no pipe")?).read_line(&mut line)?;
        want!(line.trim(), "hanging");
        child.kill()?;
        child.wait()?;
    }
    Ok(())
}

fn hang(node: &str) -> ExitCode {
    let Ok(mut ring) = Ring::builder(16).worker().build(&Backend::device(node)) else { return ExitCode::FAILURE };
    for _ in 0..8 {
        let _ = ring.submission().push(command(sq_null::cmd::NEVER, 0, 0));
        let _ = ring.submission().push(command(sq_null::cmd::DELAY, 1_000_000, 0));
    }
    let _ = ring.submit_and_wait(1);
    println!("hanging");
    let _ = ring.submitter().wait(&Wait::new(16));
    ExitCode::FAILURE
}

fn errno<T>(result: Result<T, liburing_shm::Error>) -> Errno {
    match result {
        Err(liburing_shm::Error::Call { errno, .. }) => errno,
        _ => Errno::EIO,
    }
}

/// A ring without the library: its file, and what SETUP reported.
fn bare_ring(node: &str) -> Result<(OwnedFd, SqSetup), Box<dyn Error>> {
    let file = open(node, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let mut bytes = setup_argument();
    call(&file, ioctl::SETUP, &mut bytes)?;
    Ok((file, kmod_sq::call::read(&bytes).map_err(|errno| format!("setup answered {errno}"))?))
}

fn setup_argument() -> [u8; 192] {
    let mut bytes = [0; 192];
    kmod_sq::call::write(&SqSetup { size: 192, sq_entries: 8, ..SqSetup::default() }, &mut bytes);
    bytes
}

fn argument(size: u8) -> Vec<u8> {
    let mut bytes = vec![0; size.into()];
    bytes[0] = size;
    bytes
}

struct Call<'a>(u32, &'a mut [u8]);

// SAFETY: sq's calls read and write as much as the argument's size field says, here its length, and take null for none.
unsafe impl Ioctl for Call<'_> {
    type Output = u32;
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        self.0 as Opcode
    }

    fn as_ptr(&mut self) -> *mut c_void {
        if self.1.is_empty() { null_mut() } else { self.1.as_mut_ptr().cast() }
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut c_void) -> rustix::io::Result<u32> {
        Ok(out.unsigned_abs())
    }
}

fn call(file: impl std::os::fd::AsFd, number: u32, arg: &mut [u8]) -> Result<u32, Os> {
    // SAFETY: as `Call` says.
    unsafe { rustix::ioctl::ioctl(file, Call(number, arg)) }
}

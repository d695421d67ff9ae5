// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files that are slow, that fail, and that give only a part: by calls that are not the system's.

mod common;

use std::collections::HashSet;
use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use common::{BOTH, Bench, NONE, file, read, target};
use liburing_shm::opcode::{Fsync, Write};
use liburing_shm::{Backend, CancelFlags, Errno, SqeFlags};
use sq_driver::abi::Segment;
use sq_file::What;
use sq_file::process::{FileIo, Found, Limits, System, Threads};

/// Makes calls on chosen files wait until it is opened.
#[derive(Default)]
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    slow: HashSet<(u64, u64)>,
    waiting: usize,
    /// Most that ever waited at a time.
    most: usize,
    open: bool,
    /// Threads that made calls.
    threads: HashSet<rustix::thread::Pid>,
}

struct Gated(Arc<Gate>);

impl Gated {
    /// # Safety
    ///
    /// The target is open.
    unsafe fn pass(&self, target: usize) {
        // SAFETY: the contract.
        let key = unsafe { System.look(target, What::Read) }.unwrap().key;
        let mut state = self.0.state.lock().unwrap();
        state.threads.insert(rustix::thread::gettid());
        if state.open || !state.slow.contains(&key) {
            return;
        }
        state.waiting += 1;
        state.most = state.most.max(state.waiting);
        self.0.changed.notify_all();
        let mut state = self.0.changed.wait_while(state, |state| !state.open).unwrap();
        state.waiting -= 1;
    }
}

impl FileIo for Gated {
    unsafe fn look(&self, target: usize, what: What) -> Result<Found, Errno> {
        // SAFETY: the caller's contract.
        unsafe { System.look(target, what) }
    }

    unsafe fn read(&self, target: usize, off: u64, to: &[Segment], wait: bool) -> Result<usize, Errno> {
        if !wait {
            return Err(Errno::EAGAIN);
        }
        // SAFETY: the caller's contract.
        unsafe { self.pass(target) };
        // SAFETY: the caller's contract.
        unsafe { System.read(target, off, to, wait) }
    }

    unsafe fn write(&self, target: usize, off: u64, from: &[Segment], wait: bool) -> Result<usize, Errno> {
        if !wait {
            return Err(Errno::EAGAIN);
        }
        // SAFETY: the caller's contract.
        unsafe { self.pass(target) };
        // SAFETY: the caller's contract.
        unsafe { System.write(target, off, from, wait) }
    }

    unsafe fn sync(&self, target: usize, data_only: bool) -> Result<(), Errno> {
        // SAFETY: the caller's contract.
        unsafe { self.pass(target) };
        // SAFETY: the caller's contract.
        unsafe { System.sync(target, data_only) }
    }
}

impl Gate {
    fn new(slow: &[File]) -> Arc<Self> {
        use std::os::fd::AsRawFd;
        // SAFETY: the file is open.
        let key = |f: &File| unsafe { System.look(f.as_raw_fd() as usize + 1, What::Read) }.unwrap().key;
        let slow = slow.iter().map(key).collect();
        Arc::new(Self { state: Mutex::new(State { slow, ..State::default() }), changed: Condvar::new() })
    }

    fn backend(self: &Arc<Self>, limits: Limits) -> Backend {
        Backend::embedded(sq_file::File::new(Threads::new(Gated(Arc::clone(self)), limits))).unwrap()
    }

    fn await_waiting(&self, count: usize) {
        let state = self.state.lock().unwrap();
        let ten = Duration::from_secs(10);
        let (state, late) = self.changed.wait_timeout_while(state, ten, |state| state.waiting < count).unwrap();
        assert!(!late.timed_out(), "{} of {count} wait", state.waiting);
    }

    fn open(&self) {
        self.state.lock().unwrap().open = true;
        self.changed.notify_all();
    }
}

const LIMITS: Limits = Limits { threads: 16, per_file: 4, in_turn: 2, reserve: 4, idle: Duration::from_millis(50) };

/// Submits `count` reads of one byte each.
fn submit_reads(bench: &mut Bench, f: &File, bytes: &mut [u8], user_data: u64) {
    for byte in bytes {
        // SAFETY: every test keeps the bytes until the completions are reaped or the threads are gone.
        unsafe { bench.0.submission().push_raw(read(f, 0, std::slice::from_mut(byte)).user_data(user_data)) }.unwrap();
    }
    bench.0.submit().unwrap();
}

#[test]
fn a_slow_file_delays_no_other() {
    let slow = [file(b"s")];
    let fast = file(b"f");
    let gate = Gate::new(&slow);
    let mut bench = Bench::on(&gate.backend(LIMITS));
    let mut bytes = [0u8; 32];
    submit_reads(&mut bench, &slow[0], &mut bytes, 1);
    gate.await_waiting(LIMITS.per_file);
    // Behind 32 reads of a file that does not answer, 200 operations on another.
    for n in 0..200 {
        let mut to = [0u8];
        // SAFETY: `to` outlives the completion, reaped below.
        unsafe { bench.0.submission().push_raw(read(&fast, 0, &mut to).user_data(2).flags(BOTH[n % 2])) }.unwrap();
        bench.0.submit().unwrap();
        let done = bench.reap(1);
        assert_eq!(done.len(), 1);
        assert_eq!((done[0].user_data(), done[0].result(), to), (2, Ok(1), *b"f"));
        bench.0.submission().push(Fsync::new(target(&fast)).build().user_data(3)).unwrap();
        bench.0.submit().unwrap();
        assert_eq!(bench.reap(1)[0].user_data(), 3);
    }
    assert_eq!(gate.state.lock().unwrap().most, LIMITS.per_file, "the slow file has its share of threads, no more");
    gate.open();
    let done = bench.reap(32);
    assert!(done.iter().all(|completion| (completion.user_data(), completion.result()) == (1, Ok(1))));
    assert_eq!(bytes, [b's'; 32]);
}

/// As many as there are threads in reserve, for operations on files that have none running.
#[test]
fn several_slow_files_delay_no_other() {
    let limits = Limits { reserve: 10, ..LIMITS };
    let slow: Vec<File> = (0..limits.reserve).map(|_| file(b"s")).collect();
    let fast = file(b"f");
    let gate = Gate::new(&slow);
    let mut bench = Bench::on(&gate.backend(limits));
    let mut bytes = [0u8; 40];
    for (f, bytes) in slow.iter().zip(bytes.chunks_mut(4)) {
        submit_reads(&mut bench, f, bytes, 1);
    }
    gate.await_waiting(limits.reserve);
    let mut to = [0u8];
    for _ in 0..100 {
        assert_eq!(bench.read(&fast, 0, &mut to, SqeFlags::ASYNC), Ok(1));
    }
    gate.open();
    assert!(bench.reap(40).iter().all(|completion| completion.result() == Ok(1)));
}

#[test]
fn cancel_takes_what_has_not_started() {
    let slow = [file(b"s")];
    let gate = Gate::new(&slow);
    let mut bench = Bench::on(&gate.backend(LIMITS));
    let mut bytes = [0u8; 20];
    submit_reads(&mut bench, &slow[0], &mut bytes, 1);
    gate.await_waiting(4);
    assert_eq!(bench.0.submitter().cancel(CancelFlags::ANY, 0, 0).unwrap(), 20);
    let canceled = bench.reap(16);
    assert_eq!(canceled.len(), 16);
    assert!(canceled.iter().all(|completion| completion.result() == Err(Errno::ECANCELED)));
    gate.open();
    // What had started comes to its end, and to its own result.
    assert!(bench.reap(4).iter().all(|completion| completion.result() == Ok(1)));
    // The lane is in order afterwards.
    assert_eq!(bench.read(&slow[0], 0, &mut bytes[..1], NONE), Ok(1));
}

/// Ids of requests are unique among the rings of a driver: a cancel on one ring finds nobody else's.
#[test]
fn cancel_stays_on_its_ring() {
    let slow = [file(b"s")];
    let gate = Gate::new(&slow);
    let backend = gate.backend(LIMITS);
    let (mut one, mut two) = (Bench::on(&backend), Bench::on(&backend));
    let (mut bytes, mut others) = ([0u8; 8], [0u8; 8]);
    submit_reads(&mut one, &slow[0], &mut bytes, 1);
    submit_reads(&mut two, &slow[0], &mut others, 2);
    gate.await_waiting(4);
    assert_eq!(two.0.submitter().cancel(CancelFlags::ANY, 0, 0).unwrap(), 8);
    assert!(two.reap(8).iter().all(|completion| completion.result() == Err(Errno::ECANCELED)));
    gate.open();
    assert!(one.reap(8).iter().all(|completion| completion.result() == Ok(1)));
}

#[test]
fn a_ring_that_goes_leaves_nothing_behind() {
    let slow = [file(b"s")];
    let gate = Gate::new(&slow);
    let mut bench = Bench::on(&gate.backend(LIMITS));
    let mut bytes = [0u8; 20];
    submit_reads(&mut bench, &slow[0], &mut bytes, 1);
    gate.await_waiting(4);
    // Cancels what waits, and gives up on what has started: those four keep the driver, and the last of them drops it, on one of
    // the driver's own threads.
    drop(bench);
    assert_eq!(Arc::strong_count(&gate), 2, "started calls still use the driver");
    gate.open();
    eventually("the driver is gone", || Arc::strong_count(&gate) == 1);
}

#[test]
fn threads_leave_when_there_is_nothing_to_do() {
    let f = file(b"f");
    let gate = Gate::new(&[]);
    let mut bench = Bench::on(&gate.backend(LIMITS));
    let mut bytes = [0u8; 32];
    submit_reads(&mut bench, &f, &mut bytes, 1);
    bench.reap(32);
    let threads = std::mem::take(&mut gate.state.lock().unwrap().threads);
    assert!(!threads.is_empty() && threads.len() <= LIMITS.threads);
    let alive =
        |pid: &rustix::thread::Pid| std::path::Path::new(&format!("/proc/self/task/{}", pid.as_raw_nonzero())).exists();
    eventually("all have left", || !threads.iter().any(alive));
    assert_eq!(bench.read(&f, 0, &mut bytes[..1], NONE), Ok(1), "and come again");
}

#[test]
fn threads_may_stay_for_ever() {
    let f = file(b"f");
    let gate = Gate::new(&[]);
    let mut bench = Bench::on(&gate.backend(Limits { threads: 1, idle: Duration::MAX, ..LIMITS }));
    for _ in 0..2 {
        assert_eq!(bench.entry(Fsync::new(target(&f)).build()), Ok(0));
    }
    drop(bench);
    eventually("they leave with the driver", || Arc::strong_count(&gate) == 1);
}

/// Each job gets a thread of its own, also when only one is asleep for several.
#[test]
fn one_sleeping_thread_is_not_promised_twice() {
    let slow = [file(b"s")];
    let fast = file(b"f");
    let gate = Gate::new(&slow);
    let mut bench = Bench::on(&gate.backend(Limits { idle: Duration::from_secs(60), ..LIMITS }));
    let (mut first, mut second) = ([0u8], [0u8]);
    assert_eq!(bench.read(&fast, 0, &mut first, NONE), Ok(1));
    std::thread::sleep(Duration::from_millis(20));
    // SAFETY: the bytes outlive the completions, reaped below.
    unsafe { bench.0.submission().push_raw(read(&slow[0], 0, &mut first).user_data(1)) }.unwrap();
    // SAFETY: as above.
    unsafe { bench.0.submission().push_raw(read(&fast, 0, &mut second).user_data(2)) }.unwrap();
    bench.0.submit().unwrap();
    assert_eq!(bench.reap(1)[0].user_data(), 2);
    gate.open();
    assert_eq!(bench.reap(1)[0].user_data(), 1);
}

/// Threads that come and go all the time, on files in lanes that are full all the time: every operation completes.
#[test]
fn no_wake_up_is_lost() {
    for (threads, per_file, reserve) in [(1, 1, 0), (3, 2, 1), (8, 1, 0), (4, 4, 3)] {
        let files: Vec<File> = (0..3).map(|_| file(b"f")).collect();
        let gate = Gate::new(&[]);
        let backend = gate.backend(Limits { threads, per_file, in_turn: 1, reserve, idle: Duration::from_micros(50) });
        std::thread::scope(|scope| {
            for seed in 1..3 {
                let (backend, files) = (&backend, &files);
                scope.spawn(move || {
                    let mut bench = Bench::on(backend);
                    let mut random = common::Random(seed);
                    let mut bytes = [0u8; 32];
                    for _ in 0..500 {
                        let count = 1 + random.below(32) as usize;
                        submit_reads(&mut bench, &files[random.below(3) as usize], &mut bytes[..count], 1);
                        assert!(bench.reap(count as u32).iter().all(|completion| completion.result() == Ok(1)));
                    }
                });
            }
        });
    }
}

fn eventually(what: &str, is: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !is() {
        assert!(Instant::now() < until, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Reads and writes a part at once; the rest waits, and may fail.
struct Partly {
    /// Bytes at once.
    part: u64,
    /// What becomes of the rest, if not its own result.
    rest: Option<Errno>,
}

impl Partly {
    fn cut(&self, segments: &[Segment], wait: bool) -> Result<Vec<Segment>, Errno> {
        if wait && let Some(errno) = self.rest {
            return Err(errno);
        }
        let mut left = if wait { u64::MAX } else { self.part };
        let cut = segments.iter().map(|segment| {
            let len = segment.len.min(left);
            left -= len;
            Segment { addr: segment.addr, len }
        });
        Ok(cut.collect())
    }
}

impl FileIo for Partly {
    unsafe fn look(&self, target: usize, what: What) -> Result<Found, Errno> {
        // SAFETY: the caller's contract.
        unsafe { System.look(target, what) }
    }

    unsafe fn read(&self, target: usize, off: u64, to: &[Segment], wait: bool) -> Result<usize, Errno> {
        let part = self.cut(to, wait)?;
        // SAFETY: the caller's contract, and these are parts of the segments.
        unsafe { System.read(target, off, &part, true) }
    }

    unsafe fn write(&self, target: usize, off: u64, from: &[Segment], wait: bool) -> Result<usize, Errno> {
        let part = self.cut(from, wait)?;
        // SAFETY: the caller's contract, and these are parts of the segments.
        unsafe { System.write(target, off, &part, true) }
    }

    unsafe fn sync(&self, _: usize, _: bool) -> Result<(), Errno> {
        Err(Errno::EIO)
    }
}

fn partly(part: u64, rest: Option<Errno>) -> Bench {
    let driver = sq_file::File::new(Threads::new(Partly { part, rest }, LIMITS));
    Bench::on(&Backend::embedded(driver).unwrap())
}

#[test]
fn the_rest_goes_on_where_the_first_part_ended() {
    use liburing_shm::opcode::{Readv, Writev};
    use sq_uapi::SqIovec;
    let content: Vec<u8> = (0..30).collect();
    for part in 1..30 {
        let mut bench = partly(part, None);
        let f = file(&[]);
        let mut from = content.clone();
        let mut to = [0xeeu8; 40];
        let iovecs = |bytes: &mut [u8]| -> Vec<SqIovec> {
            let pieces = bytes.chunks_mut(7);
            pieces
                .map(|piece| SqIovec { base: piece.as_mut_ptr().expose_provenance() as u64, len: piece.len() as u64 })
                .collect()
        };
        let vector = iovecs(&mut from);
        let write = Writev::new(target(&f), vector.as_ptr(), vector.len() as u32).offset(3).build();
        assert_eq!(bench.entry(write), Ok(30), "part {part}");
        let vector = iovecs(&mut to);
        let read = Readv::new(target(&f), vector.as_ptr(), vector.len() as u32).offset(3).build();
        assert_eq!(bench.entry(read), Ok(30), "part {part}");
        assert_eq!(to[..30], content, "part {part}");
        assert_eq!(to[30..], [0xee; 10], "part {part}");
    }
}

#[test]
fn an_error_counts_if_nothing_came_before_it() {
    let f = file(&[5; 100]);
    let mut to = [0u8; 50];
    for errno in [Errno::EIO, Errno::ENOSPC, Errno::new(122).unwrap()] {
        let mut bench = partly(20, Some(errno));
        assert_eq!(bench.read(&f, 0, &mut to, NONE), Ok(20), "a part was read at once");
        assert_eq!(bench.read(&f, 0, &mut to, SqeFlags::ASYNC), Err(errno));
        assert_eq!(bench.entry(Write::new(target(&f), to.as_ptr(), 50).build().flags(SqeFlags::ASYNC)), Err(errno));
        assert_eq!(bench.entry(Fsync::new(target(&f)).build()), Err(Errno::EIO));
    }
}

/// Calls panic, until they do not any more.
struct Panics(Arc<AtomicBool>);

impl Panics {
    fn or(&self) {
        if self.0.load(Ordering::Relaxed) {
            // A panic without its message.
            std::panic::resume_unwind(Box::new(()));
        }
    }
}

impl FileIo for Panics {
    unsafe fn look(&self, target: usize, what: What) -> Result<Found, Errno> {
        // SAFETY: the caller's contract.
        unsafe { System.look(target, what) }
    }

    unsafe fn read(&self, target: usize, off: u64, to: &[Segment], wait: bool) -> Result<usize, Errno> {
        if !wait {
            return Err(Errno::EAGAIN);
        }
        self.or();
        // SAFETY: the caller's contract.
        unsafe { System.read(target, off, to, wait) }
    }

    unsafe fn write(&self, target: usize, off: u64, from: &[Segment], wait: bool) -> Result<usize, Errno> {
        if !wait {
            return Err(Errno::EAGAIN);
        }
        self.or();
        // SAFETY: the caller's contract.
        unsafe { System.write(target, off, from, wait) }
    }

    unsafe fn sync(&self, _: usize, _: bool) -> Result<(), Errno> {
        self.or();
        Ok(())
    }
}

/// With one thread, and one at a time of a file: what is counted wrong once, is too little for all that follows.
#[test]
fn a_call_that_panics_is_an_error_and_no_more() {
    let panics = Arc::new(AtomicBool::new(true));
    let limits = Limits { threads: 1, per_file: 1, in_turn: 1, reserve: 0, ..LIMITS };
    let driver = sq_file::File::new(Threads::new(Panics(Arc::clone(&panics)), limits));
    let mut bench = Bench::on(&Backend::embedded(driver).unwrap());
    let f = file(b"f");
    let mut bytes = [0u8; 20];
    submit_reads(&mut bench, &f, &mut bytes, 1);
    assert!(bench.reap(20).iter().all(|completion| completion.result() == Err(Errno::EIO)));
    assert_eq!(bench.write(&f, 0, b"g", NONE), Err(Errno::EIO));
    assert_eq!(bench.entry(Fsync::new(target(&f)).build()), Err(Errno::EIO));
    panics.store(false, Ordering::Relaxed);
    submit_reads(&mut bench, &f, &mut bytes, 1);
    assert!(bench.reap(20).iter().all(|completion| completion.result() == Ok(1)));
    assert_eq!(bench.write(&f, 0, b"g", NONE), Ok(1));
    assert_eq!(bench.entry(Fsync::new(target(&f)).build()), Ok(0));
    assert_eq!(bytes, [b'f'; 20]);
}

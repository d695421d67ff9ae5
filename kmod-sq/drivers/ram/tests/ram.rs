// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ram driver, through a ring: in this process, or with SQ_BACKEND=device the loaded one.

use std::sync::{Mutex, MutexGuard, PoisonError};

use liburing_shm::opcode::{Fsync, LentFd, Read, ReadFixed, Readv, Target, Write, WriteFixed, Writev};
use liburing_shm::{Backend, Entry, Errno, RawEntry, Ring, SqeFlags};
use sq_uapi::SqIovec;

/// The guest loads the module with as many.
const SIZE: usize = 64 << 10;
const END: u64 = SIZE as u64;
const BUFFER: u32 = 16 << 10;

/// A store for one test.
struct Ram {
    backend: Backend,
    /// There is one loaded store, and the tests take turns.
    _turn: Option<MutexGuard<'static, ()>>,
}

impl Ram {
    fn new() -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        if std::env::var_os("SQ_BACKEND").is_none_or(|value| value != "device") {
            let backend = Backend::embedded(sq_ram::Ram::in_process(SIZE).unwrap()).unwrap();
            return Self { backend, _turn: None };
        }
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let ram = Self { backend: Backend::device("/dev/sqram"), _turn: Some(turn) };
        assert_eq!(ram.bench().write(0, &[0; SIZE], NONE), Ok(END as u32));
        ram
    }

    fn bench(&self) -> Bench {
        Bench(Ring::builder(16).pool(2, BUFFER).build(&self.backend).unwrap())
    }
}

struct Bench(Ring);

impl Bench {
    fn entry(&mut self, entry: impl Into<RawEntry>) -> Result<u32, Errno> {
        // SAFETY: every caller's memory stays until this has reaped the completion.
        unsafe { self.0.submission().push_raw(entry.into().user_data(7)) }.unwrap();
        self.0.submit_and_wait(1).unwrap();
        let mut all = self.0.completion().reap();
        let completion = all.next().expect("a completion");
        assert_eq!(completion.user_data(), 7);
        assert_eq!(all.next(), None);
        completion.result()
    }

    fn read(&mut self, off: u64, to: &mut [u8], flags: SqeFlags) -> Result<u32, Errno> {
        let len = u32::try_from(to.len()).unwrap();
        self.entry(Read::new(Target::Device, to.as_mut_ptr(), len).offset(off).build().flags(flags))
    }

    fn write(&mut self, off: u64, from: &[u8], flags: SqeFlags) -> Result<u32, Errno> {
        let len = u32::try_from(from.len()).unwrap();
        self.entry(Write::new(Target::Device, from.as_ptr(), len).offset(off).build().flags(flags))
    }

    fn pool(&self) -> liburing_shm::Pool {
        self.0.submitter().pool().unwrap()
    }
}

const NONE: SqeFlags = SqeFlags::empty();

#[test]
fn fresh_memory_is_zero_and_keeps_what_is_written() {
    let ram = Ram::new();
    let mut bench = ram.bench();
    let mut all = vec![1u8; SIZE];
    assert_eq!(bench.read(0, &mut all, NONE), Ok(END as u32));
    assert!(all.iter().all(|&byte| byte == 0));
    for flags in [NONE, SqeFlags::ASYNC] {
        assert_eq!(bench.write(100, b"some bytes", flags), Ok(10));
        let mut back = [0u8; 12];
        assert_eq!(bench.read(99, &mut back, flags), Ok(12));
        assert_eq!(&back, b"\0some bytes\0");
    }
    assert_eq!(bench.entry(Fsync::new(Target::Device).build()), Ok(0));
}

#[test]
fn the_end_is_where_it_is() {
    let ram = Ram::new();
    let mut bench = ram.bench();
    let (mut to, from) = ([0u8; 32], [9u8; 32]);
    for flags in [NONE, SqeFlags::ASYNC] {
        // (offset, what a read of 32 bytes gives, what a write of 32 bytes gives)
        for (off, read, write) in [
            (END - 32, Ok(32), Ok(32)),
            (END - 31, Ok(31), Ok(31)),
            (END - 1, Ok(1), Ok(1)),
            (END, Ok(0), Err(Errno::ENOSPC)),
            (END + 1, Ok(0), Err(Errno::ENOSPC)),
            (i64::MAX as u64, Ok(0), Err(Errno::ENOSPC)),
            (i64::MAX as u64 + 1, Err(Errno::EINVAL), Err(Errno::EINVAL)),
            (u64::MAX, Err(Errno::EINVAL), Err(Errno::EINVAL)),
        ] {
            assert_eq!(bench.write(off, &from, flags), write, "write at {off:#x}");
            to.fill(0);
            assert_eq!(bench.read(off, &mut to, flags), read, "read at {off:#x}");
            let got = read.unwrap_or(0) as usize;
            assert_eq!(to[..got], from[..got]);
            assert!(to[got..].iter().all(|&byte| byte == 0), "bytes behind a short read are left alone");
        }
        // Nothing is nothing, wherever.
        for off in [0, END, END + 1] {
            assert_eq!(bench.read(off, &mut [], flags), Ok(0));
            assert_eq!(bench.write(off, &[], flags), Ok(0));
        }
    }
}

#[test]
fn vectors_are_transferred_in_order_and_cut_at_the_end() {
    let ram = Ram::new();
    let mut bench = ram.bench();
    let iovec =
        |bytes: &mut [u8]| SqIovec { base: bytes.as_mut_ptr().expose_provenance() as u64, len: bytes.len() as u64 };
    let (mut a, mut b, mut c) = (*b"abc", *b"", *b"defgh");
    let from = [iovec(&mut a), iovec(&mut b), iovec(&mut c)];
    assert_eq!(bench.entry(Writev::new(Target::Device, from.as_ptr(), 3).offset(END - 8).build()), Ok(8));
    assert_eq!(bench.entry(Writev::new(Target::Device, from.as_ptr(), 3).offset(END - 6).build()), Ok(6));
    let (mut d, mut e) = ([0u8; 5], [b'.'; 5]);
    let to = [iovec(&mut d), iovec(&mut e)];
    assert_eq!(bench.entry(Readv::new(Target::Device, to.as_ptr(), 2).offset(END - 8).build()), Ok(8));
    assert_eq!((&d, &e), (b"ababc", b"def.."));
    assert_eq!(bench.entry(Readv::new(Target::Device, to.as_ptr(), 0).build()), Ok(0));
}

#[test]
fn the_rings_own_buffers() {
    let ram = Ram::new();
    let mut bench = ram.bench();
    let pool = bench.pool();
    pool.write(0, 5, b"pooled").unwrap();
    let fixed = |entry: Entry| RawEntry::from(entry);
    assert_eq!(bench.entry(fixed(WriteFixed::new(Target::Device, 0, 5, 6).offset(4096).build())), Ok(6));
    let read = ReadFixed::new(Target::Device, 1, 100, 8).offset(4095).build();
    assert_eq!(bench.entry(fixed(read)), Ok(8));
    assert_eq!(bench.entry(fixed(read.flags(SqeFlags::ASYNC))), Ok(8));
    let mut back = [0u8; 8];
    pool.read(1, 100, &mut back).unwrap();
    assert_eq!(&back, b"\0pooled\0");
    // Outside the buffer is the framework's to refuse.
    assert_eq!(bench.entry(fixed(ReadFixed::new(Target::Device, 1, BUFFER - 7, 8).build())), Err(Errno::EFAULT));
    assert_eq!(bench.entry(fixed(ReadFixed::new(Target::Device, 2, 0, 8).build())), Err(Errno::EFAULT));
}

#[test]
fn a_bad_address_is_refused() {
    let ram = Ram::new();
    let mut bench = ram.bench();
    let null = std::ptr::without_provenance_mut::<u8>(8);
    assert_eq!(bench.entry(Read::new(Target::Device, null, 8).build()), Err(Errno::EFAULT));
    assert_eq!(bench.entry(Write::new(Target::Device, null, 8).build()), Err(Errno::EFAULT));
    // The store has one target.
    // SAFETY: refused before it is looked up.
    let lent = unsafe { LentFd::new(0) };
    assert_eq!(bench.entry(Read::new(Target::Fd(lent), null, 8).build()), Err(Errno::EINVAL));
}

#[test]
fn two_rings_share_the_store() {
    let ram = Ram::new();
    assert_eq!(ram.backend.query().unwrap().target_bytes, END);
    let (mut one, mut two) = (ram.bench(), ram.bench());
    assert_eq!(one.write(1, b"across", NONE), Ok(6));
    let mut back = [0u8; 6];
    assert_eq!(two.read(1, &mut back, NONE), Ok(6));
    assert_eq!(&back, b"across");
}

#[test]
fn sizes_that_cannot_be() {
    assert_eq!(sq_ram::Heap::new(0).unwrap_err(), Errno::EINVAL);
    assert_eq!(sq_ram::Heap::new(usize::MAX).unwrap_err(), Errno::ENOMEM);
    assert_eq!(sq_ram::Heap::new(1 << 60).unwrap_err(), Errno::ENOMEM);
}

/// Every operation is done twice: through the ring, and on a plain vector that knows nothing of rings.
#[test]
fn two_thousand_random_operations_agree_with_a_vector() {
    let ram = Ram::new();
    let mut bench = ram.bench();
    let pool = bench.pool();
    let mut model = vec![0u8; SIZE];
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    for step in 0..2000 {
        let off = random(END + 2000);
        let len = random(u64::from(BUFFER)) as usize;
        let inside = len.min(SIZE.saturating_sub(off as usize));
        let at = off.min(END) as usize;
        let flags = if random(4) == 0 { SqeFlags::ASYNC } else { NONE };
        let fixed = random(2) == 0;
        if random(2) == 0 {
            let from: Vec<u8> = (0..len).map(|_| random(256) as u8).collect();
            let expected = if inside == 0 && len > 0 { Err(Errno::ENOSPC) } else { Ok(inside as u32) };
            let got = if fixed {
                pool.write(0, 0, &from).unwrap();
                bench.entry(WriteFixed::new(Target::Device, 0, 0, len as u32).offset(off).build().flags(flags))
            } else {
                bench.write(off, &from, flags)
            };
            assert_eq!(got, expected, "step {step}: write of {len} at {off}");
            model[at..at + inside].copy_from_slice(&from[..inside]);
        } else {
            let mut to = vec![0xeeu8; len];
            let got = if fixed {
                pool.write(1, 0, &to).unwrap();
                let got =
                    bench.entry(ReadFixed::new(Target::Device, 1, 0, len as u32).offset(off).build().flags(flags));
                pool.read(1, 0, &mut to).unwrap();
                got
            } else {
                bench.read(off, &mut to, flags)
            };
            assert_eq!(got, Ok(inside as u32), "step {step}: read of {len} at {off}");
            assert_eq!(to[..inside], model[at..at + inside], "step {step}");
            assert!(to[inside..].iter().all(|&byte| byte == 0xee), "step {step}");
        }
    }
    let mut all = vec![0u8; SIZE];
    assert_eq!(bench.read(0, &mut all, NONE), Ok(END as u32));
    assert_eq!(all, model);
}

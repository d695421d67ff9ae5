// SPDX-License-Identifier: MIT OR Apache-2.0
//! SNAP-1, SNAP-2: a kernel side that validates an entry and then looks at it again is found, by the memory's oracle, by random
//! programs that know no oracle, and by a second thread on real memory. The real one is not.
#![cfg(not(loom))]

use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant};

use kmod_sq::{Geometry, RingRef};
use sq_conformance::checkers::hostile::{Access, HostileMem, UserSide};
use sq_conformance::checkers::hostile_host::{HostileHost, ring_bound};
use sq_conformance::checkers::program::Program;
use sq_conformance::checkers::slots::WriteSqe;
use sq_conformance::checkers::vulnerable::{self, look_again};
use sq_conformance::checkers::world::{Flaw, bytes_of, run_with};
use sq_driver::{Bound, Driver, Issued, Op, Opcodes, RequestId, op};
use sq_uapi::consts::register_op;
use sq_uapi::{Fence, KernelMem, KernelWord, Mapped, Parts, SqRegister, SqSetup, Sqe, UserMem, UserWord};

/// A driver that counts the commands that it is given.
struct Commands(AtomicU64);

impl Driver for Commands {
    const NAME: &'static core::ffi::CStr = c"commands";
    const OPCODES: Opcodes = Opcodes::NONE.with(op::NOP).with(op::CMD);

    fn issue<'op>(&self, op: Op<'op>) -> Issued<'op> {
        self.0.fetch_add(u64::from(op.entry().opcode() == op::CMD), Relaxed);
        op.done(0)
    }

    fn cancel(&self, _: RequestId) {}
}

fn ring<M: KernelMem + Send + Sync + 'static>(
    mem: M,
    driver: &'static Commands,
    vulnerable: bool,
) -> RingRef<HostileHost<M>> {
    let table = if vulnerable { vulnerable::table::<Commands>() } else { sq_driver::table::<Commands>() };
    // SAFETY: both tables expect a Commands, and this one is static.
    let bound = unsafe { Bound::new(table, std::ptr::from_ref(driver).cast()) }.unwrap();
    // SAFETY: there is no pool.
    unsafe { ring_bound(geometry(), mem, 0, bound) }.unwrap()
}

fn geometry() -> Geometry {
    Geometry::new(&SqSetup { sq_entries: 1, ..SqSetup::default() }).unwrap()
}

/// In this process the oracle's panic would end the test: it is raised inside a driver's call. So another one looks again, and this one
/// hears what it says.
#[test]
fn snap1_the_oracle_finds_a_second_look() {
    if std::env::var_os("SQ_LOOK_AGAIN").is_some() {
        let mem = HostileMem::new(1, 2, Box::new(|_: Access, _: &mut UserSide| ()));
        let slots = mem.clone();
        look_again(Some(Rc::new(move || slots.copy_sqe(slots.last_copied()))));
        static DRIVER: Commands = Commands(AtomicU64::new(0));
        mem.write_sqe(0, Sqe::NOP.to_words());
        mem.store_user(UserWord::SqTail, 1);
        let _ = ring(mem, &DRIVER, true).doorbell();
        return;
    }
    let mut again = std::process::Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", "--nocapture", "snap1_the_oracle_finds_a_second_look"]).env("SQ_LOOK_AGAIN", "1");
    let output = again.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "a second look goes unnoticed");
    assert!(text.contains("SNAP-1: each entry is copied once"), "{text}");
}

/// The same programs that the real kernel side passes in `hostile_memory`. `cargo xtask fuzz` shows it of the fuzz target.
#[test]
fn snap2_random_programs_find_a_second_look() {
    // The expected panic is not news.
    std::panic::set_hook(Box::new(|_| ()));
    let found = (0..3000).find(|seed| {
        let program = Program::of_bytes(&bytes_of(*seed, 100 + (*seed % 7) as usize * 200)).unwrap();
        std::panic::catch_unwind(|| run_with(program, Flaw::SecondLook)).is_err()
    });
    let _ = std::panic::take_hook();
    println!("found by seed {found:?}");
    assert!(found.is_some(), "3000 programs have not found it");
}

/// Real memory, which remembers what was copied last.
#[derive(Clone)]
struct Shared {
    mem: Arc<Mapped>,
    last: Arc<AtomicU32>,
}

impl KernelMem for Shared {
    type Place<'a> = <Mapped as KernelMem>::Place<'a>;

    fn load_user(&self, word: UserWord) -> u32 {
        self.mem.load_user(word)
    }

    fn store_kernel(&self, word: KernelWord, value: u32) {
        self.mem.store_kernel(word, value);
    }

    fn sqe_run(&self, head: u32, most: u32) -> impl ExactSizeIterator<Item = [u64; 8]> {
        (0..u32::MAX).zip(self.mem.sqe_run(head, most)).map(move |(n, words)| {
            self.last.store(head.wrapping_add(n), Relaxed);
            words
        })
    }

    fn copy_sqe_tail(&self, index: u32) -> [u64; 8] {
        self.mem.copy_sqe_tail(index)
    }

    fn cqe_run(&self, tail: u32, most: u32) -> impl ExactSizeIterator<Item = Self::Place<'_>> {
        self.mem.cqe_run(tail, most)
    }

    fn kernel_fence(&self, site: Fence) {
        self.mem.kernel_fence(site);
    }
}

/// A region of a ring, for good.
fn region(bytes: u64) -> NonNull<u8> {
    let words = Vec::leak(vec![0u64; usize::try_from(bytes / 8).unwrap()]);
    NonNull::from(words).cast()
}

/// Rings at most so often, while another thread turns a NOP into a command, which the ring has given up, and back. Returns how often it
/// rang, and how many commands came to the driver; with `until_won` the first is the last.
fn attack(driver: &'static Commands, vulnerable: bool, most: u64, until_won: bool) -> (u64, u64) {
    let geometry = geometry();
    let (user, kernel) = (region(geometry.user.size), region(geometry.kernel.size));
    let parts = Parts {
        user,
        kernel,
        offsets: geometry.offsets,
        sq_entries: geometry.sq_entries,
        cq_entries: geometry.cq_entries,
        sqe128: false,
        cqe32: false,
    };
    // SAFETY: both regions are as long as the geometry says, and stay. Entries are written atomically only, below.
    let mem = Shared { mem: Arc::new(unsafe { Mapped::new(parts) }), last: Arc::default() };
    let slots = mem.clone();
    look_again(
        vulnerable.then(|| {
            Rc::new(move || slots.mem.sqe_run(slots.last.load(Relaxed), 1).next().unwrap()) as vulnerable::Look
        }),
    );
    let ring = ring(mem.clone(), driver, vulnerable);
    let nop_only = SqRegister { op: register_op::ALLOW_OPCODES, arg: 0x2000, nr: 1, ..SqRegister::default() };
    ring.host().allow.store(1 << op::NOP, SeqCst);
    ring.register(&nop_only).unwrap();

    // SAFETY: the entries lie inside the user region.
    let slot = unsafe { user.add(geometry.offsets.sqes as usize) };
    // SAFETY: aligned, mapped for good, and accessed atomically by everybody.
    let word0: &'static AtomicU64 = unsafe { slot.cast::<AtomicU64>().as_ref() };
    let [nop, command] = [op::NOP, op::CMD].map(|opcode| Sqe { opcode, ..Sqe::NOP }.to_words()[0]);
    let stop = AtomicBool::new(false);
    let started = Instant::now();
    let mut rung = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                word0.store(nop, Relaxed);
                word0.store(command, Relaxed);
            }
        });
        while rung < most && !(until_won && driver.0.load(Relaxed) > 0) && started.elapsed() < Duration::from_secs(100)
        {
            rung += 1;
            mem.mem.store_user(UserWord::SqTail, rung as u32);
            assert_eq!(ring.doorbell(), Ok(1));
            mem.mem.store_user(UserWord::CqHead, rung as u32);
        }
        stop.store(true, Relaxed);
    });
    look_again(None);
    assert_eq!(ring.stats().completions, rung);
    // Both were seen, or there was no attack. (Who wins with the first has seen one.)
    let rejected = ring.stats().rejected;
    assert!(until_won || (1..rung).contains(&rejected), "{rejected} of {rung}");
    (rung, driver.0.load(Relaxed))
}

#[test]
fn snap2_a_second_thread_breaks_into_a_second_look_and_not_into_ours() {
    static NAIVE: Commands = Commands(AtomicU64::new(0));
    static OURS: Commands = Commands(AtomicU64::new(0));
    let (tried, won) = attack(&NAIVE, true, u64::MAX, true);
    println!("second look: {won} in {tried} attempts");
    assert!(won > 0, "the attacker has not won in {tried} attempts");
    // In a guest it is the same code, but slower.
    let least = if std::env::var_os("SQ_BACKEND").is_some() { 20_000 } else { 200_000 };
    let (tried, won) = attack(&OURS, false, tried.max(least), false);
    println!("ours: {won} in {tried} attempts");
    assert_eq!(won, 0, "a command that the ring has given up came to its driver");
}

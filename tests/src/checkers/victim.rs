// SPDX-License-Identifier: MIT OR Apache-2.0
//! Somebody to [`attack`](super::attack) in a process: an entry in memory that another thread writes, and who takes it. It may be a NOP or
//! a command, and commands are refused.

use std::convert::Infallible;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use kmod_sq::{Geometry, RingRef};
use sq_driver::{Bound, Driver, Errno, Issued, Op, Opcodes, RequestId, op};
use sq_uapi::consts::register_op;
use sq_uapi::{Cqe, Fence, KernelMem, KernelWord, Mapped, Parts, SqRegister, SqSetup, Sqe, UserMem, UserWord};

use super::attack::{Attempt, Count, attack};
use super::hostile_host::{HostileHost, ring_bound};
use super::vulnerable::{self, look_again};

/// Who takes the entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handler {
    /// The mistake: all of it is checked where it lies, and then used where it lies.
    InPlace,
    /// A ring that checks its copy, and has its driver look at the slot again: see [`vulnerable`].
    SecondLook,
    /// A ring as it is.
    Ours,
}

/// A driver that counts the commands that it is given.
#[derive(Debug, Default)]
struct Commands(AtomicU64);

impl Driver for Commands {
    const NAME: &'static core::ffi::CStr = c"commands";
    const OPCODES: Opcodes = Opcodes::NONE.with(op::NOP).with(op::CMD);

    fn issue<'op>(&self, op: Op<'op>) -> Issued<'op> {
        let res = self.issue_opcode(op.entry().opcode());
        op.done(res)
    }

    fn cancel(&self, _: RequestId) {}
}

impl Commands {
    fn issue_opcode(&self, opcode: u8) -> i32 {
        self.0.fetch_add(u64::from(opcode == op::CMD), Relaxed);
        0
    }
}

/// How long the entry stays what it is, in turns of a loop: about as long as a processor takes to get it from the other.
const MOMENT: u32 = 20;

/// Whoever is attacked. Its memory is never freed: the attacker may be slow.
pub struct Victim {
    commands: &'static Commands,
    slot: &'static [AtomicU64; 8],
    /// Has the entry taken; its result.
    take: Box<dyn FnMut() -> i32>,
}

impl Victim {
    /// One, with its entry. One at a time on each thread, which makes all attempts.
    ///
    /// # Panics
    ///
    /// Out of memory.
    #[must_use]
    pub fn new(handler: Handler) -> Self {
        let geometry = Geometry::new(&SqSetup { sq_entries: 1, ..SqSetup::default() }).expect("a shape that there is");
        let (user, kernel) = (region(geometry.user.size), region(geometry.kernel.size));
        // SAFETY: the entries lie inside the user region.
        let slot = unsafe { user.add(geometry.offsets.sqes as usize) };
        // SAFETY: aligned, there for good, and accessed atomically by everybody.
        let slot: &'static [AtomicU64; 8] = unsafe { slot.cast().as_ref() };
        slot.iter().zip(Sqe::NOP.to_words()).for_each(|(word, value)| word.store(value, Relaxed));
        let commands: &'static Commands = Box::leak(Box::default());
        let parts = Parts {
            user,
            kernel,
            offsets: geometry.offsets,
            sq_entries: geometry.sq_entries,
            cq_entries: geometry.cq_entries,
            sqe128: false,
            cqe32: false,
        };
        let take: Box<dyn FnMut() -> i32> = match handler {
            Handler::InPlace => Box::new(|| check_and_use(slot, commands)),
            // SAFETY: both regions are as long as the geometry says, and stay. The entry is written atomically only.
            _ => Box::new(ring(geometry, unsafe { Mapped::new(parts) }, commands, handler)),
        };
        Self { commands, slot, take }
    }

    /// Is attacked, while `more`.
    pub fn attacked(&mut self, more: impl FnMut(&Count) -> bool) -> Count {
        let Ok(count) = attack(self.flip(), more, || Ok::<_, Infallible>(self.attempt()));
        count
    }

    /// What the attacker does: the entry is a NOP, and a command again. Each stays for a moment, or it would hardly be seen.
    fn flip(&self) -> impl Fn() + Sync + use<> {
        let word = &self.slot[0];
        let [nop, command] = [op::NOP, op::CMD].map(|opcode| Sqe { opcode, ..Sqe::NOP }.to_words()[0]);
        move || {
            for value in [nop, command] {
                word.store(value, Relaxed);
                (0..MOMENT).for_each(|_| std::hint::spin_loop());
            }
        }
    }

    /// Has the entry taken, as it happens to be.
    fn attempt(&mut self) -> Attempt {
        let before = self.commands.0.load(Relaxed);
        let res = (self.take)();
        match (self.commands.0.load(Relaxed) - before, res) {
            (0, 0) => Attempt::Accepted,
            (0, _) => Attempt::Refused,
            _ => Attempt::Won,
        }
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        look_again(None);
    }
}

/// A region of a ring, for good.
fn region(bytes: u64) -> NonNull<u8> {
    let words = Vec::leak(vec![0u64; usize::try_from(bytes / 8).expect("it fits in memory")]);
    NonNull::from(words).cast()
}

/// Takes an entry as it should not be done.
fn check_and_use(slot: &[AtomicU64; 8], commands: &Commands) -> i32 {
    let load = |n: usize| slot[n].load(Relaxed);
    let nop = Sqe::NOP.to_words();
    // `user_data` may be anything.
    if (0..8).any(|n| n != 4 && load(n) != nop[n]) {
        return Errno::EOPNOTSUPP.to_res();
    }
    // It was checked. It may have changed.
    commands.issue_opcode(Sqe::from_words([load(0), 0, 0, 0, 0, 0, 0, 0]).opcode)
}

/// Takes entries by a ring that has given up commands.
fn ring(
    geometry: Geometry,
    mapped: Mapped,
    commands: &'static Commands,
    handler: Handler,
) -> impl FnMut() -> i32 + use<> {
    let mem = Shared { mem: Arc::new(mapped), last: Arc::default() };
    let slots = mem.clone();
    let second = handler == Handler::SecondLook;
    look_again(second.then(|| {
        Rc::new(move || slots.mem.sqe_run(slots.last.load(Relaxed), 1).next().expect("a slot")) as vulnerable::Look
    }));
    let table = if second { vulnerable::table::<Commands>() } else { sq_driver::table::<Commands>() };
    // SAFETY: both tables expect a Commands, and this one is static.
    let bound = unsafe { Bound::new(table, std::ptr::from_ref(commands).cast()) }.expect("a table of this version");
    // SAFETY: there is no pool.
    let ring: RingRef<HostileHost<Shared>> = unsafe { ring_bound(geometry, mem.clone(), 0, bound) }.expect("memory");
    let nop_only = SqRegister { op: register_op::ALLOW_OPCODES, arg: 0x2000, nr: 1, ..SqRegister::default() };
    ring.host().allow.store(1 << op::NOP, SeqCst);
    ring.register(&nop_only).expect("opcodes can be given up");
    let mut tail = 0u32;
    move || {
        let index = tail;
        tail = tail.wrapping_add(1);
        mem.mem.store_user(UserWord::SqTail, tail);
        assert_eq!(ring.doorbell(), Ok(1));
        assert_eq!(mem.mem.load_kernel(KernelWord::CqTail), tail, "SUB-2: an entry has one completion");
        let [a, b, ..] = mem.mem.read_cqe(index);
        mem.mem.store_user(UserWord::CqHead, tail);
        Cqe::from_words([a, b]).res
    }
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

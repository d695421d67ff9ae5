// SPDX-License-Identifier: MIT OR Apache-2.0
//! A ring's memory in a model that shuttle runs.
//!
//! Shuttle runs one thread at a time, so every access is sequentially consistent, and no ordering of an atomic can be found to be too
//! weak. But the words of the handshakes have a store buffer: what `sq_tail`, `cq_head` and `sq_state` were set to is seen by the other side
//! after a fence, or sooner, at random. So a fence that is left out is found.

use std::sync::Arc;
use std::sync::atomic::AtomicU32 as PlainU32;

use shuttle::rand::{Rng, thread_rng};
use shuttle::sync::atomic::{AtomicU32, Ordering::SeqCst};
use sq_uapi::{CqePlace, Fence, KernelMem, KernelWord, UserMem, UserWord};

use super::model_sync::UnsafeCell;
use super::slots::{Slots, WriteSqe};

/// What is wrong with a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weaken {
    /// Nothing: the protocol as it is.
    Nothing,
    /// This fence is left out.
    Fence(Fence),
    /// One completion in eleven is the one before once more.
    Twice,
    /// No waiter is ever woken.
    Deaf,
    /// The driver does not hear of one cancel in three.
    DeafDriver,
}

impl Weaken {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Nothing,
        Self::Fence(Fence::BellKernel),
        Self::Fence(Fence::BellUser),
        Self::Fence(Fence::BlockedKernel),
        Self::Fence(Fence::BlockedUser),
        Self::Fence(Fence::PostKernel),
        Self::Fence(Fence::WatchKernel),
        Self::Twice,
        Self::Deaf,
        Self::DeafDriver,
    ];
}

/// A word, and what its writer has stored and others may not see yet.
#[derive(Default)]
struct Word {
    /// Where other threads may have their turn: before each access, not within it.
    turn: AtomicU32,
    seen: PlainU32,
    stored: PlainU32,
}

impl Word {
    fn flush(&self) {
        self.turn.load(SeqCst);
        self.drain();
    }

    fn drain(&self) {
        self.seen.store(self.stored.load(SeqCst), SeqCst);
    }

    fn store(&self, value: u32) {
        self.turn.load(SeqCst);
        self.stored.store(value, SeqCst);
    }

    fn load(&self) -> u32 {
        self.turn.load(SeqCst);
        if thread_rng().gen_range(0..4u32) == 0 {
            self.drain();
        }
        self.seen.load(SeqCst)
    }
}

/// The memory: one value for each half, over the same words.
#[derive(Clone)]
pub struct ShuttleMem(Arc<Shared>);

struct Shared {
    weaken: Weaken,
    sq_tail: Word,
    cq_head: Word,
    sq_state: Word,
    cq_flags: AtomicU32,
    sq_head: AtomicU32,
    cq_tail: AtomicU32,
    broken: AtomicU32,
    written: AtomicU32,
    sqes: Box<[UnsafeCell<[u64; 8]>]>,
    cqes: Box<[UnsafeCell<[u64; 4]>]>,
}

// SAFETY: shuttle's threads run one at a time, and no access to a cell is interrupted.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl ShuttleMem {
    /// Zeroed memory of a ring. Both counts are powers of two.
    #[must_use]
    pub fn new(sq_entries: u32, cq_entries: u32, weaken: Weaken) -> Self {
        let word = || AtomicU32::new(0);
        Self(Arc::new(Shared {
            weaken,
            sq_tail: Word::default(),
            cq_head: Word::default(),
            sq_state: Word::default(),
            cq_flags: word(),
            sq_head: word(),
            cq_tail: word(),
            broken: word(),
            written: word(),
            sqes: (0..sq_entries).map(|_| UnsafeCell::new([0; 8])).collect(),
            cqes: (0..cq_entries).map(|_| UnsafeCell::new([0; 4])).collect(),
        }))
    }

    /// What a locked operation of the user half does, as the one that takes the drain in its own context.
    pub fn flush_user(&self) {
        self.0.sq_tail.flush();
        self.0.cq_head.flush();
    }

    /// What was done before anybody else saw the ring.
    pub fn flush_setup(&self) {
        self.0.sq_state.flush();
    }

    fn is_whole(&self, site: Fence) -> bool {
        self.0.weaken != Weaken::Fence(site)
    }

    fn sqe(&self, index: u32) -> &UnsafeCell<[u64; 8]> {
        &self.0.sqes[index as usize & (self.0.sqes.len() - 1)]
    }

    fn cqe(&self, index: u32) -> &UnsafeCell<[u64; 4]> {
        &self.0.cqes[index as usize & (self.0.cqes.len() - 1)]
    }
}

/// A completion's place.
pub struct Place<'a> {
    mem: &'a ShuttleMem,
    index: u32,
}

impl CqePlace for Place<'_> {
    fn write(self, [user_data, result]: [u64; 2]) {
        self.write_wide([user_data, result, 0, 0]);
    }

    fn write_wide(self, words: [u64; 4]) {
        let count = self.mem.0.written.fetch_add(1, SeqCst);
        let twice = self.mem.0.weaken == Weaken::Twice && count % 11 == 10;
        let words = if twice { self.mem.read_cqe(self.index.wrapping_sub(1)) } else { words };
        // SAFETY: see `Shared`.
        self.mem.cqe(self.index).with_mut(|place| unsafe { *place = words });
    }
}

impl WriteSqe for ShuttleMem {
    fn write_sqe(&self, index: u32, words: [u64; 8]) {
        // SAFETY: see `Shared`.
        self.sqe(index).with_mut(|place| unsafe { *place = words });
    }
}

impl KernelMem for ShuttleMem {
    type Place<'a> = Place<'a>;

    fn load_user(&self, word: UserWord) -> u32 {
        match word {
            UserWord::SqTail => self.0.sq_tail.load(),
            UserWord::CqHead => self.0.cq_head.load(),
            UserWord::CqFlags => self.0.cq_flags.load(SeqCst),
        }
    }

    fn store_kernel(&self, word: KernelWord, value: u32) {
        match word {
            KernelWord::SqHead => self.0.sq_head.store(value, SeqCst),
            KernelWord::SqState => self.0.sq_state.store(value),
            KernelWord::CqTail => self.0.cq_tail.store(value, SeqCst),
            KernelWord::Broken => self.0.broken.store(value, SeqCst),
        }
    }

    fn sqe_run(&self, head: u32, most: u32) -> impl ExactSizeIterator<Item = [u64; 8]> {
        let straight = self.0.sqes.len() as u32 - (head & (self.0.sqes.len() as u32 - 1));
        // SAFETY: see `Shared`.
        (0..most.min(straight)).map(move |n| self.sqe(head.wrapping_add(n)).with(|words| unsafe { *words }))
    }

    fn copy_sqe_tail(&self, _: u32) -> [u64; 8] {
        [0; 8]
    }

    fn cqe_run(&self, tail: u32, most: u32) -> impl ExactSizeIterator<Item = Place<'_>> {
        let straight = self.0.cqes.len() as u32 - (tail & (self.0.cqes.len() as u32 - 1));
        (0..most.min(straight)).map(move |n| Place { mem: self, index: tail.wrapping_add(n) })
    }

    fn kernel_fence(&self, site: Fence) {
        if self.is_whole(site) {
            self.0.sq_state.flush();
        }
    }
}

// SAFETY: slots are reached through the memory, by index, and the memory is kept by whoever has them.
unsafe impl UserMem for ShuttleMem {
    type Slots = Slots<Self>;

    fn sq_entries(&self) -> u32 {
        self.0.sqes.len() as u32
    }

    fn load_kernel(&self, word: KernelWord) -> u32 {
        match word {
            KernelWord::SqHead => self.0.sq_head.load(SeqCst),
            KernelWord::SqState => self.0.sq_state.load(),
            KernelWord::CqTail => self.0.cq_tail.load(SeqCst),
            KernelWord::Broken => self.0.broken.load(SeqCst),
        }
    }

    fn store_user(&self, word: UserWord, value: u32) {
        match word {
            UserWord::SqTail => self.0.sq_tail.store(value),
            UserWord::CqHead => self.0.cq_head.store(value),
            UserWord::CqFlags => self.0.cq_flags.store(value, SeqCst),
        }
    }

    fn slots(&self, tail: u32, room: u32) -> Slots<Self> {
        Slots::new(self.clone(), self.sq_entries(), tail, room)
    }

    unsafe fn write_sqe_tail(&self, _: u32, _: [u64; 8]) {}

    fn read_cqe(&self, index: u32) -> [u64; 4] {
        // SAFETY: see `Shared`.
        self.cqe(index).with(|words| unsafe { *words })
    }

    fn user_fence(&self, site: Fence) {
        if self.is_whole(site) {
            self.flush_user();
        }
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! A ring's memory in a loom model.
//!
//! The shared words are loom atomics with the orderings that they have in the real memory, `UserWord::store_order` and its like. The words
//! of entries and completions are relaxed there, and in an honest program only one side at a time touches a slot: here a slot is a loom
//! cell, which fails the model as soon as two accesses are not ordered. That is stricter than relaxed atomics, and explores fewer
//! interleavings. (What a dishonest program can do is `hostile`'s part.)

use std::sync::Arc;

use kmod_sq::model::Site;
use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicU32, Ordering, fence};
use sq_uapi::{CqePlace, Fence, KernelMem, KernelWord, UserMem, UserWord};

use super::slots::{Slots, WriteSqe};

/// What is made weaker in a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weaken {
    /// Nothing: the protocol as it is.
    Nothing,
    /// User space's store of this word is relaxed.
    UserStore(UserWord),
    /// The kernel side's load of this word is relaxed.
    UserLoad(UserWord),
    /// The kernel side's store of this word is relaxed.
    KernelStore(KernelWord),
    /// User space's load of this word is relaxed.
    KernelLoad(KernelWord),
    /// This fence is left out.
    Fence(Fence),
    /// This private atomic access of the kernel side has the given ordering.
    Site(Site, Ordering),
}

impl Weaken {
    /// Everything that can be weakened, and [`Weaken::Nothing`].
    pub fn every() -> impl Iterator<Item = Self> {
        let user = [UserWord::SqTail, UserWord::CqHead, UserWord::CqFlags].into_iter();
        let kernel = [KernelWord::SqHead, KernelWord::SqState, KernelWord::CqTail, KernelWord::Broken].into_iter();
        let fences = [
            Fence::BellKernel,
            Fence::BellUser,
            Fence::BlockedKernel,
            Fence::BlockedUser,
            Fence::PostKernel,
            Fence::WatchKernel,
            Fence::HintKernel,
            Fence::HintUser,
        ];
        let sites = Site::ALL.into_iter().flat_map(|site| {
            [Ordering::Relaxed, Ordering::Acquire, Ordering::Release].map(move |order| Self::Site(site, order))
        });
        std::iter::once(Self::Nothing)
            .chain(user.flat_map(|word| [Self::UserStore(word), Self::UserLoad(word)]))
            .chain(kernel.flat_map(|word| [Self::KernelStore(word), Self::KernelLoad(word)]))
            .chain(fences.map(Self::Fence))
            .chain(sites)
    }
}

/// The memory: one value for each half, over the same words.
#[derive(Clone)]
pub struct LoomMem(Arc<Shared>);

struct Shared {
    weaken: Weaken,
    sq_tail: AtomicU32,
    cq_head: AtomicU32,
    cq_flags: AtomicU32,
    sq_head: AtomicU32,
    sq_state: AtomicU32,
    cq_tail: AtomicU32,
    broken: AtomicU32,
    sqes: Box<[UnsafeCell<[u64; 8]>]>,
    cqes: Box<[UnsafeCell<[u64; 4]>]>,
}

// SAFETY: the cells are loom's, which fails the model if two accesses are not ordered.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl LoomMem {
    /// Zeroed memory of a ring. Both counts are powers of two.
    #[must_use]
    pub fn new(sq_entries: u32, cq_entries: u32, weaken: Weaken) -> Self {
        kmod_sq::model::weaken(match weaken {
            Weaken::Site(site, order) => Some((site, order)),
            _ => None,
        });
        let word = || AtomicU32::new(0);
        Self(Arc::new(Shared {
            weaken,
            sq_tail: word(),
            cq_head: word(),
            cq_flags: word(),
            sq_head: word(),
            sq_state: word(),
            cq_tail: word(),
            broken: word(),
            sqes: (0..sq_entries).map(|_| UnsafeCell::new([0; 8])).collect(),
            cqes: (0..cq_entries).map(|_| UnsafeCell::new([0; 4])).collect(),
        }))
    }

    fn user_word(&self, word: UserWord) -> &AtomicU32 {
        match word {
            UserWord::SqTail => &self.0.sq_tail,
            UserWord::CqHead => &self.0.cq_head,
            UserWord::CqFlags => &self.0.cq_flags,
        }
    }

    fn kernel_word(&self, word: KernelWord) -> &AtomicU32 {
        match word {
            KernelWord::SqHead => &self.0.sq_head,
            KernelWord::SqState => &self.0.sq_state,
            KernelWord::CqTail => &self.0.cq_tail,
            KernelWord::Broken => &self.0.broken,
        }
    }

    fn sqe(&self, index: u32) -> &UnsafeCell<[u64; 8]> {
        &self.0.sqes[index as usize & (self.0.sqes.len() - 1)]
    }

    fn cqe(&self, index: u32) -> &UnsafeCell<[u64; 4]> {
        &self.0.cqes[index as usize & (self.0.cqes.len() - 1)]
    }

    /// `strong`, unless this is what the model makes weaker.
    fn order(&self, here: Weaken, strong: Ordering) -> Ordering {
        if self.0.weaken == here { Ordering::Relaxed } else { strong }
    }

    fn fence(&self, site: Fence) {
        if self.0.weaken != Weaken::Fence(site) {
            fence(Ordering::SeqCst);
        }
    }
}

/// A completion's place.
pub struct Place<'a>(&'a UnsafeCell<[u64; 4]>);

impl CqePlace for Place<'_> {
    fn write(self, [user_data, result]: [u64; 2]) {
        self.write_wide([user_data, result, 0, 0]);
    }

    fn write_wide(self, words: [u64; 4]) {
        // SAFETY: loom has checked that no access is concurrent.
        self.0.with_mut(|place| unsafe { *place = words });
    }
}

impl WriteSqe for LoomMem {
    fn write_sqe(&self, index: u32, words: [u64; 8]) {
        // SAFETY: as in `Place`.
        self.sqe(index).with_mut(|place| unsafe { *place = words });
    }
}

impl KernelMem for LoomMem {
    type Place<'a> = Place<'a>;

    fn load_user(&self, word: UserWord) -> u32 {
        self.user_word(word).load(self.order(Weaken::UserLoad(word), word.load_order()))
    }

    fn store_kernel(&self, word: KernelWord, value: u32) {
        self.kernel_word(word).store(value, self.order(Weaken::KernelStore(word), word.store_order()));
    }

    fn sqe_run(&self, head: u32, most: u32) -> impl ExactSizeIterator<Item = [u64; 8]> {
        let straight = self.0.sqes.len() as u32 - (head & (self.0.sqes.len() as u32 - 1));
        // SAFETY: loom has checked that no write is concurrent.
        (0..most.min(straight)).map(move |n| self.sqe(head.wrapping_add(n)).with(|words| unsafe { *words }))
    }

    fn copy_sqe_tail(&self, _: u32) -> [u64; 8] {
        [0; 8]
    }

    fn cqe_run(&self, tail: u32, most: u32) -> impl ExactSizeIterator<Item = Place<'_>> {
        let straight = self.0.cqes.len() as u32 - (tail & (self.0.cqes.len() as u32 - 1));
        (0..most.min(straight)).map(move |n| Place(self.cqe(tail.wrapping_add(n))))
    }

    fn kernel_fence(&self, site: Fence) {
        self.fence(site);
    }
}

// SAFETY: slots are reached through the memory, by index, and the memory is kept by whoever has them.
unsafe impl UserMem for LoomMem {
    type Slots = Slots<Self>;

    fn sq_entries(&self) -> u32 {
        self.0.sqes.len() as u32
    }

    fn load_kernel(&self, word: KernelWord) -> u32 {
        self.kernel_word(word).load(self.order(Weaken::KernelLoad(word), word.load_order()))
    }

    fn store_user(&self, word: UserWord, value: u32) {
        self.user_word(word).store(value, self.order(Weaken::UserStore(word), word.store_order()));
    }

    fn slots(&self, tail: u32, room: u32) -> Slots<Self> {
        Slots::new(self.clone(), self.sq_entries(), tail, room)
    }

    unsafe fn write_sqe_tail(&self, _: u32, _: [u64; 8]) {}

    fn read_cqe(&self, index: u32) -> [u64; 4] {
        // SAFETY: as in `sqe_run`.
        self.cqe(index).with(|words| unsafe { *words })
    }

    fn user_fence(&self, site: Fence) {
        self.fence(site);
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! How each half of a ring touches the memory it shares with the other.
//!
//! The traits name *words*, not addresses. [`KernelMem`] is all that the kernel side can do: it loads what user
//! space writes, stores what the kernel writes, and **has no way to load a word of its own back** (IDX-2), nor to
//! reach an entry but by copying it (SNAP-2). [`UserMem`] is the mirror image. A memory that serves both is a
//! [`RingMem`]: checkers (loom, hostile memory) implement that and drive producer and consumer together.
//!
//! # Orderings
//!
//! Each word has one ordering for its stores and one for its loads, whichever memory it is in: what the words say themselves
//! ([`UserWord::store_order`] and its like). The real memory and those of the models ask them, so that what loom has explored is what runs.
//!
//! The words of entries and completions are relaxed: the index that publishes them orders them. The user side may write an entry
//! with ordinary stores, since a slot that is not published is its own. Fences are sequentially consistent.

use core::sync::atomic::Ordering;

/// A 32-bit word that user space writes and the kernel side loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UserWord {
    /// Free-running count of entries published.
    SqTail,
    /// Free-running count of completions reaped.
    CqHead,
    /// Hints of the reaper: [`consts::cq_flags`](crate::consts::cq_flags).
    CqFlags,
}

impl UserWord {
    /// How user space stores it.
    #[inline]
    #[must_use]
    pub const fn store_order(self) -> Ordering {
        match self {
            // Entries before the tail are visible to whoever sees it.
            Self::SqTail => Ordering::Release,
            // The completion was read before its slot is written again.
            Self::CqHead => Ordering::Release,
            // Ordered by fences on both sides.
            Self::CqFlags => Ordering::Relaxed,
        }
    }

    /// How the kernel side loads it.
    #[inline]
    #[must_use]
    pub const fn load_order(self) -> Ordering {
        match self {
            Self::SqTail | Self::CqHead => Ordering::Acquire,
            Self::CqFlags => Ordering::Relaxed,
        }
    }
}

/// A 32-bit word that the kernel side writes and user space loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KernelWord {
    /// Free-running count of entries consumed. Written by the drain owner.
    SqHead,
    /// [`consts::sq_state`](crate::consts::sq_state). Written by the drain owner.
    SqState,
    /// Free-running count of completions posted. Written by the drain owner while no request is in flight, else under the completion lock.
    CqTail,
    /// Non-zero once the ring is broken. Set once, never cleared.
    Broken,
}

impl KernelWord {
    /// How the kernel side stores it.
    #[inline]
    #[must_use]
    pub const fn store_order(self) -> Ordering {
        match self {
            // The snapshot is over before the slot is written again.
            Self::SqHead => Ordering::Release,
            // Completions before the tail are visible to whoever sees it.
            Self::CqTail => Ordering::Release,
            // Set once, last.
            Self::Broken => Ordering::Release,
            // Ordered by fences on both sides.
            Self::SqState => Ordering::Relaxed,
        }
    }

    /// How user space loads it.
    #[inline]
    #[must_use]
    pub const fn load_order(self) -> Ordering {
        match self {
            Self::SqHead | Self::CqTail | Self::Broken => Ordering::Acquire,
            Self::SqState => Ordering::Relaxed,
        }
    }
}

/// The full fences of the protocol. The name lets a checker drop one and see what breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fence {
    /// BELL-1, drain owner: between storing `NEED_WAKEUP` and looking at `sq_tail` again.
    BellKernel,
    /// BELL-1, submitter: between publishing `sq_tail` and looking at `NEED_WAKEUP`.
    BellUser,
    /// CQ-2, drain owner: between storing `CQ_BLOCKED` and looking at `cq_head` again.
    BlockedKernel,
    /// CQ-2, reaper: between publishing `cq_head` and looking at `CQ_BLOCKED`.
    BlockedUser,
    /// BELL-4, drain owner: between posting and looking whether anybody watches.
    PostKernel,
    /// BELL-4, waiter in the kernel side: between saying that it watches and looking at what was posted again.
    WatchKernel,
    /// BELL-4, whoever posts: between publishing `cq_tail` and looking whether the eventfd is wanted.
    HintKernel,
    /// BELL-4, reaper: between saying that the eventfd is wanted again and looking at `cq_tail`.
    HintUser,
}

/// The kernel side's access to a ring.
///
/// It cannot load a word that it writes (IDX-2), nor keep a reference to an entry (SNAP-2): there is no method for either.
///
/// ```compile_fail
/// use sq_uapi::{KernelMem, KernelWord};
///
/// fn look_back<M: KernelMem>(mem: &M) -> u32 {
///     mem.load_kernel(KernelWord::SqHead)
/// }
/// ```
pub trait KernelMem {
    /// A place for a completion.
    type Place<'a>: CqePlace
    where
        Self: 'a;

    /// Loads a word that user space may change at any time. IDX-3: once per pass.
    fn load_user(&self, word: UserWord) -> u32;
    /// Stores a word that only the kernel side writes.
    fn store_kernel(&self, word: KernelWord, value: u32);
    /// Copies the last 64 bytes of a 128-byte entry; zeros on a ring with 64-byte entries.
    fn copy_sqe_tail(&self, index: u32) -> [u64; 8];
    /// The next `most` entries from free-running `head` on, or fewer: up to where their array ends. Each is copied as it is taken, and
    /// cannot be had twice (SNAP-1): the first 64 bytes.
    fn sqe_run(&self, head: u32, most: u32) -> impl ExactSizeIterator<Item = [u64; 8]>;
    /// The places of the next `most` completions from free-running `tail` on, or fewer: up to where their array ends.
    fn cqe_run(&self, tail: u32, most: u32) -> impl ExactSizeIterator<Item = Self::Place<'_>>;
    /// Both side by side, as long as the shorter. For rings of 64-byte entries and 16-byte completions: on others it may be other bytes of
    /// their arrays.
    fn pair_run(&self, tail: u32, head: u32, most: u32) -> impl ExactSizeIterator<Item = (Self::Place<'_>, [u64; 8])> {
        // The place comes first: an entry that has been copied must not be dropped for want of one.
        self.cqe_run(tail, most).zip(self.sqe_run(head, most))
    }
    /// The first of [`KernelMem::pair_run`], for which nothing has to be stepped through.
    fn pair(&self, tail: u32, head: u32) -> Option<(Self::Place<'_>, [u64; 8])> {
        self.pair_run(tail, head, 1).next()
    }
    /// A full (sequentially consistent) fence.
    fn kernel_fence(&self, site: Fence);
}

/// A place for one completion.
pub trait CqePlace {
    /// Writes it: `user_data`, and result and flags.
    fn write(self, words: [u64; 2]);
    /// Writes it whole; on a ring with 16-byte completions the last two words are dropped.
    fn write_wide(self, words: [u64; 4]);
}

/// A place in private memory.
impl CqePlace for &mut [u64; 4] {
    #[inline]
    fn write(self, [user_data, result]: [u64; 2]) {
        let [a, b, ..] = self;
        (*a, *b) = (user_data, result);
    }

    #[inline]
    fn write_wide(self, words: [u64; 4]) {
        *self = words;
    }
}

/// Slots of the submission queue in a row that are the user half's to write, in order.
pub trait SqeSlots {
    /// How many are left.
    fn left(&self) -> u32;
    /// Whether none is.
    fn is_empty(&self) -> bool {
        self.left() == 0
    }
    /// Writes the first 64 bytes of the next, if there is one.
    ///
    /// # Safety
    ///
    /// The memory that gave these slots is still there, and they are not published.
    unsafe fn write(&mut self, words: [u64; 8]);
}

/// User space's access to a ring.
///
/// # Safety
///
/// [`UserMem::slots`] gives slots of this memory and of the indices that were asked for, at most [`UserMem::sq_entries`] of them: whoever
/// keeps this memory, and has published none of those indices since the kernel side consumed them, may write what it was given.
pub unsafe trait UserMem {
    /// Slots in a row.
    type Slots: SqeSlots;

    /// Slots of the submission queue, a power of two.
    fn sq_entries(&self) -> u32;
    /// Loads a word that the kernel side writes.
    fn load_kernel(&self, word: KernelWord) -> u32;
    /// Stores a word that only this half writes.
    fn store_user(&self, word: UserWord, value: u32);
    /// The next `room` slots from free-running `tail` on, or fewer: up to where their array ends, and at most one on a ring with 128-byte
    /// entries.
    fn slots(&self, tail: u32, room: u32) -> Self::Slots;
    /// Writes the last 64 bytes of a 128-byte entry; does nothing on a ring with 64-byte entries.
    ///
    /// # Safety
    ///
    /// The slot is the user half's, and not published.
    unsafe fn write_sqe_tail(&self, index: u32, words: [u64; 8]);
    /// Reads the completion at free-running `index`. The last two words are 0 on a ring with 16-byte completions.
    fn read_cqe(&self, index: u32) -> [u64; 4];
    /// A full (sequentially consistent) fence.
    fn user_fence(&self, site: Fence);
}

/// A memory that both halves can use.
pub trait RingMem: KernelMem + UserMem {}

impl<M: KernelMem + UserMem> RingMem for M {}

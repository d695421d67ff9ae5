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
//! They are fixed here, per word, and nowhere else:
//!
//! | word | store | load | why |
//! |---|---|---|---|
//! | `sq_tail` | release, user | acquire, kernel | entries before the tail are visible to whoever sees it |
//! | `sq_head` | release, kernel | acquire, user | the snapshot is over before the slot is written again |
//! | `cq_tail` | release, kernel | acquire, user | completions before the tail are visible to whoever sees it |
//! | `cq_head` | release, user | acquire, kernel | the completion was read before its slot is written again |
//! | `sq_state` | relaxed, kernel | relaxed, user | ordered by [`Fence`]s on both sides |
//! | `cq_flags` | relaxed, user | relaxed, kernel | a hint |
//! | `broken` | release, kernel | acquire, user | set once, last |
//!
//! The words of entries and completions are relaxed: the index that publishes them orders them. The user side may write an entry
//! with ordinary stores, since a slot that is not published is its own.

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

/// A 32-bit word that the kernel side writes and user space loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KernelWord {
    /// Free-running count of entries consumed. Written by the drain owner.
    SqHead,
    /// [`consts::sq_state`](crate::consts::sq_state). Written by the drain owner.
    SqState,
    /// Free-running count of completions posted. Written under the completion lock.
    CqTail,
    /// Non-zero once the ring is broken. Set once, never cleared.
    Broken,
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
    /// Loads a word that user space may change at any time. IDX-3: once per pass.
    fn load_user(&self, word: UserWord) -> u32;
    /// Stores a word that only the kernel side writes.
    fn store_kernel(&self, word: KernelWord, value: u32);
    /// Copies the first 64 bytes of the entry at free-running `index`: each word is loaded exactly once (SNAP-1).
    fn copy_sqe(&self, index: u32) -> [u64; 8];
    /// Copies the last 64 bytes of a 128-byte entry; zeros on a ring with 64-byte entries.
    fn copy_sqe_tail(&self, index: u32) -> [u64; 8];
    /// Writes the completion at free-running `index`. The last two words are dropped on a ring with 16-byte ones.
    fn write_cqe(&self, index: u32, words: [u64; 4]);
    /// Writes completions from free-running `index` on.
    fn write_cqes(&self, index: u32, cqes: &[[u64; 4]]) {
        write_each(self, index, cqes);
    }
    /// A full (sequentially consistent) fence.
    fn kernel_fence(&self, site: Fence);
}

/// [`KernelMem::write_cqes`], one by one.
#[inline(never)]
pub(crate) fn write_each<M: KernelMem + ?Sized>(mem: &M, mut index: u32, cqes: &[[u64; 4]]) {
    for words in cqes {
        mem.write_cqe(index, *words);
        index = index.wrapping_add(1);
    }
}

/// User space's access to a ring.
pub trait UserMem {
    /// Loads a word that the kernel side writes.
    fn load_kernel(&self, word: KernelWord) -> u32;
    /// Stores a word that only this half writes.
    fn store_user(&self, word: UserWord, value: u32);
    /// Writes the first 64 bytes of the entry at free-running `index`, which is not published: one thread at a time.
    fn write_sqe(&self, index: u32, words: [u64; 8]);
    /// Writes the last 64 bytes of a 128-byte entry; does nothing on a ring with 64-byte entries.
    fn write_sqe_tail(&self, index: u32, words: [u64; 8]);
    /// Reads the completion at free-running `index`. The last two words are 0 on a ring with 16-byte completions.
    fn read_cqe(&self, index: u32) -> [u64; 4];
    /// A full (sequentially consistent) fence.
    fn user_fence(&self, site: Fence);
}

/// A memory that both halves can use.
pub trait RingMem: KernelMem + UserMem {}

impl<M: KernelMem + UserMem> RingMem for M {}

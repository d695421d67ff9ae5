// SPDX-License-Identifier: MIT OR Apache-2.0
//! The memory traits over two mapped regions: what runs in the kernel, in a process, and behind `/dev/sq*`.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use crate::copy::load_entry;
use crate::mem::{Fence, KernelMem, KernelWord, UserMem, UserWord, write_each};
use crate::structs::SqOffsets;

/// What a [`Mapped`] is made of.
#[derive(Clone, Copy, Debug)]
pub struct Parts {
    /// Start of the user-written region.
    pub user: NonNull<u8>,
    /// Start of the kernel-written region.
    pub kernel: NonNull<u8>,
    /// Where the words are, from those starts.
    pub offsets: SqOffsets,
    /// Submission entries, a power of two.
    pub sq_entries: u32,
    /// Completion entries, a power of two.
    pub cq_entries: u32,
    /// Entries are 128 bytes.
    pub sqe128: bool,
    /// Completions are 32 bytes.
    pub cqe32: bool,
}

/// What an entry is made of: one of these, or two.
const UNIT: usize = size_of::<[AtomicU64; 8]>();

/// What a completion is made of: one of these, or two.
const CQE_UNIT: usize = size_of::<[AtomicU64; 2]>();

/// One mapping of a ring's two regions.
///
/// Indices are masked here with a private mask (IDX-1), so no index can leave its array. What the kernel side does is atomic
/// loads and stores through raw pointers: no reference to shared bytes is ever made, so a hostile peer that writes
/// at the same time is an ordinary race of atomics, never undefined behaviour.
#[derive(Debug)]
pub struct Mapped {
    sqes: NonNull<[AtomicU64; 8]>,
    cqes: NonNull<[AtomicU64; 2]>,
    user_line: NonNull<u8>,
    kernel_line: NonNull<u8>,
    offsets: SqOffsets,
    sq_mask: u32,
    cq_mask: u32,
    /// Bytes of an entry: 64 or 128.
    sqe_bytes: usize,
    /// Bytes of a completion: 16 or 32.
    cqe_bytes: usize,
}

// SAFETY: the pointers are to shared mappings that outlive the value (contract of `new`). All access is atomic, but for what
// `write_sqe` and `write_sqe_tail` write: no other thread touches those slots then, by the same contract.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// A view of a mapped ring.
    ///
    /// # Safety
    ///
    /// Until the value is dropped, both regions are mapped, 8-byte aligned, and large enough that every offset in
    /// `parts.offsets` (a multiple of 4 for words, of 8 for arrays) plus what stands there lies inside: 4 bytes for
    /// a word, `sq_entries` times 64 or 128 bytes for entries, `cq_entries` times 16 or 32 for completions. Both
    /// counts are powers of two. Whoever calls [`KernelMem`]'s methods has the kernel region mapped writable;
    /// whoever calls [`UserMem`]'s has the user region mapped writable. Nobody accesses the regions other than
    /// atomically, or from outside the Rust program; but for slots of entries: until `sq_tail` has passed it, a slot that
    /// [`UserMem`] writes is accessed by nobody else (IDX-3 is that the kernel side copies only what is published).
    #[must_use]
    pub unsafe fn new(parts: Parts) -> Self {
        // SAFETY: the contract puts the arrays' offsets inside their regions.
        let sqes = unsafe { parts.user.add(parts.offsets.sqes as usize) };
        // SAFETY: as above.
        let cqes = unsafe { parts.kernel.add(parts.offsets.cqes as usize) };
        Self {
            sqes: sqes.cast(),
            cqes: cqes.cast(),
            user_line: parts.user,
            kernel_line: parts.kernel,
            offsets: parts.offsets,
            sq_mask: parts.sq_entries.wrapping_sub(1),
            cq_mask: parts.cq_entries.wrapping_sub(1),
            sqe_bytes: if parts.sqe128 { 2 * UNIT } else { UNIT },
            cqe_bytes: if parts.cqe32 { 2 * CQE_UNIT } else { CQE_UNIT },
        }
    }

    /// The same view once more, to be kept where its fields are quickly reached.
    ///
    /// # Safety
    ///
    /// The contract of [`Mapped::new`] holds for as long as the copy exists.
    #[inline]
    #[must_use]
    pub unsafe fn copy(&self) -> Self {
        Self { ..*self }
    }

    #[inline]
    fn user_word(&self, word: UserWord) -> &AtomicU32 {
        let offset = match word {
            UserWord::SqTail => self.offsets.sq_tail,
            UserWord::CqHead => self.offsets.cq_head,
            UserWord::CqFlags => self.offsets.cq_flags,
        };
        // SAFETY: the word lies inside the user region (contract of `new`).
        let word = unsafe { self.user_line.add(offset as usize) };
        // SAFETY: aligned and mapped for the life of `self` (contract of `new`). A reference to an atomic permits
        // concurrent writes by others.
        unsafe { word.cast::<AtomicU32>().as_ref() }
    }

    #[inline]
    fn kernel_word(&self, word: KernelWord) -> &AtomicU32 {
        let offset = match word {
            KernelWord::SqHead => self.offsets.sq_head,
            KernelWord::SqState => self.offsets.sq_state,
            KernelWord::CqTail => self.offsets.cq_tail,
            KernelWord::Broken => self.offsets.broken,
        };
        // SAFETY: the word lies inside the kernel region (contract of `new`).
        let word = unsafe { self.kernel_line.add(offset as usize) };
        // SAFETY: as in `user_word`. Where the region is mapped read-only this half only loads.
        unsafe { word.cast::<AtomicU32>().as_ref() }
    }

    /// The `unit`th (0 or 1) 64 bytes of the entry at `index`.
    #[inline]
    fn slot(&self, index: u32, unit: usize) -> NonNull<[AtomicU64; 8]> {
        let slot = (index & self.sq_mask) as usize * self.sqe_bytes;
        // SAFETY: the masked index is below sq_entries, and `unit` below the units of an entry (the callers check),
        // so the place lies inside the array (contract of `new`).
        unsafe { self.sqes.byte_add(slot + unit * UNIT) }
    }

    #[inline]
    fn sqe(&self, index: u32, unit: usize) -> &[AtomicU64; 8] {
        // SAFETY: as in `user_word`.
        unsafe { self.slot(index, unit).as_ref() }
    }

    /// The `unit`th (0 or 1) 16 bytes of the completion at `index`.
    #[inline]
    fn cqe(&self, index: u32, unit: usize) -> &[AtomicU64; 2] {
        let slot = (index & self.cq_mask) as usize * self.cqe_bytes;
        // SAFETY: as in `sqe`, with cq_entries.
        let cqe = unsafe { self.cqes.byte_add(slot + unit * CQE_UNIT) };
        // SAFETY: as in `kernel_word`.
        unsafe { cqe.as_ref() }
    }
}

#[inline]
#[cfg(not(sq_bench_without_snapshot))]
fn load_sqe(words: &[AtomicU64; 8]) -> [u64; 8] {
    load_entry(words)
}

/// For one benchmark: what the whole path costs without the copy. Each entry is a NOP, and its `user_data` made up.
#[inline]
#[cfg(sq_bench_without_snapshot)]
fn load_sqe(words: &[AtomicU64; 8]) -> [u64; 8] {
    [0xffff_ffff << 32, 0, 0, 0, words.as_ptr().addr() as u64, 0, 0, 0]
}

#[inline]
fn store2(words: &[AtomicU64; 2], values: [u64; 2]) {
    let ([a, b], [x, y]) = (words, values);
    a.store(x, Ordering::Relaxed);
    b.store(y, Ordering::Relaxed);
}

#[inline]
fn load2(words: &[AtomicU64; 2]) -> [u64; 2] {
    let [a, b] = words;
    [a.load(Ordering::Relaxed), b.load(Ordering::Relaxed)]
}

impl KernelMem for Mapped {
    #[inline]
    fn load_user(&self, word: UserWord) -> u32 {
        let order = match word {
            UserWord::SqTail | UserWord::CqHead => Ordering::Acquire,
            UserWord::CqFlags => Ordering::Relaxed,
        };
        self.user_word(word).load(order)
    }

    #[inline]
    fn store_kernel(&self, word: KernelWord, value: u32) {
        let order = match word {
            KernelWord::SqHead | KernelWord::CqTail | KernelWord::Broken => Ordering::Release,
            KernelWord::SqState => Ordering::Relaxed,
        };
        self.kernel_word(word).store(value, order);
    }

    #[inline]
    fn copy_sqe(&self, index: u32) -> [u64; 8] {
        load_sqe(self.sqe(index, 0))
    }

    #[inline]
    fn copy_sqe_tail(&self, index: u32) -> [u64; 8] {
        if self.sqe_bytes > UNIT { load_entry(self.sqe(index, 1)) } else { [0; 8] }
    }

    #[inline]
    fn write_cqe(&self, index: u32, words: [u64; 4]) {
        let [a, b, c, d] = words;
        store2(self.cqe(index, 0), [a, b]);
        if self.cqe_bytes > CQE_UNIT {
            store2(self.cqe(index, 1), [c, d]);
        }
    }

    #[inline]
    fn write_cqes(&self, index: u32, cqes: &[[u64; 4]]) {
        let start = (index & self.cq_mask) as usize;
        let before_the_wrap = self.cq_mask as usize + 1 - start;
        if self.cqe_bytes > CQE_UNIT || cqes.len() > before_the_wrap {
            return write_each(self, index, cqes);
        }
        // SAFETY: start is below cq_entries, so the place is inside the array (contract of `new`).
        let first = unsafe { self.cqes.add(start) };
        // SAFETY: start + len is at most cq_entries; otherwise as in `kernel_word`.
        let slots = unsafe { core::slice::from_raw_parts(first.as_ptr(), cqes.len()) };
        let (fours, rest) = cqes.as_chunks::<4>();
        let (slot_fours, slots) = slots.as_chunks::<4>();
        for ([a, b, c, d], [e, f, g, h]) in slot_fours.iter().zip(fours) {
            store2(a, [e[0], e[1]]);
            store2(b, [f[0], f[1]]);
            store2(c, [g[0], g[1]]);
            store2(d, [h[0], h[1]]);
        }
        for (slot, [a, b, ..]) in slots.iter().zip(rest) {
            store2(slot, [*a, *b]);
        }
    }

    #[inline]
    fn kernel_fence(&self, _: Fence) {
        fence(Ordering::SeqCst);
    }
}

impl UserMem for Mapped {
    #[inline]
    fn load_kernel(&self, word: KernelWord) -> u32 {
        let order = match word {
            KernelWord::SqHead | KernelWord::CqTail | KernelWord::Broken => Ordering::Acquire,
            KernelWord::SqState => Ordering::Relaxed,
        };
        self.kernel_word(word).load(order)
    }

    #[inline]
    fn store_user(&self, word: UserWord, value: u32) {
        let order = match word {
            UserWord::SqTail | UserWord::CqHead => Ordering::Release,
            UserWord::CqFlags => Ordering::Relaxed,
        };
        self.user_word(word).store(value, order);
    }

    #[inline]
    fn write_sqe(&self, index: u32, words: [u64; 8]) {
        // SAFETY: inside the array, as `slot` says. Not atomic: the slot is this half's alone (contract of `new`).
        unsafe { self.slot(index, 0).cast().write(words) };
    }

    #[inline]
    fn write_sqe_tail(&self, index: u32, words: [u64; 8]) {
        if self.sqe_bytes > UNIT {
            // SAFETY: as above; an entry has two units here.
            unsafe { self.slot(index, 1).cast().write(words) };
        }
    }

    #[inline]
    fn read_cqe(&self, index: u32) -> [u64; 4] {
        let [a, b] = load2(self.cqe(index, 0));
        let [c, d] = if self.cqe_bytes > CQE_UNIT { load2(self.cqe(index, 1)) } else { [0; 2] };
        [a, b, c, d]
    }

    #[inline]
    fn user_fence(&self, _: Fence) {
        fence(Ordering::SeqCst);
    }
}

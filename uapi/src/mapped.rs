// SPDX-License-Identifier: MIT OR Apache-2.0
//! The memory traits over two mapped regions: what runs in the kernel, in a process, and behind `/dev/sq*`.

use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use crate::copy::load_entry;
use crate::mem::{CqePlace, Fence, KernelMem, KernelWord, SqeSlots, UserMem, UserWord};
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
    words: Words,
    sq_mask: u32,
    cq_mask: u32,
    /// Bytes of an entry: 64 or 128.
    sqe_bytes: usize,
    /// Bytes of a completion: 16 or 32.
    cqe_bytes: usize,
    /// Bytes of all completions, less 1.
    cqes_mask: usize,
}

/// Where the words are.
#[derive(Clone, Copy, Debug)]
struct Words {
    sq_tail: NonNull<AtomicU32>,
    cq_head: NonNull<AtomicU32>,
    cq_flags: NonNull<AtomicU32>,
    sq_head: NonNull<AtomicU32>,
    sq_state: NonNull<AtomicU32>,
    cq_tail: NonNull<AtomicU32>,
    broken: NonNull<AtomicU32>,
}

// SAFETY: the pointers are to shared mappings that outlive the value (contract of `new`). All access is atomic, but for what
// `Slots::write` and `write_sqe_tail` write: no other thread touches those slots then, by the same contract.
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
    /// [`UserMem`] writes is accessed by nobody else (IDX-3 is that the kernel side copies only what is published). So among all views
    /// of a ring one at most gives slots away, from index 0 on, and to one producer.
    #[must_use]
    pub unsafe fn new(parts: Parts) -> Self {
        let o = &parts.offsets;
        let cqe_bytes = if parts.cqe32 { 2 * CQE_UNIT } else { CQE_UNIT };
        // SAFETY: the contract puts the arrays' offsets inside their regions.
        let sqes = unsafe { parts.user.add(o.sqes as usize) };
        // SAFETY: as above.
        let cqes = unsafe { parts.kernel.add(o.cqes as usize) };
        // SAFETY: and those of words.
        let user = |offset: u32| unsafe { parts.user.add(offset as usize) }.cast();
        // SAFETY: as above.
        let kernel = |offset: u32| unsafe { parts.kernel.add(offset as usize) }.cast();
        Self {
            sqes: sqes.cast(),
            cqes: cqes.cast(),
            words: Words {
                sq_tail: user(o.sq_tail),
                cq_head: user(o.cq_head),
                cq_flags: user(o.cq_flags),
                sq_head: kernel(o.sq_head),
                sq_state: kernel(o.sq_state),
                cq_tail: kernel(o.cq_tail),
                broken: kernel(o.broken),
            },
            sq_mask: parts.sq_entries.wrapping_sub(1),
            cq_mask: parts.cq_entries.wrapping_sub(1),
            sqe_bytes: if parts.sqe128 { 2 * UNIT } else { UNIT },
            cqe_bytes,
            cqes_mask: (parts.cq_entries as usize).wrapping_mul(cqe_bytes).wrapping_sub(1),
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

    /// The completions from free-running `head` up to `tail`.
    ///
    /// # Safety
    ///
    /// The contract of [`Mapped::new`] holds as long as the result is used.
    #[inline]
    #[must_use]
    pub unsafe fn completions<'a>(&self, head: u32, tail: u32) -> Completions<'a> {
        Completions {
            cqes: self.cqes,
            offset: (head & self.cq_mask) as usize * self.cqe_bytes,
            mask: self.cqes_mask,
            bytes: self.cqe_bytes,
            left: tail.wrapping_sub(head),
            mapping: PhantomData,
        }
    }

    #[inline]
    fn user_word(&self, word: UserWord) -> &AtomicU32 {
        let word = match word {
            UserWord::SqTail => self.words.sq_tail,
            UserWord::CqHead => self.words.cq_head,
            UserWord::CqFlags => self.words.cq_flags,
        };
        // SAFETY: aligned and mapped for the life of `self` (contract of `new`). A reference to an atomic permits
        // concurrent writes by others.
        unsafe { word.as_ref() }
    }

    #[inline]
    fn kernel_word(&self, word: KernelWord) -> &AtomicU32 {
        let word = match word {
            KernelWord::SqHead => self.words.sq_head,
            KernelWord::SqState => self.words.sq_state,
            KernelWord::CqTail => self.words.cq_tail,
            KernelWord::Broken => self.words.broken,
        };
        // SAFETY: as in `user_word`. Where the region is mapped read-only this half only loads.
        unsafe { word.as_ref() }
    }

    /// The `unit`th (0 or 1) 64 bytes of the entry at `index`.
    #[inline]
    fn slot(&self, index: u32, unit: usize) -> NonNull<[AtomicU64; 8]> {
        let slot = (index & self.sq_mask) as usize * self.sqe_bytes;
        // SAFETY: the masked index is below sq_entries, and `unit` below the units of an entry (the callers check),
        // so the place lies inside the array (contract of `new`).
        unsafe { self.sqes.byte_add(slot + unit * UNIT) }
    }

    /// The entries, `bytes` apart, from free-running `head` on, and how many follow before their array ends.
    #[inline(always)]
    fn sqes_from(&self, head: u32, bytes: usize) -> (Step<'_, [AtomicU64; 8]>, u32) {
        debug_assert!(bytes <= self.sqe_bytes, "shorter steps do not leave the array");
        // SAFETY: the entries' array (contract of `new`).
        unsafe { Step::new(self.sqes, self.sq_mask.wrapping_add(1), bytes, head) }
    }

    /// The same of completions.
    #[inline(always)]
    fn cqes_from(&self, tail: u32, bytes: usize) -> (Step<'_, [AtomicU64; 2]>, u32) {
        debug_assert!(bytes <= self.cqe_bytes, "as above");
        // SAFETY: the completions' array (contract of `new`).
        unsafe { Step::new(self.cqes, self.cq_mask.wrapping_add(1), bytes, tail) }
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

/// Steps through an array of the mapping, which the borrow keeps.
///
/// Invariant: as often as whoever holds it says, `at` is an element of the array, and then the next one, `bytes` further on.
struct Step<'a, T> {
    at: *const T,
    bytes: usize,
    mapping: PhantomData<&'a Mapped>,
}

impl<'a, T> Step<'a, T> {
    /// From free-running `index` on, and how many elements follow it to the end of the array of `entries`, each `bytes` long,
    /// from `start` on.
    ///
    /// # Safety
    ///
    /// That is an array of the mapping.
    #[inline(always)]
    unsafe fn new(start: NonNull<T>, entries: u32, bytes: usize, index: u32) -> (Self, u32) {
        let index = index & entries.wrapping_sub(1);
        // SAFETY: the masked index lies inside the array (the contract).
        let at = unsafe { start.byte_add(index as usize * bytes) }.as_ptr();
        (Self { at, bytes, mapping: PhantomData }, entries.wrapping_sub(index))
    }

    /// The element, and on to the next.
    ///
    /// # Safety
    ///
    /// The end of the array has not been reached.
    #[inline(always)]
    unsafe fn next(&mut self) -> &'a T {
        // SAFETY: an element (the contract). Said here, since otherwise an iterator's `Some` is looked for in the address.
        let at = unsafe { NonNull::new(self.at.cast_mut()).unwrap_unchecked() };
        // Behind the last element this leads nowhere, and is not followed.
        self.at = self.at.wrapping_byte_add(self.bytes);
        // SAFETY: an element (the contract): mapped as long as the borrow, aligned, and made of atomics, which others may write.
        unsafe { at.as_ref() }
    }

    /// The second unit of the element that [`Step::next`] returns next.
    ///
    /// # Safety
    ///
    /// As there, and the element has two.
    #[inline(always)]
    unsafe fn second(&self) -> &'a T {
        // SAFETY: it follows the first inside the array.
        let at = unsafe { self.at.add(1) };
        // SAFETY: as in `next`.
        unsafe { &*at }
    }
}

/// Calls `next` `left` times.
struct Times<F> {
    left: u32,
    next: F,
}

impl<T, F: FnMut() -> T> Iterator for Times<F> {
    type Item = T;

    #[inline(always)]
    fn next(&mut self) -> Option<T> {
        self.left = self.left.checked_sub(1)?;
        Some((self.next)())
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl<T, F: FnMut() -> T> ExactSizeIterator for Times<F> {}

/// Entries and places of completions side by side.
struct Pairs<'a> {
    sqes: Step<'a, [AtomicU64; 8]>,
    cqes: Step<'a, [AtomicU64; 2]>,
    /// Of both.
    left: usize,
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (MappedPlace<'a>, [u64; 8]);

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        // SAFETY: one of those left.
        let first = unsafe { self.cqes.next() };
        // SAFETY: one of those left.
        let words = load_sqe(unsafe { self.sqes.next() });
        Some((MappedPlace { first, second: None }, words))
    }

    #[inline(always)]
    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Pairs<'_> {}

/// Slots of the submission queue in a row that are the user half's to write.
#[derive(Debug)]
pub struct Slots {
    /// The next, unless it is `end`.
    at: *mut [u64; 8],
    end: *mut [u64; 8],
}

// SAFETY: addresses in the mapping, see `write`.
unsafe impl Send for Slots {}
// SAFETY: as above: nothing is done with them through a shared reference.
unsafe impl Sync for Slots {}

impl SqeSlots for Slots {
    #[inline]
    fn left(&self) -> u32 {
        // At most as many as the queue has.
        (self.end.addr().wrapping_sub(self.at.addr()) / UNIT) as u32
    }

    #[inline]
    fn is_empty(&self) -> bool {
        self.at == self.end
    }

    #[inline]
    unsafe fn write(&mut self, words: [u64; 8]) {
        if self.is_empty() {
            return;
        }
        // SAFETY: before `end`, in the mapping's array, which is there, and nobody else's (the contract). Not atomic, for that.
        unsafe { self.at.write(words) };
        self.at = self.at.wrapping_add(1);
    }
}

/// Completions of a mapping that are there to be read, in order.
#[derive(Debug)]
pub struct Completions<'a> {
    cqes: NonNull<[AtomicU64; 2]>,
    /// Of the next, from there: always inside the array.
    offset: usize,
    /// Bytes of the array, less 1.
    mask: usize,
    /// Bytes of a completion.
    bytes: usize,
    left: u32,
    mapping: PhantomData<&'a Mapped>,
}

impl Completions<'_> {
    /// How many are left.
    #[inline]
    #[must_use]
    pub const fn left(&self) -> u32 {
        self.left
    }
}

impl Iterator for Completions<'_> {
    type Item = [u64; 4];

    #[inline(always)]
    fn next(&mut self) -> Option<[u64; 4]> {
        self.left = self.left.checked_sub(1)?;
        // SAFETY: inside the array, which is mapped (contract of `Mapped::completions`).
        let at = unsafe { self.cqes.byte_add(self.offset) };
        // Both are powers of two, so this is a multiple of `bytes` inside the array again.
        self.offset = self.offset.wrapping_add(self.bytes) & self.mask;
        // SAFETY: as above. A reference to atomics permits others to write.
        let [a, b] = load2(unsafe { at.as_ref() });
        if self.bytes == CQE_UNIT {
            return Some([a, b, 0, 0]);
        }
        // SAFETY: a completion has two units here.
        let second = unsafe { at.add(1) };
        // SAFETY: as above.
        let [c, d] = load2(unsafe { second.as_ref() });
        Some([a, b, c, d])
    }
}

/// A completion's place in the mapping.
#[derive(Debug)]
pub struct MappedPlace<'a> {
    first: &'a [AtomicU64; 2],
    /// Of a completion of 32 bytes.
    second: Option<&'a [AtomicU64; 2]>,
}

impl CqePlace for MappedPlace<'_> {
    #[inline(always)]
    fn write(self, words: [u64; 2]) {
        store2(self.first, words);
    }

    #[inline]
    fn write_wide(self, words: [u64; 4]) {
        let [a, b, c, d] = words;
        store2(self.first, [a, b]);
        if let Some(second) = self.second {
            store2(second, [c, d]);
        }
    }
}

impl KernelMem for Mapped {
    type Place<'a> = MappedPlace<'a>;

    #[inline]
    fn load_user(&self, word: UserWord) -> u32 {
        self.user_word(word).load(word.load_order())
    }

    #[inline]
    fn store_kernel(&self, word: KernelWord, value: u32) {
        self.kernel_word(word).store(value, word.store_order());
    }

    #[inline]
    fn copy_sqe_tail(&self, index: u32) -> [u64; 8] {
        if self.sqe_bytes == UNIT {
            return [0; 8];
        }
        // SAFETY: as in `user_word`: an entry has two units here.
        load_entry(unsafe { self.slot(index, 1).as_ref() })
    }

    #[inline(always)]
    fn sqe_run(&self, head: u32, most: u32) -> impl ExactSizeIterator<Item = [u64; 8]> {
        let (mut sqes, straight) = self.sqes_from(head, self.sqe_bytes);
        // SAFETY: at most to the end of the array.
        Times { left: most.min(straight), next: move || load_sqe(unsafe { sqes.next() }) }
    }

    #[inline(always)]
    fn cqe_run(&self, tail: u32, most: u32) -> impl ExactSizeIterator<Item = MappedPlace<'_>> {
        let (mut cqes, straight) = self.cqes_from(tail, self.cqe_bytes);
        let wide = self.cqe_bytes > CQE_UNIT;
        let next = move || {
            // SAFETY: at most to the end of the array, and where they are wide a completion has two units.
            let second = if wide { Some(unsafe { cqes.second() }) } else { None };
            // SAFETY: as above.
            MappedPlace { first: unsafe { cqes.next() }, second }
        };
        Times { left: most.min(straight), next }
    }

    #[inline(always)]
    fn pair_run(&self, tail: u32, head: u32, most: u32) -> impl ExactSizeIterator<Item = (MappedPlace<'_>, [u64; 8])> {
        // What such a ring has is said here, so that the compiler need not look it up at each step.
        let ((sqes, sq_straight), (cqes, cq_straight)) = (self.sqes_from(head, UNIT), self.cqes_from(tail, CQE_UNIT));
        let left = most.min(sq_straight).min(cq_straight);
        Pairs { sqes, cqes, left: left as usize }
    }

    #[inline(always)]
    fn pair(&self, tail: u32, head: u32) -> Option<(MappedPlace<'_>, [u64; 8])> {
        let ((mut sqes, _), (mut cqes, _)) = (self.sqes_from(head, UNIT), self.cqes_from(tail, CQE_UNIT));
        // SAFETY: at least one is left, wherever the indices are.
        let first = unsafe { cqes.next() };
        // SAFETY: as above.
        let words = load_sqe(unsafe { sqes.next() });
        Some((MappedPlace { first, second: None }, words))
    }

    #[inline]
    fn kernel_fence(&self, _: Fence) {
        fence(Ordering::SeqCst);
    }
}

// SAFETY: `slots` gives what it was asked for, no further than to the end of the array.
unsafe impl UserMem for Mapped {
    type Slots = Slots;

    #[inline]
    fn sq_entries(&self) -> u32 {
        self.sq_mask.wrapping_add(1)
    }

    #[inline]
    fn load_kernel(&self, word: KernelWord) -> u32 {
        self.kernel_word(word).load(word.load_order())
    }

    #[inline]
    fn store_user(&self, word: UserWord, value: u32) {
        self.user_word(word).store(value, word.store_order());
    }

    fn slots(&self, tail: u32, room: u32) -> Slots {
        let straight = self.sq_mask.wrapping_sub(tail & self.sq_mask).wrapping_add(1);
        let most = if self.sqe_bytes == UNIT { straight } else { 1 };
        let at: *mut [u64; 8] = self.slot(tail, 0).as_ptr().cast();
        Slots { at, end: at.wrapping_add(room.min(most) as usize) }
    }

    #[inline]
    unsafe fn write_sqe_tail(&self, index: u32, words: [u64; 8]) {
        if self.sqe_bytes > UNIT {
            // SAFETY: inside the array, as `slot` says: an entry has two units here. Not atomic: the slot is this half's alone (the contract,
            // and that of `new`).
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

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The mapped memory: whatever the index, it stays in its arrays, and each half writes only its own region.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use sq_uapi::{CqePlace, KernelMem, KernelWord, Mapped, Parts, SqOffsets, SqeSlots, UserMem, UserWord};

const WORDS: usize = 512;

struct Memory {
    user: Vec<AtomicU64>,
    kernel: Vec<AtomicU64>,
}

impl Memory {
    fn new() -> Self {
        let zeros = || (0..WORDS).map(|_| AtomicU64::new(0)).collect();
        Self { user: zeros(), kernel: zeros() }
    }

    /// Four entries of 128 bytes, four completions of 32, each array between words that must stay as they are.
    fn view(&self) -> Mapped {
        self.view_of(true, true)
    }

    /// The same, or with entries of 64 bytes or completions of 16.
    fn view_of(&self, sqe128: bool, cqe32: bool) -> Mapped {
        let start = |region: &[AtomicU64]| NonNull::from(region).cast::<u8>();
        let offsets = SqOffsets {
            sq_tail: 0,
            cq_head: 128,
            cq_flags: 132,
            sqes: 256,
            sq_head: 0,
            sq_state: 4,
            cq_tail: 128,
            broken: 256,
            cqes: 384,
            resv: [0; 7],
        };
        let (user, kernel) = (start(&self.user), start(&self.kernel));
        let parts = Parts { user, kernel, offsets, sq_entries: 4, cq_entries: 4, sqe128, cqe32 };
        // SAFETY: 4096 bytes hold the words, 256 + 4 * 128 and 384 + 4 * 32; the vectors outlive the view in each test.
        unsafe { Mapped::new(parts) }
    }
}

fn touched(region: &[AtomicU64]) -> Vec<usize> {
    (0..WORDS).filter(|at| region[*at].load(Relaxed) != 0).map(|at| at * 8).collect()
}

fn write_sqe(view: &Mapped, index: u32, words: [u64; 8]) {
    // SAFETY: the memory is there (see `view_of`), and this thread has it to itself.
    unsafe { view.slots(index, 1).write(words) };
}

#[test]
fn idx1_every_index_is_masked() {
    for index in [0, 1, 3, 4, 5, 1000, u32::MAX - 1, u32::MAX, 1 << 31] {
        let memory = Memory::new();
        let view = memory.view();
        write_sqe(&view, index, [u64::MAX; 8]);
        // SAFETY: as in `write_sqe`.
        unsafe { view.write_sqe_tail(index, [u64::MAX; 8]) };
        let start = 256 + (index as usize % 4) * 128;
        assert_eq!(touched(&memory.user), (start..start + 128).step_by(8).collect::<Vec<_>>(), "entry {index}");
        assert_eq!(touched(&memory.kernel), []);
        let copied: Vec<_> = view.sqe_run(index, 1).collect();
        assert_eq!((copied, view.copy_sqe_tail(index)), (vec![[u64::MAX; 8]], [u64::MAX; 8]));

        view.cqe_run(index, 1).for_each(|place| place.write_wide([u64::MAX; 4]));
        let start = 384 + (index as usize % 4) * 32;
        assert_eq!(touched(&memory.kernel), (start..start + 32).step_by(8).collect::<Vec<_>>(), "completion {index}");
        assert_eq!(view.read_cqe(index), [u64::MAX; 4]);
    }
}

#[test]
fn idx1_a_queue_goes_on_when_its_indices_wrap() {
    let memory = Memory::new();
    let view = memory.view();
    for n in 0..16u32 {
        let index = (u32::MAX - 7).wrapping_add(n);
        write_sqe(&view, index, [u64::from(n); 8]);
        view.store_user(UserWord::SqTail, index.wrapping_add(1));
        assert_eq!(view.load_user(UserWord::SqTail).wrapping_sub(index), 1);
        assert_eq!(view.sqe_run(index, 1).collect::<Vec<_>>(), [[u64::from(n); 8]]);
    }
}

/// Each of the runs, by itself and side by side, goes as far as it may, and no further than its array.
#[test]
fn idx1_a_run_ends_where_its_array_does() {
    for wide in [false, true] {
        for (index, most) in [(0, 4), (0, 9), (1, 2), (3, 4), (u32::MAX, 4), (u32::MAX - 2, u32::MAX), (2, 0)] {
            a_run_ends_where_its_array_does(wide, index, most);
        }
    }
}

fn a_run_ends_where_its_array_does(wide: bool, index: u32, most: u32) {
    let memory = Memory::new();
    let view = memory.view_of(wide, wide);
    for slot in 0..4u32 {
        write_sqe(&view, slot, [slot.into(); 8]);
    }
    let straight = 4 - index % 4;
    let expected: Vec<u64> = (index % 4..4).take(most.min(straight) as usize).map(u64::from).collect();
    let copied: Vec<u64> = view.sqe_run(index, most).map(|words| words[0]).collect();
    assert_eq!(copied, expected, "{most} entries from {index}");
    assert_eq!((view.sqe_run(index, most).len(), view.cqe_run(index, most).len()), (expected.len(), expected.len()));
    assert_eq!(view.cqe_run(index, most).count(), expected.len(), "{most} completions from {index}");
    if !wide {
        pairs_end_with_the_shorter(&memory, &view, index, most);
    }
}

fn pairs_end_with_the_shorter(memory: &Memory, view: &Mapped, index: u32, most: u32) {
    // The completions begin one further on: their array may be the one that ends first.
    let tail = index.wrapping_add(1);
    let shorter = most.min(4 - index % 4).min(4 - tail % 4);
    let pairs = view.pair_run(tail, index, most);
    assert_eq!(pairs.len(), shorter as usize, "{most} pairs from {index}");
    let first = view.pair(tail, index).map(|(place, words)| {
        place.write([7, 7]);
        words[0]
    });
    assert_eq!(first, Some(u64::from(index % 4)));
    assert_eq!(touched(&memory.kernel), [384 + (tail % 4) as usize * 16, 384 + (tail % 4) as usize * 16 + 8]);
    let mut read = Vec::new();
    for (place, words) in pairs {
        place.write([u64::MAX, words[0]]);
        read.push(words[0]);
    }
    let expected: Vec<u64> = (index % 4..4).take(shorter as usize).map(u64::from).collect();
    assert_eq!(read, expected);
    let written = |n: u32| 384 + (tail.wrapping_add(n) % 4) as usize * 16;
    let mut expected: Vec<usize> = (0..shorter.max(1)).map(written).collect();
    expected.sort_unstable();
    let touched: Vec<usize> = touched(&memory.kernel).into_iter().filter(|at| at % 16 == 0).collect();
    assert_eq!(touched, expected, "{most} pairs from {index}");
}

/// On a ring whose entries or completions are longer, pairs may be other bytes of their arrays, but of nothing else. (Such a ring has
/// none: `every_shape_has_its_own_bytes` in the conformance suite.)
#[test]
fn idx1_pairs_stay_in_their_arrays_whatever_the_shape() {
    for (sqe128, cqe32) in [(true, true), (true, false), (false, true), (false, false)] {
        for (tail, head, most) in [(0, 0, 9), (3, 3, 4), (1, 2, 4), (2, 1, u32::MAX), (u32::MAX, u32::MAX - 1, 4)] {
            let memory = Memory::new();
            let view = memory.view_of(sqe128, cqe32);
            let entries = 256 / 8..256 / 8 + 4 * if sqe128 { 16 } else { 8 };
            (0..WORDS).for_each(|at| memory.user[at].store(if entries.contains(&at) { 1 } else { u64::MAX }, Relaxed));
            let pairs = view.pair_run(tail, head, most).chain(view.pair(tail, head));
            let copied: Vec<_> = pairs
                .map(|(place, words)| {
                    place.write_wide([1; 4]);
                    words
                })
                .collect();
            assert!(copied.len() > 1 && copied.iter().all(|words| *words == [1; 8]), "{copied:x?}");
            let completions = 384..384 + 4 * if cqe32 { 32 } else { 16 };
            let touched = touched(&memory.kernel);
            assert!(touched.iter().all(|at| completions.contains(at)), "{touched:?} of {completions:?}");
        }
    }
}

/// Slots in a row too; and on a ring with 128-byte entries there is one.
#[test]
fn idx1_slots_end_where_their_array_does() {
    for wide in [false, true] {
        for (tail, room) in [(0, 4), (0, 9), (1, 2), (3, 4), (u32::MAX, 4), (u32::MAX - 2, u32::MAX), (2, 0)] {
            let memory = Memory::new();
            let view = memory.view_of(wide, wide);
            let mut slots = view.slots(tail, room);
            let most = if wide { 1 } else { 4 - tail % 4 };
            assert_eq!(slots.left(), room.min(most), "{room} slots from {tail}");
            for _ in 0..6 {
                // SAFETY: as in `write_sqe`. Those beyond the last lead nowhere.
                unsafe { slots.write([1; 8]) };
            }
            assert!(slots.is_empty());
            let start = 256 + (tail as usize % 4) * if wide { 128 } else { 64 };
            let end = start + room.min(most) as usize * 64;
            assert_eq!(touched(&memory.user), (start..end).step_by(8).collect::<Vec<_>>(), "{room} slots from {tail}");
        }
    }
}

/// That the kernel side has no way to load its own words back, nor to keep a reference to an entry (SNAP-2), is the compiler's to
/// say: see the example that does not compile at `KernelMem`.
#[test]
fn idx2_a_word_is_in_its_writers_region() {
    let memory = Memory::new();
    let view = memory.view();
    for word in [UserWord::SqTail, UserWord::CqHead, UserWord::CqFlags] {
        view.store_user(word, 1);
        assert_eq!(view.load_user(word), 1);
    }
    assert_eq!((touched(&memory.user), touched(&memory.kernel)), (vec![0, 128], vec![]));
    for word in [KernelWord::SqHead, KernelWord::SqState, KernelWord::CqTail, KernelWord::Broken] {
        view.store_kernel(word, 1);
        assert_eq!(view.load_kernel(word), 1);
    }
    assert_eq!((touched(&memory.user), touched(&memory.kernel)), (vec![0, 128], vec![0, 128, 256]));
}

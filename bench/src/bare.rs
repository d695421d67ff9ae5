// SPDX-License-Identifier: MIT OR Apache-2.0
//! A bare ring in one thread: entries, completions, and no protocol. What is left of a queue when everything that makes it safe is
//! taken away, and so the place to see what one part costs.
//!
//! Its memory is a ring's: each half has a mapping of its own of the same pages, entries and completions on different ones. So a cache, a
//! TLB and a store buffer have as much to do as for a ring.

use std::ffi::c_void;
use std::hint::black_box;
use std::ptr::null_mut;
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

type Slot = [AtomicU64; 8];
type Done = [AtomicU64; 2];

/// How the consumer looks at an entry that somebody else may be changing.
pub trait Look {
    /// The operation's result, and the entry's `user_data`.
    fn issue(slot: &Slot) -> (i32, u64);
}

/// It believes what is there: the driver reads the shared slot.
#[derive(Clone, Copy, Debug)]
pub struct InPlace;

/// It copies the entry first, word by word, unrolled.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot;

/// It copies the entry first, in a loop.
#[derive(Clone, Copy, Debug)]
pub struct Rolled;

impl Look for InPlace {
    #[inline(always)]
    fn issue(slot: &Slot) -> (i32, u64) {
        (driver_of_shared(slot), slot[4].load(Ordering::Relaxed))
    }
}

impl Look for Snapshot {
    #[inline(always)]
    fn issue(slot: &Slot) -> (i32, u64) {
        let [a, b, c, d, e, f, g, h] = slot;
        let load = |word: &AtomicU64| word.load(Ordering::Relaxed);
        let copy = [load(a), load(b), load(c), load(d), load(e), load(f), load(g), load(h)];
        (driver(&copy), copy[4])
    }
}

impl Look for Rolled {
    #[inline(always)]
    fn issue(slot: &Slot) -> (i32, u64) {
        let mut copy = [0; 8];
        // The compiler must not know how often.
        for (to, from) in copy.iter_mut().zip(slot).take(black_box(8)) {
            *to = from.load(Ordering::Relaxed);
        }
        (driver(&copy), copy[4])
    }
}

/// Out of line, as a driver is.
#[inline(never)]
fn driver(entry: &[u64; 8]) -> i32 {
    if entry[0] & 0xff == 0 { 0 } else { -22 }
}

#[inline(never)]
fn driver_of_shared(entry: &Slot) -> i32 {
    if entry[0].load(Ordering::Relaxed) & 0xff == 0 { 0 } else { -22 }
}

const PAGE: usize = 4096;

/// One half's mapping of the ring's pages.
#[derive(Debug)]
struct Half {
    start: *mut c_void,
    entries: usize,
}

// SAFETY: the mapping is plain memory, and every word of it an atomic.
unsafe impl Send for Half {}

impl Half {
    /// Where completions begin: on pages of their own.
    const fn done_at(entries: usize) -> usize {
        (entries * size_of::<Slot>()).next_multiple_of(PAGE)
    }

    const fn bytes(entries: usize) -> usize {
        Self::done_at(entries) + (entries * size_of::<Done>()).next_multiple_of(PAGE)
    }

    #[inline(always)]
    fn slots(&self) -> &[Slot] {
        // SAFETY: the mapping starts with as many slots, which are atomics, and stays as long as this value.
        unsafe { slice::from_raw_parts(self.start.cast(), self.entries) }
    }

    #[inline(always)]
    fn done(&self) -> &[Done] {
        // SAFETY: the completions' pages are inside the mapping.
        let start = unsafe { self.start.byte_add(Self::done_at(self.entries)) };
        // SAFETY: as for the slots.
        unsafe { slice::from_raw_parts(start.cast(), self.entries) }
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's, and slices of it have ended with their borrow.
        unsafe { munmap(self.start, Self::bytes(self.entries)) }.expect("it was mapped");
    }
}

/// The ring.
#[derive(Debug)]
pub struct Bare {
    user: Half,
    kernel: Half,
    at: usize,
}

impl Bare {
    /// `entries` of each, a power of two.
    ///
    /// # Panics
    ///
    /// It is none, or there is no memory.
    #[must_use]
    pub fn new(entries: usize) -> Self {
        assert!(entries.is_power_of_two(), "{entries} entries are no power of two");
        let file = memfd_create("sq-bare", MemfdFlags::CLOEXEC).expect("a file in memory");
        ftruncate(&file, Half::bytes(entries) as u64).expect("room in memory");
        let half = || {
            let access = ProtFlags::READ | ProtFlags::WRITE;
            // SAFETY: a new mapping where the kernel likes.
            let start = unsafe { mmap(null_mut(), Half::bytes(entries), access, MapFlags::SHARED, &file, 0) };
            Half { start: start.expect("room in memory"), entries }
        };
        Self { user: half(), kernel: half(), at: 0 }
    }

    /// Pushes `batch` entries, does them, and takes their completions out. Returns the sum of their `user_data`.
    #[inline(always)]
    pub fn round<L: Look>(&mut self, batch: u32) -> u64 {
        self.push(batch);
        self.serve::<L>(batch);
        self.reap(batch)
    }

    /// Writes `batch` entries.
    #[inline(always)]
    pub fn push(&mut self, batch: u32) {
        let slots = self.user.slots();
        for n in 0..batch {
            let slot = &slots[(self.at + n as usize) & (slots.len() - 1)];
            for (word, value) in slot.iter().zip([0xffff_ffff << 32, 0, 0, 0, n.into(), 0, 0, 0]) {
                word.store(value, Ordering::Relaxed);
            }
        }
    }

    /// Does them.
    #[inline(always)]
    pub fn serve<L: Look>(&mut self, batch: u32) {
        let (slots, all_done) = (self.kernel.slots(), self.kernel.done());
        for n in 0..batch as usize {
            let at = (self.at + n) & (slots.len() - 1);
            let (result, user_data) = L::issue(&slots[at]);
            let done = &all_done[at];
            done[0].store(user_data, Ordering::Relaxed);
            done[1].store(result as u32 as u64, Ordering::Relaxed);
        }
    }

    /// Takes their completions out.
    #[inline(always)]
    pub fn reap(&mut self, batch: u32) -> u64 {
        let all_done = self.user.done();
        let mut sum = 0;
        for n in 0..batch as usize {
            let done = &all_done[(self.at + n) & (all_done.len() - 1)];
            assert_eq!(done[1].load(Ordering::Relaxed), 0, "a null operation succeeds");
            sum += done[0].load(Ordering::Relaxed);
        }
        self.at += batch as usize;
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::{Bare, InPlace, Rolled, Snapshot};

    #[test]
    fn what_was_pushed_comes_back_once_around_and_more() {
        let mut ring = Bare::new(4);
        for _ in 0..3 {
            assert_eq!(ring.round::<InPlace>(3), 3);
            assert_eq!(ring.round::<Snapshot>(3), 3);
            assert_eq!(ring.round::<Rolled>(4), 6);
        }
    }
}

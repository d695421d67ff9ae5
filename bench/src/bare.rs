// SPDX-License-Identifier: MIT OR Apache-2.0
//! A bare ring in one thread: entries, completions, and no protocol. What is left of a queue when everything that makes it safe is
//! taken away, and so the place to see what one part costs.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

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

/// The ring.
#[derive(Debug)]
pub struct Bare {
    slots: Box<[Slot]>,
    done: Box<[Done]>,
    at: usize,
}

impl Bare {
    /// `entries` of each, a power of two.
    #[must_use]
    pub fn new(entries: usize) -> Self {
        assert!(entries.is_power_of_two(), "{entries} entries are no power of two");
        Self {
            slots: (0..entries).map(|_| Slot::default()).collect(),
            done: (0..entries).map(|_| Done::default()).collect(),
            at: 0,
        }
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
        let mask = self.slots.len() - 1;
        for n in 0..batch {
            let slot = &self.slots[(self.at + n as usize) & mask];
            for (word, value) in slot.iter().zip([0xffff_ffff << 32, 0, 0, 0, n.into(), 0, 0, 0]) {
                word.store(value, Ordering::Relaxed);
            }
        }
    }

    /// Does them.
    #[inline(always)]
    pub fn serve<L: Look>(&mut self, batch: u32) {
        let mask = self.slots.len() - 1;
        for n in 0..batch as usize {
            let (result, user_data) = L::issue(&self.slots[(self.at + n) & mask]);
            let done = &self.done[(self.at + n) & mask];
            done[0].store(user_data, Ordering::Relaxed);
            done[1].store(result as u32 as u64, Ordering::Relaxed);
        }
    }

    /// Takes their completions out.
    #[inline(always)]
    pub fn reap(&mut self, batch: u32) -> u64 {
        let mask = self.slots.len() - 1;
        let mut sum = 0;
        for n in 0..batch as usize {
            let done = &self.done[(self.at + n) & mask];
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

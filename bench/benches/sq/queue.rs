// SPDX-License-Identifier: MIT OR Apache-2.0
//! A queue of null operations, whoever's: what is measured is the same code for ours and for io_uring's.

use std::time::{Duration, Instant};

use io_uring::IoUring;
use liburing_shm::{Ring, opcode};

use crate::host::good;

/// Operations in flight under steady load.
pub(crate) const DEPTH: u32 = 256;

pub(crate) trait Queue {
    /// Writes `count` null operations, or as many as there is room for; returns how many.
    fn push(&mut self, count: u32) -> u32;
    /// Publishes them and rings if that is needed.
    fn submit(&mut self);
    /// Takes out the completions that are there.
    fn reap(&mut self) -> u32;
}

impl Queue for Ring {
    #[inline(always)]
    fn push(&mut self, count: u32) -> u32 {
        let sq = self.submission();
        for n in 0..count {
            if sq.push(opcode::Nop::new().build().user_data(n.into())).is_err() {
                return n;
            }
        }
        count
    }

    #[inline(always)]
    fn submit(&mut self) {
        Ring::submit(self).expect("a null operation is accepted");
    }

    #[inline(always)]
    fn reap(&mut self) -> u32 {
        self.completion().reap().map(|done| 1 + good(&done)).sum()
    }
}

impl Queue for IoUring {
    #[inline(always)]
    fn push(&mut self, count: u32) -> u32 {
        let mut sq = self.submission();
        for n in 0..count {
            let nop = io_uring::opcode::Nop::new().build().user_data(n.into());
            // SAFETY: a NOP refers to no memory.
            if unsafe { sq.push(&nop) }.is_err() {
                return n;
            }
        }
        count
    }

    #[inline(always)]
    fn submit(&mut self) {
        IoUring::submit(self).expect("io_uring takes a NOP");
    }

    #[inline(always)]
    fn reap(&mut self) -> u32 {
        let good = |done: io_uring::cqueue::Entry| {
            assert_eq!(done.result(), 0, "a NOP succeeds");
            1
        };
        self.completion().map(good).sum()
    }
}

/// A batch, and its completions.
#[inline(always)]
pub(crate) fn round(queue: &mut impl Queue, batch: u32) {
    assert_eq!(queue.push(batch), batch, "the queue has room for a batch");
    queue.submit();
    // Of a queue that its caller drains they are all there.
    let mut left = batch;
    while left > 0 {
        left -= queue.reap();
    }
}

/// `batches` batches, as fast as the other side takes them: the time that it took.
pub(crate) fn steady(queue: &mut impl Queue, batch: u32, batches: u64) -> Duration {
    let total = batches * u64::from(batch);
    let (mut pushed, mut reaped) = (0, 0);
    let start = Instant::now();
    while reaped < total {
        // A polling consumer gives places of entries back a moment after it has completed them.
        let mut fresh = 0;
        if pushed < total && pushed - reaped + u64::from(batch) <= DEPTH.into() {
            fresh = queue.push(batch.min(u32::try_from(total - pushed).unwrap_or(batch)));
        }
        if fresh > 0 {
            pushed += u64::from(fresh);
            queue.submit();
        }
        reaped += u64::from(queue.reap());
    }
    start.elapsed()
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! A look at a ring from outside, for people: what `/proc/PID/fdinfo` says.

use sq_uapi::SqStats;

use crate::cq::Stall;
use crate::host::{Host, Lock};
use crate::ring::{Mode, Ring};
use crate::sync::Ordering;

/// A ring at one moment. The glue prints it: `struct sq_look`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Look {
    /// 0 caller, 1 worker, 2 polling thread.
    pub mode: u32,
    /// Submission entries.
    pub sq_entries: u32,
    /// Completion entries.
    pub cq_entries: u32,
    /// Requests.
    pub max_inflight: u32,
    /// 1: not enabled, 2: broken, 4: quiesced, 8: and nothing is in flight any more.
    pub stopped: u32,
    /// Not 0: somebody drains.
    pub draining: u32,
    /// 1: the completion lock was held, so that all below is 0.
    pub busy: u32,
    /// Entries consumed. Of the indices these are the private copies, not what user space sees or writes.
    pub sq_head: u32,
    /// Completions reaped, as of the last look.
    pub cq_head: u32,
    /// Completions posted.
    pub cq_tail: u32,
    /// Completion slots that are promised.
    pub reserved: u32,
    /// Entries wait: 0 they do not, 1 for a completion slot, 2 for a request, 3 for an ENTER.
    pub stall: u32,
    /// The counters.
    pub stats: SqStats,
}

impl<H: Host> Ring<H> {
    /// A look at the ring that waits for nobody.
    pub fn look(&self) -> Look {
        let geometry = &self.geometry;
        let shape = Look {
            mode: match geometry.mode {
                Mode::Caller => 0,
                Mode::Worker => 1,
                Mode::Poll => 2,
            },
            sq_entries: geometry.sq_entries,
            cq_entries: geometry.cq_entries,
            max_inflight: geometry.max_inflight,
            stopped: self.stopped(),
            draining: self.drain.load(Ordering::Relaxed),
            busy: 1,
            ..Look::default()
        };
        let seen = self.cq.try_with(|cq| Look {
            busy: 0,
            stall: match cq.stall {
                Stall::None => 0,
                Stall::Slot => 1,
                Stall::Request => 2,
                Stall::Process => 3,
            },
            stats: self.all_stats(cq.stats),
            ..cq.indices(&self.posted, shape)
        });
        seen.unwrap_or(shape)
    }
}

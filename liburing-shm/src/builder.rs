// SPDX-License-Identifier: MIT OR Apache-2.0
//! Choosing the shape of a ring.

use std::time::Duration;

use sq_uapi::SqSetup;
use sq_uapi::consts::setup_flags;

use crate::queue::Ring;
use crate::{Backend, Error};

/// The shape of a ring to be made. Made by [`Ring::builder`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until build()"]
pub struct Builder(SqSetup);

impl Builder {
    pub(crate) fn new(sq_entries: u32) -> Self {
        Self(SqSetup { size: size_of::<SqSetup>() as u32, sq_entries, ..SqSetup::default() })
    }

    fn flag(mut self, flag: u32) -> Self {
        self.0.flags |= flag;
        self
    }

    /// Completion entries. Default: twice the submission entries.
    pub fn cq_entries(mut self, cq_entries: u32) -> Self {
        self.0.cq_entries = cq_entries;
        self
    }

    /// Requests in flight at most. Default: half of the completion entries.
    pub fn max_inflight(mut self, requests: u32) -> Self {
        self.0.max_inflight = requests;
        self
    }

    /// A worker drains the ring; the doorbell only wakes it.
    pub fn worker(self) -> Self {
        self.flag(setup_flags::WORKER)
    }

    /// A thread polls the ring, and sleeps when it has been idle for `idle` (rounded up to milliseconds, at least 1).
    pub fn poll(mut self, idle: Duration) -> Self {
        let ms = idle.as_nanos().div_ceil(1_000_000).max(1);
        self.0.sq_thread_idle_ms = u32::try_from(ms).unwrap_or(u32::MAX);
        self.flag(setup_flags::SQPOLL)
    }

    /// The polling thread runs on this CPU only.
    pub fn poll_cpu(mut self, cpu: u32) -> Self {
        self.0.sq_thread_cpu = cpu;
        self.flag(setup_flags::SQ_AFF)
    }

    /// A pool of `count` buffers of `bytes` each (a multiple of the page size).
    pub fn pool(mut self, count: u16, bytes: u32) -> Self {
        self.0.buf_count = u32::from(count);
        self.0.buf_bytes = bytes;
        self
    }

    /// Entries of 128 bytes.
    pub fn wide_entries(self) -> Self {
        self.flag(setup_flags::SQE128)
    }

    /// Completions of 32 bytes.
    pub fn wide_completions(self) -> Self {
        self.flag(setup_flags::CQE32)
    }

    /// Sizes over the limit are lowered to it instead of refused.
    pub fn clamp(self) -> Self {
        self.flag(setup_flags::CLAMP)
    }

    /// The ring takes nothing until [`Submitter::enable`](crate::Submitter::enable).
    pub fn disabled(self) -> Self {
        self.flag(setup_flags::R_DISABLED)
    }

    /// Makes the ring.
    ///
    /// # Errors
    ///
    /// [`Error::Open`] if the device cannot be opened, [`Error::Call`] if it refuses the shape, [`Error::Map`] for want of memory.
    pub fn build(self, backend: &Backend) -> Result<Ring, Error> {
        let mut setup = self.0;
        let opened = backend.setup(&mut setup)?;
        Ok(Ring::new(opened, &setup))
    }
}

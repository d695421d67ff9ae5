// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the threads of a program have in common: descriptors, and mappings.

use std::os::fd::RawFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, Ordering};

use sq_uapi::SqSetup;

use crate::Random;

const FDS: usize = 12;
const AREAS: usize = 8;

/// A mapping of a ring's region, or what has become of it.
pub(super) struct Area {
    pub(super) at: usize,
    pub(super) len: usize,
    /// Written to only if it is what it was mapped as.
    pub(super) writable: bool,
    pub(super) setup: SqSetup,
}

/// Descriptors are used without a lock: one thread closes what another is in. Memory is touched, and changed, under a lock, since
/// this process must live.
pub(super) struct World {
    fds: [AtomicI32; FDS],
    setups: [Mutex<SqSetup>; FDS],
    pub(super) areas: [Mutex<Option<Area>>; AREAS],
    /// Where transfers go. Leaked.
    pub(super) buffer: usize,
}

pub(super) const BUFFER_BYTES: usize = 64 << 10;

impl World {
    pub(super) fn new() -> Self {
        Self {
            fds: std::array::from_fn(|_| AtomicI32::new(-1)),
            setups: std::array::from_fn(|_| Mutex::new(SqSetup::default())),
            areas: std::array::from_fn(|_| Mutex::new(None)),
            buffer: Box::leak(vec![0u64; BUFFER_BYTES / 8].into_boxed_slice()).as_mut_ptr().expose_provenance(),
        }
    }

    pub(super) fn slot(random: &mut Random) -> usize {
        random.below(FDS as u64) as usize
    }

    pub(super) fn fd(&self, slot: usize) -> RawFd {
        self.fds[slot].load(Ordering::Relaxed)
    }

    /// Puts `fd` there, and closes what was.
    pub(super) fn put(&self, slot: usize, fd: RawFd) {
        let old = self.fds[slot].swap(fd, Ordering::Relaxed);
        if old >= 0 {
            // SAFETY: from this table, which only holds what was opened for it; threads that still use the number do so on purpose.
            unsafe { libc::close(old) };
        }
    }

    /// What the last SETUP by this slot said.
    pub(super) fn setup(&self, slot: usize) -> SqSetup {
        self.setups[slot].try_lock().map(|setup| *setup).unwrap_or_default()
    }

    pub(super) fn keep_setup(&self, slot: usize, setup: SqSetup) {
        if let Ok(mut kept) = self.setups[slot].try_lock() {
            *kept = setup;
        }
    }

    pub(super) fn area(random: &mut Random) -> usize {
        random.below(AREAS as u64) as usize
    }
}

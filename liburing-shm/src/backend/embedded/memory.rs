// SPDX-License-Identifier: MIT OR Apache-2.0
//! A ring's memory: one memfd, mapped twice.

use std::os::fd::AsFd;
use std::ptr::NonNull;

use kmod_sq::Geometry;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::process::{Resource, getrlimit};
use sq_uapi::{Mapped, Parts};

use super::super::map::Map;
use crate::Error;

/// The three regions, in both halves' mappings.
#[derive(Debug)]
pub(crate) struct Memory {
    kernel: Half,
    user: Half,
}

#[derive(Debug)]
struct Half {
    user: Map,
    kernel: Map,
    pool: Option<Map>,
}

impl Memory {
    pub(super) fn new(geometry: &Geometry) -> Result<Self, Error> {
        let memory = |errno: rustix::io::Errno| Error::Map { source: errno.into() };
        let fd = memfd_create("sq-ring", MemfdFlags::CLOEXEC).map_err(memory)?;
        let (user, kernel, pool) = (geometry.user.size, geometry.kernel.size, geometry.pool.size);
        let too_big = || Error::Map { source: std::io::ErrorKind::OutOfMemory.into() };
        let total = user.checked_add(kernel).and_then(|n| n.checked_add(pool)).ok_or_else(too_big)?;
        // Past the limit, `ftruncate` comes with SIGXFSZ, which ends a process that does not expect it.
        if getrlimit(Resource::Fsize).current.is_some_and(|limit| total > limit) {
            return Err(memory(rustix::io::Errno::FBIG));
        }
        ftruncate(&fd, total).map_err(memory)?;
        let map = |offset, len: u64, write| {
            Map::new(fd.as_fd(), offset, usize::try_from(len).map_err(|_| rustix::io::Errno::NOMEM)?, write)
        };
        let half = |kernel_writable| {
            let pool = if pool == 0 { None } else { Some(map(user + kernel, pool, true)?) };
            Ok(Half { user: map(0, user, true)?, kernel: map(user, kernel, kernel_writable)?, pool })
        };
        Ok(Self { kernel: half(true).map_err(memory)?, user: half(false).map_err(memory)? })
    }

    /// # Safety
    ///
    /// The result is not used after this value is dropped, and `geometry` is the one it was made from. Only the kernel side
    /// uses it.
    pub(super) unsafe fn kernel_side(&self, geometry: &Geometry) -> Mapped {
        // SAFETY: the contract.
        unsafe { view(&self.kernel, geometry) }
    }

    /// # Safety
    ///
    /// As [`Memory::kernel_side`], and only the user half uses it.
    pub(super) unsafe fn user_side(&self, geometry: &Geometry) -> Mapped {
        // SAFETY: the contract.
        unsafe { view(&self.user, geometry) }
    }

    pub(super) fn kernel_pool(&self) -> Option<NonNull<u8>> {
        self.kernel.pool.as_ref().map(Map::start)
    }

    pub(super) fn user_pool(&self) -> Option<NonNull<u8>> {
        self.user.pool.as_ref().map(Map::start)
    }
}

/// # Safety
///
/// `half` was mapped for `geometry`, and outlives the result.
unsafe fn view(half: &Half, geometry: &Geometry) -> Mapped {
    let parts = Parts {
        user: half.user.start(),
        kernel: half.kernel.start(),
        offsets: geometry.offsets,
        sq_entries: geometry.sq_entries,
        cq_entries: geometry.cq_entries,
        sqe128: geometry.sqe128,
        cqe32: geometry.cqe32,
    };
    // SAFETY: a Geometry's regions hold its words and arrays, and page alignment is theirs.
    unsafe { Mapped::new(parts) }
}

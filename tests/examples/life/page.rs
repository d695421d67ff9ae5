// SPDX-License-Identifier: MIT OR Apache-2.0
//! A page of user memory that comes when its process likes (userfaultfd).
//!
//! Needs `vm.unprivileged_userfaultfd`, or root.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use crate::Why;
use crate::raw::{self, last};

pub(crate) const PAGE: usize = 4096;

/// A page that is not there yet; whoever touches it waits for [`Page::serve`].
pub(crate) struct Page {
    at: *mut u8,
    pub(crate) uffd: OwnedFd,
}

// SAFETY: memory of the process, written only by calls of the kernel.
unsafe impl Send for Page {}
// SAFETY: as above.
unsafe impl Sync for Page {}

/// linux/userfaultfd.h
#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}
#[repr(C)]
struct Register {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}
#[repr(C)]
struct Copy {
    dst: u64,
    src: u64,
    len: u64,
    mode: u64,
    copied: i64,
}
const UFFDIO_API: u32 = 0xc018_aa3f;
const UFFDIO_REGISTER: u32 = 0xc020_aa00;
const UFFDIO_COPY: u32 = 0xc028_aa03;
const UFFDIO_WAKE: u32 = 0x8010_aa02;

impl Page {
    pub(crate) fn new() -> Result<Self, Why> {
        // SAFETY: a new mapping, where the kernel likes.
        let at = unsafe {
            libc::mmap(
                ptr::null_mut(),
                PAGE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(last().into());
        }
        // SAFETY: no pointers.
        let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | libc::O_NONBLOCK) };
        let fd = raw::res(fd as i32)?;
        // SAFETY: just made.
        let uffd = unsafe { OwnedFd::from_raw_fd(fd) };
        raw::call(fd, UFFDIO_API, &mut Api { api: 0xaa, features: 0, ioctls: 0 })?;
        let mut register = Register { start: at as u64, len: PAGE as u64, mode: 1, ioctls: 0 };
        raw::call(fd, UFFDIO_REGISTER, &mut register)?;
        Ok(Self { at: at.cast(), uffd })
    }

    pub(crate) fn addr(&self) -> u64 {
        self.at as u64
    }

    /// Whether somebody waits for the page, within five seconds.
    pub(crate) fn touched(&self) -> bool {
        touched(&self.uffd)
    }

    /// Whether so many wait for it, within five seconds each. Nobody is told of them again.
    pub(crate) fn touched_by(&self, count: usize) -> bool {
        (0..count).all(|_| {
            let mut message = [0u64; 4];
            let place = message.as_mut_ptr().cast();
            // SAFETY: a place for the message about one of them, as large as those are.
            self.touched() && unsafe { libc::read(self.uffd.as_raw_fd(), place, 32) } == 32
        })
    }

    /// Lets the page appear, with these bytes at its start.
    pub(crate) fn serve(&self, bytes: &[u8]) {
        let mut page = Box::new([0u8; PAGE]);
        page[..bytes.len()].copy_from_slice(bytes);
        let src = page.as_ptr().expose_provenance() as u64;
        let mut copy = Copy { dst: self.addr(), src, len: PAGE as u64, mode: 0, copied: 0 };
        let _ = raw::call(self.uffd.as_raw_fd(), UFFDIO_COPY, &mut copy);
        let _ = raw::call(self.uffd.as_raw_fd(), UFFDIO_WAKE, &mut [self.addr(), PAGE as u64]);
    }

    pub(crate) fn byte(&self, offset: usize) -> u8 {
        assert!(offset < PAGE);
        // SAFETY: inside the page, which may be written meanwhile.
        unsafe { self.at.wrapping_add(offset).read_volatile() }
    }
}

/// Whether somebody waits for the page of this userfaultfd, within five seconds.
pub(crate) fn touched(uffd: &OwnedFd) -> bool {
    let mut poll = libc::pollfd { fd: uffd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd.
    unsafe { libc::poll(&raw mut poll, 1, 5000) == 1 && poll.revents == libc::POLLIN }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: its own mapping.
        unsafe { libc::munmap(self.at.cast(), PAGE) };
    }
}

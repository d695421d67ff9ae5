// SPDX-License-Identifier: MIT OR Apache-2.0
//! io_uring's commands: the door that drivers can have beside ours, and that ours have too.

use std::error::Error;
use std::fs::File;
use std::hint::black_box;
use std::os::fd::AsRawFd;

use io_uring::opcode::{UringCmd16, UringCmd80};
use io_uring::squeue::{self, Entry128, EntryMarker};
use io_uring::{IoUring, types};

/// An entry of 64 bytes, inside an SQE of 128.
pub struct Inline {
    uring: IoUring<Entry128>,
    file: File,
    cmd_op: u32,
}

impl Inline {
    /// Commands `cmd_op` to `file`.
    ///
    /// # Errors
    ///
    /// There is no io_uring.
    pub fn new(file: File, cmd_op: u32) -> Result<Self, Box<dyn Error>> {
        Ok(Self { uring: IoUring::builder().build(128)?, file, cmd_op })
    }

    /// How many of `batch` entries succeeded.
    #[inline(always)]
    pub fn round(&mut self, batch: u32, entry: impl Fn(u32) -> [u64; 8]) -> u32 {
        let fd = types::Fd(self.file.as_raw_fd());
        let mut sq = self.uring.submission();
        for n in 0..batch {
            let mut cmd = [0; 80];
            for (to, word) in cmd.chunks_exact_mut(8).zip(entry(n)) {
                to.copy_from_slice(&word.to_le_bytes());
            }
            let sqe = UringCmd80::new(fd, self.cmd_op).cmd(cmd).build().user_data(n.into());
            // SAFETY: the command refers to no memory.
            unsafe { sq.push(&sqe) }.expect("the ring has room for a batch");
        }
        drop(sq);
        submit(&mut self.uring)
    }
}

/// The address of an entry, inside an SQE of 64 bytes.
pub struct Pointer {
    uring: IoUring<squeue::Entry>,
    file: File,
    cmd_op: u32,
    entries: Box<[[u64; 8]; 128]>,
}

impl Pointer {
    /// Commands `cmd_op` to `file`.
    ///
    /// # Errors
    ///
    /// There is no io_uring.
    pub fn new(file: File, cmd_op: u32) -> Result<Self, Box<dyn Error>> {
        Ok(Self { uring: IoUring::builder().build(128)?, file, cmd_op, entries: Box::new([[0; 8]; 128]) })
    }

    /// How many of `batch` entries succeeded.
    #[inline(always)]
    pub fn round(&mut self, batch: u32, entry: impl Fn(u32) -> [u64; 8]) -> u32 {
        let fd = types::Fd(self.file.as_raw_fd());
        let mut sq = self.uring.submission();
        for (place, n) in self.entries.iter_mut().zip(0..batch) {
            *place = entry(n);
            let mut cmd = [0; 16];
            cmd[..8].copy_from_slice(&(place.as_ptr().expose_provenance() as u64).to_le_bytes());
            let sqe = UringCmd16::new(fd, self.cmd_op).cmd(cmd).build().user_data(n.into());
            // SAFETY: the entry stays until the submission below has read it.
            unsafe { sq.push(&sqe) }.expect("the ring has room for a batch");
        }
        drop(sq);
        submit(&mut self.uring)
    }
}

#[inline(always)]
fn submit<S: EntryMarker>(uring: &mut IoUring<S>) -> u32 {
    uring.submit().expect("io_uring takes a command");
    let mut good = 0;
    for cqe in uring.completion() {
        black_box(cqe.user_data());
        good += u32::from(cqe.result() == 0);
    }
    good
}

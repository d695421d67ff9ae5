// SPDX-License-Identifier: MIT OR Apache-2.0
//! An io_uring whose commands go to a device: entries inline in 128-byte SQEs, or by their address in 64-byte ones.

use std::fs::{self, File};
use std::os::fd::AsRawFd;

use io_uring::opcode::{UringCmd16, UringCmd80};
use io_uring::squeue::Flags;
use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{Builder, IoUring, cqueue, squeue};
use liburing_shm::Backend;
use sq_conformance::guest::SOON;
use sq_uapi::Sqe;
use sq_uapi::consts::features;
use sq_uapi::ioctl;

use super::common::NODE;

/// A kind of SQE.
pub(crate) trait Kind: squeue::EntryMarker {
    /// A command with this entry, which stays where it is.
    fn command(fd: Fd, cmd_op: u32, sqe: &'static Sqe) -> Self;
    fn with(self, flags: Flags, user_data: u64) -> Self;
}

impl Kind for squeue::Entry {
    fn command(fd: Fd, cmd_op: u32, sqe: &'static Sqe) -> Self {
        let mut cmd = [0; 16];
        cmd[..8].copy_from_slice(&((&raw const *sqe).addr() as u64).to_le_bytes());
        UringCmd16::new(fd, cmd_op).cmd(cmd).build()
    }

    fn with(self, flags: Flags, user_data: u64) -> Self {
        self.flags(flags).user_data(user_data)
    }
}

impl Kind for squeue::Entry128 {
    fn command(fd: Fd, cmd_op: u32, sqe: &'static Sqe) -> Self {
        let mut cmd = [0; 80];
        for (to, word) in cmd.chunks_exact_mut(8).zip(sqe.to_words()) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        UringCmd80::new(fd, cmd_op).cmd(cmd).build()
    }

    fn with(self, flags: Flags, user_data: u64) -> Self {
        self.flags(flags).user_data(user_data)
    }
}

pub(crate) type Inline = squeue::Entry128;
pub(crate) type Pointer = squeue::Entry;

/// `user_data` and result.
pub(crate) type Done = (u64, i32);

pub(crate) struct Rig<S: Kind, C: cqueue::EntryMarker = cqueue::Entry> {
    pub(crate) uring: IoUring<S, C>,
    pub(crate) fd: Fd,
}

/// Whether commands can be tried here: every kernel that has the module has them. A word about it if not.
pub(crate) fn has_commands() -> bool {
    let answer = Backend::device(NODE).query().unwrap();
    assert!(answer.max_commands != 0 && answer.features & features::URING_CMD != 0, "{answer:?}");
    match IoUring::new(4) {
        Ok(_) => true,
        Err(error) => {
            println!("SKIPPED: io_uring is off: {error}");
            false
        }
    }
}

/// Whether they can be canceled: since 6.7, and the module says the same.
pub(crate) fn has_cancel() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split('.').map_while(|number| number.parse::<u32>().ok());
    let has = (numbers.next(), numbers.next()) >= (Some(6), Some(7));
    let answer = Backend::device(NODE).query().unwrap();
    assert_eq!(answer.features & features::URING_CANCEL != 0, has, "{release}");
    has
}

impl<S: Kind> Rig<S> {
    pub(crate) fn new(file: &File) -> Self {
        Self::shaped(file, |_| {})
    }

    pub(crate) fn shaped(file: &File, shape: impl FnOnce(&mut Builder<S, cqueue::Entry>)) -> Self {
        let mut builder = IoUring::builder();
        shape(&mut builder);
        Self { uring: builder.build(256).unwrap(), fd: Fd(file.as_raw_fd()) }
    }

    /// What is there to reap, by `user_data`.
    pub(crate) fn reap(&mut self) -> Vec<Done> {
        let mut done: Vec<Done> = self.uring.completion().map(|cqe| (cqe.user_data(), cqe.result())).collect();
        done.sort_unstable();
        done
    }

    /// Submits, waits for as many completions, and reaps.
    #[track_caller]
    pub(crate) fn wait(&mut self, count: usize) -> Vec<Done> {
        let mut done = Vec::new();
        let start = std::time::Instant::now();
        while done.len() < count {
            assert!(start.elapsed() < SOON, "only {done:?}");
            self.submit_for(count - done.len());
            done.extend(self.reap());
        }
        done.sort_unstable();
        done
    }

    /// The results of these entries, in order.
    #[track_caller]
    pub(crate) fn all(&mut self, entries: &[Sqe], flags: Flags) -> Vec<i32> {
        for (n, sqe) in (0..).zip(entries) {
            self.push(sqe, flags, n);
        }
        self.wait(entries.len()).iter().map(|(_, res)| *res).collect()
    }

    #[track_caller]
    pub(crate) fn one(&mut self, sqe: &Sqe) -> i32 {
        self.all(&[*sqe], Flags::empty())[0]
    }
}

impl<S: Kind, C: cqueue::EntryMarker> Rig<S, C> {
    pub(crate) fn push(&mut self, sqe: &Sqe, flags: Flags, user_data: u64) {
        // Leaked: io_uring reads it when it likes.
        self.push_at(Box::leak(Box::new(*sqe)), flags, user_data);
    }

    pub(crate) fn push_at(&mut self, sqe: &'static Sqe, flags: Flags, user_data: u64) {
        self.push_raw(S::command(self.fd, ioctl::ISSUE, sqe).with(flags, user_data));
    }

    pub(crate) fn push_raw(&mut self, entry: S) {
        // SAFETY: entries of these tests name no memory but the nested entry, which stays.
        unsafe { self.uring.submission().push(&entry) }.expect("room in the queue");
    }

    /// Submits, and waits for `count` completions, but not for ever.
    pub(crate) fn submit_for(&mut self, count: usize) {
        let time = Timespec::new().nsec(100_000_000);
        match self.uring.submitter().submit_with_args(count, &SubmitArgs::new().timespec(&time)) {
            Err(error) if ![libc::ETIME, libc::EINTR, libc::EBUSY].contains(&error.raw_os_error().unwrap_or(0)) => {
                panic!("{error}")
            }
            _ => {}
        }
    }
}

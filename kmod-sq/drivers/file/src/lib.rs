// SPDX-License-Identifier: MIT OR Apache-2.0
//! The file driver: reads, writes and flushes regular files and block devices.
//!
//! An entry's `fd` names the file, as io_uring has it. Results and error numbers are those of `preadv`, `pwritev`, `fsync` and
//! `fdatasync` on it, exactly; where this driver decides itself:
//!
//! | what | result |
//! |---|---|
//! | a file that is neither regular nor a block device | `-EOPNOTSUPP`: its operations might never end |
//! | a file that is a call to the kernel: of procfs, sysfs, tracefs, debugfs, configfs and the like | `-EOPNOTSUPP`, as above |
//! | an offset above `i64::MAX`, -1 included | `-EINVAL`: there is no current position, offsets are explicit |
//! | canceled before it was started, or its process is gone | `-ECANCELED` |
//!
//! A file of a FUSE file system is taken, and is as good as its server: one that does not answer holds an operation, and whoever waits
//! for it, until it does or is killed. Nothing tells such a file system from one on a disk that is merely slow.
//!
//! Operations are not ordered: an FSYNC covers the writes that completed before it was submitted.
//!
//! Of direct I/O that goes on after its call inotify and fanotify hear nothing in the kernel, as with aio. That it is allowed is asked before.
//!
//! # How it is done
//!
//! [`File`] is the driver, plain `core`. What it cannot do itself, reaching the files, it asks of its home, [`Files`]: first what
//! can be done at once, then the rest as a [`Job`] that ends later. In a process the home is [`process::Threads`]: a read is tried with
//! `RWF_NOWAIT` in the submitter's context, and what would wait goes to a pool of threads, fair by file. In the kernel it is the VFS's
//! iocb path (`vfs.rs`, and in C `kernel/`).
//!
//! ```
//! # #[cfg(feature = "process")] {
//! let driver = sq_file::File::in_process();
//! # let _ = driver;
//! # }
//! ```
#![no_std]
#![deny(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions
)]

#[cfg(feature = "process")]
extern crate std;

mod driver;
mod files;
#[cfg(feature = "process")]
pub mod process;
#[cfg(target_os = "none")]
#[expect(unsafe_code, reason = "calls to C")]
mod vfs;

pub use driver::File;
pub use files::{Files, Io, Job, Now, What, holds_calls};

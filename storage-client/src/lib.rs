// SPDX-License-Identifier: MIT OR Apache-2.0
//! A storage client on sq rings: stores, copies, compares and measures files and block devices.
//!
//! Everything that moves bytes goes through the safe layer of [`liburing_shm`], at queue depth, with the ring's own buffers
//! and registered files. The pieces, from the bottom:
//!
//! | module | what it is |
//! |---|---|
//! | [`ring`] | which ring: backend, mode, depth, block size |
//! | [`engine`] | blocks on their way through a ring: read, then perhaps written; short transfers are carried on |
//! | [`transfer`] | whole files as blocks, with a checksum each |
//! | [`demo`], [`copy`], [`verify`], [`mod@bench`], [`info`] | the verbs; each returns a report that prints as a table and as JSON |
//!
//! ```no_run
//! use sq_storage::{copy, progress::Progress, ring::RingOptions, stop::Stop};
//!
//! # fn main() -> Result<(), sq_storage::Error> {
//! let options = copy::Options::new("disk.img", "backup.img");
//! let report = copy::run(&options, &RingOptions::default(), &Stop::never(), &Progress::hidden())?;
//! println!("{report}");
//! # Ok(())
//! # }
//! ```
//!
//! # What it does not do
//!
//! It does not copy owners, times, extended attributes or holes (they become zeros), and follows no symbolic links inside a tree.
//! Checksums ([`checksum`]) find mistakes, not forgeries. That a source is written to while it is
//! copied is noticed by its modification time, of a block device not at all: copy a snapshot.
#![forbid(unsafe_code)]

pub mod bench;
pub mod checksum;
pub mod copy;
pub mod demo;
pub mod engine;
mod error;
pub mod files;
pub mod info;
pub mod progress;
pub mod report;
pub mod ring;
mod scratch;
pub mod size;
pub mod stop;
pub mod transfer;
pub mod tree;
pub mod verify;

pub use error::Error;

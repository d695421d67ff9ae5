// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ABI between an application and the kernel side of an sq ring.
//!
//! This crate is `include/sq.h` in Rust: the same constants and layouts, compared field by field by a test.
//! Entries have `struct io_uring_sqe`'s and `struct io_uring_cqe`'s layout, and opcodes and flags keep io_uring's
//! values, so that what people know about io_uring carries over. Where sq differs it says so.
//!
//! It also holds [`mem`], the two traits through which each half of a ring touches shared memory, and [`Mapped`],
//! their implementation over two mapped regions. Every checker (loom, hostile memory) supplies its own.
//!
//! # Threat model
//!
//! User space may write anything, at any time, to the user-written region. Nothing in this crate trusts it:
//! layouts are data, and a [`Mapped`] masks every index with a private mask.
//!
//! # Features
//!
//! `flags` (default) adds [`flags`], typed flag sets. The kernel build goes without it and needs no crate.
#![no_std]

mod command;
pub mod consts;
mod copy;
pub mod entry;
pub mod errno;
#[cfg(feature = "flags")]
pub mod flags;
pub mod ioctl;
pub mod mapped;
pub mod mem;
pub mod structs;

pub use command::{Bytes, Command};
pub use copy::{copy_shared, load_entry};
pub use entry::{Cqe, Cqe32, Sqe, Sqe128};
pub use errno::Errno;
pub use mapped::{Completions, Mapped, Parts, Slots};
pub use mem::{CqePlace, Fence, KernelMem, KernelWord, RingMem, SqeSlots, UserMem, UserWord};
pub use structs::{SqCancel, SqEnter, SqIovec, SqOffsets, SqQuery, SqQuiesce, SqRegion, SqRegister, SqSetup, SqStats};

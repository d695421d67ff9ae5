// SPDX-License-Identifier: MIT OR Apache-2.0
//! The doors of loaded modules that are no ring: each driver through each of them, signals, kills, hostile memory, and io_uring.
//! What the door by ioctl answers is the conformance suite's (`door.rs`), too.

mod common;
mod every;
mod file;
mod issue;
mod loads;
mod uring;
mod uring_end;
mod uring_rig;

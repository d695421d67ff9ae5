// SPDX-License-Identifier: MIT OR Apache-2.0
//! The doors of a loaded module that are no ring: signals, kills, hostile memory, and io_uring. What the door by ioctl answers is
//! the conformance suite's (`door.rs`).

mod common;
mod issue;
mod uring;
mod uring_end;
mod uring_rig;

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The Rust half of sq.ko: [`kmod_sq`] over the kernel, by way of C glue as thin as it can be.
//!
//! ```text
//!   user space --ioctl, mmap, poll--> glue/device.c --> edge.rs --> kmod_sq::Ring
//!                                                                        | Host
//!   scheduler, memory, timers <-- glue/{home,poll,memory,small}.c <-- ffi.rs <-- host.rs
//! ```
//!
//! C owns what the kernel must be able to find (files, wait queues, work items, pages); Rust owns the ring. Only C symbols
//! with the prefix `sq_` cross the line between the two, and only `include/sq_driver.h` the line between modules.
//!
//! # What the glue promises
//!
//! The comments that say SAFETY here refer to these by name:
//!
//! - **home**: the `struct sq_home` that a [`KernelHost`](host::KernelHost) points to is valid from `sq_ring_setup` until
//!   `sq_ring_destroy` has returned, which the glue calls once, from a worker, after `sq_queue_free`.
//! - **pages**: what `sq_pages_new` returns is zeroed, page-aligned, and mapped until the home is freed.
//! - **reference**: the glue calls `sq_ring_call`, `_poll`, `_look`, `_stats`, `_alarm`, `_drain`, `_poll_awake`, `_keep` and
//!   `_abandon` only while the ring exists; it gives `_put` one counted reference each time.
//! - **poller**: after `sq_poll_new` has returned 0 the home has a polling thread, which may be woken as long as the home is
//!   valid, also after it has ended.
//! - **table**: the glue has checked a driver's table, and pins the driver's module while it is open or has a home.
#![no_std]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::float_arithmetic
)]

#[cfg(not(target_arch = "x86_64"))]
compile_error!("sq is for x86-64 only, for now");

mod abi;
mod array;
mod caller;
mod command;
mod edge;
mod ffi;
mod host;
mod lock;
// On the target it is sq-driver's; this is for editors, who look at the crate elsewhere.
#[cfg(not(target_os = "none"))]
#[path = "../../driver/src/panic.rs"]
mod panic;

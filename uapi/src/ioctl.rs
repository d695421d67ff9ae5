// SPDX-License-Identifier: MIT OR Apache-2.0
//! Numbers of the calls: ioctls on the device.
//!
//! The size in an ioctl number is that of the first version of its structure, and stays: later versions say their
//! size in the structure itself.

/// The type byte of every sq ioctl.
pub const MAGIC: u8 = b'q';

const WRITE: u32 = 1;
const READ: u32 = 2;

const fn ioc(dir: u32, nr: u32, size: u32) -> u32 {
    dir << 30 | size << 16 | (MAGIC as u32) << 8 | nr
}

/// `SQ_IOC_QUERY`: what device and module can do. Needs no ring.
pub const QUERY: u32 = ioc(READ | WRITE, 0, 144);
/// `SQ_IOC_SETUP`: makes the ring of this open file. Once.
pub const SETUP: u32 = ioc(READ | WRITE, 1, 192);
/// `SQ_IOC_ENTER`: the doorbell. Argument 0, or a `struct sq_enter`.
pub const ENTER: u32 = ioc(0, 2, 0);
/// `SQ_IOC_REGISTER`.
pub const REGISTER: u32 = ioc(WRITE, 3, 40);
/// `SQ_IOC_QUIESCE`: stop accepting, cancel, wait.
pub const QUIESCE: u32 = ioc(WRITE, 4, 32);
/// `SQ_IOC_CANCEL`: cancel without an entry.
pub const CANCEL: u32 = ioc(WRITE, 5, 40);
/// `SQ_IOC_STATS`: the ring's counters.
pub const STATS: u32 = ioc(READ | WRITE, 6, 104);
/// `SQ_IOC_ISSUE`: one `struct sq_sqe`, whose result is the call's. Needs no ring. Also the `cmd_op` of an io_uring command.
pub const ISSUE: u32 = ioc(WRITE, 7, 64);

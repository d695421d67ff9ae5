// SPDX-License-Identifier: MIT OR Apache-2.0
//! The driver of /dev/sqsample: one command that is done at once, and one that completes later.
#![no_std]
#![forbid(unsafe_code)]

use sq_driver::{Driver, Errno, Issued, Op, Opcodes, RequestId, op};

sq_driver::command! {
    /// Completes with the sum, or with `EOVERFLOW`.
    pub struct Add = 0 {
        /// One number.
        pub a: u32,
        /// The other.
        pub b: u32,
    }

    /// Completes with `value` after `delay_ms`, at most 10 000.
    pub struct Later = 1 {
        /// The result, not negative.
        pub value: i32,
        /// Milliseconds.
        pub delay_ms: u32,
    }
}

/// The device. Its state would be in here; `&self` is shared by all rings and threads.
#[derive(Debug)]
pub struct Device;

impl Driver for Device {
    const NAME: &'static core::ffi::CStr = c"sample";
    const OPCODES: Opcodes = Opcodes::NONE.with(op::CMD);

    fn issue<'op>(&self, op: Op<'op>) -> Issued<'op> {
        if let Some(Add { a, b }) = op.entry().command() {
            let sum = a.checked_add(b).and_then(|sum| i32::try_from(sum).ok());
            return op.finish(sum.ok_or(Errno::EOVERFLOW));
        }
        match op.entry().command() {
            Some(Later { value, delay_ms: delay_ms @ ..=10_000 }) if value >= 0 => {
                let (request, issued) = op.defer();
                request.complete_after(u64::from(delay_ms) * 1_000_000, Ok(value));
                issued
            }
            Some(_) => op.fail(Errno::EINVAL),
            None => op.fail(Errno::EOPNOTSUPP),
        }
    }

    // What was given to complete_after() the framework cancels. A driver that keeps a Request itself completes it here.
    fn cancel(&self, _: RequestId) {}
}

sq_driver::declare_driver!(Device, Device);

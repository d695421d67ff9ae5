// SPDX-License-Identifier: MIT OR Apache-2.0
//! The null driver: NOP, and commands that echo, fail on demand or complete later.
//!
//! It is the smallest driver there is, the one that queue costs are measured with, and what tests inject results with.
#![no_std]
#![forbid(unsafe_code)]

use sq_driver::{Driver, Errno, Issued, Op, Opcodes, RequestId, op};

/// Commands: `cmd_op`.
pub mod cmd {
    /// Completes with the low 31 bits of `cmd` word 0, and both words as the second half of a 32-byte completion.
    pub const ECHO: u32 = 0;
    /// Completes with word 0 as the result: a negative one is an error number, outside -4095.. it is `-EIO`.
    pub const RESULT: u32 = 1;
    /// Completes with the low 31 bits of word 1, word 0 nanoseconds later.
    pub const DELAY: u32 = 2;
    /// Completes when it is canceled, and only then. `-EBUSY` if as many such requests are in flight as the ring allows.
    pub const NEVER: u32 = 3;
}

/// A delay up to this counts as bounded: 10 s.
const BOUNDED_NS: u64 = 10_000_000_000;

/// The longest that `NEVER` would last without a cancel: 584 years.
const FOREVER: u64 = u64::MAX;

/// The driver. It has no state.
#[derive(Clone, Copy, Debug, Default)]
pub struct Null;

impl Driver for Null {
    const NAME: &'static core::ffi::CStr = c"null";
    const OPCODES: Opcodes = Opcodes::NONE.with(op::NOP).with(op::CMD);

    #[inline]
    fn issue<'op>(&self, op: Op<'op>) -> Issued<'op> {
        if op.entry().opcode() == op::NOP && !op.entry().wants_async() {
            return op.done(0);
        }
        other(op)
    }

    // Nothing is held: what is deferred, the framework's clock holds, and it cancels that itself.
    fn cancel(&self, _: RequestId) {}
}

sq_driver::declare_driver!(Null, Null);

/// What is not the plain NOP, which this keeps out of the way of.
#[inline(never)]
fn other(mut op: Op<'_>) -> Issued<'_> {
    if op.entry().opcode() == op::NOP {
        let (request, issued) = op.defer();
        request.complete(Ok(0));
        return issued;
    }
    let (first, second) = (op.entry().cmd_word(0), op.entry().cmd_word(1));
    match op.entry().cmd_op() {
        cmd::ECHO => {
            op.set_extra([first, second]);
            op.done(low31(first))
        }
        cmd::RESULT => op.finish(result(first)),
        cmd::DELAY if first <= BOUNDED_NS => {
            let (request, issued) = op.defer();
            request.complete_after(first, Ok(low31(second)));
            issued
        }
        cmd::DELAY => later(op, first, Ok(low31(second))),
        cmd::NEVER => later(op, FOREVER, Err(Errno::ETIME)),
        _ => op.fail(Errno::EOPNOTSUPP),
    }
}

/// An operation that, for all a ring can wait, may not end by itself.
fn later(op: Op<'_>, delay_ns: u64, result: Result<i32, Errno>) -> Issued<'_> {
    match op.defer_indefinite() {
        Ok((request, issued)) => {
            request.complete_after(delay_ns, result);
            issued
        }
        Err(busy) => busy,
    }
}

const fn low31(word: u64) -> i32 {
    (word & 0x7fff_ffff) as i32
}

fn result(word: u64) -> Result<i32, Errno> {
    let res = word as u32 as i32;
    if res >= 0 { Ok(res) } else { Err(res.checked_neg().and_then(Errno::new).unwrap_or(Errno::EIO)) }
}

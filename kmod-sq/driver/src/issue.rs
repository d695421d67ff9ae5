// SPDX-License-Identifier: MIT OR Apache-2.0
//! An operation being issued.

use core::marker::PhantomData;

use sq_uapi::consts::op;
use sq_uapi::{Bytes, Command, Errno, Sqe};

use crate::abi::{DEFER_INDEFINITE, DEFERRED, RawOp, RawRequest};
use crate::payload::Payload;
use crate::request::Request;

/// A private, parsed copy of an entry. User space cannot reach it any more.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct Entry([u64; 16]);

#[expect(clippy::as_conversions, reason = "fields are cut out of words by truncation")]
impl Entry {
    /// The opcode, one of [`Driver::OPCODES`](crate::Driver::OPCODES).
    #[inline]
    #[must_use]
    pub const fn opcode(&self) -> u8 {
        self.0[0] as u8
    }

    /// Whether the submitter asked not to try inline (`IOSQE_ASYNC`).
    #[inline]
    #[must_use]
    pub const fn wants_async(&self) -> bool {
        (self.0[0] >> 8) as u8 & sq_uapi::consts::sqe_flags::ASYNC != 0
    }

    /// Byte offset in the target.
    #[inline]
    #[must_use]
    pub const fn off(&self) -> u64 {
        self.0[1]
    }

    /// The driver's own command, of a `CMD`.
    #[inline]
    #[must_use]
    pub const fn cmd_op(&self) -> u32 {
        self.0[1] as u32
    }

    /// `len`: bytes, or segments of a vectored operation.
    #[inline]
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.0[3] as u32
    }

    /// Whether `len` is 0.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Flags of the opcode.
    #[inline]
    #[must_use]
    pub const fn op_flags(&self) -> u32 {
        (self.0[3] >> 32) as u32
    }

    /// Word `index` of the command's payload: 0 and 1 are `cmd[16]`, up to 9 on rings with 128-byte entries (elsewhere 0).
    #[inline]
    #[must_use]
    pub fn cmd_word(&self, index: usize) -> u64 {
        self.0.iter().copied().skip(6).nth(index).unwrap_or(0)
    }

    /// The command as its type, if this is one: a `CMD` with `cmd_op` [`Command::CMD_OP`]. Bytes that an entry of 64 bytes has no room
    /// for are 0.
    ///
    /// ```
    /// sq_driver::command! {
    ///     /// Completes with the sum.
    ///     pub struct Add = 1 { pub a: u32, pub b: u32 }
    /// }
    ///
    /// fn issue(op: sq_driver::Op<'_>) -> sq_driver::Issued<'_> {
    ///     match op.entry().command() {
    ///         Some(Add { a, b }) => op.done(i32::from(a.wrapping_add(b) as u16)),
    ///         None => op.fail(sq_driver::Errno::EOPNOTSUPP),
    ///     }
    /// }
    /// ```
    ///
    /// More than the 80 bytes that there are in the longest entry do not compile:
    ///
    /// ```compile_fail
    /// struct Big;
    ///
    /// impl sq_driver::Command for Big {
    ///     const CMD_OP: u32 = 1;
    ///     type Bytes = [u8; 81];
    ///     fn to_bytes(&self) -> [u8; 81] { [0; 81] }
    ///     fn from_bytes(_: [u8; 81]) -> Self { Self }
    /// }
    ///
    /// fn is_big(op: &sq_driver::Op<'_>) -> bool {
    ///     op.entry().command::<Big>().is_some()
    /// }
    /// # std::hint::black_box(is_big as fn(&sq_driver::Op<'_>) -> bool);
    /// ```
    #[inline]
    #[must_use]
    pub fn command<C: Command>(&self) -> Option<C> {
        const { assert!(size_of::<C::Bytes>() <= 80, "an entry has 80 bytes of payload at most") };
        if self.opcode() != op::CMD || self.cmd_op() != C::CMD_OP {
            return None;
        }
        let mut bytes = C::Bytes::ZERO;
        let payload = self.0.iter().skip(6).flat_map(|word| word.to_le_bytes());
        bytes.as_mut().iter_mut().zip(payload).for_each(|(to, from)| *to = from);
        Some(C::from_bytes(bytes))
    }

    /// The first 64 bytes, as the ABI has them.
    #[must_use]
    pub const fn sqe(&self) -> Sqe {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        Sqe::from_words([a, b, c, d, e, f, g, h])
    }
}

/// An operation, during [`Driver::issue`](crate::Driver::issue).
///
/// It is consumed by what answers it: [`Op::done`], [`Op::fail`] or [`Op::defer`].
#[derive(Debug)]
pub struct Op<'op> {
    raw: &'op mut RawOp,
    // Invariant in 'op: an answer to one operation cannot be given to another.
    brand: PhantomData<fn(&'op ()) -> &'op ()>,
}

/// The answer to one operation.
#[derive(Debug)]
#[must_use = "an operation is answered by returning this"]
pub struct Issued<'op> {
    res: i32,
    brand: PhantomData<fn(&'op ()) -> &'op ()>,
}

impl Issued<'_> {
    pub(crate) const fn into_raw(self) -> i32 {
        self.res
    }
}

impl<'op> Op<'op> {
    pub(crate) const fn from_raw(raw: &'op mut RawOp) -> Self {
        Self { raw, brand: PhantomData }
    }

    /// The entry.
    #[inline]
    #[must_use]
    pub const fn entry(&self) -> &Entry {
        // SAFETY: Entry is repr(transparent) over the array.
        unsafe { &*(&raw const self.raw.sqe).cast::<Entry>() }
    }

    /// The file that `fd` named, for drivers with [`Driver::FILES`](crate::Driver::FILES).
    #[inline]
    #[must_use]
    pub const fn target(&self) -> usize {
        self.raw.target
    }

    /// The operation's bytes.
    #[inline]
    #[must_use]
    pub const fn payload(&mut self) -> Payload<'_> {
        // SAFETY: `ops` is valid while the operation is (contract of the table's `issue`).
        let ops = unsafe { &*self.raw.ops };
        Payload::of_op(&mut self.raw.payload, ops, self.raw.framework)
    }

    /// Sets the second half of the completion, on rings with 32-byte completions; lost on others.
    #[inline]
    pub const fn set_extra(&mut self, extra: [u64; 2]) {
        self.raw.extra = extra;
    }

    /// Completes the operation now. Negative results are for [`Op::fail`]: they are reported as `-EIO`.
    #[inline]
    pub const fn done(self, res: i32) -> Issued<'op> {
        Issued { res: if res < 0 { Errno::EIO.to_res() } else { res }, brand: PhantomData }
    }

    /// Completes the operation now, with an error.
    #[inline]
    pub const fn fail(self, errno: Errno) -> Issued<'op> {
        Issued { res: errno.to_res(), brand: PhantomData }
    }

    /// Completes the operation now, with either.
    #[inline]
    pub fn finish(self, result: Result<i32, Errno>) -> Issued<'op> {
        match result {
            Ok(res) => self.done(res),
            Err(errno) => self.fail(errno),
        }
    }

    /// Takes the operation out of `issue`: the request completes later, from anywhere, and in finite time without user space
    /// doing anything. It never fails: the request was set aside when the entry was accepted.
    #[inline]
    pub fn defer(self) -> (Request, Issued<'op>) {
        // SAFETY: without flags `defer` returns a request that nobody else holds.
        (unsafe { Request::from_raw(self.take(0)) }, Issued { res: DEFERRED, brand: PhantomData })
    }

    /// As [`Op::defer`], for an operation that may wait without bound: for an event, for a peer, for a cancel.
    ///
    /// # Errors
    ///
    /// The answer to give (`-EBUSY`) when the ring has as many such requests as it may (CQ-4): they hold completion slots, and
    /// some must be left for what can complete.
    pub fn defer_indefinite(self) -> Result<(Request, Issued<'op>), Issued<'op>> {
        let raw = self.take(DEFER_INDEFINITE);
        if raw.is_null() {
            return Err(Issued { res: Errno::EBUSY.to_res(), brand: PhantomData });
        }
        // SAFETY: not null, so it is a request that nobody else holds.
        Ok((unsafe { Request::from_raw(raw) }, Issued { res: DEFERRED, brand: PhantomData }))
    }

    fn take(self, flags: u32) -> *mut RawRequest {
        // SAFETY: `ops` is valid while the operation is (contract of the table's `issue`).
        let ops = unsafe { &*self.raw.ops };
        // SAFETY: `self` is consumed, so this is called at most once an operation.
        unsafe { (ops.defer)(self.raw, flags) }
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! A request: what completes later.

use core::mem::ManuallyDrop;
use core::ptr::NonNull;

use sq_uapi::Errno;

use crate::abi::{RawRequest, RequestOps};
use crate::payload::Payload;

/// Names a request among those of all rings: ids are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(u64);

impl RequestId {
    pub(crate) const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// The id as a number, as C has it.
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.0
    }
}

/// An operation that was taken out of `issue`, owned by the driver until it completes it.
///
/// It is completed exactly once: by [`Request::complete`], or with `-EIO` when it is dropped. It may be completed
/// from any thread or interrupt, after its ring's file has been closed (the completion is then dropped), and while
/// [`Driver::cancel`](crate::Driver::cancel) runs for it.
#[derive(Debug)]
#[must_use = "a dropped request completes with -EIO"]
pub struct Request(NonNull<RawRequest>);

// SAFETY: a request is a unique handle, and the framework's functions may be called from any context.
unsafe impl Send for Request {}
// SAFETY: `&Request` only reads the constant id and target.
unsafe impl Sync for Request {}

impl Request {
    /// # Safety
    ///
    /// `raw` came from `defer`, is not null, and nobody else holds it.
    pub(crate) unsafe fn from_raw(raw: *mut RawRequest) -> Self {
        // SAFETY: the contract.
        Self(unsafe { NonNull::new_unchecked(raw) })
    }

    fn ops(&self) -> &'static RequestOps {
        // SAFETY: the request is held, so it is valid.
        let ops = unsafe { (*self.0.as_ptr()).ops };
        // SAFETY: the framework's operations are a static of a module that cannot go while requests are held.
        unsafe { &*ops }
    }

    /// The id that [`Driver::cancel`](crate::Driver::cancel) will name.
    #[must_use]
    pub fn id(&self) -> RequestId {
        // SAFETY: the request is held, and the id is constant meanwhile.
        RequestId(unsafe { (*self.0.as_ptr()).id })
    }

    /// The file, as in [`Op::target`](crate::Op::target). It stays open while the request is held.
    #[must_use]
    pub fn target(&self) -> usize {
        // SAFETY: as in `id`.
        unsafe { (*self.0.as_ptr()).target }
    }

    /// The operation's bytes, in a context that may sleep. The cursor stands where `issue` left it.
    #[must_use]
    pub fn payload(&mut self) -> Payload<'_> {
        // SAFETY: the request is held exclusively, and the framework does not touch the payload meanwhile.
        let raw = unsafe { &mut (*self.0.as_ptr()).payload };
        Payload::of_request(raw, self.ops(), self.0.as_ptr())
    }

    /// The request as C holds it, which then has to complete it by its `ops`.
    #[must_use = "a request is completed by whoever holds it"]
    pub fn into_raw(self) -> *mut RawRequest {
        ManuallyDrop::new(self).0.as_ptr()
    }

    /// Completes the request. An `Ok` that is negative is reported as `-EIO`.
    pub fn complete(self, result: Result<i32, Errno>) {
        self.complete_with(result, [0; 2]);
    }

    /// Completes the request, with the second half of a 32-byte completion.
    pub fn complete_with(self, result: Result<i32, Errno>, extra: [u64; 2]) {
        let this = ManuallyDrop::new(self);
        // SAFETY: the handle is consumed, so this happens once.
        unsafe { (this.ops().complete)(this.0.as_ptr(), to_res(result), &extra) };
    }

    /// Lets the framework complete the request after `delay_ns`, or with `-ECANCELED` when it is canceled first; the
    /// driver hears no more of it.
    pub fn complete_after(self, delay_ns: u64, result: Result<i32, Errno>) {
        let this = ManuallyDrop::new(self);
        // SAFETY: as in `complete_with`.
        unsafe { (this.ops().complete_after)(this.0.as_ptr(), to_res(result), delay_ns) };
    }
}

fn to_res(result: Result<i32, Errno>) -> i32 {
    match result {
        Ok(res) if res >= 0 => res,
        Ok(_) => Errno::EIO.to_res(),
        Err(errno) => errno.to_res(),
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        // SAFETY: `complete*` do not run this, so it is the only completion.
        unsafe { (self.ops().complete)(self.0.as_ptr(), Errno::EIO.to_res(), &[0; 2]) };
    }
}

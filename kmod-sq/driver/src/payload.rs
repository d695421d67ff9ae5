// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bytes of an operation: reached by a cursor that only moves forward, so the same bytes cannot be read twice.

use core::ffi::c_void;
use core::marker::PhantomData;
use core::ptr::NonNull;

use sq_uapi::{Errno, copy_shared};

use crate::abi::{OpOps, PAYLOAD_POOL, RawPayload, RawRequest, RequestOps, Segment};

/// Bytes that others may read and write at any time: a device's memory, a store. There is no slice of them; they are
/// only copied from and to.
#[derive(Clone, Copy, Debug)]
pub struct Shared<'a> {
    ptr: NonNull<u8>,
    len: usize,
    life: PhantomData<&'a ()>,
}

// SAFETY: the bytes are only accessed by `copy_shared`, which allows for any concurrent access.
unsafe impl Send for Shared<'_> {}
// SAFETY: as above.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    /// A window on shared bytes.
    ///
    /// # Safety
    ///
    /// For 'a, `ptr` is readable and writable for `len` bytes, and no Rust reference to them exists.
    #[must_use]
    pub const unsafe fn new(ptr: NonNull<u8>, len: usize) -> Self {
        Self { ptr, len, life: PhantomData }
    }

    /// Bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The part that `want` bytes from `off` on cover: less than `want` across the end, none past it.
    #[must_use]
    pub fn window(&self, off: u64, want: u64) -> Shared<'a> {
        let off = usize::try_from(off).map_or(self.len, |off| off.min(self.len));
        let left = self.len.wrapping_sub(off);
        let len = usize::try_from(want).map_or(left, |want| want.min(left));
        // SAFETY: off <= self.len, so the place is inside or one past the end, and at least `len` bytes follow it.
        let ptr = unsafe { self.ptr.add(off) };
        Shared { ptr, len, life: PhantomData }
    }
}

/// How user addresses are reached. The operations are valid as long as what they belong to.
#[derive(Clone, Copy, Debug)]
enum Via<'a> {
    Op(&'a OpOps, *const c_void),
    Request(&'a RequestOps, *mut RawRequest),
}

/// A cursor over an operation's bytes.
///
/// All methods advance it by what they report; none can go back.
#[derive(Debug)]
pub struct Payload<'a> {
    raw: &'a mut RawPayload,
    via: Via<'a>,
}

impl<'a> Payload<'a> {
    pub(crate) const fn of_op(raw: &'a mut RawPayload, ops: &'a OpOps, framework: *const c_void) -> Self {
        Self { raw, via: Via::Op(ops, framework) }
    }

    pub(crate) const fn of_request(raw: &'a mut RawPayload, ops: &'a RequestOps, request: *mut RawRequest) -> Self {
        Self { raw, via: Via::Request(ops, request) }
    }

    /// Bytes from the cursor to the end.
    #[must_use]
    pub const fn left(&self) -> u64 {
        self.raw.left
    }

    /// Whether the bytes are in the ring's pool (else: at user addresses).
    #[must_use]
    pub const fn is_pool(&self) -> bool {
        self.raw.kind == PAYLOAD_POOL
    }

    /// The segments as plain numbers, for a driver that hands them to a device or to the VFS. They lead to memory
    /// that user space can write, or are user addresses: see [`Payload::is_pool`].
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        let segments = self.raw.segments.get(..self.raw.nr as usize).unwrap_or(&[]);
        // SAFETY: whoever made the payload has written the first `nr` segments, and only it writes `nr`.
        unsafe { core::slice::from_raw_parts(segments.as_ptr().cast(), segments.len()) }
    }

    /// The payload as C sees it.
    #[must_use]
    pub const fn raw(&self) -> &RawPayload {
        self.raw
    }

    /// Copies the next bytes to private memory.
    ///
    /// # Errors
    ///
    /// `EFAULT` if an address cannot be read, `ECANCELED` if the process is killed meanwhile. How far the copy came is then unknown, and the
    /// cursor stays.
    pub fn read(&mut self, dst: &mut [u8]) -> Result<usize, Errno> {
        let len = dst.len();
        let dst = dst.as_mut_ptr();
        // SAFETY: `dst` is an exclusive slice of `len` bytes, and `walk` passes pieces inside `len`.
        self.walk(len, |done, chunk, this| unsafe { this.copy_in(dst.wrapping_add(done), chunk) })
    }

    /// Copies private bytes to the next bytes.
    ///
    /// # Errors
    ///
    /// `EFAULT` if an address cannot be written, `ECANCELED` if the process is killed meanwhile.
    pub fn write(&mut self, src: &[u8]) -> Result<usize, Errno> {
        let ptr = src.as_ptr();
        // SAFETY: `src` is a slice of `src.len()` bytes, and `walk` passes pieces inside that.
        self.walk(src.len(), |done, chunk, this| unsafe { this.copy_out(ptr.wrapping_add(done), chunk) })
    }

    /// Copies the next bytes to a store. Nothing is copied twice.
    ///
    /// # Errors
    ///
    /// `EFAULT` if an address cannot be read, `ECANCELED` if the process is killed meanwhile. What they were to fill is then
    /// undefined; in the kernel it is zeroed.
    pub fn read_to(&mut self, dst: Shared<'_>) -> Result<usize, Errno> {
        // SAFETY: a Shared is writable for its length, and `walk` passes pieces inside that.
        self.walk(dst.len, |done, chunk, this| unsafe { this.copy_in(dst.ptr.as_ptr().wrapping_add(done), chunk) })
    }

    /// Copies a store's bytes to the next bytes.
    ///
    /// # Errors
    ///
    /// `EFAULT` if an address cannot be written, `ECANCELED` if the process is killed meanwhile.
    pub fn write_from(&mut self, src: Shared<'_>) -> Result<usize, Errno> {
        // SAFETY: a Shared is readable for its length, and `walk` passes pieces inside that.
        self.walk(src.len, |done, chunk, this| unsafe { this.copy_out(src.ptr.as_ptr().wrapping_add(done), chunk) })
    }

    /// Calls `step` for each piece of the next `want` bytes that lies in one segment, then moves the cursor past it.
    fn walk(
        &mut self,
        want: usize,
        mut step: impl FnMut(usize, Segment, &Self) -> Result<(), Errno>,
    ) -> Result<usize, Errno> {
        let mut done = 0usize;
        while done < want {
            let Some(segment) = self.segments().get(self.raw.at as usize).copied() else { break };
            // Nothing wraps: the cursor is inside its segment, and `len` is at most what is left of that, and of `want`.
            let missing = u64::try_from(want.wrapping_sub(done)).unwrap_or(u64::MAX);
            let len = segment.len.wrapping_sub(self.raw.passed).min(missing);
            if len > 0 {
                let addr = segment.addr.checked_add(self.raw.passed).ok_or(Errno::EFAULT)?;
                step(done, Segment { addr, len }, self)?;
                self.raw.passed = self.raw.passed.wrapping_add(len);
                self.raw.left = self.raw.left.wrapping_sub(len);
                done = done.wrapping_add(usize::try_from(len).map_err(|_| Errno::EFAULT)?);
            }
            if self.raw.passed == segment.len {
                self.raw.at = self.raw.at.wrapping_add(1);
                self.raw.passed = 0;
            }
        }
        Ok(done)
    }

    /// # Safety
    ///
    /// `dst` is writable for `from.len` bytes, and `from` is a part of one of the segments.
    unsafe fn copy_in(&self, dst: *mut u8, from: Segment) -> Result<(), Errno> {
        let len = usize::try_from(from.len).map_err(|_| Errno::EFAULT)?;
        if self.is_pool() {
            let src = core::ptr::with_exposed_provenance(usize::try_from(from.addr).map_err(|_| Errno::EFAULT)?);
            // SAFETY: a pool segment is mapped while its ring is, and the operation keeps the ring.
            unsafe { copy_shared(dst, src, len) };
            return Ok(());
        }
        let res = match self.via {
            // SAFETY: `framework` belongs to `ops`; the contract covers the bytes.
            Via::Op(ops, framework) => unsafe { (ops.copy_from_user)(framework, dst, from.addr, len) },
            // SAFETY: the request is held by the driver; the contract covers the bytes.
            Via::Request(ops, request) => unsafe { (ops.copy_from_user)(request, dst, from.addr, len) },
        };
        Errno::from_res(res).map(|_| ())
    }

    /// # Safety
    ///
    /// `src` is readable for `to.len` bytes, and `to` is a part of one of the segments.
    unsafe fn copy_out(&self, src: *const u8, to: Segment) -> Result<(), Errno> {
        let len = usize::try_from(to.len).map_err(|_| Errno::EFAULT)?;
        if self.is_pool() {
            let dst = core::ptr::with_exposed_provenance_mut(usize::try_from(to.addr).map_err(|_| Errno::EFAULT)?);
            // SAFETY: as in `copy_in`.
            unsafe { copy_shared(dst, src, len) };
            return Ok(());
        }
        let res = match self.via {
            // SAFETY: as in `copy_in`.
            Via::Op(ops, framework) => unsafe { (ops.copy_to_user)(framework, to.addr, src, len) },
            // SAFETY: as in `copy_in`.
            Via::Request(ops, request) => unsafe { (ops.copy_to_user)(request, to.addr, src, len) },
        };
        Errno::from_res(res).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::{NonNull, Shared};

    /// The bytes that it covers, counted from `start`.
    fn covered(window: Shared<'_>, start: NonNull<u8>) -> Vec<usize> {
        let first = window.ptr.addr().get().wrapping_sub(start.addr().get());
        assert!(first <= 8, "also an empty one is there, or at the end");
        (first..first.wrapping_add(window.len())).collect()
    }

    #[test]
    fn sec1_a_window_is_what_there_is_of_what_is_wanted() {
        let mut bytes = [0u8; 8];
        let start = NonNull::from(&mut bytes).cast();
        // SAFETY: they are there to the end of the test, and nobody touches them.
        let all = unsafe { Shared::new(start, 8) };
        // At the start, in the middle, at the end, past it, and where a sum would wrap.
        let edges = || (0..=10).chain((0..=9).map(|less| u64::MAX - less));
        for (off, want) in edges().flat_map(|off| edges().map(move |want| (off, want))) {
            let asked = u128::from(off)..u128::from(off) + u128::from(want);
            let expected: Vec<usize> = (0..8).filter(|at| asked.contains(&(*at as u128))).collect();
            let window = all.window(off, want);
            assert_eq!(covered(window, start), expected, "{want} bytes from {off}");
            assert_eq!(window.is_empty(), expected.is_empty());
            // And what is within it is never more than it.
            assert_eq!(covered(window.window(1, u64::MAX), start), expected.get(1..).unwrap_or_default());
        }
    }
}

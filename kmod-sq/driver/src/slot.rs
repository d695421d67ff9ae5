// SPDX-License-Identifier: MIT OR Apache-2.0
//! A place for a request that several may want.

use core::mem::MaybeUninit;

use crate::request::{Request, RequestId};
use crate::sync::{AtomicU64, Ordering, UnsafeCell};

/// Nobody is in the slot. Ids of requests are larger than these two.
const EMPTY: u64 = 0;
/// Somebody is being put there or taken out.
const BUSY: u64 = 1;

/// A place for one request, from which whoever comes first takes it: the device's interrupt, a cancel, a deadline.
///
/// No lock, and no context in which it must not be used. What is still there when the slot is dropped completes with `-EIO`.
///
/// ```
/// use sq_driver::{Errno, Op, Issued, RequestId, Slot};
///
/// struct Device { waiting: Slot }
///
/// impl Device {
///     fn issue<'op>(&self, op: Op<'op>) -> Issued<'op> {
///         let (request, issued) = op.defer();
///         if let Err(second) = self.waiting.put(request) {
///             second.complete(Err(Errno::EBUSY));
///         }
///         issued
///     }
///
///     fn interrupt(&self) {
///         if let Some(request) = self.waiting.id().and_then(|id| self.waiting.take(id)) {
///             request.complete(Ok(0));
///         }
///     }
///
///     fn cancel(&self, id: RequestId) {
///         if let Some(request) = self.waiting.take(id) {
///             request.complete(Err(Errno::ECANCELED));
///         }
///     }
/// }
/// # std::hint::black_box((Device::issue as fn(&Device, _) -> _, Device::interrupt as fn(&Device), Device::cancel as fn(&Device, _)));
/// ```
#[derive(Debug)]
pub struct Slot {
    /// [`EMPTY`], [`BUSY`], or the id of the request that is there.
    id: AtomicU64,
    request: UnsafeCell<MaybeUninit<Request>>,
}

// SAFETY: `request` is reached only by whoever has made `id` BUSY, which one thread at a time can; a Request is Send.
unsafe impl Sync for Slot {}

impl Slot {
    /// An empty one.
    #[cfg(not(loom))]
    #[must_use]
    pub const fn new() -> Self {
        Self { id: AtomicU64::new(EMPTY), request: UnsafeCell::new(MaybeUninit::uninit()) }
    }

    /// An empty one. In a model it cannot be a constant.
    #[cfg(loom)]
    #[must_use]
    pub fn new() -> Self {
        Self { id: AtomicU64::new(EMPTY), request: UnsafeCell::new(MaybeUninit::uninit()) }
    }

    /// Puts a request there.
    ///
    /// # Errors
    ///
    /// The request, if the slot is not empty.
    pub fn put(&self, request: Request) -> Result<(), Request> {
        let id = request.id().raw();
        // Acquire: whoever emptied it has moved the last request out.
        if self.id.compare_exchange(EMPTY, BUSY, Ordering::Acquire, Ordering::Relaxed).is_err() {
            return Err(request);
        }
        self.request.with_mut(|place| {
            // SAFETY: BUSY by this thread.
            let place = unsafe { &mut *place };
            place.write(request);
        });
        self.id.store(id, Ordering::Release);
        Ok(())
    }

    /// Which request is there: a moment later it may be gone.
    #[must_use]
    pub fn id(&self) -> Option<RequestId> {
        match self.id.load(Ordering::Relaxed) {
            EMPTY | BUSY => None,
            id => Some(RequestId::new(id)),
        }
    }

    /// Takes this request, if it is there and nobody else has taken it.
    #[must_use]
    pub fn take(&self, id: RequestId) -> Option<Request> {
        // Acquire: with the id, the request. Ids are never used again, so it is the same one.
        self.id.compare_exchange(id.raw(), BUSY, Ordering::Acquire, Ordering::Relaxed).ok()?;
        let request = self.request.with_mut(|place| {
            // SAFETY: BUSY by this thread.
            let place = unsafe { &*place };
            // SAFETY: an id stands for a request that is there; it is not read again before the next is written.
            unsafe { place.assume_init_read() }
        });
        self.id.store(EMPTY, Ordering::Release);
        Some(request)
    }
}

impl Default for Slot {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        drop(self.id().and_then(|id| self.take(id)));
    }
}

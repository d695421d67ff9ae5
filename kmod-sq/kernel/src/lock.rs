// SPDX-License-Identifier: MIT OR Apache-2.0
//! The short lock: a raw spinlock, interrupts off, as LOCK-1 asks.

use core::cell::UnsafeCell;

use kmod_sq::Lock;

use crate::ffi;

/// Room for a `raw_spinlock_t`, of any kernel: small.c asserts that it fits.
const LOCK_BYTES: usize = 96;

#[repr(C, align(8))]
struct Raw([u8; LOCK_BYTES]);

/// A value behind a raw spinlock.
pub(crate) struct SpinLock<T> {
    raw: UnsafeCell<Raw>,
    value: UnsafeCell<T>,
}

// SAFETY: the lock lets one thread at a time reach the value.
unsafe impl<T: Send> Sync for SpinLock<T> {}
// SAFETY: a lock that nobody holds is plain data.
unsafe impl<T: Send> Send for SpinLock<T> {}

impl<T> Lock<T> for SpinLock<T> {
    fn new(value: T) -> Self {
        let raw = UnsafeCell::new(Raw([0; LOCK_BYTES]));
        // SAFETY: large and aligned enough. It moves afterwards, which a lock that nobody holds may (small.c).
        unsafe { ffi::sq_lock_init(raw.get().cast()) };
        Self { raw, value: UnsafeCell::new(value) }
    }

    #[inline]
    fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        let raw = self.raw.get().cast();
        // SAFETY: initialised by `new`, the only constructor.
        let flags = unsafe { ffi::sq_lock(raw) };
        // SAFETY: the lock is held, so nobody else has a reference to the value.
        let result = f(unsafe { &mut *self.value.get() });
        // SAFETY: this thread holds the lock, and the reference is gone. (A panic in `f` does not come back.)
        unsafe { ffi::sq_unlock(raw, flags) };
        result
    }

    fn try_with<R>(&self, f: impl FnOnce(&mut T) -> R) -> Option<R> {
        let raw = self.raw.get().cast();
        let mut flags = 0;
        // SAFETY: as in `with`; `flags` is writable.
        if !unsafe { ffi::sq_trylock(raw, &raw mut flags) } {
            return None;
        }
        // SAFETY: as in `with`.
        let result = f(unsafe { &mut *self.value.get() });
        // SAFETY: as in `with`.
        unsafe { ffi::sq_unlock(raw, flags) };
        Some(result)
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory that a ring takes at setup, charged to the caller.

use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

use sq_uapi::Errno;

use crate::ffi;

/// What the kernel's allocator aligns to, whatever the size.
const ALIGN: usize = 8;

/// Memory for one `T`, not initialised.
pub(crate) fn place<T>() -> Result<NonNull<T>, Errno> {
    places(1)
}

/// Gives back memory from [`place`].
///
/// # Safety
///
/// `place` came from there, and what was in it is gone.
pub(crate) unsafe fn give_back<T>(place: NonNull<T>) {
    // SAFETY: the contract.
    unsafe { ffi::sq_free(place.as_ptr().cast()) };
}

fn places<T>(len: usize) -> Result<NonNull<T>, Errno> {
    const { assert!(align_of::<T>() <= ALIGN) };
    let bytes = size_of::<T>().checked_mul(len).ok_or(Errno::ENOMEM)?;
    // At least 1: the kernel's answer to 0 is no pointer to anything.
    // SAFETY: no precondition. Setup runs in a process, as the function asks.
    NonNull::new(unsafe { ffi::sq_alloc(bytes.max(1)) }).map(NonNull::cast).ok_or(Errno::ENOMEM)
}

/// A fixed number of values.
pub(crate) struct Array<T> {
    start: NonNull<T>,
    len: usize,
}

// SAFETY: an Array owns its values, as a Box does.
unsafe impl<T: Send> Send for Array<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Array<T> {}

impl<T> Array<T> {
    pub(crate) fn new(len: usize, mut make: impl FnMut(usize) -> T) -> Result<Self, Errno> {
        let start = places::<T>(len)?;
        for i in 0..len {
            // SAFETY: i < len, and memory for len values was given.
            let place = unsafe { start.add(i) };
            // SAFETY: as above; nothing was there before.
            unsafe { place.write(make(i)) };
        }
        Ok(Self { start, len })
    }
}

impl<T> Deref for Array<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: `new` has written `len` values there, which this value owns.
        unsafe { core::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T> DerefMut for Array<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and `self` is exclusive.
        unsafe { core::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl<T> Drop for Array<T> {
    fn drop(&mut self) {
        let all: *mut [T] = &raw mut **self;
        // SAFETY: the values are owned, and not used again.
        unsafe { core::ptr::drop_in_place(all) };
        // SAFETY: from `places`, and empty now. Rings and tables of files are dropped where one may sleep.
        unsafe { give_back(self.start) };
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Atomics and cells: core's, or loom's in a model.

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
#[cfg(loom)]
pub(crate) use loom::{
    cell::UnsafeCell as OwnedCell,
    sync::atomic::{AtomicU32, AtomicUsize, Ordering},
};

/// A cell whose user must show that it is alone: loom's interface, which checks the claim in a model.
#[cfg(not(loom))]
pub(crate) struct OwnedCell<T>(core::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> OwnedCell<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(core::cell::UnsafeCell::new(value))
    }

    #[inline]
    pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}

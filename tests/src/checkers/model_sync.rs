// SPDX-License-Identifier: MIT OR Apache-2.0
//! Threads and locks of a model: loom's, which explores all schedules of a small one, or shuttle's, which tries many of a large one.

#[cfg(loom)]
pub use loom::{cell::UnsafeCell, sync::Condvar, sync::Mutex, sync::MutexGuard, thread};
#[cfg(shuttle)]
pub use shuttle::{sync::Condvar, sync::Mutex, sync::MutexGuard, thread};

/// loom's interface. Nobody checks here that its user is alone: shuttle's threads run one at a time.
#[cfg(shuttle)]
#[derive(Debug, Default)]
pub struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(shuttle)]
impl<T> UnsafeCell<T> {
    /// A cell.
    pub const fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    /// Looks at it.
    pub fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        f(self.0.get())
    }

    /// Changes it.
    pub fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Several threads on one: at any point where a thread holds no lock of the ring, others may run.
//!
//! The memory and the surroundings call [`point`] before each load and in each call, and whoever runs a program says what happens
//! there ([`with_others`]): another thread's call, begun and ended between two loads of this one's. Unlike real threads it is the
//! same each time, so that a fuzzer can go on from what it found and a finding can be replayed.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Why others may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// A point between two accesses of the thread that runs.
    Point,
    /// The thread that runs sleeps until others have done something.
    Asleep,
}

/// What others do. Returns whether they did anything.
pub type Others = Rc<dyn Fn(Why) -> bool>;

thread_local! {
    static LOCKS: Cell<u32> = const { Cell::new(0) };
    static SECTION: Cell<u64> = const { Cell::new(0) };
    static OTHERS: RefCell<Option<Others>> = const { RefCell::new(None) };
}

/// Runs `body`, and `others` at its points.
pub fn with_others<R>(others: Others, body: impl FnOnce() -> R) -> R {
    /// Also after a panic.
    struct Forget(Option<Others>);
    impl Drop for Forget {
        fn drop(&mut self) {
            OTHERS.set(self.0.take());
        }
    }
    let _forget = Forget(OTHERS.replace(Some(others)));
    body()
}

/// Others may run here, unless a lock is held. Returns whether they did anything.
pub fn point(why: Why) -> bool {
    if is_locked() {
        return false;
    }
    let others = OTHERS.with_borrow(Clone::clone);
    others.is_some_and(|others| others(why))
}

/// Whether this thread holds a lock of the ring.
#[must_use]
pub fn is_locked() -> bool {
    LOCKS.get() > 0
}

/// A number for the time that this thread has held its lock, which no other such time has. `None`: it holds none.
#[must_use]
pub fn section() -> Option<u64> {
    is_locked().then(|| SECTION.get())
}

/// LOCK-1: what may sleep, fault or call back is called under no lock of the ring.
///
/// # Panics
///
/// If this thread holds one.
pub fn unlocked(what: &str) {
    assert!(!is_locked(), "LOCK-1: {what} under a lock of the ring");
}

/// Nobody else runs in `body`.
pub fn locked<R>(body: impl FnOnce() -> R) -> R {
    struct Unlock;
    impl Drop for Unlock {
        fn drop(&mut self) {
            LOCKS.set(LOCKS.get() - 1);
        }
    }
    static SECTIONS: AtomicU64 = AtomicU64::new(0);
    if !is_locked() {
        SECTION.set(SECTIONS.fetch_add(1, Relaxed));
    }
    LOCKS.set(LOCKS.get() + 1);
    let _unlock = Unlock;
    body()
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Atomics and cells: core's, or in a model loom's or shuttle's.

#[cfg(not(any(loom, shuttle)))]
pub(crate) use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

#[cfg(shuttle)]
pub(crate) use shuttle::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

#[cfg(loom)]
pub(crate) type OwnedCell<T> = loom::cell::UnsafeCell<T>;

/// Names the ordering of an access, so that a model can weaken it. Outside models it is the ordering and nothing else.
#[cfg(not(loom))]
macro_rules! at {
    ($site:ident, $order:ident) => {
        $crate::sync::Ordering::$order
    };
}
#[cfg(loom)]
macro_rules! at {
    ($site:ident, $order:ident) => {
        $crate::sync::model::order($crate::sync::model::Site::$site, $crate::sync::Ordering::$order)
    };
}
pub(crate) use at;

/// For models: the named orderings of this crate's private atomics. docs/memory-model.md lists them.
#[cfg(loom)]
pub mod model {
    use core::cell::Cell;

    use loom::sync::atomic::Ordering;

    /// A private atomic access of the kernel side.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Site {
        /// `drain`: FREE -> OWNED in `own`.
        DrainOwn,
        /// `drain`: REDRAIN is set in `own`.
        DrainKnock,
        /// `drain`: OWNED -> FREE in `release`.
        DrainRelease,
        /// `drain`: REDRAIN is taken in `release`.
        DrainAgain,
        /// `drain`: FREE in `abandon`.
        DrainAbandon,
        /// `drain`: QUIESCE asks whether it is FREE.
        DrainQuiet,
        /// `stop`: loads.
        StopLoad,
        /// `stop`: a bit is set.
        StopSet,
        /// `stop`: DISABLED is cleared.
        StopEnable,
        /// `refs`: a reference goes.
        RefDrop,
        /// `refs`: the last reference has gone.
        RefLast,
        /// `shown`: stored after `cq_tail`.
        ShownStore,
        /// `shown`: loaded by whoever waits for completions.
        ShownLoad,
        /// `consumed`: stored by the drain owner.
        ConsumedStore,
        /// `consumed`: loaded by whoever waits for the ring to be idle.
        ConsumedLoad,
        /// `inflight`: a request has completed.
        InflightStore,
        /// `inflight`: the drain owner asks whether it may post.
        InflightLoad,
    }

    impl Site {
        /// All of them.
        pub const ALL: [Self; 17] = [
            Self::DrainOwn,
            Self::DrainKnock,
            Self::DrainRelease,
            Self::DrainAgain,
            Self::DrainAbandon,
            Self::DrainQuiet,
            Self::StopLoad,
            Self::StopSet,
            Self::StopEnable,
            Self::RefDrop,
            Self::RefLast,
            Self::ShownStore,
            Self::ShownLoad,
            Self::ConsumedStore,
            Self::ConsumedLoad,
            Self::InflightStore,
            Self::InflightLoad,
        ];
    }

    std::thread_local! {
        // A model's threads are coroutines of one thread.
        static WEAKENED: Cell<Option<(Site, Ordering)>> = const { Cell::new(None) };
    }

    /// From now on, in models that this thread runs, `Site` has the given ordering.
    pub fn weaken(site: Option<(Site, Ordering)>) {
        WEAKENED.set(site);
    }

    pub(crate) fn order(site: Site, strong: Ordering) -> Ordering {
        match WEAKENED.get() {
            Some((weak, order)) if weak == site => order,
            _ => strong,
        }
    }
}

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

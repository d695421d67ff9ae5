// SPDX-License-Identifier: MIT OR Apache-2.0
//! The polling thread's turn. The thread itself is the home's: it sleeps until [`Host::work`], and then calls [`Ring::poll_awake`].

use crate::drain::{End, Owner};
use crate::host::Host;
use crate::ring::Ring;

/// What a polling thread does around its looks at the queue.
pub trait Poller {
    /// Entries are there and are issued next. `false`: they cannot be, not yet or never again.
    fn busy(&mut self) -> bool;
    /// There were none.
    fn relax(&mut self);
    /// Once a look: whether to leave the ring, be it idle or not. The caller sees to it that the thread comes back, if it has to.
    fn leaves(&mut self) -> bool;
}

/// What the polling thread does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polled {
    /// Sleep until [`Host::work`] is called for the ring.
    Sleep,
    /// Call [`Ring::poll_awake`] again at once: somebody rang meanwhile.
    Again,
}

impl<H: Host> Ring<H> {
    /// One turn of the polling thread: it owns the drain while it is awake.
    ///
    /// One thread calls this again and again; it returns when the ring has been idle for
    /// [`Geometry::idle_ns`](crate::Geometry), has stopped, or `poller` leaves. The thread then sleeps until [`Host::work`].
    pub fn poll_awake(&self, poller: &mut impl Poller) -> Polled {
        if self.is_broken() {
            self.cancel_everything();
        }
        let Some(mut owner) = self.own() else { return Polled::Sleep };
        owner.wake();
        let mut idle_since = None;
        // What the first entries found were announced by; none of the later ones needs to be.
        let mut rung = true;
        loop {
            let (consumed, end) = if self.stopped() != 0 {
                // No pass: if the ring was enabled meanwhile, it would issue what the poller knows nothing of.
                owner.cancel_late();
                (0, End::Stopped)
            } else if owner.is_empty() || !poller.busy() {
                (0, End::Empty)
            } else {
                if !core::mem::take(&mut rung) {
                    owner.count_avoided();
                }
                owner.run(self.geometry.sq_entries)
            };
            if poller.leaves() {
                owner.go_idle();
                return leave(owner, end, Polled::Sleep);
            }
            if end == End::Stopped {
                if owner.go_idle() {
                    return leave(owner, end, Polled::Sleep);
                }
                // Enabled meanwhile, and there are entries.
                continue;
            }
            if consumed > 0 || end == End::Bound {
                idle_since = None;
                continue;
            }
            // Elsewhere does not happen: this mode takes no plain descriptors.
            if matches!(end, End::Stalled | End::Elsewhere) {
                // Whoever frees a slot or a request calls Host::work; until then there is nothing to poll for.
                return leave(owner, end, Polled::Sleep);
            }
            let now = self.host.now_ns();
            let since = *idle_since.get_or_insert(now);
            if now.saturating_sub(since) < self.geometry.idle_ns {
                poller.relax();
            } else if owner.go_idle() {
                return leave(owner, end, Polled::Sleep);
            } else {
                idle_since = None;
            }
        }
    }
}

fn leave<H: Host>(owner: Owner<'_, H>, end: End, done: Polled) -> Polled {
    match owner.leave(end) {
        None => done,
        Some(owner) => {
            owner.abandon();
            Polled::Again
        }
    }
}

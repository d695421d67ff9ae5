// SPDX-License-Identifier: MIT OR Apache-2.0
//! Canceling requests, by an entry or by a call, and quiescing a ring.
//!
//! A cancel never completes somebody else's request: it tells the driver, and whoever holds the request completes it (CAN-1).
//! Only requests that the framework's own clock holds are completed here. The calls need no entry, no slot and no drain, and so
//! work on a blocked, draining or broken ring.

use sq_uapi::consts::cancel_flags;
use sq_uapi::{Errno, SqCancel, SqQuiesce};

use crate::cq::Stall;
use crate::host::{Host, Lock, Notify, Waited};
use crate::request::{Found, STRIDE};
use crate::ring::{Ring, stop};
use crate::snapshot::Snapshot;

/// What a cancel is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matching {
    user_data: Option<u64>,
    opcode: Option<u8>,
    all: bool,
}

impl Matching {
    const EVERYTHING: Self = Self { user_data: None, opcode: None, all: true };

    /// From the flags of a cancel and what they refer to.
    fn new(flags: u32, user_data: u64, opcode: u32) -> Result<Self, Errno> {
        use cancel_flags::{ALL, ANY, OP, USERDATA};
        let has = |flag| flags & flag != 0;
        if flags & !(ALL | ANY | OP | USERDATA) != 0 || (has(ANY) && has(OP | USERDATA)) {
            return Err(Errno::EINVAL);
        }
        let by_data = has(USERDATA) || !has(ANY | OP);
        if (!by_data && user_data != 0) || (!has(OP) && opcode != 0) {
            return Err(Errno::EINVAL);
        }
        let opcode = if has(OP) { Some(u8::try_from(opcode).map_err(|_| Errno::EINVAL)?) } else { None };
        Ok(Self { user_data: by_data.then_some(user_data), opcode, all: has(ALL | ANY) })
    }

    pub(crate) fn matches(&self, user_data: u64, opcode: u8) -> bool {
        self.user_data.is_none_or(|want| want == user_data) && self.opcode.is_none_or(|want| want == opcode)
    }
}

impl<H: Host> Ring<H> {
    /// An ASYNC_CANCEL entry: `addr` is the `user_data` to match, `len` the opcode.
    #[expect(clippy::as_conversions, reason = "fields are cut out of words by truncation")]
    pub(crate) fn cancel_entry(&self, snapshot: Snapshot<'_>) -> Result<i32, Errno> {
        let [_, _, addr, w3, ..] = snapshot.words();
        self.cancel_matching(&Matching::new((w3 >> 32) as u32, addr, w3 as u32)?)
    }

    /// CANCEL: how many requests were canceled by this call (with `ALL` or `ANY`), else 0.
    ///
    /// # Errors
    ///
    /// `EINVAL` for an unknown flag, a reserved field or a field that the flags do not refer to; `ENOENT` if nothing matches;
    /// `EALREADY` if what matches was canceled before, or is completing.
    pub fn cancel(&self, cancel: &SqCancel) -> Result<u32, Errno> {
        if cancel.resv0 != 0 || cancel.resv != [0; 2] {
            return Err(Errno::EINVAL);
        }
        let matching = Matching::new(cancel.flags, cancel.user_data, cancel.opcode)?;
        self.cancel_matching(&matching).map(i32::unsigned_abs)
    }

    fn cancel_matching(&self, matching: &Matching) -> Result<i32, Errno> {
        let mut canceled = 0i32;
        let mut already = false;
        let mut from = 0u32;
        while from < self.geometry.max_inflight {
            // A cancel that was begun is finished, also for the dead.
            let _ = self.host.pause();
            let found = self.cq.with(|cq| cq.requests.find(from, STRIDE, matching));
            let Some((index, found)) = found else {
                from = from.saturating_add(STRIDE);
                continue;
            };
            from = index.saturating_add(1);
            match found {
                Found::Tell(id) => self.driver.cancel(id),
                // The caller's reference is another one.
                Found::Timed(index) => drop(self.settle(index, Errno::ECANCELED.to_res(), [0; 2])),
                Found::Noted => {}
                Found::Already => {
                    already = true;
                    continue;
                }
            }
            canceled = canceled.saturating_add(1);
            if !matching.all {
                return Ok(0);
            }
        }
        match (canceled, already) {
            (0, true) => Err(Errno::EALREADY),
            (0, false) => Err(Errno::ENOENT),
            (n, _) => Ok(n),
        }
    }

    pub(crate) fn cancel_everything(&self) {
        // Nothing in flight is as good.
        let _ = self.cancel_matching(&Matching::EVERYTHING);
    }

    /// QUIESCE: accepts nothing more, cancels what is in flight, and returns when no request can touch user memory any more
    /// (LIFE-1). There is no way back: the ring can only be reaped and closed.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a reserved field, `ETIME` if requests are still in flight after `timeout_ns`, `EINTR` on a signal; it may be
    /// called again.
    pub fn quiesce(&self, quiesce: &SqQuiesce) -> Result<(), Errno> {
        if quiesce.flags != 0 || quiesce.resv != [0; 2] {
            return Err(Errno::EINVAL);
        }
        let deadline = self.host.now_ns().saturating_add(quiesce.timeout_ns);
        self.shut();
        // At once, since whoever drains may be long in an entry, and even wait there for one of these.
        self.cancel_everything();
        // Once the drain is free, with the bit set, nothing new comes in flight. (A polling thread lets go of it when it sees
        // the bit.) Then one more cancel reaches all there is.
        self.await_quiet(deadline, Self::drain_is_free)?;
        // What the ring waits for need not be rung for any more: whoever owns the drain next says so.
        if self.cq.with(|cq| cq.stall != Stall::None) {
            H::work(self);
        }
        self.cancel_everything();
        self.await_quiet(deadline, |ring| {
            ring.cq.with(|cq| {
                cq.wake_when_idle(&self.mem, &self.posted);
                self.posted.inflight() == 0
            })
        })?;
        // So that `poll` says it from here on, whoever looks at the ring once more.
        self.set_stop(stop::OVER);
        Ok(())
    }

    /// Accepts nothing more, and wakes who waits. The next to look at the ring cancels what is in flight.
    pub fn shut(&self) {
        self.set_stop(stop::QUIESCED);
        self.host.notify(Notify { waiters: true, eventfd: false });
    }

    /// The end of a ring whose file is gone: accepts nothing more and cancels what is in flight, without waiting for either
    /// (LIFE-2). What outlives it keeps the ring by reference, and its completion goes nowhere.
    pub fn abandon(&self) {
        self.shut();
        self.forget_files();
        self.cancel_everything();
        // A worker may be in the middle of an entry that this cancel came too early for: once more, after it.
        H::work(self);
    }

    /// Closes the registered files of a ring that accepts nothing more: what is in flight may wait for what one of them serves, until that
    /// one is closed. (In the kernel that is when the caller returns to user space.)
    pub fn forget_files(&self) {
        drop(self.files.with(core::mem::take));
    }

    fn await_quiet(&self, deadline: u64, quiet: impl Fn(&Self) -> bool) -> Result<(), Errno> {
        match self.host.wait(Some(deadline), &mut || quiet(self)) {
            Waited::Ready => Ok(()),
            // What is so when the time is up counts.
            _ if quiet(self) => Ok(()),
            Waited::Timeout => Err(Errno::ETIME),
            Waited::Signal => Err(Errno::EINTR),
        }
    }
}

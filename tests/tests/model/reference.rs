// SPDX-License-Identifier: MIT OR Apache-2.0
//! The reference: what a ring owes its users, from DESIGN's rules alone. It knows entries, completions and cancels; it knows no queue,
//! no slot and no code of the kernel side.
//!
//! A ring may do many things in many orders. So the reference does not say what comes next, but of everything that comes whether
//! it may, and at any time what must still come.

use std::ops::RangeInclusive;

use sq_uapi::{Errno, SqStats};

use super::plan::{By, Kind, Mode, Op, Shape, Which};
use super::transfers::{Place, Store, Transfer};

/// All entries of a ring so far.
pub(crate) struct Reference {
    shape: Shape,
    entries: Vec<Entry>,
    published: u64,
    reaped: u64,
    /// LIFE-1: the ring is quiesced, and so many were accepted.
    accepted: Option<u64>,
    store: Store,
}

struct Entry {
    op: Op,
    user_data: u64,
    /// How many were published before it, at least and at most: two threads publish in any order.
    before: RangeInclusive<u64>,
    done: bool,
    /// A cancel may have reached it.
    may_cancel: bool,
    /// A cancel has reached it: it waits for nothing any more.
    must_cancel: bool,
    /// CQ-4: there was room for it among those that wait without bound.
    has_room: bool,
    /// Of a cancel: its results.
    results: Option<Outcome>,
    /// Of a transfer: its result, and what it leaves in its memory.
    leaves: Option<(i32, Place)>,
}

impl Entry {
    /// Its result, if that is determined.
    fn certain(&self) -> Option<i32> {
        self.op.certain().or(self.leaves.map(|(res, _)| res))
    }
}

/// What a cancel may say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    /// It names one, and reports 0; else it counts.
    single: bool,
    at_least: u32,
    at_most: u32,
}

impl Outcome {
    fn allows(self, res: i32) -> bool {
        match u32::try_from(res) {
            Ok(n) if self.single => n == 0 && self.at_most > 0,
            Ok(n) => n > 0 && (self.at_least..=self.at_most).contains(&n),
            Err(_) if self.at_least > 0 => false,
            // EALREADY: canceled before, or completing at this moment.
            Err(_) => res == Errno::ENOENT.to_res() || (self.at_most > 0 && res == Errno::EALREADY.to_res()),
        }
    }

    fn succeeds(self) -> Option<bool> {
        if self.at_least > 0 { Some(true) } else { (self.at_most == 0).then_some(false) }
    }
}

impl Reference {
    pub(crate) fn new(shape: Shape) -> Self {
        Self { shape, entries: Vec::new(), published: 0, reaped: 0, accepted: None, store: Store::new() }
    }

    /// Batches of entries are published, or not; those of one batch in order. Their numbers count on from the last.
    pub(crate) fn publish(&mut self, batches: &[(&[Op], bool)]) {
        let all: u64 = batches.iter().filter(|(_, published)| *published).map(|(batch, _)| batch.len() as u64).sum();
        // CQ-4, and docs/protocol.md: an eighth of the slots and one request are kept from those that wait without bound.
        let slots = self.shape.cq_entries.saturating_sub((self.shape.cq_entries / 8).max(1));
        let most = slots.min(self.shape.max_inflight - 1) as usize;
        let never = |op: &&Op| matches!(op.kind, Kind::Never);
        let rivals = self.nevers() + batches.iter().flat_map(|(batch, _)| batch.iter()).filter(never).count();
        let numbered = batches.iter().flat_map(|(batch, published)| {
            (0..).zip(*batch).map(|(at, op)| (*op, *published, (at, batch.len() as u64)))
        });
        for (op, published, (at, len)) in numbered {
            let user_data = self.entries.len() as u64 + 1;
            let first = self.published + at;
            let before = first..=first + all.saturating_sub(len);
            let results = match op.kind {
                Kind::Cancel(which) if published => Some(self.cancel(which, user_data, u64::MAX)),
                _ => None,
            };
            // Entries are accepted in order, and a transfer is done by then. Two threads' do not meet.
            let leaves = match op.kind {
                Kind::Transfer(transfer) if published => Some(self.store.run(transfer, user_data)),
                _ => None,
            };
            let others = if batches.len() > 1 { rivals.saturating_sub(1) } else { self.nevers() };
            self.entries.push(Entry {
                op,
                user_data,
                before,
                // What was not published owes nothing.
                done: !published,
                may_cancel: false,
                must_cancel: false,
                has_room: others < most,
                results,
                leaves,
            });
        }
        self.published += all;
    }

    /// What a submit may say.
    pub(crate) fn submitted(&self, published: bool, said: Result<(), Errno>) -> Result<(), String> {
        let fits = match said {
            // Where others drain nobody rings until the ring says that it sleeps, which may be soon after QUIESCE.
            Ok(()) => !self.is_shut() || !published || self.shape.mode != Mode::Caller,
            Err(errno) => self.is_shut() && errno == Errno::ESHUTDOWN,
        };
        if fits { Ok(()) } else { Err(format!("a submit says {said:?}; quiesced: {}", self.is_shut())) }
    }

    /// Nothing is accepted any more, and nothing in flight.
    pub(crate) fn is_shut(&self) -> bool {
        self.accepted.is_some()
    }

    /// Entries in flight, at most, that wait without bound.
    fn nevers(&self) -> usize {
        self.out().filter(|one| matches!(one.op.kind, Kind::Never)).count()
    }

    fn out(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|one| !one.done)
    }

    /// The number of the next entry.
    pub(crate) fn serial(&self) -> u64 {
        self.entries.len() as u64 + 1
    }

    /// As [`Reference::cancel`], by a call: it overtakes cancels that are still queued, which may find less than they would have.
    pub(crate) fn cancel_call(&mut self, which: Which, accepted: u64) -> Outcome {
        let outcome = self.cancel(which, self.serial(), accepted);
        for results in self.entries.iter_mut().filter(|one| !one.done).filter_map(|one| one.results.as_mut()) {
            results.at_least = 0;
        }
        outcome
    }

    /// CAN-1: a cancel comes when at least `accepted` entries have been accepted. What it may say.
    fn cancel(&mut self, which: Which, serial: u64, accepted: u64) -> Outcome {
        let (_, user_data, opcode) = which.fields(serial);
        let matches = |one: &Entry| match which.by {
            By::Back(_) => one.user_data == user_data,
            By::Opcode(_) => one.op.opcode() == opcode,
            By::Any => true,
        };
        // Those that complete inline cannot be met; a NOP that becomes a request can, in the moment that it is one.
        let shut = self.is_shut();
        let reaches = |one: &Entry| {
            let later = match one.op.kind {
                Kind::Transfer(transfer) => transfer.later,
                kind => matches!(kind, Kind::Never | Kind::Delay { .. } | Kind::Nop { later: true }),
            };
            !shut && !one.done && later && matches(one)
        };
        let surely = |one: &Entry| {
            matches!(one.op.kind, Kind::Never) && one.has_room && !one.may_cancel && *one.before.end() < accepted
        };
        let all = which.all || matches!(which.by, By::Any);
        let (mut at_least, mut at_most) = (0, 0);
        for one in self.entries.iter().filter(|one| reaches(one)) {
            at_most += 1;
            at_least += u32::from(surely(one));
        }
        for one in self.entries.iter_mut().filter(|one| reaches(one)) {
            one.must_cancel |= surely(one) && (all || at_most == 1);
            one.may_cancel = true;
        }
        Outcome { single: !all, at_least, at_most }
    }

    /// The call said this.
    pub(crate) fn canceled(outcome: Outcome, said: Result<u32, Errno>) -> Result<(), String> {
        let res = said.map_or_else(Errno::to_res, u32::cast_signed);
        if outcome.allows(res) { Ok(()) } else { Err(format!("CAN-1: a cancel says {said:?}, and not {outcome:?}")) }
    }

    /// QUIESCE begins: all may be canceled, so what an entry wants to cancel may have come to its end.
    pub(crate) fn quiesce(&mut self) {
        for one in &mut self.entries {
            one.may_cancel = true;
            if let Some(results) = &mut one.results {
                results.at_least = 0;
            }
        }
    }

    /// QUIESCE has returned 0: nothing is in flight, all that was accepted has its completion, and there it ends.
    pub(crate) fn quiesced(&mut self, stats: &SqStats) -> Result<(), String> {
        if stats.inflight != 0 {
            return Err(format!("LIFE-1: {} requests in flight", stats.inflight));
        }
        if stats.entries != stats.completions + stats.skipped {
            return Err(format!("SUB-2: entries, completions and skipped do not add up: {stats:?}"));
        }
        self.accepted.get_or_insert(stats.entries);
        Ok(())
    }

    /// A completion came.
    pub(crate) fn reap(&mut self, user_data: u64, res: i32, flags: u32) -> Result<(), String> {
        self.reaped += 1;
        let entry = usize::try_from(user_data).ok().and_then(|n| self.entries.get_mut(n.checked_sub(1)?));
        let Some(one) = entry else { return Err(format!("SUB-2: {user_data:#x} is no entry's user_data")) };
        if one.done {
            return Err(format!("SUB-2: a second completion of {user_data}, {:?}", one.op));
        }
        if self.accepted.is_some_and(|accepted| *one.before.start() >= accepted) {
            return Err(format!("LIFE-1: a completion of {user_data}, after QUIESCE, {:?}", one.op));
        }
        one.done = true;
        let canceled = res == Errno::ECANCELED.to_res() && one.may_cancel;
        let busy = res == Errno::EBUSY.to_res() && !one.has_room;
        let fits = match (one.op.certain(), one.op.kind) {
            (Some(certain), _) => res == certain,
            (None, Kind::Delay { value, .. }) => res == i32::from(value) || canceled,
            (None, Kind::Never) => canceled || busy,
            (None, Kind::Transfer(_)) => one.leaves.is_some_and(|(leaves, _)| res == leaves),
            (None, Kind::Cancel(_)) => one.results.is_some_and(|results| results.allows(res)),
            (None, _) => false,
        };
        if flags != 0 || !fits || (one.op.skip_success && res >= 0) {
            return Err(format!("SUB-2: {user_data} ends with {res}, {flags:#x}: {:?} {:?}", one.op, one.results));
        }
        Ok(())
    }

    /// What this entry's memory must hold now that it is done.
    pub(crate) fn left(&self, user_data: u64) -> Option<(Transfer, Place)> {
        let one = self.entries.get(usize::try_from(user_data).ok()?.checked_sub(1)?)?;
        let Kind::Transfer(transfer) = one.op.kind else { return None };
        one.leaves.map(|(_, place)| (transfer, place))
    }

    /// The entries that are done for certain, once the ring is quiesced, whether they said so or not.
    pub(crate) fn surely_done(&self) -> impl Iterator<Item = u64> {
        let accepted = self.accepted.unwrap_or(0);
        self.entries.iter().filter(move |one| *one.before.end() < accepted).map(|one| one.user_data)
    }

    /// Completions that must come, whoever does or does not do anything but reap.
    pub(crate) fn due(&self) -> u32 {
        let due = self.out().filter(|one| {
            let fails = one.certain().map(|res| res < 0);
            match one.op.kind {
                Kind::Never => one.must_cancel,
                Kind::Delay { .. } => !one.op.skip_success,
                Kind::Cancel(_) => !one.op.skip_success || one.results.and_then(Outcome::succeeds) == Some(false),
                _ => !one.op.skip_success || fails == Some(true),
            }
        });
        due.count() as u32
    }

    /// After each step: what the ring counts is what there is.
    pub(crate) fn check(&self, stats: &SqStats) -> Result<(), String> {
        let published = self.published;
        let unreaped = stats.completions.checked_sub(self.reaped);
        if stats.entries > published || unreaped.is_none_or(|n| n > self.shape.cq_entries.into()) {
            return Err(format!("CQ-5: {} of {published} accepted, {unreaped:?} unreaped: {stats:?}", stats.entries));
        }
        if stats.inflight > self.shape.max_inflight.into() {
            return Err(format!("CQ-1: {} requests in flight", stats.inflight));
        }
        if let Some(accepted) = self.accepted
            && (stats.entries, stats.inflight) != (accepted, 0)
        {
            return Err(format!("LIFE-1: {accepted} were accepted before QUIESCE: {stats:?}"));
        }
        Ok(())
    }

    /// The ring is quiesced, and everything reaped that it had.
    pub(crate) fn end(&self, stats: &SqStats) -> Result<(), String> {
        if stats.completions != self.reaped {
            return Err(format!("CQ-1: {} posted, {} reaped", stats.completions, self.reaped));
        }
        for one in self.out() {
            let silent = one.op.skip_success && one.certain().is_none_or(|res| res >= 0);
            // Of two threads' entries nobody knows which were accepted.
            let accepted = *one.before.end() < stats.entries;
            if accepted && !silent {
                return Err(format!("SUB-2: no completion for {}, {:?}", one.user_data, one.op));
            }
        }
        Ok(())
    }
}

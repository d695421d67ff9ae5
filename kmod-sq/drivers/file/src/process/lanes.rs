// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which job is next: first come, first served within a file, in turns between files.
//!
//! A file has a lane: the jobs that wait for it, and how many run. (And another one for operations that the file system does
//! one at a time, buffered writes: these would otherwise fill the first with threads that wait for the inode's lock.) A lane that has waiting jobs and room is in `ready`, once.
//! A job that waits is found by its id, and a lane in `ready` by its turn: taking one out costs the same however many there are.
//! Jobs run on at most [`Limits::threads`] threads, and the last [`Limits::reserve`] of these are for files that have none
//! running: so one slow file, or as many as the reserve has threads, leave one for the others.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use std::vec::Vec;

/// How many threads, and for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Threads in all. At least 1.
    pub threads: usize,
    /// Threads that one file's operations may take, besides `in_turn`. At least 1.
    pub per_file: usize,
    /// Threads that those operations on one file may take which the file system does one at a time. At least 1; a second keeps
    /// the file busy while the first one's completion is posted.
    pub in_turn: usize,
    /// Of `threads`, those that only start operations on files that have none running.
    pub reserve: usize,
    /// How long a thread without work stays. `Duration::MAX`: as long as the driver.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { threads: 64, per_file: 8, in_turn: 2, reserve: 16, idle: Duration::from_secs(5) }
    }
}

/// A file, and whether this is its lane for operations in turn.
pub(super) type Key = ((u64, u64), bool);

impl Limits {
    /// Threads that a lane may take.
    const fn lane(&self, (_, in_turn): Key) -> usize {
        if in_turn { self.in_turn } else { self.per_file }
    }
}

/// A place in a queue: smaller is sooner. There are enough of them.
type Ticket = u64;

struct Lane<J> {
    waiting: BTreeMap<Ticket, (u64, J)>,
    running: usize,
    /// Its place in `ready`.
    turn: Option<Ticket>,
}

/// The jobs of all files.
pub(super) struct Lanes<J> {
    lanes: HashMap<Key, Lane<J>>,
    ready: BTreeMap<Ticket, Key>,
    /// Where a waiting job is, by its id.
    places: HashMap<u64, (Key, Ticket)>,
    running: usize,
    next_ticket: Ticket,
    limits: Limits,
}

impl<J> Lanes<J> {
    pub(super) fn new(limits: Limits) -> Self {
        let (lanes, ready, places) = (HashMap::new(), BTreeMap::new(), HashMap::new());
        Self { lanes, ready, places, running: 0, next_ticket: 0, limits }
    }

    /// Adds a job behind those of its file. `true`: one more thread can be used; else those at work come to it in time.
    pub(super) fn push(&mut self, key: Key, id: u64, job: J) -> bool {
        let most = self.limits.lane(key);
        let ticket = self.ticket();
        let lane = self.lanes.entry(key).or_insert_with(|| Lane { waiting: BTreeMap::new(), running: 0, turn: None });
        lane.waiting.insert(ticket, (id, job));
        self.places.insert(id, (key, ticket));
        let usable = lane.running + lane.waiting.len() <= most;
        self.line_up(key);
        usable && self.has_next()
    }

    fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        self.next_ticket
    }

    /// Puts a lane that became ready behind the others, and takes out one that is so no more. Forgets one that has nothing.
    fn line_up(&mut self, key: Key) {
        let ticket = self.ticket();
        let Some(lane) = self.lanes.get_mut(&key) else { return };
        let is_ready = !lane.waiting.is_empty() && lane.running < self.limits.lane(key);
        if is_ready && lane.turn.is_none() {
            lane.turn = Some(ticket);
            self.ready.insert(ticket, key);
        } else if !is_ready && let Some(turn) = lane.turn.take() {
            self.ready.remove(&turn);
        }
        if lane.waiting.is_empty() && lane.running == 0 {
            self.lanes.remove(&key);
        }
    }

    /// Whether [`Lanes::next`] has a job.
    pub(super) fn has_next(&self) -> bool {
        self.turn().is_some()
    }

    /// The job to run now. [`Lanes::finished`] is called when it has been.
    pub(super) fn next(&mut self) -> Option<(Key, J)> {
        let turn = self.turn()?;
        let key = self.ready.remove(&turn)?;
        let lane = self.lanes.get_mut(&key)?;
        lane.turn = None;
        let (_, (id, job)) = lane.waiting.pop_first()?;
        lane.running += 1;
        self.running += 1;
        self.places.remove(&id);
        self.line_up(key);
        Some((key, job))
    }

    /// Place in `ready` of the lane whose turn it is.
    fn turn(&self) -> Option<Ticket> {
        if self.running >= self.limits.threads {
            return None;
        }
        if self.running < self.limits.threads.saturating_sub(self.limits.reserve) {
            return self.ready.keys().next().copied();
        }
        // At most as many are passed over as there are threads.
        let idle = |key: &Key| self.lanes.get(key).is_some_and(|lane| lane.running == 0);
        self.ready.iter().find(|(_, key)| idle(key)).map(|(turn, _)| *turn)
    }

    /// A job of this file has been run.
    pub(super) fn finished(&mut self, key: Key) {
        let Some(lane) = self.lanes.get_mut(&key) else { return };
        lane.running -= 1;
        self.running -= 1;
        self.line_up(key);
    }

    /// Takes out the job of this id, if it waits.
    pub(super) fn remove(&mut self, id: u64) -> Option<J> {
        let (key, ticket) = self.places.remove(&id)?;
        let (_, job) = self.lanes.get_mut(&key)?.waiting.remove(&ticket)?;
        self.line_up(key);
        Some(job)
    }

    /// Takes out all waiting jobs.
    pub(super) fn clear(&mut self) -> Vec<J> {
        self.ready.clear();
        self.places.clear();
        let mut jobs = Vec::new();
        for lane in self.lanes.values_mut() {
            lane.turn = None;
            jobs.extend(std::mem::take(&mut lane.waiting).into_values().map(|(_, job)| job));
        }
        self.lanes.retain(|_, lane| lane.running > 0);
        jobs
    }
}

#[cfg(test)]
mod tests;

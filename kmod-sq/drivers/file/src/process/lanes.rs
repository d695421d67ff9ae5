// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which job is next: first come, first served within a file, in turns between files.
//!
//! A file has a lane: the jobs that wait for it, and how many run. (And another one for operations that the file system does
//! one at a time, buffered writes: these would otherwise fill the first with threads that wait for the inode's lock.) A lane that has waiting jobs and room is in `ready`, once.
//! Jobs run on at most [`Limits::threads`] threads, and the last [`Limits::reserve`] of these are for files that have none
//! running: so one slow file, or as many as the reserve has threads, leave one for the others.

use std::collections::{HashMap, VecDeque};
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
    /// How long a thread without work stays.
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

struct Lane<J> {
    waiting: VecDeque<J>,
    running: usize,
}

/// The jobs of all files.
pub(super) struct Lanes<J> {
    lanes: HashMap<Key, Lane<J>>,
    ready: VecDeque<Key>,
    running: usize,
    limits: Limits,
}

impl<J> Lanes<J> {
    pub(super) fn new(limits: Limits) -> Self {
        Self { lanes: HashMap::new(), ready: VecDeque::new(), running: 0, limits }
    }

    /// Adds a job behind those of its file. `true`: one more thread can be used; else those at work come to it in time.
    pub(super) fn push(&mut self, key: Key, job: J) -> bool {
        let most = self.limits.lane(key);
        let lane = self.lanes.entry(key).or_insert_with(|| Lane { waiting: VecDeque::new(), running: 0 });
        lane.waiting.push_back(job);
        if lane.waiting.len() == 1 && lane.running < most {
            self.ready.push_back(key);
        }
        lane.running + lane.waiting.len() <= most && self.has_next()
    }

    /// Whether [`Lanes::next`] has a job.
    pub(super) fn has_next(&self) -> bool {
        self.turn().is_some()
    }

    /// The job to run now. [`Lanes::finished`] is called when it has been.
    pub(super) fn next(&mut self) -> Option<(Key, J)> {
        let key = self.ready.remove(self.turn()?)?;
        let lane = self.lanes.get_mut(&key)?;
        let job = lane.waiting.pop_front()?;
        lane.running += 1;
        self.running += 1;
        if !lane.waiting.is_empty() && lane.running < self.limits.lane(key) {
            self.ready.push_back(key);
        }
        Some((key, job))
    }

    /// Place in `ready` of the lane whose turn it is.
    fn turn(&self) -> Option<usize> {
        if self.running >= self.limits.threads {
            return None;
        }
        if self.running < self.limits.threads.saturating_sub(self.limits.reserve) {
            return if self.ready.is_empty() { None } else { Some(0) };
        }
        self.ready.iter().position(|key| self.lanes.get(key).is_some_and(|lane| lane.running == 0))
    }

    /// A job of this file has been run.
    pub(super) fn finished(&mut self, key: Key) {
        let Some(lane) = self.lanes.get_mut(&key) else { return };
        let was_full = lane.running == self.limits.lane(key);
        lane.running -= 1;
        self.running -= 1;
        if lane.waiting.is_empty() {
            if lane.running == 0 {
                self.lanes.remove(&key);
            }
        } else if was_full {
            self.ready.push_back(key);
        }
    }

    /// Takes out the waiting job that `is` it.
    pub(super) fn remove(&mut self, is: impl Fn(&J) -> bool) -> Option<J> {
        for (key, lane) in &mut self.lanes {
            let Some(place) = lane.waiting.iter().position(&is) else { continue };
            let job = lane.waiting.remove(place);
            if lane.waiting.is_empty() {
                let key = *key;
                self.ready.retain(|ready| *ready != key);
                if lane.running == 0 {
                    self.lanes.remove(&key);
                }
            }
            return job;
        }
        None
    }

    /// Takes out all waiting jobs.
    pub(super) fn clear(&mut self) -> Vec<J> {
        self.ready.clear();
        let jobs = self.lanes.values_mut().flat_map(|lane| lane.waiting.drain(..)).collect();
        self.lanes.retain(|_, lane| lane.running > 0);
        jobs
    }
}

#[cfg(test)]
mod tests;

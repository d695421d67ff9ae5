// SPDX-License-Identifier: MIT OR Apache-2.0
//! The threads that wait.
//!
//! They are started when there is a job and nobody to run it, and leave when they have had none for a while. A thread that sleeps
//! is woken by a token of its own, so a job that was given one is never left to a thread that already has another job.
#![expect(unsafe_code, reason = "what an operation is made of comes as numbers")]

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, ThreadId};
use std::time::{Duration, Instant};
use std::vec::Vec;

use sq_driver::abi::{MAX_SEGMENTS, Segment};
use sq_driver::{Errno, RequestId};

use super::lanes::{Lanes, Limits};
use super::{FileIo, Found};
use crate::files::{Files, Io, Job, Now, What};

/// Bytes of stack of a thread: a vector, and the framework's completion.
const STACK_BYTES: usize = 256 << 10;

/// Files of this process: tried at once, then by threads.
///
/// Dropping it completes what was not started with `-ECANCELED` and waits for what was.
pub struct Threads<I: FileIo>(Arc<Inner<I>>);

struct Inner<I> {
    io: I,
    limits: Limits,
    state: Mutex<State>,
    wake: Condvar,
}

struct State {
    lanes: Lanes<Job<Found>>,
    /// Threads that sleep, or were given a token and have not woken up yet.
    asleep: usize,
    /// Wake-ups given and not yet taken. Never more than `asleep`.
    tokens: usize,
    /// Threads that were started and have not come to work yet.
    starting: usize,
    /// All threads. One that leaves takes its handle out.
    threads: HashMap<ThreadId, JoinHandle<()>>,
    stopped: bool,
}

impl<I: FileIo> std::fmt::Debug for Threads<I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Threads").field("limits", &self.0.limits).finish_non_exhaustive()
    }
}

impl<I: FileIo> Threads<I> {
    /// No thread yet, and at most what the limits say.
    #[must_use]
    pub fn new(io: I, limits: Limits) -> Self {
        let at_least_1 = |limit: usize| limit.max(1);
        let limits = Limits {
            threads: at_least_1(limits.threads),
            per_file: at_least_1(limits.per_file),
            in_turn: at_least_1(limits.in_turn),
            ..limits
        };
        let lanes = Lanes::new(limits);
        let state = State { lanes, asleep: 0, tokens: 0, starting: 0, threads: HashMap::new(), stopped: false };
        Self(Arc::new(Inner { io, limits, state: Mutex::new(state), wake: Condvar::new() }))
    }
}

impl<I: FileIo> Files for Threads<I> {
    type File = Found;

    fn look(&self, io: &Io<'_>) -> Result<Found, Errno> {
        // SAFETY: an `Io` is an operation in progress, so its target is open.
        unsafe { self.0.io.look(io.target(), io.what()) }
    }

    fn now(&self, io: &Io<'_>, file: &Found) -> Result<Now, Errno> {
        let (off, payload) = (io.off(), io.payload());
        if matches!(io.what(), What::Sync | What::DataSync) {
            return Ok(Now::Rest(0));
        }
        let tried = self.0.call(io, 0, false);
        match tried {
            Ok(bytes) => {
                let reached = off.saturating_add(bytes as u64);
                // 0 is the end of the file for a read, as is reaching the size that it had. A short transfer otherwise means that
                // the rest would wait.
                let ended = io.what() == What::Read && (bytes == 0 || (file.bytes != 0 && reached >= file.bytes));
                Ok(if ended || bytes as u64 >= payload.left() { Now::Done(bytes) } else { Now::Rest(bytes) })
            }
            Err(Errno::EAGAIN | Errno::EOPNOTSUPP) => Ok(Now::Rest(0)),
            Err(errno) => Err(errno),
        }
    }

    fn later(&self, job: Job<Found>) {
        let lost = {
            let mut state = self.0.lock();
            let more = state.lanes.push((job.file().key, job.file().in_turn), job.id().raw(), job);
            if more && !self.0.recruit(&mut state) { state.lanes.clear() } else { Vec::new() }
        };
        for job in lost {
            job.complete(Err(Errno::EAGAIN));
        }
    }

    fn cancel(&self, id: RequestId) {
        let job = self.0.lock().lanes.remove(id.raw());
        if let Some(job) = job {
            // Bytes that were transferred at once are the result, as of any transfer that ends early.
            job.complete(Err(Errno::ECANCELED));
        }
    }
}

impl<I: FileIo> Drop for Threads<I> {
    fn drop(&mut self) {
        let (jobs, threads) = {
            let mut state = self.0.lock();
            state.stopped = true;
            (state.lanes.clear(), std::mem::take(&mut state.threads))
        };
        self.0.wake.notify_all();
        for job in jobs {
            job.complete(Err(Errno::ECANCELED));
        }
        // A completion that ends the last ring may drop the driver on one of its own threads.
        let me = thread::current().id();
        for (_, thread) in threads.into_iter().filter(|(id, _)| *id != me) {
            // A panic of a thread has been reported by it.
            let _ = thread.join();
        }
    }
}

impl<I: FileIo> Inner<I> {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code here panics with the lock held; if a callee does, the state is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds a thread for one more job: one that sleeps, or a new one. `false`: there is not a single thread, and none can be had.
    fn recruit(self: &Arc<Self>, state: &mut State) -> bool {
        if state.asleep > state.tokens {
            state.tokens += 1;
            self.wake.notify_one();
        } else if state.threads.len() < self.limits.threads && !state.stopped {
            let inner = Arc::clone(self);
            let spawned =
                thread::Builder::new().name("sq-file".into()).stack_size(STACK_BYTES).spawn(move || inner.work());
            if let Ok(thread) = spawned {
                // Before the thread can take the lock.
                state.threads.insert(thread.thread().id(), thread);
                state.starting += 1;
            }
        }
        // Without a new thread the job waits for one that works.
        !state.threads.is_empty()
    }

    fn work(self: Arc<Self>) {
        let mut state = self.lock();
        state.starting -= 1;
        loop {
            while let Some((key, job)) = state.lanes.next() {
                // This job's turn let another's come, and nobody is on the way for it.
                if state.tokens + state.starting == 0 && state.lanes.has_next() {
                    self.recruit(&mut state);
                }
                drop(state);
                self.run(job);
                state = self.lock();
                state.lanes.finished(key);
            }
            match self.sleep(state) {
                Some(awake) => state = awake,
                None => return,
            }
        }
    }

    /// Sleeps until there is a token. `None`: leave.
    fn sleep<'a>(&'a self, mut state: MutexGuard<'a, State>) -> Option<MutexGuard<'a, State>> {
        // `None`: too far to be a time, so it stays.
        let until = Instant::now().checked_add(self.limits.idle);
        state.asleep += 1;
        loop {
            if state.tokens > 0 {
                state.tokens -= 1;
                state.asleep -= 1;
                return Some(state);
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if state.stopped || left == Some(Duration::ZERO) {
                state.asleep -= 1;
                // Nobody has to wait for this thread any more; `drop` may have its handle already.
                state.threads.remove(&thread::current().id());
                return None;
            }
            state = match left {
                None => self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(left) => self.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }

    /// Does the rest of an operation, and completes it.
    fn run(&self, mut job: Job<Found>) {
        let done = job.done();
        let io = job.io();
        // What may panic is the caller's own `FileIo`, which has nothing of ours that could be half done. The thread goes on.
        let result = catch_unwind(AssertUnwindSafe(|| self.call(&io, done, true)));
        job.complete(result.unwrap_or(Err(Errno::EIO)));
    }

    /// Makes the call of an operation of which `done` bytes are done.
    fn call(&self, io: &Io<'_>, done: usize, wait: bool) -> Result<usize, Errno> {
        let (target, off) = (io.target(), io.off().saturating_add(done as u64));
        let all = io.payload().segments();
        let mut rest = [Segment::default(); MAX_SEGMENTS];
        let rest = if done == 0 { all } else { behind(all, done, &mut rest) };
        match io.what() {
            // SAFETY: an `Io` is an operation in progress: its target is open, and its payload is lent for what it does.
            What::Read => unsafe { self.io.read(target, off, rest, wait) },
            // SAFETY: as above.
            What::Write => unsafe { self.io.write(target, off, rest, wait) },
            // SAFETY: as above, of the target.
            What::Sync => unsafe { self.io.sync(target, false) }.map(|()| 0),
            // SAFETY: as above.
            What::DataSync => unsafe { self.io.sync(target, true) }.map(|()| 0),
        }
    }
}

/// The segments without their first `done` bytes.
fn behind<'a>(segments: &[Segment], done: usize, rest: &'a mut [Segment; MAX_SEGMENTS]) -> &'a [Segment] {
    let mut skip = done as u64;
    let mut len = 0;
    for segment in segments {
        let skipped = skip.min(segment.len);
        skip -= skipped;
        if skipped < segment.len
            && let Some(place) = rest.get_mut(len)
        {
            *place = Segment { addr: segment.addr.saturating_add(skipped), len: segment.len - skipped };
            len += 1;
        }
    }
    rest.get(..len).unwrap_or(&[])
}

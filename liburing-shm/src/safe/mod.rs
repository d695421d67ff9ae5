// SPDX-License-Identifier: MIT OR Apache-2.0
//! The safe layer: buffers are owned by the ring, an operation takes its buffer, and the completion gives it back.
//!
//! ```
//! use liburing_shm::{Backend, Ring, opcode::Target, safe};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let driver = sq_ram::Ram::in_process(1 << 20)?;
//! let (submit, mut reap) = safe::ring(Ring::builder(8).pool(2, 4096), &Backend::embedded(driver)?)?;
//!
//! let mut buf = submit.buffer().ok_or("no buffer is free")?;
//! buf[..5].copy_from_slice(b"hello");
//! submit.write(Target::Device, 0, buf, 5, 1)?;
//! submit.submit_and_wait(1)?;
//!
//! let done = reap.next().ok_or("no completion")?;
//! assert_eq!((done.token, done.result), (1, Ok(5)));
//! let buf = done.buf.ok_or("no buffer")?; // the same one, to be used again
//! # Ok(())
//! # }
//! ```
//!
//! # Why it is safe
//!
//! The buffers are the ring's pool: memory that is mapped until the last request has gone, whatever the application drops or leaks.
//! At any time a buffer is in exactly one place: the free list, a [`Buf`] in the application's hands, or the table of operations
//! in flight. Only in the last may the kernel side touch it, and from there it comes back only by its completion. So a [`Buf`] may
//! lend slices, and there is nothing to cancel or free when an operation is forgotten.
//!
//! What a ring never consumes, since it was quiesced or broke before, has no completion, and its buffer does not come back: after
//! `ESHUTDOWN` or `EBADFD`, with nothing in flight ([`Submitter::stats`]) and nothing to reap, the rest has not run and will not.

mod buf;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sq_uapi::Errno;
use sq_uapi::flags::{CancelFlags, SqeFlags};

pub use buf::Buf;
use buf::Buffers;

use crate::entry::Entry;
use crate::opcode::{self, Command, Target};
use crate::queue::{CompletionQueue, Ring, SubmissionQueue};
use crate::submitter::{Submitter, Wait};
use crate::{Backend, Builder, Error, PushError};

/// A ring for the safe layer: the submitting half, which many threads may share, and the reaping half, which one may have.
///
/// # Errors
///
/// As [`Builder::build`].
pub fn ring(builder: Builder, backend: &Backend) -> Result<(Submit, Reap), Error> {
    let (submitter, sq, cq) = Ring::split(builder.build(backend)?);
    let buffers = Buffers::take(&sq.shared);
    let pending = Arc::new(Mutex::new(Pending::default()));
    let submit = Submit { sq: Arc::new(Mutex::new(sq)), pending: Arc::clone(&pending), buffers, submitter };
    Ok((submit, Reap { cq, pending }))
}

/// The submitting half. Clone it for each thread.
#[derive(Clone, Debug)]
pub struct Submit {
    sq: Arc<Mutex<SubmissionQueue>>,
    pending: Arc<Mutex<Pending>>,
    buffers: Option<Arc<Buffers>>,
    submitter: Submitter,
}

/// The reaping half: an iterator over the completions that are there. It ends when there are none, and may be asked again.
#[derive(Debug)]
pub struct Reap {
    cq: CompletionQueue,
    pending: Arc<Mutex<Pending>>,
}

/// A completed operation.
#[derive(Debug)]
#[must_use = "the buffer comes back in it"]
pub struct Done {
    /// What the operation was submitted with.
    pub token: u64,
    /// Bytes transferred, or whatever the opcode's result is.
    pub result: Result<u32, Errno>,
    /// The driver's own results, on rings with wide completions; else 0.
    pub extra: [u64; 2],
    /// The operation's buffer, if it had one.
    pub buf: Option<Buf>,
}

/// An operation that was not pushed, and its buffer.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub error: PushError,
    /// The buffer that it was to have.
    pub buf: Option<Buf>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for Refused {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// Operations in flight: what their completions give back.
#[derive(Debug, Default)]
struct Pending {
    places: Vec<Place>,
    free: Vec<usize>,
}

#[derive(Debug)]
struct Place {
    /// That of the operation here, if there is one, else of the next: the place's index, and in the upper half how many were here
    /// before. A cancel that comes late finds none that came into the place meanwhile.
    user_data: u64,
    op: Option<Op>,
}

#[derive(Debug)]
struct Op {
    token: u64,
    buf: Option<Buf>,
}

impl Pending {
    /// Returns the `user_data` for the operation's entry.
    fn put(&mut self, op: Op) -> u64 {
        if let Some(index) = self.free.pop()
            && let Some(place) = self.places.get_mut(index)
        {
            place.op = Some(op);
            return place.user_data;
        }
        let user_data = self.places.len() as u64;
        self.places.push(Place { user_data, op: Some(op) });
        user_data
    }

    fn take(&mut self, user_data: u64) -> Option<Op> {
        let index = user_data as u32 as usize;
        let place = self.places.get_mut(index).filter(|place| place.user_data == user_data)?;
        let op = place.op.take()?;
        place.user_data = user_data.wrapping_add(1 << 32);
        self.free.push(index);
        Some(op)
    }

    /// The `user_data` of the operations that have this token.
    fn with_token(&self, token: u64) -> Vec<u64> {
        let has = |place: &&Place| place.op.as_ref().is_some_and(|op| op.token == token);
        self.places.iter().filter(has).map(|place| place.user_data).collect()
    }
}

/// The data under these locks is whole whenever they are free: nothing between their steps panics.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Submit {
    /// A buffer, if one is free. It goes back when it is dropped.
    #[must_use]
    pub fn buffer(&self) -> Option<Buf> {
        Buffers::get(self.buffers.as_ref()?)
    }

    /// Reads `len` bytes at `offset` into the front of `buf`.
    ///
    /// # Errors
    ///
    /// [`Refused`], with the buffer: the queue is full, the buffer has fewer than `len` bytes, or is another ring's.
    pub fn read(&self, target: Target, offset: u64, buf: Buf, len: u32, token: u64) -> Result<(), Refused> {
        let entry = opcode::ReadFixed::new(target, buf.index(), 0, len).offset(offset).build();
        self.push(entry, Some(buf), len, token)
    }

    /// Writes the first `len` bytes of `buf` at `offset`.
    ///
    /// # Errors
    ///
    /// As [`Submit::read`].
    pub fn write(&self, target: Target, offset: u64, buf: Buf, len: u32, token: u64) -> Result<(), Refused> {
        let entry = opcode::WriteFixed::new(target, buf.index(), 0, len).offset(offset).build();
        self.push(entry, Some(buf), len, token)
    }

    /// Reads `len` bytes at `offset` into `buf`, from its byte `at` on: the rest of a read that came back short.
    ///
    /// # Errors
    ///
    /// As [`Submit::read`].
    pub fn read_at(&self, target: Target, offset: u64, buf: Buf, at: u32, len: u32, token: u64) -> Result<(), Refused> {
        let entry = opcode::ReadFixed::new(target, buf.index(), at, len).offset(offset).build();
        self.push(entry, Some(buf), at.saturating_add(len), token)
    }

    /// Writes `len` bytes of `buf`, from its byte `at` on, at `offset`: the rest of a write that came back short.
    ///
    /// # Errors
    ///
    /// As [`Submit::read`].
    pub fn write_at(
        &self,
        target: Target,
        offset: u64,
        buf: Buf,
        at: u32,
        len: u32,
        token: u64,
    ) -> Result<(), Refused> {
        let entry = opcode::WriteFixed::new(target, buf.index(), at, len).offset(offset).build();
        self.push(entry, Some(buf), at.saturating_add(len), token)
    }

    /// Flushes to stable storage.
    ///
    /// # Errors
    ///
    /// [`Refused`]: the queue is full.
    pub fn fsync(&self, target: Target, token: u64) -> Result<(), Refused> {
        self.push(opcode::Fsync::new(target).build(), None, 0, token)
    }

    /// Does nothing.
    ///
    /// # Errors
    ///
    /// [`Refused`]: the queue is full.
    pub fn nop(&self, token: u64) -> Result<(), Refused> {
        self.push(opcode::Nop::new().build(), None, 0, token)
    }

    /// A driver's own command.
    ///
    /// # Errors
    ///
    /// [`Refused`]: the queue is full.
    pub fn command<C: Command>(&self, command: &C, token: u64) -> Result<(), Refused> {
        self.push(opcode::Cmd::new(command).build(), None, 0, token)
    }

    fn push(&self, entry: Entry, buf: Option<Buf>, len: u32, token: u64) -> Result<(), Refused> {
        let ours = |buf: &Buf| self.buffers.as_ref().is_some_and(|pool| buf.is_of(pool)) && len as usize <= buf.len();
        if !buf.as_ref().is_none_or(ours) {
            return Err(Refused { error: PushError::NoBuffer, buf });
        }
        // In the table before it can complete.
        let user_data = lock(&self.pending).put(Op { token, buf });
        // A skipped success would leave its buffer in the table for ever.
        debug_assert_eq!(entry.as_sqe().flags & SqeFlags::CQE_SKIP_SUCCESS.bits(), 0);
        let pushed = lock(&self.sq).push(entry.user_data(user_data));
        pushed.map_err(|error| Refused { error, buf: lock(&self.pending).take(user_data).and_then(|op| op.buf) })
    }

    /// Publishes what was pushed, and rings the doorbell if it has to be rung. Returns how many operations were published.
    ///
    /// # Errors
    ///
    /// As [`SubmissionQueue::submit`].
    pub fn submit(&self) -> Result<u32, Error> {
        // Rung with the lock free: a caller-driven ring drains in here, and a driver may come back with more.
        let (fresh, ring) = lock(&self.sq).publish();
        if ring {
            self.submitter.bell()?;
        }
        Ok(fresh)
    }

    /// As [`Submit::submit`], and then waits until `completions` are there to reap. Other threads can submit meanwhile.
    ///
    /// # Errors
    ///
    /// As [`SubmissionQueue::submit_and_wait`].
    pub fn submit_and_wait(&self, completions: u32) -> Result<u32, Error> {
        let (fresh, _) = lock(&self.sq).publish();
        self.submitter.wait(&Wait::new(completions))?;
        Ok(fresh)
    }

    /// Cancels the operations that were submitted with `token`: one at least, if there is no error. Each still has its completion, with
    /// `ECANCELED` if it was not too late.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there are none, or they have completed, or were not submitted yet, or the ring has not taken them from its queue yet,
    /// where a worker or a polling thread does that: then they will run, and it may be tried again. `EALREADY` if one was canceled before
    /// or is completing.
    pub fn cancel(&self, token: u64) -> Result<(), Error> {
        let found = lock(&self.pending).with_token(token);
        let mut result = Err(Error::Call { what: "cancel", errno: Errno::ENOENT });
        // With the lock free: a driver that is told to cancel may come back with more.
        for user_data in found {
            match self.submitter.cancel(CancelFlags::USERDATA, user_data, 0) {
                Ok(_) => result = Ok(()),
                Err(error) if result.is_err() && error.errno() != Some(Errno::ENOENT) => result = Err(error),
                Err(_) => {}
            }
        }
        result
    }

    /// What is not about queues: files, quiesce, counters. A `user_data` there is the safe layer's own; for a token there is
    /// [`Submit::cancel`].
    #[must_use]
    pub fn submitter(&self) -> &Submitter {
        &self.submitter
    }
}

impl Iterator for Reap {
    type Item = Done;

    fn next(&mut self) -> Option<Done> {
        loop {
            let completion = self.cq.pop()?;
            // A completion of nothing that is pending would be the kernel side's mistake: there is nothing to give back.
            let Some(op) = lock(&self.pending).take(completion.user_data()) else { continue };
            return Some(Done { token: op.token, result: completion.result(), extra: completion.extra(), buf: op.buf });
        }
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ring and its halves.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sq_uapi::consts::{cq_flags, setup_flags, sq_state};
use sq_uapi::{Completions, Errno, KernelWord, Mapped, SqSetup, Sqe, UserMem, ioctl};

use crate::backend::{Bell, Door, Opened};
use crate::builder::Builder;
use crate::entry::{Completion, Entry, RawEntry};
use crate::error::{Error, PushError};
use crate::pool::Pool;
use crate::ring::{Consumer, Producer};
use crate::submitter::{Submitter, Wait};

/// What the halves of a ring share. Dropped with the last of them: then the ring is quiesced, closed and unmapped.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) door: Box<dyn Door>,
    bell: Option<Bell>,
    pub(crate) mem: Mapped,
    pub(crate) setup: SqSetup,
    /// Doorbells that the submitting half rang and could do without.
    pub(crate) rung: AtomicU64,
    pub(crate) avoided: AtomicU64,
    /// What a submit has to look at besides: [`ELSEWHERE`], [`OWED`].
    care: AtomicU32,
    /// Set for good when a safe layer has taken the pool: see [`crate::safe`].
    pub(crate) pool_taken: AtomicBool,
    pool: Option<std::ptr::NonNull<u8>>,
    _mappings: crate::backend::Mappings,
}

// SAFETY: `pool` is an address in a mapping that lives as long as this; see `Pool` for what is done with it. The rest is Send.
unsafe impl Send for Shared {}
// SAFETY: as above: the rest is Sync.
unsafe impl Sync for Shared {}

/// Who drains is somebody else, who may be awake.
const ELSEWHERE: u32 = 1;
/// A doorbell failed: entries are published that the kernel side may not know of.
const OWED: u32 = 2;

impl Shared {
    fn flag(&self, flag: u32) -> bool {
        self.setup.flags & flag != 0
    }

    /// A doorbell failed: the next submit rings for what was published, too.
    pub(crate) fn owe(&self) {
        self.care.fetch_or(OWED, Ordering::Relaxed);
    }

    /// The bare doorbell.
    #[inline]
    pub(crate) fn bell(&self) -> Result<(), Errno> {
        self.rung.fetch_add(1, Ordering::Relaxed);
        let rung = match self.bell {
            Some(bell) => bell.ring(),
            None => self.door.call(ioctl::ENTER, &mut []).map(|_| ()),
        };
        match rung {
            Ok(()) => Ok(()),
            Err(errno) => self.bell_refused(errno),
        }
    }

    #[cold]
    fn bell_refused(&self, errno: Errno) -> Result<(), Errno> {
        // The entries wait for completion slots. They are published, and go on when a slot is free: no error of theirs.
        if errno == Errno::EBUSY {
            return Ok(());
        }
        self.owe();
        Err(errno)
    }
}

/// A ring: both halves in one hand.
#[derive(Debug)]
pub struct Ring {
    sq: SubmissionQueue,
    cq: CompletionQueue,
    submitter: Submitter,
}

impl Ring {
    /// A ring of `sq_entries` submission entries (rounded up to a power of two), to be shaped further.
    pub fn builder(sq_entries: u32) -> Builder {
        Builder::new(sq_entries)
    }

    pub(crate) fn new(opened: Opened, setup: &SqSetup) -> Self {
        let Opened { door, bell, mem, pool, _mappings } = opened;
        let elsewhere = setup.flags & (setup_flags::SQPOLL | setup_flags::WORKER) != 0;
        let shared = Arc::new(Shared {
            door,
            bell,
            mem,
            setup: *setup,
            rung: AtomicU64::new(0),
            avoided: AtomicU64::new(0),
            care: AtomicU32::new(if elsewhere { ELSEWHERE } else { 0 }),
            pool_taken: AtomicBool::new(false),
            pool,
            _mappings,
        });
        Self {
            sq: SubmissionQueue::new(Arc::clone(&shared)),
            cq: CompletionQueue::new(Arc::clone(&shared)),
            submitter: Submitter::new(shared),
        }
    }

    /// The halves. Each can go to a thread of its own; the ring is closed when the last is dropped.
    ///
    /// Neither can be had twice, so two threads cannot both submit through it, or both reap:
    ///
    /// ```compile_fail
    /// # use liburing_shm::*;
    /// # let ring = Ring::builder(4).build(&Backend::embedded(sq_null::Null).unwrap()).unwrap();
    /// let (_, sq, _) = ring.split();
    /// std::thread::scope(|s| {
    ///     s.spawn(|| sq.submit());
    ///     s.spawn(|| sq.submit());
    /// });
    /// ```
    #[must_use]
    pub fn split(self) -> (Submitter, SubmissionQueue, CompletionQueue) {
        (self.submitter, self.sq, self.cq)
    }

    /// The submitting half.
    pub fn submission(&mut self) -> &mut SubmissionQueue {
        &mut self.sq
    }

    /// The reaping half.
    pub fn completion(&mut self) -> &mut CompletionQueue {
        &mut self.cq
    }

    /// What both halves may do.
    #[must_use]
    pub fn submitter(&self) -> &Submitter {
        &self.submitter
    }

    /// As [`SubmissionQueue::submit`].
    ///
    /// # Errors
    ///
    /// As there.
    #[inline]
    pub fn submit(&mut self) -> Result<u32, Error> {
        self.sq.submit()
    }

    /// As [`SubmissionQueue::submit_and_wait`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn submit_and_wait(&mut self, completions: u32) -> Result<u32, Error> {
        self.sq.submit_and_wait(completions)
    }
}

/// The submitting half. There is one for a ring.
#[derive(Debug)]
pub struct SubmissionQueue {
    producer: Producer<Mapped>,
    pub(crate) shared: Arc<Shared>,
}

impl SubmissionQueue {
    fn new(shared: Arc<Shared>) -> Self {
        // SAFETY: `shared` keeps the mappings, and stays beside the copy. No other view of this ring, which is new, gives slots away.
        let mem = unsafe { shared.mem.copy() };
        Self { producer: Producer::new(mem), shared }
    }

    /// Entries that the queue holds.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.shared.setup.sq_entries
    }

    /// Entries that can be pushed before it is full.
    pub fn room(&self) -> u32 {
        self.producer.room()
    }

    /// Writes an entry. It is not visible to the kernel side before [`SubmissionQueue::submit`].
    ///
    /// The kernel side publishes what it consumed once a batch, so in worker and polling mode an operation's completion can be there
    /// a moment before its place in this queue is free again: make the queue larger than the operations in flight.
    ///
    /// # Errors
    ///
    /// [`PushError::Full`]; [`PushError::TooWide`] for a 128-byte entry on a ring of 64-byte ones.
    // Always inlined: an entry is built field by field, and on its way over the stack would be read back word by word.
    #[inline(always)]
    pub fn push(&mut self, entry: Entry) -> Result<(), PushError> {
        match entry.rest {
            None => Ok(self.producer.push(entry.sqe.to_words())?),
            Some(rest) => self.push_wide(entry.sqe, rest),
        }
    }

    #[inline(never)]
    fn push_wide(&mut self, sqe: Sqe, rest: [u64; 8]) -> Result<(), PushError> {
        if !self.shared.flag(setup_flags::SQE128) {
            return Err(PushError::TooWide);
        }
        Ok(self.producer.push_wide(sqe.to_words(), rest)?)
    }

    /// Writes an entry that carries a raw address.
    ///
    /// ```compile_fail
    /// # use liburing_shm::*;
    /// # let mut ring = Ring::builder(4).build(&Backend::embedded(sq_null::Null).unwrap()).unwrap();
    /// let mut byte = 0u8;
    /// let read = opcode::Read::new(opcode::Target::Device, &mut byte, 1).build();
    /// ring.submission().push(read);
    /// ```
    ///
    /// # Safety
    ///
    /// Until the entry's completion has been reaped, or QUIESCE has returned 0 for the ring, the memory that it leads to (the
    /// bytes, and for a vectored operation the vector, until it is accepted) is valid for what the operation does with it.
    ///
    /// # Errors
    ///
    /// As [`SubmissionQueue::push`].
    #[inline(always)]
    pub unsafe fn push_raw(&mut self, entry: RawEntry) -> Result<(), PushError> {
        self.push(entry.0)
    }

    /// Publishes what was pushed and rings the doorbell if it has to be rung. Returns how many entries were published.
    ///
    /// # Errors
    ///
    /// [`Error::Call`]: `EBADFD` if the ring is broken or not enabled, `ESHUTDOWN` if it was quiesced. The entries are published all
    /// the same: do not push them again; the next submit rings for them too. Entries that have to wait for completion slots are no error.
    #[inline(always)]
    pub fn submit(&mut self) -> Result<u32, Error> {
        let (fresh, ring) = self.publish();
        if ring {
            self.shared.bell().map_err(|errno| Error::Call { what: "submit", errno })?;
        }
        Ok(fresh)
    }

    /// As [`SubmissionQueue::submit`], and then waits, in the same call, until `completions` are there to reap.
    ///
    /// # Errors
    ///
    /// As [`SubmissionQueue::submit`]; `EINTR` if a signal ended the wait, `EBUSY` if completions have to be reaped before more can come,
    /// `ESHUTDOWN` if the ring was quiesced.
    pub fn submit_and_wait(&mut self, completions: u32) -> Result<u32, Error> {
        let (fresh, _) = self.publish();
        // In one call with the doorbell, whether that is needed or not.
        Submitter::enter(&self.shared, &Wait::new(completions))?;
        Ok(fresh)
    }

    /// Whether the kernel side says that it sleeps, or is about to, as of now: NEED_WAKEUP. Where a worker or a polling thread drains, the
    /// next submit rings the doorbell then. A ring that its caller drains is always rung.
    #[must_use]
    pub fn need_wakeup(&self) -> bool {
        self.shared.mem.load_kernel(KernelWord::SqState) & sq_state::NEED_WAKEUP != 0
    }

    /// Publishes what was pushed. Returns how many entries that were, and whether the doorbell has to be rung: for them (BELL-1,
    /// BELL-2), or for earlier ones whose doorbell failed.
    #[inline(always)]
    pub(crate) fn publish(&mut self) -> (u32, bool) {
        let fresh = self.producer.publish();
        let care = self.shared.care.load(Ordering::Relaxed);
        if care == 0 { (fresh, fresh > 0) } else { (fresh, self.needs_doorbell(fresh, care)) }
    }

    /// Whether the doorbell has to be rung, where it is not for every batch.
    #[inline(never)]
    fn needs_doorbell(&self, fresh: u32, care: u32) -> bool {
        if care & OWED != 0 {
            // Every caller rings for what this says, and owes it again if that fails.
            self.shared.care.fetch_and(!OWED, Ordering::Relaxed);
            return true;
        }
        if fresh == 0 {
            return false;
        }
        let wants = self.producer.needs_doorbell();
        if !wants {
            self.shared.avoided.fetch_add(1, Ordering::Relaxed);
        }
        wants
    }

    /// A submitting half that many threads share.
    #[must_use]
    pub fn share(self) -> SharedSubmissionQueue {
        SharedSubmissionQueue(Arc::new(Mutex::new(self)))
    }
}

/// A submitting half that many threads share: entries are pushed and published under one lock, a batch at a time.
#[derive(Clone, Debug)]
pub struct SharedSubmissionQueue(Arc<Mutex<SubmissionQueue>>);

impl SharedSubmissionQueue {
    /// Pushes and publishes a batch, whole or not at all, and rings the doorbell if it has to be rung (outside the lock).
    ///
    /// # Errors
    ///
    /// [`PushError::Full`] if there is no room for the whole batch, which is always if it is longer than the queue; else as
    /// [`SubmissionQueue::submit`].
    pub fn submit(&self, batch: &[Entry]) -> Result<(), Error> {
        let shared = {
            // The queue is whole whatever its last holder did: a push is one store of an index.
            let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let sq = &mut *guard;
            // Whatever may refuse an entry is asked before the first is pushed.
            if !sq.shared.flag(setup_flags::SQE128) && batch.iter().any(|entry| entry.rest.is_some()) {
                return Err(PushError::TooWide.into());
            }
            if (sq.room() as usize) < batch.len() {
                return Err(PushError::Full.into());
            }
            for entry in batch {
                sq.push(*entry)?;
            }
            let (_, ring) = sq.publish();
            if !ring {
                return Ok(());
            }
            Arc::clone(&sq.shared)
        };
        shared.bell().map_err(|errno| Error::Call { what: "submit", errno })
    }
}

/// The reaping half. There is one for a ring.
#[derive(Debug)]
pub struct CompletionQueue {
    consumer: Consumer,
    /// `shared.mem` again, within reach.
    mem: Mapped,
    pub(crate) shared: Arc<Shared>,
}

impl CompletionQueue {
    fn new(shared: Arc<Shared>) -> Self {
        // SAFETY: as in `SubmissionQueue::new`.
        let mem = unsafe { shared.mem.copy() };
        Self { consumer: Consumer::new(), mem, shared }
    }

    /// Completions that are there to reap.
    pub fn ready(&mut self) -> u32 {
        let ready = self.consumer.ready(&self.mem);
        if ready == 0 {
            // Whoever polls may have been told of an entry that waits for this process.
            self.release();
        }
        ready
    }

    /// Takes out what is there now. The slots go back to the kernel side, all at once, when the iterator is dropped.
    #[inline]
    pub fn reap(&mut self) -> Reap<'_> {
        self.consumer.ready(&self.mem);
        let (head, tail) = self.consumer.take_all();
        // SAFETY: the iterator borrows this half, which keeps the mappings.
        let completions = unsafe { self.mem.completions(head, tail) };
        Reap { completions, tail, queue: self }
    }

    /// Takes out one completion. Its slot goes back at once, since nobody knows whether its taker comes again.
    pub(crate) fn pop(&mut self) -> Option<Completion> {
        let words = self.consumer.pop(&self.mem).or_else(|| {
            self.consumer.ready(&self.mem);
            self.consumer.pop(&self.mem)
        });
        self.release();
        words.map(Completion::from_words)
    }

    /// Gives the slots of what was taken out back.
    #[inline]
    fn release(&mut self) {
        if self.consumer.release(&self.mem) {
            self.ring_for_slots();
        }
    }

    #[cold]
    fn ring_for_slots(&self) {
        // The ring waited for slots, or for this process. If it is broken by now, the next submit says so.
        let _ = self.shared.bell();
    }

    /// Asks the kernel side not to signal the eventfd for a while: a hint, for a reaper that is busy reaping anyway. Returns
    /// the completions that are there, which after `suppress_eventfd(false)` must not be overlooked: nobody signals for them.
    pub fn suppress_eventfd(&mut self, suppress: bool) -> u32 {
        let flags = if suppress { cq_flags::EVENTFD_DISABLED } else { 0 };
        self.consumer.hint(&self.mem, flags)
    }

    /// Whether the kernel side has declared the ring broken.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.mem.load_kernel(KernelWord::Broken) != 0
    }
}

impl<'a> IntoIterator for &'a mut CompletionQueue {
    type Item = Completion;
    type IntoIter = Reap<'a>;

    fn into_iter(self) -> Reap<'a> {
        self.reap()
    }
}

/// The completions that were there when it was made. If it is leaked, those that it has not handed out are lost, and none is seen
/// twice; their slots go back with the next ones.
#[derive(Debug)]
pub struct Reap<'a> {
    /// What is left, up to `tail`.
    completions: Completions<'a>,
    tail: u32,
    queue: &'a mut CompletionQueue,
}

impl Iterator for Reap<'_> {
    type Item = Completion;

    #[inline]
    fn next(&mut self) -> Option<Completion> {
        self.completions.next().map(Completion::from_words)
    }
}

impl Drop for Reap<'_> {
    #[inline]
    fn drop(&mut self) {
        self.queue.consumer.give_back(self.tail.wrapping_sub(self.completions.left()));
        self.queue.release();
    }
}

impl Shared {
    /// The pool, if the ring has one.
    pub(crate) fn pool(self: &Arc<Self>) -> Option<Pool> {
        // A safe layer lends slices of the pool, which nobody else may then write.
        if self.pool_taken.load(Ordering::Relaxed) {
            return None;
        }
        let count = u16::try_from(self.setup.buf_count).unwrap_or(u16::MAX);
        Some(Pool::new(self.pool?, count, self.setup.buf_bytes, Arc::clone(self)))
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Blocks on their way through a ring.
//!
//! ```text
//!   Work::next --> read --> Work::read --+--> finished          (one buffer of the ring all the way)
//!                   ^ |                  |        ^
//!                   +-+ short            +--> write --+
//!                                              ^ |    |
//!                                              +-+ short
//! ```
//!
//! The engine keeps as many blocks going as the ring has buffers, in any order. It knows neither files nor checksums: a [`Work`] says
//! what is next and what becomes of the bytes. After an error or a signal it starts nothing more and waits for what is in flight.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use liburing_shm::opcode::Target;
use liburing_shm::safe::{self, Buf, Done, Reap, Submit};
use liburing_shm::{Backend, Errno, Error as RingError, Features, SqStats};
use rustix::process::{Resource, getrlimit};
use serde::Serialize;

use crate::Error;
use crate::files::{Files, Slot};
use crate::ring::{Mode, RingOptions, Shape};
use crate::stop::Stop;

/// What a [`Work`] has for the engine.
#[derive(Debug)]
pub enum Next {
    /// A block to be read.
    Block(Block),
    /// Nothing until some block is finished.
    Wait,
    /// Nothing any more.
    End,
}

/// A block: some bytes of some item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Which item, by the work's own count.
    pub item: usize,
    /// Which block of it.
    pub index: usize,
    /// Where it is read from.
    pub from: Target,
    /// Its first byte.
    pub offset: u64,
    /// Its bytes, at most the ring's block size.
    pub len: u32,
}

/// Where a block is in its course.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Being read.
    Read,
    /// Being written.
    Write,
}

/// What to do: where blocks come from, and what becomes of them.
pub trait Work {
    /// The next block to read.
    ///
    /// # Errors
    ///
    /// Whatever ends the run.
    fn next(&mut self, files: &mut Files) -> Result<Next, Error>;

    /// A block was read, whole. Returns where it is to be written, at the same offset, if anywhere.
    ///
    /// # Errors
    ///
    /// Whatever ends the run.
    fn read(&mut self, block: &Block, bytes: &[u8]) -> Result<Option<Target>, Error>;

    /// A block has had all that was to be done with it.
    ///
    /// # Errors
    ///
    /// Whatever ends the run.
    fn finished(&mut self, block: &Block, files: &mut Files) -> Result<(), Error>;

    /// All blocks that were started are finished, and nobody interrupts.
    ///
    /// # Errors
    ///
    /// What the run ends with.
    fn end(&mut self) -> Result<(), Error>;

    /// The file that a block is read from or written to, for messages.
    fn path(&self, block: &Block, step: Step) -> &Path;
}

/// What a run did.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Counts {
    /// Operations that completed.
    pub operations: u64,
    /// Doorbells: calls of ENTER.
    pub doorbells: u64,
    /// Times that this side slept and was woken for completions.
    pub wakeups: u64,
    /// Seconds it took.
    pub seconds: f64,
}

/// A ring, and the blocks in it.
#[derive(Debug)]
pub struct Engine {
    submit: Submit,
    reap: Reap,
    files: Files,
    flights: Vec<Option<Flight>>,
    idle: Vec<usize>,
    /// Completions that one wait is for, at most.
    batch: u32,
    shape: Shape,
}

#[derive(Debug)]
struct Flight {
    block: Block,
    step: Step,
    to: Option<Target>,
    /// Bytes transferred in this step.
    done: u32,
}

impl Engine {
    /// A ring as asked for.
    ///
    /// # Errors
    ///
    /// [`Error::Ring`] if it cannot be had, [`Error::Refused`] if it makes no sense.
    pub fn new(options: &RingOptions) -> Result<Self, Error> {
        Self::on(&options.backend()?, options)
    }

    /// The same on this backend, whichever was asked for.
    ///
    /// # Errors
    ///
    /// As [`Engine::new`].
    pub fn on(backend: &Backend, options: &RingOptions) -> Result<Self, Error> {
        let (submit, reap) = safe::ring(options.builder()?, backend)?;
        let features = submit.submitter().features();
        if !features.contains(Features::FILES) {
            let why = format!(
                "{} takes no files: use a device of the file driver, or --backend embedded",
                backend.describe()
            );
            return Err(Error::Refused(why));
        }
        let depth = usize::from(options.depth);
        // Files that are done but for their last blocks, and the next ones: each with a place to read and one to write.
        let most = u16::try_from(backend.query()?.max_files).unwrap_or(u16::MAX);
        // A place may take two descriptors of this process: the file's until it is done, and an embedded ring's own. Some are for
        // all else. With fewer places, fewer files are under way at a time.
        let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let afforded = u16::try_from(descriptors.saturating_sub(32) / 2).unwrap_or(u16::MAX).max(4);
        let files = options.depth.saturating_mul(2).saturating_add(4).min(afforded).min(most);
        let files = Files::new(submit.submitter().clone(), files)?;
        Ok(Self {
            submit,
            reap,
            files,
            flights: (0..depth).map(|_| None).collect(),
            idle: (0..depth).rev().collect(),
            // While one half is waited for, the other is worked on.
            batch: (u32::from(options.depth) / 2).max(1),
            shape: Shape::new(options, backend, features),
        })
    }

    /// What ring it is.
    #[must_use]
    pub const fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The ring's table of files.
    pub fn files(&mut self) -> &mut Files {
        &mut self.files
    }

    /// Does all of a work.
    ///
    /// # Errors
    ///
    /// The first error of the work, of an operation or of the ring, or [`Error::Interrupted`]. Nothing is in flight then, unless the
    /// ring itself failed.
    pub fn run(&mut self, work: &mut impl Work, stop: &Stop) -> Result<Counts, Error> {
        let (before, start) = (self.stats()?, Instant::now());
        let mut failure = None;
        let mut ended = false;
        loop {
            if failure.is_none() {
                failure = stop.check().err();
            }
            if failure.is_none() && !ended {
                match self.start(work) {
                    Ok(end) => ended = end,
                    Err(error) => failure = Some(error),
                }
            }
            let inflight = self.flights.len() - self.idle.len();
            if inflight == 0 {
                if failure.is_none() && !ended {
                    failure = Some(Error::Stuck);
                }
                break;
            }
            let mut next = self.exchange(inflight)?;
            while let Some(done) = next {
                if let Err(error) = self.advance(work, done, failure.is_some()) {
                    failure.get_or_insert(error);
                }
                next = self.reap.next();
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        let interrupted = matches!(failure, Some(Error::Interrupted { .. }));
        if !interrupted {
            // First: what was found is so, whatever failed besides.
            work.end()?;
        }
        if let Some(error) = failure {
            return Err(error);
        }
        let after = self.stats()?;
        Ok(Counts {
            operations: after.completions.wrapping_sub(before.completions),
            doorbells: after.doorbells.wrapping_sub(before.doorbells),
            wakeups: after.wakeups.wrapping_sub(before.wakeups),
            seconds,
        })
    }

    /// Flushes a file to stable storage. Nothing may be in flight.
    ///
    /// # Errors
    ///
    /// The operation's, on `path`.
    pub fn fsync(&mut self, slot: &Slot, path: &Path) -> Result<(), Error> {
        self.submit.fsync(slot.target(), 0)?;
        loop {
            wait(&self.submit, 1)?;
            if let Some(done) = self.reap.next() {
                return done.result.map(|_| ()).map_err(|errno| Error::io("flush", path, system(errno)));
            }
        }
    }

    fn stats(&self) -> Result<SqStats, Error> {
        Ok(self.submit.submitter().stats()?)
    }

    /// Starts blocks while there are buffers. Returns whether there are no more blocks.
    fn start(&mut self, work: &mut impl Work) -> Result<bool, Error> {
        while let Some(token) = self.idle.last().copied() {
            let Some(buf) = self.submit.buffer() else { break };
            let block = match work.next(&mut self.files)? {
                Next::Block(block) => block,
                Next::Wait => break,
                Next::End => return Ok(true),
            };
            self.submit.read(block.from, block.offset, buf, block.len, token as u64)?;
            self.idle.pop();
            self.put(token, Flight { block, step: Step::Read, to: None, done: 0 });
        }
        Ok(false)
    }

    /// Submits, and waits until there is something to reap. The first of it, if it did not end early.
    fn exchange(&mut self, inflight: usize) -> Result<Option<Done>, Error> {
        let wanted = self.batch.min(u32::try_from(inflight).unwrap_or(u32::MAX));
        if self.shape.mode == Mode::Caller {
            // One call for both.
            wait(&self.submit, wanted)?;
            return Ok(self.reap.next());
        }
        // Others drain: perhaps no doorbell is needed, and perhaps there is something by now.
        self.submit.submit()?;
        if let Some(done) = self.reap.next() {
            return Ok(Some(done));
        }
        sleep(&self.submit, wanted)?;
        Ok(self.reap.next())
    }

    /// Moves a block on. With `draining` nothing new is started.
    fn advance(&mut self, work: &mut impl Work, done: Done, draining: bool) -> Result<(), Error> {
        let Ok(token) = usize::try_from(done.token) else { return Ok(()) };
        let Some(mut flight) = self.flights.get_mut(token).and_then(Option::take) else { return Ok(()) };
        let buf = done.buf;
        let next = match self.transferred(work, &mut flight, done.result) {
            Ok(()) if draining => Ok(None),
            Ok(()) => self.onward(work, &mut flight, buf, token),
            Err(error) => Err(error),
        };
        match next {
            Ok(Some(())) => {
                self.put(token, flight);
                Ok(())
            }
            Ok(None) => {
                self.idle.push(token);
                Ok(())
            }
            Err(error) => {
                self.idle.push(token);
                Err(error)
            }
        }
    }

    /// Takes an operation's result into account.
    fn transferred(&self, work: &impl Work, flight: &mut Flight, result: Result<u32, Errno>) -> Result<(), Error> {
        let Flight { block, step, .. } = flight;
        let at = block.offset + u64::from(flight.done);
        let error = |source| {
            let what = if *step == Step::Read { "read" } else { "write" };
            Error::Io { what, path: work.path(block, *step).to_owned(), at: Some(at), source }
        };
        match (result, *step) {
            (Err(Errno::EINTR), _) => Ok(()),
            (Err(errno), _) => Err(error(system(errno))),
            (Ok(0), Step::Read) => Err(error(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "it ends here, and was longer at first: it was changed meanwhile; try again",
            ))),
            (Ok(0), Step::Write) => Err(error(io::ErrorKind::WriteZero.into())),
            (Ok(bytes), _) => {
                flight.done = flight.done.saturating_add(bytes).min(block.len);
                Ok(())
            }
        }
    }

    /// Starts what comes next for a block. `None`: it is finished.
    fn onward(
        &mut self,
        work: &mut impl Work,
        flight: &mut Flight,
        buf: Option<Buf>,
        token: usize,
    ) -> Result<Option<()>, Error> {
        // The engine gives every operation of a block a buffer.
        let Some(buf) = buf else { return Err(RingError::Push(liburing_shm::PushError::NoBuffer).into()) };
        let block = flight.block;
        if flight.done == block.len && flight.step == Step::Read {
            flight.to = work.read(&block, buf.get(..block.len as usize).unwrap_or(&[]))?;
            flight.step = Step::Write;
            flight.done = if flight.to.is_some() { 0 } else { block.len };
        }
        if flight.done == block.len {
            drop(buf);
            work.finished(&block, &mut self.files)?;
            return Ok(None);
        }
        let (offset, at, left) = (block.offset + u64::from(flight.done), flight.done, block.len - flight.done);
        match flight.to {
            Some(to) => self.submit.write_at(to, offset, buf, at, left, token as u64)?,
            None => self.submit.read_at(block.from, offset, buf, at, left, token as u64)?,
        }
        Ok(Some(()))
    }

    fn put(&mut self, token: usize, flight: Flight) {
        if let Some(place) = self.flights.get_mut(token) {
            *place = Some(flight);
        }
    }
}

/// Submits and waits, in one call.
pub(crate) fn wait(submit: &Submit, completions: u32) -> Result<(), Error> {
    ended(submit.submit_and_wait(completions))
}

/// Waits, after a submit.
fn sleep(submit: &Submit, completions: u32) -> Result<(), Error> {
    // With a time limit only so that a signal is noticed on a ring whose device does not answer.
    let wait = liburing_shm::Wait::new(completions).timeout(Duration::from_millis(200));
    ended(submit.submitter().wait(&wait))
}

/// A wait that ended early is no failure: the caller looks at what there is.
fn ended(waited: Result<u32, RingError>) -> Result<(), Error> {
    match waited {
        Err(RingError::Call { errno: Errno::EINTR | Errno::ETIME | Errno::EBUSY, .. }) => Ok(()),
        waited => waited.map(|_| ()).map_err(Error::Ring),
    }
}

/// The system's error of this number.
pub(crate) fn system(errno: Errno) -> io::Error {
    io::Error::from_raw_os_error(errno.raw())
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What any holder of a part of a ring may do: wait, register, cancel, quiesce, look.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sq_uapi::consts::{enter_flags, register_op};
use sq_uapi::flags::{CancelFlags, Features};
use sq_uapi::structs::Argument;
use sq_uapi::{Errno, SqCancel, SqEnter, SqQuiesce, SqRegister, SqSetup, SqStats, ioctl};

use crate::call::bytes_of_mut;
use crate::device::issue;
use crate::entry::Entry;
use crate::error::Error;
use crate::pool::Pool;
use crate::queue::Shared;

/// How to wait.
#[derive(Clone, Copy, Debug)]
pub struct Wait(SqEnter);

impl Wait {
    /// Until `completions` are there to reap.
    #[must_use]
    pub fn new(completions: u32) -> Self {
        Self(SqEnter { size: size_of::<SqEnter>() as u32, min_complete: completions, ..SqEnter::default() })
    }

    /// But no longer than this.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.0.flags |= enter_flags::TIMEOUT;
        self.0.timeout_ns = nanos(timeout);
        self
    }

    /// After this time, one completion is enough.
    #[must_use]
    pub fn min_wait(mut self, min_wait: Duration) -> Self {
        self.0.flags |= enter_flags::MIN_WAIT;
        self.0.min_wait_ns = nanos(min_wait);
        self
    }

    /// Also until nothing is in flight and nothing is left to accept.
    #[must_use]
    pub fn or_idle(mut self) -> Self {
        self.0.flags |= enter_flags::WAIT_IDLE;
        self
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// A handle on a ring for everything but its queues. Cheap to clone, usable from any thread.
#[derive(Clone, Debug)]
pub struct Submitter(Arc<Shared>);

impl Submitter {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    pub(crate) fn enter(shared: &Shared, wait: &Wait) -> Result<u32, Error> {
        let mut enter = wait.0;
        shared.rung.fetch_add(1, Ordering::Relaxed);
        let call = |errno| Error::Call { what: "enter", errno };
        let called = shared.door.call(ioctl::ENTER, bytes_of_mut(&mut enter));
        if called.is_err() {
            shared.owe();
        }
        called.map_err(call)?;
        Errno::from_res(enter.wait_result).map_err(|errno| Error::Call { what: "wait", errno })?;
        Ok(enter.consumed)
    }

    pub(crate) fn bell(&self) -> Result<(), Error> {
        self.0.bell().map_err(|errno| Error::Call { what: "submit", errno })
    }

    fn call<T: Argument>(&self, what: &'static str, number: u32, mut arg: T) -> Result<(u32, T), Error> {
        let done = self.0.door.call(number, bytes_of_mut(&mut arg));
        done.map(|n| (n, arg)).map_err(|errno| Error::Call { what, errno })
    }

    /// Rings the doorbell and waits. Returns the entries that this call consumed.
    ///
    /// # Errors
    ///
    /// `ETIME` when the time is up, `EINTR` on a signal (a module's ring; an embedded wait goes on), `EBUSY` if completions have to be reaped before more can come, `EBADFD` if the
    /// ring is broken, `ESHUTDOWN` if it was quiesced.
    pub fn wait(&self, wait: &Wait) -> Result<u32, Error> {
        Self::enter(&self.0, wait)
    }

    /// Issues one entry past the queues, and waits for its result: [`Device::issue`](crate::Device::issue), with the opcodes that this
    /// ring allows.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn issue(&self, entry: &Entry) -> Result<u32, Errno> {
        issue(&*self.0.door, entry)
    }

    /// Registers files: from then on index n of them is [`Target::Fixed`](crate::opcode::Target::Fixed)`(n)`. The ring has its own
    /// reference to each; they may be closed.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` if the driver takes no files, `EBUSY` if there are registered files already, `EINVAL` if there are too many, `EBADF` if
    /// one is refused, `EMFILE` if the embedded backend can open no more.
    pub fn register_files(&self, files: &[BorrowedFd<'_>]) -> Result<(), Error> {
        let fds: Vec<i32> = files.iter().map(|fd| fd.as_raw_fd()).collect();
        self.register_array("register files", register_op::FILES, 0, &fds)
    }

    /// Registers a table of `count` places with no file in them yet, for [`Submitter::update_files`] to fill.
    ///
    /// # Errors
    ///
    /// As [`Submitter::register_files`].
    pub fn register_files_sparse(&self, count: u16) -> Result<(), Error> {
        self.register_array("register files", register_op::FILES, 0, &vec![-1i32; usize::from(count)])
    }

    /// Replaces registered files from index `first`. `None` leaves a place empty.
    ///
    /// # Errors
    ///
    /// `ENXIO` if there are none, `EINVAL` if there are not as many, `EBADF` or `EMFILE` if one is refused: those before it have been
    /// replaced then, and it and those behind it have not.
    pub fn update_files(&self, first: u32, files: &[Option<BorrowedFd<'_>>]) -> Result<(), Error> {
        let fds: Vec<i32> = files.iter().map(|fd| fd.map_or(-1, |fd| fd.as_raw_fd())).collect();
        let mut rest = &fds[..];
        let mut at = first;
        loop {
            // A call says why its first file is refused; of a later one, only how many came before it.
            let n = self.register_some("update files", register_op::FILES_UPDATE, at, rest)?;
            // It says why of the first, so it has replaced one.
            let n = n.max(1);
            at = at.saturating_add(n);
            rest = rest.get(n as usize..).unwrap_or(&[]);
            if rest.is_empty() {
                return Ok(());
            }
        }
    }

    /// Forgets the registered files. Requests in flight keep theirs.
    ///
    /// # Errors
    ///
    /// `ENXIO` if there are none.
    pub fn unregister_files(&self) -> Result<(), Error> {
        self.register("unregister files", register_op::UNREGISTER_FILES)
    }

    /// Has `eventfd` signalled once for each batch of completions.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is no eventfd, `EBUSY` if there is one already.
    pub fn register_eventfd(&self, eventfd: BorrowedFd<'_>) -> Result<(), Error> {
        self.register_array("register eventfd", register_op::EVENTFD, 0, &[eventfd.as_raw_fd()])
    }

    /// Forgets the eventfd.
    ///
    /// # Errors
    ///
    /// `ENXIO` if there is none.
    pub fn unregister_eventfd(&self) -> Result<(), Error> {
        self.register("unregister eventfd", register_op::UNREGISTER_EVENTFD)
    }

    /// Refuses, from now on and for good, every opcode n whose bit n is not in `allowed`.
    ///
    /// # Errors
    ///
    /// `EBUSY` while another thread is submitting, or the ring's own is draining: it may be tried again. A polling thread drains as long as
    /// it is awake; a ring that should have one restricts itself while it is [`disabled`](crate::Builder::disabled).
    pub fn allow_opcodes(&self, allowed: u64) -> Result<(), Error> {
        self.register_array("allow opcodes", register_op::ALLOW_OPCODES, 0, &[allowed])
    }

    /// Enables a ring that was built [`disabled`](crate::Builder::disabled).
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is enabled; `EXDEV` from another process than the one that built it, if it was ever mapped there.
    pub fn enable(&self) -> Result<(), Error> {
        self.register("enable", register_op::ENABLE_RINGS)
    }

    fn register(&self, what: &'static str, op: u32) -> Result<(), Error> {
        self.register_array::<u8>(what, op, 0, &[])
    }

    fn register_array<T>(&self, what: &'static str, op: u32, offset: u32, items: &[T]) -> Result<(), Error> {
        self.register_some(what, op, offset, items).map(|_| ())
    }

    /// How many of the items were registered, of an operation that may stop between two.
    fn register_some<T>(&self, what: &'static str, op: u32, offset: u32, items: &[T]) -> Result<u32, Error> {
        let reg = SqRegister {
            size: size_of::<SqRegister>() as u32,
            op,
            arg: if items.is_empty() { 0 } else { items.as_ptr().expose_provenance() as u64 },
            nr: u32::try_from(items.len()).unwrap_or(u32::MAX),
            offset,
            resv: [0; 2],
        };
        self.call(what, ioctl::REGISTER, reg).map(|(n, _)| n)
    }

    /// Cancels requests without an entry: on a full or blocked ring too. Returns how many with `ALL` or `ANY`, else 0.
    ///
    /// # Errors
    ///
    /// `ENOENT` if nothing matches, `EALREADY` if it was canceled before or is completing.
    pub fn cancel(&self, flags: CancelFlags, user_data: u64, opcode: u8) -> Result<u32, Error> {
        let cancel = SqCancel {
            size: size_of::<SqCancel>() as u32,
            flags: flags.bits(),
            user_data,
            opcode: u32::from(opcode),
            ..SqCancel::default()
        };
        self.call("cancel", ioctl::CANCEL, cancel).map(|(n, _)| n)
    }

    /// Accepts nothing more, cancels what is in flight and waits until no request can touch this process's memory any more. There is no
    /// way back.
    ///
    /// # Errors
    ///
    /// `ETIME` if requests are still in flight after `timeout`, `EINTR` on a signal (a module's ring); it may be called again.
    pub fn quiesce(&self, timeout: Duration) -> Result<(), Error> {
        let quiesce =
            SqQuiesce { size: size_of::<SqQuiesce>() as u32, timeout_ns: nanos(timeout), ..SqQuiesce::default() };
        self.call("quiesce", ioctl::QUIESCE, quiesce).map(|_| ())
    }

    /// The kernel side's counters.
    ///
    /// # Errors
    ///
    /// None are known for a ring that was set up.
    pub fn stats(&self) -> Result<SqStats, Error> {
        let stats = SqStats { size: size_of::<SqStats>() as u32, ..SqStats::default() };
        self.call("stats", ioctl::STATS, stats).map(|(_, stats)| stats)
    }

    /// Doorbells that this side rang, and submissions that needed none.
    #[must_use]
    pub fn doorbells(&self) -> (u64, u64) {
        (self.0.rung.load(Ordering::Relaxed), self.0.avoided.load(Ordering::Relaxed))
    }

    /// What was set up: sizes, regions, offsets.
    #[must_use]
    pub fn setup(&self) -> &SqSetup {
        &self.0.setup
    }

    /// The ring's features.
    #[must_use]
    pub fn features(&self) -> Features {
        Features::from_bits_truncate(self.0.setup.features)
    }

    /// The ring's buffers, if it was built with any.
    #[must_use]
    pub fn pool(&self) -> Option<Pool> {
        self.0.pool()
    }

    /// A call with any bytes whatever, for tests of the kernel side.
    ///
    /// # Safety
    ///
    /// As for the call that `number` names: what addresses in `arg` lead to is valid for it, and no ring memory that this process
    /// uses is disturbed. `arg.len()` is at least what the argument's own size field says.
    ///
    /// # Errors
    ///
    /// The call's.
    pub unsafe fn raw_call(&self, number: u32, arg: &mut [u8]) -> Result<u32, Errno> {
        self.0.door.call(number, arg)
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the driver needs of its home.

use sq_driver::{Errno, Payload, Request, RequestId};

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Fill the payload from the file.
    Read,
    /// Write the payload to the file.
    Write,
    /// Flush data and metadata.
    Sync,
    /// Flush data, and what metadata is needed to read it.
    DataSync,
}

/// One operation on a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Io {
    /// What is to be done.
    pub what: What,
    /// The file, as in [`Op::target`](sq_driver::Op::target): valid while the operation or its request is.
    pub target: usize,
    /// Byte offset in the file, at most `i64::MAX`.
    pub off: u64,
}

/// How far an operation came at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Now {
    /// It is done; so many bytes were transferred.
    Done(usize),
    /// The rest would wait; so many bytes were transferred before it.
    Rest(usize),
}

/// An operation that goes on after `issue`. Whoever holds it completes it.
#[derive(Debug)]
#[must_use = "a dropped job completes with -EIO"]
pub struct Job<F> {
    /// What is completed in the end.
    pub request: Request,
    /// The operation.
    pub io: Io,
    /// What [`Files::look`] found.
    pub file: F,
    /// Bytes of the payload that are transferred already: the rest goes on behind them, never over them again.
    pub done: usize,
}

impl<F> Job<F> {
    /// Completes the request. `rest` is what became of the bytes behind [`Job::done`]; an error counts only if nothing was
    /// transferred before it, as for any transfer that ends early.
    pub fn complete(self, rest: Result<usize, Errno>) {
        let Self { request, done, .. } = self;
        request.complete(match rest {
            Ok(more) => transferred(done.saturating_add(more)),
            Err(errno) if done == 0 => Err(errno),
            Err(_) => transferred(done),
        });
    }
}

/// The framework refuses transfers that are longer than an i32.
pub(crate) fn transferred(bytes: usize) -> Result<i32, Errno> {
    i32::try_from(bytes).map_err(|_| Errno::EIO)
}

/// Where files are reached: the system calls of a process, or the VFS.
///
/// An implementation takes care that one slow file does not delay another's operations.
pub trait Files: Send + Sync + 'static {
    /// What is known of a file, for as long as one operation on it lasts.
    type File: Send + 'static;

    /// Finds out what `target` is, for an operation of this kind. Does not wait.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` if it is neither a regular file nor a block device.
    fn look(&self, target: usize, what: What) -> Result<Self::File, Errno>;

    /// Does as much of the operation as can be done without waiting; nothing of it, if that is hard to know.
    ///
    /// # Errors
    ///
    /// The operation's, if nothing was transferred.
    fn now(&self, io: &Io, file: &Self::File, payload: &Payload<'_>) -> Result<Now, Errno>;

    /// Does the rest, and completes the request when it is done. Does not wait.
    fn later(&self, job: Job<Self::File>);

    /// Completes the job of this request with `-ECANCELED` if it has not been started. Does not wait.
    ///
    /// What has been started is bounded, as I/O on such files is, and completes with its own result.
    fn cancel(&self, id: RequestId);
}

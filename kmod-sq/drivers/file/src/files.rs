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

/// One operation on a file, in progress: while this exists its file is open and its memory is lent to it.
///
/// Only the driver makes one, of an operation that it holds: so the parts belong together, and a safe function may act on it.
#[derive(Debug)]
pub struct Io<'a> {
    what: What,
    target: usize,
    off: u64,
    payload: Payload<'a>,
}

impl<'a> Io<'a> {
    /// The parts are those of one operation.
    pub(crate) const fn new(what: What, target: usize, off: u64, payload: Payload<'a>) -> Self {
        Self { what, target, off, payload }
    }

    /// What is to be done.
    #[must_use]
    pub const fn what(&self) -> What {
        self.what
    }

    /// The file, as in [`Op::target`](sq_driver::Op::target).
    #[must_use]
    pub const fn target(&self) -> usize {
        self.target
    }

    /// Byte offset in the file, at most `i64::MAX`.
    #[must_use]
    pub const fn off(&self) -> u64 {
        self.off
    }

    /// All bytes of the operation, those transferred already included.
    #[must_use]
    pub const fn payload(&self) -> &Payload<'a> {
        &self.payload
    }

    /// The bytes, for a home that copies them by the cursor.
    #[must_use]
    pub const fn into_payload(self) -> Payload<'a> {
        self.payload
    }
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
///
/// Only the driver makes one:
///
/// ```compile_fail,E0451
/// use sq_file::Job;
///
/// fn pair(request: sq_driver::Request, other: Job<()>) -> Job<()> {
///     Job { request, ..other }
/// }
/// ```
#[derive(Debug)]
#[must_use = "a dropped job completes with -EIO"]
pub struct Job<F> {
    request: Request,
    what: What,
    off: u64,
    file: F,
    done: usize,
}

impl<F> Job<F> {
    /// `what` and `off` are those of the request's operation.
    pub(crate) const fn new(request: Request, what: What, off: u64, file: F, done: usize) -> Self {
        Self { request, what, off, file, done }
    }

    /// The id that [`Files::cancel`] will name.
    #[must_use]
    pub fn id(&self) -> RequestId {
        self.request.id()
    }

    /// The operation, as it was at [`Files::now`].
    #[must_use]
    pub fn io(&mut self) -> Io<'_> {
        let target = self.request.target();
        Io::new(self.what, target, self.off, self.request.payload())
    }

    /// What [`Files::look`] found.
    #[must_use]
    pub const fn file(&self) -> &F {
        &self.file
    }

    /// Bytes of the payload that are transferred already: the rest goes on behind them, never over them again.
    #[must_use]
    pub const fn done(&self) -> usize {
        self.done
    }

    /// The parts, for a home that keeps jobs in its own way: the request, what is to be done with it at which offset, and the bytes
    /// that are done. Whoever has them completes the request as [`Job::complete`] does.
    #[must_use = "whoever has the request completes it"]
    pub fn into_parts(self) -> (Request, What, u64, usize) {
        (self.request, self.what, self.off, self.done)
    }

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

    /// Finds out what the operation's target is. Does not wait.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` if it is neither a regular file nor a block device, or if operations on it might never end.
    fn look(&self, io: &Io<'_>) -> Result<Self::File, Errno>;

    /// Does as much of the operation as can be done without waiting; nothing of it, if that is hard to know.
    ///
    /// # Errors
    ///
    /// The operation's, if nothing was transferred.
    fn now(&self, io: &Io<'_>, file: &Self::File) -> Result<Now, Errno>;

    /// Does the rest, and completes the request when it is done. Does not wait.
    fn later(&self, job: Job<Self::File>);

    /// Completes the job of this request with `-ECANCELED` if it has not been started. Does not wait.
    ///
    /// What has been started is bounded, as I/O on such files is, and completes with its own result.
    fn cancel(&self, id: RequestId);
}

/// File systems of files that are calls to the kernel: a read of one may wait for an event that never comes (`/proc/kmsg`,
/// `trace_pipe`), and a write may mean something else in a worker's namespaces than in its caller's (`cgroup.procs`). `linux/magic.h`
/// has the numbers, but those of functionfs and gadgetfs.
const CALLS: [u64; 19] = [
    0x9fa0,      // PROC_SUPER_MAGIC
    0x6265_6572, // SYSFS_MAGIC
    0x7472_6163, // TRACEFS_MAGIC
    0x6462_6720, // DEBUGFS_MAGIC
    0x7363_6673, // SECURITYFS_MAGIC
    0xcafe_4a11, // BPF_FS_MAGIC
    0x6265_6570, // CONFIGFS_MAGIC
    0xabba_1974, // XENFS_SUPER_MAGIC
    0x0a64_7361, // FUNCTIONFS_MAGIC
    0xaee7_1ee7, // GADGETFS_MAGIC
    0x0904_1934, // ANON_INODE_FS_MAGIC: on some kernels these are regular files by their mode
    0x0027_e0eb, // CGROUP_SUPER_MAGIC
    0x6367_7270, // CGROUP2_SUPER_MAGIC
    0x0765_5821, // RDTGROUP_SUPER_MAGIC
    0xf97c_ff8c, // SELINUX_MAGIC
    0x4341_5d53, // SMACK_MAGIC
    0x4249_4e4d, // BINFMTFS_MAGIC
    0xde5e_81e4, // EFIVARFS_MAGIC
    0x6e73_6673, // NSFS_MAGIC
];

/// Whether a file system of this kind (`f_type` of `statfs`) has files that are calls to the kernel: these are refused.
#[must_use]
pub fn holds_calls(magic: u64) -> bool {
    CALLS.contains(&magic)
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The driver.

use sq_driver::{Driver, Entry, Errno, Issued, Op, Opcodes, RequestId, fsync_flags, op};

use crate::files::{Files, Io, Job, Now, What, transferred};

/// The driver of files that are reached through `H`.
#[derive(Debug)]
pub struct File<H>(H);

impl<H: Files> File<H> {
    /// A driver of these files.
    #[must_use]
    pub const fn new(files: H) -> Self {
        Self(files)
    }

    /// What an operation came to without waiting: a result, or what the job that does the rest starts from.
    fn start(&self, what: What, op: &mut Op<'_>) -> Result<Started<H::File>, Errno> {
        let entry = *op.entry();
        if i64::try_from(entry.off()).is_err() {
            return Err(Errno::EINVAL);
        }
        let target = op.target();
        let io = Io::new(what, target, entry.off(), op.payload());
        let file = self.0.look(&io)?;
        if entry.wants_async() {
            return Ok(Started::Rest(file, 0));
        }
        match self.0.now(&io, &file)? {
            Now::Done(bytes) => transferred(bytes).map(Started::Done),
            Now::Rest(done) => Ok(Started::Rest(file, done)),
        }
    }
}

enum Started<F> {
    Done(i32),
    Rest(F, usize),
}

fn what(entry: &Entry) -> Result<What, Errno> {
    match entry.opcode() {
        op::READ | op::READV | op::READ_FIXED => Ok(What::Read),
        op::WRITE | op::WRITEV | op::WRITE_FIXED => Ok(What::Write),
        op::FSYNC if entry.op_flags() & fsync_flags::DATASYNC != 0 => Ok(What::DataSync),
        op::FSYNC => Ok(What::Sync),
        _ => Err(Errno::EOPNOTSUPP),
    }
}

impl<H: Files> Driver for File<H> {
    const NAME: &'static core::ffi::CStr = c"file";
    const OPCODES: Opcodes = Opcodes::NONE
        .with(op::READ)
        .with(op::WRITE)
        .with(op::READV)
        .with(op::WRITEV)
        .with(op::READ_FIXED)
        .with(op::WRITE_FIXED)
        .with(op::FSYNC);
    const FILES: bool = true;

    fn issue<'op>(&self, mut op: Op<'op>) -> Issued<'op> {
        let what = match what(op.entry()) {
            Ok(what) => what,
            Err(errno) => return op.fail(errno),
        };
        match self.start(what, &mut op) {
            Ok(Started::Done(res)) => op.done(res),
            Ok(Started::Rest(file, done)) => {
                let off = op.entry().off();
                let (request, issued) = op.defer();
                self.0.later(Job::new(request, what, off, file, done));
                issued
            }
            Err(errno) => op.fail(errno),
        }
    }

    fn cancel(&self, id: RequestId) {
        self.0.cancel(id);
    }
}

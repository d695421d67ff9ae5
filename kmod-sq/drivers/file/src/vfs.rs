// SPDX-License-Identifier: MIT OR Apache-2.0
//! The files of sq_file.ko: those of the VFS, which its C half reaches.

use sq_driver::abi::{RawPayload, RawRequest};
use sq_driver::{Errno, RequestId};

use crate::{File, Files, Io, Job, Now, What, holds_calls};

// kernel/file.h says what they do. `file` is a `struct file *` that the caller's operation keeps open.
unsafe extern "C" {
    fn sq_file_look(file: usize, magic: *mut u64) -> i32;
    fn sq_file_bytes(file: usize) -> u64;
    fn sq_file_read_now(file: usize, off: u64, payload: *const RawPayload) -> i32;
    fn sq_file_later(request: *mut RawRequest, what: u32, off: u64, done: usize);
    fn sq_file_cancel(id: u64);
}

struct Vfs;

impl Files for Vfs {
    type File = ();

    fn look(&self, io: &Io<'_>) -> Result<(), Errno> {
        let mut magic = 0;
        // SAFETY: an `Io` is an operation in progress, so its file is open.
        let looked = unsafe { sq_file_look(io.target(), &raw mut magic) };
        Errno::from_res(looked)?;
        if holds_calls(magic) { Err(Errno::EOPNOTSUPP) } else { Ok(()) }
    }

    fn now(&self, io: &Io<'_>, (): &()) -> Result<Now, Errno> {
        if io.what() != What::Read {
            return Ok(Now::Rest(0));
        }
        // SAFETY: as in `look`; the payload is the operation's, which runs with the ring's mm.
        let read = unsafe { sq_file_read_now(io.target(), io.off(), io.payload().raw()) };
        let done = match Errno::from_res(read) {
            Err(Errno::EAGAIN) => return Ok(Now::Rest(0)),
            read => read?,
        };
        let bytes = u64::from(done);
        // SAFETY: as in `look`.
        let size = unsafe { sq_file_bytes(io.target()) };
        // Short of both, the rest would wait.
        let ended = done == 0 || bytes >= io.payload().left() || io.off().saturating_add(bytes) >= size;
        let done = usize::try_from(done).map_err(|_| Errno::EIO)?;
        Ok(if ended { Now::Done(done) } else { Now::Rest(done) })
    }

    fn later(&self, job: Job<()>) {
        let (request, what, off, done) = job.into_parts();
        let what = match what {
            What::Read => 0,
            What::Write => 1,
            What::Sync => 2,
            What::DataSync => 3,
        };
        // SAFETY: the request is handed over, and C completes it; the numbers are those of its operation.
        unsafe { sq_file_later(request.into_raw(), what, off, done) };
    }

    fn cancel(&self, id: RequestId) {
        // SAFETY: any id will do.
        unsafe { sq_file_cancel(id.raw()) };
    }
}

sq_driver::declare_driver!(File<Vfs>, File::new(Vfs));

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where a copy goes.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, FallocateFlags, OFlags, access, fallocate, statvfs};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use crate::Error;
use crate::scratch::{Partial, parent};
use crate::stop::Stop;
use crate::verify::{Source, device_bytes, kind};

/// Permission bits that are copied: not set-user-id and its like.
const MODE_BITS: u32 = 0o777;

/// A destination being written.
#[derive(Debug)]
pub(super) struct Target {
    /// Its name at the end.
    path: PathBuf,
    file: File,
    /// What it is called until then, if it is a regular file.
    partial: Option<Partial>,
    /// Where it gets its name, if that is to be flushed. Opened before anything is written, since who may write there may not be allowed to.
    dir: Option<File>,
}

impl Target {
    /// Opens what `path` names, or a partial file beside it, for a copy of `source`.
    pub(super) fn open(path: &Path, source: &Source, sync: bool) -> Result<Self, Error> {
        let there = match fs::metadata(path) {
            Ok(meta) => Some(meta),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(Error::io("look at", path, error)),
        };
        let Some(meta) = there else {
            if fs::symlink_metadata(path).is_ok() {
                return Err(Error::Refused(format!(
                    "{} is a symbolic link to nothing: name its target",
                    path.display()
                )));
            }
            // `Path` forgets what only a directory may end in, and the rename at the end does not.
            if [&b"/"[..], b"/."].iter().any(|end| path.as_os_str().as_bytes().ends_with(end)) {
                let why = format!("there is no directory {}: make it, or name the file", path.display());
                return Err(Error::Refused(why));
            }
            return Self::regular(path.to_owned(), sync);
        };
        if meta.is_dir() {
            let name = source.path.file_name().unwrap_or_default();
            let why = format!("{} is a directory: name the file, as {}", path.display(), path.join(name).display());
            return Err(Error::Refused(why));
        }
        let device = kind(path, &meta)?;
        let same_device = device && source.device && meta.rdev() == source.meta.rdev();
        if same_device || (meta.dev() == source.meta.dev() && meta.ino() == source.meta.ino()) {
            return Err(Error::Refused(format!("{} and {} are the same file", source.path.display(), path.display())));
        }
        if device {
            return Self::device(path, source.bytes);
        }
        // A rename would replace a write-protected file all the same; cp would not.
        access(path, Access::WRITE_OK).map_err(|errno| Error::os("replace", path, errno))?;
        // Of a symbolic link, the file that it leads to is replaced, and not the link.
        Self::regular(fs::canonicalize(path).map_err(|error| Error::io("find", path, error))?, sync)
    }

    fn regular(path: PathBuf, sync: bool) -> Result<Self, Error> {
        let dir = parent(&path);
        let meta = fs::metadata(dir).map_err(|error| Error::io("find the directory", dir, error))?;
        if !meta.is_dir() || path.file_name().is_none() {
            return Err(Error::Refused(format!(
                "{} cannot be a file: {} is no directory",
                path.display(),
                dir.display()
            )));
        }
        let open = || File::open(dir).map_err(|error| Error::io("open, to flush it later, the directory", dir, error));
        let dir = sync.then(open).transpose()?;
        let (partial, file) = Partial::beside(&path)?;
        Ok(Self { path, file, partial: Some(partial), dir })
    }

    fn device(path: &Path, needs: u64) -> Result<Self, Error> {
        // O_EXCL on a block device: fails if it is mounted or otherwise claimed.
        let excl = i32::try_from(OFlags::EXCL.bits()).unwrap_or(0);
        let file = OpenOptions::new().read(true).write(true).custom_flags(excl).open(path);
        let mut file = file.map_err(|error| Error::io("open the device", path, error))?;
        let has = device_bytes(path, &mut file)?;
        if has < needs {
            return Err(Error::ShortDevice { path: path.to_owned(), has, needs });
        }
        Ok(Self { path: path.to_owned(), file, partial: None, dir: None })
    }

    pub(super) const fn file(&self) -> &File {
        &self.file
    }

    /// Its name for now.
    pub(super) fn path(&self) -> &Path {
        self.partial.as_ref().map_or(&self.path, Partial::path)
    }

    /// Reserves room, so that a full disk is known before anything is written. The size stays: should the machine stop soon, the file does
    /// not look complete yet.
    pub(super) fn reserve(&self, bytes: u64, stop: &Stop) -> Result<(), Error> {
        if self.partial.is_none() || bytes == 0 {
            return Ok(());
        }
        // Which the system asks about only if the size changes.
        if getrlimit(Resource::Fsize).current.is_some_and(|limit| bytes > limit) {
            return Err(Error::os("reserve room for", &self.path, Errno::FBIG));
        }
        loop {
            return match fallocate(&self.file, FallocateFlags::KEEP_SIZE, 0, bytes) {
                // Not every filesystem can; then it is known when it happens.
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
                Err(Errno::NOSPC | Errno::DQUOT) => Err(self.no_space(bytes)),
                // Memory filesystems give up at any signal.
                Err(Errno::INTR) => {
                    stop.check()?;
                    continue;
                }
                Err(errno) => Err(Error::os("reserve room for", &self.path, errno)),
            };
        }
    }

    fn no_space(&self, needs: u64) -> Error {
        let free = statvfs(parent(&self.path)).ok().map(|fs| fs.f_bavail.saturating_mul(fs.f_frsize));
        Error::NoSpace { path: self.path.clone(), needs, free }
    }

    /// Says more about some errors.
    pub(super) fn explain(&self, error: Error, needs: u64) -> Error {
        match error {
            Error::Io { what: "write", source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                self.no_space(needs)
            }
            error => error,
        }
    }

    /// All is written: gives a regular file its size and mode.
    pub(super) fn finish(&self, bytes: u64, mode: u32) -> Result<(), Error> {
        if self.partial.is_none() {
            return Ok(());
        }
        let failed = |error| Error::io("set size and mode of", &self.path, error);
        self.file.set_len(bytes).map_err(failed)?;
        self.file.set_permissions(Permissions::from_mode(mode & MODE_BITS)).map_err(failed)
    }

    /// It is complete.
    pub(super) fn publish(self) -> Result<(), Error> {
        let Some(partial) = self.partial else { return Ok(()) };
        partial.publish(&self.path)?;
        // The name, too.
        let synced = self.dir.map_or(Ok(()), |dir| dir.sync_all());
        synced.map_err(|error| Error::io("make durable the name of the complete copy", &self.path, error))
    }

    /// It will not be complete: removes a partial file. Returns the error with what is left said in it.
    pub(super) fn abandon(self, error: Error, copied: u64) -> Error {
        if self.partial.is_none() {
            return Error::Incomplete { path: self.path, copied, cause: Box::new(error) };
        }
        match error {
            Error::Interrupted { signal, .. } => {
                let left = format!("the partial copy was removed, {} is as it was", self.path.display());
                Error::Interrupted { signal, left }
            }
            error => error,
        }
    }
}

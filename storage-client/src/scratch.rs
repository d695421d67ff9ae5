// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names that nobody uses yet, and what is removed when it is no longer needed.

use std::ffi::OsString;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::Error;

/// Tries before a name is given up: each has one chance in four billion to be in use.
const TRIES: u32 = 16;

/// A name as long as this leaves no room for what is appended.
const NAME_BYTES: usize = 200;

/// `PREFIX-XXXXXXXX`, with digits that nobody can predict.
fn name(prefix: &[u8]) -> OsString {
    let mut name = prefix.to_vec();
    name.extend_from_slice(format!("-{:08x}", RandomState::new().hash_one(0u8) as u32).as_bytes());
    OsString::from_vec(name)
}

/// Calls `make` with names until one is free.
fn fresh<T>(prefix: &[u8], dir: &Path, mut make: impl FnMut(&Path) -> io::Result<T>) -> Result<(PathBuf, T), Error> {
    let mut tries = 0;
    loop {
        let path = dir.join(name(prefix));
        tries += 1;
        match make(&path) {
            Ok(made) => return Ok((path, made)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && tries < TRIES => {}
            Err(error) => return Err(Error::io("create", path, error)),
        }
    }
}

/// A directory that is removed with all that is in it, unless it is kept.
#[derive(Debug)]
pub(crate) struct Dir {
    path: PathBuf,
    keep: bool,
}

impl Dir {
    /// A new one in `parent`, for this user only.
    pub(crate) fn new(parent: &Path, keep: bool) -> Result<Self, Error> {
        let (path, ()) = fresh(b"sq-store", parent, |path| fs::DirBuilder::new().mode(0o700).create(path))?;
        Ok(Self { path, keep })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// From now on it is removed whatever was asked for.
    pub(crate) fn discard(&mut self) {
        self.keep = false;
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            eprintln!("sq-storage: warning: cannot remove {}: {error}", self.path.display());
        }
    }
}

/// A file that is removed, unless it is complete.
#[derive(Debug)]
pub(crate) struct Partial {
    path: PathBuf,
    done: bool,
}

impl Partial {
    /// `DST.part-XXXXXXXX`, beside `dst`, open for reading and writing, for this user only.
    pub(crate) fn beside(dst: &Path) -> Result<(Self, fs::File), Error> {
        use std::os::unix::fs::OpenOptionsExt;
        let dir = parent(dst);
        let mut prefix = dst.file_name().unwrap_or_default().as_bytes().to_vec();
        prefix.truncate(NAME_BYTES);
        prefix.extend_from_slice(b".part");
        let (path, file) = fresh(&prefix, dir, |path| {
            fs::OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
        })?;
        Ok((Self { path, done: false }, file))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives it its real name, in place of whatever has that name. It is complete: if that fails it stays, with the name that it has.
    pub(crate) fn publish(mut self, dst: &Path) -> Result<(), Error> {
        self.done = true;
        fs::rename(&self.path, dst).map_err(|source| Error::Unnamed {
            path: dst.to_owned(),
            left: std::mem::take(&mut self.path),
            source,
        })
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.done
            && let Err(error) = fs::remove_file(&self.path)
        {
            eprintln!("sq-storage: warning: cannot remove {}: {error}", self.path.display());
        }
    }
}

/// The directory that a path is in.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

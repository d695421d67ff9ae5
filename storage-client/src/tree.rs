// SPDX-License-Identifier: MIT OR Apache-2.0
//! A tree of files: what is in it.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use crate::Error;

/// Regular files below a directory.
#[derive(Clone, Debug)]
pub struct Tree {
    /// The directory.
    pub root: PathBuf,
    /// What chose the files, for people.
    pub origin: String,
    /// The files, relative to the root.
    pub files: Vec<Entry>,
    /// Symbolic links, devices and the like, which are left out.
    pub skipped: u64,
}

/// One file.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Relative to the root.
    pub path: PathBuf,
    /// Its bytes when it was found.
    pub bytes: u64,
}

impl Tree {
    /// All files below `root`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if a directory cannot be read, [`Error::Refused`] if there is no file in it.
    pub fn walk(root: &Path) -> Result<Self, Error> {
        let mut tree = Self {
            root: root.to_owned(),
            origin: format!("all files below {}", root.display()),
            files: Vec::new(),
            skipped: 0,
        };
        let mut dirs = vec![PathBuf::new()];
        while let Some(dir) = dirs.pop() {
            let full = root.join(&dir);
            let failed = |error| Error::io("read the directory", &full, error);
            for entry in fs::read_dir(&full).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let path = dir.join(entry.file_name());
                if entry.file_type().map_err(failed)?.is_dir() {
                    dirs.push(path);
                } else {
                    tree.add(path)?;
                }
            }
        }
        tree.files.sort_by(|a, b| a.path.cmp(&b.path));
        tree.some()
    }

    /// The files that git tracks in the checkout that `dir` is in.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if git or a checkout is missing.
    pub fn tracked(dir: &Path) -> Result<Self, Error> {
        let root = PathBuf::from(OsString::from_vec(git(dir, &["rev-parse", "--show-toplevel"])?));
        let list = git(&root, &["ls-files", "-z"])?;
        let origin = format!("files tracked by git in {}", root.display());
        let mut tree = Self { root, origin, files: Vec::new(), skipped: 0 };
        for name in list.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            tree.add(PathBuf::from(OsString::from_vec(name.to_vec())))?;
        }
        tree.some()
    }

    /// Bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    fn add(&mut self, path: PathBuf) -> Result<(), Error> {
        let full = self.root.join(&path);
        let meta = match fs::symlink_metadata(&full) {
            Ok(meta) => meta,
            // Tracked and deleted, or deleted while the tree was walked.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.skipped += 1;
                return Ok(());
            }
            Err(error) => return Err(Error::io("look at", full, error)),
        };
        // A name that leads out of the root would be stored outside the store.
        if meta.is_file() && path.components().all(|part| matches!(part, Component::Normal(_))) {
            self.files.push(Entry { path, bytes: meta.len() });
        } else {
            self.skipped += 1;
        }
        Ok(())
    }

    fn some(self) -> Result<Self, Error> {
        if self.files.is_empty() {
            return Err(Error::Refused(format!("there are no {}: choose a directory with --from DIR", self.origin)));
        }
        Ok(self)
    }
}

/// What git prints, without the line's end.
fn git(dir: &Path, args: &[&str]) -> Result<Vec<u8>, Error> {
    let instead = "choose a directory with --from DIR";
    let output = Command::new("git").arg("-C").arg(dir).args(args).output().map_err(|error| {
        Error::Refused(match error.kind() {
            io::ErrorKind::NotFound => format!("git is not installed, so there is no list of tracked files: {instead}"),
            _ => format!("cannot run git ({error}): {instead}"),
        })
    })?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        let why = why.lines().next().unwrap_or("it failed").trim_start_matches("fatal: ");
        return Err(Error::Refused(format!("git lists no files in {}: {why}; {instead}", dir.display())));
    }
    let mut text = output.stdout;
    if text.last() == Some(&b'\n') {
        text.pop();
    }
    Ok(text)
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! A copy of the tracked files that may be spoiled.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::ctx::Ctx;
use crate::process::stdout;

/// Sources as they are in the checkout, and where they are built.
pub(super) struct Copy {
    home: PathBuf,
    /// Nobody else spoils this copy meanwhile.
    _lock: File,
}

impl Copy {
    /// Makes the copy, which is this run's alone: another one waits for its end. What is the same in the last one is left alone, so that cargo does not build it again.
    pub(super) fn make(ctx: &Ctx) -> Result<Self> {
        let home = ctx.checkout_cache("mutants");
        let copy = Self { _lock: lock(&home)?, home };
        let listed = stdout(Command::new("git").args(["ls-files", "-z"]).current_dir(&ctx.root))?;
        let files: Vec<&str> = listed.split('\0').filter(|file| ctx.root.join(file).is_file()).collect();
        copy.forget(&copy.sources(), &files)?;
        for file in files {
            let now = fs::read(ctx.root.join(file)).with_context(|| format!("cannot read {file}"))?;
            let to = copy.sources().join(file);
            if fs::read(&to).ok().as_ref() != Some(&now) {
                fs::create_dir_all(to.parent().context("a file is in a folder")?)?;
                fs::write(&to, now).with_context(|| format!("cannot write {}", to.display()))?;
                fs::set_permissions(&to, fs::metadata(ctx.root.join(file))?.permissions())?;
            }
        }
        Ok(copy)
    }

    /// Removes what is tracked no more.
    fn forget(&self, folder: &Path, files: &[&str]) -> Result<()> {
        let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                self.forget(&path, files)?;
            } else if !files.iter().any(|file| path.ends_with(file) && path == self.sources().join(file)) {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    pub(super) fn sources(&self) -> PathBuf {
        self.home.join("sources")
    }

    pub(super) fn target(&self) -> PathBuf {
        self.home.join("target")
    }

    pub(super) fn read(&self, file: &str) -> Result<String> {
        let path = self.sources().join(file);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}: follow the code", path.display()))
    }

    /// Runs `f` with `file` spoiled. A run that is ended meanwhile leaves it so, until the next [`Copy::make`].
    pub(super) fn with<T>(&self, file: &str, old: &str, new: &str, f: impl FnOnce() -> Result<T>) -> Result<T> {
        let (path, whole) = (self.sources().join(file), self.read(file)?);
        fs::write(&path, whole.replacen(old, new, 1))?;
        let result = f();
        fs::write(&path, whole)?;
        result
    }
}

/// Takes the lock on the folder `home`, which is made if need be; it is held until the file is closed.
fn lock(home: &Path) -> Result<File> {
    fs::create_dir_all(home).with_context(|| format!("cannot create {}", home.display()))?;
    let path = home.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
        eprintln!("another `cargo xtask mutants` is at work on {}: waiting for its end", home.display());
    }
    flock(&file, FlockOperation::LockExclusive).with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use rustix::fs::{FlockOperation, flock};
    use rustix::io::Errno;

    #[test]
    fn a_copy_is_one_runs_alone() {
        let home = std::env::temp_dir().join(format!("sq-mutants-{}", std::process::id()));
        let first = super::lock(&home).unwrap();
        let second = File::open(home.join("lock")).unwrap();
        let taken = || flock(&second, FlockOperation::NonBlockingLockExclusive);
        assert_eq!(taken(), Err(Errno::WOULDBLOCK));
        drop(first);
        assert_eq!(taken(), Ok(()));
        fs::remove_dir_all(home).unwrap();
    }
}

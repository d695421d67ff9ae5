// SPDX-License-Identifier: MIT OR Apache-2.0
//! A copy of the tracked files that may be spoiled.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::ctx::{Ctx, lock};
use crate::process::stdout;
use crate::test::host::OURS;
use crate::vm::Alone;

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
        forget(&copy.sources(), &files.iter().map(|file| copy.sources().join(file)).collect())?;
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

    /// Builds the program of a guest's check from the copy as it is, and keeps it: sabotages are of the modules.
    pub(super) fn build_program(&self, alone: Alone) -> Result<()> {
        let built = alone.build(&mut self.cargo(Command::new("cargo")))?;
        let kept = self.program(alone);
        fs::create_dir_all(kept.parent().context("a file is in a folder")?)?;
        fs::copy(&built, &kept).with_context(|| format!("cannot write {}", kept.display()))?;
        Ok(())
    }

    /// Where that program is kept.
    pub(super) fn program(&self, alone: Alone) -> PathBuf {
        self.home.join("programs").join(alone.program())
    }

    /// Has `cargo` work on the copy.
    pub(super) fn cargo(&self, mut cargo: Command) -> Command {
        cargo.current_dir(self.sources()).env("CARGO_TERM_COLOR", "never");
        cargo.env("CARGO_TARGET_DIR", self.target()).env_remove("CARGO_MANIFEST_DIR");
        OURS.iter().for_each(|name| _ = cargo.env_remove(name));
        cargo
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

/// Removes from `folder` what is not `kept`.
fn forget(folder: &Path, kept: &BTreeSet<PathBuf>) -> Result<()> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            forget(&path, kept)?;
        } else if !kept.contains(&path) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

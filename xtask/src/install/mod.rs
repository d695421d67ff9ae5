// SPDX-License-Identifier: MIT OR Apache-2.0
//! From the checkout to somebody's machine: the source archive, make, DKMS, the Debian package.

mod clean;
pub(crate) mod deb;
pub(crate) mod dist;
mod guests;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::ctx::Ctx;
use crate::kernel::Kernel;
use crate::process::run;
use crate::vm::Owner;
use clean::{Clean, Session};
use dist::Tarball;

const KERNEL: Kernel = Kernel::V6_12;
/// What happens in the clean Debian.
const SCRIPT: &str = include_str!("clean.sh");
/// The ways by which it installs.
const WAYS: [&str; 3] = ["make", "dkms", "deb"];

/// `cargo xtask install`
pub(crate) fn print_tested(ctx: &Ctx) -> Result<ExitCode> {
    print!("{}", test(ctx)?);
    Ok(ExitCode::SUCCESS)
}

/// Packs, installs in a clean Debian without network in each of [`WAYS`], removes, and loads and uses in guests what was built.
///
/// # Errors
/// [`crate::test::Missing`] when this user is not root.
pub(crate) fn test(ctx: &Ctx) -> Result<String> {
    let clean = Clean::new(ctx)?;
    let tarball = dist::make(ctx)?;
    dist::check_reproducible(&tarball, &scratch(ctx, "dist")?.path)?;
    let package = deb::make(ctx, &tarball)?;
    let dir = scratch(ctx, "install")?;
    let owner = Owner::new(&dir.path)?;
    install(ctx, &clean, &tarball, &package, &owner, &dir)?;
    let tables = guests::boot(ctx, &dir.path.join("out"), &owner)?;
    Ok(format!("{}\n{}\n{tables}", dist::describe(&tarball.path)?, dist::describe(&package)?))
}

fn install(ctx: &Ctx, clean: &Clean, tarball: &Tarball, package: &Path, owner: &Owner, dir: &Scratch) -> Result<()> {
    for lang in ["rust", "c"] {
        let mut new = Command::new(std::env::current_exe()?);
        new.args(["new-driver", &format!("out{lang}"), "--lang", lang, "--dir"]).arg(&dir.path);
        run("new-driver", &mut new)?;
    }
    let build = KERNEL.headers(ctx)?;
    let release = build.file_name().and_then(|name| name.to_str()?.strip_prefix("linux-headers-"));
    let session = Session {
        script: SCRIPT,
        inputs: vec![
            tarball.path.clone(),
            package.to_owned(),
            dir.path.join("outrust"),
            dir.path.join("outc"),
            owner.key.clone(),
            owner.certificate.clone(),
        ],
        release: release.context("headers are called linux-headers-RELEASE")?,
        build: &build,
        version: &tarball.version,
    };
    clean.run(dir, &session)?;
    Ok(())
}

/// A folder of the cache for one run, which goes with this.
pub(crate) struct Scratch {
    path: PathBuf,
}

pub(crate) fn scratch(ctx: &Ctx, name: &str) -> Result<Scratch> {
    let path = ctx.cache.join("run").join(format!("{name}-{}", std::process::id()));
    fs::create_dir_all(&path)?;
    Ok(Scratch { path })
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

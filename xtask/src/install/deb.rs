// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask deb`: the Debian package `sq-dkms`, made from the source archive by debian/, and read by lintian.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use super::dist::{self, Tarball};
use super::scratch;
use crate::apt;
use crate::ctx::Ctx;
use crate::process::run;

/// Builds the package into target/dist.
///
/// # Errors
/// When lintian has a warning, or the package's version is not the workspace's.
pub(crate) fn make(ctx: &Ctx, tarball: &Tarball) -> Result<PathBuf> {
    apt::ensure(&["dpkg-dev", "debhelper", "dh-dkms", "lintian"])?;
    let dir = scratch(ctx, "deb")?;
    run("unpacking", Command::new("tar").arg("-xf").arg(&tarball.path).arg("-C").arg(&dir.path))?;
    let mut build = Command::new("dpkg-buildpackage");
    build.args(["--build=binary", "--no-sign"]).env("SOURCE_DATE_EPOCH", tarball.epoch.to_string());
    run("building sq-dkms", build.current_dir(dir.path.join(format!("sq-{}", tarball.version))))?;
    let name = format!("sq-dkms_{}_all.deb", tarball.version);
    let built = dir.path.join(&name);
    if !built.is_file() {
        bail!("no {name} was built: debian/changelog must be of version {}, as Cargo.toml", tarball.version);
    }
    run("lintian", Command::new("lintian").args(["--info", "--fail-on", "error,warning"]).arg(&built))?;
    let target = tarball.path.with_file_name(&name);
    fs::copy(&built, &target).with_context(|| format!("cannot write {}", target.display()))?;
    Ok(target)
}

/// `cargo xtask deb`
pub(crate) fn print_made(ctx: &Ctx) -> Result<ExitCode> {
    let package = make(ctx, &dist::make(ctx)?)?;
    println!("{}", dist::describe(Path::new(&package))?);
    Ok(ExitCode::SUCCESS)
}

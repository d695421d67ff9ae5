// SPDX-License-Identifier: MIT OR Apache-2.0
//! A clean Debian in a folder: no cargo, no checkout, no network, and what a run changes there is thrown away.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::Scratch;
use crate::apt;
use crate::ctx::Ctx;
use crate::process::run;
use crate::test::Missing;

/// Debian 12: its kernel is the oldest that sq knows, and its compiler comes as rustc-web.
const SUITE: &str = "bookworm";
/// What a user installs before sq. libelf1 is for the tools among the kernel's headers, which are lent to it.
const PACKAGES: &str = "adduser,dkms,gcc,kmod,libelf1,make,openssl,rust-web-src,rustc-web,xz-utils";

/// For dpkg: of the compiler's sources only those of its library. The rest is forty thousand files, and minutes of a disk's time.
const LEFT_OUT: [&str; 2] = ["path-exclude=/usr/src/rustc-*/*", "path-include=/usr/src/rustc-*/library/*"];

/// Runs as root in namespaces of its own, so that nothing has to be unmounted: DIR gets the overlay's parts.
const ENTER: &str = r#"set -eu
mkdir -p "$DIR/upper" "$DIR/work" "$DIR/root" "$DIR/in" "$DIR/out"
mount -t overlay overlay -o "lowerdir=$BASE,upperdir=$DIR/upper,workdir=$DIR/work" "$DIR/root"
cd "$DIR/root"
mkdir -p in out ".$HEADERS"
mount -t proc proc proc
mount --bind "$DIR/in" in
mount --bind "$DIR/out" out
mount --bind "$HEADERS" ".$HEADERS"
mount -o remount,bind,ro ".$HEADERS"
exec chroot . /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C DEBIAN_FRONTEND=noninteractive \
    RELEASE="$RELEASE" BUILD="$BUILD" VERSION="$VERSION" sh /in/script
"#;

/// The folder, as it is before a run.
pub(super) struct Clean {
    base: PathBuf,
}

impl Clean {
    /// Makes it, once.
    ///
    /// # Errors
    /// [`Missing`] when this user is not root: it takes mounts and a chroot.
    pub(super) fn new(ctx: &Ctx) -> Result<Self> {
        if !apt::is_root() {
            return Err(Missing("a clean Debian to install in takes mounts: run this stage as root".to_owned()).into());
        }
        let mut hasher = DefaultHasher::new();
        (PACKAGES, LEFT_OUT).hash(&mut hasher);
        let base = ctx.cache.join("clean").join(format!("{SUITE}-{:016x}", hasher.finish()));
        if !base.is_dir() {
            apt::ensure(&["mmdebstrap"])?;
            // mmdebstrap makes the folder, and not the one it is in.
            fs::create_dir_all(ctx.cache.join("clean"))?;
            let partial = base.with_extension(std::process::id().to_string());
            // In a namespace, since it mounts /proc and /dev there, and we may have to remove what it left.
            let mut mmdebstrap = Command::new("unshare");
            mmdebstrap.args(["--mount", "mmdebstrap", "--mode=root", "--variant=apt", "--format=directory"]);
            mmdebstrap.args(LEFT_OUT.map(|option| format!("--dpkgopt={option}")));
            // What a crash leaves unfinished is made again.
            mmdebstrap.arg("--dpkgopt=force-unsafe-io");
            mmdebstrap.arg("--aptopt=Apt::Install-Recommends \"false\"").arg(format!("--include={PACKAGES}"));
            let made = run("a clean Debian, once: some minutes", mmdebstrap.arg(SUITE).arg(&partial));
            if made.is_err() || fs::rename(&partial, &base).is_err() {
                // Another run may have been faster.
                let _ = fs::remove_dir_all(&partial);
            }
            made?;
        }
        Ok(Self { base })
    }

    /// Runs a script there, with the kernel `release` whose headers are in `build`. It finds `inputs` in /in, and `variables`
    /// in its environment; what it leaves in /out is in `dir`/out.
    pub(super) fn run(&self, dir: &Scratch, session: &Session) -> Result<String> {
        let place = dir.path.join("in");
        fs::create_dir_all(&place)?;
        fs::write(place.join("script"), session.script)?;
        for input in &session.inputs {
            let name = input.file_name().context("a file has a name")?;
            run("copying", Command::new("cp").arg("-r").arg(input).arg(place.join(name)))?;
        }
        let headers = session.build.ancestors().nth(3).context("headers are unpacked in the cache")?;
        let mut command = Command::new("timeout");
        command.args(["1200", "unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "sh", "-c", ENTER]);
        command.env("BASE", &self.base).env("DIR", &dir.path).env("HEADERS", headers).env("BUILD", session.build);
        command.env("RELEASE", session.release).env("VERSION", session.version);
        run("installing in a clean Debian", &mut command)
    }
}

/// What is run.
pub(super) struct Session<'a> {
    pub(super) script: &'a str,
    pub(super) inputs: Vec<PathBuf>,
    /// Kernel to install for.
    pub(super) release: &'a str,
    /// Its headers.
    pub(super) build: &'a Path,
    /// Of sq.
    pub(super) version: &'a str,
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a guest's file system holds: busybox, the init script, and whatever a run brings along.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::cpio::Archive;
use crate::apt;
use crate::ctx::Ctx;
use crate::process::{run, stdout};

const INIT: &str = include_str!("init.sh");
const QEXIT: &str = include_str!("qexit.c");
const PASSWD: &str = "root:x:0:0:root:/w:/bin/sh\nsq:x:1000:1000:sq:/w:/bin/sh\n";
const GROUP: &str = "root:x:0:\nsq:x:1000:\n";

/// Files larger than this are stripped of debug information on the way in: each megabyte costs boot time.
const STRIP_ABOVE_BYTES: u64 = 1 << 20;

/// The guest's files. Programs go to /w, libraries where the host has them.
pub(crate) struct Initramfs {
    archive: Archive,
}

impl Initramfs {
    /// busybox, init and the exit helper.
    pub(crate) fn new(ctx: &Ctx) -> Result<Self> {
        apt::ensure(&["busybox-static", "gcc", "binutils"])?;
        let mut archive = Archive::default();
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|p| Path::new(p).is_file());
        let busybox = busybox.context("busybox-static is installed, yet there is no /bin/busybox")?;
        archive.insert("bin/busybox", fs::read(busybox)?, 0o755);
        archive.insert("init", INIT.into(), 0o755);
        archive.insert("bin/qexit", qexit(ctx)?, 0o755);
        archive.insert("etc/passwd", PASSWD.into(), 0o644);
        archive.insert("etc/group", GROUP.into(), 0o644);
        Ok(Self { archive })
    }

    pub(crate) fn add(&mut self, path: &str, data: Vec<u8>, mode: u32) {
        self.archive.insert(path, data, mode);
    }

    /// Copies a host program with its shared libraries; returns its path in the guest.
    pub(crate) fn add_program(&mut self, program: &Path) -> Result<String> {
        let name = program.file_name().context("a program needs a file name")?.to_string_lossy();
        let path = format!("w/{name}");
        self.add_libraries(program)?;
        self.archive.insert(&path, stripped(program)?, 0o755);
        Ok(format!("/{path}"))
    }

    /// Copies the shared libraries that `program` names; none for scripts and static programs.
    pub(crate) fn add_libraries(&mut self, program: &Path) -> Result<()> {
        let Ok(listing) = stdout(Command::new("ldd").arg(program)) else {
            return Ok(());
        };
        let libraries = listing.split_whitespace().filter(|w| w.starts_with('/') && !w.ends_with(':'));
        for library in libraries {
            if !self.archive.contains(library) {
                let data = fs::read(library).with_context(|| format!("cannot read {library}"))?;
                self.archive.insert(library, data, 0o755);
            }
        }
        Ok(())
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        self.archive.encode(&["proc", "sys", "dev", "tmp", "out", "w/out", "sq/jobs"])
    }
}

fn stripped(program: &Path) -> Result<Vec<u8>> {
    let read = || fs::read(program).with_context(|| format!("cannot read {}", program.display()));
    if fs::metadata(program).with_context(|| format!("no {}", program.display()))?.len() < STRIP_ABOVE_BYTES {
        return read();
    }
    let copy = std::env::temp_dir().join(format!("sq-strip-{}", std::process::id()));
    let strip = Command::new("strip").args(["--strip-debug", "-o"]).arg(&copy).arg(program).output();
    let data = match strip {
        Ok(output) if output.status.success() => fs::read(&copy)?,
        _ => return read(), // not an object file
    };
    fs::remove_file(&copy)?;
    Ok(data)
}

/// A static program without libc that leaves QEMU at once; power-off is slow, and not every kernel can.
fn qexit(ctx: &Ctx) -> Result<Vec<u8>> {
    let dir = ctx.cache.join("guest");
    fs::create_dir_all(&dir)?;
    let program = dir.join(format!("qexit.{}", std::process::id()));
    let source = program.with_extension("c");
    fs::write(&source, QEXIT)?;
    let mut gcc = Command::new("gcc");
    gcc.args(["-O2", "-static", "-nostdlib", "-fno-stack-protector", "-fno-pie", "-no-pie", "-o"]);
    run("compiling qexit", gcc.arg(&program).arg(&source))?;
    let data = fs::read(&program)?;
    fs::remove_file(&program)?;
    fs::remove_file(&source)?;
    Ok(data)
}

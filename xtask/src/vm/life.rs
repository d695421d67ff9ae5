// SPDX-License-Identifier: MIT OR Apache-2.0
//! The jobs of `tests/examples/life`: what a module must survive, most of it as an ordinary user.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::Depth;
use super::guest::{Guest, Job};
use crate::cargo;
use crate::ctx::Ctx;
use crate::kernel::Kernel;
use crate::module;
use crate::process::run;

/// For one group; on a busy host the longest took more than three minutes.
const TIMEOUT: Duration = Duration::from_secs(600);
/// With the counts of the nightly run; there a program of system calls took 4 s.
const TIMEOUT_LONG: Duration = Duration::from_secs(2 * 3600);

/// What the groups need: nodes for everybody, cgroups, and pages that a user may let the kernel wait for.
const PREPARE: &str = "chmod 666 /dev/sq*
mount -t cgroup2 cgroup /sys/fs/cgroup
echo 1 >/proc/sys/vm/unprivileged_userfaultfd";

/// Groups, and whether they run as an ordinary user. They are no [`Depth::Part`].
const GROUPS: [(&str, bool); 9] = [
    ("storm", true),
    ("kill", true),
    ("hostile", true),
    ("stall", true),
    ("users", false),
    ("share", false),
    ("poll", true),
    ("memory", false),
    ("accounts", false),
];

/// Adds the jobs; the last one unloads `modules`.
pub(super) fn jobs(ctx: &Ctx, guest: &mut Guest, modules: &[String], depth: Depth) -> Result<()> {
    let life = guest.files.add_program(&program(ctx)?)?;
    guest.files.add("w/compat32", compat32(ctx)?, 0o755);
    let (timeout, variable) = match depth {
        Depth::Long => (TIMEOUT_LONG, "SQ_LONG=1 "),
        Depth::Usual => (TIMEOUT, ""),
        Depth::Part => (TIMEOUT, "SQ_PART=1 "),
    };
    guest.jobs.push(prepare());
    let groups = if depth == Depth::Part { &[] } else { &GROUPS[..] };
    for &(group, user) in groups {
        let line = format!("{variable}exec {life} {group}");
        guest.jobs.push(Job { user, ..Job::new(&format!("life: {group}"), line, timeout) });
    }
    if depth != Depth::Part {
        guest.load_modules(&[module::build_naive(ctx, guest.kernel)?])?;
        let line = format!("{variable}{life} attack && rmmod sq_naive");
        guest.jobs.push(Job::new("life: attack", line, timeout));
    }
    // Where the kernel can make allocations fail, each of a call in turn does, and then some of a random program.
    if guest.kernel == Kernel::Kasan {
        let line = format!("{variable}exec {life} fail-nth");
        guest.jobs.push(Job::new("life: fail-nth", line, timeout));
    }
    let line = format!("{variable}exec {life} syscalls");
    guest.jobs.push(Job::new("life: random system calls", line, timeout));
    let line = "exec /w/compat32".to_owned();
    guest.jobs.push(Job { user: true, ..Job::new("life: a 32-bit process", line, TIMEOUT) });
    let line = format!("{variable}exec {life} unload {}", modules.join(" "));
    guest.jobs.push(Job::new("life: load, use, unload", line, timeout));
    Ok(())
}

/// What comes before the groups.
pub(super) fn prepare() -> Job {
    Job::new("life: prepare", PREPARE.to_owned(), TIMEOUT)
}

/// Whether the group runs as an ordinary user.
pub(super) fn is_users(group: &str) -> bool {
    GROUPS.contains(&(group, true))
}

/// The program, built for this host.
pub(super) fn program(ctx: &Ctx) -> Result<PathBuf> {
    build(Command::new("cargo").current_dir(&ctx.root))
}

/// The same, by a cargo that knows its folders.
pub(super) fn build(cargo: &mut Command) -> Result<PathBuf> {
    cargo::program(cargo.args(["build", "-p", "sq-conformance", "--example", "life"]), "example", "life")
}

/// A 32-bit program without libc. (The kernel's own headers for it are the 64-bit ones, in the multiarch folder.)
fn compat32(ctx: &Ctx) -> Result<Vec<u8>> {
    let program = ctx.cache.join("guest").join(format!("compat32.{}", std::process::id()));
    let mut gcc = Command::new("gcc");
    gcc.args([
        "-m32",
        "-O2",
        "-Wall",
        "-Werror",
        "-static",
        "-nostdlib",
        "-fno-stack-protector",
        "-fno-pie",
        "-no-pie",
    ]);
    gcc.arg("-I").arg(ctx.root.join("uapi/include")).args(["-I", "/usr/include/x86_64-linux-gnu", "-o"]);
    gcc.arg(&program).arg(ctx.root.join("tests/examples/life/compat32.c"));
    run("compiling compat32", &mut gcc)?;
    let data = fs::read(&program)?;
    fs::remove_file(Path::new(&program))?;
    Ok(data)
}

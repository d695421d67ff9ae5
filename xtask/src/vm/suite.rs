// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a guest is tested with: load, use, unload, and a look at dmesg after each step.
//!
//! To add a test: a conformance test in tests/, or a test of a driver in [`PACKAGES`], runs here by itself. Anything else is
//! one more `Job` in [`jobs`]; exit code 0 passes, 77 skips.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::guest::{Guest, Job, JobResult, Results};
use super::{disk, examples, life, planted, refused, storage};
use crate::cargo::{self, Program};
use crate::ctx::Ctx;
use crate::kernel::Kernel;
use crate::module;
use crate::process::tail;
use crate::test::host::skips;

/// A whole test program; TCG is some ten times slower than the host.
const PROGRAM_TIMEOUT: Duration = Duration::from_secs(300);
const PROGRAM_TIMEOUT_LONG: Duration = Duration::from_secs(2 * 3600);
/// For the property tests, of which a guest's usual 200 programs are few.
const LONG: &str = "SQ_PROGRAMS=5000 ";
const STEP_TIMEOUT: Duration = Duration::from_secs(30);
/// The packages whose integration tests run on the devices.
const PACKAGES: [&str; 3] = ["sq-conformance", "sq-ram", "sq-file"];
/// Of those, what is no storm.
const PART: [&str; 4] = ["conformance", "parked", "show", "trace"];
/// liburing's convention, and automake's.
const SKIPPED: i32 = 77;
/// How the reasons begin for which something may be skipped in a guest, which has all that a test can want. For any other the job has failed:
/// it may be a fault of the modules that a test takes for the kernel's poverty.
const MAY_SKIP: [&str; 2] = ["SKIP: a guest has no fuzz/seeds", "SKIP: loading a driver with each of its "];

/// The same on debug kernels, which have no networks.
const MAY_SKIP_IN_DEBUG: &str = "SKIP files_that_keep_files_are_refused: no vhost";

/// How much is run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// What fits beside everything else on a kernel that is several times slower
    Part,
    /// Minutes
    Usual,
    /// Hours
    Long,
}

/// How a suite ended on one kernel.
pub(crate) struct Summary {
    pub(crate) failed: usize,
    /// One line for each skip, with its place.
    pub(crate) skips: Vec<String>,
    /// The table that is shown, ending in the counts.
    pub(crate) table: String,
}

/// What runs in guests, built for this host.
pub(crate) struct Programs {
    /// The test programs of [`PACKAGES`].
    tests: Vec<Program>,
    storage_client: PathBuf,
    /// Of examples/dma-rust.
    storm: PathBuf,
}

/// Builds the modules for `kernel`, boots it with `append` on its command line, and runs what there is.
pub(crate) fn run(ctx: &Ctx, kernel: Kernel, programs: &Programs, depth: Depth, append: &str) -> Result<Summary> {
    let built = module::build(ctx, kernel)?;
    let mut guest = Guest::new(ctx, kernel)?;
    // A job's whole log fits: a report at its beginning is not overwritten at its end.
    guest.append = format!("{} log_buf_len=8M {append}", guest.append);
    disk::add(&mut guest)?;
    guest.load_modules(&built.modules)?;
    let loaded = built.modules.iter().filter_map(|m| Some(m.file_stem()?.to_string_lossy().into_owned()));
    let mut loaded: Vec<String> = loaded.collect();
    let place = built.modules.first().and_then(|module| module.parent()).context("no module was built")?;
    if depth != Depth::Part {
        refused::jobs(ctx, kernel, &mut guest, place)?;
    }
    jobs(&mut guest, programs, depth)?;
    if depth != Depth::Part {
        storage::add(&mut guest, &programs.storage_client)?;
    }
    examples::add(ctx, kernel, &mut guest, &programs.storm, depth, &mut loaded)?;
    life::jobs(ctx, &mut guest, &loaded, depth)?;
    if kernel == Kernel::Kasan {
        guest.jobs.push(Job::new("nothing leaked", LEAKS.to_owned(), STEP_TIMEOUT));
    }
    if kernel.debug() {
        guest.jobs.push(Job::new("lockdep is still on", LOCKDEP.to_owned(), STEP_TIMEOUT));
    }
    // Another run may build others meanwhile.
    let hashes = module::hashes(ctx, kernel)?;
    let mut results = guest.boot(ctx)?;
    if kernel.debug() {
        results.jobs.push(planted(ctx, kernel));
    }
    let summary = summarise(kernel, &results);
    if summary.failed == 0 {
        module::note_tested(ctx, kernel, &hashes)?;
    }
    Ok(summary)
}

/// Whether bugs planted in Rust are reported, in a guest of its own, as if it were one more job.
fn planted(ctx: &Ctx, kernel: Kernel) -> JobResult {
    let start = Instant::now();
    let verdict = planted::check(ctx, kernel);
    JobResult {
        code: i32::from(verdict.is_err()),
        seconds: start.elapsed().as_secs_f64(),
        stderr: verdict.err().map_or_else(String::new, |why| format!("{why:#}")),
        ..JobResult::passed("bugs planted in Rust are reported")
    }
}

/// By kmemleak: what no pointer leads to. Twice, since one may be on its way; and only what is older than 5 s counts. It cannot be asked to
/// scan once it has given up.
const LEAKS: &str = "set -e
leaks=/sys/kernel/debug/kmemleak
for scan in 1 2; do sleep 6; echo scan >$leaks; done
cat $leaks >/tmp/leaks
cat /tmp/leaks
[ ! -s /tmp/leaks ]";

/// The first fault turns lockdep off, and so does a table of its own that is full.
const LOCKDEP: &str = "grep debug_locks: /proc/lockdep_stats
grep -q 'debug_locks: *1$' /proc/lockdep_stats";

/// sq_ram.ko with the parameters that its tests want, rounded up to whole pages, after some that it refuses.
const RELOAD_RAM: &str = "rmmod sq_ram || exit 1
for bad in bytes=0 bytes=99999999999 mode=01777; do
    ! insmod /lib/modules/sq_ram.ko $bad 2>/dev/null || exit 1
done
insmod /lib/modules/sq_ram.ko bytes=61441 mode=0640 && [ $(stat -c %a /dev/sqram) = 640 ]";

/// What the modules do, before `life` sees what they survive and unloads them.
fn jobs(guest: &mut Guest, programs: &Programs, depth: Depth) -> Result<()> {
    guest.jobs.push(Job::new("parameters of sq_ram", RELOAD_RAM.to_owned(), STEP_TIMEOUT));
    let (variable, timeout) = if depth == Depth::Long { (LONG, PROGRAM_TIMEOUT_LONG) } else { ("", PROGRAM_TIMEOUT) };
    for program in &programs.tests {
        if depth == Depth::Part && !PART.contains(&program.name.as_str()) {
            continue;
        }
        let path = guest.files.add_program(&program.path)?;
        guest.jobs.push(Job::new(
            &program.name,
            format!("{variable}SQ_BACKEND=device SQ_SCRATCH=/mnt SQ_DISK=/dev/vdb exec {path} --test-threads=2 --show-output"),
            timeout,
        ));
    }
    Ok(())
}

impl Programs {
    pub(crate) fn build(ctx: &Ctx) -> Result<Self> {
        let mut tests = Command::new("cargo");
        tests.args(["test", "--no-run"]).current_dir(&ctx.root);
        PACKAGES.iter().for_each(|package| _ = tests.args(["-p", package]));
        let mut tests = cargo::programs(&mut tests)?;
        tests.retain(|program| program.kind == "test" && !is_hosts(&program.name));
        tests.sort();
        if let Some(name) = PART.iter().find(|part| !tests.iter().any(|program| program.name == **part)) {
            bail!("no test program is called {name}: follow the tests in PART of xtask/src/vm/suite.rs");
        }
        let mut storm = Command::new("cargo");
        storm.args(["build", "-p", "sq-dma", "--example", "storm"]).current_dir(&ctx.root);
        Ok(Self { tests, storage_client: storage_client(ctx)?, storm: cargo::program(&mut storm, "example", "storm")? })
    }
}

/// Whether a test program is the host's alone: models run under their schedulers there, and "slow" is about threads of the process.
fn is_hosts(name: &str) -> bool {
    name.starts_with("loom") || name.starts_with("shuttle") || name == "slow"
}

/// An application: it uses /dev/sqfile if that is there.
pub(crate) fn storage_client(ctx: &Ctx) -> Result<PathBuf> {
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "-p", "sq-storage"]).current_dir(&ctx.root);
    cargo::program(&mut cargo, "bin", "sq-storage")
}

pub(crate) fn summarise(kernel: Kernel, results: &Results) -> Summary {
    let mut summary = Summary { failed: 0, skips: Vec::new(), table: format!("guest {kernel}\n") };
    let (mut passed, mut skipped) = (0, 0);
    if let Some(note) = &results.note {
        summary.table.push_str(&format!("  {note}\n"));
    }
    for job in &results.jobs {
        let skips = skips_of(job);
        let may = |skip: &String| {
            MAY_SKIP.iter().any(|reason| skip.starts_with(reason))
                || (kernel.debug() && skip.starts_with(MAY_SKIP_IN_DEBUG))
        };
        let unexpected = || skips.iter().filter(|skip| !may(skip));
        let fine = job.complaints.is_empty() && unexpected().next().is_none();
        let verdict = match job.code {
            0 if fine => {
                passed += 1;
                "ok"
            }
            SKIPPED if fine => {
                skipped += 1;
                "skipped"
            }
            _ => {
                summary.failed += 1;
                "FAILED"
            }
        };
        summary.skips.extend(skips.iter().map(|skip| format!("{kernel}: {}: {skip}", job.name)));
        summary.table.push_str(&format!("  {verdict:8} {:6.1} s  {}\n", job.seconds, job.name));
        if verdict == "FAILED" {
            let report = format!("exit code {}\n{}\n{}", job.code, tail(&job.stdout, 60), tail(&job.stderr, 60));
            for line in report.lines().chain(job.complaints.iter().map(String::as_str)).filter(|l| !l.is_empty()) {
                summary.table.push_str(&format!("      {line}\n"));
            }
            for skip in unexpected() {
                summary.table.push_str(&format!("      not to be skipped in a guest: {skip}\n"));
            }
        }
    }
    let mut foreign: Vec<&str> =
        results.jobs.iter().flat_map(|job| &job.races_of_the_kernel).map(String::as_str).collect();
    foreign.sort_unstable();
    foreign.dedup();
    if !foreign.is_empty() {
        summary.table.push_str(&format!("  races of the kernel with itself, not counted: {}\n", foreign.join(", ")));
    }
    summary.table.push_str(&format!("  {passed} passed, {} failed, {skipped} skipped on {kernel}", summary.failed));
    summary
}

/// What a job skipped: parts of itself, or all.
fn skips_of(job: &JobResult) -> Vec<String> {
    let mut skips = skips(&job.stdout);
    let last = job.stdout.lines().last().unwrap_or("no reason given");
    if job.code == SKIPPED && skips.last().is_none_or(|skip| skip != last) {
        skips.push(last.to_owned());
    }
    skips
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::{MAY_SKIP_IN_DEBUG, PART, is_hosts, summarise};
    use crate::kernel::Kernel;
    use crate::vm::JobResult;
    use crate::vm::guest::Results;

    #[test]
    fn what_is_skipped_without_leave_has_failed() {
        let failed = |code, stdout: &str| {
            let job = JobResult { code, stdout: stdout.to_owned(), ..JobResult::passed("x") };
            summarise(Kernel::V6_12, &Results::of(vec![job])).failed
        };
        assert_eq!(failed(0, "test a ... ok\n"), 0);
        for (code, reason) in [(0, "SKIP: a guest has no fuzz/seeds\n"), (77, "x\nSKIP: a guest has no fuzz/seeds\n")] {
            assert_eq!(failed(code, reason), 0);
        }
        let no_vhost = format!("{MAY_SKIP_IN_DEBUG}: No such file\n");
        for reason in ["SKIPPED: this kernel has no tracefs\n", "test a ... ignored\n", &no_vhost] {
            assert_eq!(failed(0, reason), 1, "{reason}");
        }
        for reason in ["", "this kernel has no fault injection\n"] {
            assert_eq!(failed(77, reason), 1, "{reason}");
        }
    }

    /// Who gives a test another name learns it at once, not from a debug kernel.
    #[test]
    fn what_is_a_part_is_there_and_runs_in_guests() {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/tests");
        for name in PART {
            assert!(tests.join(format!("{name}.rs")).is_file() || tests.join(name).join("main.rs").is_file(), "{name}");
            assert!(!is_hosts(name));
        }
        // A guest would run none of what is for a scheduler of the host's.
        for entry in fs::read_dir(&tests).unwrap() {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap_or_default();
            let of_a_model = ["#![cfg(loom)]", "#![cfg(shuttle)]"].iter().any(|cfg| text.contains(cfg));
            let name = path.file_stem().unwrap().to_string_lossy();
            assert!(!of_a_model || is_hosts(&name), "{name}");
        }
    }
}

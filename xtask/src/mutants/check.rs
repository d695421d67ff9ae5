// SPDX-License-Identifier: MIT OR Apache-2.0
//! The checks that must turn red, and what counts as red: a test that fails, not a command that does.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::copy::Copy;
use crate::ctx::Ctx;
use crate::kernel::Kernel;
use crate::module;
use crate::objcheck;
use crate::process::tail;
use crate::test::host::as_model;
use crate::vm::{Alone, JobResult, dmesg};

/// A check that has not ended by then hangs, if it was green much faster. Most take seconds.
const LIMIT: Duration = Duration::from_secs(60);
/// How much slower than that.
const SLOWER: u32 = 10;
/// Of a check that should be green: longer than any takes, on a busy host too.
pub(super) const LIMIT_AS_IT_IS: Duration = Duration::from_secs(600);

/// Where the checks of the object and of the glue look.
const KERNEL: Kernel = Kernel::V6_12;

/// What `timeout` ends with, and a job of a guest: its time was over.
const OVER: [i32; 2] = [124, 137];

/// What a shell says of a program that died of its own fault: SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV.
const DIED: [i32; 6] = [132, 133, 134, 135, 136, 139];

/// Of sources that should compile.
const NOT_COMPILED: &str = "does not compile (the copy has what git tracks: a new file must be added by `git add`)";

/// The cheapest check that must turn red.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Check {
    /// `cargo test -p PACKAGE --test TARGET FILTER`.
    Test(&'static str, &'static str, &'static str),
    /// A model of the suite, as the test stage `loom` builds it: `--test TARGET FILTER`.
    Loom(&'static str, &'static str),
    /// The object of the modules: what is found wrong with it must have this text.
    Object(&'static str),
    /// One check, or one test, alone in a guest that has the modules.
    Guest(Alone),
}

/// How a check ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Green,
    Red,
    Hangs,
}

/// A check that has been run.
pub(super) struct Ran {
    pub(super) verdict: Verdict,
    /// What it said, the end of it.
    pub(super) said: String,
    /// How long it took, without what was built for it.
    pub(super) took: Duration,
}

/// How long a check may take that was green in `green`.
pub(super) fn limit(green: Duration) -> Duration {
    LIMIT.max(green * SLOWER)
}

impl Check {
    pub(super) fn label(self) -> String {
        match self {
            Self::Test(package, target, filter) => format!("{package} {target} {filter}"),
            Self::Loom(target, filter) => format!("{target} {filter}"),
            Self::Object(fault) => format!("objcheck: {fault}"),
            Self::Guest(alone) => format!("guest: {alone}"),
        }
    }

    /// What stands for the check where there is no sabotage: nothing may be wrong with the object.
    pub(super) const fn as_it_is(self) -> Self {
        if let Self::Object(_) = self { Self::Object("") } else { self }
    }

    /// What it is, if it is a guest's.
    pub(super) const fn alone(self) -> Option<Alone> {
        if let Self::Guest(alone) = self { Some(alone) } else { None }
    }

    /// Builds what the check is about and runs it, for `limit` at most. Its guest's program is [`Copy::program`].
    ///
    /// # Errors
    /// If it cannot be built, runs nothing, or ends otherwise than by its own verdict: then it says nothing.
    pub(super) fn run(self, ctx: &Ctx, copy: &Copy, limit: Duration) -> Result<Ran> {
        match self {
            Self::Test(_, _, filter) | Self::Loom(_, filter) => {
                let built = self.test(copy, Command::new("cargo")).arg("--no-run").output()?;
                let why = String::from_utf8_lossy(&built.stderr);
                ensure!(built.status.success(), "{NOT_COMPILED}:\n{}", tail(&why, 40));
                let start = Instant::now();
                let ran = self.test(copy, limited(limit)).args(["--", filter]).output()?;
                let took = start.elapsed();
                let [stdout, stderr] = [&ran.stdout, &ran.stderr].map(|bytes| String::from_utf8_lossy(bytes));
                let verdict = of_test_program(ran.status.code(), &stdout, &stderr)?;
                Ok(Ran { verdict, said: tail(&[stdout, stderr].join("\n"), 40), took })
            }
            Self::Object(fault) => {
                let sources = ctx.in_checkout(copy.sources());
                let built = module::compile(&sources, KERNEL).context(NOT_COMPILED)?;
                let start = Instant::now();
                let found = objcheck::check(&built);
                let said = found.as_ref().map_or_else(|why| format!("{why:#}"), |_| String::new());
                Ok(Ran { verdict: of_object(found, fault)?, said, took: start.elapsed() })
            }
            Self::Guest(alone) => {
                let sources = ctx.in_checkout(copy.sources());
                let modules = module::build(&sources, KERNEL)
                    .with_context(|| format!("{NOT_COMPILED}, or not to a clean object"))?;
                let jobs = alone.run(ctx, KERNEL, &modules.modules, &copy.program(alone), limit)?;
                let verdict = of_jobs(&jobs)?;
                let last = jobs.last().context("the guest ran nothing")?;
                let said =
                    [&last.stdout, &last.stderr, &last.complaints.join("\n")].map(|text| tail(text, 40)).join("\n");
                Ok(Ran { verdict, said, took: Duration::try_from_secs_f64(last.seconds).unwrap_or_default() })
            }
        }
    }

    /// `cargo test` of the target, in the copy.
    fn test(self, copy: &Copy, cargo: Command) -> Command {
        let mut cargo = copy.cargo(cargo);
        cargo.arg("test");
        match self {
            Self::Test(package, target, _) => _ = cargo.args(["-p", package, "--test", target]),
            Self::Loom(target, _) => {
                cargo.args(["--release", "-p", "sq-conformance", "--test", target]);
                as_model(&mut cargo, "loom", &copy.target());
            }
            Self::Object(_) | Self::Guest(_) => {}
        }
        cargo
    }
}

/// `cargo` that is ended if it hangs.
fn limited(limit: Duration) -> Command {
    let mut timeout = Command::new("timeout");
    timeout.arg("--kill-after=5").arg(limit.as_secs().to_string()).arg("cargo");
    timeout
}

/// Of a test program: a test failed, or all of it died by a signal, which cargo tells.
fn of_test_program(code: Option<i32>, stdout: &str, stderr: &str) -> Result<Verdict> {
    let passed = stdout.lines().find_map(|line| line.strip_prefix("test result: ok. "));
    match code {
        Some(0) => {
            let passed = passed.context("ended well, and says no result")?;
            ensure!(!passed.starts_with("0 passed"), "runs no test");
            Ok(Verdict::Green)
        }
        Some(code) if OVER.contains(&code) => Ok(Verdict::Hangs),
        _ if stdout.contains("test result: FAILED") || stderr.contains("(signal: ") => Ok(Verdict::Red),
        code => bail!("ended with {code:?}, and no test failed:\n{}", tail(&[stdout, stderr].join("\n"), 20)),
    }
}

/// Of the object checks: what they found is what was expected.
fn of_object(checked: Result<Vec<String>>, fault: &str) -> Result<Verdict> {
    match checked {
        Ok(_) => Ok(Verdict::Green),
        Err(why) if format!("{why:#}").contains(fault) => Ok(Verdict::Red),
        Err(why) => Err(why.context(format!("something else is wrong than {fault:?}"))),
    }
}

/// Of a guest: the last job is the check, and those before it only make it possible. A complaint of the kernel fails a job there as well, but
/// that a processor did not get on is no fault of ours where the host emulates it beside other work.
fn of_jobs(jobs: &[JobResult]) -> Result<Verdict> {
    let (check, before) = jobs.split_last().context("the guest ran nothing")?;
    if let Some(job) = before.iter().find(|job| job.code != 0 || !job.complaints.is_empty()) {
        bail!("{} failed before the check: {}{}", job.name, tail(&job.stderr, 10), job.complaints.join("\n"));
    }
    if dmesg::speak_of_a_fault(&check.complaints) {
        return Ok(Verdict::Red);
    }
    let hangs = OVER.contains(&check.code);
    ensure!(check.complaints.is_empty() || hangs, "the guest got no time to run:\n{}", check.complaints.join("\n"));
    // A program of checks says "ok" or "FAILED" of each.
    let says = |word: &str| check.stdout.lines().any(|line| line.starts_with(word));
    match check.code {
        0 if says("ok ") => Ok(Verdict::Green),
        1 if says("FAILED ") => Ok(Verdict::Red),
        code if DIED.contains(&code) => Ok(Verdict::Red),
        code => of_test_program(Some(code), &check.stdout, &check.stderr),
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{Result, anyhow};

    use super::{Verdict, of_jobs, of_object, of_test_program};
    use crate::vm::JobResult;

    const PASSED: &str = "\nrunning 2 tests\n..\ntest result: ok. 2 passed; 0 failed; 0 ignored; 0 measured\n";
    const FAILED: &str = "\nrunning 2 tests\n.F\ntest result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured\n";

    /// `None`: it says nothing.
    fn seen(verdict: Result<Verdict>) -> Option<Verdict> {
        verdict.ok()
    }

    #[test]
    fn only_a_failed_test_is_red() {
        let of = |code, stdout, stderr| seen(of_test_program(code, stdout, stderr));
        assert_eq!(of(Some(0), PASSED, ""), Some(Verdict::Green));
        assert_eq!(of(Some(101), FAILED, "error: test failed"), Some(Verdict::Red));
        let killed = "process didn't exit successfully: `x` (signal: 6, SIGABRT: process abort signal)";
        assert_eq!(of(Some(101), "running 2 tests\n", killed), Some(Verdict::Red));
        assert_eq!(of(Some(124), "running 2 tests\n", ""), Some(Verdict::Hangs));
        assert_eq!(of(Some(137), "running 2 tests\n", ""), Some(Verdict::Hangs));
        // Cargo's own failures: it does not compile, the target is not there, nothing was run.
        assert_eq!(of(Some(101), "", "error[E0425]: cannot find value `x`"), None);
        assert_eq!(of(Some(101), "", "error: no test target named `x`"), None);
        assert_eq!(of(Some(0), "\nrunning 0 tests\ntest result: ok. 0 passed; 0 failed\n", ""), None);
        assert_eq!(of(Some(0), "", ""), None);
        assert_eq!(of(None, "", ""), None);
    }

    #[test]
    fn only_the_fault_that_was_expected_is_red() {
        let fault = "object check of sq_rust.o:\n  run: a second look at the entry: mov 0x0(rbx)";
        assert_eq!(seen(of_object(Ok(Vec::new()), "a second look")), Some(Verdict::Green));
        assert_eq!(seen(of_object(Err(anyhow!(fault)), "a second look")), Some(Verdict::Red));
        assert_eq!(seen(of_object(Err(anyhow!(fault)), "may panic")), None);
        assert_eq!(seen(of_object(Err(anyhow!("cannot run objdump")), "may panic")), None);
    }

    #[test]
    fn only_the_guests_last_job_counts() {
        let job = |code, stdout: &str, complaints: &[&str]| JobResult {
            name: "x".to_owned(),
            code,
            seconds: 0.0,
            stdout: stdout.to_owned(),
            stderr: String::new(),
            complaints: complaints.iter().map(|&line| line.to_owned()).collect(),
            races_of_the_kernel: Vec::new(),
        };
        let of = |last| seen(of_jobs(&[job(0, "", &[]), last]));
        assert_eq!(of(job(0, "ok      fork (0.1 s)\n", &[])), Some(Verdict::Green));
        assert_eq!(of(job(1, "FAILED  fork (0.1 s): no\n", &[])), Some(Verdict::Red));
        assert_eq!(of(job(0, "ok      fork (0.1 s)\n", &["BUG: x"])), Some(Verdict::Red));
        assert_eq!(of(job(0, PASSED, &[])), Some(Verdict::Green));
        assert_eq!(of(job(101, FAILED, &[])), Some(Verdict::Red));
        assert_eq!(of(job(137, "", &[])), Some(Verdict::Hangs));
        for signal in [4, 6, 7, 11] {
            assert_eq!(of(job(128 + signal, "running 2 tests\n", &[])), Some(Verdict::Red));
        }
        // Of a host that was busy.
        let stall = "rcu: INFO: rcu_preempt self-detected stall on CPU";
        assert_eq!(of(job(0, PASSED, &[stall])), None);
        assert_eq!(of(job(101, FAILED, &["watchdog: BUG: soft lockup - CPU#1 stuck for 26s!", "Call Trace:"])), None);
        assert_eq!(of(job(137, "", &[stall])), Some(Verdict::Hangs));
        assert_eq!(of(job(0, PASSED, &[stall, "WARNING: CPU: 1 PID: 7"])), Some(Verdict::Red));
        // No such check, no such program, no such module.
        assert_eq!(of(job(2, "usage: life ..", &[])), None);
        assert_eq!(of(job(127, "", &[])), None);
        assert_eq!(seen(of_jobs(&[job(1, "", &[]), job(101, FAILED, &[])])), None);
        assert_eq!(seen(of_jobs(&[job(0, "", &["BUG: x"]), job(101, FAILED, &[])])), None);
        assert_eq!(seen(of_jobs(&[])), None);
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask fuzz`: runs the targets of `fuzz/` for a while, and says how often they ran and what of `kmod-sq/src` they reached.
//!
//! What is kept of a target's inputs is in `fuzz/seeds` (few, minimised, replayed by `cargo test`); what grows while it runs, in
//! `fuzz/corpus`; what fails, in `fuzz/artifacts`.

mod coverage;

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::apt;
use crate::ctx::Ctx;
use crate::process::{capture, found, run, tail};
use crate::test::{Missing, Outcome};

/// The targets, and the longest input of each that is worth its time.
const TARGETS: [(&str, u32); 4] = [("doors", 1024), ("entry_parser", 136), ("ring_calls", 2048), ("uapi", 1024)];

/// Of cargo-fuzz, which is built from crates.io into the cache.
const CARGO_FUZZ: &str = "0.13.2";

/// How long a target runs in CI.
const IN_CI: Duration = Duration::from_secs(60);

/// Per cent of the lines of kmod-sq/src that seeds and corpus reach at least.
const FLOOR: f64 = 90.0;

/// What the command takes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long each target runs, as many at a time as there are processors; 0 only reports what is reached already
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Only these targets [default: all]
    #[arg(long, short, num_args = 1.., value_name = "T", value_parser = TARGETS.map(|(name, _)| name))]
    target: Vec<String>,
    /// Afterwards, replace fuzz/seeds by the least inputs that reach as much as all that were found
    #[arg(long)]
    keep: bool,
}

pub(crate) fn fuzz(ctx: &Ctx, args: &Args) -> Result<ExitCode> {
    let wanted = |name: &&str| args.target.is_empty() || args.target.iter().any(|target| target == name);
    let targets: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).filter(wanted).collect();
    let mut failed = 0;
    if args.minutes > 0 || args.keep {
        let fuzzer = Fuzzer::build(ctx)?;
        if args.minutes > 0 {
            print!("{}", fuzzer.finds_a_second_look()?);
            failed = fuzzer.run_all(&targets, Duration::from_secs(args.minutes * 60));
        }
        if args.keep {
            targets.iter().try_for_each(|target| fuzzer.keep(target))?;
        }
    }
    let mut outcome = Outcome { ok: failed == 0, ..Outcome::default() };
    add_coverage(&mut outcome, coverage::report(ctx), 0.0, ctx.ci);
    println!("{}", outcome.log);
    Ok(if outcome.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The test stage: a minute for each target.
pub(crate) fn stage(ctx: &Ctx) -> Result<Outcome> {
    targets(ctx, IN_CI)
}

/// Each target for so long. Afterwards what they reach must be [`FLOOR`].
pub(crate) fn long(ctx: &Ctx, time: Duration) -> Result<Outcome> {
    let mut outcome = targets(ctx, time)?;
    add_coverage(&mut outcome, coverage::report(ctx), FLOOR, ctx.ci);
    Ok(outcome)
}

/// Adds what the inputs reach, or why that is not known, to how the targets ended. Only a missing tool is a skip: an input that fails when it
/// is replayed is a fault that was found.
fn add_coverage(outcome: &mut Outcome, report: Result<(String, f64)>, floor: f64, ci: bool) {
    match report {
        Ok((report, percent)) => {
            outcome.log.push_str(&report);
            if percent < floor {
                outcome.ok = false;
                outcome.log.push_str(&format!(
                    "\nthat is less than {floor} %: what is new in kmod-sq/src wants calls in the fuzz targets' inputs, or inputs in fuzz/seeds"
                ));
            }
        }
        Err(error) if error.is::<Missing>() && !ci => {
            let skip = format!("SKIP: coverage: {error:#}");
            outcome.log.push_str(&skip);
            outcome.skips.push(skip);
        }
        Err(error) => {
            outcome.ok = false;
            outcome.log.push_str(&format!("FAILED: coverage: {error:#}"));
        }
    }
}

fn targets(ctx: &Ctx, time: Duration) -> Result<Outcome> {
    let fuzzer = Fuzzer::build(ctx)?;
    let mut outcome = Outcome { log: fuzzer.finds_a_second_look()?, ..Outcome::default() };
    for result in fuzzer.results(&TARGETS.map(|(name, _)| name), time) {
        outcome.ok &= result.ok;
        outcome.log.push_str(&result.text);
    }
    Ok(outcome)
}

/// The path of cargo-fuzz, which is installed if it has to be.
pub(crate) fn cargo_fuzz(ctx: &Ctx) -> Result<PathBuf> {
    if !Command::new("cargo").args(["+nightly", "--version"]).output().is_ok_and(|o| o.status.success()) {
        return Err(Missing("the nightly toolchain is missing; run: rustup toolchain install nightly".into()).into());
    }
    // For libFuzzer itself, which the crate libfuzzer-sys compiles.
    if !found("c++") {
        apt::ensure(&["g++"])?;
    }
    let tools = ctx.cache.join("tools");
    let cargo_fuzz = tools.join("bin/cargo-fuzz");
    if !cargo_fuzz.is_file() {
        let mut install = Command::new("cargo");
        install.args(["install", "cargo-fuzz", "--locked", "--version", CARGO_FUZZ, "--root"]).arg(&tools);
        run("installing cargo-fuzz", &mut install)?;
    }
    Ok(cargo_fuzz)
}

/// The targets as programs.
struct Fuzzer {
    /// `fuzz/` in the checkout.
    folder: PathBuf,
    programs: PathBuf,
}

/// How a target ended, in words.
struct Ended {
    ok: bool,
    text: String,
}

impl Fuzzer {
    fn build(ctx: &Ctx) -> Result<Self> {
        let cargo_fuzz = cargo_fuzz(ctx)?;
        let folder = ctx.root.join("fuzz");
        let mut build = Command::new(cargo_fuzz);
        // As `cargo +nightly fuzz build`: the file is a subcommand of cargo's.
        build.args(["fuzz", "build"]).current_dir(&folder).env("RUSTUP_TOOLCHAIN", "nightly");
        run("building the fuzz targets", &mut build)?;
        Ok(Self { programs: folder.join("target/x86_64-unknown-linux-gnu/release"), folder })
    }

    /// Runs targets, prints how each ended, and returns how many failed.
    fn run_all(&self, targets: &[&str], time: Duration) -> usize {
        let results = self.results(targets, time);
        results.iter().for_each(|result| print!("{}", result.text));
        results.iter().filter(|result| !result.ok).count()
    }

    /// As many at a time as there are processors.
    fn results(&self, targets: &[&str], time: Duration) -> Vec<Ended> {
        let left = Mutex::new(targets.iter().copied().collect::<VecDeque<_>>());
        let ended = Mutex::new(Vec::new());
        let workers = thread::available_parallelism().map_or(1, |n| n.get().min(targets.len()));
        let work = || {
            loop {
                let next = left.lock().ok().and_then(|mut left| left.pop_front());
                let Some(target) = next else { break };
                // One that cannot be run says nothing about the others.
                let failed = |why| Ended { ok: false, text: format!("{target}: {why:#}\n") };
                let result = self.run(target, time).unwrap_or_else(failed);
                if let Ok(mut ended) = ended.lock() {
                    ended.push(result);
                }
            }
        };
        thread::scope(|scope| (0..workers).for_each(|_| drop(scope.spawn(work))));
        ended.into_inner().unwrap_or_default()
    }

    fn run(&self, target: &str, time: Duration) -> Result<Ended> {
        let [corpus, artifacts] = ["corpus", "artifacts"].map(|name| self.folder.join(name).join(target));
        for folder in [&corpus, &artifacts] {
            fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        let longest = TARGETS.iter().find(|(name, _)| *name == target).map_or(1024, |(_, longest)| *longest);
        let mut fuzzer = Command::new(self.programs.join(target));
        fuzzer.arg(&corpus).arg(self.seeds(target));
        fuzzer.arg(format!("-max_total_time={}", time.as_secs()));
        fuzzer.arg(format!("-max_len={longest}")).args(["-timeout=20", "-print_final_stats=1"]);
        fuzzer.arg(format!("-artifact_prefix={}/", artifacts.display()));
        // `ring_calls` and `doors` have none: their bytes are choices, one after the other, in which no word of the ABI stands as such.
        let dictionary = self.folder.join(format!("dictionaries/{target}.dict"));
        if dictionary.is_file() {
            fuzzer.arg(format!("-dict={}", dictionary.display()));
        }
        let output = capture(target, &mut fuzzer)?;
        let stat = |name: &str| {
            let line = output.text.lines().find_map(|line| line.strip_prefix(&format!("stat::{name}:")));
            line.map_or("?", str::trim).to_owned()
        };
        let (runs, speed) = (stat("number_of_executed_units"), stat("average_exec_per_sec"));
        let mut text = format!("{target:14} {runs:>10} executions, {speed:>6}/s\n");
        if !output.ok {
            text.push_str(&format!("{}\n", tail(&output.text, 60)));
            text.push_str(&format!(
                "replay it as a test: SQ_CORPUS={} cargo test -p sq-conformance --test corpus {target}\n",
                artifacts.parent().unwrap_or(Path::new(".")).display()
            ));
        }
        Ok(Ended { ok: output.ok, text })
    }

    /// Shows that `ring_calls` finds a kernel side that looks at an entry again after it has validated it. It starts from nothing.
    fn finds_a_second_look(&self) -> Result<String> {
        let mut fuzzer = Command::new(self.programs.join("ring_calls"));
        fuzzer.args(["-max_total_time=120", "-max_len=2048", "-exact_artifact_path=/dev/null", "-seed=1"]);
        let output = capture("ring_calls, with a bug", fuzzer.env("SQ_VULNERABLE", "1"))?;
        if output.ok || !output.text.contains("SUB-2") {
            bail!("ring_calls does not find a double fetch that was planted (SNAP-1):\n{}", tail(&output.text, 20));
        }
        let runs = output.text.lines().rev().find_map(|line| line.strip_prefix('#')?.split_whitespace().next());
        Ok(format!("ring_calls finds a planted double fetch after some {} executions\n", runs.unwrap_or("?")))
    }

    fn seeds(&self, target: &str) -> PathBuf {
        self.folder.join("seeds").join(target)
    }

    /// Makes seeds of all that was found: the least of it that reaches as many places.
    fn keep(&self, target: &str) -> Result<()> {
        let (seeds, fresh) = (self.seeds(target), self.folder.join("seeds.new").join(target));
        fs::create_dir_all(&fresh)?;
        let mut merge = Command::new(self.programs.join(target));
        // By places reached, not by how often each was: a seed must be worth its file.
        merge.args(["-set_cover_merge=1", "-use_counters=0", "-max_len=512"]);
        merge.arg(&fresh).arg(&seeds).arg(self.folder.join("corpus").join(target));
        run(&format!("minimising {target}"), &mut merge)?;
        if fs::read_dir(&fresh)?.next().is_none() {
            bail!("{}: nothing is left of {target}", fresh.display());
        }
        fs::remove_dir_all(&seeds).or_else(|error| if seeds.exists() { Err(error) } else { Ok(()) })?;
        fs::create_dir_all(seeds.parent().unwrap_or(Path::new(".")))?;
        fs::rename(&fresh, &seeds)?;
        fs::remove_dir(self.folder.join("seeds.new"))?;
        println!("{target}: {} seeds", fs::read_dir(&seeds)?.count());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{Result, anyhow};

    use super::add_coverage;
    use crate::test::{Missing, Outcome};

    /// Whether all is well, what was skipped, and what is said, after a target that said "x".
    fn with(report: Result<(String, f64)>, ci: bool) -> (bool, usize, String) {
        let mut outcome = Outcome { log: "x\n".to_owned(), ..Outcome::default() };
        add_coverage(&mut outcome, report, 90.0, ci);
        (outcome.ok, outcome.skips.len(), outcome.log)
    }

    #[test]
    fn only_a_missing_tool_is_a_skip_and_the_targets_results_stay() {
        assert_eq!(with(Ok(("lines".to_owned(), 90.0)), false), (true, 0, "x\nlines".to_owned()));
        assert!(!with(Ok(("lines".to_owned(), 89.9)), false).0);
        let missing = || Err(Missing("no llvm".to_owned()).into());
        assert_eq!(with(missing(), false), (true, 1, "x\nSKIP: coverage: no llvm".to_owned()));
        assert!(!with(missing(), true).0, "in CI");
        let (ok, skips, log) = with(Err(anyhow!("replaying the corpus failed")), false);
        assert!(!ok && skips == 0 && log == "x\nFAILED: coverage: replaying the corpus failed", "{log}");
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask mutants`: small sabotages of the sources, each of which must turn a check red.
//!
//! It works on a copy of the tracked files in the cache, with build folders of its own: the checkout is never touched. Every check is
//! run on the copy as it is first, since a red check says nothing if it is never green.

mod copy;
mod table;

use std::collections::BTreeSet;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::ctx::Ctx;
use crate::process::{spinner, tail};
use crate::test::Outcome;
use copy::Copy;
use table::{MUTANTS, SAMPLE};

/// A check that has not ended by then hangs. A green one takes seconds.
const LIMIT: Duration = Duration::from_secs(60);

/// What the command takes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these sabotages
    #[arg(long, num_args = 1.., value_name = "NAME")]
    only: Vec<String>,
    /// List the sabotages and stop
    #[arg(long)]
    list: bool,
}

/// One sabotage: `old`, which `file` has exactly once, becomes `new`, and `check` must notice.
struct Mutant {
    name: &'static str,
    /// The rule of docs/protocol.md that it breaks.
    rule: &'static str,
    file: &'static str,
    old: &'static str,
    new: &'static str,
    check: Check,
}

/// The cheapest check that must turn red: tests of a target, by a filter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Check {
    /// `cargo test -p PACKAGE --test TARGET FILTER`.
    Test(&'static str, &'static str, &'static str),
    /// A model of the suite, as the test stage `loom` builds it: `--test TARGET FILTER`.
    Loom(&'static str, &'static str),
}

/// How a check ended.
enum Verdict {
    Green,
    Red,
    Hangs,
}

impl Check {
    fn label(self) -> String {
        match self {
            Self::Test(package, target, filter) => format!("{package} {target} {filter}"),
            Self::Loom(target, filter) => format!("{target} {filter}"),
        }
    }

    fn cargo(self, copy: &Copy) -> Command {
        let mut cargo = Command::new("timeout");
        cargo.arg("--kill-after=5").arg(LIMIT.as_secs().to_string());
        cargo.arg("cargo").arg("test").current_dir(copy.sources()).env("CARGO_TERM_COLOR", "never");
        cargo.env("CARGO_TARGET_DIR", copy.target()).env_remove("CARGO_MANIFEST_DIR");
        match self {
            Self::Test(package, target, _) => _ = cargo.args(["-p", package, "--test", target]),
            Self::Loom(target, _) => {
                cargo.args(["--release", "-p", "sq-conformance", "--test", target]);
                crate::test::host::as_model(&mut cargo, "loom", &copy.target());
            }
        }
        cargo
    }

    const fn filter(self) -> &'static str {
        match self {
            Self::Test(_, _, filter) | Self::Loom(_, filter) => filter,
        }
    }

    /// Builds the check and runs it.
    ///
    /// # Errors
    /// If it does not compile, or runs no test: then it says nothing.
    fn run(self, copy: &Copy) -> Result<Verdict> {
        let mut build = Command::new("cargo");
        // Without the time limit.
        let limited = self.cargo(copy);
        build.args(limited.get_args().skip(3)).arg("--no-run").current_dir(copy.sources());
        for (name, value) in limited.get_envs() {
            match value {
                Some(value) => build.env(name, value),
                None => build.env_remove(name),
            };
        }
        let built = build.output()?;
        ensure!(built.status.success(), "does not compile:\n{}", tail(&String::from_utf8_lossy(&built.stderr), 40));
        let mut run = self.cargo(copy);
        let ran = run.args(["--", self.filter()]).output()?;
        let text = String::from_utf8_lossy(&ran.stdout);
        if ran.status.success() {
            ensure!(!text.contains("running 0 tests"), "{} runs no test", self.label());
            return Ok(Verdict::Green);
        }
        Ok(if matches!(ran.status.code(), Some(124 | 137)) { Verdict::Hangs } else { Verdict::Red })
    }
}

/// The whole table, or a part of it.
pub(crate) fn run(ctx: &Ctx, args: &Args) -> Result<ExitCode> {
    let chosen = choose(&args.only)?;
    if args.list {
        for mutant in &chosen {
            println!("{:40} {:8} {}", mutant.name, mutant.rule, mutant.check.label());
        }
        return Ok(ExitCode::SUCCESS);
    }
    let unnoticed = apply_all(ctx, &chosen, |line| println!("{line}"))?;
    Ok(if unnoticed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// For the night: all of them.
pub(crate) fn all(ctx: &Ctx) -> Result<Outcome> {
    outcome(ctx, &[])
}

/// The test stage: whether the table still fits the sources, and a few of its rows.
pub(crate) fn stage(ctx: &Ctx) -> Result<Outcome> {
    outcome(ctx, &SAMPLE.map(str::to_owned))
}

fn outcome(ctx: &Ctx, names: &[String]) -> Result<Outcome> {
    let mut log = Vec::new();
    let unnoticed = apply_all(ctx, &choose(names)?, |line| log.push(line))?;
    Ok(Outcome { ok: unnoticed.is_empty(), log: log.join("\n"), ..Outcome::default() })
}

fn choose(names: &[String]) -> Result<Vec<&'static Mutant>> {
    if let Some(name) = names.iter().find(|name| !MUTANTS.iter().any(|mutant| mutant.name == name.as_str())) {
        bail!("no sabotage is called {name}; cargo xtask mutants --list names them");
    }
    Ok(MUTANTS.iter().filter(|mutant| names.is_empty() || names.iter().any(|name| name == mutant.name)).collect())
}

/// Returns the names of those that no check notices.
fn apply_all(ctx: &Ctx, chosen: &[&Mutant], mut say: impl FnMut(String)) -> Result<Vec<&'static str>> {
    let copy = Copy::make(ctx)?;
    fits(&copy)?;
    let start = Instant::now();
    let checks: BTreeSet<Check> = chosen.iter().map(|mutant| mutant.check).collect();
    for check in &checks {
        let bar = spinner(&format!("as it is: {}", check.label()));
        let verdict = check.run(&copy);
        bar.finish_and_clear();
        ensure!(matches!(verdict?, Verdict::Green), "{} is red without any sabotage", check.label());
    }
    say(format!("{} checks, all green as it is, in {:.0} s", checks.len(), start.elapsed().as_secs_f64()));
    say(format!("{:40} {:8} {:58} red in s", "sabotage", "rule", "check"));
    let (mut unnoticed, mut hangs) = (Vec::new(), 0);
    for mutant in chosen {
        let Mutant { name, rule, file, old, new, check } = **mutant;
        let bar = spinner(name);
        let began = Instant::now();
        let verdict = copy.with(file, old, new, || check.run(&copy));
        bar.finish_and_clear();
        let end = match verdict {
            Ok(Verdict::Red) => format!("{:.1}", began.elapsed().as_secs_f64()),
            Ok(Verdict::Hangs) => {
                hangs += 1;
                format!("{:.1}, by hanging", began.elapsed().as_secs_f64())
            }
            Ok(Verdict::Green) => {
                unnoticed.push(name);
                "STAYS GREEN".to_owned()
            }
            // Of the table: what says nothing is not noticed.
            Err(error) => {
                unnoticed.push(name);
                format!("ERROR: {error:#}")
            }
        };
        say(format!("{name:40} {rule:8} {:58} {end}", check.label()));
    }
    let seconds = start.elapsed().as_secs_f64();
    let red = chosen.len() - unnoticed.len();
    say(format!("{red} of {} sabotages are noticed, {hangs} of them by hanging, in {seconds:.0} s", chosen.len()));
    Ok(unnoticed)
}

/// Each row's `old` is in its file exactly once, or the table is out of date.
fn fits(copy: &Copy) -> Result<()> {
    let mut wrong = Vec::new();
    for &Mutant { name, file, old, .. } in MUTANTS {
        let times = copy.read(file)?.matches(old).count();
        if times != 1 {
            wrong.push(format!("{name}: {file} has its text {times} times"));
        }
    }
    ensure!(wrong.is_empty(), "follow the code in xtask/src/mutants/table.rs:\n{}", wrong.join("\n"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::choose;
    use super::table::{MUTANTS, SAMPLE};

    #[test]
    fn names_are_names() {
        let names: BTreeSet<&str> = MUTANTS.iter().map(|mutant| mutant.name).collect();
        assert_eq!(names.len(), MUTANTS.len());
        assert!(SAMPLE.iter().all(|name| names.contains(name)));
        assert!(choose(&["nobody".to_owned()]).is_err());
    }
}

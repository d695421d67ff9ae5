// SPDX-License-Identifier: MIT OR Apache-2.0
//! A stage, how it ended, and the table of them all.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::ctx::Ctx;

type Action = Box<dyn FnOnce(&Ctx) -> Result<Outcome>>;

/// One step of the test command.
pub(crate) struct Stage {
    pub(crate) name: String,
    /// One line for `--list`.
    pub(crate) what: &'static str,
    action: Action,
}

impl Stage {
    pub(crate) fn new(name: &str, what: &'static str, action: impl FnOnce(&Ctx) -> Result<Outcome> + 'static) -> Self {
        Self { name: name.to_owned(), what, action: Box::new(action) }
    }
}

/// How a stage ended, when it could be run at all.
pub(crate) struct Outcome {
    pub(crate) ok: bool,
    /// Tests within the stage that were skipped, each with its reason.
    pub(crate) skips: Vec<String>,
    /// Printed below the stage's line: always when it failed, else only if it is not empty.
    pub(crate) log: String,
}

impl Default for Outcome {
    fn default() -> Self {
        Self { ok: true, skips: Vec::new(), log: String::new() }
    }
}

/// A tool that the machine lacks and that may be lacked: the stage is skipped, but fails with CI=true.
#[derive(Debug)]
pub(crate) struct Missing(pub(crate) String);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Missing {}

/// What takes longer than a stage may, and what command does it: the stage is skipped, and says so. In CI too.
#[derive(Debug)]
pub(crate) struct TooLong(pub(crate) String);

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TooLong {}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Passed,
    Failed,
    Skipped,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "FAILED",
            Self::Skipped => "skipped",
        }
    }
}

/// The stages that have been run; displayed as the closing table.
#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<(String, Verdict, Duration)>,
    skips: Vec<String>,
}

impl Report {
    /// Runs one stage and prints its line.
    pub(crate) fn run(&mut self, ctx: &Ctx, stage: Stage) {
        let start = Instant::now();
        let result = (stage.action)(ctx);
        let elapsed = start.elapsed();
        let (verdict, log) = match result {
            Ok(outcome) => {
                self.skips.extend(outcome.skips.iter().map(|skip| format!("{}: {skip}", stage.name)));
                (if outcome.ok { Verdict::Passed } else { Verdict::Failed }, outcome.log)
            }
            Err(error) if error.is::<TooLong>() || (error.is::<Missing>() && !ctx.ci) => {
                self.skips.push(format!("{}: the whole stage: {error:#}", stage.name));
                (Verdict::Skipped, format!("{error:#}"))
            }
            Err(error) => (Verdict::Failed, format!("{error:#}")),
        };
        println!("{}", row(&stage.name, verdict, elapsed));
        for line in log.lines() {
            println!("    {line}");
        }
        self.rows.push((stage.name, verdict, elapsed));
    }

    pub(crate) fn failed(&self) -> usize {
        self.count(Verdict::Failed)
    }

    fn count(&self, wanted: Verdict) -> usize {
        self.rows.iter().filter(|(_, verdict, _)| *verdict == wanted).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f)?;
        for (name, verdict, elapsed) in &self.rows {
            writeln!(f, "{}", row(name, *verdict, *elapsed))?;
        }
        let total: Duration = self.rows.iter().map(|(_, _, elapsed)| *elapsed).sum();
        writeln!(f, "{:24} {:>7.1} s", "total", total.as_secs_f64())?;
        if !self.skips.is_empty() {
            writeln!(f, "\n{} skipped:", self.skips.len())?;
            for skip in &self.skips {
                writeln!(f, "  {skip}")?;
            }
        }
        let (passed, skipped) = (self.count(Verdict::Passed), self.count(Verdict::Skipped));
        writeln!(f, "\n{passed} passed, {} failed, {skipped} skipped", self.failed())
    }
}

fn row(name: &str, verdict: Verdict, elapsed: Duration) -> String {
    format!("{:8} {name:15} {:>7.1} s", verdict.word(), elapsed.as_secs_f64())
}

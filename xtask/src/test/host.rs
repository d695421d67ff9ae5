// SPDX-License-Identifier: MIT OR Apache-2.0
//! The stages that need no kernel: the compiler's opinion, the tests, the documentation, and loom.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::stage::{Missing, Outcome, Stage};
use crate::bench;
use crate::ctx::Ctx;
use crate::process::{capture, found, tail};

/// The models must stay small enough to be run with every change.
const LOOM_LIMIT: Duration = Duration::from_secs(300);

/// What the caller may have set for a run of one test's by hand. Here it would cut others short.
pub(crate) const OURS: [&str; 6] =
    ["LOOM_MAX_DURATION", "LOOM_MAX_PERMUTATIONS", "LOOM_CHECKPOINT_FILE", "SQ_SEED", "SQ_PROGRAMS", "SQ_SCHEDULE"];

/// In the order of their cost: what fails often and fast comes first.
pub(crate) fn stages() -> Vec<Stage> {
    vec![
        Stage::new("fmt", "cargo fmt --check", |ctx| {
            let mut cargo = component(ctx, "fmt", "rustfmt")?;
            cargo.args(["--all", "--check", "--", "--color=never"]);
            outcome("fmt", &mut cargo)
        }),
        Stage::new("rules", "every rule of docs/protocol.md is cited by a test", super::rules::check),
        Stage::new("clippy", "cargo clippy, warnings denied", |ctx| {
            let mut cargo = component(ctx, "clippy", "clippy")?;
            cargo.args(["--workspace", "--all-targets", "--", "-Dwarnings"]);
            outcome("clippy", &mut cargo)
        }),
        Stage::new("test", "unit and integration tests, the C header's check among them", tests),
        Stage::new("doctest", "the examples in the documentation", |ctx| {
            outcome("doctest", cargo(ctx).args(["test", "--workspace", "--doc"]))
        }),
        Stage::new("doc", "rustdoc, warnings denied", |ctx| {
            let mut cargo = cargo(ctx);
            cargo.args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-Dwarnings");
            outcome("doc", &mut cargo)
        }),
        Stage::new(
            "bench",
            "each row of the benchmarks runs once, and docs/performance.md is what its figures say",
            |ctx| {
                bench::report::check(ctx)?;
                outcome("bench", cargo(ctx).args(["test", "-p", "sq-bench", "--benches"]))
            },
        ),
        Stage::new("loom", "every interleaving of the ring's two halves, and random ones of many threads", |ctx| {
            let [all, random] = [loom(ctx)?, storm(ctx, false)?];
            let log = [all.log, random.log].join("");
            Ok(Outcome { ok: all.ok && random.ok, skips: all.skips, log })
        }),
        Stage::new("spin", "a model of the protocol: nothing stands still while there is work", super::spin::check),
        Stage::new(
            "mutants",
            "the sabotages of `cargo xtask mutants` fit the sources, and three of them turn red",
            crate::mutants::stage,
        ),
        Stage::new("fuzz", "a minute of each fuzz target", crate::fuzz::stage),
    ]
}

fn tests(ctx: &Ctx) -> Result<Outcome> {
    let mut cargo = cargo(ctx);
    if found("cargo-nextest") {
        cargo.args(["nextest", "run", "--workspace", "--no-tests=pass", "--no-fail-fast"]);
        // Output of tests that pass too: a test that skips a part of itself says so there.
        cargo.args(["--status-level=skip", "--final-status-level=slow", "--success-output=immediate"]);
    } else {
        cargo.args(["test", "--workspace", "--lib", "--bins", "--tests", "--no-fail-fast", "--", "--show-output"]);
    }
    outcome("test", &mut cargo)
}

/// The tests of a checker that replaces the atomics of both halves by `--cfg NAME`; its own target directory keeps the others warm.
fn models(ctx: &Ctx, name: &str) -> Command {
    let mut cargo = cargo(ctx);
    cargo.args(["test", "--release", "-p", "sq-conformance", "--test", &format!("{name}*")]);
    as_model(&mut cargo, name, &ctx.root.join("target"));
    cargo
}

/// Has `cargo` build for that checker.
pub(crate) fn as_model(cargo: &mut Command, name: &str, target: &Path) {
    cargo.env("RUSTFLAGS", format!("--cfg {name}")).env("CARGO_TARGET_DIR", target.join(name));
    // Optimised, but not for size or speed of the last per cent: linking would take longer than the models.
    cargo.env("CARGO_PROFILE_RELEASE_LTO", "off").env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
}

/// Random schedules: seconds of them, or minutes for the night.
pub(crate) fn storm(ctx: &Ctx, long: bool) -> Result<Outcome> {
    let mut cargo = models(ctx, "shuttle");
    if long {
        cargo.env("SQ_LONG", "1");
    }
    models_outcome("shuttle", &mut cargo)
}

fn loom(ctx: &Ctx) -> Result<Outcome> {
    let start = Instant::now();
    let mut outcome = models_outcome("loom", &mut models(ctx, "loom"))?;
    if start.elapsed() > LOOM_LIMIT {
        outcome.ok = false;
        outcome.log.push_str("\nthe loom models took longer than their 5 minutes: bound them");
    }
    Ok(outcome)
}

fn cargo(ctx: &Ctx) -> Command {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(&ctx.root).env("CARGO_TERM_COLOR", "never");
    OURS.iter().for_each(|name| _ = cargo.env_remove(name));
    cargo
}

/// `cargo NAME`, when the toolchain has it.
fn component(ctx: &Ctx, name: &str, component: &str) -> Result<Command> {
    let mut probe = cargo(ctx);
    if !probe.args([name, "--version"]).output().is_ok_and(|o| o.status.success()) {
        return Err(Missing(format!("cargo {name} is missing; run: rustup component add {component}")).into());
    }
    let mut cargo = cargo(ctx);
    cargo.arg(name);
    Ok(cargo)
}

fn outcome(name: &str, command: &mut Command) -> Result<Outcome> {
    let output = capture(name, command)?;
    Ok(Outcome {
        ok: output.ok,
        skips: skips(&output.text),
        log: if output.ok { String::new() } else { tail(&output.text, 120) },
    })
}

/// As [`outcome`], of test programs that all have something to run: without its `--cfg` one is empty, and passes.
fn models_outcome(name: &str, command: &mut Command) -> Result<Outcome> {
    let output = capture(name, command)?;
    let ok = output.ok && each_ran(&output.text);
    let why = if output.ok && !ok { "\na test program ran no test, or there was none" } else { "" };
    Ok(Outcome { ok, skips: skips(&output.text), log: if ok { String::new() } else { tail(&output.text, 120) + why } })
}

/// Whether in libtest's `text` at least one test passed in each program, of which there are some.
fn each_ran(text: &str) -> bool {
    let passed = text.lines().filter_map(|line| line.strip_prefix("test result: ok. "));
    let mut counts =
        passed.map(|rest| rest.split(' ').next().and_then(|n| n.parse::<u32>().ok()).unwrap_or(0)).peekable();
    counts.peek().is_some() && counts.all(|count| count > 0)
}

/// What libtest calls "ignored", nextest "SKIP", and a test that skips a part of itself "SKIP: why" or "SKIPPED: why".
pub(crate) fn skips(text: &str) -> Vec<String> {
    let is_skip =
        |line: &&str| line.starts_with("SKIP") || (line.starts_with("test ") && line.contains(" ... ignored"));
    let mut skips: Vec<String> = text.lines().map(str::trim).filter(is_skip).map(str::to_owned).collect();
    skips.dedup();
    skips
}

#[cfg(test)]
mod tests {
    use super::each_ran;

    #[test]
    fn a_program_without_a_test_is_noticed() {
        let result = |passed: u32| {
            format!("test result: ok. {passed} passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\n")
        };
        assert!(each_ran(&(result(14) + &result(1))));
        assert!(!each_ran(&(result(14) + &result(0))));
        assert!(!each_ran("Finished `release` profile\n"));
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs a model, as it is or weakened.
//!
//! A weakened run is a process of its own: a model that fails leaves threads in the middle of what they did, and their
//! destructors may fail again.

use std::process::{Command, Output};

use super::loom_mem::Weaken;

/// A model: a program of a few threads, over a ring with one thing made weaker.
pub type Program = fn(Weaken);

/// In a weakened run, what is weakened.
const VARIABLE: &str = "SQ_LOOM_WEAKEN";

/// Explores the executions of `program` with at most `preemptions` preemptive switches, or, with `None`, all.
/// `LOOM_MAX_PREEMPTIONS` takes the place of `preemptions`.
///
/// # Panics
///
/// If one of them fails: an assertion, a data race, or a deadlock, which is what a lost wake-up is here.
pub fn explore(program: Program, preemptions: Option<usize>) {
    let weaken = std::env::var(VARIABLE).map_or(Weaken::Nothing, |name| {
        Weaken::every().find(|weaken| format!("{weaken:?}") == name).expect("unknown weakening")
    });
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(preemptions);
    builder.max_branches = 10_000;
    builder.check(move || program(weaken));
}

/// Runs the test `name` of this file with `weaken` weakened.
fn run(name: &str, weaken: Weaken) -> Output {
    let mut run = Command::new(std::env::current_exe().unwrap());
    run.args(["--exact", "--nocapture", "--test-threads=1", name]);
    run.env(VARIABLE, format!("{weaken:?}")).env("RUST_BACKTRACE", "0");
    run.output().unwrap()
}

/// Prints which of the tests `names` of this file go red for each weakening there is. docs/memory-model.md is made from it.
pub fn matrix(names: &[&str]) {
    for weaken in Weaken::every() {
        let red = names.iter().filter(|name| !run(name, weaken).status.success());
        println!("{weaken:?}: {}", red.copied().collect::<Vec<_>>().join(" "));
    }
}

/// Shows that the test `name` of this file goes red when `weaken` is.
///
/// # Panics
///
/// If it does not.
pub fn must_fail(name: &str, weaken: Weaken) {
    let output = run(name, weaken);
    let text = String::from_utf8_lossy(&output.stderr);
    // The first panic is the finding; the line after it says what.
    let finding = text.lines().skip_while(|line| !line.contains("panicked at")).nth(1).unwrap_or_default();
    assert!(!output.status.success(), "{name}: {weaken:?} goes unnoticed");
    let known = ["Causality violation", "deadlock", "assertion"];
    assert!(known.iter().any(|how| finding.contains(how)), "{name}: {weaken:?} fails in another way: {text}");
    let finding: String = finding.chars().take(100).collect();
    println!("{name}: {weaken:?} is noticed: {finding}");
}

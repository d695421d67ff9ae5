// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask mutants`: small sabotages of the sources, each of which must turn a check red.
//!
//! It works on a copy of the tracked files in the cache, with build folders of its own: the checkout is never touched. Every check is
//! run on the copy as it is first, since a red check says nothing if it is never green: then its rows say nothing, and the others go on. And red is only what a check says itself: a
//! sabotage that does not build is an error of the table.

mod check;
mod copy;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail, ensure};

use crate::ctx::Ctx;
use crate::process::spinner;
use crate::test::Outcome;
use crate::vm::Alone;
use check::{Check, LIMIT_AS_IT_IS, Ran, Verdict, limit};
use copy::Copy;
use table::{SAMPLE, mutants};

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
    if let Some(name) = names.iter().find(|name| !mutants().any(|mutant| mutant.name == name.as_str())) {
        bail!("no sabotage is called {name}; cargo xtask mutants --list names them");
    }
    Ok(mutants().filter(|mutant| names.is_empty() || names.iter().any(|name| name == mutant.name)).collect())
}

/// Returns the names of those that no check notices.
fn apply_all(ctx: &Ctx, chosen: &[&Mutant], mut say: impl FnMut(String)) -> Result<Vec<&'static str>> {
    let copy = Copy::make(ctx)?;
    fits(&copy)?;
    let start = Instant::now();
    let checks: BTreeSet<Check> = chosen.iter().map(|mutant| mutant.check.as_it_is()).collect();
    let bar = spinner("programs of the guests");
    let programs: BTreeMap<&str, Alone> =
        checks.iter().filter_map(|check| check.alone()).map(|alone| (alone.program(), alone)).collect();
    programs.values().try_for_each(|alone| copy.build_program(*alone))?;
    bar.finish_and_clear();
    // What each takes where it is green, or why it says nothing.
    let mut green = BTreeMap::new();
    for check in checks {
        let bar = spinner(&format!("as it is: {}", check.label()));
        let ran = check.run(ctx, &copy, LIMIT_AS_IT_IS);
        bar.finish_and_clear();
        green.insert(check, as_it_is(ran));
    }
    let (count, red) = (green.len(), green.values().filter(|end| end.is_err()).count());
    let seconds = start.elapsed().as_secs_f64();
    say(format!(
        "{count} checks, {} green as it is, in {seconds:.0} s",
        if red == 0 { "all".to_owned() } else { (count - red).to_string() }
    ));
    for (check, end) in &green {
        if let Err(why) = end {
            say(format!("{}, without any sabotage, {why}", check.label()));
        }
    }
    say(format!("{:40} {:8} {:58} red in s", "sabotage", "rule", "check"));
    let (mut unnoticed, mut hangs, mut errors) = (Vec::new(), 0, Vec::new());
    for mutant in chosen {
        let Mutant { name, rule, file, old, new, check } = **mutant;
        let bar = spinner(name);
        let began = Instant::now();
        let verdict = match green.get(&check.as_it_is()) {
            Some(Ok(took)) => copy.with(file, old, new, || check.run(ctx, &copy, limit(*took))).map(|ran| ran.verdict),
            _ => Err(anyhow!("its check is not green without any sabotage, see above")),
        };
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
            // What says nothing is not noticed.
            Err(error) => {
                unnoticed.push(name);
                errors.push(format!("{name}: {error:#}"));
                "SAYS NOTHING, see below".to_owned()
            }
        };
        say(format!("{name:40} {rule:8} {:58} {end}", check.label()));
    }
    errors.into_iter().for_each(&mut say);
    let seconds = start.elapsed().as_secs_f64();
    let red = chosen.len() - unnoticed.len();
    say(format!("{red} of {} sabotages are noticed, {hangs} of them by hanging, in {seconds:.0} s", chosen.len()));
    Ok(unnoticed)
}

/// What a check took that was run without any sabotage, or, if it was not green, why nothing can be said by it.
fn as_it_is(ran: Result<Ran>) -> Result<Duration, String> {
    match ran {
        Ok(Ran { verdict: Verdict::Green, took, .. }) => Ok(took),
        Ok(Ran { verdict, said, .. }) => {
            Err(format!("{}:\n{said}", if verdict == Verdict::Hangs { "hangs" } else { "is red" }))
        }
        Err(why) => Err(format!("says nothing: {why:#}")),
    }
}

/// Each row's `old` is in its file exactly once, or the table is out of date.
fn fits(copy: &Copy) -> Result<()> {
    let mut wrong = Vec::new();
    for &Mutant { name, file, old, .. } in mutants() {
        let times = copy.read(file)?.matches(old).count();
        if times != 1 {
            wrong.push(format!("{name}: {file} has its text {times} times"));
        }
    }
    ensure!(wrong.is_empty(), "follow the code in xtask/src/mutants/table:\n{}", wrong.join("\n"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use std::time::Duration;

    use anyhow::anyhow;

    use super::check::{Check, Ran, Verdict, limit};
    use super::table::{SAMPLE, mutants};
    use super::{as_it_is, choose};
    use crate::vm::Alone;

    #[test]
    fn names_are_names() {
        let names: BTreeSet<&str> = mutants().map(|mutant| mutant.name).collect();
        assert_eq!(names.len(), mutants().count());
        assert!(SAMPLE.iter().all(|name| names.contains(name)));
        assert!(choose(&["nobody".to_owned()]).is_err());
    }

    #[test]
    fn a_check_that_is_not_green_as_it_is_says_why() {
        let ran = |verdict| Ok(Ran { verdict, said: "what it said".to_owned(), took: Duration::from_secs(7) });
        assert_eq!(as_it_is(ran(Verdict::Green)), Ok(Duration::from_secs(7)));
        assert_eq!(as_it_is(ran(Verdict::Red)), Err("is red:\nwhat it said".to_owned()));
        assert_eq!(as_it_is(ran(Verdict::Hangs)), Err("hangs:\nwhat it said".to_owned()));
        assert_eq!(as_it_is(Err(anyhow!("no"))), Err("says nothing: no".to_owned()));
        // A hang is one only for what is fast otherwise.
        assert_eq!([1, 7].map(|s| limit(Duration::from_secs(s)).as_secs()), [60, 70]);
    }

    /// Who gives a guest's check another name or place learns it at once, not at night.
    #[test]
    fn the_checks_of_guests_are_there() {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests");
        for mutant in mutants() {
            let (places, name) = match mutant.check {
                Check::Guest(Alone::Life(group, check)) => {
                    (vec![tests.join(format!("examples/life/{group}.rs"))], check.to_owned())
                }
                Check::Guest(Alone::Test(target, test)) => {
                    let files = fs::read_dir(tests.join("tests").join(target)).unwrap();
                    (files.map(|file| file.unwrap().path()).collect(), format!("fn {test}("))
                }
                _ => continue,
            };
            let there = places.iter().any(|path| fs::read_to_string(path).unwrap().contains(&name));
            assert!(there, "{}: no check of {places:?} is {name}", mutant.name);
        }
    }

    #[test]
    fn the_readme_counts_them() {
        let said = format!("sabotages a copy of the sources in {} ways", mutants().count());
        assert!(include_str!("../../../README.md").contains(&said), "README.md does not say: {said}");
    }
}

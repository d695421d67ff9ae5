// SPDX-License-Identifier: MIT OR Apache-2.0
//! The model of tests/spin: each run in a list, and that model and sources still speak of the same things.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::stage::Outcome;
use crate::apt;
use crate::ctx::{Ctx, lock};
use crate::process::{capture, run};

/// Where the functions are that the model's steps stand for.
const SOURCES: [&str; 2] = ["kmod-sq/src", "liburing-shm/src/ring"];

/// What a run must show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// No assertion fails, and nobody is left behind.
    Holds,
    /// There is no cycle.
    Ends,
    /// The checker finds something.
    Fails,
    /// The checker finds a cycle.
    Loops,
}

impl Wanted {
    /// Whether the checker looks for cycles.
    const fn cycles(self) -> bool {
        matches!(self, Self::Ends | Self::Loops)
    }

    /// Whether a step is left out.
    const fn sabotaged(self) -> bool {
        matches!(self, Self::Fails | Self::Loops)
    }
}

/// Runs the list. A run that fails to fail is as wrong as one that fails.
pub(crate) fn check(ctx: &Ctx) -> Result<Outcome> {
    apt::ensure(&["spin", "gcc", "libc6-dev"])?;
    let folder = ctx.root.join("tests/spin");
    let read = |name: &str| {
        let path = folder.join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let (model, list) = (read("ring.pml")?, read("runs")?);
    let runs = list.lines().filter_map(parse).collect::<Result<Vec<_>>>()?;
    let mut wrong = drift(&ctx.root, &model, &runs)?;
    let scratch = ctx.checkout_cache("spin");
    let _lock = lock(&scratch)?;
    fs::create_dir_all(&scratch)?;
    let mut states = 0;
    for (wanted, symbols) in &runs {
        let label = symbols.join(" ");
        let (found, searched) =
            explore(&folder.join("ring.pml"), &scratch, *wanted, symbols).with_context(|| format!("run {label}"))?;
        states += searched;
        if found != wanted.sabotaged() {
            let what = if found { "goes wrong" } else { "nothing goes wrong, though a step is left out" };
            wrong.push(format!("{label}: {what}"));
        }
    }
    let log = if wrong.is_empty() {
        let fails = runs.iter().filter(|(wanted, _)| wanted.sabotaged()).count();
        format!("{} runs hold, {fails} sabotaged ones are found out, {states} states", runs.len() - fails)
    } else {
        wrong.join("\n")
    };
    Ok(Outcome { ok: wrong.is_empty(), log, ..Outcome::default() })
}

fn parse(line: &str) -> Option<Result<(Wanted, Vec<String>)>> {
    let line = line.split('#').next().unwrap_or_default();
    let mut words = line.split_whitespace();
    let wanted = match words.next()? {
        "holds" => Wanted::Holds,
        "ends" => Wanted::Ends,
        "fails" => Wanted::Fails,
        "loops" => Wanted::Loops,
        other => {
            return Some(Err(anyhow::anyhow!("tests/spin/runs: a run is no {other:?}: holds, ends, fails or loops")));
        }
    };
    Some(Ok((wanted, words.map(str::to_owned).collect())))
}

/// Whether the checker found anything, and how many states it looked at.
fn explore(model: &Path, scratch: &Path, wanted: Wanted, symbols: &[String]) -> Result<(bool, u64)> {
    let mut spin = Command::new("spin");
    spin.args(symbols.iter().map(|symbol| format!("-D{symbol}"))).arg("-a").arg(model).current_dir(scratch);
    // It speaks up and goes on when it has not understood something.
    let said = run("spin", &mut spin)?;
    if said.contains("Error") {
        bail!("spin: {said}");
    }
    // To optimise the checker takes ten times as long as to compile it, and longer than most searches.
    let mut gcc = Command::new("gcc");
    gcc.args(["-O0", "-w", "-DCOLLAPSE", "-DVECTORSZ=512", "-DNOFAIR", "-o", "pan", "pan.c"]).current_dir(scratch);
    gcc.arg(if wanted.cycles() { "-DNP" } else { "-DSAFETY" });
    run("compiling the checker", &mut gcc)?;
    let mut pan = Command::new(scratch.join("pan"));
    pan.current_dir(scratch).arg("-m100000").args(wanted.cycles().then_some("-l"));
    let text = capture(&format!("spin {}", symbols.join(" ")), &mut pan)?.text;
    let number = |before: &str, after: &str| -> Option<u64> {
        let line = text.lines().find(|line| line.contains(before) && line.contains(after))?;
        let rest = if before.is_empty() { line } else { line.split(before).nth(1)? };
        rest.split_whitespace().next()?.parse().ok()
    };
    let truncated = ["max search depth too small", "out of memory", "Search not completed"];
    let errors = number("errors: ", "").with_context(|| format!("the checker ended early: {text}"))?;
    if errors == 0 && truncated.iter().any(|sign| text.contains(sign)) {
        bail!("the search was cut short: {text}");
    }
    // Where a cycle is looked for, another error is none of the answer.
    if errors > 0 && wanted.cycles() && !text.contains("non-progress cycle") {
        bail!("no cycle, but: {text}");
    }
    Ok((errors > 0, number("", "states, stored").unwrap_or(0)))
}

/// Names in the model that mean nothing any more, and switches that nobody tries.
fn drift(root: &Path, model: &str, runs: &[(Wanted, Vec<String>)]) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for (file, name) in cited(model) {
        let paths = SOURCES.map(|folder| root.join(folder).join(file));
        let Some(path) = paths.iter().find(|path| path.is_file()) else {
            wrong.push(format!("ring.pml speaks of {file}, which is in neither of {}", SOURCES.join(", ")));
            continue;
        };
        let source = fs::read_to_string(path)?;
        if !["(", "<"].iter().any(|next| source.contains(&format!("fn {name}{next}"))) {
            wrong.push(format!("ring.pml speaks of a function {name} of {file}, which has none: follow the code"));
        }
    }
    let protocol = fs::read_to_string(root.join("docs/protocol.md"))?;
    wrong.extend(ruleless(model, &protocol));
    let switches: BTreeSet<&str> = model
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|w| w.starts_with("NO_") && w.len() > 3)
        .collect();
    let tried: BTreeSet<&str> = runs
        .iter()
        .filter(|(wanted, _)| wanted.sabotaged())
        .flat_map(|(_, symbols)| symbols.iter().map(String::as_str).filter(|symbol| symbol.starts_with("NO_")))
        .collect();
    wrong.extend(
        switches.symmetric_difference(&tried).map(|name| format!("{name} is not in both of ring.pml and runs")),
    );
    Ok(wrong)
}

/// `@ file.rs function and function`: pairs of file and function.
fn cited(model: &str) -> Vec<(&str, &str)> {
    let mut pairs = Vec::new();
    for place in model.split("@ ").skip(1) {
        let line = place.lines().next().unwrap_or_default();
        let mut words = line.split([' ', '\t']);
        let Some(file) = words.next().filter(|file| file.ends_with(".rs")) else { continue };
        while let Some(word) = words.next() {
            pairs.push((file, word.trim_end_matches([':', ',', '.'])));
            if word.ends_with([':', ',', '.']) || words.next() != Some("and") {
                break;
            }
        }
    }
    pairs
}

/// Comments that name a function but no rule, and ids that are no rule of the protocol.
fn ruleless(model: &str, protocol: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for comment in
        model.split("/*").skip(1).filter_map(|rest| rest.split("*/").next()).filter(|text| text.contains("@ "))
    {
        let ids: Vec<&str> =
            comment.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').filter(|word| is_id(word)).collect();
        let step = comment.split_whitespace().collect::<Vec<_>>().join(" ");
        if ids.is_empty() {
            wrong.push(format!("ring.pml: a step has no rule: {step}"));
        }
        let unknown = ids.iter().filter(|id| !protocol.contains(&format!("\n| {id} | ")));
        wrong.extend(unknown.map(|id| format!("ring.pml: {id} is no rule of docs/protocol.md: {step}")));
    }
    wrong
}

/// `BELL-1` and its like.
fn is_id(word: &str) -> bool {
    word.split_once('-').is_some_and(|(letters, digits)| {
        letters.len() > 1
            && letters.chars().all(|c| c.is_ascii_uppercase())
            && !digits.is_empty()
            && digits.chars().all(|c| c.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::{Wanted, cited, parse, ruleless};

    #[test]
    fn each_step_has_a_rule() {
        let protocol = "| id | rule |\n| CQ-2 | Said. |\n| X-1 |";
        let wrong = |model: &str| ruleless(model, protocol).len();
        assert_eq!(wrong("/* @ sq.rs stock: CQ-2. A slot of x86-64 */ x /* nothing */"), 0);
        assert_eq!(wrong("/* @ sq.rs stock: a slot */ /* CQ-2 */"), 1);
        assert_eq!(wrong("/* @ sq.rs stock: CQ-2, CQ-9 */\n/*\n * @ sq.rs tell\n */"), 2);
    }

    #[test]
    fn what_a_model_speaks_of() {
        let text = "/* @ drain.rs run and late: said */\n/* @ cq.rs look */ x @ y\n";
        assert_eq!(cited(text), [("drain.rs", "run"), ("drain.rs", "late"), ("cq.rs", "look")]);
    }

    #[test]
    fn a_line_of_the_list() {
        let (wanted, symbols) = parse("fails MODE=WORKER NO_X # why").unwrap().unwrap();
        assert_eq!((wanted, symbols), (Wanted::Fails, vec!["MODE=WORKER".to_owned(), "NO_X".to_owned()]));
        assert!(parse("# nothing").is_none());
        assert!(matches!(parse("loops NO_X").unwrap().unwrap().0, Wanted::Loops));
        assert!(parse("passes X").unwrap().is_err());
    }
}

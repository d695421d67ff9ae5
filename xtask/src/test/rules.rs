// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every rule of docs/protocol.md has a test that cites it: in the name of a test, or in what a check says when it fails. Of a rule that is
//! not kept yet, the test is that it is refused. Comments do not count.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::stage::Outcome;
use crate::ctx::Ctx;

/// The rules that no test cites make the stage fail; those that are not kept yet are listed with the skips, and their tests say that what
/// they are about is refused.
pub(crate) fn check(ctx: &Ctx) -> Result<Outcome> {
    let doc = ctx.root.join("docs/protocol.md");
    let doc = fs::read_to_string(&doc).with_context(|| format!("cannot read {}", doc.display()))?;
    let mut cited = BTreeSet::new();
    for file in test_sources(&ctx.root)? {
        let source = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        cited.extend(citations(&source));
    }

    let mut outcome = Outcome::default();
    for (id, kept) in rules(&doc) {
        if !cited.contains(id) {
            outcome.ok = false;
            outcome.log.push_str(&format!("no test cites {id}, by its name or in what it says when it fails\n"));
        } else if !kept {
            outcome.skips.push(format!("{id} is not kept yet, says docs/protocol.md; a test says what is refused"));
        }
    }
    Ok(outcome)
}

/// The ids in the names of tests that are run (`idx3_`, `idx_3_`), and in string literals (`IDX-3`).
fn citations(source: &str) -> BTreeSet<String> {
    let (code, strings) = split(source);
    let mut ids: BTreeSet<String> = strings
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
        .filter(|word| is_id(word))
        .map(str::to_owned)
        .collect();
    for test in code.split("#[test]").skip(1) {
        let (attributes, rest) = test.split_once("fn ").unwrap_or((test, ""));
        if attributes.contains("#[ignore") {
            continue;
        }
        let name = rest.split(['(', '<']).next().unwrap_or_default();
        let parts: Vec<&str> = name.split('_').collect();
        let joined = parts.iter().map(|part| part.to_ascii_uppercase()).filter_map(|part| {
            let digits = part.find(|c: char| c.is_ascii_digit()).filter(|at| *at > 0)?;
            Some(format!("{}-{}", &part[..digits], &part[digits..]))
        });
        let apart = parts.windows(2).map(|pair| format!("{}-{}", pair[0].to_ascii_uppercase(), pair[1]));
        ids.extend(joined.chain(apart).filter(|word| is_id(word)));
    }
    ids
}

fn is_id(word: &str) -> bool {
    word.split_once('-').is_some_and(|(word, number)| {
        let is_word = !word.is_empty() && word.chars().all(|c| c.is_ascii_uppercase());
        is_word && !number.is_empty() && number.chars().all(|c| c.is_ascii_digit())
    })
}

/// A Rust source without comments and string literals, and the literals. (Raw strings with quotes in them are beyond it.)
fn split(source: &str) -> (String, String) {
    let (mut code, mut strings) = (String::new(), String::new());
    let mut chars = source.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '/' if chars.peek() == Some(&'/') => drop(chars.by_ref().find(|c| *c == '\n')),
            // A character: '"' is no string's begin.
            '\'' if chars.peek() == Some(&'"') => drop(chars.next()),
            '"' => {
                while let Some(c) = chars.next().filter(|c| *c != '"') {
                    strings.push(if c == '\\' { chars.next().map_or(' ', |_| ' ') } else { c });
                }
                strings.push('\n');
            }
            c => code.push(c),
        }
    }
    (code, strings)
}

/// Ids in the rules' tables, and whether the rule is kept.
fn rules(doc: &str) -> impl Iterator<Item = (&str, bool)> {
    doc.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| ")?.split(" | ");
        let (id, rule) = (cells.next()?, cells.next()?);
        is_id(id).then(|| (id, !rule.starts_with("**Not yet")))
    })
}

/// Every Rust file in a folder called `tests`, anywhere but in build folders.
fn test_sources(root: &Path) -> Result<Vec<PathBuf>> {
    let mut sources = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() && name != "target" && name != "build" && !name.starts_with('.') {
                folders.push(path);
            } else if name.ends_with(".rs") && path.components().any(|part| part.as_os_str() == "tests") {
                sources.push(path);
            }
        }
    }
    Ok(sources)
}

#[cfg(test)]
mod tests {
    use super::{citations, rules};

    #[test]
    fn ids_are_found_in_tables_only() {
        let doc =
            "| id | rule |\n|---|---|\n| BELL-1 | Before it sleeps | x |\n| CQ-3 | **Not yet.** | |\ntext CAN-1 |\n";
        assert_eq!(rules(doc).collect::<Vec<_>>(), [("BELL-1", true), ("CQ-3", false)]);
    }

    #[test]
    fn a_comment_cites_nothing() {
        let source = "//! IDX-1\n#[test]\n#[cfg(x)]\nfn idx2_and_idx_3_hold() {\n    // IDX-4\n    assert!(x, \"SNAP-1: \\\" no\"); // \"CQ-1\"\n}
            #[test]\n#[ignore]\nfn cq_2_later() {}\nfn cq4_helper() { let quote = '\"'; /* why */ }\n";
        let cited: Vec<String> = citations(source).into_iter().collect();
        assert_eq!(cited, ["IDX-2", "IDX-3", "SNAP-1"]);
    }
}

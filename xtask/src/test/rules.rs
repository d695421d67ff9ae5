// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every rule of docs/protocol.md that is kept has a test that cites it, by id or in its name.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::stage::Outcome;
use crate::ctx::Ctx;

/// The rules that no test cites make the stage fail; those that are not kept yet are listed with the skips.
pub(crate) fn check(ctx: &Ctx) -> Result<Outcome> {
    let doc = ctx.root.join("docs/protocol.md");
    let doc = fs::read_to_string(&doc).with_context(|| format!("cannot read {}", doc.display()))?;
    let mut tests = String::new();
    for file in test_sources(&ctx.root)? {
        tests.push_str(&fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?);
    }
    tests.make_ascii_lowercase();

    let mut outcome = Outcome::default();
    for (id, kept) in rules(&doc) {
        let id_lower = id.to_ascii_lowercase();
        // In prose "BELL-1", in the name of a test "bell1_".
        let cited = tests.contains(&id_lower) || tests.contains(&format!("{}_", id_lower.replace('-', "")));
        if !kept {
            outcome.skips.push(format!("{id} is not kept yet, says docs/protocol.md"));
        } else if !cited {
            outcome.ok = false;
            outcome.log.push_str(&format!("no test cites {id}\n"));
        }
    }
    Ok(outcome)
}

/// Ids in the rules' tables, and whether the rule is kept.
fn rules(doc: &str) -> impl Iterator<Item = (&str, bool)> {
    doc.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| ")?.split(" | ");
        let (id, rule) = (cells.next()?, cells.next()?);
        let (word, number) = id.split_once('-')?;
        let is_id = word.chars().all(|c| c.is_ascii_uppercase()) && number.chars().all(|c| c.is_ascii_digit());
        (is_id && !word.is_empty() && !number.is_empty()).then(|| (id, !rule.starts_with("**Not yet")))
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
    use super::rules;

    #[test]
    fn ids_are_found_in_tables_only() {
        let doc =
            "| id | rule |\n|---|---|\n| BELL-1 | Before it sleeps | x |\n| CQ-3 | **Not yet.** | |\ntext CAN-1 |\n";
        assert_eq!(rules(doc).collect::<Vec<_>>(), [("BELL-1", true), ("CQ-3", false)]);
    }
}

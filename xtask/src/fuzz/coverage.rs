// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which lines of `kmod-sq/src` the inputs reach: the replaying test, built by the stable compiler with its own counters, and read
//! by LLVM's tools from apt.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::apt;
use crate::cargo::program;
use crate::ctx::{Ctx, lock};
use crate::process::{run, stdout};
use crate::test::Missing;

/// Reads what rustc's LLVM writes, though that is newer.
const LLVM: &str = "19";

/// Replays seeds and corpus, and reports the lines of each file, those that nothing reached, and the per cent that were.
///
/// # Errors
/// [`Missing`] without LLVM's tools; else an input fails, or something is wrong with the report.
pub(crate) fn report(ctx: &Ctx) -> Result<(String, f64)> {
    apt::ensure(&[&format!("llvm-{LLVM}")]).map_err(|why| Missing(format!("{why:#}")))?;
    let target = ctx.root.join("target/coverage");
    let _lock = lock(&target)?;
    let program = build(ctx, &target)?;
    let raw = target.join("corpus.profraw");
    let profile = target.join("corpus.profdata");
    let mut replay = Command::new(&program);
    replay.env("LLVM_PROFILE_FILE", &raw).env("SQ_CORPUS", ctx.root.join("fuzz/corpus"));
    run("replaying the corpus", &mut replay)?;
    run("merging", Command::new(format!("llvm-profdata-{LLVM}")).arg("merge").arg(&raw).arg("-o").arg(&profile))?;
    let mut export = Command::new(format!("llvm-cov-{LLVM}"));
    export.args(["export", "--format=lcov"]).arg(&program).arg(format!("--instr-profile={}", profile.display()));
    export.arg("--sources").arg(ctx.root.join("kmod-sq/src"));
    let lcov = stdout(&mut export)?;
    fs::write(target.join("kmod-sq.lcov"), &lcov)?;
    Ok(summary(&lcov, &ctx.root.join("kmod-sq/src")))
}

fn build(ctx: &Ctx, target: &Path) -> Result<PathBuf> {
    let mut cargo = Command::new("cargo");
    cargo.args(["test", "-p", "sq-conformance", "--test", "corpus", "--no-run"]);
    cargo.current_dir(&ctx.root).env("CARGO_TARGET_DIR", target).env("RUSTFLAGS", "-Cinstrument-coverage");
    // Of build scripts, which are built alike.
    cargo.env("LLVM_PROFILE_FILE", "/dev/null");
    program(&mut cargo, "test", "corpus")
}

/// From lcov's `SF:file`, `DA:line,count`.
fn summary(lcov: &str, sources: &Path) -> (String, f64) {
    let mut text = String::from("lines of kmod-sq/src reached by seeds and corpus\n");
    let (mut all, mut reached) = (0, 0);
    for record in lcov.split("end_of_record") {
        let Some(file) = record.lines().find_map(|line| line.strip_prefix("SF:")) else { continue };
        let lines: Vec<(u32, bool)> = record
            .lines()
            .filter_map(|line| line.strip_prefix("DA:")?.split_once(','))
            .filter_map(|(line, count)| Some((line.parse().ok()?, count != "0")))
            .collect();
        let hit = lines.iter().filter(|(_, hit)| *hit).count();
        (all, reached) = (all + lines.len(), reached + hit);
        let name = Path::new(file).strip_prefix(sources).unwrap_or(Path::new(file)).display().to_string();
        let never = ranges(lines.iter().filter(|(_, hit)| !hit).map(|(line, _)| *line));
        let _ = writeln!(text, "{name:16} {hit:>4} of {:>4}  {never}", lines.len());
    }
    let share = f64::from(reached as u32) / f64::from((all as u32).max(1)) * 100.0;
    let _ = write!(text, "{:16} {reached:>4} of {all:>4}, {share:.1} %", "in all");
    (text, share)
}

/// "3-5 9", with a leading "never:" if there are any.
fn ranges(lines: impl Iterator<Item = u32>) -> String {
    let mut spans: Vec<(u32, u32)> = Vec::new();
    for line in lines {
        match spans.last_mut() {
            Some((_, end)) if *end + 1 == line => *end = line,
            _ => spans.push((line, line)),
        }
    }
    let words = spans.iter().map(|(a, b)| if a == b { a.to_string() } else { format!("{a}-{b}") });
    let words = words.collect::<Vec<_>>().join(" ");
    if words.is_empty() { words } else { format!("never: {words}") }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{ranges, summary};

    #[test]
    fn lines_are_counted() {
        let lcov = "SF:/s/a.rs\nDA:1,0\nDA:2,7\nend_of_record\nSF:/s/b.rs\nDA:4,0\nDA:5,0\nDA:6,0\nend_of_record\n";
        let (text, share) = summary(lcov, Path::new("/s"));
        assert!((19.9..20.1).contains(&share), "{share}");
        assert!(text.contains("a.rs                1 of    2  never: 1\n"), "{text}");
        assert!(text.contains("b.rs                0 of    3  never: 4-6\n"), "{text}");
        assert!(text.ends_with("1 of    5, 20.0 %"), "{text}");
        assert_eq!(ranges([].into_iter()), "");
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The commands of docs/driver-guide.md, taken from it and run: from an empty directory to a client in the guest.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::stage::Outcome;
use crate::ctx::{Ctx, lock};
use crate::fuzz::cargo_fuzz;
use crate::kernel::Kernel;
use crate::process::run;

/// The kernel that the guide's `make test` boots.
const KERNEL: Kernel = Kernel::V6_12;

/// A minute of the guide's `make fuzz`, on a new driver.
const FUZZ: &str =
    "cd ~/sq && cargo xtask new-driver blink --lang rust --dir ~/drivers && cd ~/drivers/blink && make fuzz";

pub(crate) fn check(ctx: &Ctx) -> Result<Outcome> {
    let guide = ctx.root.join("docs/driver-guide.md");
    let guide = fs::read_to_string(&guide).with_context(|| format!("cannot read {}", guide.display()))?;
    let home = ctx.checkout_cache("guide");
    let _lock = lock(&home)?;
    let mut outcome = Outcome::default();
    for lang in ["rust", "c"] {
        empty(ctx, &home)?;
        let start = Instant::now();
        let log = run(&format!("the guide in {lang}"), &mut shell(ctx, &home, &script(&guide, lang)?)?)?;
        // What the clients print, each of them.
        if log.matches("2: 42\n1: 7\n").count() != 2 {
            bail!("two clients should have had their answers:\n{log}");
        }
        outcome
            .log
            .push_str(&format!("{lang}: driver, module and clients in {:.1} s\n", start.elapsed().as_secs_f64()));
    }
    fs::remove_dir_all(&home)?;
    Ok(outcome)
}

/// A new driver of the template under its own fuzz target; how that ended.
pub(crate) fn fuzz(ctx: &Ctx) -> Result<String> {
    let home = ctx.checkout_cache("guide");
    let _lock = lock(&home)?;
    empty(ctx, &home)?;
    let tools = cargo_fuzz(ctx)?.parent().context("a program is in a folder")?.to_owned();
    let old = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(tools).chain(std::env::split_paths(&old)))?;
    let log = run("a new driver under its fuzz target", shell(ctx, &home, FUZZ)?.env("PATH", path))?;
    let done =
        log.lines().rev().find(|line| line.starts_with("Done")).context("the fuzzer does not say how it ended")?;
    fs::remove_dir_all(&home)?;
    Ok(done.to_owned())
}

/// Makes a home with nothing in it but a link to the checkout.
fn empty(ctx: &Ctx, home: &Path) -> Result<()> {
    if home.exists() {
        fs::remove_dir_all(home)?;
    }
    fs::create_dir_all(home)?;
    std::os::unix::fs::symlink(&ctx.root, home.join("sq"))?;
    Ok(())
}

/// The blocks that are marked with `<!-- run: LANG -->`.
fn script(guide: &str, lang: &str) -> Result<String> {
    let mark = format!("<!-- run: {lang} -->\n```sh\n");
    let blocks: Vec<&str> = guide.split(&mark).skip(1).filter_map(|rest| Some(rest.split_once("```")?.0)).collect();
    if blocks.is_empty() {
        bail!("docs/driver-guide.md has no block to run for {lang}");
    }
    Ok(blocks.concat())
}

/// A reader's shell. Its home is empty but for the checkout; this machine may have no headers of the kernel that it runs.
fn shell(ctx: &Ctx, home: &Path, script: &str) -> Result<Command> {
    let mut sh = Command::new("sh");
    sh.args(["-euc", script]).current_dir(home);
    for (variable, default) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
        if std::env::var_os(variable).is_none() {
            sh.env(variable, std::env::home_dir().context("HOME is not set")?.join(default));
        }
    }
    sh.env("HOME", home).env("SQ_CACHE", &ctx.cache).env("SQ_CORE", &ctx.cache);
    sh.env("KDIR", KERNEL.headers(ctx)?);
    // Of the cargo that runs this.
    sh.env_remove("CARGO_MANIFEST_DIR").env_remove("MAKEFLAGS").env_remove("RUSTFLAGS");
    Ok(sh)
}

#[cfg(test)]
mod tests {
    use super::script;

    #[test]
    fn only_marked_blocks_are_run() {
        let guide = "```sh\nno\n```\n<!-- run: c -->\n```sh\none\n```\n<!-- run: rust -->\n```sh\nno\n```\n<!-- run: c -->\n```sh\ntwo\n```\n";
        assert_eq!(script(guide, "c").unwrap(), "one\ntwo\n");
        assert!(script(guide, "go").is_err());
    }
}

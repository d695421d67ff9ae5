// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask new-driver`: a driver outside this tree, made of the files in xtask/templates.
//!
//! A template is a driver called `sample` with the framework in /usr/src/sq: those two words are replaced, nothing else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::ctx::Ctx;

/// As `SQ_DRIVER_NAME_MAX` in sq_driver.h.
const NAME_MAX: usize = 15;
/// Drivers that this tree has.
const TAKEN: [&str; 3] = ["null", "ram", "file"];
/// Names that a file of the template or a crate that it needs (`sq-NAME`) has.
const CLASHING: [&str; 3] = ["client", "driver", "uapi"];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Name of the driver, 1 to 15 of a-z, 0-9 and _, a letter first: the device is /dev/sqNAME
    name: String,
    /// Language of the driver
    #[arg(long, value_name = "LANG")]
    lang: Lang,
    /// Where its directory is made [default: the current directory]
    #[arg(long, value_name = "D")]
    dir: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Lang {
    /// Also runs in a process: tests and a fuzz target without a module
    Rust,
    /// Plain Kbuild C
    C,
}

/// Path in the new directory, and content.
type Template = (&'static str, &'static str);

macro_rules! templates {
    ($folder:literal: $($path:literal)*) => {
        &[$(($path, include_str!(concat!("../templates/", $folder, "/", $path)))),*]
    };
}

const COMMON: &[Template] = templates!("common": "client.c" "sample.h" "guest-test.sh" "60-sq-sample.rules" "dkms.conf" "gitignore" "rustfmt.toml");
const RUST: &[Template] = templates!("rust": "Makefile" "Cargo.toml" "module.c" "src/lib.rs" "tests/embedded.rs"
    "examples/client.rs" "fuzz/Cargo.toml" "fuzz/fuzz_targets/commands.rs");
const C: &[Template] = templates!("c": "Makefile" "sample.c" "client-rust/Cargo.toml" "client-rust/src/main.rs");

pub(crate) fn new(ctx: &Ctx, args: &Args) -> Result<ExitCode> {
    check_name(&args.name)?;
    let parent = args.dir.clone().unwrap_or_else(|| PathBuf::from("."));
    let dir = parent.join(&args.name);
    let root = ctx.root.to_str().filter(|root| !root.contains(char::is_whitespace));
    let root = root.with_context(|| format!("make cannot work in {:?}: move the checkout", ctx.root))?;
    fs::create_dir_all(&parent).with_context(|| format!("cannot create {}", parent.display()))?;
    // Fails if it is there, whatever it is.
    fs::create_dir(&dir)
        .with_context(|| format!("cannot create {}: remove it, or choose another name", dir.display()))?;
    let own = match args.lang {
        Lang::Rust => RUST,
        Lang::C => C,
    };
    for (path, text) in COMMON.iter().chain(own) {
        write(&dir.join(fill(path, &args.name, root)), &fill(text, &args.name, root))?;
    }
    println!("{} is there; make -C {root}/kmod-sq, then in it: make, make test, make load", dir.display());
    Ok(ExitCode::SUCCESS)
}

fn fill(text: &str, name: &str, root: &str) -> String {
    let text = text.replace("/usr/src/sq/", &format!("{root}/")).replace("/usr/src/sq\n", &format!("{root}\n"));
    text.replace("sample", name).replace("SAMPLE", &name.to_uppercase()).replace("gitignore", ".gitignore")
}

fn write(path: &Path, text: &str) -> Result<()> {
    let parent = path.parent().context("a template is in a directory")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn check_name(name: &str) -> Result<()> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if name.is_empty() {
        bail!("a driver needs a name: 1 to {NAME_MAX} of a-z, 0-9 and _");
    }
    if let Some(bad) = name.chars().find(|&c| !good(c)) {
        bail!(
            "{name:?} has a {bad:?}: a driver's name is 1 to {NAME_MAX} of a-z, 0-9 and _, since it is in /dev and in symbols"
        );
    }
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        bail!("{name:?} does not begin with a letter, as the names made of it must");
    }
    if name.len() > NAME_MAX {
        bail!("{name:?} has {} characters: a driver's name has at most {NAME_MAX}", name.len());
    }
    if TAKEN.contains(&name) {
        bail!("{name:?} is a driver of this tree, and there can be only one /dev/sq{name}: choose another name");
    }
    if CLASHING.contains(&name) {
        bail!("{name:?} is what a part of every driver is called: choose another name");
    }
    if name.starts_with("sq") {
        bail!("{name:?} begins with \"sq\", which /dev/sqNAME and sq_NAME.ko do anyway: leave it out");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{C, COMMON, RUST, check_name, fill};

    #[test]
    fn bad_names_are_refused_and_the_reason_named() {
        let refused = |name: &str| format!("{:#}", check_name(name).unwrap_err());
        assert!(refused("").contains("needs a name"));
        assert!(refused("Blink").contains("'B'"));
        assert!(refused("../x").contains("'.'"));
        assert!(refused("a-b").contains("'-'"));
        assert!(refused("1st").contains("letter"));
        assert!(refused("_").contains("letter"));
        assert!(refused("sixteen_letters_").contains("16 characters"));
        assert!(refused("ram").contains("of this tree"));
        assert!(refused("client").contains("another name"));
        assert!(refused("sq_blink").contains("leave it out"));
        for good in ["a", "blink2", "fifteen_letters"] {
            check_name(good).unwrap();
        }
    }

    #[test]
    fn drivers_are_short_and_nothing_of_the_template_is_left() {
        for (path, text) in COMMON.iter().chain(RUST).chain(C) {
            let (path, text) = (fill(path, "blink", "/x/y"), fill(text, "blink", "/x/y"));
            assert!(!path.contains("sample"), "{path}");
            assert!(!text.to_lowercase().contains("sample"), "{path}");
            assert!(!text.contains("/usr/src/sq/"), "{path}");
            assert!(text.contains("SPDX-License-Identifier"), "{path}");
        }
        let lines = |templates: &[super::Template], path: &str| {
            templates.iter().find(|(p, _)| *p == path).unwrap().1.lines().count()
        };
        assert!(lines(RUST, "src/lib.rs") <= 60);
        assert!(lines(C, "sample.c") <= 60);
    }
}

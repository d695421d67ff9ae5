// SPDX-License-Identifier: MIT OR Apache-2.0
//! Building the kernel modules, one output directory per kernel, by kmod-sq's own Makefile.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::apt;
use crate::ctx::Ctx;
use crate::kernel::Kernel;
use crate::modinfo;
use crate::objcheck;
use crate::process::{found, run, stdout};
use crate::sanitizer;

/// The modules built for one kernel.
pub(crate) struct Built {
    /// In the order in which they load: `sq.ko`, then its drivers.
    pub(crate) modules: Vec<PathBuf>,
    /// What the object checks measured, one line per Rust object.
    pub(crate) notes: Vec<String>,
}

/// Builds the modules for `kernel` and checks their objects.
pub(crate) fn build(ctx: &Ctx, kernel: Kernel) -> Result<Built> {
    let out = compile(ctx, kernel)?;
    let notes = check_objects(kernel, &out)?;
    let modules = modules_in(&out)?;
    modinfo::check(&modules)?;
    Ok(Built { modules, notes })
}

/// Builds the modules, and leaves it to the caller to look at what came of it. Returns where they are.
pub(crate) fn compile(ctx: &Ctx, kernel: Kernel) -> Result<PathBuf> {
    apt::ensure(&["make", "gcc", "binutils", "util-linux"])?;
    let variables = rust_variables(ctx, kernel)?;
    make(ctx, kernel, &ctx.root.join("kmod-sq"), &ctx.checkout_cache("kmod"), &variables)
}

/// Builds the driver outside this tree whose Makefile is in `dir`, against the `sq.ko` of [`build`].
pub(crate) fn build_driver(ctx: &Ctx, kernel: Kernel, dir: &Path) -> Result<Built> {
    let dir = dir.canonicalize().with_context(|| format!("no driver in {}", dir.display()))?;
    let sq = build(ctx, kernel)?;
    let sq = sq.modules.first().and_then(|sq| sq.parent()).context("there is no sq.ko")?;
    let out = make_driver(ctx, kernel, &dir, &dir.join("build"), sq)?;
    let notes = if out.join("libsq_driver.rlib").exists() { check_objects(kernel, &out)? } else { Vec::new() };
    Ok(Built { modules: modules_in(&out)?, notes })
}

/// A driver from outside, for tests of what is refused.
pub(crate) struct Outsider {
    pub(crate) right: PathBuf,
    /// The same, built for the symbols of another sq.ko.
    pub(crate) foreign: PathBuf,
}

/// Builds tests/outsider against the `sq.ko` in `sq`.
pub(crate) fn build_outsider(ctx: &Ctx, kernel: Kernel, sq: &Path) -> Result<Outsider> {
    let source = ctx.root.join("tests/outsider");
    let right = make_driver(ctx, kernel, &source, &ctx.checkout_cache("outsider"), sq)?;
    let place = ctx.checkout_cache("foreign");
    let symbols = place.join(format!("{kernel}-sq"));
    fs::create_dir_all(&symbols)?;
    // "0xCHECKSUM\tsymbol..", the checksum being one of the symbol's types.
    let ours = fs::read_to_string(sq.join("Module.symvers")).context("sq.ko was built without Module.symvers")?;
    let other = |line: &str| line.split_once('\t').map(|(_, symbol)| format!("0x0badc0de\t{symbol}\n"));
    fs::write(symbols.join("Module.symvers"), ours.lines().filter_map(other).collect::<String>())?;
    let foreign = make_driver(ctx, kernel, &source, &place, &symbols)?;
    Ok(Outsider { right: right.join("sq_outsider.ko"), foreign: foreign.join("sq_outsider.ko") })
}

/// What the Makefiles are told about Rust: where the compiled core is kept, and the kernel's sanitizer.
fn rust_variables(ctx: &Ctx, kernel: Kernel) -> Result<Vec<String>> {
    let mut variables = vec![format!("SQ_CORE={}", ctx.cache.display())];
    variables.extend(sanitizer::variables(ctx, kernel, &rustc(ctx)?)?);
    Ok(variables)
}

fn check_objects(kernel: Kernel, out: &Path) -> Result<Vec<String>> {
    if kernel.debug() { sanitizer::check(kernel, out) } else { objcheck::check(out) }
}

/// Runs make in the folder `dir` of a driver, which is for the sq.ko in `sq`.
fn make_driver(ctx: &Ctx, kernel: Kernel, dir: &Path, place: &Path, sq: &Path) -> Result<PathBuf> {
    let mut variables = rust_variables(ctx, kernel)?;
    variables.extend([format!("SQ_DIR={}", ctx.root.display()), format!("SQ_OUT={}", sq.display())]);
    make(ctx, kernel, dir, place, &variables)
}

/// Builds the plain C module that `vm insns` compares with.
pub(crate) fn build_baseline(ctx: &Ctx, kernel: Kernel) -> Result<PathBuf> {
    apt::ensure(&["make", "gcc", "binutils", "util-linux"])?;
    Ok(make(ctx, kernel, &ctx.root.join("bench/baseline"), &ctx.checkout_cache("baseline"), &[])?
        .join("sq_baseline.ko"))
}

/// Builds the C module that checks an entry in the shared page.
pub(crate) fn build_naive(ctx: &Ctx, kernel: Kernel) -> Result<PathBuf> {
    Ok(make(ctx, kernel, &ctx.root.join("tests/naive"), &ctx.checkout_cache("naive"), &[])?.join("sq_naive.ko"))
}

/// Runs make in `source`; returns its output directory, one a kernel below `place`.
fn make(ctx: &Ctx, kernel: Kernel, source: &Path, place: &Path, variables: &[String]) -> Result<PathBuf> {
    let headers = kernel.headers(ctx)?;
    let out = place.join(kernel.name());
    fs::create_dir_all(&out)?;
    // Two runs from one checkout take turns.
    let mut make = Command::new("flock");
    make.arg(place.join(format!("{kernel}.lock"))).arg("make");
    make.arg(format!("-j{}", std::thread::available_parallelism().map_or(1, usize::from)));
    make.arg("-C").arg(source);
    make.arg(format!("KDIR={}", headers.display())).arg(format!("OUT={}", out.display()));
    make.args(variables).arg("WERROR=1");
    // Variables of an outer cargo or make would leak into Kbuild.
    make.env_remove("MAKEFLAGS").env_remove("RUSTFLAGS");
    let log = run(&format!("building {} for {kernel}", source.display()), &mut make)?;
    // Kbuild, modpost and objtool warn and go on; here a warning is a failure. "WERROR" itself is no warning.
    let warnings: Vec<&str> = log.lines().filter(|l| l.to_ascii_lowercase().contains("warning:")).collect();
    if !warnings.is_empty() {
        // make thinks that this build succeeded; the next must not be quiet because nothing is left to do.
        fs::remove_dir_all(&out)?;
        bail!("the build for {kernel} warns:\n{}", warnings.join("\n"));
    }
    Ok(out)
}

/// The modules built for `kernel`, and the sha256 of each.
pub(crate) fn hashes(ctx: &Ctx, kernel: Kernel) -> Result<Vec<(String, String)>> {
    let modules = modules_in(&out_dir(ctx, kernel))?;
    let hash = |module: &PathBuf| -> Result<(String, String)> {
        let text = stdout(Command::new("sha256sum").arg(module))?;
        let name = module.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok((name, text.split(' ').next().unwrap_or_default().to_owned()))
    };
    modules.iter().map(hash).collect()
}

/// The hashes of the modules with which the suite passed, beside them.
const TESTED: &str = "tested.sha256";

/// Remembers that the suite passed with modules that have these [`hashes`].
pub(crate) fn note_tested(ctx: &Ctx, kernel: Kernel, tested: &[(String, String)]) -> Result<()> {
    let path = out_dir(ctx, kernel).join(TESTED);
    fs::write(&path, lines(tested)).with_context(|| format!("cannot write {}", path.display()))
}

/// Whether the suite passed with the modules as they are.
pub(crate) fn is_tested(ctx: &Ctx, kernel: Kernel) -> Result<bool> {
    let tested = fs::read_to_string(out_dir(ctx, kernel).join(TESTED)).unwrap_or_default();
    Ok(tested == lines(&hashes(ctx, kernel)?))
}

fn lines(hashes: &[(String, String)]) -> String {
    hashes.iter().map(|(name, hash)| format!("{hash}  {name}\n")).collect()
}

/// Where this checkout's modules are built for `kernel`.
fn out_dir(ctx: &Ctx, kernel: Kernel) -> PathBuf {
    ctx.checkout_cache("kmod").join(kernel.name())
}

/// `cargo xtask module`
pub(crate) fn print_built(ctx: &Ctx, kernels: &[Kernel]) -> Result<ExitCode> {
    for &kernel in kernels {
        let built = build(ctx, kernel)?;
        for module in &built.modules {
            println!("{}", module.display());
        }
        for note in &built.notes {
            eprintln!("{kernel}: {note}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Kbuild's own list says which modules this build made; files of an earlier one may lie beside them.
fn modules_in(out: &Path) -> Result<Vec<PathBuf>> {
    let order = out.join("modules.order");
    let text = fs::read_to_string(&order).with_context(|| format!("no {}", order.display()))?;
    Ok(text
        .lines()
        .filter_map(|line| Path::new(line).file_stem())
        .map(|stem| out.join(stem).with_extension("ko"))
        .collect())
}

/// The compiler that the Makefile finds by itself; when there is none, Debian's is installed.
fn rustc(ctx: &Ctx) -> Result<String> {
    let find = || {
        let mut find = Command::new("sh");
        find.arg(ctx.root.join("kmod-sq/scripts/find-rust.sh")).env("SQ_RUSTFLAGS", "--target x86_64-unknown-none");
        stdout(&mut find)
    };
    let mut answer = find()?;
    if answer.starts_with("error:") && found("apt-get") {
        apt::ensure(&["rustc-web", "rust-web-src"])?;
        answer = find()?;
    }
    match answer.split_whitespace().next() {
        Some(rustc) if rustc != "error:" => Ok(rustc.to_owned()),
        _ => bail!("{}", answer.trim()),
    }
}

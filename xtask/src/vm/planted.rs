// SPDX-License-Identifier: MIT OR Apache-2.0
//! Do the sanitizers see into Rust? Bugs are planted in a copy of the sources, outside the checkout, and each must be
//! reported, in the function that has it, by the kernel that looks for its kind.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::guest::{Guest, Job};
use super::life;
use crate::ctx::{Ctx, lock};
use crate::kernel::Kernel;
use crate::module;
use crate::process::{stdout, tail};

struct Bug {
    kernel: Kernel,
    /// The file of the kernel side's core that gets `function`.
    file: &'static str,
    function: &'static str,
    /// Where it is called: a file, a line of it, and what that becomes.
    call: (&'static str, &'static str, &'static str),
    /// How the report calls it. The function's name must be in the same line.
    report: &'static str,
}

/// What `life planted` has two threads call.
const STATS: &str = "pub fn stats(&self) -> SqStats {";

const BUGS: [Bug; 3] = [
    Bug {
        kernel: Kernel::Kasan,
        file: "kmod-sq/src/ring.rs",
        function: "
impl<H: Host> Ring<H> {
    #[inline(never)]
    #[allow(missing_docs, clippy::undocumented_unsafe_blocks)]
    pub fn planted_out_of_bounds(&self) -> u8 {
        unsafe { core::ptr::from_ref(self).cast::<u8>().wrapping_add(size_of::<Self>()).read_volatile() }
    }
}
",
        call: (
            "kmod-sq/src/ring.rs",
            STATS,
            "pub fn stats(&self) -> SqStats {\n        core::hint::black_box(self.planted_out_of_bounds());",
        ),
        report: "KASAN: slab-out-of-bounds in",
    },
    Bug {
        kernel: Kernel::Kasan,
        file: "kmod-sq/src/ring.rs",
        function: "
impl<H: Host> Ring<H> {
    #[inline(never)]
    #[allow(missing_docs)]
    pub fn planted_use_after_free(&self) -> usize {
        self.refs.load(Ordering::Relaxed)
    }
}
",
        call: (
            "kmod-sq/kernel/src/edge.rs",
            "unsafe { array::give_back(ring) };\n}",
            "unsafe { array::give_back(ring) };\n    core::hint::black_box(unsafe { ring.as_ref() }.planted_use_after_free());\n}",
        ),
        report: "KASAN: slab-use-after-free in",
    },
    Bug {
        kernel: Kernel::Kcsan,
        file: "kmod-sq/src/ring.rs",
        function: "
static PLANTED: PlantedCell = PlantedCell(core::cell::UnsafeCell::new(0));
struct PlantedCell(core::cell::UnsafeCell<u64>);
#[allow(clippy::undocumented_unsafe_blocks)]
unsafe impl Sync for PlantedCell {}
#[inline(never)]
#[allow(clippy::undocumented_unsafe_blocks)]
fn planted_data_race() {
    for _ in 0..1000 {
        let place = core::hint::black_box(PLANTED.0.get());
        unsafe { *place = (*place).wrapping_add(1) };
    }
}
",
        call: ("kmod-sq/src/ring.rs", STATS, "pub fn stats(&self) -> SqStats {\n        planted_data_race();"),
        report: "KCSAN: data-race in",
    },
];

/// The first lines of the reports.
///
/// # Errors
/// Names the bugs that went unseen.
pub(super) fn check(ctx: &Ctx, kernel: Kernel) -> Result<Vec<String>> {
    let bugs: Vec<&Bug> = BUGS.iter().filter(|bug| bug.kernel == kernel).collect();
    if bugs.is_empty() {
        bail!("no bug is planted for {kernel}: it has no sanitizer");
    }
    let copy = ctx.checkout_cache("planted").join(kernel.name());
    let _lock = lock(&copy)?;
    fs::create_dir_all(&copy)?;
    for part in ["Cargo.toml", "kmod-sq", "uapi"] {
        let _ = fs::remove_dir_all(copy.join(part));
        stdout(Command::new("cp").arg("-rp").arg(ctx.root.join(part)).arg(copy.join(part)))?;
    }
    for bug in &bugs {
        plant(&copy, bug)?;
    }
    let built = module::build(&ctx.in_checkout(copy), kernel).context("the copy with planted bugs")?;
    let mut guest = Guest::new(ctx, kernel)?;
    guest.load_modules(&built.modules)?;
    let life = guest.files.add_program(&life::program(ctx)?)?;
    guest.jobs.push(Job::new("planted", format!("exec {life} planted"), Duration::from_secs(60)));
    let results = guest.boot(ctx)?;
    let log: Vec<&str> = results.jobs.iter().flat_map(|job| &job.complaints).map(String::as_str).collect();
    let first = |bug: &&Bug| log.iter().find(|line| names(bug, line)).map(|line| (*line).to_owned());
    let unseen: Vec<&str> = bugs.iter().filter(|bug| first(bug).is_none()).map(|bug| bug.report).collect();
    if !unseen.is_empty() {
        let log = tail(&log.join("\n"), 120);
        bail!("planted in Rust, and not reported by the {kernel} kernel: {}\n{log}", unseen.join(", "));
    }
    Ok(bugs.iter().filter_map(first).collect())
}

fn plant(copy: &Path, bug: &Bug) -> Result<()> {
    let (file, line, becomes) = bug.call;
    let edit = |file: &str, change: &dyn Fn(&str) -> Option<String>| -> Result<()> {
        let path = copy.join(file);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let text = change(&text).with_context(|| format!("{file} has no place for a bug any more: {line}"))?;
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    edit(file, &|text| text.contains(line).then(|| text.replacen(line, becomes, 1)))?;
    edit(bug.file, &|text| Some(format!("{text}{}", bug.function)))
}

/// Whether `line` is a report's first of this bug: that names the kind and the function; for a race, both functions.
fn names(bug: &Bug, line: &str) -> bool {
    let name = bug.function.split("fn ").nth(1).and_then(|rest| rest.split('(').next()).unwrap_or_default();
    line.contains(bug.report) && line.contains(name)
}

#[cfg(test)]
mod tests {
    use super::{BUGS, names};

    /// Who changes these lines learns it at once, not from a debug kernel.
    #[test]
    fn there_is_a_place_for_each_bug() {
        for bug in &BUGS {
            let (file, line, _) = bug.call;
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../").to_owned() + file;
            assert!(std::fs::read_to_string(&path).unwrap().contains(line), "{file}: {line}");
        }
    }

    #[test]
    fn a_report_counts_if_it_names_the_function() {
        let report = "[ 9.1] BUG: KASAN: slab-use-after-free in _RNvMs_NtCs1_7kmod_sq4ringNtB4_4Ring22planted_use_after_free+0x2/0x9 [sq]";
        assert!(names(&BUGS[1], report));
        assert!(!names(&BUGS[0], report));
        assert!(!names(&BUGS[1], "[ 9.1] BUG: KASAN: slab-use-after-free in kfree+0x2/0x9"));
    }
}

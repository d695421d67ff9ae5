// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask test`: the stages, one after another, and a table at the end.

pub(crate) mod guide;
pub(crate) mod host;
mod rules;
mod spin;
mod stage;

use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::ctx::Ctx;
use crate::install;
use crate::kernel::Kernel;
use crate::module;
use crate::vm;
use stage::TooLong;
pub(crate) use stage::{Missing, Outcome, Report, Stage};

/// What the test command takes.
///
/// Stages: fmt rules clippy test doctest doc bench loom spin mutants fuzz, then for each kernel K: module-K and vm-K, insns, guide, install, vm-kasan. A
/// failed stage does not stop the others, but makes the exit code non-zero. The kasan kernel takes minutes to build: unless its stage
/// is asked for by name, it is skipped when the kernel is not in the cache.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only what needs neither QEMU nor kernel headers
    #[arg(long)]
    host: bool,
    /// Only these stages, in their usual order; "vm" and "module" stand for all of theirs
    #[arg(long, num_args = 1.., value_name = "NAME")]
    stage: Vec<String>,
    /// Kernels to build for and to boot [default: build for all, boot 6.12 6.1 6.12-rt]
    #[arg(long, short, value_name = "K")]
    kernel: Vec<Kernel>,
    /// List the stages and stop
    #[arg(long)]
    list: bool,
}

pub(crate) fn run(ctx: &Ctx, args: &Args) -> Result<ExitCode> {
    let mut stages = host::stages();
    if !args.host {
        stages.extend(kernel_stages(&args.kernel));
        stages.extend(kasan_stage(args));
    }
    select(&mut stages, &args.stage)?;
    if args.list {
        stages.iter().for_each(|stage| println!("{:14} {}", stage.name, stage.what));
        return Ok(ExitCode::SUCCESS);
    }
    let mut report = Report::default();
    for stage in stages {
        report.run(ctx, stage);
    }
    print!("{report}");
    Ok(if report.failed() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn kernel_stages(chosen: &[Kernel]) -> Vec<Stage> {
    let or = |default: &[Kernel]| {
        if chosen.is_empty() { default.to_vec() } else { chosen.to_vec() }
    };
    let modules = or(&Kernel::STOCK).into_iter().map(|kernel| {
        Stage::new(&format!("module-{kernel}"), "compile the modules and check their objects", move |ctx| {
            let built = module::build(ctx, kernel)?;
            module::build_baseline(ctx, kernel)?;
            Ok(Outcome { log: built.notes.join("\n"), ..Outcome::default() })
        })
    });
    let guests = or(&Kernel::BOOTED).into_iter().map(|kernel| {
        Stage::new(
            &format!("vm-{kernel}"),
            "load the modules in a guest, run the conformance suite on the devices",
            move |ctx| guest(ctx, kernel, vm::Depth::Usual, ""),
        )
    });
    let mut stages: Vec<Stage> = modules.chain(guests).collect();
    if or(&Kernel::BOOTED).contains(&Kernel::V6_12) {
        stages.push(Stage::new("insns", "count an operation's instructions, compare with bench/insns.csv", |ctx| {
            Ok(Outcome { log: vm::check_insns(ctx)?, ..Outcome::default() })
        }));
        stages.push(Stage::new(
            "guide",
            "from an empty directory to a new driver's clients, by docs/driver-guide.md",
            guide::check,
        ));
        stages.push(Stage::new("install", "install in a clean Debian without a network: make, DKMS, package", |ctx| {
            Ok(Outcome { log: install::test(ctx)?, ..Outcome::default() })
        }));
    }
    stages
}

/// A part of what `nightly` runs there.
fn kasan_stage(args: &Args) -> Option<Stage> {
    const NAME: &str = "vm-kasan";
    if !args.kernel.is_empty() {
        return None; // if it was chosen, it is there
    }
    let asked = args.stage.iter().any(|name| name == NAME);
    Some(Stage::new(
        NAME,
        "the conformance suite and failing allocations, on a kernel with KASAN and lockdep",
        move |ctx| {
            if !asked && !Kernel::Kasan.at_hand(ctx) {
                let command = format!("cargo xtask test --stage {NAME}");
                return Err(TooLong(format!(
                    "THE KASAN KERNEL IS NOT BUILT, so nothing ran on it; to build it: {command}"
                ))
                .into());
            }
            guest(ctx, Kernel::Kasan, vm::Depth::Part, "")
        },
    ))
}

/// The suite in a guest, with more words for its command line.
pub(crate) fn guest(ctx: &Ctx, kernel: Kernel, depth: vm::Depth, append: &str) -> Result<Outcome> {
    let summary = vm::run_suite(ctx, kernel, &vm::Programs::build(ctx)?, depth, append)?;
    Ok(Outcome { ok: summary.failed == 0, skips: summary.skips, log: summary.table })
}

/// Leaves those that were asked for by name, if any were.
pub(crate) fn select(stages: &mut Vec<Stage>, names: &[String]) -> Result<()> {
    let wanted = |stage: &Stage, name: &str| stage.name == name || stage.name.split('-').next() == Some(name);
    for name in names {
        if !stages.iter().any(|stage| wanted(stage, name)) {
            let known: Vec<&str> = stages.iter().map(|s| s.name.as_str()).collect();
            bail!("no stage is called {name}; there are: {}", known.join(" "));
        }
    }
    if !names.is_empty() {
        stages.retain(|stage| names.iter().any(|name| wanted(stage, name)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::stage::Report;
    use super::{Args, kasan_stage};
    use crate::ctx::Ctx;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    /// In CI too: it neither fails nor passes for what could not run, and the table says so.
    #[test]
    fn without_its_kernel_the_kasan_stage_says_so_loudly() {
        let cache = std::env::temp_dir().join(format!("sq-no-cache-{}", std::process::id()));
        let ctx = Ctx { root: "/nowhere".into(), cache, ci: true };
        let mut report = Report::default();
        report.run(&ctx, kasan_stage(&Cli::parse_from(["test"]).args).unwrap());
        let text = report.to_string();
        assert!(text.contains("skipped  vm-kasan"), "{text}");
        assert!(
            text.contains("THE KASAN KERNEL IS NOT BUILT") && text.contains("0 passed, 0 failed, 1 skipped"),
            "{text}"
        );
        assert!(kasan_stage(&Cli::parse_from(["test", "--kernel", "6.1"]).args).is_none());
    }
}

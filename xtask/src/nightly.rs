// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask nightly`: what takes hours. One stage after another, since each wants the machine for itself; a failed one does not
//! stop the others.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use crate::ctx::Ctx;
use crate::fuzz;
use crate::kernel::Kernel;
use crate::test::{Outcome, Report, Stage, guest, guide, host, select};
use crate::vm::Depth;

/// How long each fuzz target runs.
const FUZZ: Duration = Duration::from_secs(30 * 60);
const FUZZ_SHORT: Duration = Duration::from_secs(60);

/// What the command takes.
///
/// Stages: shuttle, mutants, fuzz, driver-fuzz, then vm-K for each kernel K, and once more for those with a sanitizer, without preemption.
/// The kernels that are not in the cache are built first.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these stages, in their usual order; "vm" stands for all of the guests
    #[arg(long, num_args = 1.., value_name = "NAME")]
    stage: Vec<String>,
    /// Kernel to boot; repeat for several [default: all]
    #[arg(long, short, value_name = "K")]
    kernel: Vec<Kernel>,
    /// With the counts of the test command: whether everything runs, in minutes instead of hours
    #[arg(long)]
    short: bool,
    /// List the stages and stop
    #[arg(long)]
    list: bool,
}

pub(crate) fn run(ctx: &Ctx, args: &Args) -> Result<ExitCode> {
    let mut stages = stages(args);
    select(&mut stages, &args.stage)?;
    if args.list {
        stages.iter().for_each(|stage| println!("{:14} {}", stage.name, stage.what));
        return Ok(ExitCode::SUCCESS);
    }
    let count = stages.len();
    if args.short {
        println!("short: nothing below runs longer than in the test command");
    }
    let mut report = Report::default();
    for (number, stage) in stages.into_iter().enumerate() {
        println!("{} of {count}: {}: {}", number + 1, stage.name, stage.what);
        report.run(ctx, stage);
    }
    print!("{report}");
    Ok(if report.failed() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn stages(args: &Args) -> Vec<Stage> {
    let long = !args.short;
    let (time, depth) = if long { (FUZZ, Depth::Long) } else { (FUZZ_SHORT, Depth::Usual) };
    let mut stages = vec![
        Stage::new("shuttle", "random schedules for minutes: more threads than loom can take", move |ctx| {
            host::storm(ctx, long)
        }),
        Stage::new("mutants", "each sabotage of the sources turns its check red", crate::mutants::all),
        Stage::new("fuzz", "each fuzz target for half an hour, and the lines that they reach", move |ctx| {
            fuzz::long(ctx, time)
        }),
        Stage::new("driver-fuzz", "a new driver of the template under its own fuzz target", |ctx| {
            Ok(Outcome { log: guide::fuzz(ctx)?, ..Outcome::default() })
        }),
    ];
    let all = [&Kernel::STOCK[..], &Kernel::DEBUG].concat();
    let kernels = if args.kernel.is_empty() { all } else { args.kernel.clone() };
    let what = "the whole suite in a guest with counts that take hours, 10 million DMA descriptors in Rust and in C";
    for &kernel in &kernels {
        stages.push(Stage::new(&format!("vm-{kernel}"), what, move |ctx| guest(ctx, kernel, depth, "")));
    }
    // Full preemption, their default, hides other faults than none.
    for kernel in kernels.into_iter().filter(|kernel| kernel.debug()) {
        let what = "the whole suite in a guest without preemption";
        stages.push(Stage::new(&format!("vm-{kernel}-none"), what, move |ctx| {
            guest(ctx, kernel, Depth::Usual, "preempt=none")
        }));
    }
    stages
}

#[cfg(test)]
mod tests {
    use super::{Args, stages};
    use crate::kernel::Kernel;

    #[test]
    fn every_kernel_has_its_night() {
        let args = |kernel| Args { stage: Vec::new(), kernel, short: false, list: false };
        let names = |kernel| stages(&args(kernel)).into_iter().map(|stage| stage.name).collect::<Vec<_>>();
        let all = names(Vec::new());
        for kernel in Kernel::STOCK.iter().chain(&Kernel::DEBUG) {
            assert!(all.contains(&format!("vm-{kernel}")), "{all:?}");
        }
        assert!(all.contains(&"vm-kcsan-none".to_owned()) && !all.contains(&"vm-6.1-none".to_owned()), "{all:?}");
        assert_eq!(names(vec![Kernel::V6_1]), ["shuttle", "mutants", "fuzz", "driver-fuzz", "vm-6.1"]);
    }
}

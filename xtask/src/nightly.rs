// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask nightly`: what takes a day and more. One stage after another, since each wants the machine for itself; a failed one does not
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
/// Stages: shuttle (minutes), mutants (hours), fuzz (half an hour a target), driver-fuzz (minutes), then vm-K for each kernel K (hours), and
/// once more for those with a sanitizer, without preemption. In all it is a day or more on two cores.
/// The kernels that are not in the cache are built first.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these stages, in their usual order; "vm" stands for all of the guests
    #[arg(long, num_args = 1.., value_name = "NAME")]
    stage: Vec<String>,
    /// Kernel to boot; repeat for several [default: all]
    #[arg(long, short, value_name = "K")]
    kernel: Vec<Kernel>,
    /// With the counts of the test command, of the sabotages and on debug kernels with its choice too: whether everything runs. On two idle
    /// cores that is some two hours instead of a day or more
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
        println!("short: with the counts of the test command");
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
    // What is said of a stage at night, and of a short one.
    let say = |night: &'static str, short: &'static str| if long { night } else { short };
    let time = if long { FUZZ } else { FUZZ_SHORT };
    let what = say(
        "random schedules for minutes: more threads than loom can take",
        "random schedules, as in the test command",
    );
    let mut stages = vec![Stage::new("shuttle", what, move |ctx| host::storm(ctx, long))];
    let what = say("each sabotage of the sources turns its check red", "three sabotages, as in the test command");
    stages.push(Stage::new("mutants", what, if long { crate::mutants::all } else { crate::mutants::stage }));
    let what = say(
        "each fuzz target for half an hour, and the lines that they reach",
        "each fuzz target for a minute, and the lines that they reach",
    );
    stages.push(Stage::new("fuzz", what, move |ctx| fuzz::long(ctx, time)));
    stages.push(Stage::new("driver-fuzz", "a new driver of the template under its own fuzz target, a minute", |ctx| {
        Ok(Outcome { log: guide::fuzz(ctx)?, ..Outcome::default() })
    }));
    let all = [&Kernel::STOCK[..], &Kernel::DEBUG].concat();
    let kernels = if args.kernel.is_empty() { all } else { args.kernel.clone() };
    for &kernel in &kernels {
        let depth = depth(kernel, long);
        let what = match depth {
            Depth::Long => {
                "the whole suite in a guest with counts that take hours, 10 million DMA descriptors in Rust and in C"
            }
            Depth::Usual => "the suite in a guest, as in the test command",
            Depth::Part => "a part of the suite in a guest, as in the test command",
        };
        stages.push(Stage::new(&format!("vm-{kernel}"), what, move |ctx| guest(ctx, kernel, depth, "")));
    }
    // Full preemption, their default, hides other faults than none.
    for kernel in kernels.into_iter().filter(|kernel| kernel.debug()) {
        let what =
            say("the whole suite in a guest without preemption", "a part of the suite in a guest without preemption");
        let depth = if long { Depth::Usual } else { Depth::Part };
        stages
            .push(Stage::new(&format!("vm-{kernel}-none"), what, move |ctx| guest(ctx, kernel, depth, "preempt=none")));
    }
    stages
}

/// How much of the suite runs on `kernel`.
fn depth(kernel: Kernel, long: bool) -> Depth {
    match (long, kernel.debug()) {
        (true, _) => Depth::Long,
        (false, false) => Depth::Usual,
        (false, true) => Depth::Part,
    }
}

#[cfg(test)]
mod tests {
    use super::{Args, stages};
    use crate::kernel::Kernel;
    use crate::test::Stage;

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

    #[test]
    fn a_short_night_claims_no_hours() {
        let args = Args { stage: Vec::new(), kernel: Vec::new(), short: true, list: true };
        for Stage { name, what, .. } in stages(&args) {
            assert!(
                !["hour", "minutes", "million", "whole", "each sabotage"].iter().any(|word| what.contains(word)),
                "{name}: {what}"
            );
        }
    }
}

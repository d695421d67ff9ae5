// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask bench`: the benchmarks on this host, kept for docs/performance.md. `cargo xtask bench-report`: that document.

pub(crate) mod data;
pub(crate) mod facts;
mod gates;
mod markdown;
mod plots;
pub(crate) mod report;
mod tables;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Result, bail};

use crate::cargo::program;
use crate::ctx::{Ctx, lock};
use crate::process::{capture, tail};
use data::{Data, Figure};

/// Where raw figures are kept, and the plots.
pub(crate) const FOLDER: &str = "docs/performance";

/// The rows that are also measured without the copy, and what both are called then.
const CALLER: &str = "null operation/ring embedded caller";
pub(crate) const END_TO_END: &str = "snapshot end to end";
pub(crate) const WITH: &str = "ring embedded caller with the copy";
pub(crate) const WITHOUT: &str = "ring embedded caller without";
const PAIRS: u32 = 5;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How often everything is measured; the report takes the median
    #[arg(long, default_value_t = 3, value_name = "N")]
    passes: u32,
    /// With less patience, to see that it works: the figures are not for quoting
    #[arg(long)]
    quick: bool,
    /// Where the figures go [default: docs/performance]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Measures on this host.
pub(crate) fn run(ctx: &Ctx, args: &Args) -> Result<ExitCode> {
    let out = args.out.clone().unwrap_or_else(|| ctx.root.join(FOLDER));
    fs::create_dir_all(&out)?;
    let program = build(ctx, false)?;
    let without = build(ctx, true)?;
    let mut facts = facts::of_host(ctx);
    facts.add("peers", format!("the host's io_uring by the crate io-uring {}", facts::crate_version(ctx, "io-uring")));
    facts.add("passes", if args.quick { format!("{}, quick", args.passes) } else { args.passes.to_string() });
    let scratch = ctx.checkout_cache("bench");
    let _lock = lock(&scratch)?;
    let mut data = Data::default();
    let mut skipped = Vec::new();
    let start = Instant::now();
    for pass in 1..=args.passes {
        let label = format!("benchmarks, pass {pass} of {}", args.passes);
        let (figures, output) = measure(&label, &program, &scratch, args.quick, None, pass)?;
        data.0.extend(figures);
        skipped = data::skipped(&output);
        eprintln!("{label}: {:.0} s so far", start.elapsed().as_secs_f64());
    }
    // In turns, so that what the machine does besides happens to both.
    for pass in 1..=PAIRS {
        for (program, row) in [(&program, WITH), (&without, WITHOUT)] {
            let label = format!("{row}, {pass} of {PAIRS}");
            let (figures, _) = measure(&label, program, &scratch, args.quick, Some(CALLER), pass)?;
            data.0.extend(figures.into_iter().map(|f| Figure {
                group: END_TO_END.to_owned(),
                row: row.to_owned(),
                ..f
            }));
        }
    }
    skipped.iter().for_each(|skip| facts.add(facts::SKIPPED, skip));
    data.save(&out.join("native.csv"))?;
    facts.save(&out.join("native.facts"))?;
    eprintln!(
        "{} figures in {}, {:.0} s; next: cargo xtask bench-report",
        data.0.len(),
        out.display(),
        start.elapsed().as_secs_f64()
    );
    Ok(ExitCode::SUCCESS)
}

/// One run of the benchmarks: its figures and what it printed.
fn measure(
    label: &str,
    program: &Path,
    scratch: &Path,
    quick: bool,
    rows: Option<&str>,
    pass: u32,
) -> Result<(Vec<Figure>, String)> {
    // Earlier rows that were renamed since would be found, too.
    if scratch.exists() {
        fs::remove_dir_all(scratch)?;
    }
    let mut command = Command::new(program);
    command.arg("--bench").args(rows).env("CRITERION_HOME", scratch);
    if quick {
        command.args(QUICK);
    }
    let output = capture(label, &mut command)?;
    if !output.ok {
        bail!("{label} failed:\n{}", tail(&output.text, 60));
    }
    let mut figures = data::criterion(scratch, pass)?;
    figures.extend(data::printed(&output.text, pass));
    Ok((figures, output.text))
}

/// Criterion's options for a look.
pub(crate) const QUICK: [&str; 6] = ["--warm-up-time", "0.01", "--measurement-time", "0.02", "--sample-size", "10"];

/// The program of all benchmarks, as `cargo bench` builds it; `without_snapshot` for the one row that asks what the copy costs.
pub(crate) fn build(ctx: &Ctx, without_snapshot: bool) -> Result<PathBuf> {
    let mut cargo = Command::new("cargo");
    cargo.args(["bench", "-p", "sq-bench", "--bench", "sq", "--no-run"]);
    if without_snapshot {
        cargo.env("RUSTFLAGS", "--cfg sq_bench_without_snapshot");
        cargo.env("CARGO_TARGET_DIR", ctx.root.join("target/without-snapshot"));
    }
    program(cargo.current_dir(&ctx.root), "bench", "sq")
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask vm bench`: the benchmarks of this host in a guest, on the real modules and on bench/baseline.
//!
//! The emulator is many times slower than a processor, and not by the same factor everywhere: only ratios within one run are worth
//! telling.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};

use super::disk;
use super::guest::{Guest, Job};
use super::qemu::TWO_CPUS;
use crate::bench::data::{self, Data};
use crate::bench::{self, facts};
use crate::ctx::{Ctx, lock};
use crate::kernel::Kernel;
use crate::module;
use crate::process::tail;

/// The largest payload times the depth, and some room for a thousand rings.
const RELOAD_RAM: &str = "rmmod sq_ram && insmod /lib/modules/sq_ram.ko bytes=33554432";
const MEMORY_MIB: u32 = 1024;
const TIMEOUT: Duration = Duration::from_secs(900);

/// Criterion's options: a second of the guest's is dear.
const SHORT: &str = "--warm-up-time 0.01 --measurement-time 0.04 --sample-size 10 --nresamples 1001";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Kernel to boot
    #[arg(long, short, value_name = "K", default_value = "6.12")]
    kernel: Kernel,
    /// How often everything is measured; the report takes the median
    #[arg(long, default_value_t = 2, value_name = "N")]
    passes: u32,
    /// Only rows whose name this regular expression finds
    #[arg(long, default_value = "", value_name = "REGEX")]
    rows: String,
    /// Where the figures go [default: docs/performance]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(crate) fn run(ctx: &Ctx, args: &Args) -> Result<ExitCode> {
    let mut guest = Guest::new(ctx, args.kernel)?;
    guest.mem_mib = MEMORY_MIB;
    disk::add(&mut guest)?;
    let mut modules = module::build(ctx, args.kernel)?.modules;
    modules.push(module::build_baseline(ctx, args.kernel)?);
    guest.load_modules(&modules)?;
    guest.jobs.push(Job::new("a larger sq_ram", RELOAD_RAM.to_owned(), Duration::from_secs(20)));
    let program = guest.files.add_program(&bench::build(ctx, false)?)?;
    for pass in 1..=args.passes {
        let line = format!(
            "CRITERION_HOME=/w/out/{pass} SQ_SCRATCH=/mnt exec {program} --bench {SHORT} {}",
            super::quote(&args.rows)
        );
        guest.jobs.push(Job::new(&format!("benchmarks, pass {pass} of {}", args.passes), line, TIMEOUT));
    }
    let results = guest.boot(ctx)?;
    for job in &results.jobs {
        if job.code != 0 || !job.complaints.is_empty() {
            let output = tail(&format!("{}\n{}", job.stdout, job.stderr), 40);
            bail!("{} failed in the guest ({}):\n{output}\n{}", job.name, job.code, job.complaints.join("\n"));
        }
    }
    let mut facts = facts::of_guest(ctx, args.kernel)?;
    facts.add("machine", format!("{} -cpu max, {MEMORY_MIB} MiB, two virtio disks", TWO_CPUS.join(" ")));
    facts.add("passes", args.passes.to_string());
    let scratch = ctx.checkout_cache("bench-guest");
    let _lock = lock(&scratch)?;
    if scratch.exists() {
        fs::remove_dir_all(&scratch)?;
    }
    results.save_files(&scratch)?;
    let mut data = Data::default();
    let mut skipped = Vec::new();
    let runs = results.jobs.iter().filter(|job| job.name.starts_with("benchmarks"));
    for (pass, job) in (1..).zip(runs) {
        data.0.extend(data::criterion(&scratch.join(pass.to_string()), pass)?);
        data.0.extend(data::printed(&job.stdout, pass));
        skipped = data::skipped(&job.stdout);
        eprintln!("{}: {:.0} s", job.name, job.seconds);
    }
    skipped.iter().for_each(|skip| facts.add(facts::SKIPPED, skip));
    let out = args.out.clone().unwrap_or_else(|| ctx.root.join(bench::FOLDER));
    fs::create_dir_all(&out)?;
    data.save(&out.join("guest.csv"))?;
    facts.save(&out.join("guest.facts"))?;
    eprintln!("{} figures in {}; next: cargo xtask bench-report", data.0.len(), out.display());
    Ok(ExitCode::SUCCESS)
}

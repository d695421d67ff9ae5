// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask vm`: stock kernels under QEMU's TCG. No KVM, and no root once the packages are there.

mod alone;
mod bench;
mod cpio;
mod disk;
pub(crate) mod dmesg;
mod examples;
mod guest;
mod initramfs;
mod insns;
mod life;
mod planted;
mod qemu;
mod refused;
mod secure;
mod storage;
mod suite;
mod trace;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};

use crate::ctx::Ctx;
use crate::kernel::Kernel;
use crate::module;

pub(crate) use alone::Alone;
pub(crate) use guest::{Guest, Job, JobResult};
pub(crate) use insns::{Counts, TABLE as INSNS, check as check_insns};
pub(crate) use secure::Owner;
pub(crate) use suite::{Depth, Programs, run as run_suite, storage_client, summarise};

#[derive(Subcommand)]
pub(crate) enum Chore {
    /// Load the modules and run the conformance suite against the devices
    Test {
        /// Kernel to boot; repeat for several [default: 6.12]
        #[arg(long, short, value_name = "K")]
        kernel: Vec<Kernel>,
        /// More words for the kernel's command line; debug kernels know preempt=none, voluntary and full (the default)
        #[arg(long, default_value = "", value_name = "WORDS")]
        append: String,
    },
    /// Check that a debug kernel's sanitizer sees into Rust: bugs planted in a copy of the sources must be reported
    Planted {
        /// Kernel to boot; repeat for several [default: kasan kcsan]
        #[arg(long, short, value_name = "K")]
        kernel: Vec<Kernel>,
    },
    /// Run one program in a guest with the modules loaded; its output and exit code become this command's
    ///
    /// A host program is copied in together with its shared libraries. It runs in /w; files that it
    /// leaves in /w/out come back with --out. A line in dmesg that speaks of a bug makes the command
    /// fail with 70.
    ///
    /// Examples:
    ///   cargo xtask vm run -- uname -a
    ///   cargo xtask vm run --kernel 6.1 -- target/debug/sq-storage info     (after `cargo build`)
    #[command(verbatim_doc_comment)]
    Run(RunArgs),
    /// Count the guest instructions of an operation: by each door, beside a plain C module
    ///
    /// stdout has a line `door,batch,instructions_per_op` for each; the table for readers is on stderr.
    Insns(insns::Args),
    /// Run the benchmarks in a guest, on the modules and on a plain C module: for ratios within one run
    Bench(bench::Args),
    /// A shell in a guest with the modules loaded; leave it with `exit`
    Shell {
        #[command(flatten)]
        boot: BootArgs,
        /// Host file to copy into /w of the guest (SRC or SRC:NAME); repeatable
        #[arg(long, value_name = "SRC[:NAME]")]
        file: Vec<String>,
    },
}

#[derive(Args)]
pub(crate) struct BootArgs {
    /// Kernel to boot
    #[arg(long, short, value_name = "K", default_value = "6.12")]
    kernel: Kernel,
    /// Count instructions: one CPU, TSC and clock advance by 1 ns an instruction, runs repeat exactly
    #[arg(long)]
    icount: bool,
    /// QEMU's -cpu
    #[arg(long, default_value = "max")]
    cpu: String,
    /// Guest memory in MiB [default: 512, debug kernels 1024]
    #[arg(long, value_name = "MIB")]
    mem_mib: Option<u32>,
    /// More words for the kernel's command line
    #[arg(long, default_value = "", value_name = "WORDS")]
    append: String,
    /// Do not build and load the modules
    #[arg(long)]
    bare: bool,
    /// Driver outside this tree: build what its directory's Makefile makes for this kernel, and load it too; repeatable
    #[arg(long, value_name = "DIR", conflicts_with = "bare")]
    driver: Vec<PathBuf>,
    /// Add two disks: ext4 on /mnt, and /dev/vdb with nothing on it
    #[arg(long)]
    disks: bool,
}

#[derive(Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    boot: BootArgs,
    /// Host file to copy into /w of the guest (SRC or SRC:NAME); repeatable
    #[arg(long, value_name = "SRC[:NAME]")]
    file: Vec<String>,
    /// Run as an ordinary user (uid 1000) instead of root
    #[arg(long)]
    user: bool,
    /// Give up after so many seconds; on a debug kernel six times as many
    #[arg(long, default_value_t = 120, value_name = "S")]
    timeout_s: u64,
    /// Directory for the files that the program leaves in /w/out
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The program and its arguments: a path on this host, or a command of the guest's busybox
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

/// Exit code when the program was fine but the kernel complained.
const DIRTY_DMESG: u8 = 70;

pub(crate) fn run(ctx: &Ctx, chore: Chore) -> Result<ExitCode> {
    match chore {
        Chore::Test { kernel, append } => test(ctx, &Kernel::or_default(&kernel), &append),
        Chore::Planted { kernel } => {
            let kernels = if kernel.is_empty() { Kernel::DEBUG.to_vec() } else { kernel };
            for kernel in kernels {
                println!("{kernel}: {}", planted::check(ctx, kernel)?.join("\n  "));
            }
            Ok(ExitCode::SUCCESS)
        }
        Chore::Run(args) => run_program(ctx, args),
        Chore::Insns(args) => insns::run(ctx, &args),
        Chore::Bench(args) => bench::run(ctx, &args),
        Chore::Shell { boot, file } => {
            let mut guest = prepare(ctx, &boot)?;
            add_files(&mut guest, &file)?;
            guest.shell(ctx)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The suite on each kernel, one after another.
fn test(ctx: &Ctx, kernels: &[Kernel], append: &str) -> Result<ExitCode> {
    let programs = Programs::build(ctx)?;
    let mut ok = true;
    for &kernel in kernels {
        let summary = run_suite(ctx, kernel, &programs, Depth::Usual, append)?;
        println!("{}", summary.table);
        summary.skips.iter().for_each(|skip| println!("  skipped: {skip}"));
        ok &= summary.failed == 0;
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run_program(ctx: &Ctx, args: RunArgs) -> Result<ExitCode> {
    let mut guest = prepare(ctx, &args.boot)?;
    add_files(&mut guest, &args.file)?;
    let mut words = args.command.clone();
    if words[0].contains('/') && PathBuf::from(&words[0]).is_file() {
        words[0] = guest.files.add_program(&PathBuf::from(&words[0]))?;
    }
    let line = words.iter().map(|w| quote(w)).collect::<Vec<_>>().join(" ");
    let timeout = Duration::from_secs(args.timeout_s);
    guest.jobs.push(Job { user: args.user, ..Job::new("run", line, timeout) });
    let mut results = guest.boot(ctx)?;
    if let Some(dir) = &args.out {
        results.save_files(dir)?;
    }
    let last = results.jobs.pop().context("the guest returned no result")?;
    for earlier in &results.jobs {
        if earlier.code != 0 || !earlier.complaints.is_empty() {
            eprintln!(
                "{} failed in the guest ({}):\n{}{}",
                earlier.name,
                earlier.code,
                earlier.stderr,
                earlier.complaints.join("\n")
            );
            return Ok(ExitCode::FAILURE);
        }
    }
    print!("{}", last.stdout);
    eprint!("{}", last.stderr);
    if !last.complaints.is_empty() {
        eprintln!("dmesg of the guest:\n{}", last.complaints.join("\n"));
        return Ok(ExitCode::from(DIRTY_DMESG));
    }
    Ok(ExitCode::from(u8::try_from(last.code).unwrap_or(u8::MAX)))
}

/// A guest with the modules loaded as its first jobs.
fn prepare(ctx: &Ctx, args: &BootArgs) -> Result<Guest> {
    let mut guest = Guest::new(ctx, args.kernel)?;
    guest.icount = args.icount;
    guest.cpu.clone_from(&args.cpu);
    guest.mem_mib = args.mem_mib.unwrap_or(guest.mem_mib);
    guest.append = format!("{} {}", guest.append, args.append);
    if args.disks {
        disk::add(&mut guest)?;
    }
    if !args.bare {
        guest.load_modules(&module::build(ctx, args.kernel)?.modules)?;
    }
    for dir in &args.driver {
        guest.load_modules(&module::build_driver(ctx, args.kernel, dir)?.modules)?;
    }
    Ok(guest)
}

fn add_files(guest: &mut Guest, files: &[String]) -> Result<()> {
    for spec in files {
        let (source, name) = match spec.rsplit_once(':') {
            Some((source, name)) => (PathBuf::from(source), name.to_owned()),
            None => {
                let source = PathBuf::from(spec);
                let name = source.file_name().unwrap_or_default().to_string_lossy().into_owned();
                (source, name)
            }
        };
        let data = fs::read(&source).with_context(|| format!("cannot read {}", source.display()))?;
        guest.files.add_libraries(&source)?;
        guest.files.add(&format!("w/{name}"), data, 0o755);
    }
    Ok(())
}

fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask`: the one front door for the project's chores.
//!
//! Everything it downloads or builds for a kernel lives in a cache outside the checkout; what is missing on the
//! machine is installed with apt when that is allowed, and else named with the exact command.
#![forbid(unsafe_code)]

mod apt;
mod bench;
mod cargo;
mod ctx;
mod driver;
mod fuzz;
mod install;
mod kernel;
mod modinfo;
mod module;
mod mutants;
mod nightly;
mod objcheck;
mod process;
mod sanitizer;
mod test;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::ctx::Ctx;
use crate::kernel::Kernel;

/// Tests, kernel modules and virtual machines of the sq project.
///
/// Caches (kernels, headers, compiled core, module builds) are kept in $SQ_CACHE, by default ~/.cache/sq.
/// A missing package is installed with apt when this user may (root, passwordless sudo); otherwise the
/// exact command is printed and the chore fails. A missing rustup component skips its test stage, and
/// fails it with CI=true.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Run the test stages: on this host, then in virtual machines
    Test(test::Args),
    /// Run what takes a day or more: all sabotages, the fuzz targets, and the guests' tests at length on every kernel, the debug kernels too
    Nightly(nightly::Args),
    /// Build the kernel modules, check their objects, and print where they are
    Module {
        /// Kernel to build for; repeat for several [default: 6.12]
        #[arg(long, short, value_name = "K")]
        kernel: Vec<Kernel>,
    },
    /// Make the directory of a new driver, outside this tree: driver, Makefile, tests, clients
    NewDriver(driver::Args),
    /// Run the fuzz targets, and report executions and the lines of kmod-sq/src that they reach
    Fuzz(fuzz::Args),
    /// Sabotage a copy of the sources, one small thing at a time: each must turn a check red
    Mutants(mutants::Args),
    /// Pack the sources into an archive that builds without network and cargo, and print where it is
    Dist,
    /// Build the Debian package sq-dkms from that archive, have lintian read it, and print where it is
    Deb,
    /// Install by make, by DKMS and by the package in a clean Debian without a network, and use in a guest what was built (root)
    Install,
    /// Run the benchmarks on this host and keep their figures for docs/performance.md
    Bench(bench::Args),
    /// Write docs/performance.md, its plots and README's headline from the figures that are kept
    BenchReport,
    /// Boot a stock Debian kernel in QEMU: run the module's tests, a program, or a shell
    #[command(subcommand)]
    Vm(vm::Chore),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = Ctx::new().and_then(|ctx| match cli.chore {
        Chore::Test(args) => test::run(&ctx, &args),
        Chore::Module { kernel } => module::print_built(&ctx, &Kernel::or_default(&kernel)),
        Chore::Nightly(args) => nightly::run(&ctx, &args),
        Chore::NewDriver(args) => driver::new(&ctx, &args),
        Chore::Fuzz(args) => fuzz::fuzz(&ctx, &args),
        Chore::Mutants(args) => mutants::run(&ctx, &args),
        Chore::Dist => install::dist::print_made(&ctx),
        Chore::Deb => install::deb::print_made(&ctx),
        Chore::Install => install::print_tested(&ctx),
        Chore::Bench(args) => bench::run(&ctx, &args),
        Chore::BenchReport => bench::report::run(&ctx),
        Chore::Vm(chore) => vm::run(&ctx, chore),
    });
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use sq_storage::ring::{Choice, Mode, RingOptions};
use sq_storage::{bench, copy, demo, size, verify};

const ABOUT: &str = "Stores, copies, compares and measures files and block devices through sq rings";

const LONG_ABOUT: &str = "\
Stores, copies, compares and measures files and block devices through sq rings: io_uring-style queues of a kernel module \
(/dev/sqfile), or of the same kernel-side code inside this process, which needs no module and no privilege.

Without a verb it runs the demo: it stores a tree of files (the ones that git tracks here, or --from DIR) through a ring, reads all of \
it back, verifies checksums, and prints a table beside the same work by plain pread and pwrite.";

const EXAMPLES: &str = "\
Examples:
  sq-storage                                   the demo, on the files that git tracks here
  sq-storage --from /usr/share --depth 32      the demo, on another tree
  sq-storage copy disk.img backup.img          flushed, read back and compared
  sq-storage copy --no-verify disk.img b.img   as fast as cp, and as little flushed
  sq-storage copy disk.img /dev/sdX            to a block device, which must not be mounted
  sq-storage verify disk.img /dev/sdX          is it the same?
  sq-storage bench --writes 30 --seconds 5     random reads and writes on a temporary file
  sq-storage bench /dev/sdX --block-size 4K    random reads of a device
  sq-storage info --json                       what the backend can do, for machines

Exit codes: 0 done, 1 failed, 2 not asked properly, 3 not the same, 129, 130 and 143 ended by SIGHUP, SIGINT and \
SIGTERM (one that is ignored at the start, as SIGHUP is under nohup, stays ignored).";

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "sq-storage", version, about = ABOUT, long_about = LONG_ABOUT, after_long_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) verb: Option<Verb>,
    #[command(flatten)]
    pub(crate) ring: RingArgs,
    #[command(flatten)]
    pub(crate) demo: DemoArgs,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Store a tree of files through a ring, read it back and verify it (this is what runs without a verb)
    Demo(DemoArgs),
    /// Copy a file or block device; an interrupted copy never looks complete
    ///
    /// A regular DST is written as DST.part-XXXXXXXX beside it, and renamed to DST when all of it is there (by default: when it is flushed
    /// and was read back with the right checksums). Whatever ends the copy before that, DST is as it was. An existing DST is replaced.
    /// A block device has no second name: it is written in place, must not be mounted, and if the copy is ended, the exit code and the
    /// message say that what is on it is no copy. Permission bits are preserved; holes become zeros. A SRC
    /// whose modification time changes meanwhile is an error; a block device has none to go by.
    Copy(CopyArgs),
    /// Compare two files or block devices by checksum, and say where they differ first
    ///
    /// A block device may be longer than the file that was copied to it; the rest is not compared. Exit code 3 if they differ.
    Verify(VerifyArgs),
    /// Measure reads and writes at queue depth: operations a second, p50, p99, p99.9
    ///
    /// Latencies are from the push of an operation to its reaping. A file is read through the page cache; use one that is larger than
    /// memory, or a device, to measure what is behind it.
    Bench(BenchArgs),
    /// Show the backend: features, opcodes, limits
    Info,
}

/// Which ring, and how to print.
#[derive(Args, Debug)]
#[command(next_help_heading = "Ring")]
pub(crate) struct RingArgs {
    /// `auto` (/dev/sqfile if it is there, else embedded), `embedded` (the kernel side in this process), or a device's PATH
    #[arg(long, global = true, default_value = "auto", value_name = "auto|embedded|PATH")]
    backend: Choice,
    /// Who drains the submission queue
    #[arg(long, global = true, value_enum, default_value_t = ModeArg::Caller)]
    mode: ModeArg,
    /// Operations in flight at most; on small files fewer, if few files may be open (see ulimit -n)
    #[arg(long, global = true, default_value_t = RingOptions::default().depth, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=16384))]
    depth: u16,
    /// Bytes of one operation at most, a multiple of 4K (depth times block size that fits a core's L2 cache is fastest)
    #[arg(long, global = true, default_value = "256K", value_name = "BYTES", value_parser = block)]
    block_size: u32,
    /// Print JSON for machines; no progress bar
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ModeArg {
    /// the doorbell drains it, in the caller's context: no thread
    Caller,
    /// a worker, which the doorbell wakes
    Worker,
    /// a thread that polls, and sleeps when idle: no doorbells while it is awake
    Poll,
}

impl RingArgs {
    pub(crate) fn options(&self) -> RingOptions {
        let mode = match self.mode {
            ModeArg::Caller => Mode::Caller,
            ModeArg::Worker => Mode::Worker,
            ModeArg::Poll => Mode::Poll,
        };
        RingOptions { backend: self.backend.clone(), mode, depth: self.depth, block_bytes: self.block_size }
    }
}

fn block(text: &str) -> Result<u32, String> {
    u32::try_from(size::parse(text)?).map_err(|_| format!("a block of {text} is too large: use less than 4G"))
}

/// What the demo stores.
#[derive(Args, Debug)]
#[command(next_help_heading = "Demo")]
pub(crate) struct DemoArgs {
    /// Store all files below DIR, instead of those that git tracks here
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// Make the store in DIR, instead of in the directory for temporary files; it takes twice the tree's bytes
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Leave the store there at the end
    #[arg(long)]
    keep: bool,
}

impl DemoArgs {
    /// Whether any was given.
    pub(crate) const fn given(&self) -> bool {
        self.from.is_some() || self.to.is_some() || self.keep
    }

    pub(crate) fn options(self) -> demo::Options {
        demo::Options { from: self.from, to: self.to, keep: self.keep }
    }
}

/// What is copied.
#[derive(Args, Debug)]
pub(crate) struct CopyArgs {
    /// A regular file or block device
    src: PathBuf,
    /// A regular file, which need not exist, or a block device that is not mounted
    dst: PathBuf,
    /// Do not read the copy back and compare; nor flush it, unless --sync is given: then a crash of the machine may lose it, as after cp, and an
    /// error that a network file system has when it is closed goes unseen
    #[arg(long)]
    no_verify: bool,
    /// Flush the copy to stable storage before it gets its name (the default, unless --no-verify is given)
    #[arg(long, overrides_with = "no_sync")]
    sync: bool,
    /// Do not flush it: verification then reads what is in memory
    #[arg(long, overrides_with = "sync")]
    no_sync: bool,
}

impl CopyArgs {
    pub(crate) fn options(self) -> copy::Options {
        let verify = !self.no_verify;
        copy::Options { src: self.src, dst: self.dst, verify, sync: self.sync || (verify && !self.no_sync) }
    }
}

/// What is compared.
#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    /// A regular file or block device
    a: PathBuf,
    /// Another
    b: PathBuf,
}

impl VerifyArgs {
    pub(crate) fn options(self) -> verify::Options {
        verify::Options { a: self.a, b: self.b }
    }
}

/// What is measured.
#[derive(Args, Debug)]
pub(crate) struct BenchArgs {
    /// A file or block device; without it, a temporary file
    path: Option<PathBuf>,
    /// Bytes of the temporary file
    #[arg(long, default_value = "256M", value_name = "BYTES", value_parser = size::parse)]
    size: u64,
    /// How many of 100 operations write
    #[arg(long, default_value_t = 0, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    writes: u8,
    /// One block after another, instead of random ones
    #[arg(long)]
    sequential: bool,
    /// For how long
    #[arg(long, default_value_t = 3.0, value_name = "S")]
    seconds: f64,
    /// Writes may destroy what is in PATH
    #[arg(long)]
    overwrite: bool,
}

impl BenchArgs {
    pub(crate) fn options(self) -> bench::Options {
        bench::Options {
            path: self.path,
            size_bytes: self.size,
            write_percent: self.writes,
            sequential: self.sequential,
            seconds: self.seconds,
            overwrite: self.overwrite,
        }
    }
}

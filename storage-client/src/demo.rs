// SPDX-License-Identifier: MIT OR Apache-2.0
//! The demo: stores a tree of files through a ring, reads it back, verifies it, and does the same by plain system calls.
//!
//! Both ways do the same work, block by block: read a file of the tree, take its checksum, write it into a store; then read
//! the store and compare checksums. The tree is read once before, so that both find it in the page cache, and directories and
//! empty files are made before, since making a file costs more than writing a small one, and no ring is involved. What is
//! measured is the way to and from the page cache; the store is flushed before and after, not in the measured time.

mod plain;
mod stored;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::Error;
use crate::checksum::Sums;
use crate::engine::{Counts, Engine};
use crate::progress::Progress;
use crate::report::{Table, per};
use crate::ring::{RingOptions, Shape};
use crate::scratch;
use crate::size::{Bytes, mb_per_s};
use crate::stop::Stop;
use crate::transfer::{Check, Transfer};
use crate::tree::Tree;
use stored::{Stored, Tracked};

/// What is stored, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// All files below this directory, or the files that git tracks in the current one's checkout.
    pub from: Option<PathBuf>,
    /// A directory to make the store in, or the one for temporary files.
    pub to: Option<PathBuf>,
    /// Leave the store there.
    pub keep: bool,
}

/// What it came to.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The ring.
    pub ring: Shape,
    /// Which files.
    pub tree: String,
    /// How many.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Symbolic links and the like, which were left out.
    pub skipped: u64,
    /// One row a phase and way.
    pub rows: Vec<Row>,
    /// All checksums were right.
    pub verified: bool,
    /// Where the store is, if it was kept.
    #[serde(serialize_with = "crate::report::lossy_if_any")]
    pub store: Option<PathBuf>,
}

/// One phase, done one way.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// `store` or `read back`.
    pub phase: &'static str,
    /// `sq ring` or `pread/pwrite`.
    pub way: &'static str,
    /// Bytes of the files.
    pub bytes: u64,
    /// Reads and writes, and for plain calls their number.
    pub counts: Counts,
    /// Megabytes of the files a second.
    pub mb_per_s: f64,
}

impl Row {
    fn new(phase: &'static str, way: &'static str, bytes: u64, counts: Counts) -> Self {
        Self { phase, way, bytes, counts, mb_per_s: mb_per_s(bytes, counts.seconds) }
    }
}

const RING: &str = "sq ring";
const PLAIN: &str = "pread/pwrite";
const STORE: &str = "store";
const BACK: &str = "read back";

/// Runs it.
///
/// # Errors
///
/// What went wrong; the store is removed then.
pub fn run(options: &Options, ring: &RingOptions, stop: &Stop, progress: &Progress) -> Result<Report, Error> {
    let tree = match &options.from {
        Some(dir) => Tree::walk(dir)?,
        None => Tree::tracked(Path::new("."))?,
    };
    let place = options.to.clone().unwrap_or_else(std::env::temp_dir);
    let mut engine = Engine::new(ring)?;
    let bytes = tree.bytes();
    let block = engine.shape().block_bytes;

    progress.begin("warm up", bytes);
    plain::read_all(&tree, block, stop, progress)?;

    let mut store = scratch::Dir::new(&place, options.keep)?;
    let other = scratch::Dir::new(&place, false)?;
    let result = ways(&mut engine, &tree, store.path(), other.path(), stop, progress);
    progress.end();
    if result.is_err() {
        store.discard();
    }
    Ok(Report {
        ring: engine.shape().clone(),
        tree: tree.origin.clone(),
        files: tree.files.len(),
        bytes,
        skipped: tree.skipped,
        rows: result?,
        verified: true,
        store: options.keep.then(|| store.path().to_owned()),
    })
}

/// Both phases, both ways.
fn ways(
    engine: &mut Engine,
    tree: &Tree,
    store: &Path,
    other: &Path,
    stop: &Stop,
    progress: &Progress,
) -> Result<Vec<Row>, Error> {
    let (bytes, block) = (tree.bytes(), engine.shape().block_bytes);
    prepare(tree, store)?;
    prepare(tree, other)?;
    flush(store);

    progress.begin("store", bytes);
    let mut transfer = Transfer::new(Tracked::new(tree, store), Check::Record, Vec::new(), block, progress);
    let ring_store = engine.run(&mut transfer, stop)?;
    let (_, sums) = transfer.into_parts();

    // Else the second to write would be slowed down for the dirty pages of the first.
    flush(store);
    progress.begin("plain", bytes);
    let (plain_store, plain_sums) = plain::store(tree, other, block, stop, progress)?;
    same(tree, &sums, &plain_sums)?;

    progress.begin("verify", bytes);
    let mut transfer = Transfer::new(Stored::new(tree, store), Check::Compare, sums, block, progress);
    let ring_back = engine.run(&mut transfer, stop)?;
    let read = transfer.bytes();

    progress.begin("plain", bytes);
    let plain_back = plain::verify(tree, other, block, &plain_sums, stop, progress)?;
    Ok(vec![
        Row::new(STORE, RING, read, ring_store),
        Row::new(STORE, PLAIN, read, plain_store),
        Row::new(BACK, RING, read, ring_back),
        Row::new(BACK, PLAIN, read, plain_back),
    ])
}

/// The directories and files of a tree, in a store, empty.
fn prepare(tree: &Tree, store: &Path) -> Result<(), Error> {
    let mut last = None;
    for file in &tree.files {
        let dir = file.path.parent();
        if dir != last
            && let Some(dir) = dir
        {
            let dir = store.join(dir);
            fs::create_dir_all(&dir).map_err(|error| Error::io("create the directory", dir, error))?;
        }
        last = dir;
        stored::create(&store.join(&file.path))?;
    }
    Ok(())
}

/// Flushes the filesystem of a store, where that can be done. Not a part of what is measured.
fn flush(store: &Path) {
    if let Ok(dir) = fs::File::open(store) {
        let _ = rustix::fs::syncfs(dir);
    }
}

/// Two ways of reading the same files must agree before either is believed.
fn same(tree: &Tree, ring: &[Sums], plain: &[Sums]) -> Result<(), Error> {
    let changed = ring.iter().zip(plain).position(|(a, b)| a != b);
    let changed = changed.or_else(|| (ring.len() != plain.len()).then_some(ring.len().min(plain.len())));
    let Some(file) = changed.and_then(|n| tree.files.get(n)) else { return Ok(()) };
    let error = io::Error::other("the ring and pread read different bytes of it: was it changed meanwhile?");
    Err(Error::io("verify", tree.root.join(&file.path), error))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.ring)?;
        write!(f, "{}: {} files, {}", self.tree, self.files, Bytes(self.bytes))?;
        match self.skipped {
            0 => writeln!(f)?,
            n => writeln!(f, " ({n} links, special or missing files left out)")?,
        }
        writeln!(f)?;
        let head = ["", "by", "bytes", "operations", "seconds", "MB/s", "doorbells/op", "wake-ups/op"];
        let mut table = Table::new(&head);
        for row in &self.rows {
            let Counts { operations, doorbells, wakeups, seconds } = row.counts;
            let ring = row.way == RING;
            let count = |n| if ring { per(n, operations) } else { "-".into() };
            table.row([
                row.phase.into(),
                row.way.into(),
                row.bytes.to_string(),
                operations.to_string(),
                format!("{seconds:.3}"),
                format!("{:.0}", row.mb_per_s),
                count(doorbells),
                count(wakeups),
            ]);
        }
        writeln!(f, "{table}")?;
        if self.verified {
            writeln!(
                f,
                "verified: every block that was stored was read back with the checksum that it had in the tree"
            )?;
        }
        write!(f, "MB/s is 10^6 bytes of files a second, to and from the page cache: flushing is not in it")?;
        if self.ring.embedded {
            write!(
                f,
                "\nembedded: the driver makes the system calls itself, at least one an operation, on threads of this process"
            )?;
        } else {
            write!(
                f,
                "\ndevice: the module makes no system calls; each doorbell and each sleep is one of this process"
            )?;
        }
        if let Some(store) = &self.store {
            write!(f, "\nkept: {}", store.display())?;
        }
        Ok(())
    }
}

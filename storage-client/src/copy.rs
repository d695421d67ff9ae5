// SPDX-License-Identifier: MIT OR Apache-2.0
//! Copying a file or a block device.
//!
//! A regular destination is written as `DST.part-XXXXXXXX` beside it and gets its name when it is complete (and, by default, flushed
//! and verified). Whatever ends the copy before that, `DST` is as it was; the partial file is removed, and should the process
//! be killed outright, it has a name that says what it is. A complete copy that cannot have its name stays under the other
//! one. A block device has one name only: it is written in place, and an ended copy is an error that says so.

mod target;

use std::cell::Cell;
use std::fmt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::time::Instant;

use rustix::fs::{Advice, fadvise};
use serde::Serialize;

use crate::Error;
use crate::checksum::Digest;
use crate::engine::{Counts, Engine};
use crate::progress::Progress;
use crate::ring::{RingOptions, Shape};
use crate::size::{Bytes, mb_per_s};
use crate::stop::Stop;
use crate::transfer::{Check, Item, Single, Transfer};
use crate::verify::{self, Source};
use target::Target;

/// What is copied, and how carefully.
#[derive(Clone, Debug)]
pub struct Options {
    /// A regular file or a block device.
    pub src: PathBuf,
    /// A regular file, which need not exist, or a block device.
    pub dst: PathBuf,
    /// Read the copy back and compare.
    pub verify: bool,
    /// Flush it to stable storage.
    pub sync: bool,
}

impl Options {
    /// Flushed and verified.
    pub fn new(src: impl Into<PathBuf>, dst: impl Into<PathBuf>) -> Self {
        Self { src: src.into(), dst: dst.into(), verify: true, sync: true }
    }
}

/// It is copied.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The ring.
    pub ring: Shape,
    /// What was copied.
    #[serde(serialize_with = "crate::report::lossy")]
    pub src: PathBuf,
    /// Where it is now.
    #[serde(serialize_with = "crate::report::lossy")]
    pub dst: PathBuf,
    /// Bytes copied.
    pub bytes: u64,
    /// What the ring did for reading and writing.
    pub counts: Counts,
    /// Megabytes a second of reading and writing, without flush and verify.
    pub mb_per_s: f64,
    /// Seconds of the flush, if there was one.
    pub sync_seconds: Option<f64>,
    /// Seconds of reading it back, if it was.
    pub verify_seconds: Option<f64>,
    /// The checksum of both, if it was verified.
    pub digest: Option<Digest>,
}

/// Copies.
///
/// # Errors
///
/// What kept it from being done; the destination is as it was, unless it is a block device, or the error is that its directory could not be
/// flushed: then the copy is there, and a crash of the machine may bring back what was. A complete copy that cannot have its name stays
/// under its partial one ([`Error::Unnamed`]).
pub fn run(options: &Options, ring: &RingOptions, stop: &Stop, progress: &Progress) -> Result<Report, Error> {
    let source = Source::open(&options.src)?;
    let target = Target::open(&options.dst, &source, options.sync)?;
    let mut engine = Engine::new(ring)?;
    let written = Cell::new(0);
    let report = write(&mut engine, source, &target, options, stop, progress, &written);
    progress.end();
    match report {
        Ok(report) => {
            target.publish()?;
            Ok(report)
        }
        Err(error) => Err(target.abandon(error, written.get())),
    }
}

/// Sets `written` to the bytes that it wrote, also if it fails.
fn write(
    engine: &mut Engine,
    source: Source,
    target: &Target,
    options: &Options,
    stop: &Stop,
    progress: &Progress,
    written: &Cell<u64>,
) -> Result<Report, Error> {
    let (bytes, mode, device) = (source.bytes, source.meta.mode(), source.device);
    let before = source.meta.modified().ok();
    let file = |what| move |error| Error::io(what, &options.dst, error);
    target.reserve(bytes, stop)?;
    let to = target.file().try_clone().map_err(file("open"))?;
    let item = Item { from: source.file, from_path: source.path, to: Some((to, options.dst.clone())), bytes };
    let check = if options.verify { Check::Record } else { Check::Skip };

    progress.begin("copy", bytes);
    let block = engine.shape().block_bytes;
    let mut transfer = Transfer::new(Single::new(item), check, Vec::new(), block, progress);
    let counts = engine.run(&mut transfer, stop);
    written.set(transfer.bytes());
    let counts = counts.map_err(|error| target.explain(error, bytes))?;
    let (single, sums) = transfer.into_parts();
    if let Some(from) = single.into_inner().map(|item| item.from) {
        // Growth, or a file of /proc that says it has 0 bytes.
        if from.read_at(&mut [0], bytes).is_ok_and(|more| more > 0) {
            return Err(Error::Resized { path: options.src.clone(), expected: bytes, ended: None });
        }
        let now = from.metadata().map_err(|error| Error::io("look at", &options.src, error))?;
        // A block device says so of who writes to this node of it, and of nobody else.
        if !device && now.modified().ok() != before {
            return Err(Error::Changed { path: options.src.clone() });
        }
    }
    target.finish(bytes, mode)?;

    let start = Instant::now();
    if options.sync {
        progress.begin("flush", 0);
        let slot = engine.files().insert(target.file())?;
        engine.fsync(&slot, &options.dst)?;
        engine.files().remove(slot);
    }
    let sync_seconds = options.sync.then(|| start.elapsed().as_secs_f64());

    let start = Instant::now();
    let digest = sums.into_iter().next();
    let sum = digest.as_ref().map(|sums| sums.digest());
    if let Some(sums) = digest {
        // Best effort: what is clean leaves the page cache, so that the device is read and not the memory that was written.
        let _ = fadvise(target.file(), 0, None, Advice::DontNeed);
        progress.begin("verify", bytes);
        // Not by its name: its mode, the source's, may keep even its owner from reading it.
        let back = target.file().try_clone().map_err(file("open"))?;
        verify::compare(engine, Source::of(back, target.path())?, bytes, sums, &options.src, stop, progress)?;
    }
    stop.check()?;
    Ok(Report {
        ring: engine.shape().clone(),
        src: options.src.clone(),
        dst: options.dst.clone(),
        bytes,
        mb_per_s: mb_per_s(bytes, counts.seconds),
        counts,
        sync_seconds,
        verify_seconds: sum.as_ref().map(|_| start.elapsed().as_secs_f64()),
        digest: sum,
    })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { src, dst, bytes, counts, mb_per_s, ring, .. } = self;
        writeln!(f, "{ring}")?;
        write!(f, "copied {} to {}: {bytes} bytes ({})", src.display(), dst.display(), Bytes(*bytes))?;
        write!(f, " in {:.2} s, {mb_per_s:.0} MB/s", counts.seconds)?;
        match self.sync_seconds {
            Some(seconds) => write!(f, "; flushed in {seconds:.2} s")?,
            None => write!(f, "; not flushed: it is in the page cache, as after cp")?,
        }
        match (&self.digest, self.verify_seconds) {
            (Some(digest), Some(seconds)) => write!(f, "; verified in {seconds:.2} s, xxh3 {digest}"),
            _ => write!(f, "; not verified"),
        }
    }
}

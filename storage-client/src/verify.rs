// SPDX-License-Identifier: MIT OR Apache-2.0
//! Comparing two files or devices.

use std::fmt;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;

use crate::Error;
use crate::checksum::{Digest, Sums};
use crate::engine::{Counts, Engine};
use crate::error::Difference;
use crate::progress::Progress;
use crate::ring::{RingOptions, Shape};
use crate::size::{Bytes, mb_per_s};
use crate::stop::Stop;
use crate::transfer::{Check, Item, Single, Transfer};

/// What is compared.
#[derive(Clone, Debug)]
pub struct Options {
    /// One.
    pub a: PathBuf,
    /// The other.
    pub b: PathBuf,
}

/// They are the same.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The ring.
    pub ring: Shape,
    /// One.
    #[serde(serialize_with = "crate::report::lossy")]
    pub a: PathBuf,
    /// The other.
    #[serde(serialize_with = "crate::report::lossy")]
    pub b: PathBuf,
    /// Bytes compared.
    pub bytes: u64,
    /// Bytes of a longer device that were not compared.
    pub rest_bytes: u64,
    /// The checksum of both.
    pub digest: Digest,
    /// Seconds for both.
    pub seconds: f64,
    /// Megabytes a second, of both files' bytes.
    pub mb_per_s: f64,
}

/// Compares, one after the other.
///
/// A block device may be longer than what it is compared with: a file was copied to it.
///
/// # Errors
///
/// [`Error::Differ`] if they are not the same; else what kept them from being read.
pub fn run(options: &Options, ring: &RingOptions, stop: &Stop, progress: &Progress) -> Result<Report, Error> {
    let (a, b) = (Source::open(&options.a)?, Source::open(&options.b)?);
    let bytes = a.bytes.min(b.bytes);
    let rest_bytes = a.bytes.max(b.bytes) - bytes;
    let longer_is_device = if a.bytes > b.bytes { a.device } else { b.device };
    if rest_bytes > 0 && !longer_is_device {
        let how = Difference::Size(a.bytes, b.bytes);
        return Err(Error::Differ { a: options.a.clone(), b: options.b.clone(), how });
    }
    let mut engine = Engine::new(ring)?;
    let start = Instant::now();
    progress.begin("verify", bytes.saturating_mul(2));
    let (sums, _) = record(&mut engine, a, bytes, stop, progress)?;
    let digest = sums.digest();
    compare(&mut engine, b, bytes, sums, &options.a, stop, progress)?;
    let seconds = start.elapsed().as_secs_f64();
    progress.end();
    Ok(Report {
        ring: engine.shape().clone(),
        a: options.a.clone(),
        b: options.b.clone(),
        bytes,
        rest_bytes,
        digest,
        seconds,
        mb_per_s: mb_per_s(bytes.saturating_mul(2), seconds),
    })
}

/// Something to read: a regular file or a block device.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) file: File,
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    pub(crate) device: bool,
    pub(crate) meta: fs::Metadata,
}

impl Source {
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        // Before it is opened: opening a FIFO would wait for its writer.
        kind(path, &fs::metadata(path).map_err(|error| Error::io("find", path, error))?)?;
        Self::of(File::open(path).map_err(|error| Error::io("open", path, error))?, path)
    }

    /// An open file, which `path` is the name of.
    pub(crate) fn of(mut file: File, path: &Path) -> Result<Self, Error> {
        let meta = file.metadata().map_err(|error| Error::io("look at", path, error))?;
        let device = kind(path, &meta)?;
        let bytes = if device { device_bytes(path, &mut file)? } else { meta.len() };
        Ok(Self { file, path: path.to_owned(), bytes, device, meta })
    }

    /// As an item to read the first `bytes` of.
    pub(crate) fn into_item(self, bytes: u64) -> Item {
        Item { from: self.file, from_path: self.path, to: None, bytes }
    }
}

/// Whether it is a block device.
pub(crate) fn kind(path: &Path, meta: &fs::Metadata) -> Result<bool, Error> {
    let kind = meta.file_type();
    let what = if kind.is_file() || kind.is_block_device() {
        return Ok(kind.is_block_device());
    } else if kind.is_dir() {
        "a directory: name a file in it"
    } else if kind.is_char_device() {
        "a character device: only regular files and block devices have a size and offsets"
    } else {
        "a pipe or a socket: only regular files and block devices have a size and offsets"
    };
    Err(Error::Refused(format!("{} is {what}", path.display())))
}

/// The size of a block device is where its end is.
pub(crate) fn device_bytes(path: &Path, device: &mut File) -> Result<u64, Error> {
    device.seek(SeekFrom::End(0)).map_err(|error| Error::io("find the size of", path, error))
}

/// Reads an item and keeps its checksums.
fn record(
    engine: &mut Engine,
    source: Source,
    bytes: u64,
    stop: &Stop,
    progress: &Progress,
) -> Result<(Sums, Counts), Error> {
    let block = engine.shape().block_bytes;
    let mut transfer = Transfer::new(Single::new(source.into_item(bytes)), Check::Record, Vec::new(), block, progress);
    let counts = engine.run(&mut transfer, stop)?;
    Ok((transfer.into_parts().1.pop().unwrap_or_default(), counts))
}

/// Reads an item and compares its checksums with those of `original`.
pub(crate) fn compare(
    engine: &mut Engine,
    source: Source,
    bytes: u64,
    sums: Sums,
    original: &Path,
    stop: &Stop,
    progress: &Progress,
) -> Result<Counts, Error> {
    let (block, path) = (engine.shape().block_bytes, source.path.clone());
    let mut transfer = Transfer::new(Single::new(source.into_item(bytes)), Check::Compare, vec![sums], block, progress);
    engine.run(&mut transfer, stop).map_err(|error| match error {
        Error::Differ { how: Difference::Block { block: at, .. }, .. } => {
            let len = u64::from(block).min(bytes.saturating_sub(at)) as usize;
            let byte = first_difference(original, &path, at, len);
            Error::Differ { a: original.to_owned(), b: path, how: Difference::Block { block: at, byte } }
        }
        error => error,
    })
}

/// A second look at a block, by other means. `None` if it finds nothing, or cannot be had.
fn first_difference(a: &Path, b: &Path, at: u64, len: usize) -> Option<u64> {
    let read = |path| {
        let mut bytes = vec![0; len];
        File::open(path).and_then(|file| file.read_exact_at(&mut bytes, at)).ok().map(|()| bytes)
    };
    let (a, b) = (read(a)?, read(b)?);
    a.iter().zip(&b).position(|(a, b)| a != b).map(|i| at + i as u64)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { a, b, bytes, rest_bytes, digest, seconds, mb_per_s, ring } = self;
        writeln!(f, "{ring}")?;
        write!(f, "{} and {} are the same: {bytes} bytes ({})", a.display(), b.display(), Bytes(*bytes))?;
        write!(f, ", xxh3 {digest}, {seconds:.2} s, {mb_per_s:.0} MB/s")?;
        if *rest_bytes > 0 {
            write!(f, "\nthe device has {rest_bytes} bytes more, which were not compared")?;
        }
        Ok(())
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is measured on: an existing file or device, or a temporary file.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;

use rustix::fs::OFlags;

use super::Options;
use crate::Error;
use crate::progress::Progress;
use crate::scratch::Partial;
use crate::stop::Stop;
use crate::verify::Source;

/// Bytes that the temporary file is filled with at a time.
const FILL_BYTES: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct Target {
    pub(super) file: File,
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    _temporary: Option<Partial>,
}

impl Target {
    pub(super) fn open(options: &Options, block_bytes: u32, stop: &Stop, progress: &Progress) -> Result<Self, Error> {
        let target = match &options.path {
            Some(path) => Self::existing(options, path.clone())?,
            None => Self::temporary(options.size_bytes, stop, progress)?,
        };
        if target.bytes < block_bytes.into() {
            let Self { path, bytes, .. } = &target;
            let why = format!(
                "{} has {bytes} bytes, less than a block of {block_bytes}: use a smaller block size",
                path.display()
            );
            return Err(Error::Refused(why));
        }
        Ok(target)
    }

    fn existing(options: &Options, path: PathBuf) -> Result<Self, Error> {
        let Source { file, bytes, device, .. } = Source::open(&path)?;
        if options.write_percent == 0 {
            return Ok(Self { file, path, bytes, _temporary: None });
        }
        if !options.overwrite {
            let why = format!("writes would destroy what is in {}: say --overwrite if they may", path.display());
            return Err(Error::Refused(why));
        }
        // A device that is mounted is not for this.
        let excl = if device { i32::try_from(OFlags::EXCL.bits()).unwrap_or(0) } else { 0 };
        let file = OpenOptions::new().read(true).write(true).custom_flags(excl).open(&path);
        let file = file.map_err(|error| Error::io("open", &path, error))?;
        Ok(Self { file, path, bytes, _temporary: None })
    }

    /// Filled, so that reads find blocks and not holes.
    fn temporary(bytes: u64, stop: &Stop, progress: &Progress) -> Result<Self, Error> {
        let (partial, file) = Partial::beside(&std::env::temp_dir().join("sq-bench"))?;
        progress.begin("fill", bytes);
        let fill: Vec<u8> = (0..FILL_BYTES).map(|n| (n % 251) as u8).collect();
        let mut at = 0;
        while at < bytes {
            stop.check()?;
            let len = (bytes - at).min(FILL_BYTES as u64);
            let piece = fill.get(..usize::try_from(len).unwrap_or(FILL_BYTES)).unwrap_or(&fill);
            file.write_all_at(piece, at).map_err(|error| Error::io("fill", partial.path(), error))?;
            at += len;
            progress.add(len);
        }
        Ok(Self { file, path: partial.path().to_owned(), bytes, _temporary: Some(partial) })
    }
}

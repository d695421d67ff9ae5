// SPDX-License-Identifier: MIT OR Apache-2.0
//! The demo's work by `pread` and `pwrite`: one thread, one buffer, one call after another.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use super::stored::{open, open_empty, open_stored};
use crate::Error;
use crate::checksum::{self, Sums};
use crate::engine::Counts;
use crate::error::Difference;
use crate::progress::Progress;
use crate::stop::Stop;
use crate::tree::Tree;

/// Reads the tree, to no end but that it is in the page cache.
pub(super) fn read_all(tree: &Tree, block: u32, stop: &Stop, progress: &Progress) -> Result<(), Error> {
    let mut pass = Pass::new(block, stop, progress);
    for file in &tree.files {
        let path = tree.root.join(&file.path);
        pass.file(&open(&path)?, &path, file.bytes, |_, _, _| Ok(0))?;
    }
    Ok(())
}

/// Writes the tree to a store. Returns the checksums too.
pub(super) fn store(
    tree: &Tree,
    store: &Path,
    block: u32,
    stop: &Stop,
    progress: &Progress,
) -> Result<(Counts, Vec<Sums>), Error> {
    let (start, mut pass, mut all) = (Instant::now(), Pass::new(block, stop, progress), Vec::new());
    for file in &tree.files {
        let (from, to) = (tree.root.join(&file.path), store.join(&file.path));
        let (source, target) = (open(&from)?, open_empty(&to)?);
        let mut sums = Sums::new(&from, file.bytes, block)?;
        pass.file(&source, &from, file.bytes, |index, offset, bytes| {
            sums.set(index, checksum::block(bytes));
            target.write_all_at(bytes, offset).map(|()| 1).map_err(|source| Error::Io {
                what: "write",
                path: to.clone(),
                at: Some(offset),
                source,
            })
        })?;
        all.push(sums);
    }
    Ok((pass.counts(start), all))
}

/// Reads a store and compares.
pub(super) fn verify(
    tree: &Tree,
    store: &Path,
    block: u32,
    all: &[Sums],
    stop: &Stop,
    progress: &Progress,
) -> Result<Counts, Error> {
    let (start, mut pass) = (Instant::now(), Pass::new(block, stop, progress));
    for (file, sums) in tree.files.iter().zip(all) {
        let path = store.join(&file.path);
        pass.file(&open_stored(&path, file.bytes)?, &path, file.bytes, |index, offset, bytes| {
            if sums.get(index) == Some(checksum::block(bytes)) {
                return Ok(0);
            }
            let how = Difference::Block { block: offset, byte: None };
            Err(Error::Differ { a: tree.root.join(&file.path), b: path.clone(), how })
        })?;
    }
    Ok(pass.counts(start))
}

/// One way through the files.
struct Pass<'a> {
    buffer: Vec<u8>,
    operations: u64,
    stop: &'a Stop,
    progress: &'a Progress,
}

impl<'a> Pass<'a> {
    fn new(block: u32, stop: &'a Stop, progress: &'a Progress) -> Self {
        Self { buffer: vec![0; block as usize], operations: 0, stop, progress }
    }

    /// Reads a file, block by block. `each` is given its index, its offset and its bytes, and returns the calls that it made.
    fn file(
        &mut self,
        file: &File,
        path: &Path,
        bytes: u64,
        mut each: impl FnMut(usize, u64, &[u8]) -> Result<u64, Error>,
    ) -> Result<(), Error> {
        let (mut offset, mut index) = (0, 0);
        while offset < bytes {
            self.stop.check()?;
            let len = usize::try_from(bytes - offset).unwrap_or(usize::MAX).min(self.buffer.len());
            let Some(block) = self.buffer.get_mut(..len) else { break };
            file.read_exact_at(block, offset).map_err(|source| Error::Io {
                what: "read",
                path: path.to_owned(),
                at: Some(offset),
                source,
            })?;
            self.operations += 1 + each(index, offset, block)?;
            offset += len as u64;
            index += 1;
            self.progress.add(len as u64);
        }
        Ok(())
    }

    fn counts(&self, start: Instant) -> Counts {
        Counts { operations: self.operations, doorbells: 0, wakeups: 0, seconds: start.elapsed().as_secs_f64() }
    }
}

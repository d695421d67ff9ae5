// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checksums: XXH3-64, one a block.
//!
//! Blocks complete in any order, so each has its own: no block waits for an earlier one, and a mismatch says where. XXH3 is
//! used because it reads memory faster than any device or page cache delivers it, with 64 bits (a CRC-32 would take one
//! damaged block in four billion for good). It is no protection against forgery, and none is needed: who can change the copy can
//! change the program.

use std::path::Path;

use serde::Serialize;
use twox_hash::XxHash3_64;

use crate::Error;

/// The checksum of one block.
#[must_use]
pub fn block(bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot(bytes)
}

/// The checksums of a file's blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums(Vec<u64>);

impl Sums {
    /// Room for those of a file of `bytes`, in blocks of `block_bytes`. `path` is its name, for the message.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if there is no memory for so many: a sparse file may have any size.
    pub fn new(path: &Path, bytes: u64, block_bytes: u32) -> Result<Self, Error> {
        let mut sums = Vec::new();
        let blocks = usize::try_from(bytes.div_ceil(block_bytes.into()));
        if blocks.is_ok_and(|blocks| sums.try_reserve_exact(blocks).is_ok()) {
            return Ok(Self(sums));
        }
        let why = format!("{} has too many blocks, {bytes} bytes in all: use a larger block size", path.display());
        Err(Error::Refused(why))
    }

    /// Notes the checksum of block `index`.
    pub fn set(&mut self, index: usize, sum: u64) {
        // Never beyond the room that was made. What is not touched yet takes no memory.
        if index >= self.0.len() && index < self.0.capacity() {
            self.0.resize(index + 1, 0);
        }
        if let Some(place) = self.0.get_mut(index) {
            *place = sum;
        }
    }

    /// The checksum of block `index`.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<u64> {
        self.0.get(index).copied()
    }

    /// One checksum of them all: XXH3-64 of the blocks' checksums, each as 8 little-endian bytes. It depends on the block size.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let bytes: Vec<u8> = self.0.iter().flat_map(|sum| sum.to_le_bytes()).collect();
        Digest(format!("{:016x}", block(&bytes)))
    }
}

/// A checksum in hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Digest(String);

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::block;

    /// From the reference implementation: `printf abc | xxhsum -H3`.
    #[test]
    fn it_is_xxh3() {
        assert_eq!(block(b""), 0x2d06_8005_38d3_94c2);
        assert_eq!(block(b"abc"), 0x78af_5f94_892f_3950);
    }
}

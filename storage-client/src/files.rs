// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ring's registered files: which places of the table are free.

use std::fs::File;
use std::os::fd::AsFd;

use liburing_shm::Submitter;
use liburing_shm::opcode::Target;

use crate::Error;

/// A place in the ring's table of files, with a file in it.
///
/// Not `Copy` and without a drop: it is given back by [`Files::remove`], and ends with its ring at the latest.
#[derive(Debug)]
pub struct Slot(u32);

impl Slot {
    /// How an entry names it.
    #[must_use]
    pub const fn target(&self) -> Target {
        Target::Fixed(self.0)
    }
}

/// The ring's table of files.
#[derive(Debug)]
pub struct Files {
    ring: Submitter,
    free: Vec<u32>,
}

impl Files {
    pub(crate) fn new(ring: Submitter, places: u16) -> Result<Self, Error> {
        ring.register_files_sparse(places)?;
        Ok(Self { ring, free: (0..u32::from(places)).rev().collect() })
    }

    /// Places that are free.
    #[must_use]
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Puts a file into a free place. The ring has a reference of its own: the file may be closed.
    ///
    /// # Errors
    ///
    /// The ring's; [`Error::Refused`] if no place is free.
    pub fn insert(&mut self, file: &File) -> Result<Slot, Error> {
        let Some(place) = self.free.last() else {
            return Err(Error::Refused("all places in the ring's table of files are taken".into()));
        };
        self.ring.update_files(*place, &[Some(file.as_fd())])?;
        Ok(Slot(self.free.pop().unwrap_or_default()))
    }

    /// Gives a place back. The ring's reference to the file goes when the place is used again, or with the ring: that saves a
    /// call a file.
    pub fn remove(&mut self, slot: Slot) {
        self.free.push(slot.0);
    }
}

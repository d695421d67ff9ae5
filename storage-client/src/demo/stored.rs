// SPDX-License-Identifier: MIT OR Apache-2.0
//! A tree's files, for a transfer: into a store, and out of it.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

use crate::Error;
use crate::transfer::{Item, Items};
use crate::tree::Tree;

/// The files of a tree, each to be written to a store.
#[derive(Debug)]
pub(super) struct Tracked<'a> {
    tree: &'a Tree,
    store: &'a Path,
    next: usize,
}

impl<'a> Tracked<'a> {
    pub(super) const fn new(tree: &'a Tree, store: &'a Path) -> Self {
        Self { tree, store, next: 0 }
    }
}

impl Items for Tracked<'_> {
    fn open(&mut self) -> Result<Option<Item>, Error> {
        let Some(file) = self.tree.files.get(self.next) else { return Ok(None) };
        self.next += 1;
        let (from_path, to_path) = (self.tree.root.join(&file.path), self.store.join(&file.path));
        let from = open(&from_path)?;
        let to = open_empty(&to_path)?;
        Ok(Some(Item { from, from_path, to: Some((to, to_path)), bytes: file.bytes }))
    }

    fn close(&mut self, _: Item) -> Result<(), Error> {
        Ok(())
    }
}

/// The files of a store.
#[derive(Debug)]
pub(super) struct Stored<'a>(Tracked<'a>);

impl<'a> Stored<'a> {
    pub(super) const fn new(tree: &'a Tree, store: &'a Path) -> Self {
        Self(Tracked::new(tree, store))
    }
}

impl Items for Stored<'_> {
    fn open(&mut self) -> Result<Option<Item>, Error> {
        let Tracked { tree, store, next } = &mut self.0;
        let Some(file) = tree.files.get(*next) else { return Ok(None) };
        *next += 1;
        let from_path = store.join(&file.path);
        let from = open_stored(&from_path, file.bytes)?;
        Ok(Some(Item { from, from_path, to: None, bytes: file.bytes }))
    }

    fn close(&mut self, _: Item) -> Result<(), Error> {
        Ok(())
    }
}

pub(super) fn open(path: &Path) -> Result<File, Error> {
    File::open(path).map_err(|error| Error::io("open", path, error))
}

/// Makes a file of a store.
pub(super) fn create(path: &Path) -> Result<(), Error> {
    let created = OpenOptions::new().write(true).create_new(true).open(path);
    created.map(|_| ()).map_err(|error| Error::io("create", path, error))
}

/// Opens a file of a store to be written.
pub(super) fn open_empty(path: &Path) -> Result<File, Error> {
    OpenOptions::new().write(true).open(path).map_err(|error| Error::io("open", path, error))
}

/// Opens a file of a store to be read, if it has this many bytes.
pub(super) fn open_stored(path: &Path, bytes: u64) -> Result<File, Error> {
    let file = open(path)?;
    let stored = file.metadata().map_err(|error| Error::io("look at", path, error))?.len();
    if stored != bytes {
        let why = io::Error::other(format!("the store has {stored} bytes of {bytes}"));
        return Err(Error::io("verify", path, why));
    }
    Ok(file)
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whole files as blocks: read, and perhaps written to other files, with a checksum a block.

use std::fs::File;
use std::path::{Path, PathBuf};

use liburing_shm::opcode::Target;

use crate::Error;
use crate::checksum::{self, Sums};
use crate::engine::{Block, Next, Step, Work};
use crate::error::Difference;
use crate::files::{Files, Slot};
use crate::progress::Progress;

/// The files of a transfer, one item after another.
pub trait Items {
    /// Opens the next item. `None`: there are no more.
    ///
    /// # Errors
    ///
    /// Whatever ends the transfer.
    fn open(&mut self) -> Result<Option<Item>, Error>;

    /// An item's bytes have all been transferred.
    ///
    /// # Errors
    ///
    /// Whatever ends the transfer.
    fn close(&mut self, item: Item) -> Result<(), Error>;
}

/// One file to read, and perhaps one to write.
#[derive(Debug)]
pub struct Item {
    /// What is read.
    pub from: File,
    /// Its name.
    pub from_path: PathBuf,
    /// What is written, and its name.
    pub to: Option<(File, PathBuf)>,
    /// Bytes to transfer, from the first.
    pub bytes: u64,
}

/// What is done with checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Nothing.
    Skip,
    /// They are kept.
    Record,
    /// They are compared with those that were kept.
    Compare,
}

/// A transfer of [`Items`], to be run by an [`Engine`](crate::engine::Engine).
#[derive(Debug)]
pub struct Transfer<'a, I> {
    items: I,
    check: Check,
    sums: Vec<Sums>,
    /// Items that were opened; those that are done are gone.
    going: Vec<Option<Going>>,
    /// The item whose blocks are being started.
    current: Option<usize>,
    /// The first block that differs, as far as is known: its item and offset, and the item's name.
    differs: Option<((usize, u64), PathBuf)>,
    block_bytes: u32,
    bytes: u64,
    progress: &'a Progress,
}

#[derive(Debug)]
struct Going {
    item: Item,
    from: Slot,
    to: Option<Slot>,
    /// Bytes whose blocks were started.
    started: u64,
    /// Blocks that were started and are not finished.
    unfinished: usize,
}

impl Going {
    const fn all_started(&self) -> bool {
        self.started >= self.item.bytes
    }
}

impl<'a, I: Items> Transfer<'a, I> {
    /// A transfer. To [`Check::Compare`], `sums` are those of an earlier one; else there are none.
    pub fn new(items: I, check: Check, sums: Vec<Sums>, block_bytes: u32, progress: &'a Progress) -> Self {
        Self { items, check, sums, going: Vec::new(), current: None, differs: None, block_bytes, bytes: 0, progress }
    }

    /// The items, and their checksums.
    #[must_use]
    pub fn into_parts(self) -> (I, Vec<Sums>) {
        (self.items, self.sums)
    }

    /// Bytes transferred.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The next block of the current item.
    fn block(&mut self) -> Option<Block> {
        let index = self.current?;
        let going = self.going.get_mut(index)?.as_mut()?;
        if going.all_started() {
            return None;
        }
        let offset = going.started;
        let len = u64::from(self.block_bytes).min(going.item.bytes - offset) as u32;
        going.started += u64::from(len);
        going.unfinished += 1;
        let block = usize::try_from(offset / u64::from(self.block_bytes)).unwrap_or(usize::MAX);
        Some(Block { item: index, index: block, from: going.from.target(), offset, len })
    }

    fn open(&mut self, files: &mut Files) -> Result<bool, Error> {
        let Some(item) = self.items.open()? else { return Ok(false) };
        let from = files.insert(&item.from)?;
        let to = item.to.as_ref().map(|(file, _)| files.insert(file)).transpose()?;
        if self.check == Check::Record {
            self.sums.push(Sums::new(&item.from_path, item.bytes, self.block_bytes)?);
        }
        self.current = Some(self.going.len());
        self.going.push(Some(Going { item, from, to, started: 0, unfinished: 0 }));
        Ok(true)
    }

    /// Closes an item if nothing is left to be done with it.
    fn settle(&mut self, index: usize, files: &mut Files) -> Result<(), Error> {
        let Some(place) = self.going.get_mut(index) else { return Ok(()) };
        let Some(going) = place.take_if(|going| going.unfinished == 0 && going.all_started()) else { return Ok(()) };
        files.remove(going.from);
        if let Some(to) = going.to {
            files.remove(to);
        }
        self.items.close(going.item)
    }

    fn item(&self, block: &Block) -> Option<&Item> {
        self.going.get(block.item)?.as_ref().map(|going| &going.item)
    }
}

impl<I: Items> Work for Transfer<'_, I> {
    fn next(&mut self, files: &mut Files) -> Result<Next, Error> {
        // Blocks are started in order, so an earlier difference can only be in one that is in flight.
        if self.differs.is_some() {
            return Ok(Next::End);
        }
        loop {
            if let Some(block) = self.block() {
                return Ok(Next::Block(block));
            }
            if let Some(index) = self.current.take() {
                self.settle(index, files)?;
            }
            if files.free() < 2 {
                return Ok(Next::Wait);
            }
            if !self.open(files)? {
                return Ok(Next::End);
            }
        }
    }

    fn read(&mut self, block: &Block, bytes: &[u8]) -> Result<Option<Target>, Error> {
        match self.check {
            Check::Skip => {}
            Check::Record => {
                if let Some(sums) = self.sums.get_mut(block.item) {
                    sums.set(block.index, checksum::block(bytes));
                }
            }
            Check::Compare => {
                let kept = self.sums.get(block.item).and_then(|sums| sums.get(block.index));
                let at = (block.item, block.offset);
                if kept != Some(checksum::block(bytes)) && self.differs.as_ref().is_none_or(|(first, _)| at < *first) {
                    self.differs = Some((at, self.path(block, Step::Read).to_owned()));
                }
            }
        }
        Ok(self.going.get(block.item).and_then(|going| going.as_ref()?.to.as_ref().map(Slot::target)))
    }

    fn finished(&mut self, block: &Block, files: &mut Files) -> Result<(), Error> {
        self.bytes += u64::from(block.len);
        self.progress.add(block.len.into());
        if let Some(Some(going)) = self.going.get_mut(block.item) {
            going.unfinished = going.unfinished.saturating_sub(1);
        }
        self.settle(block.item, files)
    }

    fn end(&mut self) -> Result<(), Error> {
        let Some(((_, block), path)) = self.differs.take() else { return Ok(()) };
        Err(Error::Differ { a: path.clone(), b: path, how: Difference::Block { block, byte: None } })
    }

    fn path(&self, block: &Block, step: Step) -> &Path {
        match (self.item(block), step) {
            (Some(item), Step::Read) => &item.from_path,
            (Some(Item { to: Some((_, path)), .. }), Step::Write) => path,
            _ => Path::new("?"),
        }
    }
}

/// One item.
#[derive(Debug)]
pub struct Single {
    waiting: Option<Item>,
    done: Option<Item>,
}

impl Single {
    /// This one.
    #[must_use]
    pub const fn new(item: Item) -> Self {
        Self { waiting: Some(item), done: None }
    }

    /// The item, after it was transferred.
    #[must_use]
    pub fn into_inner(self) -> Option<Item> {
        self.done.or(self.waiting)
    }
}

impl Items for Single {
    fn open(&mut self) -> Result<Option<Item>, Error> {
        Ok(self.waiting.take())
    }

    fn close(&mut self, item: Item) -> Result<(), Error> {
        self.done = Some(item);
        Ok(())
    }
}

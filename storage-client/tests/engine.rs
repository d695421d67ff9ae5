// SPDX-License-Identifier: MIT OR Apache-2.0
//! The engine on a file driver whose transfers are short, or fail.
#![allow(missing_docs, reason = "a test binary")]

mod common;

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use common::{Dir, bytes};
use liburing_shm::Backend;
use liburing_shm::opcode::Target;
use sq_driver::Errno;
use sq_driver::abi::Segment;
use sq_file::What;
use sq_file::process::{FileIo, Found, Limits, System, Threads};
use sq_storage::Error;
use sq_storage::checksum::Sums;
use sq_storage::engine::{Block, Counts, Engine, Next, Step, Work};
use sq_storage::files::Files;
use sq_storage::progress::Progress;
use sq_storage::ring::{Mode, RingOptions};
use sq_storage::stop::Stop;
use sq_storage::transfer::{Check, Item, Single, Transfer};

const BLOCK: u32 = 8192;

/// The system's files, but transfers are short, one fails, or the first block of a file is read late.
#[derive(Default)]
struct Faulty {
    calls: Arc<AtomicU32>,
    /// Every transfer but each fourth ends early.
    short: bool,
    /// The call that fails, and how.
    fault: Option<(u32, Errno)>,
    /// The first block is not in memory: a thread reads it, and the others overtake it.
    late: bool,
}

impl Faulty {
    /// The engine on it, with blocks of [`BLOCK`].
    fn engine(self, mode: Mode) -> Engine {
        let driver = sq_file::File::new(Threads::new(self, Limits::default()));
        let backend = Backend::embedded(driver).expect("a driver");
        let options = RingOptions { mode, depth: 5, block_bytes: BLOCK, ..RingOptions::default() };
        Engine::on(&backend, &options).expect("a ring")
    }

    fn cut(&self, segments: &[Segment]) -> Result<Vec<Segment>, Errno> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        if let Some((at, errno)) = self.fault
            && call == at
        {
            return Err(errno);
        }
        let short = |segment: &Segment| Segment {
            len: (segment.len * u64::from(call % 4 + 1) / 4).max(1).min(segment.len),
            ..*segment
        };
        Ok(segments.iter().map(|segment| if self.short { short(segment) } else { *segment }).collect())
    }
}

// Each call is the system's own with the same target, and with pieces that lie inside the same segments.
impl FileIo for Faulty {
    unsafe fn look(&self, target: usize, what: What) -> Result<Found, Errno> {
        // SAFETY: the contract, passed on.
        unsafe { System.look(target, what) }
    }

    unsafe fn read(&self, target: usize, off: u64, to: &[Segment], wait: bool) -> Result<usize, Errno> {
        if self.late && off == 0 {
            if !wait {
                return Err(Errno::EAGAIN);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let to = self.cut(to)?;
        // SAFETY: the contract, passed on; the segments only got shorter.
        unsafe { System.read(target, off, &to, wait) }
    }

    unsafe fn write(&self, target: usize, off: u64, from: &[Segment], wait: bool) -> Result<usize, Errno> {
        if !wait {
            return Err(Errno::EAGAIN);
        }
        let from = self.cut(from)?;
        // SAFETY: the contract, passed on; the segments only got shorter.
        unsafe { System.write(target, off, &from, wait) }
    }

    unsafe fn sync(&self, target: usize, data_only: bool) -> Result<(), Errno> {
        // SAFETY: the contract, passed on.
        unsafe { System.sync(target, data_only) }
    }
}

/// Copies `content` through the engine. Returns what arrived, and how many calls were made.
fn copy(
    content: &[u8],
    mode: Mode,
    short: bool,
    fault: Option<(u32, Errno)>,
) -> (Result<(Counts, Vec<u8>), Error>, u32) {
    let dir = Dir::new();
    let (from_path, to_path) = (dir.file("from", content), dir.join("to"));
    let calls = Arc::new(AtomicU32::new(0));
    let mut engine = Faulty { calls: Arc::clone(&calls), short, fault, late: false }.engine(mode);
    let item = Item {
        from: File::open(&from_path).expect("the source"),
        from_path,
        to: Some((File::create(&to_path).expect("the copy"), to_path.clone())),
        bytes: content.len() as u64,
    };
    let progress = Progress::hidden();
    let mut transfer = Transfer::new(Single::new(item), Check::Record, Vec::new(), BLOCK, &progress);
    let result = engine.run(&mut transfer, &Stop::never());
    let result = result.map(|counts| (counts, fs::read(&to_path).expect("the copy")));
    (result, calls.load(Ordering::Relaxed))
}

#[test]
fn short_transfers_are_carried_on() {
    let content = bytes(500_001);
    for mode in [Mode::Caller, Mode::Worker, Mode::Poll] {
        let (result, calls) = copy(&content, mode, true, None);
        let (counts, arrived) = result.expect("a copy");
        assert!(arrived == content, "{mode:?}");
        let blocks = 500_001u64.div_ceil(BLOCK.into());
        assert!(counts.operations > 2 * blocks, "{} operations for {blocks} blocks: none was short", counts.operations);
        assert!(u64::from(calls) >= counts.operations);
    }
}

#[test]
fn a_failure_anywhere_is_reported_and_nothing_hangs() {
    let content = bytes(100_000);
    let (result, calls) = copy(&content, Mode::Caller, false, None);
    assert!(result.expect("a copy").1 == content);
    for at in 0..calls {
        for mode in [Mode::Caller, Mode::Worker] {
            let (result, _) = copy(&content, mode, false, Some((at, Errno::EIO)));
            // How many calls there are depends on what is done at once, so the last may not come about.
            let Err(error) = result else {
                assert!(at + 4 > calls, "call {at} of {calls} failed and nobody noticed");
                continue;
            };
            let text = error.to_string();
            assert!(text.contains("/from at byte") || text.contains("/to at byte"), "{text}");
            assert_eq!((error.exit_code(), error.kind()), (1, "io"));
        }
    }
}

#[test]
fn an_interrupted_call_is_made_again() {
    let content = bytes(100_000);
    for at in 0..10 {
        let (result, _) = copy(&content, Mode::Caller, false, Some((at, Errno::EINTR)));
        assert!(result.expect("a copy").1 == content);
    }
}

/// Reads a file with this content in its first bytes, and does this with checksums.
fn read(engine: &mut Engine, content: &[u8], bytes: u64, check: Check, sums: Vec<Sums>) -> Result<Vec<Sums>, Error> {
    let dir = Dir::new();
    let from_path = dir.file("from", content);
    let item = Item { from: File::open(&from_path).expect("the file"), from_path, to: None, bytes };
    let progress = Progress::hidden();
    let mut transfer = Transfer::new(Single::new(item), check, sums, BLOCK, &progress);
    engine.run(&mut transfer, &Stop::never())?;
    Ok(transfer.into_parts().1)
}

#[test]
fn the_first_difference_is_reported_though_another_is_found_before() {
    let mut content = bytes(8 * BLOCK as usize);
    let len = content.len() as u64;
    for mode in [Mode::Caller, Mode::Worker, Mode::Poll] {
        let mut engine = Faulty { late: true, ..Faulty::default() }.engine(mode);
        let sums = read(&mut engine, &content, len, Check::Record, Vec::new()).expect("checksums");
        read(&mut engine, &content, len, Check::Compare, sums.clone()).expect("no difference");
        for spoilt in [1, 3 * BLOCK as usize] {
            content[spoilt] ^= 1;
        }
        let error = read(&mut engine, &content, len, Check::Compare, sums).expect_err("two differences");
        assert_eq!(error.exit_code(), 3);
        let text = error.to_string();
        assert!(text.contains("the block at byte 0,"), "{mode:?}: {text}");
    }
}

/// Never has a block, and never ends.
struct Stuck;

impl Work for Stuck {
    fn next(&mut self, _: &mut Files) -> Result<Next, Error> {
        Ok(Next::Wait)
    }

    fn read(&mut self, _: &Block, _: &[u8]) -> Result<Option<Target>, Error> {
        Ok(None)
    }

    fn finished(&mut self, _: &Block, _: &mut Files) -> Result<(), Error> {
        Ok(())
    }

    fn end(&mut self) -> Result<(), Error> {
        Ok(())
    }

    fn path(&self, _: &Block, _: Step) -> &Path {
        Path::new("")
    }
}

#[test]
fn work_that_does_not_end_is_not_done() {
    let mut engine = Faulty::default().engine(Mode::Caller);
    let error = engine.run(&mut Stuck, &Stop::never()).expect_err("nothing was done");
    assert_eq!((error.exit_code(), error.kind()), (1, "stuck"));
}

/// As a sparse file may be. The file itself is small here: it is refused before it is read.
#[test]
fn a_file_of_too_many_blocks_is_refused() {
    let mut engine = Faulty::default().engine(Mode::Caller);
    let error = read(&mut engine, b"", 7 << 60, Check::Record, Vec::new()).expect_err("2^49 checksums and more");
    assert_eq!((error.exit_code(), error.kind()), (2, "refused"));
    assert!(error.to_string().contains("larger block size"), "{error}");
}

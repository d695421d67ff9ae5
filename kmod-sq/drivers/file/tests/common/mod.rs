// SPDX-License-Identifier: MIT OR Apache-2.0
//! A ring on the file driver, one operation at a time, and files to try it on.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use liburing_shm::opcode::{LentFd, Read, Target, Write};
use liburing_shm::{Backend, Completion, Errno, RawEntry, Ring, SqeFlags, Wait};

pub const NONE: SqeFlags = SqeFlags::empty();
/// Either: at once, or by a thread.
pub const BOTH: [SqeFlags; 2] = [NONE, SqeFlags::ASYNC];
pub const BUFFER: u32 = 64 << 10;

pub struct Bench(pub Ring);

pub fn on_device() -> bool {
    std::env::var_os("SQ_BACKEND").is_some_and(|value| value == "device")
}

/// Where files are made: SQ_SCRATCH, or a folder of the build.
pub fn scratch() -> PathBuf {
    std::env::var_os("SQ_SCRATCH").map_or_else(|| env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from)
}

impl Bench {
    /// On the loaded driver, if SQ_BACKEND=device says so.
    pub fn new() -> Self {
        if on_device() {
            return Self::on(&Backend::device("/dev/sqfile"));
        }
        Self::on(&Backend::embedded(sq_file::File::in_process()).unwrap())
    }

    pub fn on(backend: &Backend) -> Self {
        Self(Ring::builder(64).max_inflight(64).pool(4, BUFFER).build(backend).unwrap())
    }

    /// One operation, to its end.
    pub fn entry(&mut self, entry: impl Into<RawEntry>) -> Result<u32, Errno> {
        // SAFETY: every caller's memory stays until this has reaped the completion.
        unsafe { self.0.submission().push_raw(entry.into().user_data(7)) }.unwrap();
        self.0.submit().unwrap();
        let all = self.reap(1);
        assert_eq!((all.len(), all[0].user_data()), (1, 7));
        all[0].result()
    }

    pub fn read(&mut self, file: &impl AsRawFd, off: u64, to: &mut [u8], flags: SqeFlags) -> Result<u32, Errno> {
        self.entry(read(file, off, to).flags(flags))
    }

    pub fn write(&mut self, file: &impl AsRawFd, off: u64, from: &[u8], flags: SqeFlags) -> Result<u32, Errno> {
        let len = u32::try_from(from.len()).unwrap();
        self.entry(Write::new(target(file), from.as_ptr(), len).offset(off).build().flags(flags))
    }

    /// Waits for `count` completions and takes what is there. Panics after ten seconds.
    pub fn reap(&mut self, count: u32) -> Vec<Completion> {
        let mut got = Vec::new();
        while got.len() < count as usize {
            let wait = Wait::new(1).timeout(Duration::from_secs(10));
            self.0.submitter().wait(&wait).expect("a completion in time");
            got.extend(self.0.completion().reap());
        }
        got
    }
}

pub fn target(file: &impl AsRawFd) -> Target {
    // SAFETY: every caller's file stays open until it has reaped the completions.
    Target::Fd(unsafe { LentFd::new(file.as_raw_fd()) })
}

pub fn read(file: &impl AsRawFd, off: u64, to: &mut [u8]) -> RawEntry {
    let len = u32::try_from(to.len()).unwrap();
    Read::new(target(file), to.as_mut_ptr(), len).offset(off).build()
}

/// A new file, open both ways, which has no name any more.
pub fn file(content: &[u8]) -> File {
    let (file, path) = named_file(content);
    std::fs::remove_file(path).unwrap();
    file
}

pub fn named_file(content: &[u8]) -> (File, PathBuf) {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let name = format!("sq-file-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    let path = scratch().join(name);
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, content, 0).unwrap();
    (file, path)
}

/// Numbers that look random, and are the same each time.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.below(256) as u8).collect()
    }
}

pub fn skip(why: &str) {
    println!("SKIP {why}");
    eprintln!("SKIP {why}");
}

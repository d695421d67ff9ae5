// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whose limits and whose groups hold for what kernel threads do to files: the ring's process's. Run as root, with a version 2
//! cgroup hierarchy at /sys/fs/cgroup, and with a file system on a disk at /mnt.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use sq_uapi::consts::{register_op, setup_flags, sqe_flags};
use sq_uapi::{SqSetup, SqStats};

use crate::group::Group;
use crate::page::Page;
use crate::pass;
use crate::proc::{Child, code, until};
use crate::raw::{MODES, Raw, cancel_any, register, stats, transfer};
use crate::{Check, Outcome, Why, os, want};

const FILE: &str = "/dev/sqfile";
const READV: u64 = 1;
const READ_FIXED: u64 = 4;
const WRITE_FIXED: u64 = 5;

/// On a disk.
const ON_DISK: &str = "/mnt/life-accounts";
/// One transfer.
const BYTES: u64 = 1 << 20;

pub(crate) const CHECKS: &[Check] = &[
    ("RLIMIT_FSIZE: what a process that is gone has published is not written", gone),
    ("MEM-1: I/O by kernel threads is in the process's io group", io),
    ("MEM-1: io.max holds for kernel threads, and lists of pages are charged", throttled),
    ("MEM-1: direct I/O that waits for its turn has no pages listed", listed),
];

/// A file without a name. Direct: as its second descriptor is open.
fn file(path: &str, bytes: u64) -> Result<[File; 2], Why> {
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true);
    let plain = options.clone().create(true).truncate(true).open(path).map_err(os("create"))?;
    let direct = options.custom_flags(libc::O_DIRECT).open(path).map_err(os("O_DIRECT"))?;
    fs::remove_file(path).map_err(os("unlink"))?;
    std::io::copy(&mut std::io::Read::take(std::io::repeat(7), bytes), &mut &plain).map_err(os("write"))?;
    plain.sync_all().map_err(os("fsync"))?;
    Ok([plain, direct])
}

/// A ring with a buffer, and with registered files.
fn ring(flags: u32, entries: u32, buffer: u64, files: &[&File]) -> Result<Raw, Why> {
    let setup = SqSetup { sq_entries: entries, flags, max_inflight: entries, buf_count: 1, ..crate::raw::shape(0, 0) };
    let ring = Raw::new(FILE, SqSetup { buf_bytes: buffer as u32, ..setup })?;
    let mut numbers: Vec<i32> = files.iter().map(|file| file.as_raw_fd()).collect();
    register(ring.raw(), register_op::FILES, numbers.as_mut_ptr().expose_provenance() as u64, files.len() as u32)?;
    Ok(ring)
}

/// On a registered file, from its first byte.
fn fixed(opcode: u64, index: u64, user_data: u64, addr: u64, len: u64) -> [u64; 8] {
    let mut entry = transfer(opcode, user_data, addr, len);
    entry[0] = opcode | u64::from(sqe_flags::FIXED_FILE) << 8 | index << 32;
    entry
}

/// A kernel thread is in the ring's memory, and stalled there, while its process ends. There is nobody any more whose limit could be asked:
/// the framework issues nothing more (`sq_pause`), and a job that was issued just before is not done (`sq_fsize`).
fn gone() -> Outcome {
    const LIMIT: u64 = 4096;
    let path = "/tmp/life-gone";
    for mode in [setup_flags::WORKER, setup_flags::SQPOLL] {
        let file = File::create(path).map_err(os("create"))?;
        let [ours, theirs] = pass::pair()?;
        let child = Child::fork(|| {
            code((|| {
                let limit = libc::rlimit { rlim_cur: LIMIT, rlim_max: LIMIT };
                // SAFETY: a limit to read.
                want!(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) }, 0);
                let mut ring = ring(mode, 8, 4 * LIMIT, &[&file])?;
                let page = Page::new()?;
                ring.push(fixed(READV, 0, 1, page.addr(), 1));
                ring.push(fixed(WRITE_FIXED, 0, 2, 0, 4 * LIMIT));
                ring.bell()?;
                want!(page.touched(), true);
                pass::send(&ours, &ring.fd, &ring.setup)?;
                pass::send(&ours, &page.uffd, &ring.setup)?;
                // As if killed: the exit closes and unmaps.
                std::mem::forget((ring, page));
                Ok(())
            })())
        });
        let (fd, _) = pass::receive(&theirs)?;
        let (uffd, _) = pass::receive(&theirs)?;
        want!((mode, child.wait()), (mode, 0));
        // Nobody serves the page any more: it is an empty one.
        drop(uffd);
        until(5, "the drain does not end", || {
            stats(fd.as_raw_fd()).is_ok_and(|SqStats { entries, inflight, .. }| (entries, inflight) == (2, 0))
        })?;
        drop(fd);
        crate::proc::all_given_back()?;
        want!((mode, file.metadata().map_err(os("stat"))?.len()), (mode, 0));
    }
    let _ = fs::remove_file(path);
    Ok(())
}

/// What cannot be shown here, and is no failure.
fn skip(why: &str) -> Outcome {
    println!("SKIPPED: {why}");
    Ok(())
}

/// Whether /mnt is on a disk.
pub(crate) fn on_disk() -> bool {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    Path::new("/mnt").is_dir() && mounts.lines().any(|line| line.split(' ').nth(1) == Some("/mnt"))
}

fn io() -> Outcome {
    if !on_disk() {
        return skip("io groups: no disk at /mnt");
    }
    let Some(_group) = Group::new(&["io"])? else { return skip("io groups: this kernel has no io controller") };
    let [plain, direct] = file(ON_DISK, BYTES)?;
    for mode in MODES {
        for (what, opcode, index, key) in [
            ("a read of what is not cached", READ_FIXED, 0, "rbytes="),
            ("a direct read", READ_FIXED, 1, "rbytes="),
            ("a direct write", WRITE_FIXED, 1, "wbytes="),
        ] {
            // SAFETY: no pointers.
            want!(unsafe { libc::posix_fadvise(plain.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) }, 0);
            let child = Child::fork(|| {
                code((|| {
                    Group::join()?;
                    let mut ring = ring(mode, 8, BYTES, &[&plain, &direct])?;
                    let before = Group::io(key)?;
                    ring.push(fixed(opcode, index, 1, 0, BYTES));
                    ring.bell()?;
                    want!(ring.wait(1, 20_000), Ok(0));
                    want!(ring.reap(), [(1, BYTES as i32)]);
                    let after = Group::io(key)?;
                    if after < before + BYTES {
                        return Err(format!("{what}, flags {mode:#x}: the group has {} bytes", after - before).into());
                    }
                    Ok(())
                })())
            });
            want!((mode, what, child.wait()), (mode, what, 0));
        }
    }
    Ok(())
}

/// The group's limit holds for direct reads that kernel threads make. Meanwhile each has a list of 64 KiB, which the group pays.
fn throttled() -> Outcome {
    const READS: u64 = 32;
    const BUFFER: u64 = 16 << 20;
    if !on_disk() {
        return skip("io.max: no disk at /mnt");
    }
    let Some(_group) = Group::new(&["io", "memory"])? else { return skip("io.max: this kernel has no io controller") };
    if !Group::has("io.max") {
        return skip("io.max: this kernel has none");
    }
    let [_plain, direct] = file(ON_DISK, BYTES)?;
    let disk = direct.metadata().map_err(os("stat"))?.dev();
    let limit = |rate: &str| Group::set("io.max", &format!("{}:{} rbps={rate}", libc::major(disk), libc::minor(disk)));
    for mode in MODES {
        let child = Child::fork(|| {
            code((|| {
                Group::join()?;
                let mut ring = ring(mode, 32, BUFFER, &[&direct])?;
                // The file is shorter.
                let push = |ring: &mut Raw, n| ring.push(fixed(READ_FIXED, 0, n, 0, BUFFER));
                let before = Group::memory()?;
                limit("16384")?;
                (0..READS).for_each(|n| push(&mut ring, n));
                ring.bell()?;
                consumed(&ring, READS)?;
                let early = ring.wait(1, 200);
                let during = Group::memory()?;
                limit("max")?;
                let mut done = Vec::new();
                while done.len() < READS as usize {
                    want!(ring.wait(1, 20_000), Ok(0));
                    done.extend(ring.reap());
                }
                want!(done.iter().all(|(_, res)| *res == BYTES as i32), true);
                want!((mode, early), (mode, Err(libc::ETIME)));
                if during < before + (1 << 20) {
                    return Err(
                        format!("flags {mode:#x}: {READS} lists take {} bytes", during.saturating_sub(before)).into()
                    );
                }
                Ok(())
            })())
        });
        want!((mode, child.wait()), (mode, 0));
    }
    Ok(())
}

/// Waits until so many entries are, whoever drains.
fn consumed(ring: &Raw, entries: u64) -> Outcome {
    until(20, "entries are not consumed", || ring.stats().entries >= entries)
}

/// What cannot be made at once waits in its file's lane. Each would have a list of 64 KiB.
fn listed() -> Outcome {
    const WRITES: u32 = 128;
    const BUFFER: u64 = 16 << 20;
    if !on_disk() {
        return skip("lists of pages: no disk at /mnt");
    }
    let Some(_group) = Group::new(&["memory"])? else { return skip("lists of pages: no memory controller") };
    let [plain, direct] = file(ON_DISK, 0)?;
    for mode in MODES {
        let child = Child::fork(|| {
            code((|| {
                Group::join()?;
                let mut ring = ring(mode, 2 * WRITES, BUFFER, &[&direct])?;
                let page = Page::new()?;
                std::thread::scope(|scope| {
                    // A plain write holds the inode's lock, and waits for its bytes.
                    scope.spawn(|| {
                        let at = page.addr() as *const libc::c_void;
                        // SAFETY: the page is mapped until the thread has ended.
                        unsafe { libc::pwrite(plain.as_raw_fd(), at, 1, 0) }
                    });
                    let outcome = lists(mode, WRITES, BUFFER, &mut ring, &page);
                    page.serve(b"x");
                    outcome
                })?;
                let mut done = 0;
                while done < WRITES as usize + 1 {
                    want!(ring.wait(1, 20_000), Ok(0));
                    done += ring.reap().len();
                }
                Ok(())
            })())
        });
        want!((mode, child.wait()), (mode, 0));
    }
    Ok(())
}

fn lists(mode: u32, writes: u32, buffer: u64, ring: &mut Raw, page: &Page) -> Outcome {
    want!(page.touched(), true);
    let before = Group::memory()?;
    for n in 0..writes {
        ring.push(fixed(WRITE_FIXED, 0, n.into(), 0, buffer));
    }
    ring.bell()?;
    consumed(ring, writes.into())?;
    let (during, waiting) = (Group::memory()?, ring.stats().inflight);
    ring.push(cancel_any(u64::MAX));
    ring.bell()?;
    want!((mode, waiting), (mode, writes.into()));
    if during > before + (4 << 20) {
        return Err(format!("flags {mode:#x}: {waiting} that wait take {} bytes", during.saturating_sub(before)).into());
    }
    Ok(())
}

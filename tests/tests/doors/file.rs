// SPDX-License-Identifier: MIT OR Apache-2.0
//! The file driver through every door that is no ring; plain calls on the same file are the oracle.

use std::fs::{File, OpenOptions};
use std::io::Error;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use io_uring::squeue::Flags;
use sq_uapi::Sqe;
use sq_uapi::consts::{fsync_flags, op, sqe_flags};

use super::common::{device, nothing_left_of, open_node};
use super::every::{FLAGS, closed_fd, iovecs, through_each, transfer, vectored};
use super::uring_rig::{Inline, Rig, has_commands};

const NODE: &str = "/dev/sqfile";
const BLOCK: usize = 4096;
const ASYNC: u8 = sqe_flags::ASYNC;

/// A new file in SQ_SCRATCH, which is ext4 in the guests, without a name.
fn scratch(flags: i32) -> std::io::Result<File> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let folder = std::env::var_os("SQ_SCRATCH").map_or_else(std::env::temp_dir, PathBuf::from);
    let path = folder.join(format!("doors-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed)));
    let file = OpenOptions::new().read(true).write(true).create_new(true).custom_flags(flags).open(&path);
    let _ = std::fs::remove_file(path);
    file
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 7 + n / 251) as u8).collect()
}

/// From now on its pages have to be read from the disk: an operation on them is deferred.
fn forget(file: &File) {
    file.sync_all().unwrap();
    // SAFETY: no pointers.
    assert_eq!(unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) }, 0);
}

#[test]
fn transfers() {
    through_each(NODE, |door, issue| {
        let mut from = pattern(20_000);
        for flags in FLAGS {
            let file = scratch(0).unwrap();
            let fd = file.as_raw_fd();
            let mut run = |sqe: Sqe| issue(&Sqe { flags, ..sqe });
            assert_eq!(run(transfer(op::WRITE, fd, 3, &mut from)), 20_000, "{door}");
            let mut plain = vec![0; 20_004];
            assert_eq!(file.read_at(&mut plain, 0).unwrap(), 20_003, "{door}");
            assert!(plain[..3] == [0; 3] && plain[3..20_003] == from, "{door}");

            for cold in [false, true] {
                if cold {
                    forget(&file);
                }
                let mut to = vec![0xee; 20_010];
                assert_eq!(run(transfer(op::READ, fd, 3, &mut to)), 20_000, "{door}, cold: {cold}");
                assert!(to[..20_000] == from && to[20_000..] == [0xee; 10], "{door}, cold: {cold}");
            }

            from.reverse();
            let vector = iovecs(&mut from, 1999);
            assert_eq!(run(vectored(op::WRITEV, fd, 5, &vector)), 20_000, "{door}");
            forget(&file);
            let mut to = vec![0; 20_000];
            let vector = iovecs(&mut to, 1500);
            assert_eq!(run(vectored(op::READV, fd, 5, &vector)), 20_000, "{door}");
            assert!(to == from, "{door}");

            for op_flags in [0, fsync_flags::DATASYNC] {
                assert_eq!(run(Sqe { opcode: op::FSYNC, fd, op_flags, ..Sqe::NOP }), 0, "{door}");
            }
            assert_eq!(run(transfer(op::READ, fd, 20_005, &mut to)), 0, "{door}: at the end");
            assert_eq!(run(transfer(op::WRITE, fd, 1 << 20, &mut [])), 0, "{door}: nothing is nothing");
        }
    });
}

#[test]
fn errors() {
    through_each(NODE, |door, issue| {
        let file = scratch(0).unwrap();
        file.write_all_at(&[1; 100], 0).unwrap();
        let read_only = File::open("/proc/self/exe").unwrap();
        let (folder, proc) = (File::open("/").unwrap(), File::open("/proc/version").unwrap());
        let (pipe, _end) = std::io::pipe().unwrap();
        let fd = file.as_raw_fd();
        let mut bytes = [0; 64];
        for flags in FLAGS {
            let mut run = |sqe: Sqe| issue(&Sqe { flags, ..sqe });
            for nobody in [-1, closed_fd()] {
                assert_eq!(run(transfer(op::READ, nobody, 0, &mut bytes)), -libc::EBADF, "{door}");
            }
            for off in [u64::MAX, 1 << 63] {
                assert_eq!(run(transfer(op::READ, fd, off, &mut bytes)), -libc::EINVAL, "{door}");
            }
            for opcode in [op::READ, op::WRITE, op::READV, op::WRITEV] {
                let nowhere = Sqe { opcode, fd, addr: 8, len: 1, ..Sqe::NOP };
                assert_eq!(run(nowhere), -libc::EFAULT, "{door}: opcode {opcode}");
            }
            assert_eq!(run(transfer(op::WRITE, read_only.as_raw_fd(), 0, &mut bytes)), -libc::EBADF, "{door}");
            for other in [folder.as_raw_fd(), proc.as_raw_fd(), pipe.as_raw_fd()] {
                assert_eq!(run(transfer(op::READ, other, 0, &mut bytes)), -libc::EOPNOTSUPP, "{door}");
            }
        }
        // What only a ring has.
        for flags in [sqe_flags::FIXED_FILE, sqe_flags::CQE_SKIP_SUCCESS] {
            assert_eq!(issue(&Sqe { flags, ..transfer(op::READ, 0, 0, &mut bytes) }), -libc::EINVAL, "{door}");
        }
        assert_eq!(issue(&Sqe { opcode: op::READ_FIXED, fd, len: 1, ..Sqe::NOP }), -libc::EINVAL, "{door}");
    });
}

/// Bytes that begin at a page.
fn aligned(room: &mut Vec<u8>, len: usize) -> &mut [u8] {
    room.resize(len + BLOCK, 0);
    let start = room.as_ptr().align_offset(BLOCK);
    &mut room[start..start + len]
}

#[test]
fn direct() {
    through_each(NODE, |door, issue| {
        let file = match scratch(libc::O_DIRECT) {
            Ok(file) => file,
            Err(why) => return println!("SKIP: direct: O_DIRECT in SQ_SCRATCH: {why}"),
        };
        let fd = file.as_raw_fd();
        let (mut room, mut other) = (Vec::new(), Vec::new());
        for (lap, flags) in FLAGS.into_iter().enumerate() {
            let mut run = |sqe: Sqe| issue(&Sqe { flags, ..sqe });
            let from = aligned(&mut room, 16 * BLOCK);
            from.copy_from_slice(&pattern(16 * BLOCK));
            from.rotate_left(lap);
            let bytes = 16 * BLOCK as i32;
            // The first lap extends the file, the second one writes over it.
            assert_eq!(run(transfer(op::WRITE, fd, 0, from)), bytes, "{door}");
            let to = aligned(&mut other, 16 * BLOCK);
            assert_eq!(run(transfer(op::READ, fd, 0, to)), bytes, "{door}");
            assert!(to == from, "{door}");

            from.rotate_left(77);
            let vector = iovecs(from, 3 * BLOCK);
            assert_eq!(run(vectored(op::WRITEV, fd, BLOCK as u64, &vector)), bytes, "{door}");
            let vector = iovecs(to, 5 * BLOCK);
            assert_eq!(run(vectored(op::READV, fd, BLOCK as u64, &vector)), bytes, "{door}");
            assert!(to == from, "{door}");
            assert_eq!(run(Sqe { opcode: op::FSYNC, fd, ..Sqe::NOP }), 0, "{door}");

            let end = 17 * BLOCK as u64;
            assert_eq!(run(transfer(op::READ, fd, end - BLOCK as u64, to)), BLOCK as i32, "{door}: short at the end");
            assert_eq!(run(transfer(op::READ, fd, end, to)), 0, "{door}: at the end");
            let odd = &mut to[1..2];
            let plain = file.read_at(odd, 0).map_or_else(|error| -raw(&error), |n| n as i32);
            assert_eq!(run(transfer(op::READ, fd, 0, odd)), plain, "{door}: not aligned: what the plain call says");
        }
    });
}

fn raw(error: &Error) -> i32 {
    error.raw_os_error().unwrap()
}

/// Deferred operations by the dozen, each on its own bytes.
#[test]
fn many_commands_at_a_time() {
    let Some(_one) = device().filter(|_| has_commands()) else { return };
    let node = open_node(NODE);
    let mut rig = Rig::<Inline>::new(&node);
    let file = scratch(0).unwrap();
    let content = pattern(100 * BLOCK);
    let mut bytes = content.clone();
    let entries = |opcode, bytes: &mut [u8]| -> Vec<Sqe> {
        let blocks = bytes.chunks_mut(BLOCK).enumerate();
        let entry = |(n, block)| transfer(opcode, file.as_raw_fd(), (n * BLOCK) as u64, block);
        blocks.map(|block| Sqe { flags: ASYNC, ..entry(block) }).collect()
    };
    for flags in [Flags::empty(), Flags::ASYNC] {
        assert_eq!(rig.all(&entries(op::WRITE, &mut bytes), flags), [BLOCK as i32; 100]);
        forget(&file);
        bytes.fill(0);
        assert_eq!(rig.all(&entries(op::READ, &mut bytes), flags), [BLOCK as i32; 100]);
        assert!(bytes == content);
    }
}

/// The io_uring goes, and the file and the node with it, while reads into memory that stays are going on.
#[test]
fn life2_the_io_uring_is_closed_under_deferred_reads() {
    let Some(_one) = device().filter(|_| has_commands()) else { return };
    let content = pattern(64 * BLOCK);
    for _ in 0..10 {
        let file = scratch(0).unwrap();
        file.write_all_at(&content, 0).unwrap();
        forget(&file);
        let node = open_node(NODE);
        let mut rig = Rig::<Inline>::new(&node);
        // For good: what is in flight may write it after the io_uring is gone.
        let bytes: &'static mut [u8] = Box::leak(vec![0; 64 * BLOCK].into_boxed_slice());
        for (n, block) in bytes.chunks_mut(BLOCK).enumerate() {
            let read = transfer(op::READ, file.as_raw_fd(), (n * BLOCK) as u64, block);
            rig.push(&Sqe { flags: FLAGS[n % 2], ..read }, Flags::empty(), 0);
        }
        rig.submit_for(0);
        drop((rig, node, file));
        nothing_left_of("sq_file");
    }
}

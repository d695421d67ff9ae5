// SPDX-License-Identifier: MIT OR Apache-2.0
//! The file driver, through a ring, on real files. Where a number is not obvious the oracle is the plain system call.

mod common;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use common::{BOTH, BUFFER, Bench, NONE, Random, file, named_file, on_device, scratch, skip, target};
use liburing_shm::opcode::{Fsync, LentFd, Read, ReadFixed, Readv, Target, Write, WriteFixed, Writev};
use liburing_shm::{Backend, Entry, Errno, FsyncFlags, RawEntry, Ring, SqeFlags};
use sq_uapi::SqIovec;

fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().and_then(Errno::new).unwrap()
}

fn plain(result: io::Result<usize>) -> Result<u32, Errno> {
    result.map(|bytes| u32::try_from(bytes).unwrap()).map_err(|error| errno(&error))
}

fn iovec(bytes: &mut [u8]) -> SqIovec {
    SqIovec { base: bytes.as_mut_ptr().expose_provenance() as u64, len: bytes.len() as u64 }
}

#[test]
fn reads_and_writes_and_the_end_of_a_file() {
    let mut bench = Bench::new();
    for flags in BOTH {
        let f = file(b"0123456789");
        let mut to = [b'.'; 8];
        assert_eq!(bench.read(&f, 1, &mut to, flags), Ok(8));
        assert_eq!(&to, b"12345678");
        to.fill(b'.');
        assert_eq!(bench.read(&f, 7, &mut to, flags), Ok(3), "short at the end");
        assert_eq!(&to, b"789.....");
        for off in [10, 11, i64::MAX as u64 - 8] {
            assert_eq!(bench.read(&f, off, &mut to, flags), Ok(0), "nothing at {off}");
        }
        assert_eq!(bench.read(&f, 0, &mut [], flags), Ok(0));
        assert_eq!(bench.write(&f, 0, &[], flags), Ok(0));
        assert_eq!(bench.write(&f, 12, b"ab", flags), Ok(2), "past the end it grows, with a hole");
        let mut all = [b'.'; 20];
        assert_eq!(bench.read(&f, 0, &mut all, flags), Ok(14));
        assert_eq!(&all[..14], b"0123456789\0\0ab");
        assert_eq!(bench.entry(Fsync::new(target(&f)).build().flags(flags)), Ok(0));
        assert_eq!(bench.entry(Fsync::new(target(&f)).flags(FsyncFlags::DATASYNC).build().flags(flags)), Ok(0));
    }
}

#[test]
fn vectors() {
    let mut bench = Bench::new();
    for flags in BOTH {
        let f = file(b"");
        let (mut a, mut b, mut c) = (*b"abc", *b"", *b"defgh");
        let from = [iovec(&mut a), iovec(&mut b), iovec(&mut c)];
        assert_eq!(bench.entry(Writev::new(target(&f), from.as_ptr(), 3).offset(2).build().flags(flags)), Ok(8));
        let (mut d, mut e, mut g) = ([b'.'; 4], [b'.'; 4], [b'.'; 4]);
        let to = [iovec(&mut d), iovec(&mut e), iovec(&mut g)];
        assert_eq!(bench.entry(Readv::new(target(&f), to.as_ptr(), 3).build().flags(flags)), Ok(10));
        assert_eq!((&d, &e, &g), (b"\0\0ab", b"cdef", b"gh.."));
        assert_eq!(bench.entry(Readv::new(target(&f), to.as_ptr(), 0).build().flags(flags)), Ok(0));
        assert_eq!(bench.entry(Writev::new(target(&f), to.as_ptr(), 17).build().flags(flags)), Err(Errno::EINVAL));
    }
}

#[test]
fn the_rings_own_buffers_and_registered_files() {
    let mut bench = Bench::new();
    let pool = bench.0.submitter().pool().unwrap();
    let f = file(b"");
    bench.0.submitter().register_files(&[f.as_fd()]).unwrap();
    for flags in BOTH {
        for on in [Target::Fixed(0), target(&f)] {
            pool.write(0, 5, b"pooled").unwrap();
            pool.write(1, 0, &[b'.'; 8]).unwrap();
            let raw = |entry: Entry| RawEntry::from(entry.flags(flags));
            assert_eq!(bench.entry(raw(WriteFixed::new(on, 0, 5, 6).offset(3).build())), Ok(6));
            assert_eq!(bench.entry(raw(ReadFixed::new(on, 1, 0, 8).offset(2).build())), Ok(7));
            let mut back = [0u8; 8];
            pool.read(1, 0, &mut back).unwrap();
            assert_eq!(&back, b"\0pooled.");
        }
    }
    assert_eq!(bench.entry(Fsync::new(Target::Fixed(0)).build()), Ok(0));
    assert_eq!(bench.entry(Fsync::new(Target::Fixed(1)).build()), Err(Errno::EBADF));
}

/// The first of them that is refused says why, wherever it stands: what follows it is still the old file.
#[test]
fn an_update_of_files_that_stops_halfway_is_an_error() {
    let mut bench = Bench::new();
    let [old, other, new] = [file(b"old"), file(b"other"), file(b"new")];
    bench.0.submitter().register_files(&[old.as_fd(), other.as_fd()]).unwrap();
    // SAFETY: no descriptor has this number: it is only looked for.
    let closed = unsafe { BorrowedFd::borrow_raw(i32::MAX) };
    for files in [vec![Some(new.as_fd()), Some(closed)], vec![Some(closed), Some(new.as_fd())]] {
        let updated = bench.0.submitter().update_files(0, &files);
        assert_eq!(updated.unwrap_err().errno(), Some(Errno::EBADF), "{files:?}");
        for (n, expected) in [(0, &b"new"[..]), (1, b"other")] {
            let mut to = [0u8; 8];
            let got = bench.entry(Read::new(Target::Fixed(n), to.as_mut_ptr(), 8).build());
            assert_eq!((got, &to[..expected.len()]), (Ok(expected.len() as u32), expected));
        }
    }
    bench.0.submitter().update_files(0, &[None, Some(new.as_fd())]).unwrap();
    assert_eq!(bench.entry(Fsync::new(Target::Fixed(0)).build()), Err(Errno::EBADF));
    assert_eq!(bench.entry(Fsync::new(Target::Fixed(1)).build()), Ok(0));
    for (first, files) in [(1, &[None, None][..]), (0, &[])] {
        let updated = bench.0.submitter().update_files(first, files);
        assert_eq!(updated.unwrap_err().errno(), Some(Errno::EINVAL), "{first} {files:?}");
    }
}

#[test]
fn what_is_no_file_is_refused() {
    let mut bench = Bench::new();
    let (receiver, sender) = std::io::pipe().unwrap();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let open = |path: &str| OpenOptions::new().read(true).write(true).open(path).unwrap();
    let (zero, full) = (open("/dev/zero"), open("/dev/full"));
    let directory = File::open(scratch()).unwrap();
    let others = [receiver.as_fd(), sender.as_fd(), socket.as_fd(), zero.as_fd(), full.as_fd(), directory.as_fd()];
    let mut byte = [1u8];
    for flags in BOTH {
        for other in &others {
            assert_eq!(bench.read(other, 0, &mut byte, flags), Err(Errno::EOPNOTSUPP), "{other:?}");
            assert_eq!(bench.write(other, 0, &byte, flags), Err(Errno::EOPNOTSUPP), "{other:?}");
            assert_eq!(bench.entry(Fsync::new(target(other)).build().flags(flags)), Err(Errno::EOPNOTSUPP));
        }
        for fd in [-1, 1_000_000, i32::MIN] {
            // SAFETY: no such descriptor is open.
            let lent = unsafe { LentFd::new(fd) };
            let read = Read::new(Target::Fd(lent), byte.as_mut_ptr(), 1).build();
            assert_eq!(bench.entry(read.flags(flags)), Err(Errno::EBADF));
        }
    }
    assert_eq!(byte, [1]);
}

/// SEC-3: a ring that kept one of these might keep itself, or what a worker of it waits for.
#[test]
fn files_that_keep_files_are_refused() {
    let mut bench = Bench::new();
    if !on_device() {
        return skip(
            "files_that_keep_files_are_refused: in a process nothing is kept by a ring that the process could not close",
        );
    }
    let ring = File::options().read(true).write(true).open("/dev/sqfile").unwrap();
    let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut keepers = vec![ring.as_fd(), socket.as_fd()];
    // SAFETY: an owned descriptor or an error comes back; the parameters are plain data.
    let uring = unsafe { rustix::io_uring::io_uring_setup(4, &mut rustix::io_uring::io_uring_params::default()) };
    match &uring {
        Ok(uring) => keepers.push(uring.as_fd()),
        Err(why) => skip(&format!("files_that_keep_files_are_refused: no io_uring: {why}")),
    }
    // SAFETY: flags, and an owned descriptor or an error comes back.
    let pages = unsafe { rustix::mm::userfaultfd(rustix::mm::UserfaultfdFlags::CLOEXEC) };
    match &pages {
        Ok(pages) => keepers.push(pages.as_fd()),
        Err(why) => skip(&format!("files_that_keep_files_are_refused: no userfaultfd: {why}")),
    }
    let fuse = File::options().read(true).write(true).open("/dev/fuse");
    match &fuse {
        Ok(fuse) => keepers.push(fuse.as_fd()),
        Err(why) => skip(&format!("files_that_keep_files_are_refused: no FUSE: {why}")),
    }
    // It keeps its owner's memory, and with it the mapping of a ring.
    let vhost = File::options().read(true).write(true).open("/dev/vhost-vsock");
    match &vhost {
        Ok(vhost) => keepers.push(vhost.as_fd()),
        Err(why) => skip(&format!("files_that_keep_files_are_refused: no vhost: {why}")),
    }
    let mut byte = [1u8];
    for keeper in keepers {
        for flags in BOTH {
            assert_eq!(bench.read(&keeper, 0, &mut byte, flags), Err(Errno::EBADF), "{keeper:?}");
        }
        let registered = bench.0.submitter().register_files(&[keeper]);
        assert_eq!(registered.unwrap_err().errno(), Some(Errno::EBADF), "{keeper:?}");
    }
}

/// What a read of `/proc/kmsg` or of a `trace_pipe` does for ever. Files without blocks that are no such calls are taken.
#[test]
fn files_that_are_calls_to_the_kernel_are_refused() {
    let mut bench = Bench::new();
    let mut tried = 0;
    let paths = [
        "/proc/kmsg",
        "/proc/self/status",
        "/proc/sys/kernel/ostype",
        "/sys/kernel/uevent_seqnum",
        "/sys/kernel/tracing/trace_pipe",
        "/sys/kernel/debug/sched/debug",
        "/sys/kernel/security/lsm",
    ];
    let empty = [file(b""), File::from(rustix::fs::memfd_create("empty", rustix::fs::MemfdFlags::CLOEXEC).unwrap())];
    let mut byte = [1u8];
    for path in paths {
        let Ok(call) = File::open(path) else { continue };
        tried += 1;
        for flags in BOTH {
            assert_eq!(bench.read(&call, 0, &mut byte, flags), Err(Errno::EOPNOTSUPP), "{path}");
            assert_eq!(bench.write(&call, 0, &byte, flags), Err(Errno::EOPNOTSUPP), "{path}");
            assert_eq!(bench.entry(Fsync::new(target(&call)).build().flags(flags)), Err(Errno::EOPNOTSUPP), "{path}");
            // Twice: what is remembered of one file's mount says nothing of another's.
            for f in empty.iter().chain(&empty) {
                assert_eq!(bench.read(f, 0, &mut byte, flags), Ok(0));
            }
        }
    }
    assert!(tried >= 2, "every Linux has some");
    assert_eq!(byte, [1]);
}

#[test]
fn a_file_that_is_open_the_wrong_way() {
    let mut bench = Bench::new();
    let (_, path) = named_file(b"content");
    let write_only = OpenOptions::new().write(true).open(&path).unwrap();
    let read_only = File::open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    let mut byte = [1u8];
    for flags in BOTH {
        assert_eq!(bench.read(&write_only, 0, &mut byte, flags), Err(Errno::EBADF));
        assert_eq!(bench.write(&read_only, 0, &byte, flags), Err(Errno::EBADF));
        assert_eq!(bench.entry(Fsync::new(target(&read_only)).build().flags(flags)), Ok(0));
    }
    assert_eq!(byte, [1]);
}

#[test]
fn offsets_and_addresses_that_cannot_be() {
    let mut bench = Bench::new();
    let f = file(b"content");
    let mut two = [1u8; 2];
    let bad = std::ptr::without_provenance_mut::<u8>(8);
    for flags in BOTH {
        for off in [u64::MAX, i64::MAX as u64 + 1] {
            assert_eq!(bench.read(&f, off, &mut two, flags), Err(Errno::EINVAL), "{off:#x}");
            assert_eq!(bench.write(&f, off, &two, flags), Err(Errno::EINVAL), "{off:#x}");
        }
        // A file system's own limits: whatever the plain call says.
        for off in [1 << 62, i64::MAX as u64 - 1, i64::MAX as u64] {
            assert_eq!(bench.write(&f, off, &two, flags), plain(f.write_at(&two, off)), "write at {off:#x}");
            assert_eq!(bench.read(&f, off, &mut two, flags), plain(f.read_at(&mut [0; 2], off)), "read at {off:#x}");
        }
        assert_eq!(bench.entry(Read::new(target(&f), bad, 2).build().flags(flags)), Err(Errno::EFAULT));
        assert_eq!(bench.entry(Write::new(target(&f), bad, 2).build().flags(flags)), Err(Errno::EFAULT));
    }
    let too_big = f.write_at(&two, 1 << 62).map_err(|error| errno(&error));
    if too_big == Err(Errno::EFBIG) {
        assert_eq!(bench.write(&f, 1 << 62, &two, NONE), Err(Errno::EFBIG));
    } else {
        skip("EFBIG: this file system has no limit below 2^62 bytes");
    }
}

/// A file system of 64 KiB, if this process may mount one.
#[test]
fn a_full_disk() {
    struct Mounted(std::path::PathBuf);
    impl Drop for Mounted {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg(&self.0).status();
            let _ = std::fs::remove_dir(&self.0);
        }
    }
    let path = scratch().join(format!("sq-file-full-{}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "sq-file-test"]).arg(&path).output();
    if !mount.is_ok_and(|output| output.status.success()) {
        let _ = std::fs::remove_dir(&path);
        return skip("a_full_disk: no right to mount a small tmpfs");
    }
    let mounted = Mounted(path);
    let open =
        || OpenOptions::new().read(true).write(true).create(true).truncate(true).open(mounted.0.join("f")).unwrap();
    let mut bench = Bench::new();
    let block = vec![7u8; 48 << 10];
    for flags in BOTH {
        let f = open();
        assert_eq!(bench.write(&f, 0, &block, flags), Ok(48 << 10));
        assert_eq!(bench.write(&f, 48 << 10, &block, flags), Ok(16 << 10), "short: what there is room for");
        assert_eq!(bench.write(&f, 64 << 10, &block, flags), Err(Errno::ENOSPC));
    }
}

/// Pages that were dropped from the cache are read by a thread, and arrive the same.
#[test]
fn a_file_that_is_not_cached() {
    let mut bench = Bench::new();
    let content = Random(3).bytes(2 << 20);
    let f = file(&content);
    f.sync_all().unwrap();
    for round in 0..4 {
        rustix::fs::fadvise(&f, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        if round % 2 == 1 {
            // The beginning is cached, the rest is perhaps not.
            f.read_exact_at(&mut [0; 4096], 0).unwrap();
        }
        let mut to = vec![0u8; content.len() + 10];
        assert_eq!(bench.read(&f, 0, &mut to, NONE), Ok(content.len() as u32));
        assert!(to[..content.len()] == content);
    }
}

#[test]
fn a_block_device() {
    let devices = std::fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let mut blocks = devices.filter_map(|entry| File::open(Path::new("/dev").join(entry.file_name())).ok());
    let mut expected = [0u8; 4096];
    // One without a medium cannot be read.
    let Some(device) = blocks.find(|device| device.read_at(&mut expected, 4096).is_ok_and(|n| n == 4096)) else {
        return skip("a_block_device: there is none that may be read");
    };
    let mut bench = Bench::new();
    for flags in BOTH {
        let mut to = [1u8; 4096];
        assert_eq!(bench.read(&device, 4096, &mut to, flags), Ok(4096));
        assert_eq!(to, expected);
        assert_eq!(bench.read(&device, 1 << 62, &mut to, flags), Ok(0), "past the end");
        assert_eq!(bench.write(&device, 0, &to, flags), Err(Errno::EBADF), "open for reading only");
    }
}

/// Every operation is done twice: on one file through the ring, on another by the plain call.
#[test]
fn two_thousand_random_operations_agree_with_plain_calls() {
    const SPAN: u64 = 200_000;
    let mut bench = Bench::new();
    let pool = bench.0.submitter().pool().unwrap();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (ours, theirs) = (file(&[]), file(&[]));
    bench.0.submitter().register_files(&[ours.as_fd()]).unwrap();
    for step in 0..2000 {
        let off = random.below(SPAN);
        let len = random.below(u64::from(BUFFER)) as usize;
        let cut = random.below(len as u64 + 1) as usize;
        let flags = if random.below(2) == 0 { SqeFlags::ASYNC } else { NONE };
        let on = if random.below(2) == 0 { Target::Fixed(0) } else { target(&ours) };
        let way = random.below(3);
        match random.below(8) {
            0..=2 => {
                let mut from = random.bytes(len);
                let got = match way {
                    0 => bench.entry(Write::new(on, from.as_ptr(), len as u32).offset(off).build().flags(flags)),
                    1 => {
                        let (head, tail) = from.split_at_mut(cut);
                        let vector = [iovec(head), iovec(tail)];
                        bench.entry(Writev::new(on, vector.as_ptr(), 2).offset(off).build().flags(flags))
                    }
                    _ => {
                        pool.write(0, 0, &from).unwrap();
                        bench.entry(WriteFixed::new(on, 0, 0, len as u32).offset(off).build().flags(flags))
                    }
                };
                assert_eq!(got, plain(theirs.write_at(&from, off)), "step {step}: write of {len} at {off}");
            }
            3..=5 => {
                let mut expected = vec![0xeeu8; len];
                let mut to = expected.clone();
                let result = plain(theirs.read_at(&mut expected, off));
                let got = match way {
                    0 => bench.entry(Read::new(on, to.as_mut_ptr(), len as u32).offset(off).build().flags(flags)),
                    1 => {
                        let (head, tail) = to.split_at_mut(cut);
                        let vector = [iovec(head), iovec(tail)];
                        bench.entry(Readv::new(on, vector.as_ptr(), 2).offset(off).build().flags(flags))
                    }
                    _ => {
                        pool.write(1, 0, &to).unwrap();
                        let got = bench.entry(ReadFixed::new(on, 1, 0, len as u32).offset(off).build().flags(flags));
                        pool.read(1, 0, &mut to).unwrap();
                        got
                    }
                };
                assert_eq!(got, result, "step {step}: read of {len} at {off}");
                assert!(to == expected, "step {step}: read of {len} at {off}");
            }
            6 => assert_eq!(bench.entry(Fsync::new(on).build().flags(flags)), Ok(0)),
            _ => {
                let size = random.below(SPAN);
                ours.set_len(size).unwrap();
                theirs.set_len(size).unwrap();
            }
        }
    }
    let whole = |f: &File| {
        let mut all = vec![0u8; f.metadata().unwrap().len() as usize];
        f.read_exact_at(&mut all, 0).unwrap();
        all
    };
    assert!(whole(&ours) == whole(&theirs));
}

/// Many at once, at places that do not touch: all arrive, whatever the order.
#[test]
fn a_full_queue() {
    const BLOCK: usize = 5000;
    let mut bench = Bench::new();
    let f = file(&[]);
    let content = Random(11).bytes(64 * BLOCK);
    for (index, block) in content.chunks(BLOCK).enumerate() {
        let write = Write::new(target(&f), block.as_ptr(), BLOCK as u32).offset((index * BLOCK) as u64).build();
        // SAFETY: `content` stays until the completions have been reaped below.
        unsafe { bench.0.submission().push_raw(write.user_data(index as u64).flags(BOTH[index % 2])) }.unwrap();
    }
    bench.0.submit().unwrap();
    let done = bench.reap(64);
    assert!(done.iter().all(|completion| completion.result() == Ok(BLOCK as u32)));
    let mut all = vec![0u8; content.len()];
    f.read_exact_at(&mut all, 0).unwrap();
    assert!(all == content);
}

/// More than the ring has requests for, by plain descriptors: a worker takes the queue over, and cannot look them up (WAIT-1, SEC-3).
#[test]
fn wait1_plain_descriptors_and_few_requests() {
    let backend = if on_device() {
        Backend::device("/dev/sqfile")
    } else {
        Backend::embedded(sq_file::File::in_process()).unwrap()
    };
    let mut bench = Bench(Ring::builder(64).max_inflight(2).build(&backend).unwrap());
    let f = file(&[]);
    let content = Random(12).bytes(64);
    for (index, byte) in content.chunks(1).enumerate() {
        let write = Write::new(target(&f), byte.as_ptr(), 1).offset(index as u64).build();
        // SAFETY: `content` stays until the completions have been reaped below.
        unsafe { bench.0.submission().push_raw(write.user_data(index as u64).flags(SqeFlags::ASYNC)) }.unwrap();
    }
    bench.0.submit().unwrap();
    let done = bench.reap(64);
    assert!(done.iter().all(|completion| completion.result() == Ok(1)), "{done:?}");
    let mut all = vec![0u8; content.len()];
    f.read_exact_at(&mut all, 0).unwrap();
    assert!(all == content);
}

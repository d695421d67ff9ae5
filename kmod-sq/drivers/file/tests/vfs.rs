// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the VFS promises of a file holds through a ring too: how it was opened, limits, seals, direct I/O, frozen file systems.

mod common;

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::{BOTH, BUFFER, Bench, NONE, Random, file, named_file, on_device, read, scratch, skip, target};
use liburing_shm::opcode::{Fsync, Read, ReadFixed, Readv, Target, Write, WriteFixed, Writev};
use liburing_shm::{Backend, CancelFlags, Errno, RawEntry, Ring, SqeFlags, Wait};
use rustix::fs::{IFlags, MemfdFlags, OFlags, SealFlags};
use rustix::process::{Resource, Rlimit};
use sq_uapi::SqIovec;

#[test]
fn appending() {
    let mut bench = Bench::new();
    let (_, path) = named_file(b"begin");
    let f = OpenOptions::new().read(true).append(true).open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    for (n, flags) in BOTH.into_iter().enumerate() {
        assert_eq!(bench.write(&f, 1, b" more", flags), Ok(5), "the offset is not looked at");
        assert_eq!(f.metadata().unwrap().len(), 10 + 5 * n as u64);
    }
    let mut all = [0; 15];
    assert_eq!(bench.read(&f, 0, &mut all, NONE), Ok(15));
    assert_eq!(&all, b"begin more more");
}

#[test]
fn a_sealed_memfd() {
    let mut bench = Bench::new();
    let f = File::from(rustix::fs::memfd_create("sealed", MemfdFlags::ALLOW_SEALING).unwrap());
    let mut byte = [0];
    for flags in BOTH {
        assert_eq!(bench.write(&f, 0, b"x", flags), Ok(1));
    }
    rustix::fs::fcntl_add_seals(&f, SealFlags::WRITE).unwrap();
    for flags in BOTH {
        assert_eq!(bench.write(&f, 0, b"y", flags), Err(Errno::EPERM));
        assert_eq!(bench.read(&f, 0, &mut byte, flags), Ok(1));
        assert_eq!(&byte, b"x");
    }
}

/// The limit is that of the process, which is another one than what every thread of this test has. So in a child.
#[test]
fn the_limit_of_a_files_size() {
    if std::env::var_os("SQ_LIMITED").is_some() {
        return limited();
    }
    if !on_device() {
        return skip("the_limit_of_a_files_size: in a process SIGXFSZ comes with it, as with plain calls");
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    let output = child.args(["--exact", "the_limit_of_a_files_size"]).env("SQ_LIMITED", "1").output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn limited() {
    const LIMIT: u64 = 8192;
    let mut caller = Bench::new();
    let device = Backend::device("/dev/sqfile");
    let mut worker = Bench(Ring::builder(64).worker().build(&device).unwrap());
    let door = device.open().unwrap();
    let f = file(b"");
    let (_, path) = named_file(&[7; LIMIT as usize - 2]);
    let append = OpenOptions::new().append(true).open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    worker.0.submitter().register_files(&[f.as_fd()]).unwrap();
    rustix::process::setrlimit(Resource::Fsize, Rlimit { current: Some(LIMIT), maximum: None }).unwrap();
    // Nobody handles SIGXFSZ here: it would end the process.
    for (off, expected) in [(LIMIT - 2, Ok(2)), (LIMIT, Err(Errno::EFBIG)), (1 << 40, Err(Errno::EFBIG)), (0, Ok(10))] {
        let write = |on: Target| Write::new(on, b"0123456789".as_ptr(), 10).offset(off).build();
        for flags in BOTH {
            assert_eq!(caller.entry(write(target(&f)).flags(flags)), expected, "at {off}");
            assert_eq!(worker.entry(write(Target::Fixed(0)).flags(flags)), expected, "at {off}, by a worker");
        }
        // SAFETY: the bytes are static, and the file is open.
        assert_eq!(unsafe { door.issue_raw(&write(target(&f))) }, expected, "at {off}, by a call");
    }
    assert_eq!(caller.write(&f, 1 << 40, &[], NONE), Ok(0), "nothing is within the limit anywhere");
    assert_eq!(caller.write(&append, 0, b"abc", NONE), Ok(2), "short: what there is room for");
    assert_eq!(caller.write(&append, 0, b"abc", NONE), Err(Errno::EFBIG));
    // Two workers at a time append. Both may find room for themselves; there is room for one.
    static BYTES: [u8; 60] = [5; 60];
    for lap in 0..300 {
        append.set_len(LIMIT - 100).unwrap();
        for _ in 0..8 {
            let write = Write::new(target(&append), BYTES.as_ptr(), 60).build().flags(SqeFlags::ASYNC);
            // SAFETY: the bytes are static, and the file is open.
            unsafe { caller.0.submission().push_raw(write) }.unwrap();
        }
        caller.0.submit().unwrap();
        caller.reap(8);
        assert_eq!(append.metadata().unwrap().len(), LIMIT, "lap {lap}");
    }
}

/// By the ioctl door a driver is asked and answered just the same, whether it defers or not.
#[test]
fn one_entry_by_a_call() {
    if !on_device() {
        return skip("one_entry_by_a_call: the embedded door has its own tests");
    }
    let door = Backend::device("/dev/sqfile").open().unwrap();
    let f = file(b"");
    let (from, mut to) = (Random(5).bytes(20_000), vec![0u8; 20_010]);
    for flags in BOTH {
        // SAFETY: the memory and the file are there until the call returns, as they are below.
        let issue = |entry: RawEntry| unsafe { door.issue_raw(&entry.flags(flags)) };
        assert_eq!(issue(Write::new(target(&f), from.as_ptr(), 20_000).build()), Ok(20_000));
        assert_eq!(issue(Fsync::new(target(&f)).build().into()), Ok(0));
        to.fill(0);
        assert_eq!(issue(Read::new(target(&f), to.as_mut_ptr(), 20_010).build()), Ok(20_000));
        assert!(to[..20_000] == from);
        f.set_len(0).unwrap();
    }
}

/// An entry names a file when it is accepted, and keeps it until it is done.
#[test]
fn closed_while_its_operations_are_in_flight() {
    if !on_device() {
        return skip(
            "closed_while_its_operations_are_in_flight: in a process a descriptor is lent until they are done",
        );
    }
    let mut bench = Bench::new();
    let content = Random(9).bytes(64 * 4096);
    for round in 0..8 {
        let f = file(&content);
        f.sync_all().unwrap();
        rustix::fs::fadvise(&f, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        let mut to = vec![0u8; content.len()];
        for (n, page) in to.chunks_mut(4096).enumerate() {
            let entry = read(&f, n as u64 * 4096, page).flags(BOTH[n % 2]).user_data(n as u64);
            // SAFETY: `to` stays until all completions have been reaped below.
            unsafe { bench.0.submission().push_raw(entry) }.unwrap();
        }
        bench.0.submit().unwrap();
        drop(f);
        assert!(bench.reap(64).iter().all(|done| done.result() == Ok(4096)), "round {round}");
        assert!(to == content, "round {round}");
    }
}

/// One test at a time freezes or mounts.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Memory that direct I/O takes: it begins at a page.
struct Pages(Vec<u8>, usize);

impl Pages {
    fn new(bytes: &[u8]) -> Self {
        let mut all = vec![0xee; bytes.len() + 4096];
        let start = all.as_ptr().align_offset(4096);
        all[start..start + bytes.len()].copy_from_slice(bytes);
        Self(all, start)
    }

    fn bytes(&mut self) -> &mut [u8] {
        let len = self.0.len() - 4096;
        &mut self.0[self.1..self.1 + len]
    }
}

fn iovec(bytes: &mut [u8]) -> SqIovec {
    SqIovec { base: bytes.as_mut_ptr().expose_provenance() as u64, len: bytes.len() as u64 }
}

fn direct(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(OFlags::DIRECT.bits().cast_signed()).open(path)
}

/// Random direct reads and writes of blocks, from user memory and from the ring's; a vector is the oracle.
#[test]
fn direct_io() {
    const BLOCK: usize = 4096;
    let (plain, path) = named_file(b"");
    let opened = direct(&path);
    std::fs::remove_file(path).unwrap();
    let f = match opened {
        Ok(f) => f,
        Err(why) => return skip(&format!("direct_io: {}: {why}", scratch().display())),
    };
    let mut bench = Bench::new();
    let pool = bench.0.submitter().pool().unwrap();
    bench.0.submitter().register_files(&[f.as_fd()]).unwrap();
    let mut random = Random(0x1234_5678_9abc);
    let mut model: Vec<u8> = Vec::new();
    for step in 0..400 {
        let off = random.below(64) as usize * BLOCK;
        let len = (1 + random.below(u64::from(BUFFER) / BLOCK as u64) as usize) * BLOCK;
        let cut = random.below((len / BLOCK) as u64) as usize * BLOCK;
        let flags = if random.below(2) == 0 { SqeFlags::ASYNC } else { NONE };
        let on = if random.below(2) == 0 { Target::Fixed(0) } else { target(&f) };
        let (at, count, way) = (off as u64, len as u32, random.below(3));
        if random.below(2) == 0 {
            let mut from = Pages::new(&random.bytes(len));
            let got = match way {
                0 => bench.entry(Write::new(on, from.bytes().as_ptr(), count).offset(at).build().flags(flags)),
                1 => {
                    let (head, tail) = from.bytes().split_at_mut(cut);
                    let vector = [iovec(head), iovec(tail)];
                    bench.entry(Writev::new(on, vector.as_ptr(), 2).offset(at).build().flags(flags))
                }
                _ => {
                    pool.write(0, 0, from.bytes()).unwrap();
                    bench.entry(WriteFixed::new(on, 0, 0, count).offset(at).build().flags(flags))
                }
            };
            assert_eq!(got, Ok(count), "step {step}: write of {len} at {off}");
            model.resize(model.len().max(off + len), 0);
            model[off..off + len].copy_from_slice(from.bytes());
        } else {
            let mut to = Pages::new(&vec![0xee; len]);
            let inside = model.len().saturating_sub(off).min(len);
            let got = match way {
                0 => bench.entry(Read::new(on, to.bytes().as_mut_ptr(), count).offset(at).build().flags(flags)),
                1 => {
                    let (head, tail) = to.bytes().split_at_mut(cut);
                    let vector = [iovec(head), iovec(tail)];
                    bench.entry(Readv::new(on, vector.as_ptr(), 2).offset(at).build().flags(flags))
                }
                _ => {
                    pool.write(1, 0, to.bytes()).unwrap();
                    let got = bench.entry(ReadFixed::new(on, 1, 0, count).offset(at).build().flags(flags));
                    pool.read(1, 0, to.bytes()).unwrap();
                    got
                }
            };
            assert_eq!(got, Ok(inside as u32), "step {step}: read of {len} at {off}");
            // What is behind a short direct read is the file system's to spoil, and some do.
            let expected = model.get(off..off + inside).unwrap_or(&[]);
            assert!(&to.bytes()[..inside] == expected, "step {step}: read of {len} at {off}");
        }
    }
    let mut all = vec![0; model.len() + 1];
    assert_eq!(plain.read_at(&mut all, 0).unwrap(), model.len());
    assert!(all[..model.len()] == model);
    let mut odd = Pages::new(&[0; BLOCK]);
    let expected = f.read_at(&mut odd.bytes()[1..2], 0).map(|n| n as u32);
    let expected = expected.map_err(|error| error.raw_os_error().and_then(Errno::new).unwrap());
    assert_eq!(bench.read(&f, 0, &mut odd.bytes()[1..2], NONE), expected, "not aligned: whatever the plain call says");
}

/// A bare disk, 32 direct operations at a time.
#[test]
fn a_disk() {
    const BLOCK: usize = 64 << 10;
    let Some(disk) = std::env::var_os("SQ_DISK") else { return skip("a_disk: SQ_DISK names none that may be written") };
    let f = direct(Path::new(&disk)).unwrap();
    let mut bench = Bench::new();
    let content = Random(21).bytes(32 * BLOCK);
    let mut from = Pages::new(&content);
    for (n, block) in from.bytes().chunks(BLOCK).enumerate() {
        let write = Write::new(target(&f), block.as_ptr(), BLOCK as u32).offset((n * BLOCK) as u64).build();
        // SAFETY: `from` stays until all completions have been reaped below.
        unsafe { bench.0.submission().push_raw(write) }.unwrap();
    }
    bench.0.submit().unwrap();
    assert!(bench.reap(32).iter().all(|done| done.result() == Ok(BLOCK as u32)));
    let mut to = Pages::new(&vec![0; 32 * BLOCK]);
    for (n, block) in to.bytes().chunks_mut(BLOCK).enumerate() {
        // SAFETY: as above.
        unsafe { bench.0.submission().push_raw(read(&f, (n * BLOCK) as u64, block)) }.unwrap();
    }
    bench.0.submit().unwrap();
    assert!(bench.reap(32).iter().all(|done| done.result() == Ok(BLOCK as u32)));
    assert!(to.bytes() == content);
    let mut all = vec![0; content.len()];
    File::open(disk).unwrap().read_exact_at(&mut all, 0).unwrap();
    assert!(all == content, "a plain read sees it too");
}

/// A direct write where the inode cannot do it, as ext4's that keep their data in the journal: the file system makes it a plain one, and
/// cannot be asked not to wait for it.
#[test]
fn direct_io_that_is_none() {
    /// While data is allocated late, none of it is in a journal.
    fn allocate(late: bool) -> bool {
        let options = if late { "remount,delalloc" } else { "remount,nodelalloc" };
        Command::new("mount").args(["-o", options]).arg(scratch()).status().is_ok_and(|status| status.success())
    }
    /// When this goes it is so again.
    struct Late;
    impl Drop for Late {
        fn drop(&mut self) {
            allocate(true);
        }
    }
    if !on_device() {
        return skip("direct_io_that_is_none: in a process a thread makes the plain call");
    }
    let _alone = alone();
    if !allocate(false) {
        return skip("direct_io_that_is_none: there is no ext4 here");
    }
    let late = Late;
    let (plain, path) = named_file(b"");
    let flags = rustix::fs::ioctl_getflags(&plain).unwrap();
    rustix::fs::ioctl_setflags(&plain, flags | IFlags::JOURNALING).unwrap();
    let f = direct(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    let mut bench = Bench::new();
    let mut from = Pages::new(&[5; 4096]);
    for flags in BOTH {
        assert_eq!(bench.write(&f, 0, from.bytes(), flags), Ok(4096));
        let mut to = Pages::new(&[0; 4096]);
        assert_eq!(bench.read(&f, 0, to.bytes(), flags), Ok(4096));
        assert!(to.bytes() == from.bytes());
    }
    drop((f, plain, bench));
    drop(late);
}

/// Direct writes through a stacked file system leave the one below as they found it: it can be frozen.
#[test]
fn an_overlay() {
    if !on_device() {
        return skip("an_overlay: in a process a thread makes the plain call");
    }
    let _alone = alone();
    let below = scratch().join(format!("sq-overlay-{}", std::process::id()));
    let [lower, upper, work, merged] = ["lower", "upper", "work", "merged"].map(|name| below.join(name));
    [&lower, &upper, &work, &merged].into_iter().for_each(|dir| std::fs::create_dir_all(dir).unwrap());
    let dirs = ["lowerdir=", ",upperdir=", ",workdir="].into_iter().zip([&lower, &upper, &work]);
    let options: String = dirs.map(|(word, dir)| format!("{word}{}", dir.display())).collect();
    let mount = Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(&merged).status();
    if !mount.is_ok_and(|status| status.success()) {
        std::fs::remove_dir_all(below).unwrap();
        return skip("an_overlay: none can be mounted here");
    }
    let path = merged.join("file");
    std::fs::write(&path, b"").unwrap();
    match direct(&path) {
        Err(why) => skip(&format!("an_overlay: {}: {why}", path.display())),
        Ok(f) => {
            let mut bench = Bench::new();
            let mut from = Pages::new(&[6; 4096]);
            // New blocks, and the same again, which need not be waited for.
            for flags in BOTH.into_iter().chain(BOTH) {
                assert_eq!(bench.write(&f, 0, from.bytes(), flags), Ok(4096));
            }
        }
    }
    // A child, since what waits for a write that never ends cannot be killed.
    let mut freeze = Command::new("fsfreeze").arg("--freeze").arg(&below).spawn().unwrap();
    let start = Instant::now();
    let frozen = loop {
        match freeze.try_wait().unwrap() {
            Some(status) => break status.success(),
            None if start.elapsed() > Duration::from_secs(60) => {
                // Nothing ends any more that writes there.
                eprintln!("an_overlay: a write has not ended in the file system below: it cannot be frozen");
                std::process::abort();
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    if frozen {
        assert!(Command::new("fsfreeze").arg("--unfreeze").arg(&below).status().unwrap().success());
    } else {
        skip("an_overlay: the file system below cannot be frozen");
    }
    // A worker may be about to close the file.
    let unmounted = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        Command::new("umount").arg(&merged).status().unwrap().success()
    });
    assert!(unmounted);
    std::fs::remove_dir_all(below).unwrap();
}

/// A write to a frozen file system waits until it is thawed. Meanwhile nothing else waits for it, and what is not started can be canceled.
#[test]
fn a_frozen_file_system() {
    const WRITES: u32 = 10;
    struct Frozen(std::path::PathBuf);
    impl Drop for Frozen {
        fn drop(&mut self) {
            let _ = Command::new("fsfreeze").arg("--unfreeze").arg(&self.0).status();
        }
    }
    if !on_device() {
        return skip("a_frozen_file_system: in a process a thread waits in the plain call");
    }
    let _alone = alone();
    let mut bench = Bench::new();
    let (f, other) = (file(b"cached"), File::from(rustix::fs::memfd_create("other", MemfdFlags::CLOEXEC).unwrap()));
    let (_, path) = named_file(b"");
    let straight = direct(&path).ok();
    std::fs::remove_file(path).unwrap();
    let frozen = Frozen(scratch());
    let freeze = Command::new("fsfreeze").arg("--freeze").arg(&frozen.0).status();
    if !freeze.is_ok_and(|status| status.success()) {
        return skip("a_frozen_file_system: it cannot be frozen here");
    }
    let mut page = Pages::new(&[1; 4096]);
    for n in 0..WRITES {
        let write = Write::new(target(&f), b"new".as_ptr(), 3).offset(u64::from(n) * 3).build();
        // SAFETY: static bytes; the file stays open.
        unsafe { bench.0.submission().push_raw(write.user_data(u64::from(n))) }.unwrap();
    }
    if let Some(straight) = &straight {
        let write = Write::new(target(straight), page.bytes().as_ptr(), 4096).build();
        // SAFETY: `page` stays until all completions have been reaped.
        unsafe { bench.0.submission().push_raw(write.user_data(100)) }.unwrap();
    }
    bench.0.submit().unwrap();
    let short = Wait::new(1).timeout(Duration::from_millis(200));
    let waited = bench.0.submitter().wait(&short);
    assert_eq!(waited.unwrap_err().errno(), Some(Errno::ETIME), "nothing is done while it is frozen");
    let mut to = [0; 6];
    for flags in BOTH {
        assert_eq!(bench.read(&f, 0, &mut to, flags), Ok(6), "reads go on");
        assert_eq!(&to, b"cached");
        assert_eq!(bench.write(&other, 0, b"elsewhere", flags), Ok(9), "and other file systems");
    }
    let canceled = bench.0.submitter().cancel(CancelFlags::ANY, 0, 0).unwrap();
    assert_eq!(canceled, WRITES + u32::from(straight.is_some()));
    let first = bench.reap(WRITES - 2);
    assert_eq!(first.len() as u32, WRITES - 2, "of buffered writes two are started, the rest waits");
    assert!(first.iter().all(|done| done.result() == Err(Errno::ECANCELED)));
    drop(frozen);
    let rest = bench.reap(2 + u32::from(straight.is_some()));
    assert!(rest.iter().all(|done| done.result() == Ok(if done.user_data() == 100 { 4096 } else { 3 })), "{rest:?}");
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ring memory: whose it is, who pays for it, and that nobody but the kernel writes what the kernel writes. Run as root, with a
//! version 2 cgroup hierarchy at /sys/fs/cgroup.

use std::fs;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;

use sq_uapi::SqRegion;
use sq_uapi::consts::{features, sq_state};

use crate::proc::Child;
use crate::raw::{MODES, Map, NULL, Raw, command, echo, last, res, set_up, shape, transfer};
use crate::{Check, Outcome, Why, want};

pub(crate) const CHECKS: &[Check] = &[
    ("MEM-1: the memcg pays at setup and has it back at close", charged),
    ("MEM-1: a memcg that is full is ENOMEM", full),
    ("the kernel's region is read-only to everything", read_only),
    ("the flags of the mappings", flags),
    ("mappings are shared, inside a region, and alive without a descriptor", mappings),
];

const GROUP: &str = "/sys/fs/cgroup/sq-life";

/// A memcg with a limit. Processes join it; it goes when they have.
struct Group;

impl Group {
    fn new(max: &str) -> Result<Self, Why> {
        let failed = |what: &'static str| move |why: std::io::Error| Why::from(format!("{what}: {why}"));
        fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory").map_err(failed("subtree_control"))?;
        fs::create_dir(GROUP).map_err(failed("mkdir"))?;
        let group = Self;
        fs::write(format!("{GROUP}/memory.max"), max).map_err(failed("memory.max"))?;
        Ok(group)
    }

    fn join() {
        fs::write(format!("{GROUP}/cgroup.procs"), "0").expect("a process may join");
    }

    fn used() -> u64 {
        let text = fs::read_to_string(format!("{GROUP}/memory.current")).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(GROUP);
    }
}

/// 4 MiB of buffers and 1 MiB of entries.
fn large() -> sq_uapi::SqSetup {
    sq_uapi::SqSetup { buf_count: 4, buf_bytes: 1 << 20, ..shape(16384, 0) }
}

fn charged() -> Outcome {
    let _group = Group::new("max")?;
    let child = Child::fork(|| {
        Group::join();
        // What the first ring needs once and for all.
        drop(set_up(NULL, &mut shape(8, 0)));
        let before = Group::used();
        let Ok(ring) = set_up(NULL, &mut large()) else { return 2 };
        let during = Group::used();
        if during < before + (5 << 20) {
            println!("a ring of 5 MiB costs {} bytes", during - before);
            return 3;
        }
        drop(ring);
        // The ring goes by a worker.
        for _ in 0..500 {
            if Group::used() < before + (256 << 10) {
                return 0;
            }
            crate::proc::sleep_us(10_000);
        }
        println!("{} bytes are still charged", Group::used() - before);
        4
    });
    want!(child.wait(), 0);
    Ok(())
}

fn full() -> Outcome {
    let _group = Group::new("3M")?;
    let child = Child::fork(|| {
        Group::join();
        match set_up(NULL, &mut large()) {
            Err(libc::ENOMEM) => {}
            other => {
                println!("setup: {other:?}");
                return 2;
            }
        }
        // A small one still fits.
        let Ok(mut ring) = Raw::new(NULL, shape(8, 0)) else { return 3 };
        ring.push(echo(1, 1));
        if ring.bell().is_ok() && ring.reap() == [(1, 1)] { 0 } else { 4 }
    });
    want!(child.wait(), 0);
    Ok(())
}

fn read_only() -> Outcome {
    for mode in MODES {
        let mut ring = match Raw::new(NULL, shape(8, mode)) {
            Ok(ring) => ring,
            Err(libc::EOPNOTSUPP) => continue,
            Err(errno) => return Err(errno.into()),
        };
        want!(ring.setup.features & features::KERNEL_RDONLY != 0, true);
        let (at, len) = (ring.kernel.at, ring.kernel.len);
        let both = libc::PROT_READ | libc::PROT_WRITE;
        want!(Map::new(ring.raw(), ring.setup.kernel, both).err(), Some(libc::EACCES));
        // SAFETY: a mapping that stays as it is.
        want!(res(unsafe { libc::mprotect(at.cast(), len, both) }), Err(libc::EACCES));
        // The kernel on behalf of others: read(2) into it, and through /proc/self/mem, which overrides protections.
        let zeros = fs::File::open("/dev/zero").map_err(|_| libc::ENOENT)?;
        // SAFETY: the kernel checks the address.
        want!((unsafe { libc::read(zeros.as_raw_fd(), at.cast(), 64) }, last()), (-1, libc::EFAULT));
        let memory = fs::OpenOptions::new().write(true).open("/proc/self/mem").map_err(|_| libc::ENOENT)?;
        // SAFETY: eight bytes, to an address in this process: if it is written all the same, the check fails.
        let written = unsafe { libc::pwrite(memory.as_raw_fd(), [0u8; 8].as_ptr().cast(), 8, at as i64) };
        want!(written, -1);
        ring.push(echo(1, 5));
        ring.bell()?;
        want!(ring.wait(1, 5000), Ok(0));
        want!(ring.reap(), [(1, 5)]);
    }
    // A ring's own operations, in the ring's own process.
    for mode in MODES {
        let mut ring = match Raw::new("/dev/sqram", shape(8, mode)) {
            Ok(ring) => ring,
            Err(libc::EOPNOTSUPP) => continue,
            Err(errno) => return Err(errno.into()),
        };
        ring.push(transfer(22, 1, ring.kernel.at as u64, 64));
        ring.bell()?;
        want!(ring.wait(1, 5000), Ok(0));
        want!(ring.reap(), [(1, -libc::EFAULT)]);
    }
    Ok(())
}

fn mappings() -> Outcome {
    let ring = Raw::new(NULL, shape(8, 0))?;
    let (region, both) = (ring.setup.user, libc::PROT_READ | libc::PROT_WRITE);
    let refused = |offset, size, prot| Map::new(ring.raw(), SqRegion { offset, size }, prot).err();
    want!(refused(region.offset, region.size + 4096, both), Some(libc::EINVAL));
    want!(refused(region.offset + 4096, 4096, both), Some(libc::EINVAL));
    want!(refused(1 << 40, 4096, both), Some(libc::EINVAL));
    want!(refused(region.offset, region.size, both | libc::PROT_EXEC), Some(libc::EACCES));
    // SAFETY: a new mapping, where the kernel likes.
    let private = unsafe { libc::mmap(std::ptr::null_mut(), 4096, both, libc::MAP_PRIVATE, ring.raw(), 0) };
    want!((private == libc::MAP_FAILED, last()), (true, libc::EINVAL));
    let Raw { user, kernel, setup, fd, .. } = ring;
    drop((fd, user));
    // It says what it said: the ring wants its doorbell.
    want!(kernel.word(setup.offsets.sq_state).load(Ordering::Relaxed), sq_state::NEED_WAKEUP);
    Ok(())
}

fn flags() -> Outcome {
    let mut setup = shape(8, 0);
    (setup.buf_count, setup.buf_bytes) = (1, 4096);
    let mut ring = Raw::new(NULL, setup)?;
    let pool = Map::new(ring.raw(), ring.setup.pool, libc::PROT_READ | libc::PROT_WRITE)?;
    let smaps = fs::read_to_string("/proc/self/smaps").map_err(|_| libc::ENOENT)?;
    for (what, map, write) in [("user", &ring.user, true), ("kernel", &ring.kernel, false), ("pool", &pool, true)] {
        let start = format!("{:x}-", map.at as usize);
        let flags = smaps.split('\n').skip_while(|line| !line.starts_with(&start)).find(|l| l.starts_with("VmFlags:"));
        let flags = flags.unwrap_or_default();
        let has = |flag| flags.split(' ').any(|f| f == flag);
        // Shared, VM_IO, not inherited, not expanded, not dumped; never executed; written by whom it may.
        let are = ["sh", "io", "dc", "de", "dd", "ex", "me", "wr", "mw"].map(has);
        want!((what, are), (what, [true, true, true, true, true, false, false, write, write]));
        // VM_IO: a madvise() that would undo VM_DONTCOPY is refused.
        // SAFETY: changes no memory.
        want!(res(unsafe { libc::madvise(map.at.cast(), map.len, libc::MADV_DOFORK) }), Err(libc::EINVAL));
    }
    ring.push(command(sq_null::cmd::ECHO, 1, 1, 0));
    ring.bell()?;
    want!(ring.reap(), [(1, 1)]);
    Ok(())
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ring memory: whose it is, who pays for it, and that nobody but the kernel writes what the kernel writes. Run as root, with a
//! version 2 cgroup hierarchy at /sys/fs/cgroup.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::Ordering;

use sq_uapi::consts::{features, register_op, sq_state, sqe_flags};
use sq_uapi::{SqQuery, SqRegion, ioctl};

use crate::group::Group;
use crate::proc::{Child, code, until};
use crate::raw::{MODES, Map, NULL, Raw, call, command, echo, last, nop, register, res, set_up, shape, transfer};
use crate::{Check, Outcome, Why, want};

const READ: u64 = 22;
const WRITE: u64 = 23;

pub(crate) const CHECKS: &[Check] = &[
    ("MEM-1: the memcg pays at setup and has it back at close", charged),
    ("MEM-1: a memcg that is full is ENOMEM", full),
    ("the kernel's region is read-only to everything", read_only),
    ("the flags of the mappings", flags),
    ("mappings are shared, inside a region, and alive without a descriptor", mappings),
    ("a node that is open for reading takes no operations", opened_for_reading),
    ("a protection key that its owner may use, kernel threads may use for it", keys),
];

/// Neither a ring, whose memory would have to be mapped for writing, nor a single one.
fn opened_for_reading() -> Outcome {
    let node = File::open(NULL).map_err(|error| error.to_string())?;
    want!(call(node.as_raw_fd(), ioctl::ISSUE, &mut nop(1)), Err(libc::EBADF));
    want!(call(node.as_raw_fd(), ioctl::SETUP, &mut shape(8, 0)), Err(libc::EBADF));
    let query = SqQuery { size: size_of::<SqQuery>() as u32, ..SqQuery::default() };
    want!(call(node.as_raw_fd(), ioctl::QUERY, &mut { query }), Ok(0));
    Ok(())
}

/// 4 MiB of buffers and 1 MiB of entries.
fn large() -> sq_uapi::SqSetup {
    sq_uapi::SqSetup { buf_count: 4, buf_bytes: 1 << 20, ..shape(16384, 0) }
}

/// The group, in which `child` runs, with a limit for it.
fn in_group(limit: &str, child: impl FnOnce() -> Outcome) -> Outcome {
    let Some(_group) = Group::new(&["memory"])? else { return Err(libc::ENOSYS.into()) };
    Group::set("memory.max", limit)?;
    let child = Child::fork(|| {
        code((|| {
            Group::join()?;
            child()
        })())
    });
    want!(child.wait(), 0);
    Ok(())
}

fn charged() -> Outcome {
    in_group("max", || {
        // What the first ring needs once and for all.
        drop(set_up(NULL, &mut shape(8, 0)));
        let before = Group::memory()?;
        let ring = set_up(NULL, &mut large())?;
        let during = Group::memory()?;
        if during < before + (5 << 20) {
            return Err(format!("a ring of 5 MiB costs {} bytes", during.saturating_sub(before)).into());
        }
        drop(ring);
        // The ring goes by a worker.
        until(5, "its memory is still charged", || Group::memory().is_ok_and(|now| now < before + (256 << 10)))
    })
}

fn full() -> Outcome {
    in_group("3M", || {
        want!(set_up(NULL, &mut large()).err(), Some(libc::ENOMEM));
        // A small one still fits.
        let mut ring = Raw::new(NULL, shape(8, 0))?;
        ring.push(echo(1, 1));
        ring.bell()?;
        want!(ring.reap(), [(1, 1)]);
        Ok(())
    })
}

fn read_only() -> Outcome {
    for mode in MODES {
        let mut ring = Raw::new(NULL, shape(8, mode))?;
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
        let mut ring = Raw::new("/dev/sqram", shape(8, mode))?;
        ring.push(transfer(READ, 1, ring.kernel.at as u64, 64));
        ring.bell()?;
        want!(ring.wait(1, 5000), Ok(0));
        want!(ring.reap(), [(1, -libc::EFAULT)]);
    }
    Ok(())
}

/// An anonymous page behind a new protection key, with these rights of the calling thread.
fn page_behind_key(rights: u64) -> Result<*mut u8, Why> {
    let both = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
    // SAFETY: a new mapping, where the kernel likes.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), 4096, both, flags, -1, 0) };
    // SAFETY: numbers.
    let key = unsafe { libc::syscall(libc::SYS_pkey_alloc, 0, rights) };
    if page == libc::MAP_FAILED || key < 0 {
        return Err(last().into());
    }
    // SAFETY: the page that was just mapped, which nobody refers to.
    res(unsafe { libc::syscall(libc::SYS_pkey_mprotect, page, 4096, both, key) } as i32)?;
    Ok(page.cast())
}

/// Whose rights count is a thread's affair: of operations that run elsewhere, the one's that set the ring up, or that issued them. It is so
/// whoever drains, and with `sq_file`, whose workers go on with an operation that waits.
fn keys() -> Outcome {
    const NO_ACCESS: u64 = 1;
    let (open, shut) = (page_behind_key(0)?, page_behind_key(NO_ACCESS)?);
    let path = c"/mnt";
    // SAFETY: a path; what comes back is owned.
    let file = unsafe { libc::open(path.as_ptr(), libc::O_TMPFILE | libc::O_RDWR | libc::O_CLOEXEC, 0o600) };
    // SAFETY: just opened, and nobody else's.
    let file = unsafe { OwnedFd::from_raw_fd(res(file)?) };
    for mode in MODES {
        for (page, expected) in [(open, 64), (shut, -libc::EFAULT)] {
            let mut ring = Raw::new("/dev/sqram", shape(8, mode))?;
            for opcode in [WRITE, READ] {
                ring.push(transfer(opcode, opcode, page as u64, 64));
                ring.bell()?;
                want!(ring.wait(1, 5000), Ok(0));
                want!((mode, ring.reap()), (mode, vec![(opcode, expected)]));
            }
            let mut ring = Raw::new("/dev/sqfile", shape(8, mode))?;
            let fd = file.as_raw_fd();
            register(ring.raw(), register_op::FILES, (&raw const fd).expose_provenance() as u64, 1)?;
            for opcode in [WRITE, READ] {
                let mut entry = transfer(opcode, opcode, page as u64, 64);
                entry[0] = opcode | u64::from(sqe_flags::ASYNC | sqe_flags::FIXED_FILE) << 8;
                ring.push(entry);
                ring.bell()?;
                want!(ring.wait(1, 5000), Ok(0));
                want!((mode, ring.reap()), (mode, vec![(opcode, expected)]));
            }
        }
    }
    for page in [open, shut] {
        // SAFETY: this test's own.
        unsafe { libc::munmap(page.cast(), 4096) };
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

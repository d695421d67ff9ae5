// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ring memory: whose it is, who pays for it, and that nobody but the kernel writes what the kernel writes. Run as root, with a
//! version 2 cgroup hierarchy at /sys/fs/cgroup.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;

use sq_uapi::consts::{features, register_op, sq_state, sqe_flags};
use sq_uapi::{SqQuery, SqRegion, ioctl};

use crate::group::Group;
use crate::proc::{Child, code, until};
use crate::raw::{
    MODES, Map, NULL, READ, Raw, Res, WRITE, address, call, command, echo, ioctl, last, nop, open as open_node,
    register, res, set_up, shape, transfer,
};
use crate::{Check, Outcome, Why, want};

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

/// An anonymous page behind a protection key of its own.
struct Guarded {
    page: *mut u8,
    key: libc::c_long,
}

impl Guarded {
    /// With these rights of the calling thread, and of those that it starts. Others have none.
    fn new(rights: u64) -> Result<Self, Why> {
        let both = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
        // SAFETY: a new mapping, where the kernel likes.
        let page = unsafe { libc::mmap(std::ptr::null_mut(), 4096, both, flags, -1, 0) };
        // SAFETY: numbers.
        let key = unsafe { libc::syscall(libc::SYS_pkey_alloc, 0, rights) };
        if page == libc::MAP_FAILED || key < 0 {
            return Err(last().into());
        }
        let this = Self { page: page.cast(), key };
        // SAFETY: the page that was just mapped, which nobody refers to.
        res(unsafe { libc::syscall(libc::SYS_pkey_mprotect, page, 4096, both, key) } as i32)?;
        Ok(this)
    }

    fn transfer(&self, opcode: u64) -> [u64; 8] {
        transfer(opcode, opcode, self.page as u64, 64)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: this value's own mapping.
        unsafe { libc::munmap(self.page.cast(), 4096) };
        // SAFETY: a number: this value's own key.
        unsafe { libc::syscall(libc::SYS_pkey_free, self.key) };
    }
}

/// A thread that was there before the keys, and so has no right to any. It rings the doorbells that it is sent, and says so.
fn without_rights() -> (mpsc::Sender<i32>, mpsc::Receiver<Res>) {
    let (rings, asked) = mpsc::channel();
    let (answers, answer) = mpsc::channel();
    thread::spawn(move || asked.iter().try_for_each(|fd| answers.send(ioctl(fd, ioctl::ENTER, 0))));
    (rings, answer)
}

/// Whose rights count: of what is done inline, and of what `sq_file` goes on with, the thread's that issued it; of what a worker or polling
/// thread does, the one's that set the ring up.
fn keys() -> Outcome {
    const NO_ACCESS: u64 = 1;
    let (rings, rung) = without_rights();
    let (open, shut) = (Guarded::new(0)?, Guarded::new(NO_ACCESS)?);
    // SAFETY: a name.
    let file = res(unsafe { libc::memfd_create(c"keys".as_ptr(), libc::MFD_CLOEXEC) })?;
    // SAFETY: just made, and nobody else's.
    let file = unsafe { OwnedFd::from_raw_fd(file) };
    let fd = file.as_raw_fd();
    for (mode, node) in MODES.into_iter().flat_map(|mode| [(mode, "/dev/sqram"), (mode, "/dev/sqfile")]) {
        let mut ring = Raw::new(node, shape(8, mode))?;
        let files = node == "/dev/sqfile";
        if files {
            register(ring.raw(), register_op::FILES, address(&fd), 1)?;
        }
        for (opcode, of_another) in [(WRITE, false), (READ, false), (WRITE, true), (READ, true)] {
            for (guarded, allowed) in [(&open, true), (&shut, false)] {
                let mut entry = guarded.transfer(opcode);
                if files {
                    entry[0] = opcode | u64::from(sqe_flags::ASYNC | sqe_flags::FIXED_FILE) << 8;
                }
                ring.push(entry);
                if of_another {
                    rings.send(ring.raw()).map_err(|_| libc::EPIPE)?;
                    rung.recv().map_err(|_| libc::EPIPE)??;
                } else {
                    ring.bell()?;
                }
                want!(ring.wait(1, 5000), Ok(0));
                let allowed = allowed && (mode != 0 || !of_another);
                let expected = if allowed { 64 } else { -libc::EFAULT };
                want!((node, mode, of_another, ring.reap()), (node, mode, of_another, vec![(opcode, expected)]));
            }
        }
    }
    // By the door without a ring.
    let node = open_node("/dev/sqfile")?;
    for opcode in [WRITE, READ] {
        for (guarded, expected) in [(&open, Ok(64)), (&shut, Err(libc::EFAULT))] {
            let mut entry = guarded.transfer(opcode);
            entry[0] = opcode | u64::from(sqe_flags::ASYNC) << 8 | (fd as u64) << 32;
            entry[4] = 0;
            want!(call(node.as_raw_fd(), ioctl::ISSUE, &mut entry), expected);
        }
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

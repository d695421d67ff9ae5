// SPDX-License-Identifier: MIT OR Apache-2.0
//! A ring of a loaded module: ioctls on `/dev/sq*`, and three mappings.

use std::ffi::c_void;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, open};
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode};
use sq_uapi::consts::setup_flags;
use sq_uapi::{Errno, Mapped, Parts, SqQuery, SqQuiesce, SqSetup, ioctl};

use super::map::Map;
use super::{Door, Mappings, Opened};
use crate::Error;
use crate::call::bytes_of_mut;

#[derive(Debug)]
struct Device(OwnedFd);

/// The mappings of a device's ring.
#[derive(Debug)]
pub(crate) struct Maps {
    user: Map,
    kernel: Map,
    pool: Option<Map>,
}

/// An sq call: the pointer goes in, the return value comes out.
struct Call<'a> {
    number: u32,
    arg: &'a mut [u8],
}

// SAFETY: every sq call reads and writes at most the bytes that the argument's own size field says (ISSUE: 64), which is the slice's length
// (the callers in this crate build it so), and takes a null pointer for "no argument".
unsafe impl Ioctl for Call<'_> {
    type Output = u32;
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        self.number as Opcode
    }

    fn as_ptr(&mut self) -> *mut c_void {
        if self.arg.is_empty() { std::ptr::null_mut() } else { self.arg.as_mut_ptr().cast() }
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut c_void) -> rustix::io::Result<u32> {
        // A call that succeeds returns a count.
        Ok(out.cast_unsigned())
    }
}

fn call(fd: &OwnedFd, number: u32, arg: &mut [u8]) -> Result<u32, Errno> {
    // SAFETY: `Call` is a correct description of sq's calls. On a file that is no sq device, `q` numbers are unknown or take
    // the same size of argument: the size is in the number.
    match unsafe { rustix::ioctl::ioctl(fd, Call { number, arg }) } {
        Ok(count) => Ok(count),
        Err(errno) => Err(refused(errno)),
    }
}

/// Apart, so that what succeeds does not pass through it.
#[cold]
fn refused(errno: rustix::io::Errno) -> Errno {
    Errno::new(errno.raw_os_error()).unwrap_or(Errno::EIO)
}

impl Door for Device {
    fn call(&self, number: u32, arg: &mut [u8]) -> Result<u32, Errno> {
        call(&self.0, number, arg)
    }
}

/// The descriptor of a device with a ring, which its door keeps open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bell(RawFd);

impl Bell {
    /// The bare doorbell: what [`call`] would do, in half of its instructions. It is the one call of every batch.
    #[inline(always)]
    pub(crate) fn ring(self) -> Result<(), Errno> {
        const IOCTL: usize = 16;
        let result: isize;
        // SAFETY: ENTER without an argument gives the kernel no address. A system call clobbers rcx and r11; what it does to the ring's
        // memory is atomic to this side, or in slots that it does not touch.
        unsafe {
            std::arch::asm!(
                "syscall",
                inlateout("rax") IOCTL => result,
                in("rdi") self.0,
                in("rsi") ioctl::ENTER as usize,
                in("rdx") 0usize,
                lateout("rcx") _,
                lateout("r11") _,
                options(nostack),
            );
        }
        if result >= 0 { Ok(()) } else { Err(rung_in_vain(result)) }
    }
}

#[cold]
fn rung_in_vain(result: isize) -> Errno {
    i32::try_from(result).ok().and_then(i32::checked_neg).and_then(Errno::new).unwrap_or(Errno::EIO)
}

/// How long a ring that is dropped waits for its requests. What is in flight after that the kernel side revokes.
const PATIENCE: Duration = Duration::from_secs(1);

impl Drop for Device {
    fn drop(&mut self) {
        // LIFE-1: QUIESCE, munmap, close; a mapping or a duplicate may keep the file.
        let mut quiesce = SqQuiesce { size: size_of::<SqQuiesce>() as u32, ..SqQuiesce::default() };
        let start = Instant::now();
        loop {
            let left = PATIENCE.saturating_sub(start.elapsed());
            quiesce.timeout_ns = left.as_nanos() as u64;
            // A signal must not cut it short, nor many make it long.
            if call(&self.0, ioctl::QUIESCE, bytes_of_mut(&mut quiesce)) != Err(Errno::EINTR) || left.is_zero() {
                break;
            }
        }
    }
}

fn open_node(path: &Path) -> Result<OwnedFd, Error> {
    open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| Error::Open { path: path.to_owned(), source: errno.into() })
}

/// A device that was opened and has no ring.
#[derive(Debug)]
struct Alone(OwnedFd);

impl Door for Alone {
    fn call(&self, number: u32, arg: &mut [u8]) -> Result<u32, Errno> {
        call(&self.0, number, arg)
    }
}

pub(super) fn alone(path: &Path) -> Result<Box<dyn Door>, Error> {
    Ok(Box::new(Alone(open_node(path)?)))
}

pub(super) fn query(path: &Path, mut query: SqQuery) -> Result<SqQuery, Error> {
    let fd = open_node(path)?;
    call(&fd, ioctl::QUERY, bytes_of_mut(&mut query)).map_err(|errno| Error::Call { what: "query", errno })?;
    Ok(query)
}

pub(super) fn setup(path: &Path, setup: &mut SqSetup) -> Result<Opened, Error> {
    let fd = open_node(path)?;
    call(&fd, ioctl::SETUP, bytes_of_mut(setup)).map_err(|errno| Error::Call { what: "setup", errno })?;
    let map = |region: sq_uapi::SqRegion, write| {
        let len = usize::try_from(region.size).unwrap_or(usize::MAX);
        Map::new(fd.as_fd(), region.offset, len, write).map_err(|errno| Error::Map { source: errno.into() })
    };
    let maps = Maps {
        user: map(setup.user, true)?,
        kernel: map(setup.kernel, false)?,
        pool: if setup.pool.size == 0 { None } else { Some(map(setup.pool, true)?) },
    };
    check(setup)?;
    // SAFETY: `check` has shown that words and arrays lie inside the regions, which `maps` keeps mapped; the kernel writes them from
    // outside, and this half uses only UserMem.
    let mem = unsafe {
        Mapped::new(Parts {
            user: maps.user.start(),
            kernel: maps.kernel.start(),
            offsets: setup.offsets,
            sq_entries: setup.sq_entries,
            cq_entries: setup.cq_entries,
            sqe128: setup.flags & setup_flags::SQE128 != 0,
            cqe32: setup.flags & setup_flags::CQE32 != 0,
        })
    };
    let pool = maps.pool.as_ref().map(Map::start);
    let bell = Some(Bell(fd.as_raw_fd()));
    Ok(Opened { door: Box::new(Device(fd)), bell, mem, pool, _mappings: Mappings::Device(maps) })
}

/// What the module reports is checked before pointers are made of it: a wrong module is an error, not undefined behaviour.
fn check(setup: &SqSetup) -> Result<(), Error> {
    let sqe = if setup.flags & setup_flags::SQE128 != 0 { 128 } else { 64 };
    let cqe = if setup.flags & setup_flags::CQE32 != 0 { 32 } else { 16 };
    let o = &setup.offsets;
    let fits = |offset: u32, bytes: u64, align: u32, region: u64| {
        offset.is_multiple_of(align) && u64::from(offset).checked_add(bytes).is_some_and(|end| end <= region)
    };
    let user = [o.sq_tail, o.cq_head, o.cq_flags].iter().all(|at| fits(*at, 4, 4, setup.user.size));
    let kernel = [o.sq_head, o.sq_state, o.cq_tail, o.broken].iter().all(|at| fits(*at, 4, 4, setup.kernel.size));
    let pool = u64::from(setup.buf_count).checked_mul(u64::from(setup.buf_bytes));
    let good = setup.sq_entries.is_power_of_two()
        && pool.is_some_and(|bytes| bytes <= setup.pool.size)
        && setup.cq_entries.is_power_of_two()
        && user
        && kernel
        && fits(o.sqes, u64::from(setup.sq_entries) * sqe, 8, setup.user.size)
        && fits(o.cqes, u64::from(setup.cq_entries) * cqe, 8, setup.kernel.size);
    if good { Ok(()) } else { Err(Error::Layout) }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The user half of bench/baseline/sq_baseline.c, as short as it can be: system calls without a library, and no check that a
//! hand-written program would leave out.

use std::arch::asm;
use std::error::Error;
use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::os::fd::AsRawFd;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap};

/// The plain module's node.
pub const NODE: &str = "/dev/sq_baseline";
const ENTRIES: usize = 256;

const fn ioc(dir: u64, nr: u64, size: usize) -> u64 {
    dir << 30 | (size as u64) << 16 | (b'b' as u64) << 8 | nr
}

const NULL: u64 = ioc(0, 0, 0);
const ONE: u64 = ioc(1, 1, size_of::<Entry>());
const ARRAY: u64 = ioc(1, 2, size_of::<ArrayCall>());
const ENTER: u64 = ioc(0, 3, 0);
const CHUNKS: u64 = ioc(1, 4, size_of::<ArrayCall>());
/// The command of io_uring whose entry is in the SQE.
pub const INLINE: u32 = 0;
/// The command of io_uring whose entry is behind a pointer.
pub const POINTER: u32 = 1;

/// `struct base_entry`. All of it is written for each operation, as an application would.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    opcode: u8,
    pad: [u8; 31],
    user_data: u64,
    arg: [u64; 3],
}

impl Entry {
    #[inline(always)]
    fn nop(user_data: u64) -> Self {
        Self { user_data, ..Self::default() }
    }
}

/// An entry that does nothing, in words.
#[inline(always)]
pub fn nop_words(user_data: u64) -> [u64; 8] {
    [0, 0, 0, 0, user_data, 0, 0, 0]
}

#[repr(C)]
struct ArrayCall {
    entries: *const Entry,
    results: *mut i32,
    nr: u32,
    pad: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Cqe {
    user_data: u64,
    res: i32,
    flags: u32,
}

#[repr(C, align(128))]
struct Line<T>(T);

/// `struct base_shared`.
#[repr(C)]
struct Shared {
    sq_tail: Line<AtomicU32>,
    heads: Line<[AtomicU32; 2]>,
    sqes: Line<[Entry; ENTRIES]>,
    cqes: [Cqe; ENTRIES],
}

/// # Safety
///
/// `arg` is what the call expects, valid for what it does with it.
#[inline(always)]
unsafe fn ioctl(fd: i32, number: u64, arg: *const u8) -> i64 {
    let result;
    // SAFETY: a system call clobbers rcx and r11, and memory only as the caller vouches for.
    unsafe {
        asm!("syscall", inlateout("rax") 16i64 => result, in("rdi") fd, in("rsi") number, in("rdx") arg,
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

/// Opens the plain module.
///
/// # Errors
///
/// It is not loaded, or not for this user.
pub fn open() -> Result<File, Box<dyn Error>> {
    OpenOptions::new().read(true).write(true).open(NODE).map_err(|why| format!("{NODE}: {why}").into())
}

/// An ioctl an operation.
#[derive(Debug)]
pub struct One(File);

impl One {
    /// # Errors
    ///
    /// As [`open`].
    pub fn open() -> Result<Self, Box<dyn Error>> {
        Ok(Self(open()?))
    }

    /// Enters the kernel and returns: 1 if it did.
    #[inline(always)]
    pub fn null(&mut self) -> u32 {
        // SAFETY: the call takes no argument.
        u32::from(unsafe { ioctl(self.0.as_raw_fd(), NULL, null_mut()) } == 0)
    }

    /// One operation; whether it succeeded.
    #[inline(always)]
    pub fn call(&mut self, user_data: u64) -> bool {
        let entry = Entry::nop(user_data);
        // SAFETY: the call reads one entry.
        unsafe { ioctl(self.0.as_raw_fd(), ONE, (&raw const entry).cast()) == 0 }
    }
}

/// An ioctl a batch.
#[derive(Debug)]
pub struct Array {
    file: File,
    entries: [Entry; ENTRIES],
    results: [i32; ENTRIES],
}

impl Array {
    /// # Errors
    ///
    /// As [`open`].
    pub fn open() -> Result<Self, Box<dyn Error>> {
        Ok(Self { file: open()?, entries: [Entry::default(); ENTRIES], results: [0; ENTRIES] })
    }

    /// The kernel copies one entry after the other. How many succeeded.
    #[inline(always)]
    pub fn call(&mut self, batch: u32) -> u32 {
        self.issue(ARRAY, batch)
    }

    /// It copies 16 at a time.
    #[inline(always)]
    pub fn call_in_chunks(&mut self, batch: u32) -> u32 {
        self.issue(CHUNKS, batch)
    }

    #[inline(always)]
    fn issue(&mut self, number: u64, batch: u32) -> u32 {
        for (entry, n) in self.entries.iter_mut().zip(0..batch) {
            *entry = Entry::nop(n.into());
        }
        let call = ArrayCall { entries: self.entries.as_ptr(), results: self.results.as_mut_ptr(), nr: batch, pad: 0 };
        // SAFETY: the call reads and writes the first `batch` of both arrays, which are longer.
        let done = unsafe { ioctl(self.file.as_raw_fd(), number, (&raw const call).cast()) };
        self.results.iter().take(done as usize).map(|res| u32::from(*black_box(res) == 0)).sum()
    }
}

/// The bare ring.
#[derive(Debug)]
pub struct Bare {
    file: File,
    shared: *mut Shared,
    tail: u32,
    head: u32,
}

impl Bare {
    /// # Errors
    ///
    /// As [`open`]; there is no memory.
    pub fn open() -> Result<Self, Box<dyn Error>> {
        let file = open()?;
        let size = size_of::<Shared>().next_multiple_of(4096);
        // SAFETY: a new mapping where the kernel likes. It stays until the process ends.
        let at = unsafe { mmap(null_mut(), size, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, &file, 0) }?;
        Ok(Self { file, shared: at.cast(), tail: 0, head: 0 })
    }

    /// Writes an entry. There are 256 places.
    #[inline(always)]
    pub fn push(&mut self, user_data: u64) {
        // SAFETY: a place in the mapping's array of entries, which the kernel reads in `enter` only.
        unsafe { (*self.shared).sqes.0[self.tail as usize % ENTRIES] = Entry::nop(user_data) };
        self.tail = self.tail.wrapping_add(1);
    }

    /// Has the kernel do what was pushed.
    #[inline(always)]
    pub fn enter(&mut self) {
        // SAFETY: the mapping has the word there.
        unsafe { &(*self.shared).sq_tail.0 }.store(self.tail, Ordering::Release);
        // SAFETY: the call takes no argument; it writes the mapping, which is read as memory that others write.
        unsafe { ioctl(self.file.as_raw_fd(), ENTER, null_mut()) };
    }

    /// How many succeeded.
    #[inline(always)]
    pub fn reap(&mut self) -> u32 {
        let mut good = 0;
        // SAFETY: the mapping has the words there.
        let tail = unsafe { &(*self.shared).heads.0[1] }.load(Ordering::Acquire);
        while self.head != tail {
            // SAFETY: a place in the array, which the kernel writes in `enter` only.
            let cqe = unsafe { (*self.shared).cqes[self.head as usize % ENTRIES] };
            black_box(cqe.user_data);
            good += u32::from(cqe.res == 0);
            self.head = self.head.wrapping_add(1);
        }
        good
    }
}

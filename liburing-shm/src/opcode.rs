// SPDX-License-Identifier: MIT OR Apache-2.0
//! Entries, one type an opcode: `opcode::X::new(required).optional(..).build()`.
//!
//! Those that `build` an [`Entry`] are pushed without `unsafe`; those that carry a raw address build a [`RawEntry`].

use sq_uapi::Sqe;
use sq_uapi::consts::{cancel_flags, op};
use sq_uapi::flags::{CancelFlags, FsyncFlags, SqeFlags};
pub use sq_uapi::{Bytes, Command, command};

use crate::entry::{Entry, RawEntry};

/// What an operation is on: nothing, for drivers with one target, or a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The driver's one target: `fd` is -1.
    Device,
    /// An index into the ring's registered files.
    Fixed(u32),
    /// A descriptor of this process, resolved when the entry is accepted. Only on rings drained by their caller.
    Fd(LentFd),
}

/// A descriptor that somebody vouches for, since nothing in an entry keeps it open.
///
/// It costs more than a registered file: on the embedded backend a `dup` and a `close` an operation, and closing any descriptor of a
/// file drops the process's POSIX record locks on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LentFd(i32);

impl LentFd {
    /// Vouches for `fd`.
    ///
    /// # Safety
    ///
    /// Until every entry that is made with it has been accepted, `fd` is open and the caller's to do I/O on.
    #[must_use]
    pub const unsafe fn new(fd: i32) -> Self {
        Self(fd)
    }
}

impl Target {
    const fn put(self, sqe: &mut Sqe) {
        match self {
            Self::Device => sqe.fd = -1,
            Self::Fd(LentFd(fd)) => sqe.fd = fd,
            Self::Fixed(index) => {
                // An index that is no i32 is no registered file either: -1 is refused by the kernel side.
                sqe.fd = if index <= i32::MAX as u32 { index as i32 } else { -1 };
                sqe.flags |= SqeFlags::FIXED_FILE.bits();
            }
        }
    }
}

/// Does nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nop;

impl Nop {
    /// A NOP.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }

    /// The entry.
    pub const fn build(self) -> Entry {
        Entry::new(Sqe::NOP)
    }
}

macro_rules! user_io {
    ($($(#[$doc:meta])* $name:ident = $op:expr, $ptr:ty, $what:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name(Sqe);

        impl $name {
            #[doc = concat!("`len` ", $what, " at `addr`, offset 0.")]
            #[must_use]
            pub fn new(target: Target, addr: $ptr, len: u32) -> Self {
                let mut sqe = Sqe { opcode: $op, addr: addr.expose_provenance() as u64, len, ..Sqe::NOP };
                target.put(&mut sqe);
                Self(sqe)
            }

            /// Byte offset in the target.
            #[must_use]
            pub const fn offset(mut self, offset: u64) -> Self {
                self.0.off = offset;
                self
            }

            /// The entry. Pushing it is unsafe: the memory must stay until the completion has been reaped.
            pub const fn build(self) -> RawEntry {
                RawEntry::of(self.0)
            }
        }
    )*};
}

user_io! {
    /// Reads into memory.
    Read = op::READ, *mut u8, "bytes";
    /// Writes from memory.
    Write = op::WRITE, *const u8, "bytes";
    /// Reads into several pieces of memory.
    Readv = op::READV, *const sq_uapi::SqIovec, "segments";
    /// Writes from several pieces of memory.
    Writev = op::WRITEV, *const sq_uapi::SqIovec, "segments";
}

macro_rules! pool_io {
    ($($(#[$doc:meta])* $name:ident = $op:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name(Sqe);

        impl $name {
            /// `len` bytes at byte `at` of buffer `index`, offset 0 of the target.
            #[must_use]
            pub const fn new(target: Target, index: u16, at: u32, len: u32) -> Self {
                let mut sqe = Sqe { opcode: $op, addr: at as u64, len, buf_index: index, ..Sqe::NOP };
                target.put(&mut sqe);
                Self(sqe)
            }

            /// Byte offset in the target.
            #[must_use]
            pub const fn offset(mut self, offset: u64) -> Self {
                self.0.off = offset;
                self
            }

            /// The entry.
            pub const fn build(self) -> Entry {
                Entry::new(self.0)
            }
        }
    )*};
}

pool_io! {
    /// Reads into one of the ring's buffers.
    ReadFixed = op::READ_FIXED;
    /// Writes from one of the ring's buffers.
    WriteFixed = op::WRITE_FIXED;
}

/// Flushes to stable storage.
#[derive(Clone, Copy, Debug)]
pub struct Fsync(Sqe);

impl Fsync {
    /// Data and metadata.
    #[must_use]
    pub const fn new(target: Target) -> Self {
        let mut sqe = Sqe { opcode: op::FSYNC, ..Sqe::NOP };
        target.put(&mut sqe);
        Self(sqe)
    }

    /// With flags.
    #[must_use]
    pub const fn flags(mut self, flags: FsyncFlags) -> Self {
        self.0.op_flags = flags.bits();
        self
    }

    /// The entry.
    pub const fn build(self) -> Entry {
        Entry::new(self.0)
    }
}

/// Cancels requests. Its result is 0, or with [`AsyncCancel::all`] their number; `ENOENT` if there is none, `EALREADY` if it was
/// canceled before or is completing. What was canceled completes on its own.
#[derive(Clone, Copy, Debug)]
pub struct AsyncCancel(Sqe);

impl AsyncCancel {
    /// One request with this `user_data`.
    #[must_use]
    pub const fn user_data(user_data: u64) -> Self {
        Self(Sqe { opcode: op::ASYNC_CANCEL, addr: user_data, op_flags: cancel_flags::USERDATA, ..Sqe::NOP })
    }

    /// One request with this opcode.
    #[must_use]
    pub const fn opcode(opcode: u8) -> Self {
        Self(Sqe { opcode: op::ASYNC_CANCEL, len: opcode as u32, op_flags: cancel_flags::OP, ..Sqe::NOP })
    }

    /// Whatever is in flight.
    #[must_use]
    pub const fn any() -> Self {
        Self(Sqe { opcode: op::ASYNC_CANCEL, op_flags: cancel_flags::ANY, ..Sqe::NOP })
    }

    /// All that match, not only one.
    #[must_use]
    pub const fn all(mut self) -> Self {
        self.0.op_flags |= CancelFlags::ALL.bits();
        self
    }

    /// The entry.
    pub const fn build(self) -> Entry {
        Entry::new(self.0)
    }
}

/// A command with at most 16 bytes of payload, in an entry of 64 bytes.
///
/// ```
/// use liburing_shm::opcode::{Cmd, command};
///
/// command! {
///     struct Blink = 7 { times: u32 }
/// }
///
/// let entry = Cmd::new(&Blink { times: 3 }).build();
/// assert_eq!(entry.as_sqe().cmd[..4], [3, 0, 0, 0]);
/// ```
///
/// A command that does not fit in 16 bytes does not compile as a [`Cmd`]:
///
/// ```compile_fail
/// use liburing_shm::opcode::{Cmd, command};
///
/// command! {
///     struct Big = 1 { words: u64, more: u64, one: u8 }
/// }
///
/// let entry = Cmd::new(&Big { words: 0, more: 0, one: 0 }).build();
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Cmd(Sqe);

impl Cmd {
    /// The command.
    #[must_use]
    pub fn new<C: Command>(command: &C) -> Self {
        const { assert!(size_of::<C::Bytes>() <= 16, "a Cmd has 16 bytes of payload: use WideCmd") };
        let mut sqe = Sqe { opcode: op::CMD, off: u64::from(C::CMD_OP), ..Sqe::NOP };
        put(&mut sqe.cmd, command.to_bytes().as_ref());
        Self(sqe)
    }

    /// What it is on.
    #[must_use]
    pub const fn target(mut self, target: Target) -> Self {
        target.put(&mut self.0);
        self
    }

    /// The entry.
    pub const fn build(self) -> Entry {
        Entry::new(self.0)
    }
}

/// A command with at most 80 bytes of payload, in an entry of 128 bytes.
#[derive(Clone, Copy, Debug)]
pub struct WideCmd(Sqe, [u64; 8]);

impl WideCmd {
    /// The command.
    #[must_use]
    pub fn new<C: Command>(command: &C) -> Self {
        const { assert!(size_of::<C::Bytes>() <= 80, "a WideCmd has 80 bytes of payload") };
        let mut bytes = [0u8; 80];
        put(&mut bytes, command.to_bytes().as_ref());
        let (head, tail) = bytes.split_at(16);
        let mut sqe = Sqe { opcode: op::CMD, off: u64::from(C::CMD_OP), ..Sqe::NOP };
        put(&mut sqe.cmd, head);
        let mut rest = [0u64; 8];
        for (word, bytes) in rest.iter_mut().zip(tail.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        Self(sqe, rest)
    }

    /// The entry.
    pub const fn build(self) -> Entry {
        Entry { sqe: self.0, rest: Some(self.1) }
    }
}

fn put(to: &mut [u8], from: &[u8]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a user of a ring may do, as values: the one input model of seeds, corpus and fuzz targets.
//!
//! `Arbitrary` makes a [`Program`] of any bytes, so that a fuzzer's input, a file of the corpus and a seed are the same thing.
//! What comes of a program is [`world`](super::world)'s.

use arbitrary::{Arbitrary, Result, Unstructured};
use sq_uapi::consts::{op, register_op, setup_flags, sqe_flags};
use sq_uapi::{SqSetup, Sqe, ioctl};

/// A ring, and what is done to it.
#[derive(Clone, Debug)]
pub struct Program {
    /// The ring.
    pub shape: Shape,
    /// Who writes while the kernel side reads.
    pub attack: Attack,
    /// What one thread does.
    pub steps: Vec<Step>,
    /// What others do meanwhile: each step after that many points at which the first may be interrupted.
    pub others: Vec<(u8, Step)>,
}

impl Program {
    /// The program that these bytes are.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Option<Self> {
        Self::arbitrary(&mut Unstructured::new(bytes)).ok()
    }
}

/// Steps to the end of the bytes, one after the other, so that a change of one leaves the rest as it was.
impl<'a> Arbitrary<'a> for Program {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> Result<Self> {
        let mut program =
            Self { shape: bytes.arbitrary()?, attack: bytes.arbitrary()?, steps: Vec::new(), others: Vec::new() };
        while !bytes.is_empty() {
            match bytes.arbitrary::<u8>()? {
                0..192 => program.steps.push(Step::next(bytes)?),
                wait => program.others.push((wait - 192, Step::next(bytes)?)),
            }
        }
        Ok(program)
    }
}

/// A small ring of any kind. What keeps entries from the short way is less likely than what does not.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Shape {
    mode: u8,
    wide_sqe: u8,
    wide_cqe: u8,
    disabled: u8,
    sq_log2: u8,
    cq_more: u8,
    max_inflight: u8,
    pool: bool,
    driver: u8,
}

/// Whose turns a ring has.
const MODES: [u32; 4] = [0, 0, setup_flags::WORKER, setup_flags::SQPOLL];

/// Which driver it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// The null driver.
    Null,
    /// One that takes files and every opcode, in C.
    Probe,
    /// And wants to know of batches.
    Batches,
}

impl Shape {
    /// The SETUP that asks for it.
    #[must_use]
    pub fn setup(&self) -> SqSetup {
        let flag = |on, flag| if on { flag } else { 0 };
        let sq_entries = 1 << (self.sq_log2 % 7);
        // One ring in four has many more completion slots than entries: then an entry is never in want of a slot, and nothing but
        // the window of sq_tail says how many may be consumed.
        let more = [0, 1, 0, 1, 0, 1, 4, 5][usize::from(self.cq_more % 8)];
        let cq_entries = (sq_entries << more).min(128);
        SqSetup {
            size: size_of::<SqSetup>() as u32,
            flags: MODES[usize::from(self.mode % 4)]
                | flag(self.wide_sqe % 8 == 7, setup_flags::SQE128)
                | flag(self.wide_cqe(), setup_flags::CQE32)
                | flag(self.disabled < 32, setup_flags::R_DISABLED),
            sq_entries,
            cq_entries,
            max_inflight: u32::from(self.max_inflight) % (cq_entries + 1),
            buf_count: if self.pool { 2 } else { 0 },
            buf_bytes: if self.pool { 4096 } else { 0 },
            ..SqSetup::default()
        }
    }

    /// Completions have 32 bytes.
    #[must_use]
    pub fn wide_cqe(&self) -> bool {
        self.wide_cqe % 8 == 7
    }

    /// The driver behind it.
    #[must_use]
    pub fn driver(&self) -> Driver {
        [Driver::Null, Driver::Probe, Driver::Null, Driver::Batches][usize::from(self.driver % 4)]
    }
}

/// Who writes while the kernel side reads: before so many of 256 loads, chosen by a generator with this seed.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Attack {
    /// Of the generator.
    pub seed: u64,
    rate: u8,
}

impl Attack {
    /// Whether completions are traced: never (in half of all programs), always, or now and then. The way of an entry is another one then.
    #[must_use]
    pub fn traces(&self) -> u32 {
        [0, 0, 1, 2][(self.seed >> 62) as usize]
    }

    /// In 256; 0 for half of all programs, which must then have exact results.
    #[must_use]
    pub fn rate(&self) -> u8 {
        [0, 0, 0, 0, 1, 4, 16, 64][usize::from(self.rate % 8)]
    }
}

/// Something that user space does, or that happens to it.
#[derive(Arbitrary, Clone, Debug)]
pub enum Step {
    /// Writes entries, and publishes none.
    Push {
        /// What.
        entry: Entry,
        /// How many, in 16, one more.
        times: u8,
    },
    /// Publishes what was written.
    Publish,
    /// Publishes, and rings the bare doorbell.
    Submit,
    /// Publishes, and calls ENTER.
    Enter {
        /// `sq_enter.flags`.
        flags: u8,
        /// `sq_enter.min_complete`.
        min_complete: u8,
        /// `sq_enter.timeout_ns`.
        timeout_ns: u8,
        /// `sq_enter.min_wait_ns`.
        min_wait_ns: u8,
    },
    /// What an application does all day: writes entries, publishes them, rings, and reaps what is there.
    Turn {
        /// As [`Step::Push`].
        entry: Entry,
        /// As [`Step::Push`].
        times: u8,
    },
    /// Reaps up to so many completions, and rings if that is asked for.
    Reap(u8),
    /// Cancels by a call: a request of the last entries, or what the flags say.
    Cancel {
        /// How many entries ago.
        back: u8,
        /// `sq_cancel.flags`.
        flags: u8,
        /// `sq_cancel.opcode`.
        opcode: u8,
    },
    /// Time passes.
    Sleep(u16),
    /// The worker, or the polling thread, has its turn.
    Background,
    /// The driver completes the oldest request that it holds.
    Complete,
    /// `poll()`.
    PollFile,
    /// `/proc/PID/fdinfo`.
    Look,
    /// Adds to a shared word.
    Write {
        /// Mostly `sq_tail`, else `cq_head` or `cq_flags`; and by how many bits `by` is too large.
        word: u8,
        /// What.
        by: i8,
    },
    /// Flips a bit of an entry that is in its slot.
    Flip {
        /// Which slot.
        slot: u8,
        /// Which bit of its 1024.
        bit: u16,
    },
    /// REGISTER.
    Register {
        /// One of [`REGISTER`].
        which: u8,
        /// `sq_register.arg`, a user address.
        arg: u16,
        /// `sq_register.nr`.
        nr: u8,
        /// `sq_register.offset`.
        offset: u8,
    },
    /// Any call, with any bytes.
    Call(Call),
    /// A signal that kills arrives.
    Kill,
    /// QUIESCE.
    Quiesce(u8),
    /// The last `close()`.
    Close,
}

impl Step {
    /// The next one. What ends a ring, or breaks it, is seldom, or little else would happen.
    fn next(bytes: &mut Unstructured<'_>) -> Result<Self> {
        let step = bytes.arbitrary()?;
        let seldom: u8 = match step {
            Self::Write { .. } => 96,
            Self::Kill | Self::Quiesce(_) | Self::Close => 24,
            _ => return Ok(step),
        };
        let keeps = bytes.arbitrary::<u8>()? < seldom;
        Ok(if keeps { step } else { Self::Turn { entry: bytes.arbitrary()?, times: bytes.arbitrary()? } })
    }
}

/// REGISTER's operations.
pub const REGISTER: [u32; 8] = [
    register_op::FILES,
    register_op::UNREGISTER_FILES,
    register_op::FILES_UPDATE,
    register_op::EVENTFD,
    register_op::UNREGISTER_EVENTFD,
    register_op::ENABLE_RINGS,
    register_op::ENABLE_RINGS,
    register_op::ALLOW_OPCODES,
];

/// An entry, well formed or not. Its `user_data` is its serial number.
#[derive(Arbitrary, Clone, Debug)]
pub struct Entry {
    kind: Kind,
    skip_success: bool,
    later: bool,
}

#[derive(Arbitrary, Clone, Debug)]
enum Kind {
    Nop,
    Command { cmd_op: u8, first: u8, second: u64 },
    Result(i16),
    Cancel { back: u8, flags: u8, opcode: u8 },
    Io { which: u8, fd: i8, fixed: bool, off: u8, addr: u16, len: u16, buf_index: u8 },
    Opcode(u8),
    Flipped(u16),
    Raw([u64; 8]),
}

/// Opcodes that move bytes or name a target.
const IO: [u8; 8] = [op::READ, op::WRITE, op::READV, op::WRITEV, op::READ_FIXED, op::WRITE_FIXED, op::FSYNC, op::CMD];

impl Entry {
    /// The entry, numbered `serial`, for a driver that takes `files` or one that does not.
    #[must_use]
    pub fn words(&self, serial: u64, files: bool) -> [u64; 8] {
        let mut sqe = Sqe { user_data: serial, ..Sqe::NOP };
        if self.skip_success {
            sqe.flags |= sqe_flags::CQE_SKIP_SUCCESS;
        }
        if self.later {
            sqe.flags |= sqe_flags::ASYNC;
        }
        let mut flip = None;
        match &self.kind {
            Kind::Nop => {}
            Kind::Command { cmd_op, first, second } => {
                sqe.opcode = op::CMD;
                if files {
                    // Mostly a descriptor, and one in four an index.
                    sqe.fd = i32::from(cmd_op >> 5);
                    sqe.flags |= if cmd_op & 0x18 == 0 { sqe_flags::FIXED_FILE } else { 0 };
                }
                sqe.off = u64::from(cmd_op % 8);
                sqe.cmd[..8].copy_from_slice(&u64::from(*first).to_le_bytes());
                sqe.cmd[8..].copy_from_slice(&second.to_le_bytes());
            }
            Kind::Result(res) => {
                (sqe.opcode, sqe.off) = (op::CMD, 1);
                sqe.fd = if files { 0 } else { -1 };
                sqe.cmd[..8].copy_from_slice(&i64::from(*res).to_le_bytes());
            }
            Kind::Cancel { back, flags, opcode } => {
                sqe.flags &= !sqe_flags::ASYNC;
                sqe.opcode = op::ASYNC_CANCEL;
                (sqe.op_flags, sqe.addr, sqe.len) = matching(serial, *back, *flags, *opcode);
            }
            Kind::Io { which, fd, fixed, off, addr, len, buf_index } => {
                sqe.opcode = IO[usize::from(which % 8)];
                sqe.fd = i32::from(*fd);
                if *fixed {
                    sqe.flags |= sqe_flags::FIXED_FILE;
                }
                if sqe.opcode == op::FSYNC {
                    sqe.op_flags = u32::from(*len & 1);
                } else {
                    (sqe.off, sqe.addr, sqe.len) = (u64::from(*off), u64::from(*addr), u32::from(*len));
                }
                match sqe.opcode {
                    op::READ_FIXED | op::WRITE_FIXED => sqe.buf_index = u16::from(*buf_index),
                    op::CMD if buf_index & 1 != 0 => (sqe.op_flags, sqe.buf_index) = (1, u16::from(*buf_index >> 1)),
                    op::READV | op::WRITEV => sqe.len %= 20,
                    _ => {}
                }
            }
            Kind::Opcode(opcode) => sqe.opcode = *opcode,
            Kind::Flipped(bit) => flip = Some(bit % 512),
            Kind::Raw(words) => sqe = Sqe { user_data: serial, ..Sqe::from_words(*words) },
        }
        let mut words = sqe.to_words();
        if let Some(bit) = flip {
            words[usize::from(bit / 64)] ^= 1 << (bit % 64);
        }
        words
    }
}

/// The fields of a cancel that an entry and the call share: mostly ones that belong together.
#[must_use]
pub fn matching(serial: u64, back: u8, flags: u8, opcode: u8) -> (u32, u64, u32) {
    let flags = u32::from(flags & 0x3f);
    let opcode = if flags & 32 != 0 || opcode > 250 { u32::from(opcode) } else { 0 };
    let by_data = flags & 16 != 0 || flags & 36 == 0 || back > 250;
    (flags, if by_data { serial.saturating_sub(u64::from(back % 16)) } else { 0 }, opcode)
}

/// A call by its number, and bytes for its argument.
#[derive(Arbitrary, Clone, Debug)]
pub struct Call {
    /// One of [`Call::NUMBERS`], or none.
    which: u8,
    /// Bytes added to, or taken from, the structure's own length.
    longer: i8,
    /// The size field tells the truth.
    honest: bool,
    /// Bytes from the second word on; what is missing is 0.
    body: Vec<(u8, u8)>,
}

impl Call {
    const NUMBERS: [(u32, usize); 7] = [
        (ioctl::SETUP, 192),
        (ioctl::ENTER, 64),
        (ioctl::REGISTER, 40),
        (ioctl::QUIESCE, 32),
        (ioctl::CANCEL, 40),
        (ioctl::QUERY, 144),
        (ioctl::STATS, 104),
    ];

    /// The number, and how long the first version of its structure is.
    #[must_use]
    pub fn number(&self) -> (u32, usize) {
        Self::NUMBERS.get(usize::from(self.which % 8)).copied().unwrap_or((u32::from(self.longer.unsigned_abs()), 64))
    }

    /// The argument.
    #[must_use]
    pub fn argument(&self) -> Vec<u8> {
        let (_, len) = self.number();
        // Mostly as long as it should be.
        let longer = if self.longer % 4 == 0 { self.longer / 4 } else { 0 };
        let len = len.saturating_add_signed(longer.into());
        let mut bytes = vec![0; len];
        for (at, byte) in &self.body {
            if let Some(place) = bytes.get_mut(usize::from(*at) % len.max(1)) {
                *place = *byte;
            }
        }
        if self.honest && len >= 4 {
            bytes[..4].copy_from_slice(&(len as u32).to_le_bytes());
        }
        bytes
    }
}

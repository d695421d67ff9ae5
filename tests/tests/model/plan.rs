// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random programs: a ring, and what its users do, as values that shrink.
//!
//! To add links, drains or timers: a [`Kind`] here, what it does to its neighbours in the model, and nothing else.

use proptest::collection::vec;
use proptest::prelude::*;
use sq_uapi::consts::{cancel_flags, op, sqe_flags};
use sq_uapi::{Errno, Sqe};

use super::transfers::{END, Form, Transfer};

/// A program.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) shape: Shape,
    pub(crate) acts: Vec<Act>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) sq_entries: u32,
    pub(crate) cq_entries: u32,
    pub(crate) max_inflight: u32,
    pub(crate) mode: Mode,
}

/// Who drains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Whoever enters.
    Caller,
    /// A worker.
    Worker,
    /// A polling thread, which soon sleeps.
    Poll,
}

/// A step.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// One thread publishes a batch and rings.
    Submit(Vec<Op>),
    /// Two threads do, at the same time.
    Together(Vec<Op>, Vec<Op>),
    /// Takes up to so many completions out.
    Reap(usize),
    /// Waits for as many completions as must come, or so many.
    Wait(u32),
    /// Cancels by a call.
    Cancel(Which),
    /// Waits and reaps until nothing is missing that must come.
    Settle,
    /// Ends the ring; what comes after it finds it ended.
    Quiesce,
}

/// What a cancel is for: entries this far back, or all of a kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Which {
    pub(crate) by: By,
    pub(crate) all: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum By {
    /// The `user_data` of so many entries ago.
    Back(u64),
    Opcode(u8),
    Any,
}

/// An entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Op {
    pub(crate) kind: Kind,
    pub(crate) skip_success: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// NOP, inline or by a request.
    Nop {
        later: bool,
    },
    /// The low 31 bits of what it is given.
    Echo(u64),
    /// An error, or a result.
    Result(i16),
    /// Completes by itself, after so many nanoseconds.
    Delay {
        ns: u32,
        value: u8,
    },
    /// Completes by a cancel only.
    Never,
    Cancel(Which),
    /// An opcode that is not the driver's.
    Foreign(u8),
    /// To or from the ram driver.
    Transfer(Transfer),
    Fsync,
    /// An opcode that does not exist, or a field that must be 0.
    Bad(u8),
}

impl Which {
    /// `flags`, `user_data`, `opcode`, for the entry or call numbered `serial`.
    pub(crate) fn fields(self, serial: u64) -> (u32, u64, u8) {
        let all = if self.all { cancel_flags::ALL } else { 0 };
        match self.by {
            By::Back(back) => (all, serial.saturating_sub(back), 0),
            By::Opcode(opcode) => (all | cancel_flags::OP, 0, opcode),
            By::Any => (all | cancel_flags::ANY, 0, 0),
        }
    }
}

impl Op {
    /// The entry numbered `serial`.
    pub(crate) fn sqe(self, serial: u64) -> Sqe {
        let flags = if self.skip_success { sqe_flags::CQE_SKIP_SUCCESS } else { 0 };
        let nop = Sqe { user_data: serial, flags, ..Sqe::NOP };
        let command = |cmd_op: u64, first: u64, second: u64| {
            let mut cmd = [0; 16];
            cmd[..8].copy_from_slice(&first.to_le_bytes());
            cmd[8..].copy_from_slice(&second.to_le_bytes());
            Sqe { opcode: op::CMD, off: cmd_op, cmd, ..nop }
        };
        match self.kind {
            Kind::Nop { later } => Sqe { flags: flags | if later { sqe_flags::ASYNC } else { 0 }, ..nop },
            Kind::Echo(value) => command(0, value, 0),
            Kind::Result(res) => command(1, i64::from(res).cast_unsigned(), 0),
            Kind::Delay { ns, value } => command(2, ns.into(), value.into()),
            Kind::Never => command(3, 0, 0),
            Kind::Cancel(which) => {
                let (op_flags, addr, opcode) = which.fields(serial);
                Sqe { opcode: op::ASYNC_CANCEL, op_flags, addr, len: opcode.into(), ..nop }
            }
            Kind::Foreign(opcode) => Sqe { opcode, ..nop },
            Kind::Transfer(transfer) => transfer.sqe(nop),
            Kind::Fsync => Sqe { opcode: op::FSYNC, ..nop },
            Kind::Bad(0) => Sqe { opcode: 63, ..nop },
            Kind::Bad(1) => Sqe { opcode: 255, ..nop },
            Kind::Bad(2) => Sqe { flags: flags | sqe_flags::IO_LINK, ..nop },
            Kind::Bad(3) => Sqe { flags: flags | sqe_flags::IO_DRAIN, ..nop },
            Kind::Bad(4) => Sqe { fd: 0, ..nop },
            Kind::Bad(5) => Sqe { personality: 1, ..nop },
            Kind::Bad(6) => Sqe { opcode: op::ASYNC_CANCEL, op_flags: 1 << 1, ..nop },
            Kind::Bad(7) => Sqe { opcode: op::CMD, off: 1 << 32, ..nop },
            Kind::Bad(_) => Sqe { addr: 8, ..nop },
        }
    }

    /// Its result, if it has only one whatever happens.
    pub(crate) fn certain(self) -> Option<i32> {
        match self.kind {
            Kind::Nop { .. } | Kind::Fsync => Some(0),
            Kind::Echo(value) => Some((value & 0x7fff_ffff) as i32),
            Kind::Result(res) if res < -4095 => Some(Errno::EIO.to_res()),
            Kind::Result(res) => Some(res.into()),
            Kind::Foreign(_) => Some(Errno::EOPNOTSUPP.to_res()),
            Kind::Bad(_) => Some(Errno::EINVAL.to_res()),
            Kind::Delay { .. } | Kind::Never | Kind::Cancel(_) | Kind::Transfer(_) => None,
        }
    }

    pub(crate) fn opcode(self) -> u8 {
        self.sqe(0).opcode
    }
}

fn which() -> impl Strategy<Value = Which> {
    let by = prop_oneof![
        6 => (1..12u64).prop_map(By::Back),
        1 => Just(By::Opcode(op::CMD)),
        1 => Just(By::Opcode(op::NOP)),
        1 => Just(By::Any),
    ];
    (by, any::<bool>()).prop_map(|(by, all)| Which { by, all })
}

/// Entries that two threads may submit in any order.
fn plain() -> impl Strategy<Value = Op> {
    let kind = prop_oneof![
        3 => any::<bool>().prop_map(|later| Kind::Nop { later }),
        3 => any::<u64>().prop_map(Kind::Echo),
        2 => any::<i16>().prop_map(Kind::Result),
        4 => (0..60_000u32, any::<u8>()).prop_map(|(ns, value)| Kind::Delay { ns, value }),
        2 => Just(Kind::Never),
        1 => prop::sample::select(vec![1u8, 2, 3, 4, 5, 22, 23]).prop_map(Kind::Foreign),
        1 => (0..9u8).prop_map(Kind::Bad),
    ];
    (kind, prop::bool::weighted(0.25)).prop_map(|(kind, skip_success)| Op { kind, skip_success })
}

/// For the ram driver, with offsets from `first` on, so that two threads' transfers do not meet; the store's end is everybody's, or
/// nobody's.
fn stored(first: u64, end: bool) -> impl Strategy<Value = Op> {
    let form =
        prop::sample::select(vec![Form::Plain, Form::Plain, Form::Vector, Form::Fixed, Form::Fixed, Form::Astray]);
    let beyond = prop_oneof![3 => END - 80..END + 20, 1 => Just(1 << 63)];
    let off = prop_oneof![4 => first..first + 64, u32::from(end) => beyond];
    let transfer = (any::<bool>(), form, off, 0..65u8, any::<bool>());
    let kind = prop_oneof![
        12 => transfer.prop_map(|(write, form, off, len, later)| {
            // What a failed write leaves is not determined: Linux's copy_from_user zeroes what it could not copy.
            let write = write && form != Form::Astray;
            Kind::Transfer(Transfer { write, form, off, len, later })
        }),
        1 => Just(Kind::Fsync),
        1 => prop::sample::select(vec![op::NOP, op::CMD]).prop_map(Kind::Foreign),
        1 => (0..9u8).prop_map(Kind::Bad),
    ];
    (kind, prop::bool::weighted(0.25)).prop_map(|(kind, skip_success)| Op { kind, skip_success })
}

fn entry(plain: impl Strategy<Value = Op>) -> impl Strategy<Value = Op> {
    let cancel = (which(), prop::bool::weighted(0.25));
    let cancel = cancel.prop_map(|(which, skip_success)| Op { kind: Kind::Cancel(which), skip_success });
    prop_oneof![5 => plain, 1 => cancel]
}

fn act(
    alone: impl Strategy<Value = Op>,
    one: impl Strategy<Value = Op>,
    other: impl Strategy<Value = Op>,
) -> impl Strategy<Value = Act> {
    prop_oneof![
        12 => vec(entry(alone), 1..9).prop_map(Act::Submit),
        4 => (vec(one, 1..6), vec(other, 1..6)).prop_map(|(one, other)| Act::Together(one, other)),
        8 => (0..12usize).prop_map(Act::Reap),
        6 => (1..6u32).prop_map(Act::Wait),
        4 => which().prop_map(Act::Cancel),
        2 => Just(Act::Settle),
        // In the middle of a quarter of the programs.
        1 => Just(Act::Quiesce),
    ]
}

/// Rings from 1 entry up, so that they are full and blocked much of the time; one in four has many more completions than entries.
fn shape() -> impl Strategy<Value = Shape> {
    let mode = prop_oneof![2 => Just(Mode::Caller), 2 => Just(Mode::Worker), 1 => Just(Mode::Poll)];
    (0..5u32, prop_oneof![3 => 0..2u32, 1 => 2..6u32], any::<u32>(), mode).prop_map(|(sq, more, inflight, mode)| {
        let cq_entries = 1 << (sq + more);
        Shape { sq_entries: 1 << sq, cq_entries, max_inflight: 1 + inflight % cq_entries, mode }
    })
}

/// Programs for the null driver.
pub(crate) fn plans() -> impl Strategy<Value = Plan> {
    (shape(), vec(act(plain(), plain(), plain()), 1..24)).prop_map(|(shape, acts)| Plan { shape, acts })
}

/// Programs for the ram driver.
pub(crate) fn transfers() -> impl Strategy<Value = Plan> {
    let act = act(stored(0, true), stored(0, false), stored(128, false));
    (shape(), vec(act, 1..24)).prop_map(|(shape, acts)| Plan { shape, acts })
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! One test a cell of the table opcode x field: each bit of the field, alone, in an entry that is valid otherwise.
//!
//! The oracle is not the parser's masks: it knows fields by their place in [`Sqe`] and asks the table about one bit at
//! a time. That the table itself is right is docs/protocol.md's to say, and the last test compares the two.

use core::mem::offset_of;
use core::ops::Range;

use kmod_sq::parse::{Accepts, Bytes, Parsed, Rule, SPECS, Spec};
use kmod_sq::snapshot::Snapshot;
use sq_uapi::consts::{cancel_flags, cmd_flags, fsync_flags, op, sqe_flags};
use sq_uapi::{Errno, Sqe, Sqe128};

/// A column of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Opcode,
    Flags,
    Ioprio,
    Fd,
    Off,
    Addr,
    Len,
    OpFlags,
    UserData,
    BufIndex,
    Personality,
    FileIndex,
    Cmd,
    CmdTail,
}

const FIELDS: [Field; 14] = [
    Field::Opcode,
    Field::Flags,
    Field::Ioprio,
    Field::Fd,
    Field::Off,
    Field::Addr,
    Field::Len,
    Field::OpFlags,
    Field::UserData,
    Field::BufIndex,
    Field::Personality,
    Field::FileIndex,
    Field::Cmd,
    Field::CmdTail,
];

/// A driver that takes everything: with one target, and with files.
const DRIVERS: [bool; 2] = [false, true];

impl Field {
    /// Its bits in a 128-byte entry.
    fn bits(self) -> Range<usize> {
        let (byte, len) = match self {
            Self::Opcode => (offset_of!(Sqe, opcode), 1),
            Self::Flags => (offset_of!(Sqe, flags), 1),
            Self::Ioprio => (offset_of!(Sqe, ioprio), 2),
            Self::Fd => (offset_of!(Sqe, fd), 4),
            Self::Off => (offset_of!(Sqe, off), 8),
            Self::Addr => (offset_of!(Sqe, addr), 8),
            Self::Len => (offset_of!(Sqe, len), 4),
            Self::OpFlags => (offset_of!(Sqe, op_flags), 4),
            Self::UserData => (offset_of!(Sqe, user_data), 8),
            Self::BufIndex => (offset_of!(Sqe, buf_index), 2),
            Self::Personality => (offset_of!(Sqe, personality), 2),
            Self::FileIndex => (offset_of!(Sqe, file_index), 4),
            Self::Cmd => (offset_of!(Sqe, cmd), 16),
            Self::CmdTail => (offset_of!(Sqe128, cmd_tail), 64),
        };
        byte * 8..(byte + len) * 8
    }

    /// Whether the field may have this one bit changed.
    fn takes(self, spec: &Spec, files: bool, fixed: bool, bit: usize) -> bool {
        let flags = if files { spec.flags } else { spec.flags & !sqe_flags::FIXED_FILE };
        let command = spec.opcode == op::CMD;
        match self {
            Self::Opcode => unreachable!("not a cell"),
            Self::Flags => flags >> bit & 1 == 1,
            Self::Ioprio | Self::Personality | Self::FileIndex => false,
            Self::Fd => spec.fd == Rule::Target && files,
            Self::Off if command => bit < 32,
            Self::Off => allows(spec.off, bit),
            Self::Addr => allows(spec.addr, bit),
            Self::Len => allows(spec.len, bit),
            Self::OpFlags => allows(spec.op_flags, bit),
            Self::UserData => true,
            Self::BufIndex if command => fixed,
            Self::BufIndex => allows(spec.buf_index, bit),
            Self::Cmd | Self::CmdTail => allows(spec.cmd, bit),
        }
    }
}

fn allows(rule: Rule, bit: usize) -> bool {
    match rule {
        Rule::Used => true,
        Rule::Zero => false,
        Rule::Bits(bits) => bits >> bit & 1 == 1,
        Rule::MinusOne | Rule::Target => unreachable!("fd's"),
    }
}

/// An entry: 64 or 128 bytes as words.
#[derive(Clone, Copy)]
struct Words([u64; 16]);

impl Words {
    fn new(opcode: u8) -> Self {
        Self::of(&Sqe { opcode, ..Sqe::NOP })
    }

    fn of(sqe: &Sqe) -> Self {
        let mut words = [0; 16];
        words[..8].copy_from_slice(&sqe.to_words());
        Self(words)
    }

    fn flipped(mut self, bit: usize) -> Self {
        self.0[bit / 64] ^= 1 << (bit % 64);
        self
    }

    /// As an entry of a ring with 128-byte entries.
    fn parse(&self, accepts: &Accepts) -> Result<Seen, Errno> {
        self.parse_as(accepts, true)
    }

    fn parse_as(&self, accepts: &Accepts, wide: bool) -> Result<Seen, Errno> {
        Parsed::new(Snapshot::of_words(&self.0), accepts, wide).map(|parsed| Seen {
            opcode: parsed.opcode(),
            flags: parsed.flags(),
            fd: parsed.fd(),
            target: parsed.target(),
            bytes: parsed.bytes(),
        })
    }
}

/// What a [`Parsed`] says.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    opcode: u8,
    flags: u8,
    fd: i32,
    target: bool,
    bytes: Bytes,
}

fn everything(files: bool) -> Accepts {
    Accepts::new(u64::MAX, files)
}

fn spec(opcode: u8) -> Spec {
    *SPECS.iter().find(|spec| spec.opcode == opcode).unwrap()
}

/// What the parser must make of an accepted entry.
fn expected(spec: &Spec, words: &Words) -> Seen {
    let [low, high] = [words.0[0], words.0[3]];
    let bytes = match spec.bytes {
        Bytes::Command if high >> 32 & u64::from(cmd_flags::FIXED) != 0 => Bytes::Pool,
        Bytes::Command => Bytes::User,
        bytes => bytes,
    };
    let [opcode, flags, _, _, fd @ ..] = low.to_le_bytes();
    Seen { opcode, flags, fd: i32::from_le_bytes(fd), target: spec.fd == Rule::Target, bytes }
}

/// Every bit of one cell, for both kinds of driver.
fn cell(opcode: u8, field: Field) {
    let spec = spec(opcode);
    for files in DRIVERS {
        let accepts = everything(files);
        let base = Words::new(opcode);
        assert_eq!(base.parse(&accepts), Ok(expected(&spec, &base)), "the entry without the bit, files {files}");
        let mut bases = vec![(base, false)];
        if opcode == op::CMD {
            let fixed = base.flipped(Field::OpFlags.bits().start);
            assert_eq!(fixed.parse(&accepts).map(|parsed| parsed.bytes), Ok(Bytes::Pool));
            bases.push((fixed, true));
        }
        for (base, fixed) in bases {
            for (bit, at) in field.bits().enumerate() {
                let words = base.flipped(at);
                let takes = field.takes(&spec, files, fixed, bit);
                let want = if takes { Ok(expected(&spec, &words)) } else { Err(Errno::EINVAL) };
                let got = words.parse(&accepts);
                assert_eq!(got, want, "{} {field:?} bit {bit}, files {files}, fixed {fixed}", spec.name);
            }
        }
    }
}

macro_rules! cells {
    ($($row:ident = $opcode:ident;)*) => {
        const ROWS: &[u8] = &[$(op::$opcode),*];

        $(mod $row {
            use super::{Field, cell, op};

            cells!(@ $opcode: flags Flags, ioprio Ioprio, fd Fd, off Off, addr Addr, len Len, op_flags OpFlags,
                user_data UserData, buf_index BufIndex, personality Personality, file_index FileIndex, cmd Cmd,
                cmd_tail CmdTail);
        })*
    };
    (@ $opcode:ident: $($name:ident $field:ident),*) => {
        const COLUMNS: usize = [$(Field::$field),*].len();
        const _: () = assert!(COLUMNS == super::FIELDS.len() - 1, "every field but the opcode");

        $(#[test]
        fn $name() {
            cell(op::$opcode, Field::$field);
        })*
    };
}

cells! {
    nop = NOP;
    readv = READV;
    writev = WRITEV;
    fsync = FSYNC;
    read_fixed = READ_FIXED;
    write_fixed = WRITE_FIXED;
    async_cancel = ASYNC_CANCEL;
    read = READ;
    write = WRITE;
    command = CMD;
}

#[test]
fn every_row_has_its_cells() {
    assert_eq!(SPECS.map(|spec| spec.opcode).as_slice(), ROWS);
}

#[test]
fn the_fields_are_the_whole_entry() {
    let mut bits: Vec<usize> = FIELDS.into_iter().flat_map(Field::bits).collect();
    bits.sort_unstable();
    assert_eq!(bits, (0..1024).collect::<Vec<_>>());
}

#[test]
fn a_short_entry_has_no_tail() {
    // A ring with 64-byte entries takes every cell but the tail's as one with 128-byte entries does.
    for spec in SPECS {
        for files in DRIVERS {
            let accepts = everything(files);
            for bit in 8..512 {
                let words = Words::new(spec.opcode).flipped(bit);
                assert_eq!(words.parse_as(&accepts, false), words.parse_as(&accepts, true), "{} bit {bit}", spec.name);
            }
        }
    }
}

#[test]
fn used_fields_take_anything() {
    // A small generator: the bits that a row takes are set at random, all at once.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for spec in SPECS {
        for files in DRIVERS {
            for round in 0..500 {
                let mut words = Words::new(spec.opcode);
                let fixed = spec.opcode == op::CMD && random() & 1 == 1;
                if fixed {
                    words = words.flipped(Field::OpFlags.bits().start);
                }
                for field in FIELDS.into_iter().filter(|field| *field != Field::Opcode) {
                    for (bit, at) in field.bits().enumerate() {
                        // FIXED decides about buf_index, and is settled above.
                        let settled = spec.opcode == op::CMD && field == Field::OpFlags && bit == 0;
                        // The first round sets every bit.
                        let set = round == 0 || random() & 1 == 1;
                        if set && !settled && field.takes(&spec, files, fixed, bit) {
                            words = words.flipped(at);
                        }
                    }
                }
                assert_eq!(
                    words.parse(&everything(files)),
                    Ok(expected(&spec, &words)),
                    "{} {:x?}",
                    spec.name,
                    words.0
                );
            }
        }
    }
}

#[test]
fn fd_is_minus_one_or_the_target() {
    for spec in SPECS {
        for files in DRIVERS {
            for fd in [-1, 0, 1, 2, i32::MAX, i32::MIN, -2, 0x00ff_ffff] {
                let words = Words::of(&Sqe { opcode: spec.opcode, fd, ..Sqe::NOP });
                let fits = fd == -1 || files && spec.fd == Rule::Target;
                let want = if fits { Ok(expected(&spec, &words)) } else { Err(Errno::EINVAL) };
                assert_eq!(words.parse(&everything(files)), want, "{} fd {fd}, files {files}", spec.name);
            }
        }
    }
}

#[test]
fn unknown_opcodes_are_refused() {
    // All 256: among them those that are a known one in their low six bits, and io_uring's that are not sq's.
    let known = SPECS.map(|spec| spec.opcode);
    for opcode in 0..=u8::MAX {
        let got = Words::new(opcode).parse(&everything(true));
        if known.contains(&opcode) {
            assert!(got.is_ok(), "{opcode}");
        } else {
            assert_eq!(got, Err(Errno::EINVAL), "{opcode}");
        }
    }
}

#[test]
fn an_opcode_that_the_driver_does_not_take_is_not_supported() {
    for spec in SPECS.into_iter().filter(|spec| spec.opcode != op::ASYNC_CANCEL) {
        for files in DRIVERS {
            let others = Accepts::new(!(1 << spec.opcode), files);
            assert_eq!(others.opcodes() >> spec.opcode & 1, 0);
            let words = Words::new(spec.opcode);
            assert_eq!(words.parse(&others), Err(Errno::EOPNOTSUPP), "{}", spec.name);
            // A wrong entry is wrong for every driver, and that comes first, wherever it is wrong.
            for bit in Field::Flags.bits().start..Field::CmdTail.bits().end {
                let other = words.flipped(bit);
                let wrong = other.parse(&everything(files)).is_err();
                let expected = if wrong { Errno::EINVAL } else { Errno::EOPNOTSUPP };
                assert_eq!(other.parse(&others), Err(expected), "{} bit {bit}", spec.name);
            }
        }
    }
}

#[test]
fn cancel_is_the_framework_s_own() {
    let nothing = Accepts::new(0, false);
    assert_eq!(nothing.opcodes(), 1 << op::ASYNC_CANCEL);
    assert!(Words::new(op::ASYNC_CANCEL).parse(&nothing).is_ok());
}

#[test]
fn an_opcode_given_up_does_not_come_back() {
    for spec in SPECS {
        let mut accepts = everything(false);
        accepts = accepts.with(!(1 << spec.opcode)).with(u64::MAX);
        assert_eq!(Words::new(spec.opcode).parse(&accepts), Err(Errno::EOPNOTSUPP), "{}", spec.name);
    }
}

#[test]
fn what_a_driver_takes_beyond_the_table_is_unknown() {
    let known = SPECS.iter().fold(0, |bits, spec| bits | 1 << spec.opcode);
    assert_eq!(everything(true).opcodes(), known);
}

/// The table of docs/protocol.md, from [`SPECS`].
fn table() -> String {
    let mut text = String::from(
        "| opcode | nr | flags | fd | off | addr | len | op_flags | buf_index | cmd, cmd_tail |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    for spec in SPECS {
        let command = spec.opcode == op::CMD;
        let off = if command { "low half: `cmd_op`; high half 0".to_owned() } else { rule(&spec, spec.off) };
        let buf_index = if command { "used with `FIXED`, else 0".to_owned() } else { rule(&spec, spec.buf_index) };
        let cells = [
            format!("`{}`", spec.name),
            spec.opcode.to_string(),
            flags(spec.flags),
            rule(&spec, spec.fd),
            off,
            rule(&spec, spec.addr),
            rule(&spec, spec.len),
            rule(&spec, spec.op_flags),
            buf_index,
            rule(&spec, spec.cmd),
        ];
        text.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    text
}

fn rule(spec: &Spec, rule: Rule) -> String {
    match rule {
        Rule::Used => "used".into(),
        Rule::Zero => "0".into(),
        Rule::MinusOne => "-1".into(),
        Rule::Target => "target".into(),
        Rule::Bits(bits) => {
            let known: &[(u32, &str)] = match spec.opcode {
                op::FSYNC => &[(fsync_flags::DATASYNC, "DATASYNC")],
                op::CMD => &[(cmd_flags::FIXED, "FIXED")],
                op::ASYNC_CANCEL => &[
                    (cancel_flags::ALL, "ALL"),
                    (cancel_flags::ANY, "ANY"),
                    (cancel_flags::USERDATA, "USERDATA"),
                    (cancel_flags::OP, "OP"),
                ],
                _ => &[],
            };
            names(bits, known)
        }
    }
}

fn flags(bits: u8) -> String {
    let known = [
        (sqe_flags::FIXED_FILE, "FIXED_FILE"),
        (sqe_flags::IO_DRAIN, "IO_DRAIN"),
        (sqe_flags::IO_LINK, "IO_LINK"),
        (sqe_flags::IO_HARDLINK, "IO_HARDLINK"),
        (sqe_flags::ASYNC, "ASYNC"),
        (sqe_flags::CQE_SKIP_SUCCESS, "CQE_SKIP_SUCCESS"),
    ];
    names(bits.into(), &known.map(|(bit, name)| (bit.into(), name)))
}

fn names(bits: u32, known: &[(u32, &str)]) -> String {
    let named = known.iter().fold(0, |all, (bit, _)| all | bit);
    assert_eq!(bits & !named, 0, "a bit of {bits:#x} has no name here");
    let names: Vec<_> = known.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| format!("`{name}`")).collect();
    names.join(" ")
}

#[test]
fn the_documented_table_is_the_table() {
    let doc = include_str!("../../docs/protocol.md");
    let (_, rest) = doc.split_once("<!-- opcode table: begin -->\n").expect("its beginning is marked");
    let (documented, _) = rest.split_once("<!-- opcode table: end -->").expect("its end is marked");
    assert!(
        documented == table(),
        "docs/protocol.md differs from kmod_sq::parse::SPECS. It should say:\n\n{}",
        table()
    );
}

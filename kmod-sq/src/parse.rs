// SPDX-License-Identifier: MIT OR Apache-2.0
//! What each opcode accepts, field by field.
//!
//! [`SPECS`] is the table; docs/protocol.md prints it, and a test tries every cell. At compile time it becomes masks and
//! values over the eight words of an entry, so that checking an entry is a handful of exclusive-ors.

use sq_uapi::Errno;
use sq_uapi::consts::{cancel_flags, cmd_flags, fsync_flags, op, sqe_flags};

use crate::snapshot::Snapshot;

/// What a field may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Anything: the opcode uses it.
    Used,
    /// 0 only.
    Zero,
    /// -1 only.
    MinusOne,
    /// The driver's target: a descriptor for drivers with files, else -1.
    Target,
    /// Any of these bits.
    Bits(u32),
}

/// Where an operation's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bytes {
    /// It has none.
    None,
    /// `len` bytes at user address `addr`.
    User,
    /// `len` bytes at offset `addr` of the pool's buffer `buf_index`.
    Pool,
    /// `len` segments, `struct sq_iovec` at user address `addr`.
    Vector,
    /// `User` or, with `cmd_flags::FIXED`, `Pool`.
    Command,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// The opcode.
    pub opcode: u8,
    /// Its name.
    pub name: &'static str,
    /// `flags` bits that it accepts.
    pub flags: u8,
    /// The fields. `ioprio`, `personality` and `file_index` are `Zero` for every opcode.
    pub fd: Rule,
    /// As above. For `CMD` the low half is `cmd_op` and the high half is 0.
    pub off: Rule,
    /// As above.
    pub addr: Rule,
    /// As above.
    pub len: Rule,
    /// As above.
    pub op_flags: Rule,
    /// As above.
    pub buf_index: Rule,
    /// As above.
    pub cmd: Rule,
    /// Where its bytes are.
    pub bytes: Bytes,
}

const ANY_TIME: u8 = sqe_flags::CQE_SKIP_SUCCESS;
const DRIVERS: u8 = ANY_TIME | sqe_flags::ASYNC;
const ON_FILES: u8 = DRIVERS | sqe_flags::FIXED_FILE;

const IO: Spec = Spec {
    opcode: op::READ,
    name: "READ",
    flags: ON_FILES,
    fd: Rule::Target,
    off: Rule::Used,
    addr: Rule::Used,
    len: Rule::Used,
    op_flags: Rule::Zero,
    buf_index: Rule::Zero,
    cmd: Rule::Zero,
    bytes: Bytes::User,
};

/// The table.
pub const SPECS: [Spec; 10] = [
    Spec {
        opcode: op::NOP,
        name: "NOP",
        flags: DRIVERS,
        fd: Rule::MinusOne,
        off: Rule::Zero,
        addr: Rule::Zero,
        len: Rule::Zero,
        bytes: Bytes::None,
        ..IO
    },
    Spec { opcode: op::READV, name: "READV", bytes: Bytes::Vector, ..IO },
    Spec { opcode: op::WRITEV, name: "WRITEV", bytes: Bytes::Vector, ..IO },
    Spec {
        opcode: op::FSYNC,
        name: "FSYNC",
        off: Rule::Zero,
        addr: Rule::Zero,
        len: Rule::Zero,
        op_flags: Rule::Bits(fsync_flags::DATASYNC),
        bytes: Bytes::None,
        ..IO
    },
    Spec { opcode: op::READ_FIXED, name: "READ_FIXED", buf_index: Rule::Used, bytes: Bytes::Pool, ..IO },
    Spec { opcode: op::WRITE_FIXED, name: "WRITE_FIXED", buf_index: Rule::Used, bytes: Bytes::Pool, ..IO },
    Spec {
        opcode: op::ASYNC_CANCEL,
        name: "ASYNC_CANCEL",
        flags: ANY_TIME,
        fd: Rule::MinusOne,
        off: Rule::Zero,
        op_flags: Rule::Bits(cancel_flags::ALL | cancel_flags::ANY | cancel_flags::USERDATA | cancel_flags::OP),
        bytes: Bytes::None,
        ..IO
    },
    Spec { opcode: op::READ, name: "READ", ..IO },
    Spec { opcode: op::WRITE, name: "WRITE", ..IO },
    Spec {
        opcode: op::CMD,
        name: "CMD",
        op_flags: Rule::Bits(cmd_flags::FIXED),
        buf_index: Rule::Used,
        cmd: Rule::Used,
        bytes: Bytes::Command,
        ..IO
    },
];

/// A row as the parser uses it: an entry fits if no masked bit differs from `value`.
#[derive(Clone, Copy)]
struct Row {
    mask: [u64; 8],
    /// Only word 0 is ever compared with anything but zero. Its opcode byte tells a row from an opcode that is not in the table.
    value: u64,
    bytes: Bytes,
    cmd_tail: bool,
    target: bool,
    plain: bool,
}

const FD: u64 = 0xffff_ffff << 32;
const FIXED: u64 = widen8(sqe_flags::FIXED_FILE) << 8;
const OPCODES: usize = 64;

static ROWS: [Row; OPCODES] = rows();

#[expect(clippy::as_conversions, reason = "widening in a constant")]
const fn widen8(value: u8) -> u64 {
    value as u64
}

#[expect(clippy::as_conversions, reason = "widening in a constant")]
const fn widen32(value: u32) -> u64 {
    value as u64
}

/// The bits, of a field's `all`, that must be 0.
const fn must_be_zero(rule: Rule, all: u64) -> u64 {
    match rule {
        Rule::Used | Rule::Target | Rule::MinusOne => 0,
        Rule::Zero => all,
        Rule::Bits(bits) => all & !widen32(bits),
    }
}

#[expect(clippy::indexing_slicing, clippy::as_conversions, clippy::arithmetic_side_effects, reason = "a constant")]
const fn rows() -> [Row; OPCODES] {
    let none = Row {
        mask: [0xff, 0, 0, 0, 0, 0, 0, 0],
        value: 0,
        bytes: Bytes::None,
        cmd_tail: false,
        target: false,
        plain: false,
    };
    let mut rows = [none; OPCODES];
    // No entry fits a row that stays like this: an opcode byte that leads to row n has n's low six bits, not n ^ 1's.
    let mut n = 0;
    while n < OPCODES {
        rows[n].value = n as u64 ^ 1;
        n += 1;
    }
    let mut i = 0;
    while i < SPECS.len() {
        let spec = SPECS[i];
        // In a CMD, the high half of `off` is padding.
        let off = if spec.opcode == op::CMD { FD } else { must_be_zero(spec.off, u64::MAX) };
        let fd = matches!(spec.fd, Rule::MinusOne);
        rows[spec.opcode as usize] = Row {
            mask: [
                0xffff_00ff | widen8(!spec.flags) << 8 | if fd { FD } else { 0 },
                off,
                must_be_zero(spec.addr, u64::MAX),
                must_be_zero(spec.len, 0xffff_ffff) | must_be_zero(spec.op_flags, 0xffff_ffff) << 32,
                0,
                must_be_zero(spec.buf_index, 0xffff) | 0xffff_ffff_ffff_0000,
                must_be_zero(spec.cmd, u64::MAX),
                must_be_zero(spec.cmd, u64::MAX),
            ],
            // fd is compared with -1 wherever it is compared at all.
            value: FD | widen8(spec.opcode),
            bytes: spec.bytes,
            cmd_tail: matches!(spec.cmd, Rule::Used),
            target: matches!(spec.fd, Rule::Target),
            plain: is_plain(&spec),
        };
        i += 1;
    }
    rows
}

/// Whether an opcode has neither bytes nor a target, and is the driver's.
const fn is_plain(spec: &Spec) -> bool {
    matches!((spec.bytes, spec.fd), (Bytes::None, Rule::MinusOne)) && spec.opcode != op::ASYNC_CANCEL
}

/// A NOP, and nothing but that.
pub(crate) const NOP: [u64; 8] = sq_uapi::Sqe::NOP.to_words();

/// Whether an entry is a NOP, a `user_data` and nothing else, and `but` is 0. [`Parsed::new`] accepts each of those entries wherever NOP is
/// taken, so that this short answer may stand for its long one.
#[inline]
pub(crate) const fn is_bare(words: &[u64; 8], but: u64) -> bool {
    let [nop, ..] = NOP;
    let [w0, w1, w2, w3, _, w5, w6, w7] = *words;
    (w0 ^ nop) | w1 | w2 | w3 | w5 | w6 | w7 | but == 0
}

/// What a ring's driver adds to the table.
#[derive(Clone, Copy, Debug)]
pub struct Accepts {
    opcodes: u64,
    /// Bits of word 0 that every row must match besides its own: for a driver with one target, all of `fd` (so it must
    /// be -1) and FIXED_FILE (so it must be clear).
    target_mask: u64,
}

impl Accepts {
    /// For a driver that takes these opcodes (ASYNC_CANCEL is the framework's own and always taken).
    #[must_use]
    pub const fn new(opcodes: u64, files: bool) -> Self {
        Self { opcodes: opcodes | 1 << op::ASYNC_CANCEL, target_mask: if files { 0 } else { FD | FIXED } }
    }

    /// As [`Accepts::new`], for one entry by itself: nothing is linked to it, comes before it or reads its completion, and it has
    /// no registered files.
    pub(crate) const fn alone(opcodes: u64, files: bool) -> Self {
        let refused = widen8(!sqe_flags::ASYNC) << 8;
        Self { opcodes, target_mask: Self::new(opcodes, files).target_mask | refused }
    }

    /// Bit n: opcode n is accepted.
    #[must_use]
    pub const fn opcodes(&self) -> u64 {
        self.opcodes & known()
    }

    /// Whether an entry that [`is_bare`] is accepted as it stands.
    pub(crate) const fn bare(&self) -> bool {
        self.opcodes >> op::NOP & 1 != 0
    }

    /// Without all opcodes but these. There is no way to get one back (SEC-3).
    #[must_use]
    pub const fn with(self, allowed: u64) -> Self {
        Self { opcodes: self.opcodes & allowed, ..self }
    }
}

/// Bit n: opcode n is in the table.
const fn known() -> u64 {
    let mut bits = 0;
    let mut specs: &[Spec] = &SPECS;
    while let [spec, rest @ ..] = specs {
        bits |= 1 << spec.opcode;
        specs = rest;
    }
    bits
}

/// An entry that satisfies the table.
#[derive(Clone, Copy)]
pub struct Parsed {
    row: &'static Row,
    word0: u64,
    word3: u64,
}

impl Parsed {
    /// Checks an entry against the table. `wide` says that entries have 128 bytes.
    ///
    /// # Errors
    ///
    /// `EINVAL` for an opcode that is not in the table, an unknown flag, or a field that must be 0 (or -1) and is not;
    /// `EOPNOTSUPP` for an opcode that this ring's driver does not take.
    #[inline]
    #[expect(clippy::as_conversions, reason = "fields are cut out of words by truncation")]
    pub fn new(snapshot: Snapshot<'_>, accepts: &Accepts, wide: bool) -> Result<Self, Errno> {
        let [w0, w1, w2, w3, _, w5, w6, w7] = snapshot.words();
        // Masked, so that no speculation leaves the table.
        let Some(row) = ROWS.get(usize::from(w0 as u8 & 63)) else { return Err(Errno::EINVAL) };
        let [m0, m1, m2, m3, _, m5, m6, m7] = row.mask;
        let wrong = (w0 ^ row.value) & (m0 | accepts.target_mask)
            | (w1 & m1)
            | (w2 & m2)
            | (w3 & m3)
            | (w5 & m5)
            | (w6 & m6)
            | (w7 & m7);
        if wrong != 0 {
            return Err(Errno::EINVAL);
        }
        if wide && !row.cmd_tail && snapshot.tail() != [0; 8] {
            return Err(Errno::EINVAL);
        }
        let parsed = Self { row, word0: w0, word3: w3 };
        // Only a fixed buffer has an index.
        if !row.plain && row.bytes == Bytes::Command && w5 & 0xffff != 0 && parsed.bytes() != Bytes::Pool {
            return Err(Errno::EINVAL);
        }
        // Last: what is wrong for every driver is wrong first.
        if accepts.opcodes >> (w0 & 63) & 1 == 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        Ok(parsed)
    }

    /// The opcode.
    #[inline]
    #[must_use]
    #[expect(clippy::as_conversions, reason = "a byte is cut out of a word by truncation")]
    pub const fn opcode(&self) -> u8 {
        self.word0 as u8
    }

    /// `flags`: only bits that the opcode accepts.
    #[inline]
    #[must_use]
    #[expect(clippy::as_conversions, reason = "a byte is cut out of a word by truncation")]
    pub const fn flags(&self) -> u8 {
        (self.word0 >> 8) as u8
    }

    /// `fd`: means something only if [`Parsed::target`].
    #[inline]
    #[must_use]
    #[expect(clippy::as_conversions, reason = "the high half of a word, by truncation")]
    pub const fn fd(&self) -> i32 {
        (self.word0 >> 32) as i32
    }

    /// Whether the entry names a target.
    #[inline]
    #[must_use]
    pub const fn target(&self) -> bool {
        self.row.target
    }

    /// Whether the driver needs nothing but the entry: no bytes and no target have to be found for it.
    #[inline]
    pub(crate) const fn is_plain(&self) -> bool {
        self.row.plain
    }

    /// Where its bytes are: `Command` is resolved to `User` or `Pool`.
    #[inline]
    #[must_use]
    #[expect(clippy::as_conversions, reason = "the high half of a word, by truncation")]
    pub const fn bytes(&self) -> Bytes {
        match self.row.bytes {
            Bytes::Command if (self.word3 >> 32) as u32 & cmd_flags::FIXED != 0 => Bytes::Pool,
            Bytes::Command => Bytes::User,
            bytes => bytes,
        }
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "a test")]
mod tests {
    use super::{Accepts, Parsed, is_bare};
    use crate::snapshot::Snapshot;

    /// The short answer is never yes where the long one is no: on every opcode, every single bit, and on rings of all kinds.
    #[test]
    fn a_bare_entry_is_accepted_by_the_table() {
        let mut bare = 0;
        for files in [false, true] {
            for opcodes in [u64::MAX, 1, 1 << 46, 0] {
                let accepts = Accepts::new(opcodes, files);
                for opcode in 0..=255u64 {
                    for bit in 0..=512 {
                        let mut words = [0u64; 16];
                        words[0] = 0xffff_ffff << 32 | opcode;
                        if bit < 512 {
                            words[bit / 64] ^= 1 << (bit % 64);
                        }
                        let snapshot = Snapshot::of_words(&words);
                        if accepts.bare() && is_bare(&snapshot.words(), 0) {
                            bare += 1;
                            assert!(Parsed::new(snapshot, &accepts, false).is_ok_and(|parsed| parsed.is_plain()));
                        }
                    }
                }
            }
        }
        assert!(bare > 0);
    }
}

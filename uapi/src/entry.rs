// SPDX-License-Identifier: MIT OR Apache-2.0
//! The entries of both queues.
//!
//! ```text
//!        0    1     2        4        8                16               24       28
//!      +----+-----+--------+--------+----------------+----------------+--------+--------+
//!      | op |flags| ioprio |   fd   | off            | addr           | len    |op_flags|
//!      +----+-----+--------+--------+----------------+----------------+--------+--------+
//!       32               40        42       44         48                              64
//!      +----------------+---------+--------+----------+--------------------------------+
//!      | user_data      |buf_index|personal|file_index| cmd[16]  (SQE128: cmd[80])      |
//!      +----------------+---------+--------+----------+--------------------------------+
//! ```

/// A submission entry of 64 bytes: `struct sq_sqe`, which has `struct io_uring_sqe`'s layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Sqe {
    /// What to do: [`consts::op`](crate::consts::op).
    pub opcode: u8,
    /// How: [`consts::sqe_flags`](crate::consts::sqe_flags).
    pub flags: u8,
    /// Must be 0.
    pub ioprio: u16,
    /// The target: a descriptor, a registered index, or -1 for a driver with one target.
    pub fd: i32,
    /// Byte offset in the target; for `CMD` the low half is `cmd_op` and the high half 0.
    pub off: u64,
    /// User address, or byte offset inside a ring-owned buffer.
    pub addr: u64,
    /// Bytes, or segments of a vector.
    pub len: u32,
    /// Flags of the opcode.
    pub op_flags: u32,
    /// Echoed bit for bit in the completion.
    pub user_data: u64,
    /// Index of a ring-owned buffer.
    pub buf_index: u16,
    /// Must be 0.
    pub personality: u16,
    /// Must be 0.
    pub file_index: u32,
    /// The command's own 16 bytes; 0 for other opcodes.
    pub cmd: [u8; 16],
}

/// A submission entry of 128 bytes, on rings set up with `SQE128`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Sqe128 {
    /// The first 64 bytes.
    pub sqe: Sqe,
    /// Bytes 16..80 of the command; 0 for other opcodes.
    pub cmd_tail: [u8; 64],
}

/// A completion of 16 bytes: `struct sq_cqe`, which has `struct io_uring_cqe`'s layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Cqe {
    /// The entry's `user_data`.
    pub user_data: u64,
    /// Result, or a negative error number.
    pub res: i32,
    /// [`consts::cqe_flags`](crate::consts::cqe_flags).
    pub flags: u32,
}

/// A completion of 32 bytes, on rings set up with `CQE32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Cqe32 {
    /// The first 16 bytes.
    pub cqe: Cqe,
    /// Two results of the driver's own.
    pub extra: [u64; 2],
}

impl Sqe {
    /// An entry of zeros but for `fd`, which is -1: a NOP.
    pub const NOP: Self = Self {
        opcode: crate::consts::op::NOP,
        flags: 0,
        ioprio: 0,
        fd: -1,
        off: 0,
        addr: 0,
        len: 0,
        op_flags: 0,
        user_data: 0,
        buf_index: 0,
        personality: 0,
        file_index: 0,
        cmd: [0; 16],
    };

    /// The entry as the eight words that travel through shared memory.
    #[must_use]
    #[inline]
    pub const fn to_words(&self) -> [u64; 8] {
        let [c0, c1, c2, c3, c4, c5, c6, c7, d0, d1, d2, d3, d4, d5, d6, d7] = self.cmd;
        [
            self.opcode as u64
                | (self.flags as u64) << 8
                | (self.ioprio as u64) << 16
                | (self.fd.cast_unsigned() as u64) << 32,
            self.off,
            self.addr,
            self.len as u64 | (self.op_flags as u64) << 32,
            self.user_data,
            self.buf_index as u64 | (self.personality as u64) << 16 | (self.file_index as u64) << 32,
            u64::from_le_bytes([c0, c1, c2, c3, c4, c5, c6, c7]),
            u64::from_le_bytes([d0, d1, d2, d3, d4, d5, d6, d7]),
        ]
    }

    /// The entry that the eight words hold: the inverse of [`Sqe::to_words`].
    #[must_use]
    #[inline]
    pub const fn from_words(words: [u64; 8]) -> Self {
        let [w0, off, addr, w3, user_data, w5, w6, w7] = words;
        let [c0, c1, c2, c3, c4, c5, c6, c7] = w6.to_le_bytes();
        let [d0, d1, d2, d3, d4, d5, d6, d7] = w7.to_le_bytes();
        Self {
            opcode: w0 as u8,
            flags: (w0 >> 8) as u8,
            ioprio: (w0 >> 16) as u16,
            fd: (w0 >> 32) as i32,
            off,
            addr,
            len: w3 as u32,
            op_flags: (w3 >> 32) as u32,
            user_data,
            buf_index: w5 as u16,
            personality: (w5 >> 16) as u16,
            file_index: (w5 >> 32) as u32,
            cmd: [c0, c1, c2, c3, c4, c5, c6, c7, d0, d1, d2, d3, d4, d5, d6, d7],
        }
    }
}

impl Cqe {
    /// The completion as the two words that travel through shared memory.
    #[must_use]
    #[inline]
    pub const fn to_words(self) -> [u64; 2] {
        [self.user_data, self.res.cast_unsigned() as u64 | (self.flags as u64) << 32]
    }

    /// The completion that the two words hold.
    #[must_use]
    #[inline]
    pub const fn from_words(words: [u64; 2]) -> Self {
        let [user_data, rest] = words;
        Self { user_data, res: rest as u32 as i32, flags: (rest >> 32) as u32 }
    }
}

#[cfg(target_endian = "big")]
compile_error!("sq rings are little-endian: the words of an entry are defined by their bytes");

#[cfg(feature = "flags")]
mod layout {
    use super::{Cqe, Cqe32, Sqe, Sqe128};
    use static_assertions::{assert_eq_align, const_assert_eq};

    const_assert_eq!(size_of::<Sqe>(), 64);
    const_assert_eq!(size_of::<Sqe128>(), 128);
    const_assert_eq!(size_of::<Cqe>(), 16);
    const_assert_eq!(size_of::<Cqe32>(), 32);
    assert_eq_align!(Sqe, Sqe128, Cqe, Cqe32, u64);
    const_assert_eq!(core::mem::offset_of!(Sqe, user_data), 32);
    const_assert_eq!(core::mem::offset_of!(Sqe, cmd), 48);
}

#[cfg(test)]
mod tests {
    use super::{Cqe, Sqe};

    #[test]
    fn words_are_the_bytes() {
        // Independent of the shifts above: the in-memory bytes of the struct, read as little-endian words.
        let sqe = Sqe {
            opcode: 1,
            flags: 2,
            ioprio: 0x0403,
            fd: 0x0807_0605,
            off: 0x100f_0e0d_0c0b_0a09,
            addr: 0x1817_1615_1413_1211,
            len: 0x1c1b_1a19,
            op_flags: 0x201f_1e1d,
            user_data: 0x2827_2625_2423_2221,
            buf_index: 0x2a29,
            personality: 0x2c2b,
            file_index: 0x302f_2e2d,
            cmd: core::array::from_fn(|i| 0x31 + i as u8),
        };
        let words = sqe.to_words();
        let mut expect = 1u8;
        for word in words {
            for byte in word.to_le_bytes() {
                assert_eq!(byte, expect);
                expect += 1;
            }
        }
        assert_eq!(Sqe::from_words(words), sqe);
    }

    #[test]
    fn a_negative_result_survives() {
        let cqe = Cqe { user_data: u64::MAX, res: -125, flags: 0x8000_0002 };
        assert_eq!(Cqe::from_words(cqe.to_words()), cqe);
        assert_eq!(cqe.to_words()[1], 0x8000_0002_ffff_ff83);
    }
}

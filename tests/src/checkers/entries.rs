// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the parser must say to any bytes: it accepts what docs/protocol.md's table lets through, as [`judge`](super::judge) has it, and
//! nothing else; and what it accepts once it accepts again.

use arbitrary::Arbitrary;
use kmod_sq::parse::{Accepts, Parsed};
use kmod_sq::snapshot::Snapshot;
use sq_uapi::consts::op;
use sq_uapi::{Errno, Sqe};

use super::judge::is_formed;

/// 128 bytes as an entry.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Bytes {
    /// The driver takes files.
    files: bool,
    /// Entries have all 128 bytes, and not 64.
    wide: bool,
    words: [u64; 16],
}

/// Parses the bytes. Returns whether they are an entry.
///
/// # Panics
///
/// If the parser is wrong.
pub fn check(input: &Bytes) -> bool {
    let Bytes { files, wide, words } = *input;
    let [a, b, c, d, e, f, g, h, tail @ ..] = words;
    let sqe = Sqe::from_words([a, b, c, d, e, f, g, h]);
    let formed = is_formed(&sqe, if wide { &tail } else { &[] }, files);
    let parse = |opcodes| Parsed::new(Snapshot::of_words(&words), &Accepts::new(opcodes, files), wide);
    match parse(u64::MAX) {
        Ok(parsed) => {
            assert!(formed, "SUB-1: accepted, and not in the table: {sqe:x?} {tail:x?}");
            let again = parse(u64::MAX).expect("what is accepted once is accepted again");
            let [first, second] = [&parsed, &again].map(|p| (p.opcode(), p.flags(), p.fd(), p.target(), p.bytes()));
            assert_eq!(first, second);
            assert_eq!((parsed.opcode(), parsed.flags(), parsed.fd()), (sqe.opcode, sqe.flags, sqe.fd));
        }
        Err(errno) => {
            assert!(!formed, "SUB-1: {errno:?} for an entry of the table: {sqe:x?} {tail:x?}");
            assert_eq!(errno, Errno::EINVAL, "{sqe:x?}");
        }
    }
    // By a driver that takes all opcodes but this one. Canceling is the framework's own.
    let without = parse(!(1 << (sqe.opcode & 63)));
    let expected = match sqe.opcode {
        _ if !formed => Some(Errno::EINVAL),
        op::ASYNC_CANCEL => None,
        _ => Some(Errno::EOPNOTSUPP),
    };
    assert_eq!(without.err(), expected, "SUB-1: {sqe:x?}");
    formed
}

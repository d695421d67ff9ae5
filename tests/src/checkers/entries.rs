// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the parser must say to any bytes: what it accepts satisfies the table, field by field, and is accepted again.

use arbitrary::Arbitrary;
use kmod_sq::parse::{Accepts, Parsed, Rule, SPECS};
use kmod_sq::snapshot::Snapshot;
use sq_uapi::Sqe;
use sq_uapi::consts::op;

/// 128 bytes as an entry.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Bytes {
    /// The driver takes files.
    files: bool,
    /// Entries have all 128 bytes, and not 64.
    wide: bool,
    words: [u64; 16],
}

fn fits(rule: Rule, value: u64) -> bool {
    match rule {
        Rule::Used | Rule::Target => true,
        Rule::Zero => value == 0,
        Rule::MinusOne => value == 0xffff_ffff,
        Rule::Bits(bits) => value & !u64::from(bits) == 0,
    }
}

/// Parses the bytes.
///
/// # Panics
///
/// If the parser is wrong.
pub fn check(input: &Bytes) {
    let Bytes { files, wide, words } = *input;
    let accepts = Accepts::new(u64::MAX, files);
    let [a, b, c, d, e, f, g, h, tail @ ..] = words;
    let sqe = Sqe::from_words([a, b, c, d, e, f, g, h]);
    let parse = || Parsed::new(Snapshot::of_words(&words), &accepts, wide);
    let spec = SPECS.iter().find(|spec| spec.opcode == sqe.opcode);
    match (parse(), spec) {
        (Ok(parsed), Some(spec)) => {
            let again = parse().expect("what is accepted once is accepted again");
            let [first, second] = [&parsed, &again].map(|p| (p.opcode(), p.flags(), p.fd(), p.target(), p.bytes()));
            assert_eq!(first, second);
            assert_eq!((parsed.opcode(), parsed.flags(), parsed.fd()), (sqe.opcode, sqe.flags, sqe.fd));
            assert_eq!(sqe.flags & !spec.flags, 0);
            assert_eq!((sqe.ioprio, sqe.personality, sqe.file_index), (0, 0, 0));
            assert!(fits(spec.fd, u64::from(sqe.fd.cast_unsigned())));
            assert!(files || sqe.fd == -1);
            assert!(if spec.opcode == op::CMD { sqe.off >> 32 == 0 } else { fits(spec.off, sqe.off) });
            assert!(fits(spec.addr, sqe.addr) && fits(spec.len, sqe.len.into()));
            assert!(fits(spec.op_flags, sqe.op_flags.into()) && fits(spec.buf_index, sqe.buf_index.into()));
            assert!(spec.cmd == Rule::Used || (sqe.cmd == [0; 16] && (!wide || tail == [0; 8])));
        }
        (Ok(_), None) => panic!("opcode {} is not in the table", sqe.opcode),
        (Err(_), _) => {}
    }
}

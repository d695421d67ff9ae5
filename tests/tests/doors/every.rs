// SPDX-License-Identifier: MIT OR Apache-2.0
//! Drivers with payload, through every door that is no ring.

use std::fs::File;
use std::os::fd::AsRawFd;

use io_uring::squeue::Flags;
use sq_uapi::consts::op;
use sq_uapi::{SqIovec, Sqe};

use super::common::{device, open_node};
use super::issue::issue;
use super::uring_rig::{Inline, Pointer, Rig, has_commands};

/// An entry by one of the doors: its result, or a negative error number.
pub(crate) type Door<'a> = dyn FnMut(&Sqe) -> i32 + 'a;

/// Runs `test` with each door of the device at `node`.
pub(crate) fn through_each(node: &str, test: impl Fn(&str, &mut Door<'_>)) {
    let Some(_one) = device() else { return };
    let file = open_node(node);
    test("ioctl", &mut |sqe| issue(&file, sqe).map_or_else(|errno| errno.to_res(), u32::cast_signed));
    if !has_commands() {
        return;
    }
    let mut inline = Rig::<Inline>::new(&file);
    test("uring_cmd, inline", &mut |sqe| inline.one(sqe));
    test("uring_cmd, by a thread of io_uring's", &mut |sqe| inline.all(&[*sqe], Flags::ASYNC)[0]);
    let mut pointer = Rig::<Pointer>::new(&file);
    test("uring_cmd, by address", &mut |sqe| pointer.one(sqe));
}

/// READ or WRITE of these bytes.
pub(crate) fn transfer(opcode: u8, fd: i32, off: u64, bytes: &mut [u8]) -> Sqe {
    Sqe { opcode, fd, off, addr: address(bytes), len: u32::try_from(bytes.len()).unwrap(), ..Sqe::NOP }
}

/// READV or WRITEV of what these describe.
pub(crate) fn vectored(opcode: u8, fd: i32, off: u64, vector: &[SqIovec]) -> Sqe {
    let addr = vector.as_ptr().expose_provenance() as u64;
    Sqe { opcode, fd, off, addr, len: u32::try_from(vector.len()).unwrap(), ..Sqe::NOP }
}

pub(crate) fn iovecs(bytes: &mut [u8], piece: usize) -> Vec<SqIovec> {
    bytes.chunks_mut(piece).map(|piece| SqIovec { base: address(piece), len: piece.len() as u64 }).collect()
}

fn address(bytes: &mut [u8]) -> u64 {
    bytes.as_mut_ptr().expose_provenance() as u64
}

/// The flags of an entry that mean something here.
pub(crate) const FLAGS: [u8; 2] = [0, sq_uapi::consts::sqe_flags::ASYNC];

const EFAULT: i32 = -libc::EFAULT;
const EINVAL: i32 = -libc::EINVAL;
const ENOSPC: i32 = -libc::ENOSPC;

#[test]
fn ram() {
    const NODE: &str = "/dev/sqram";
    let store = |of: fn(&sq_uapi::SqQuery) -> u64| of(&liburing_shm::Backend::device(NODE).query().unwrap());
    through_each(NODE, |door, issue| {
        let end = store(|answer| answer.target_bytes);
        for flags in FLAGS {
            let mut run = |sqe: Sqe| issue(&Sqe { flags, ..sqe });
            let (mut from, mut to) = (*b"forty bytes, written at once or in parts", [0xee; 44]);
            assert_eq!(run(transfer(op::WRITE, -1, 100, &mut from)), 40, "{door}");
            assert_eq!(run(transfer(op::READ, -1, 98, &mut to)), 44, "{door}");
            assert_eq!(to[2..42], from, "{door}");

            from.reverse();
            let vector = iovecs(&mut from, 7);
            assert_eq!(run(vectored(op::WRITEV, -1, 1000, &vector)), 40, "{door}");
            to.fill(0xee);
            let vector = iovecs(&mut to[..40], 16);
            assert_eq!(run(vectored(op::READV, -1, 1000, &vector)), 40, "{door}");
            assert_eq!((&to[..40], &to[40..]), (&from[..], &[0xee; 4][..]), "{door}");
            assert_eq!(run(Sqe { opcode: op::FSYNC, ..Sqe::NOP }), 0, "{door}");

            assert_eq!(run(transfer(op::WRITE, -1, end - 5, &mut from)), 5, "{door}: up to the end");
            assert_eq!(run(transfer(op::READ, -1, end - 5, &mut to)), 5, "{door}: up to the end");
            assert_eq!(run(transfer(op::READ, -1, end, &mut to)), 0, "{door}");
            assert_eq!(run(transfer(op::WRITE, -1, end, &mut from)), ENOSPC, "{door}");
            assert_eq!(run(transfer(op::READ, -1, u64::MAX, &mut to)), EINVAL, "{door}");
            assert_eq!(run(transfer(op::READ, 0, 0, &mut to)), EINVAL, "{door}: there is one target");
            for opcode in [op::READ, op::WRITE, op::READV, op::WRITEV] {
                let nowhere = Sqe { opcode, addr: 8, len: 1, ..Sqe::NOP };
                assert_eq!(run(nowhere), EFAULT, "{door}: opcode {opcode}");
            }
            let gone = [SqIovec { base: 8, len: 4 }];
            assert_eq!(run(vectored(op::READV, -1, 0, &gone)), EFAULT, "{door}");
            assert_eq!(run(Sqe { opcode: op::CMD, ..Sqe::NOP }), -libc::EOPNOTSUPP, "{door}");
        }
    });
}

/// A descriptor that nobody has.
pub(crate) fn closed_fd() -> i32 {
    File::open("/dev/null").unwrap().as_raw_fd()
}

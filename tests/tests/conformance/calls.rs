// SPDX-License-Identifier: MIT OR Apache-2.0
//! The calls as bytes: sizes, reserved fields, unknown flags and numbers.

use liburing_shm::{Backend, Errno, Ring, Submitter};
use sq_uapi::consts::{enter_flags, limit};
use sq_uapi::{SqCancel, SqEnter, SqQuiesce, SqRegister, SqStats, ioctl};

use super::common::{build, errno, null, ring};

/// An argument as little-endian u32 words.
fn bytes(size: usize, words: &[(usize, u32)]) -> Vec<u8> {
    let mut bytes = vec![0; size];
    bytes[..4].copy_from_slice(&u32::try_from(size).unwrap().to_le_bytes());
    for (at, word) in words {
        bytes[*at..at + 4].copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

fn call(submitter: &Submitter, number: u32, mut arg: Vec<u8>) -> Result<u32, Errno> {
    // SAFETY: the arguments of these tests carry no address but 0, and say their own size.
    unsafe { submitter.raw_call(number, &mut arg) }
}

/// Each of these words, alone, on otherwise valid data.
fn refuses(number: u32, size: usize, base: &[(usize, u32)], reserved: impl IntoIterator<Item = usize>) {
    let ring = ring(4);
    let valid = call(ring.submitter(), number, bytes(size, base));
    assert_ne!(valid, Err(Errno::EINVAL), "the base is meant to be valid");
    for at in reserved {
        let mut words = base.to_vec();
        words.push((at, 1));
        assert_eq!(call(ring.submitter(), number, bytes(size, &words)), Err(Errno::EINVAL), "byte {at}");
    }
}

#[test]
fn reserved_fields_of_every_call() {
    let enter = size_of::<SqEnter>();
    // resv, the fields that no flag refers to, resv2.
    refuses(ioctl::ENTER, enter, &[], [12, 16, 20, 24, 28, 32, 36, 48, 52, 56, 60]);
    // 12: ENABLE_RINGS, which takes no argument at all.
    refuses(ioctl::REGISTER, size_of::<SqRegister>(), &[(4, 5)], [8, 12, 16, 20, 24, 28, 32, 36]);
    refuses(ioctl::QUIESCE, size_of::<SqQuiesce>(), &[], [4, 16, 20, 24, 28]);
    refuses(ioctl::CANCEL, size_of::<SqCancel>(), &[(4, 4)], [8, 16, 20, 24, 28, 32, 36]);
    refuses(ioctl::STATS, size_of::<SqStats>(), &[], (4..size_of::<SqStats>()).step_by(4));
}

#[test]
fn unknown_flags_of_every_call() {
    let ring = ring(4);
    for bit in 0..32 {
        let flag = 1u32 << bit;
        if flag & enter_flags::ALL == 0 {
            let arg = bytes(size_of::<SqEnter>(), &[(4, flag)]);
            assert_eq!(call(ring.submitter(), ioctl::ENTER, arg), Err(Errno::EINVAL), "{flag:x}");
        }
        let arg = bytes(size_of::<SqStats>(), &[(4, flag)]);
        assert_eq!(call(ring.submitter(), ioctl::STATS, arg), Err(Errno::EINVAL), "{flag:x}");
    }
    for op in [0u32, 1, 7, 10, 13, 31, 32, u32::MAX] {
        let arg = bytes(size_of::<SqRegister>(), &[(4, op)]);
        assert_eq!(call(ring.submitter(), ioctl::REGISTER, arg), Err(Errno::EINVAL), "{op}");
    }
    // io_uring's numbers for buffers: register, unregister, register with tags, update.
    for op in [0u32, 1, 15, 16] {
        let arg = bytes(size_of::<SqRegister>(), &[(4, op)]);
        let said = call(ring.submitter(), ioctl::REGISTER, arg);
        assert_eq!(said, Err(Errno::EINVAL), "SEC-2: registering buffers ({op}) is refused until it exists");
    }
}

#[test]
fn what_query_does_not_list_is_refused() {
    let ring = ring(4);
    let known = null().query().unwrap().enter_flags;
    let sigmask = bytes(size_of::<SqEnter>(), &[(4, enter_flags::SIGMASK)]);
    let taken = call(ring.submitter(), ioctl::ENTER, sigmask);
    assert_eq!(taken.is_ok(), known & enter_flags::SIGMASK != 0, "{taken:?}");
}

#[test]
fn sizes_of_every_call() {
    let ring = ring(4);
    let calls = [
        (ioctl::ENTER, size_of::<SqEnter>()),
        (ioctl::QUIESCE, size_of::<SqQuiesce>()),
        (ioctl::STATS, size_of::<SqStats>()),
    ];
    for (number, size) in calls {
        assert_eq!(call(ring.submitter(), number, bytes(size - 4, &[])), Err(Errno::EINVAL), "{number:x}: too short");
        let longer = bytes(size + 16, &[(size + 12, 1)]);
        assert_eq!(call(ring.submitter(), number, longer), Err(Errno::E2BIG), "{number:x}: a field from the future");
        if number != ioctl::QUIESCE {
            assert_eq!(call(ring.submitter(), number, bytes(size + 16, &[])), Ok(0), "{number:x}: longer, but zero");
        }
    }
}

#[test]
fn unknown_calls() {
    let ring = ring(4);
    for number in [0, ioctl::STATS + 1, ioctl::ENTER ^ 0x100, u32::MAX] {
        assert_eq!(call(ring.submitter(), number, bytes(64, &[])), Err(Errno::ENOTTY), "{number:x}");
    }
}

#[test]
fn query_says_what_there_is() {
    let query = null().query().unwrap();
    assert_eq!(query.abi_version, sq_uapi::consts::ABI_VERSION);
    assert_eq!(&query.driver[..5], b"null\0");
    assert_eq!(query.opcodes, 1 << 0 | 1 << 14 | 1 << 46);
    assert_eq!((query.max_sq_entries, query.max_cq_entries), (limit::SQ_ENTRIES, limit::CQ_ENTRIES));
    assert_eq!((query.max_chain, query.target_bytes), (0, 0));
}

#[test]
fn shapes_out_of_range_are_refused_with_einval() {
    let refused = |builder: liburing_shm::Builder| errno(builder.build(&null()));
    assert_eq!(refused(Ring::builder(0)), Errno::EINVAL);
    assert_eq!(refused(Ring::builder(limit::SQ_ENTRIES + 1)), Errno::EINVAL);
    assert_eq!(refused(Ring::builder(8).cq_entries(4)), Errno::EINVAL);
    assert_eq!(refused(Ring::builder(8).max_inflight(17)), Errno::EINVAL);
    assert_eq!(refused(Ring::builder(8).pool(1, 100)), Errno::EINVAL);
    assert_eq!(refused(Ring::builder(8).worker().poll(std::time::Duration::from_millis(1))), Errno::EINVAL);
    assert_eq!(refused(Ring::builder(8).poll_cpu(0)), Errno::EINVAL);
    let ring = build(Ring::builder(5));
    let setup = ring.submitter().setup();
    assert_eq!((setup.sq_entries, setup.cq_entries, setup.max_inflight), (8, 16, 8));
    let ring = build(Ring::builder(u32::MAX).clamp());
    assert_eq!(ring.submitter().setup().sq_entries, limit::SQ_ENTRIES);
}

#[test]
fn a_node_that_is_not_there_is_a_clear_error() {
    let error = Ring::builder(4).build(&Backend::device("/dev/sq-no-such")).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::ENOENT));
    assert!(error.to_string().contains("is the module loaded?"), "{error}");
    let error = Ring::builder(4).build(&Backend::device("/dev/null")).unwrap_err();
    assert!(error.to_string().contains("no sq device"), "{error}");
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Any commands, with any bytes: each has one completion, and what waits can be canceled.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use liburing_shm::{Backend, CancelFlags, Errno, RawEntry, Ring};
use sq_sample::Device;
use sq_uapi::Sqe;
use sq_uapi::consts::op;

thread_local! {
    static RING: RefCell<Ring> =
        RefCell::new(Ring::builder(64).build(&Backend::embedded(Device).unwrap()).unwrap());
}

fuzz_target!(|commands: Vec<(u32, [u8; 16])>| {
    RING.with_borrow_mut(|ring| {
        let commands = &commands[..commands.len().min(32)];
        for (n, (cmd_op, cmd)) in (0..).zip(commands) {
            let sqe = Sqe { opcode: op::CMD, off: u64::from(*cmd_op), cmd: *cmd, user_data: n, ..Sqe::NOP };
            // SAFETY: the driver takes CMD only, and no address from it.
            unsafe { ring.submission().push_raw(RawEntry::of(sqe)) }.unwrap();
        }
        ring.submit().unwrap();
        match ring.submitter().cancel(CancelFlags::ANY | CancelFlags::ALL, 0, 0) {
            Ok(_) => {}
            // Nothing waits, or all that waits completes at this moment.
            Err(error) => assert!(matches!(error.errno(), Some(Errno::ENOENT | Errno::EALREADY)), "{error}"),
        }
        ring.submit_and_wait(commands.len() as u32).unwrap();
        let mut seen: Vec<u64> = ring.completion().reap().map(|done| done.user_data()).collect();
        seen.sort_unstable();
        assert!(seen.into_iter().eq(0..commands.len() as u64));
    });
});

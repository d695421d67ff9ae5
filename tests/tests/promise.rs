// SPDX-License-Identifier: MIT OR Apache-2.0
//! A driver in C may take an operation's request and return a result all the same: then it is the request that counts (SUB-2).
#![cfg(not(loom))]

use std::ffi::c_void;
use std::ops::Range;
use std::sync::Mutex;

use kmod_sq::Geometry;
use sq_conformance::checkers::hostile::{Access, HostileMem, UserSide};
use sq_conformance::checkers::hostile_host::ring_bound;
use sq_conformance::checkers::slots::WriteSqe;
use sq_driver::Bound;
use sq_driver::abi::{RawOp, RawRequest, TABLE_VERSION, Table};
use sq_uapi::consts::sqe_flags;
use sq_uapi::{SqSetup, Sqe, UserMem, UserWord};

/// Requests that were taken, by address.
struct Held(Mutex<Vec<usize>>);

static TABLE: Table = Table {
    size: size_of::<Table>() as u32,
    version: TABLE_VERSION,
    name: c"promise".as_ptr(),
    opcodes: 1,
    flags: 0,
    resv: 0,
    issue,
    cancel,
    begin: None,
    commit: None,
    target_bytes: None,
};

/// # Safety
///
/// As the table's `issue`; `data` is a [`Held`].
unsafe extern "C" fn issue(data: *const c_void, op: *mut RawOp) -> i32 {
    // SAFETY: the contract.
    let held = unsafe { &*data.cast::<Held>() };
    // SAFETY: the contract.
    let user_data = unsafe { (*op).sqe[4] };
    // SAFETY: the contract.
    let ops = unsafe { (*op).ops };
    if user_data % 2 == 1 {
        // SAFETY: the contract: the operations of `op`.
        let defer = unsafe { (*ops).defer };
        // SAFETY: once for this operation.
        held.0.lock().unwrap().push(unsafe { defer(op, 0) }.expose_provenance());
    }
    // Not DEFERRED, as it should be.
    1
}

unsafe extern "C" fn cancel(_: *const c_void, _: u64) {}

/// Submits entries 0 to 5, of which the odd ones are taken and answered, and completes them. Entry 1 is the last of its batch, or has
/// others behind it.
fn answered_twice(flags: u8) {
    for end in [2, 6] {
        in_batches(flags, [0..1, 1..end, end..6]);
    }
}

fn in_batches(flags: u8, batches: [Range<u32>; 3]) {
    let held: &'static Held = Box::leak(Box::new(Held(Mutex::default())));
    let geometry = Geometry::new(&SqSetup { sq_entries: 8, ..SqSetup::default() }).unwrap();
    let mem = HostileMem::new(8, 16, Box::new(|_: Access, _: &mut UserSide| ()));
    mem.may_park();
    mem.may_rewrite();
    // SAFETY: the table's functions expect a Held, which is static.
    let bound = unsafe { Bound::new(&TABLE, std::ptr::from_ref(held).cast()) }.unwrap();
    // SAFETY: there is no pool.
    let ring = unsafe { ring_bound(geometry, mem.clone(), 0, bound) }.unwrap();
    // The first by itself, so that the others find the short way open.
    for batch in batches {
        for index in batch.clone() {
            mem.write_sqe(index, Sqe { user_data: index.into(), flags, ..Sqe::NOP }.to_words());
        }
        mem.store_user(UserWord::SqTail, batch.end);
        ring.doorbell().unwrap();
    }
    let taken = std::mem::take(&mut *held.0.lock().unwrap());
    assert_eq!(taken.len(), 3);
    for address in taken {
        let request = std::ptr::with_exposed_provenance_mut::<RawRequest>(address);
        // SAFETY: the request is held.
        let ops = unsafe { (*request).ops };
        // SAFETY: as above.
        let complete = unsafe { (*ops).complete };
        // SAFETY: it is given up.
        unsafe { complete(request, 7, &[0; 2]) };
    }
    let mut completed: Vec<(u64, u64)> = mem.record().completed.iter().map(|cqe| (cqe[0], cqe[1])).collect();
    completed.sort_unstable();
    assert_eq!(completed, [(0, 1), (1, 7), (2, 1), (3, 7), (4, 1), (5, 7)], "SUB-2");
    assert_eq!(ring.stats().inflight, 0);
    assert!(ring.balanced(), "CQ-5");
}

#[test]
fn sub2_a_request_that_was_taken_is_what_completes_on_the_short_way() {
    answered_twice(0);
}

#[test]
fn sub2_a_request_that_was_taken_is_what_completes_on_the_long_way() {
    answered_twice(sqe_flags::ASYNC);
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a ring whose file is closed still has, while a request that has not ended keeps it (LIFE-2).
#![cfg(not(loom))]

use kmod_sq::Geometry;
use sq_conformance::checkers::hostile::{Access, HostileMem, UserSide};
use sq_conformance::checkers::hostile_host::{AnyFile, ring_bound};
use sq_conformance::checkers::probe::Probe;
use sq_driver::Bound;
use sq_uapi::consts::register_op;
use sq_uapi::{SqRegister, SqSetup};

/// A file in the table may be what a request in flight waits for, until it is closed: a file system or a page that the process serves.
#[test]
fn life2_a_closed_ring_keeps_no_registered_file() {
    let geometry = Geometry::new(&SqSetup { sq_entries: 8, ..SqSetup::default() }).unwrap();
    let mem = HostileMem::new(8, 16, Box::new(|_: Access, _: &mut UserSide| ()));
    let driver = &Probe::<false>;
    // SAFETY: the table is the driver's own, which is static.
    let bound = unsafe { Bound::new(sq_driver::table::<Probe<false>>(), std::ptr::from_ref(driver).cast()) }.unwrap();
    // SAFETY: there is no pool.
    let ring = unsafe { ring_bound(geometry, mem, 0, bound) }.unwrap();
    // Of the descriptors at such an address some are none.
    ring.register(&SqRegister { op: register_op::FILES, nr: 16, arg: 0x1000, ..SqRegister::default() }).unwrap();
    let registered = AnyFile::count();
    assert!((1..=16).contains(&registered), "{registered}");
    ring.abandon();
    assert_eq!(AnyFile::count(), 0, "LIFE-2: whoever keeps the ring keeps them");
}

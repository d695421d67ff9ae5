// SPDX-License-Identifier: MIT OR Apache-2.0
//! `include/sq_driver.h` and `glue/glue.h` have these numbers too, asserted by the C compiler.

use core::mem::offset_of;

use sq_driver::abi::{MAX_SEGMENTS, OpOps, RawOp, RawPayload, RawRequest, RequestOps, TABLE_VERSION, Table};

const _: () = {
    assert!(size_of::<kmod_sq::Look>() == 152);
    assert!(offset_of!(kmod_sq::Look, stats) == 48);
    assert!(MAX_SEGMENTS == 16);
    assert!(TABLE_VERSION == 1);
    assert!(size_of::<RawPayload>() == 288);
    assert!(size_of::<RawOp>() == 456);
    assert!(offset_of!(RawOp, payload) == 168);
    assert!(size_of::<OpOps>() == 24);
    assert!(size_of::<RawRequest>() == 312);
    assert!(size_of::<RequestOps>() == 48);
    assert!(size_of::<Table>() == 72);
    assert!(offset_of!(Table, issue) == 32);
};

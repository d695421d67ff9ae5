// SPDX-License-Identifier: MIT OR Apache-2.0
//! The calls with structures of any length and content, on a ring that any SETUP made, and without one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sq_conformance::checkers::calls::{Session, run};

fuzz_target!(|session: Session| {
    run(&session);
});

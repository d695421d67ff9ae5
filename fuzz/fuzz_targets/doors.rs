// SPDX-License-Identifier: MIT OR Apache-2.0
//! The doors that need no ring: calls that wait, and io_uring's commands, while the entry changes and tasks and timers come late.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sq_conformance::checkers::doors::{Visit, run};

fuzz_target!(|visit: Visit| {
    run(&visit);
});

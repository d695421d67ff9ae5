// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whatever several threads do to a ring and its memory: a [`Program`], run as `sq_conformance` runs it in its tests.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sq_conformance::checkers::program::Program;
use sq_conformance::checkers::world::run;

fuzz_target!(|program: Program| {
    run(program);
});

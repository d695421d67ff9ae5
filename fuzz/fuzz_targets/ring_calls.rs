// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whatever several threads do to a ring and its memory: a [`Program`], run as `sq_conformance` runs it in its tests.
//!
//! With `SQ_VULNERABLE` set, a kernel side that looks at entries twice: `cargo xtask fuzz` shows that this target finds it.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use sq_conformance::checkers::program::Program;
use sq_conformance::checkers::world::{Flaw, run_with};

static FLAW: LazyLock<Flaw> = LazyLock::new(Flaw::asked_for);

fuzz_target!(|program: Program| {
    run_with(program, *FLAW);
});

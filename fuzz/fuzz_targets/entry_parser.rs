// SPDX-License-Identifier: MIT OR Apache-2.0
//! 64 or 128 raw bytes as an entry: no panic, parsing is idempotent, and what is accepted is what the table lets through, no more and no less.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sq_conformance::checkers::entries::{Bytes, check};

fuzz_target!(|input: Bytes| {
    check(&input);
});

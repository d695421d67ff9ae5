// SPDX-License-Identifier: MIT OR Apache-2.0
//! The sabotages, by what they break. A new mechanism has a row here that leaves it out.

mod core;
mod end;
mod module;
mod user;

use super::Mutant;
use super::check::Check;

/// What `cargo xtask test` runs of them: one of each kind of check that needs no kernel, and fast.
pub(super) const SAMPLE: [&str; 3] = ["entry fetched twice", "buf_index not checked", "REDRAIN not set"];

/// All of them.
pub(super) fn mutants() -> impl Iterator<Item = &'static Mutant> {
    [core::ROWS, end::ROWS, user::ROWS, module::ROWS].into_iter().flatten()
}

const fn row(
    name: &'static str,
    rule: &'static str,
    file: &'static str,
    [old, new]: [&'static str; 2],
    check: Check,
) -> Mutant {
    Mutant { name, rule, file, old, new, check }
}

const fn suite(test: &'static str) -> Check {
    Check::Test("sq-conformance", "conformance", test)
}

const fn hostile(test: &'static str) -> Check {
    Check::Test("sq-conformance", "hostile_memory", test)
}

const fn loom(target: &'static str, test: &'static str) -> Check {
    Check::Loom(target, test)
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sabotages of canceling, and of a ring's end.

use super::super::Mutant;
use super::super::check::Check;
use super::{hostile, loom, row, suite};

const DRAIN: &str = "kmod-sq/src/drain.rs";
const ISSUE: &str = "kmod-sq/src/issue.rs";
const REQUEST: &str = "kmod-sq/src/request.rs";
const CANCEL: &str = "kmod-sq/src/cancel.rs";

pub(super) const ROWS: &[Mutant] = &[
    row(
        "cancel during issue dropped",
        "CAN-1",
        REQUEST,
        ["if meta.canceled { Meanwhile::Canceled(meta.id) } else { Meanwhile::Nothing }", "Meanwhile::Nothing"],
        loom("loom_cancel", "can_1_against_issue"),
    ),
    row(
        "cancel does not claim from the clock",
        "CAN-1",
        REQUEST,
        ["if matches!(found, Found::Timed(_)) {", "if false {"],
        loom("loom_cancel", "can_1_against_clock"),
    ),
    row(
        "completion during issue posted at once",
        "CQ-5",
        REQUEST,
        ["if meta.issuing {", "if false {"],
        hostile("random_programs"),
    ),
    row(
        "QUIESCE waits for a slot",
        "LIFE-1",
        CANCEL,
        [
            "// At once, since whoever drains",
            "self.await_quiet(deadline, |ring| ring.cq.with(|cq| !cq.is_blocked()))?;\n        // At once, since whoever drains",
        ],
        suite("life1_quiesce_needs_no_slot"),
    ),
    row(
        "QUIESCE cancels only when nobody drains",
        "LIFE-1",
        CANCEL,
        ["self.cancel_everything();\n        // Once the drain is free", "// Once the drain is free"],
        suite("life1_quiesce_needs_no_drain"),
    ),
    row(
        "QUIESCE cancels only what is there at once",
        "LIFE-1",
        CANCEL,
        ["self.cancel_everything();\n        self.await_quiet(", "self.await_quiet("],
        loom("loom_life", "life_1_quiesce_against_drain"),
    ),
    row(
        "a ring that ends left as if it waited",
        "BELL-1",
        DRAIN,
        ["set_state(self.ring, self.sq(), sq_state::NEED_WAKEUP);\n            self.ring", "self.ring"],
        Check::Test("sq-conformance", "parked", "bell1_a_quiesced_ring_that_was_rung_is_not_rung_again"),
    ),
    row(
        "QUIESCE does not wait for the drain",
        "LIFE-1",
        CANCEL,
        ["self.await_quiet(deadline, Self::drain_is_free)?;", "let _ = Self::drain_is_free;"],
        loom("loom_life", "life_1_quiesce_against_drain"),
    ),
    row(
        "QUIESCE does not wait for requests",
        "LIFE-1",
        CANCEL,
        ["self.posted.inflight() == 0", "true"],
        loom("loom_life", "life_1_quiesce_against_completion"),
    ),
    row(
        "a closed ring's worker left alone",
        "LIFE-2",
        CANCEL,
        ["once more, after it.\n        H::work(self);", "once more, after it."],
        loom("loom_life", "life_2_close_against_worker"),
    ),
    row(
        "a closed ring's files kept open",
        "LIFE-2",
        CANCEL,
        ["self.forget_files();", ""],
        Check::Test("sq-conformance", "closed", "life2_a_closed_ring_keeps_no_registered_file"),
    ),
    row(
        "request does not keep its ring",
        "LIFE-2",
        ISSUE,
        ["ring.count_ref();", ""],
        loom("loom_life", "life_2_close_against_completion"),
    ),
];

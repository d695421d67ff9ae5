// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sabotages of the application's half.

use super::super::Mutant;
use super::{loom, row, suite};

const PRODUCER: &str = "liburing-shm/src/ring/producer.rs";
const CONSUMER: &str = "liburing-shm/src/ring/consumer.rs";
const QUEUE: &str = "liburing-shm/src/queue.rs";

pub(super) const ROWS: &[Mutant] = &[
    row(
        "no fence: sq_tail, NEED_WAKEUP",
        "BELL-1",
        PRODUCER,
        ["self.mem.user_fence(Fence::BellUser);", "let _ = Fence::BellUser;"],
        loom("loom_worker", "bell_1_worker_idle"),
    ),
    row(
        "no fence: cq_head, CQ_BLOCKED",
        "CQ-2",
        CONSUMER,
        ["mem.user_fence(Fence::BlockedUser);", "let _ = Fence::BlockedUser;"],
        loom("loom_worker", "cq_2_worker_blocked"),
    ),
    row(
        "no fence: cq_flags, cq_tail",
        "BELL-4",
        CONSUMER,
        ["mem.user_fence(Fence::HintUser);", "let _ = Fence::HintUser;"],
        loom("loom_wait", "bell_4_eventfd_wanted_again_inline"),
    ),
    row(
        "batch published in part",
        "IDX-4",
        QUEUE,
        ["if (sq.room() as usize) < batch.len() {", "if sq.room() == 0 {"],
        suite("entries_of_a_batch_larger_than_the_queue_are_refused_whole"),
    ),
    row(
        "reaper does not ring for slots",
        "CQ-2",
        CONSUMER,
        ["(sq_state::CQ_BLOCKED | sq_state::NEED_ENTER) != 0", "sq_state::NEED_ENTER != 0"],
        loom("loom_worker", "cq_2"),
    ),
    row(
        "bell at any state but idle left out",
        "BELL-1",
        PRODUCER,
        ["& sq_state::NEED_WAKEUP != 0", "& sq_state::NEED_WAKEUP == u32::MAX"],
        loom("loom_worker", "bell_1_worker_idle"),
    ),
];

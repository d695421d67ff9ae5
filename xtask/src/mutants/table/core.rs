// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sabotages of the kernel side's core, and of the memory under it.

use super::super::Mutant;
use super::super::check::Check;
use super::{hostile, loom, row, suite};

const SQ: &str = "kmod-sq/src/sq.rs";
const DRAIN: &str = "kmod-sq/src/drain.rs";
const ENTER: &str = "kmod-sq/src/enter.rs";
const CQ: &str = "kmod-sq/src/cq.rs";
const GEOMETRY: &str = "kmod-sq/src/geometry.rs";
const ISSUE: &str = "kmod-sq/src/issue.rs";
const REQUEST: &str = "kmod-sq/src/request.rs";
const RING: &str = "kmod-sq/src/ring.rs";
const CANCEL: &str = "kmod-sq/src/cancel.rs";
const POLL: &str = "kmod-sq/src/poll.rs";
const PARSE: &str = "kmod-sq/src/parse.rs";
const ACCEPT: &str = "kmod-sq/src/accept.rs";
const DOOR: &str = "kmod-sq/src/door.rs";
const MAPPED: &str = "uapi/src/mapped.rs";
const MEM: &str = "uapi/src/mem.rs";

pub(super) const ROWS: &[Mutant] = &[
    // What the user side writes.
    row(
        "entry fetched twice",
        "SNAP-1",
        SQ,
        [
            "first.copy_from_slice(&words);",
            "let at = head.wrapping_add(taken(places.len())).wrapping_sub(1);
            first.copy_from_slice(&ring.mem.sqe_run(at, 1).next().unwrap_or(words));",
        ],
        hostile("random_programs"),
    ),
    row(
        "bare entry fetched twice",
        "SNAP-1",
        SQ,
        [
            "*op4 = user_data;",
            "let at = head.wrapping_add(taken(places.len())).wrapping_sub(1);
            let [_, _, _, _, again, ..] = ring.mem.sqe_run(at, 1).next().unwrap_or(words);
            *op4 = again;",
        ],
        hostile("snap_1_a_late_change_is_not_seen"),
    ),
    row(
        "single entry fetched twice on the short way",
        "SNAP-1",
        SQ,
        ["ring.mem.pair(low(tail), head);", "ring.mem.pair(low(tail), head).and(ring.mem.pair(low(tail), head));"],
        hostile("snap_1_a_late_change_is_not_seen"),
    ),
    row(
        "window of sq_tail not checked",
        "IDX-3",
        SQ,
        ["if span > ring.geometry.sq_entries {", "if false && span > 0 {"],
        hostile("idx_3_indices_out_of_their_windows"),
    ),
    row(
        "sq_tail trusted at a second look",
        "IDX-3",
        SQ,
        [
            "let most = span.min(bound);",
            "let most = ring.mem.load_user(UserWord::SqTail).wrapping_sub(low(sq.head)).min(bound);",
        ],
        hostile("random"),
    ),
    row(
        "cq_head let past cq_tail",
        "IDX-3",
        CQ,
        ["if head.wrapping_sub(self.head) > tail.wrapping_sub(self.head) {", "if false && tail == head {"],
        hostile("idx_3_indices_out_of_their_windows"),
    ),
    row(
        "cq_head trusted at a second look",
        "IDX-3",
        CQ,
        ["self.head = head;", "self.head = mem.load_user(UserWord::CqHead);"],
        hostile("random"),
    ),
    row(
        "index of an entry not masked",
        "IDX-1",
        MAPPED,
        ["(index & self.sq_mask) as usize * self.sqe_bytes", "index as usize * self.sqe_bytes"],
        Check::Test("sq-uapi", "mapped", "idx1"),
    ),
    row(
        "index of a run masked too late",
        "IDX-1",
        MAPPED,
        ["index & entries.wrapping_sub(1)", "index & entries.wrapping_mul(2).wrapping_sub(1)"],
        Check::Test("sq-uapi", "mapped", "idx1"),
    ),
    row(
        "ioprio not checked",
        "SUB-1",
        PARSE,
        ["0xffff_00ff |", "0x0000_00ff |"],
        Check::Test("kmod-sq", "parse_cells", ""),
    ),
    row(
        "buf_index not checked",
        "SUB-1",
        PARSE,
        ["must_be_zero(spec.buf_index, 0xffff) | ", ""],
        Check::Test("kmod-sq", "parse_cells", ""),
    ),
    row(
        "reserved field of ENTER not checked",
        "SUB-1",
        ENTER,
        ["|| enter.resv != 0", ""],
        suite("reserved_fields_of_every_call"),
    ),
    row(
        "reserved field of CANCEL not checked",
        "SUB-1",
        CANCEL,
        ["cancel.resv0 != 0 || ", ""],
        suite("reserved_fields_of_every_call"),
    ),
    row(
        "door takes a skipped completion",
        "SUB-1",
        PARSE,
        ["widen8(!sqe_flags::ASYNC) << 8", "widen8(!(sqe_flags::ASYNC | sqe_flags::CQE_SKIP_SUCCESS)) << 8"],
        suite("what_needs_a_ring_is_refused"),
    ),
    row(
        "links accepted",
        "LINK-1",
        PARSE,
        ["const DRIVERS: u8 = ANY_TIME |", "const DRIVERS: u8 = sqe_flags::IO_LINK | ANY_TIME |"],
        suite("what_is_not_implemented_is_refused"),
    ),
    row(
        "door takes ASYNC_CANCEL",
        "SUB-1",
        DOOR,
        [" | 1 << op::ASYNC_CANCEL;", ";"],
        suite("what_needs_a_ring_is_refused"),
    ),
    row(
        "opcodes given up come back",
        "SEC-3",
        PARSE,
        ["Self { opcodes: self.opcodes & allowed,", "Self { opcodes: allowed,"],
        Check::Test("kmod-sq", "parse_cells", "an_opcode_given_up_does_not_come_back"),
    ),
    row(
        "length of a vector not checked",
        "SNAP-3",
        ACCEPT,
        ["if total > u64::from(limit::TRANSFER_BYTES) {", "if false {"],
        Check::Test("liburing-shm", "driver_side", "snap3_a_vector_is_checked"),
    ),
    row(
        "vector fetched twice",
        "SNAP-3",
        ISSUE,
        [
            "accept::payload(parsed.bytes(), &op.sqe, &mut op.payload, pool, copy_in)?;",
            "accept::payload(parsed.bytes(), &op.sqe, &mut op.payload, pool, copy_in)?;
        if let (crate::parse::Bytes::Vector, [_, _, at, ..]) = (parsed.bytes(), op.sqe) {
            let mut again = [0; 16];
            copy_in(&mut again, at)?;
            let again = u128::from_le_bytes(again);
            let first = sq_driver::abi::Segment { addr: again as u64, len: (again >> 64) as u64 };
            op.payload.segments[0].write(first);
        }",
        ],
        hostile("random_programs"),
    ),
    // Orderings, of the real memory and the models' alike.
    row(
        "store of sq_tail relaxed",
        "IDX-4",
        MEM,
        ["Self::SqTail => Ordering::Release,", "Self::SqTail => Ordering::Relaxed,"],
        loom("loom_submit", "bell_5_two_submitters"),
    ),
    row(
        "store of cq_tail relaxed",
        "IDX-4",
        MEM,
        ["Self::CqTail => Ordering::Release,", "Self::CqTail => Ordering::Relaxed,"],
        loom("loom_submit", "cq_1_cqe_slot_reuse"),
    ),
    // Fences, and looking again.
    row(
        "no fence: NEED_WAKEUP, sq_tail",
        "BELL-1",
        DRAIN,
        ["self.ring.mem.kernel_fence(Fence::BellKernel);", "let _ = Fence::BellKernel;"],
        loom("loom_worker", "bell_1_worker_idle"),
    ),
    row(
        "no second look before idling",
        "BELL-1",
        DRAIN,
        ["if self.is_empty() || self.ring.stopped() != 0 {", "if self.is_empty() || true {"],
        loom("loom_worker", "bell_1_worker_idle"),
    ),
    row(
        "poller sleeps whatever it found",
        "BELL-1",
        POLL,
        ["} else if owner.go_idle() {", "} else if owner.go_idle() || true {"],
        loom("loom_worker", "bell_1_poller_idle"),
    ),
    row(
        "no fence: CQ_BLOCKED, cq_head",
        "CQ-2",
        SQ,
        ["ring.mem.kernel_fence(Fence::BlockedKernel);", "let _ = Fence::BlockedKernel;"],
        loom("loom_worker", "cq_2_worker_blocked"),
    ),
    row(
        "no second look before blocking",
        "CQ-2",
        SQ,
        ["cq.look(&ring.mem, &ring.posted)?;", "if !said { cq.look(&ring.mem, &ring.posted)?; }"],
        loom("loom_worker", "cq_2_worker_blocked"),
    ),
    row(
        "no fence: posted, watched",
        "BELL-4",
        SQ,
        ["ring.mem.kernel_fence(Fence::PostKernel);", "let _ = Fence::PostKernel;"],
        loom("loom_wait", "bell_4_inline_waiter"),
    ),
    row(
        "no fence: watched, posted",
        "BELL-4",
        CQ,
        ["mem.kernel_fence(Fence::WatchKernel);", "let _ = (mem, Fence::WatchKernel);"],
        loom("loom_wait", "bell_4_inline_waiter"),
    ),
    row(
        "no fence: cq_tail, cq_flags",
        "BELL-4",
        CQ,
        ["mem.kernel_fence(Fence::HintKernel);", "let _ = Fence::HintKernel;"],
        loom("loom_wait", "bell_4_eventfd_wanted_again"),
    ),
    row(
        "REDRAIN not set",
        "BELL-5",
        DRAIN,
        ["fetch_or(OWNED | REDRAIN,", "fetch_or(OWNED,"],
        loom("loom_submit", "bell_5_two_submitters"),
    ),
    row(
        "drain let go whatever was said",
        "BELL-5",
        DRAIN,
        [
            "compare_exchange(OWNED, FREE, at!(DrainRelease, Release), Ordering::Relaxed).is_ok()",
            "swap(FREE, at!(DrainRelease, Release)) != FREE",
        ],
        loom("loom_submit", "bell_5_two_submitters"),
    ),
    row(
        "a bounded drain hands nothing over",
        "BELL-3",
        ENTER,
        ["has done its share.\n        H::work(self);", "has done its share."],
        loom("loom_submit", "bell_3_two_submitters_bounded"),
    ),
    row(
        "a doorbell wakes a worker that has nothing to do",
        "BELL-2",
        ENTER,
        ["if self.count_bell() {", "if self.count_bell() || true {"],
        suite("bell2_bell3_ringing_for_nothing"),
    ),
    // Completions and their slots.
    row(
        "last completion not shown",
        "CQ-1",
        SQ,
        [
            "ring.posted.show(&ring.mem, tail.wrapping_add(taken.posted.into()));",
            "ring.posted.show(&ring.mem, tail.wrapping_add(u64::from(taken.posted).saturating_sub(1)));",
        ],
        suite("sub2_each_entry_has_one_completion"),
    ),
    row(
        "one slot too many",
        "CQ-1",
        CQ,
        ["self.entries.saturating_sub(taken)", "self.entries.saturating_sub(taken).wrapping_add(1)"],
        suite("cq2_a_reaper_that_publishes_late"),
    ),
    row(
        "slot of a skipped success lost",
        "CQ-5",
        CQ,
        ["self.promised = self.promised.wrapping_sub(1);", "let _ = self.promised;"],
        suite("cq1_a_skipped_success_that_comes_later"),
    ),
    row(
        "slot of a success skipped at once lost",
        "CQ-1",
        SQ,
        ["SKIPPED => count(&ring.tally.skipped),", "SKIPPED => sq.stash = sq.stash.wrapping_sub(1),"],
        suite("cq1_skipped_successes_do_not_use_up_slots"),
    ),
    row("user_data not echoed", "SUB-2", SQ, ["*op4 = user_data;", "*op4 = user_data >> 1;"], suite("sub2_user_data")),
    row(
        "skipped success posted anyway",
        "SUB-2",
        SQ,
        ["if word0 & SKIP_SUCCESS != 0 && res >= 0 {", "if word0 & SKIP_SUCCESS != 0 && res > 4095 {"],
        suite("sub2_a_skipped_success_is_silent"),
    ),
    row(
        "an entry leaves fields to the next",
        "SUB-2",
        SQ,
        ["if !ODD && res != ELSEWHERE {", "if ODD && res != ELSEWHERE {"],
        suite("every_other_entry_has_the_same_answer"),
    ),
    row(
        "result words left to the next",
        "SUB-2",
        SQ,
        ["let [c, d] = core::mem::take(&mut intake.op.extra);", "let [c, d] = intake.op.extra;"],
        hostile("random_programs"),
    ),
    row(
        "request without bound takes the reserve",
        "CQ-4",
        REQUEST,
        ["if self.indefinite >= most_indefinite {", "if self.indefinite > most_indefinite {"],
        suite("cq4_requests_without_bound"),
    ),
    row(
        "requests without bound take the last request",
        "CQ-4",
        GEOMETRY,
        ["slots.min(self.max_inflight.saturating_sub(1))", "slots.min(self.max_inflight)"],
        suite("cq4_requests_without_bound_leave_a_request"),
    ),
    row(
        "a parked entry leaves fields to the next",
        "SUB-2",
        SQ,
        ["sq.intake.parked = false;\n    sq.intake.restore();", "sq.intake.parked = false;"],
        Check::Test("sq-conformance", "parked", "sub2_a_parked_entry"),
    ),
    row(
        "an entry beside requests leaves fields to the next",
        "SUB-2",
        SQ,
        ["if !sq.odd && taken.last != ELSEWHERE {", "if false && taken.last != ELSEWHERE {"],
        suite("sub2_an_entry_beside_requests"),
    ),
    row(
        "short way open while others post",
        "CQ-5",
        SQ,
        ["!= NONE && ring.posted.is_owners() {", "!= NONE {"],
        loom("loom_wait", "cq_5_right_to_post"),
    ),
    row(
        "completions shown before the head",
        "IDX-4",
        SQ,
        [
            "ring.mem.store_kernel(KernelWord::SqHead, low(head));\n    show(sq);",
            "show(sq);\n    ring.mem.store_kernel(KernelWord::SqHead, low(head));",
        ],
        loom("loom_submit", "idx_4_room_with_completion"),
    ),
    row(
        "want of requests not mended",
        "CQ-1",
        RING,
        ["matches!(cq.stall, Stall::Slot | Stall::Request)", "matches!(cq.stall, Stall::Slot)"],
        Check::Test("sq-conformance", "parked", "wait1_"),
    ),
    row(
        "slots never given to a block",
        "CQ-2",
        RING,
        ["matches!(cq.stall, Stall::Slot | Stall::Request)", "matches!(cq.stall, Stall::Request)"],
        suite("cq1_a_skipped_success_that_comes_later"),
    ),
    row(
        "a blocked ring's doorbell wakes nobody",
        "CQ-2",
        ENTER,
        ["if self.count_bell() {", "if self.count_bell() && self.cq.with(|cq| cq.stall) != Stall::Slot {"],
        suite("cq2_a_reaper_that_publishes_late"),
    ),
    row(
        "CQ_BLOCKED taken back by a poller that sleeps",
        "CQ-2",
        POLL,
        [
            "// Whoever frees a slot or a request calls Host::work; until then there is nothing to poll for.",
            "owner.go_idle();",
        ],
        suite("wait1_a_waiter_is_woken_when_only_reaping"),
    ),
    // Waiting and being told.
    row(
        "short way open to opcodes given up",
        "SEC-3",
        SQ,
        ["        self.close_short();\n        self.intake.accepts", "        self.intake.accepts"],
        suite("sec3_a_nop_that_was_given_up"),
    ),
    row(
        "short way longer than the queue",
        "IDX-3",
        SQ,
        ["geometry.sq_entries.min(BATCH_U32)", "BATCH_U32"],
        hostile("idx_3_a_tail_too_far_on_the_short_way"),
    ),
    row(
        "EPOLLHUP taken back by a late owner",
        "LIFE-1",
        RING,
        ["let known = stopped & stop::OVER != 0;", "let known = false;"],
        hostile("random_programs"),
    ),
    row(
        "eventfd not told of a break",
        "IDX-3",
        RING,
        [
            "self.mem.store_kernel(KernelWord::Broken, 1);\n            self.notify_all();",
            "self.mem.store_kernel(KernelWord::Broken, 1);",
        ],
        hostile("idx_3_an_eventfd"),
    ),
    row(
        "blocked with nothing to reap ends a wait",
        "WAIT-1",
        ENTER,
        ["cq.is_blocked() && unreaped > 0", "cq.is_blocked()"],
        suite("wait1_goes_on_while_requests_hold_every_slot"),
    ),
    row(
        "blocked ends no wait",
        "WAIT-1",
        ENTER,
        ["cq.is_blocked() && unreaped > 0", "false && cq.is_blocked()"],
        suite("wait1_a_wait_for_what_only_reaping"),
    ),
    row(
        "a wait for more than there can be",
        "WAIT-1",
        ENTER,
        ["enter.min_complete.min(self.geometry.cq_entries)", "enter.min_complete"],
        suite("wait1_min_complete_is_what_there_can_be"),
    ),
    row(
        "a blocked ring's doorbell says nothing",
        "CQ-2",
        ENTER,
        ["unreaped == 0 && cq.is_blocked()", "unreaped != 0 && cq.is_blocked()"],
        suite("slots_held_by_slow_requests"),
    ),
    row(
        "a poller told of the end too early",
        "LIFE-1",
        RING,
        ["quiet && self.posted.inflight() == 0", "self.posted.inflight() == 0"],
        loom("loom_life", "life_1_poller_of_the_end"),
    ),
    row(
        "idle while requests are in flight",
        "WAIT-1",
        ENTER,
        ["self.is_drained() && self.posted.inflight() == 0", "self.is_drained()"],
        loom("loom_wait", "wait_1_idle_waiter_deferred"),
    ),
    row(
        "idle while entries are there",
        "WAIT-1",
        ENTER,
        ["self.is_drained() && self.posted.inflight() == 0", "self.posted.inflight() == 0"],
        loom("loom_wait", "wait_1_idle_waiter_inline"),
    ),
    row(
        "who quiesces not told of a stopped drain",
        "LIFE-1",
        DRAIN,
        ["if back.is_none() && end == End::Stopped {", "if false && back.is_none() && end == End::Stopped {"],
        loom("loom_life", "life_1_quiesce"),
    ),
    row(
        "no wake-up at a block",
        "WAIT-1",
        SQ,
        ["ring.host.notify(Notify { waiters: true, eventfd: false });", "let _ = Notify::default();"],
        loom("loom_wait", "wait_1_blocked_waiter"),
    ),
    row(
        "eventfd not signalled",
        "BELL-4",
        CQ,
        ["waiters: due || self.polled, eventfd }", "waiters: due || self.polled, eventfd: eventfd && !self.eventfd }"],
        suite("bell4_an_eventfd_is_signalled_once_a_batch"),
    ),
    row(
        "suppressed eventfd signalled",
        "BELL-4",
        CQ,
        ["& cq_flags::EVENTFD_DISABLED == 0", "& cq_flags::EVENTFD_DISABLED < 2"],
        suite("bell4_an_eventfd_is_quiet_while_it_is_suppressed"),
    ),
    row(
        "who polls not woken",
        "BELL-4",
        CQ,
        ["waiters: due || self.polled, eventfd }", "waiters: due, eventfd }"],
        loom("loom_worker", "bell_1_worker_enabled"),
    ),
];

// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Does a ring ever stand still while there is work?
 *
 * Two producers, one reaper, a kernel side that drains in their context, by a worker or by a polling thread, and requests that
 * another thread completes: all interleavings, until nothing can happen any more. Then `judge` looks whether all was done. A
 * wake-up that is lost, a slot that is forgotten, a doorbell that nobody rings: each ends there. A run that never ends would be a
 * cycle; runs marked `ends` and `loops` look for one.
 *
 * Each step names the function that it stands for (behind an @, in kmod-sq/src or liburing-shm/src/ring) and the rule of
 * docs/protocol.md that it keeps. Steps that can be left out have a switch, NO_..., and for each of them tests/spin/runs has a run
 * that must fail. `cargo xtask test --stage spin` runs them all, and checks that the functions exist and no switch is forgotten.
 *
 * States of docs/protocol.md: IDLE, DRAINING, BLOCKED and BROKEN are here, and a quiesced ring, and the stall for want of a request.
 * BARRIER is not: IO_DRAIN does not exist yet (DRAIN-1). Nor is NEED_ENTER (entries with plain descriptors), a ring that is set up
 * disabled, or a polling thread that is called off. Every fence of uapi/src/mem.rs is here; the pair in the module's glue by which a
 * ring's end waits for copies (LIFE-2) wakes nobody, and is not.
 *
 * Memory. sq_tail, cq_head and sq_state have a buffer (the _b) where their writer's stores wait until a fence, until the writer lets
 * go of a lock or of the drain, or until `memory` feels like it. Taking a lock does not wait for the buffer, which is weaker than
 * x86-64. A store and the fence behind it are one step: the fence is when others see it. Stale loads, and the private words'
 * orderings, are loom's part (tests/tests/loom_*.rs), where the real code runs; this is about sequences that are too long for it.
 * With STRONG there are no buffers, so that runs that are not about fences stay small.
 *
 * Small: three entries at most, queues of one or two, indices that do not wrap.
 */

#define CALLER 0
#define WORKER 1
#define POLLER 2
#ifndef MODE
#define MODE CALLER
#endif
#ifndef FIRST
#define FIRST 2			/* entries of one producer, */
#endif
#ifndef SECOND
#define SECOND 1		/* and of the other */
#endif
#ifndef SQ
#define SQ 2
#endif
#ifndef CQ
#define CQ 2
#endif
#ifndef REQS
#define REQS 2			/* max_inflight */
#endif
#ifndef PASSES
#define PASSES 1		/* 8 in drain.rs: the bound of a worker, in queue lengths */
#endif
#define TOTAL (FIRST + SECOND)
#ifdef EVENTFD
#define EVENTFDS 1
#else
#define EVENTFDS 0
#endif

/* sq_state, and what it says while the kernel side is awake */
#define NEED_WAKEUP 1
#define CQ_BLOCKED 2
#define AWAKE (MODE == CALLER -> NEED_WAKEUP : 0)

/* drain */
#define FREE 0
#define OWNED 1
#define REDRAIN 2

/* stop */
#define BROKEN 2
#define QUIESCED 4
#define OVER 8

/* why a pass ended; why entries were left behind */
#define EMPTY 0
#define BOUND 1
#define STALLED 2
#define STOPPED 3
#define NOTHING 0
#define SLOT 1
#define REQUEST 2
#define AGAIN 4

/* Shared words. */
byte sq_tail;			/* user: producers, under their lock */
byte cq_head;			/* user: reaper */
bit cq_flags;			/* user: reaper, who does not want the eventfd */
byte sq_state = NEED_WAKEUP;	/* kernel: drain owner */
byte sq_head;			/* kernel; a release store that no handshake is about */
byte cq_tail;			/* kernel: whoever may post; `shown` too */
/* And Posted::watched: written under the lock, looked at without it. */
bit watched = EVENTFDS;
/* What their writers know. */
#ifdef STRONG
#define sq_tail_b sq_tail
#define cq_head_b cq_head
#define cq_flags_b cq_flags
#define sq_state_b sq_state
#define cq_tail_b cq_tail
#define watched_b watched
#else
byte sq_tail_b, cq_head_b, sq_state_b = NEED_WAKEUP, cq_tail_b;
bit cq_flags_b, watched_b = EVENTFDS;
#endif

/* The kernel side's own. */
byte drain, stop;
byte head, stash, batched;	/* drain owner */
bit spare;			/* drain owner: a request is set aside */
/* What the completion lock protects. */
bit cq_lock;			/* held over several steps, by a waiter only */
byte tail, seen, reserved, consumed;	/* posted.tail, cq.head, what is promised beyond the tail, posted.consumed */
byte stall, wake_at;		/* wake_at: 0, or one more than the tail that is waited for */
bit polled, idle_waiter;
byte later, quiet, endless, canceled;	/* in flight: to be completed; without completion; ended only by a cancel; being canceled */
bit queued;			/* the worker, or polling thread, is asked for */

/* The user side's. */
bit user_lock;
bit reaper_asleep, quiescer_asleep;	/* on the ring's wait queue */
bit told, gone;			/* the reaper knows that the ring has stopped; it has ended */
bit signalled;			/* the eventfd */
bit quiesced;			/* QUIESCE has returned */

/* For the judge. */
byte silent;			/* successes that nobody wanted to hear of */

#define INFLIGHT (later + quiet + endless + canceled)
#ifdef CANCEL
#define CANCELS true
#else
#define CANCELS false
#endif
/* Nothing that is published will lead to one more completion by itself. */
#define ALL_CAME (consumed == TOTAL && later == 0 && quiet == 0 && canceled == 0 && cq_tail == tail && !(CANCELS && endless > 0))
/* The reaper has no more to wait for; of a ring that is quiesced it waits for EPOLLHUP. */
#if defined(QUIESCE) && defined(POLL_ONLY)
#define FINISHED false
#else
#define FINISHED (ALL_CAME && cq_tail == took)
#endif

#if defined(HOSTILE) || defined(HOSTILE_TAIL) || defined(QUIESCE)
#define IS_STOPPED (stop != 0)
#else
#define IS_STOPPED false
#endif

#define LOCALS byte span, most, done, total, bound, why, n, kind; bit mine, dry, deferred, got, kept, said, ok, wakes, out, again
/* What a call leaves in its locals means nothing to the next one. */
#define RESET atomic { span = 0; most = 0; done = 0; bound = 0; why = 0; n = 0; got = 0; kept = 0; wakes = 0; again = 0; ok = 0; dry = 0 }

/*
 * A section under the completion lock is one step, with the wake-ups that follow it: it looks at one shared word. What only the drain
 * owner touches goes with the step before.
 */
#define CQ_5 (reserved + (tail - seen) <= CQ && INFLIGHT <= reserved)
#define locked cq_lock == 0
#define DRY (stash == 0 || !spare)	/* the next entry has no slot, or no request */

/* Host::notify and Host::work. The home has put sleepers on its queue before they look. */
inline notify() { atomic { reaper_asleep = 0; quiescer_asleep = 0 } }
inline work() { queued = 1 }

/* @ cq.rs look: IDX-3. Under the lock. */
inline look() {
	out = (cq_head < seen || cq_head > tail);
	if :: !out -> seen = cq_head :: else fi
}

/* @ cq.rs reserve_all: CQ-1 */
inline reserve_all() { n = CQ - (tail - seen) - reserved; reserved = reserved + n; stash = stash + n; n = 0 }

/* @ cq.rs whom and watchers: BELL-4. Under the lock. */
inline whom(posted, look_idle) {
	wakes = 0;
	if :: posted && wake_at > 0 && tail + 1 >= wake_at -> wake_at = 0; wakes = 1 :: else fi;
	if :: posted && polled -> wakes = 1 :: else fi;
	if :: look_idle && idle_waiter -> idle_waiter = 0; wakes = 1 :: else fi;
#ifdef EVENTFD
	/* Behind a fence, which is in `settle`: the drain owner has fenced. */
	if :: posted && !cq_flags -> signalled = 1 :: else fi;
#endif
	watched_b = (wake_at > 0 || polled || idle_waiter || EVENTFDS); watched = watched_b
}

/* @ ring.rs break_ring: IDX-3. Says so, wakes everybody, has a worker cancel what is in flight. */
inline break_ring() {
	atomic { ok = (stop & BROKEN) == 0; stop = stop | BROKEN };
	if
	:: ok ->
#ifndef NO_BREAK_NOTIFY
		notify();
#endif
#ifndef NO_BREAK_WORK
		work()
#else
		skip
#endif
	:: else
	fi
}

/* @ cancel.rs cancel_everything: CAN-1. The driver completes what it is told of. */
inline cancel_everything() { atomic { locked -> canceled = canceled + endless; endless = 0 } }

/* @ ring.rs settle: SUB-2, CQ-1, BELL-4. A completion from any thread. `kind` is the count that it comes from. */
inline settle(kind, posts) {
	kind--;
	if
	:: posts -> reserved--; tail++; cq_tail_b = tail;
#ifndef NO_FENCE_HINT_KERNEL
		cq_tail = cq_tail_b
#endif
	:: else -> silent++;
#ifndef NO_UNRESERVE
		reserved--
#else
		skip
#endif
	fi;
	whom(posts, INFLIGHT == 0);
	if :: wakes -> notify() :: else fi;
	wakes = 0;
	if
#ifndef NO_SETTLE_WORK
	:: stall == SLOT || stall == REQUEST -> stall = NOTHING; work()
#endif
	:: else
	fi;
	assert(CQ_5)
}

/* @ sq.rs set_state: IDX-2, compares with its private copy */
inline set_state(state) { sq_state_b = state }

/* @ drain.rs own: BELL-5. Becomes the owner, or leaves word. */
inline own() {
	atomic { got = (drain == FREE); if :: got -> drain = OWNED :: else fi };
#ifndef NO_KNOCK
	if
	:: !got -> atomic { got = (drain == FREE); drain = OWNED | REDRAIN }
	:: else
	fi
#endif
}

/* @ drain.rs drain_is_free: LIFE-1. If not, the owner looks again before it lets go. */
inline drain_is_free(free) {
	atomic {
		free = (drain == FREE);
#ifndef NO_QUIET_KNOCK
		if :: !free -> drain = OWNED | REDRAIN :: else fi
#endif
	}
}

/* @ drain.rs tell_quiescer: LIFE-1 */
inline tell_quiescer() {
#if defined(QUIESCE) && !defined(NO_TELL_QUIESCER)
	if :: stop & QUIESCED -> notify() :: else fi
#else
	skip
#endif
}

/* @ drain.rs release and leave: BELL-5. Clearing the owner and looking whether somebody rang is one step. */
inline leave() {
	atomic {
		sq_state = sq_state_b; cq_tail = cq_tail_b;
#ifndef NO_REDRAIN
		kept = (drain != OWNED);
#endif
		if :: !kept -> drain = FREE :: else fi
	};
	if
	:: kept -> drain = OWNED
	:: else -> if :: why == STOPPED -> tell_quiescer() :: else fi
	fi
}

/* @ drain.rs abandon: BELL-3. The caller has a worker look again. */
inline abandon() { atomic { sq_state = sq_state_b; cq_tail = cq_tail_b; drain = FREE }; tell_quiescer() }

/* @ drain.rs cancel_late: LIFE-1, CAN-1. What was issued meanwhile was too late for the cancel that came with the stop, and nothing is waited for. */
inline cancel_late() {
	if
	:: IS_STOPPED ->
		atomic {
			locked ->
#ifndef NO_LATE_STALL
			stall = NOTHING;
#endif
#ifndef NO_LATE_STATE
			set_state(NEED_WAKEUP)
#endif
		};
#ifndef NO_CANCEL_LATE
		cancel_everything()
#endif
	:: else
	fi
}

/*
 * @ sq.rs publish: IDX-4, CQ-1. Shows what was consumed and completed: `mine`, alone, while nothing was in flight, @ posted.rs is_owners,
 * else under the lock. A request of this stretch is in flight from here on. Then looks who wants to be told @ sq.rs tell: BELL-4.
 */
inline publish() {
	atomic {
		mine || locked ->
		assert(batched == 0 || !(stop & OVER) /* LIFE-1: nothing comes after EPOLLHUP */);
		sq_head = head;
		reserved = reserved - batched; tail = tail + batched; cq_tail_b = tail;
		if :: !mine -> cq_tail = cq_tail_b :: else fi;
		batched = 0
	};
	if :: deferred -> atomic { locked -> deferred = 0; began(); cq_tail = cq_tail_b; sq_state = sq_state_b } :: else fi;
	atomic {
		consumed = head; mine = 0; dry = DRY;
#ifndef NO_FENCE_POST_KERNEL
		cq_tail = cq_tail_b; sq_state = sq_state_b
#endif
	};
	if
	:: watched -> atomic { locked -> whom(true, true); if :: wakes -> notify() :: else fi; wakes = 0; cq_tail = cq_tail_b; sq_state = sq_state_b }
	:: else
	fi
}

/* @ sq.rs stock: CQ-2. A slot and a request for the next entry, or whoever frees one is charged with going on. -> n */
inline stock() {
	said = 0;
	do
	:: 	atomic {
			locked ->
			if :: stash == 0 -> look(); if :: !out -> reserve_all() :: else fi :: else fi;
			if :: !out && !spare && INFLIGHT < REQS -> spare = 1 :: else fi;
			if
			:: out -> n = STOPPED
			:: else ->
				if
				:: stash == 0 && !said -> n = AGAIN
				:: stash == 0 && said -> n = SLOT
				:: stash > 0 && !spare -> n = REQUEST
				:: stash > 0 && spare -> n = NOTHING
				fi;
				if :: n != AGAIN -> stall = n :: else fi
			fi;
			assert(CQ_5);
			if
			:: n == NOTHING || n == REQUEST -> set_state(AWAKE)	/* a request, only the kernel side can free */
#ifndef NO_STALL_NOTIFY
			/* WAIT-1: that the ring is blocked ends a wait. */
			:: n == SLOT -> notify()
#endif
			:: else
			fi
		};
		if
		:: n == AGAIN ->
			/* Either the reaper sees this, or the second look sees its cq_head. */
			atomic {
				said = 1;
				set_state(CQ_BLOCKED);
#ifndef NO_FENCE_BLOCKED_KERNEL
				sq_state = sq_state_b
#endif
			};
#ifdef NO_RECHECK_BLOCKED
			atomic { n = SLOT; stall = SLOT; notify() };
			break
#endif
		:: else -> break
		fi
	od;
	said = 0;
	if :: out -> out = 0; break_ring() :: else fi
}

/* @ sq.rs consume: SNAP-1, SUB-2. One entry: completes at once, or silently, or later, or never by itself; the last two end a stretch. */
inline issue() {
	if
	:: batched++; stash--
#ifdef SKIPS
	:: silent++; n = AGAIN;
#ifdef NO_SKIP_RETURN
		stash--
#else
		skip			/* its slot goes back where it came from */
#endif
	:: deferred = 1; kind = 1; spare = 0; stash--; n = AGAIN
#endif
#ifdef DEFERS
	:: deferred = 1; kind = 2; spare = 0; stash--; n = AGAIN
#endif
#ifdef ENDLESS
	:: endless + canceled == 0 -> deferred = 1; kind = 3; spare = 0; stash--; n = AGAIN /* CQ-4: one slot and one request are kept */
#endif
	fi;
	head++;
	done++
}

/* @ issue.rs hand_over: CAN-1. The driver may complete it from now on, and a cancel finds it. */
inline began() {
	assert(!(stop & OVER) /* LIFE-1 */);
	if
	:: kind == 1 -> quiet++
	:: kind == 2 -> later++
	:: kind == 3 -> endless++
	fi;
	kind = 0
}

/* @ sq.rs pass: IDX-3, IDX-4. Consumes what is published, or `bound` of it. -> done, why */
inline pass() {
	atomic {
		done = 0;
		if
		:: IS_STOPPED -> why = STOPPED; most = 0
		:: else ->
			span = sq_tail - head;
			out = (span > SQ);
			if :: out -> span = 0 :: else fi;
			most = (span < bound -> span : bound);
			why = (most == span -> EMPTY : BOUND)
		fi;
		dry = DRY
	};
	if
	:: out -> out = 0; why = STOPPED; break_ring()
	:: !out && most > 0 ->
		do
		:: 	if
			:: dry ->
				stock();
				if
				:: n == STOPPED -> why = STOPPED; break
				:: n == SLOT || n == REQUEST -> why = (IS_STOPPED -> STOPPED : STALLED); break
				:: n == NOTHING
				fi
			:: else
			fi;
#ifdef WAITS
			/* An operation may take until another has ended (LOCK-1: no lock is held). */
			if :: skip -> endless + canceled == 0 :: skip fi;
#endif
			/* @ sq.rs stretch: IDX-4, CQ-5 */
			atomic {
				n = NOTHING;
				mine = (INFLIGHT == 0);
				do
				:: n == NOTHING && done < most && stash > 0 -> issue()
				:: else -> break
				od;
				n = NOTHING
			};
			publish();
			if
			:: done == most -> break
			:: done < most && IS_STOPPED -> why = STOPPED; break
			:: else
			fi
		od
	:: else
	fi;
	/* @ drain.rs run: LIFE-1 */
	if :: why == STOPPED -> cancel_late() :: else fi
}

#ifdef NO_IDLE_STOP
#define LOOKS_AT_STOP false
#else
#define LOOKS_AT_STOP IS_STOPPED
#endif
/* @ drain.rs go_idle: BELL-1. -> ok: nothing came, or nothing is accepted. */
inline go_idle() {
	atomic {
		ok = 1;
		set_state(NEED_WAKEUP);
#if MODE != CALLER && !defined(NO_FENCE_BELL_KERNEL)
		sq_state = sq_state_b
#endif
	};
#if MODE != CALLER && !defined(NO_RECHECK_IDLE)
	atomic { if :: sq_tail == head || LOOKS_AT_STOP :: else -> set_state(0); ok = 0 fi }
#endif
}

/* @ drain.rs work: BELL-1, BELL-3. What a worker does. */
inline work_once() {
	if :: IS_STOPPED -> cancel_everything() :: else fi;
	own();
	if
	:: got ->
#if MODE != CALLER
		set_state(0);			/* @ drain.rs wake: BELL-2 */
#endif
		bound = SQ * PASSES;
		do
		:: 	pass();
			bound = bound - (done > 1 -> done : 1);
			again = (why == BOUND);
			if
			:: why == EMPTY || why == STOPPED -> go_idle(); again = !ok
			:: else
			fi;
			if
			:: again && bound > 0 -> skip
			:: else ->
				leave();
				if
				:: !kept -> break
				:: kept && bound > 0 -> skip
				:: else ->
					abandon();
#ifndef NO_ABANDON_WORK
					again = 1;
#endif
					break
				fi
			fi
		od;
		if :: again -> work() :: else fi
	:: else
	fi;
	RESET
}

/* @ poll.rs poll_awake: BELL-1, BELL-2. One turn or more: the polling thread owns the drain while it is awake. */
inline poll_awake() {
	do
	:: 	if :: IS_STOPPED && (stop & BROKEN) -> cancel_everything() :: else fi;
		own();
		if :: !got -> break :: else fi;
		set_state(0);
		do
		:: 	bound = SQ;
			if
			:: IS_STOPPED -> cancel_late(); done = 0; why = STOPPED
			:: else -> pass()
			fi;
			if
			:: why == STOPPED -> go_idle(); if :: ok -> break :: else fi
			:: why == BOUND || (why != STOPPED && done > 0) -> skip
			:: why == STALLED && done == 0 -> break
			:: else ->
				/* It looks until there is something, or its time is up. */
				if
				:: (sq_tail != head || stop != 0) -> skip
				:: go_idle(); if :: ok -> break :: else fi
				fi
			fi
		od;
		leave();				/* @ poll.rs leave: BELL-5 */
		if
		:: !kept -> break
		:: else -> abandon()
		fi
	od;
	RESET
}

/* @ enter.rs bell and drain: BELL-2, BELL-3. The short way is a pass, too. -> total */
inline bell() {
	total = 0;
#if MODE == CALLER
	own();
	if
	:: got && IS_STOPPED ->
		cancel_late();
		why = STOPPED; leave();
		if :: kept -> abandon(); work() :: else fi
	:: got && !IS_STOPPED ->
		bound = SQ;
		do
		:: 	pass();
			total = total + done;
			if :: why == EMPTY || why == STOPPED -> go_idle() :: else fi;
			leave();
			if
			:: !kept && why == BOUND -> again = 1; break
			:: !kept && why != BOUND -> break
			:: else
			fi;
			bound = bound - (done > 1 -> done : 1);
			if :: bound == 0 -> abandon();
#ifndef NO_ABANDON_WORK
				again = 1;
#endif
				break
			:: else fi
		od;
#ifndef NO_BOUND_WORK
		if :: again -> work() :: else fi;	/* BELL-3 */
#endif
	:: else
	fi;
	RESET
#else
	/* @ enter.rs bell_elsewhere and count_bell: BELL-2 */
	atomic { locked -> if :: sq_tail != consumed && !IS_STOPPED -> work() :: else fi }
#endif
}

/* @ enter.rs doorbell and nothing_consumed: IDX-3. Looks at cq_head when it consumed nothing, and so finds out that it is out of its window. */
inline doorbell() {
	bell();
	if
	:: total == 0 ->
		atomic { locked -> if :: !IS_STOPPED -> look() :: else fi };
		if :: out -> out = 0; break_ring() :: else fi
	:: else
	fi;
	total = 0
}

proctype producer(byte wants) {
	LOCALS;
	byte pushed;
	bit ring;

	do
	:: pushed == wants -> break
	:: pushed < wants ->
		/* A full queue refuses an entry; its owner tries again. */
		atomic {
			user_lock == 0 && (sq_tail_b - sq_head < SQ || stop != 0) -> user_lock = 1;
			if :: stop != 0 -> user_lock = 0; break :: else fi;
#ifdef HOSTILE_TAIL
			if :: sq_tail_b = sq_head + SQ + 1; sq_tail = sq_tail_b; pushed = wants; ring = 1; user_lock = 0; goto rings :: skip fi;
#endif
			/* @ producer.rs publish: IDX-4, one entry or all there is room for */
			if
			:: sq_tail_b++; pushed++
			:: pushed + 2 <= wants && sq_tail_b + 2 - sq_head <= SQ -> sq_tail_b = sq_tail_b + 2; pushed = pushed + 2
			fi;
#if MODE == CALLER || !defined(NO_FENCE_BELL_USER)
			/* BELL-1's fence, or the lock that is let go of */
			sq_tail = sq_tail_b;
#endif
#if MODE == CALLER
			ring = 1; user_lock = 0
#endif
		};
#if MODE != CALLER
		/* @ producer.rs needs_doorbell: BELL-1 */
		ring = ((sq_state & NEED_WAKEUP) != 0);
#ifdef NO_RING_WAKEUP
		ring = 0;
#endif
		atomic { sq_tail = sq_tail_b; user_lock = 0 };
#endif
rings:		if :: ring -> ring = 0; doorbell() :: else fi
	od
}

/* @ consumer.rs release: CQ-2. Publishes what was reaped, rings if the ring is blocked. */
inline publish_reaped() {
	atomic {
		cq_head_b = took;
#ifndef NO_FENCE_BLOCKED_USER
		cq_head = cq_head_b
#endif
	};
#ifndef NO_RING_BLOCKED
	if :: sq_state & CQ_BLOCKED -> doorbell() :: else fi
#endif
}

/* BLOCKED ends a wait if there is something to reap: else a request has each slot, and one of them ends by itself. */
#ifdef NO_WAIT_FOR_HELD
#define TO_REAP true
#else
#define TO_REAP (cq_tail != seen)
#endif
inline over() {
	atomic {
		look();
		ok = out;
		if
		:: !out && cq_tail - seen >= goal -> ok = 1
		:: !out && cq_tail - seen < goal && stall == SLOT && CQ - (tail - seen) - reserved == 0 && TO_REAP ->
			ok = 1;
			assert(cq_tail != took /* WAIT-1: who is told to reap has something to reap */)
		:: else
		fi
	}
}

/* @ enter.rs awaited: WAIT-1, BELL-4. -> ok: over; out: cq_head is out of its window */
inline awaited() {
	atomic { reaper_asleep = 1; if :: stop != 0 -> told = 1; ok = 1 :: else fi };
	if
	:: told
	:: else ->
		/* Says what it waits for, and looks again: a poster that it does not see sees it. */
		atomic { locked -> cq_lock = 1; over(); if :: !ok -> wake_at = seen + goal + 1; watched_b = 1 :: else fi };
#ifndef NO_FENCE_WATCH_KERNEL
		watched = watched_b;
#endif
#ifndef NO_RECHECK_WATCH
		if :: !ok -> over() :: else fi;
#endif
		atomic { watched = watched_b; cq_lock = 0 }
	fi
}

/* The one reaper: takes what is there, publishes when it likes but before it sleeps, sleeps as poll(2) does or in ENTER. */
active proctype reaper() {
	LOCALS;
	byte took, goal;
	bit struck, knew, shut, after, free;

	do
	:: told -> break
	:: !told && FINISHED -> break
	:: atomic {
			!told && cq_tail > took ->
			if
			:: took++
			:: cq_tail - took == 2 -> took = took + 2
			fi;
			cq_head_b = took
		};
		publish_reaped()
#ifdef HOSTILE
	:: !told && !struck ->
		/* Beyond what was posted, or back: where that is not noticed, it is a reaper that publishes late. */
		struck = 1;
		if
		:: cq_head_b = cq_tail + 1
		:: took > 0 -> cq_head_b = took - 1
		fi;
		cq_head = cq_head_b;
		atomic { locked -> look() };	/* as any ENTER or poll does */
		if :: out -> out = 0; break_ring() :: else fi;
		if :: stop != 0 -> told = 1 :: else -> publish_reaped() fi
#endif
#ifdef EVENTFD
	:: !told && cq_tail == took && !FINISHED ->
		/* @ consumer.rs hint: BELL-4. Wants to be told again, and looks again: while it is awake it does not. */
		atomic {
			cq_flags_b = 0;
#ifndef NO_FENCE_HINT_USER
			cq_flags = cq_flags_b
#endif
		};
		if
#ifndef NO_RECHECK_HINT
		:: cq_tail > took
#endif
		:: else -> if :: signalled -> signalled = 0 :: FINISHED fi
		fi;
		cq_flags_b = 1
#endif
#if !defined(ENTER_ONLY) && !defined(EVENTFD)
	:: !told && cq_tail == took && !FINISHED ->
		/* @ ring.rs poll: BELL-4, LIFE-1 */
		atomic { reaper_asleep = 1; knew = ((stop & OVER) != 0); shut = ((stop & QUIESCED) != 0); after = quiesced; free = knew };
		if :: shut && !knew -> drain_is_free(free) :: else fi;
		atomic {
			locked ->
			polled = 1; watched_b = 1; watched = 1;
#ifndef NO_POLL_IDLE
			if :: shut -> idle_waiter = 1 :: else fi;
#endif
			look();
			ok = (!out && cq_tail > seen);
			free = free && INFLIGHT == 0
		};
		if :: out -> out = 0; break_ring() :: else fi;
		assert(!after || free /* LIFE-1: after QUIESCE, EPOLLHUP is there for whoever asks */);
		if
		:: free -> stop = stop | OVER; told = 1
		:: !free && (stop & BROKEN) -> told = 1
		:: !free && !(stop & BROKEN) && ok -> skip
		:: !free && !(stop & BROKEN) && !ok -> if :: reaper_asleep == 0 :: FINISHED fi
		fi;
		ok = 0; free = 0; knew = 0; shut = 0; after = 0
#endif
#if !defined(POLL_ONLY) && !defined(EVENTFD)
	:: !told && cq_tail == took && !FINISHED ->
		/* @ enter.rs enter and sleep: WAIT-1 */
		if
		:: goal = 1
#ifdef GOAL
		:: goal = CQ
#endif
		fi;
		bell(); total = 0;
		do
		:: told -> break
		:: else ->
			awaited();
			if :: out -> out = 0; break_ring(); told = 1 :: else fi;
			if
			:: ok || told -> break
			:: !ok && !told ->
				/* Asleep, unless what it waits for cannot come: then a timeout ends it. */
				if
				:: reaper_asleep == 0
				:: ALL_CAME && cq_tail - took < goal -> break
				fi
			fi
		od;
		ok = 0; goal = 0
#endif
	od;
	reaper_asleep = 0; gone = 1
}

#if MODE == POLLER
active proctype poller() {
	LOCALS;
end:	do :: atomic { queued -> queued = 0 }; poll_awake() od
}
#else
active proctype worker() {
	LOCALS;
end:	do :: atomic { queued -> queued = 0 }; work_once() od
}
#endif

/* Drivers. What may wait without bound ends only when it is canceled. */
#if defined(SKIPS) || defined(DEFERS) || defined(ENDLESS)
active proctype drivers() {
	bit wakes;
end:	do
	:: atomic { later > 0 && locked -> settle(later, 1) }
	:: atomic { quiet > 0 && locked -> settle(quiet, 0) }
	:: atomic { canceled > 0 && locked -> settle(canceled, 1) }
	od
}
#endif

#ifndef STRONG
/* Stores reach memory. */
active proctype memory() {
end:	do
	:: sq_tail != sq_tail_b -> sq_tail = sq_tail_b
	:: cq_head != cq_head_b -> cq_head = cq_head_b
	:: sq_state != sq_state_b -> sq_state = sq_state_b
	:: cq_tail != cq_tail_b -> cq_tail = cq_tail_b
	:: watched != watched_b -> watched = watched_b
	:: cq_flags != cq_flags_b -> cq_flags = cq_flags_b
	od
}
#endif

#ifdef CANCEL
/* The way out when requests hold what others wait for. CANCEL needs no entry, no slot and no drain. */
active proctype canceler() {
end:	do :: atomic { endless > 0 && locked -> cancel_everything() } od
}
#endif

#ifdef QUIESCE
/* @ cancel.rs quiesce: LIFE-1 */
active proctype quiescer() {
	bit ok;
	/* @ cancel.rs shut: LIFE-1 */
	atomic { stop = stop | QUIESCED };
#ifndef NO_SHUT_NOTIFY
	notify();
#endif
	/* At once: whoever drains may be in an operation that waits for one of these. */
#ifndef NO_CANCEL_FIRST
	cancel_everything();
#endif
	do
	:: 	atomic { quiescer_asleep = 1; drain_is_free(ok) };
		if :: ok -> break :: else -> quiescer_asleep == 0 fi
	od;
	/* Whoever owns the drain next says that nothing is waited for. */
#ifndef NO_QUIESCE_WORK
	atomic { locked -> if :: stall != NOTHING -> work() :: else fi };
#endif
	/* What was issued between the first one and the end of that drain. */
#ifndef NO_CANCEL_AGAIN
	cancel_everything();
#endif
	do
	:: 	atomic {
			locked ->
			quiescer_asleep = 1;
#ifndef NO_IDLE_WAITER
			idle_waiter = 1;
#endif
			watched_b = 1; watched = 1; ok = (INFLIGHT == 0)
		};
		if :: ok -> break :: else -> quiescer_asleep == 0 fi
	od;
	atomic {
		quiescer_asleep = 0;
#ifndef NO_OVER
		stop = stop | OVER;
#endif
		quiesced = 1;
		assert(INFLIGHT == 0)
	}
}
#endif

/* When nothing can happen any more: all is done, or the ring is stopped and everybody knows. */
active proctype judge() {
	timeout ->
	assert(drain == FREE && queued == 0);
	assert(gone /* BELL-4, WAIT-1: the reaper was woken, and told */);
#ifdef QUIESCE
	assert(quiesced /* LIFE-1: QUIESCE returns */);
#endif
	if
	:: stop == 0 ->
		assert(sq_tail == TOTAL /* BELL-1: all could be published */);
		assert(head == TOTAL /* BELL-1, BELL-3, BELL-5, CQ-2: all was consumed */);
		assert(later == 0 && quiet == 0 && canceled == 0 /* CAN-1 */);
		assert(tail + silent + endless == TOTAL /* SUB-2, CQ-1: one outcome for each */);
		assert(cq_head == tail /* all was reaped */);
		assert(reserved == stash + endless /* CQ-5: no slot is forgotten */)
	:: else ->
		assert(INFLIGHT == 0 /* IDX-3, LIFE-1: what was in flight is canceled */);
		assert(stall == NOTHING && sq_state == NEED_WAKEUP /* LIFE-1: nothing is waited for, and nobody need ring for it */)
	fi
}

init {
	atomic {
		run producer(FIRST);
#if SECOND > 0
		run producer(SECOND)
#endif
	}
}

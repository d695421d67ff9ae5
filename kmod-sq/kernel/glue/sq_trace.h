/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Tracepoints, below events/sq in tracefs. `ring` is fdinfo's. */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM sq

#if !defined(_SQ_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define _SQ_TRACE_H

#include <linux/tracepoint.h>

/* An ENTER returns: entries that it consumed itself or an error, and how its wait ended. */
TRACE_EVENT(sq_enter,
	TP_PROTO(u64 ring, long ret, u32 min_complete, s32 wait_result),
	TP_ARGS(ring, ret, min_complete, wait_result),
	TP_STRUCT__entry(
		__field(u64, ring)
		__field(long, ret)
		__field(u32, min_complete)
		__field(s32, wait_result)
	),
	TP_fast_assign(
		__entry->ring = ring;
		__entry->ret = ret;
		__entry->min_complete = min_complete;
		__entry->wait_result = wait_result;
	),
	TP_printk("ring=%llu ret=%ld min_complete=%u wait_result=%d", __entry->ring, __entry->ret,
		  __entry->min_complete, __entry->wait_result)
);

/* The framework refuses an entry. */
TRACE_EVENT(sq_reject,
	TP_PROTO(u64 ring, u64 user_data, u8 opcode, s32 res),
	TP_ARGS(ring, user_data, opcode, res),
	TP_STRUCT__entry(
		__field(u64, ring)
		__field(u64, user_data)
		__field(u8, opcode)
		__field(s32, res)
	),
	TP_fast_assign(
		__entry->ring = ring;
		__entry->user_data = user_data;
		__entry->opcode = opcode;
		__entry->res = res;
	),
	TP_printk("ring=%llu user_data=%#llx opcode=%u res=%d", __entry->ring, __entry->user_data, __entry->opcode,
		  __entry->res)
);

/* A completion was posted. The functions tell Rust, which asks once a batch. */
int sq_trace_complete_on(void);
void sq_trace_complete_off(void);

TRACE_EVENT_FN(sq_complete,
	TP_PROTO(u64 ring, u64 user_data, s32 res),
	TP_ARGS(ring, user_data, res),
	TP_STRUCT__entry(
		__field(u64, ring)
		__field(u64, user_data)
		__field(s32, res)
	),
	TP_fast_assign(
		__entry->ring = ring;
		__entry->user_data = user_data;
		__entry->res = res;
	),
	TP_printk("ring=%llu user_data=%#llx res=%d", __entry->ring, __entry->user_data, __entry->res),
	sq_trace_complete_on, sq_trace_complete_off
);

/* The drain stops, with entries left: no completion slot is free, or no request. */
TRACE_EVENT(sq_stall,
	TP_PROTO(u64 ring, bool slots),
	TP_ARGS(ring, slots),
	TP_STRUCT__entry(
		__field(u64, ring)
		__field(bool, slots)
	),
	TP_fast_assign(
		__entry->ring = ring;
		__entry->slots = slots;
	),
	TP_printk("ring=%llu for=%s", __entry->ring, __entry->slots ? "slots" : "requests")
);

#endif /* _SQ_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE sq_trace
#include <trace/define_trace.h>

// SPDX-License-Identifier: MIT OR Apache-2.0
/* Tracepoints that Rust reaches. All is cold: completions only come here while somebody traces them. */
#include "glue.h"

#define CREATE_TRACE_POINTS
#include "sq_trace.h"

/* kernel/src/host.rs looks at it once a batch. It may see it late: a trace begins and ends anywhere. */
int sq_completions_traced;

int sq_trace_complete_on(void)
{
	WRITE_ONCE(sq_completions_traced, 1);
	return 0;
}

void sq_trace_complete_off(void)
{
	WRITE_ONCE(sq_completions_traced, 0);
}

void sq_trace_reject(struct sq_home *home, u64 user_data, u8 opcode, s32 res)
{
	trace_sq_reject(home->id, user_data, opcode, res);
}

void sq_trace_complete(struct sq_home *home, u64 user_data, s32 res)
{
	trace_sq_complete(home->id, user_data, res);
}

void sq_trace_stall(struct sq_home *home, bool slots)
{
	trace_sq_stall(home->id, slots);
}

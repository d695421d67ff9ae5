// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * The signal mask of one ENTER, as ppoll() has it: set_user_sigmask() and
 * __set_current_blocked() are not exported, sigprocmask() is.
 */
#include <linux/sched/signal.h>
#include <linux/signal.h>

#include "glue.h"

static_assert(sizeof(sigset_t) == sizeof(u64));

void sq_sigmask_begin(u64 mask)
{
	sigset_t set = { .sig = { mask } };

	/* sigprocmask() is the kernel's own: it would let these two be blocked. */
	sigdelsetmask(&set, sigmask(SIGKILL) | sigmask(SIGSTOP));
	current->saved_sigmask = current->blocked;
	set_restore_sigmask();
	sigprocmask(SIG_SETMASK, &set, NULL);
}

void sq_sigmask_end(bool interrupted)
{
	/* The handler runs under the temporary mask; returning from it restores ours. */
	if (interrupted && signal_pending(current))
		return;
	clear_restore_sigmask();
	sigprocmask(SIG_SETMASK, &current->saved_sigmask, NULL);
}

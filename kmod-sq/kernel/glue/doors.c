// SPDX-License-Identifier: MIT OR Apache-2.0
/* What the doors without a ring need of their caller: its memory, and sleep. */
#include <linux/completion.h>
#include <linux/hrtimer.h>
#include <linux/kthread.h>
#include <linux/mmu_context.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/uaccess.h>

#include "glue.h"

/* kernel/src/caller.rs sets this much aside; lockdep makes a completion larger. */
#define SQ_EVENT_BYTES 128
static_assert(sizeof(struct completion) <= SQ_EVENT_BYTES);
static_assert(__alignof__(struct completion) <= 8);

/* SNAP-1: each word is loaded once. */
int sq_copy_entry(u64 *dst, u64 addr)
{
	const u64 __user *src = u64_to_user_ptr(addr);

	if (!user_access_begin(src, sizeof(struct sq_sqe)))
		return -EFAULT;
	unsafe_get_user(dst[0], src, fault);
	unsafe_get_user(dst[1], src + 1, fault);
	unsafe_get_user(dst[2], src + 2, fault);
	unsafe_get_user(dst[3], src + 3, fault);
	unsafe_get_user(dst[4], src + 4, fault);
	unsafe_get_user(dst[5], src + 5, fault);
	unsafe_get_user(dst[6], src + 6, fault);
	unsafe_get_user(dst[7], src + 7, fault);
	user_access_end();
	return 0;
fault:
	user_access_end();
	return -EFAULT;
}

int sq_caller_copy_in(void *dst, u64 addr, size_t len)
{
	return len > INT_MAX || copy_from_user(dst, u64_to_user_ptr(addr), len) ? -EFAULT : 0;
}

int sq_caller_copy_out(u64 addr, const void *src, size_t len)
{
	return len > INT_MAX || copy_to_user(u64_to_user_ptr(addr), src, len) ? -EFAULT : 0;
}

struct mm_struct *sq_caller_mm(void)
{
	mmgrab(current->mm);
	return current->mm;
}

void sq_caller_mm_put(struct mm_struct *mm)
{
	mmdrop(mm);
}

/* Makes it the running thread's own: another process's memory is none of a driver's business, a kernel thread has none. */
bool sq_caller_mm_enter(struct mm_struct *mm)
{
	if (!(current->flags & PF_KTHREAD) || current->mm || !mmget_not_zero(mm))
		return false;
	kthread_use_mm(mm);
	return true;
}

void sq_caller_mm_leave(struct mm_struct *mm)
{
	write_pkru(SQ_PKRU_KTHREAD);
	kthread_unuse_mm(mm);
	/* The last user of an mm unmaps it all, which may end in a release() of ours: not here. */
	mmput_async(mm);
}

int sq_caller_mm_copy_in(struct mm_struct *mm, void *dst, u64 addr, size_t len)
{
	int err;

	if (current->mm == mm)
		return sq_caller_copy_in(dst, addr, len);
	if (!sq_caller_mm_enter(mm))
		return -EFAULT;
	err = sq_caller_copy_in(dst, addr, len);
	sq_caller_mm_leave(mm);
	return err;
}

int sq_caller_mm_copy_out(struct mm_struct *mm, u64 addr, const void *src, size_t len)
{
	int err;

	if (current->mm == mm)
		return sq_caller_copy_out(addr, src, len);
	if (!sq_caller_mm_enter(mm))
		return -EFAULT;
	err = sq_caller_copy_out(addr, src, len);
	sq_caller_mm_leave(mm);
	return err;
}

/*
 * An event is a completion on its waiter's stack. That is safe: complete() is
 * done with it when it lets go of its lock, and the waiter takes that lock.
 */
void sq_event_new(void *event)
{
	init_completion((struct completion *)event);
}

void sq_event_set(void *event)
{
	complete(event);
}

bool sq_event_wait(void *event, bool interruptible)
{
	if (interruptible)
		return !wait_for_completion_interruptible(event);
	wait_for_completion(event);
	return true;
}

/* False: a signal came first. */
bool sq_sleep_until(u64 at_ns)
{
	ktime_t until = ns_to_ktime(min_t(u64, at_ns, KTIME_MAX));

	while (ktime_get_ns() < at_ns) {
		set_current_state(TASK_INTERRUPTIBLE);
		if (signal_pending(current)) {
			__set_current_state(TASK_RUNNING);
			return false;
		}
		schedule_hrtimeout_range(&until, current->timer_slack_ns, HRTIMER_MODE_ABS);
	}
	return true;
}

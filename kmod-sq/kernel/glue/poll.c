// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * The polling thread of a ring that was set up with SQPOLL.
 *
 *	asleep ---sq_poll_wake()---> idle <---entries---> busy
 *	   ^                          |
 *	   +---------idle_ns----------+
 *
 * It holds a reference to the ring and one to this module, never the file. The
 * ring's mm it holds only while it is busy: a process that ends must unmap the
 * ring for its file to go, however long the thread may be awake. A process that
 * is gone publishes nothing, so busy ends after at most one queue of entries.
 *
 * close() does not wait for it: the thread sees that the ring has stopped.
 */
#include <linux/cpumask.h>
#include <linux/freezer.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/rcupdate.h>
#include <linux/sched/mm.h>
#include <linux/sched/task.h>
#include <linux/nospec.h>

#include "glue.h"

/* Empty looks after which the mm is given back: some 10 us. Taking it again costs less than one of them may wait. */
#define SQ_POLL_EMPTY 256

/* No rlimit counts a kernel thread, so this one does. */
static uint poll_threads = 64;
module_param(poll_threads, uint, 0644);
MODULE_PARM_DESC(poll_threads, "polling threads at most, of all rings; one more is refused with EAGAIN (default 64)");

static atomic_t sq_poll_count = ATOMIC_INIT(0);

/* One time awake. On the thread's stack. */
struct sq_turn {
	struct sq_home	*home;
	const struct cred *cred;
	bool		busy;
	u32		empty;	/* looks since an entry was seen */
};

bool sq_poll_busy(struct sq_turn *turn)
{
	turn->empty = 0;
	if (turn->busy)
		return true;
	/* Not if its process is gone, and with it whoever could wait for an entry; and not before it is fully enabled. */
	turn->busy = sq_guise_on(&turn->cred, turn->home);
	return turn->busy;
}

static void sq_poll_calm(struct sq_turn *turn)
{
	if (turn->busy)
		sq_guise_off(turn->cred, turn->home);
	turn->busy = false;
}

void sq_poll_relax(struct sq_turn *turn)
{
	if (++turn->empty == SQ_POLL_EMPTY)
		sq_poll_calm(turn);
	cpu_relax();
}

bool sq_poll_leaves(struct sq_turn *turn)
{
	struct sq_home *home = turn->home;

	/* Says to RCU, its tasks flavour included, that this thread holds nothing back. */
	cond_resched_tasks_rcu_qs();
	try_to_freeze();
	if (READ_ONCE(home->closed))
		return true;
	/*
	 * Its process is gone, the file is not (LIFE-3): no entry can come any more.
	 * While the ring is disabled it may yet get another mm.
	 */
	return !turn->busy && !smp_load_acquire(&home->disabled) && !atomic_read(&home->mm->mm_users);
}

/* False: the file is gone. */
static bool sq_poll_sleep(struct sq_home *home)
{
	bool asked, closed;

	for (;;) {
		/* A barrier: whoever asks or closes after these looks finds the thread asleep, and wakes it. */
		set_current_state(TASK_IDLE | TASK_FREEZABLE);
		asked = xchg(&home->poll_asked, 0);
		closed = READ_ONCE(home->closed);
		if (asked || closed)
			break;
		schedule();
	}
	__set_current_state(TASK_RUNNING);
	return !closed;
}

static int sq_poll_thread(void *data)
{
	struct sq_home *home = data;

	set_freezable();
	while (sq_poll_sleep(home)) {
		struct sq_turn turn = { .home = home };

		while (sq_ring_poll_awake(home->ring, &turn))
			;
		sq_poll_calm(&turn);
	}
	/* What it issued while the file went may have been too late for the cancel that came with that. */
	sq_ring_drain(home->ring, false);
	atomic_dec(&sq_poll_count);
	/* home may be gone after it. */
	sq_ring_put(home->ring);
	module_put_and_kthread_exit(0);
}

/* The home is freed with it, whether this succeeds or not. */
int sq_poll_new(struct sq_home *home, s64 cpu)
{
	struct task_struct *thread;

	/* The caller's own mask: cpusets are in it. */
	if (cpu >= (s64)nr_cpu_ids)
		return -EINVAL;
	if (cpu >= 0) {
		cpu = array_index_nospec(cpu, nr_cpu_ids);
		if (!cpu_online(cpu) || !cpumask_test_cpu(cpu, current->cpus_ptr))
			return -EINVAL;
	}
	if (atomic_inc_return(&sq_poll_count) > READ_ONCE(poll_threads)) {
		atomic_dec(&sq_poll_count);
		return -EAGAIN;
	}
	thread = kthread_create(sq_poll_thread, home, "sq-poll-%d", task_tgid_nr(current));
	if (IS_ERR(thread)) {
		atomic_dec(&sq_poll_count);
		return PTR_ERR(thread);
	}
	/* It may be woken after it has ended. */
	home->poll_thread = get_task_struct(thread);
	/* Neither more nor other processors than its owner has. */
	set_user_nice(thread, task_nice(current));
	return set_cpus_allowed_ptr(thread, cpu >= 0 ? cpumask_of(cpu) : current->cpus_ptr);
}

void sq_poll_start(struct sq_home *home)
{
	if (!home->poll_thread)
		return;
	home->poll_started = true;
	__module_get(THIS_MODULE);
	sq_ring_keep(home->ring);
	wake_up_process(home->poll_thread);
}

void sq_poll_wake(struct sq_home *home)
{
	WRITE_ONCE(home->poll_asked, 1);
	/* A full barrier before it looks at the thread's state: partner of set_current_state() in sq_poll_sleep(). */
	wake_up_process(home->poll_thread);
}

void sq_poll_free(struct sq_home *home)
{
	if (!home->poll_thread)
		return;
	if (!home->poll_started) {
		/* It has not run, and never will. */
		kthread_stop(home->poll_thread);
		atomic_dec(&sq_poll_count);
	}
	put_task_struct(home->poll_thread);
}

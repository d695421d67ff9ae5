// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * What a ring stands on: its life, and sleeping, waking, workers and the clock.
 *
 * Everything deferred runs on unbound workqueues of our own. A drain may wait
 * for a page that user space serves, for ever if it likes: so it runs on its
 * user's queue (users.c). Alarms and ends have another one, on which everything
 * is bounded. No item waits for one that is merely queued; free_work waits for
 * an alarm_work or timer that is running, the end of a user for the last item
 * of its queue to return. Module exit drains them all (LIFE-4).
 *
 * Locks, outer first: alarm_lock, then the timer's. wait.lock and eventfd_lock
 * (and then the eventfd's) are taken with none of ours held, the completion
 * lock (Rust) with none inside it.
 */
#include <linux/cred.h>
#include <linux/kthread.h>
#include <linux/mmu_context.h>
#include <linux/rcupdate.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "glue.h"

struct workqueue_struct *sq_workqueue;

int sq_homes_init(void)
{
	sq_workqueue = alloc_workqueue("sq", WQ_UNBOUND, 0);
	return sq_workqueue ? 0 : -ENOMEM;
}

/* Each home pins this module, so only users that linger and the tail of a last free_work can be left: this waits for them. */
void sq_homes_exit(void)
{
	sq_users_exit();
	destroy_workqueue(sq_workqueue);
}

bool sq_guise_on(const struct cred **cred, struct sq_home *home)
{
	if (!sq_mm_enter(home))
		return false;
	*cred = override_creds(home->cred);
	return true;
}

void sq_guise_off(const struct cred *cred, struct sq_home *home)
{
	/* Since 6.14 these two count nothing, and before, home's own reference would do. */
	revert_creds(cred);
	sq_mm_leave(home);
}

static void sq_drain_work(struct work_struct *work)
{
	struct sq_home *home = container_of(work, struct sq_home, drain_work);
	const struct cred *cred;
	bool alive = sq_guise_on(&cred, home);

	sq_ring_drain(home->ring, alive);
	if (alive)
		sq_guise_off(cred, home);
	/* The reference that came with the work. */
	sq_ring_put(home->ring);
	/* Busy rings may keep this thread from ever sleeping, for which sq_driver_unregister() would wait. */
	cond_resched_tasks_rcu_qs();
}

static void sq_alarm_work(struct work_struct *work)
{
	sq_ring_alarm(container_of(work, struct sq_home, alarm_work)->ring);
}

static enum hrtimer_restart sq_alarm_fires(struct hrtimer *timer)
{
	struct sq_home *home = container_of(timer, struct sq_home, alarm);
	unsigned long flags;

	raw_spin_lock_irqsave(&home->alarm_lock, flags);
	home->alarm_at = U64_MAX;
	raw_spin_unlock_irqrestore(&home->alarm_lock, flags);
	/* Not here: there may be thousands of requests to look at. */
	queue_work(sq_workqueue, &home->alarm_work);
	return HRTIMER_NORESTART;
}

static void sq_free_work(struct work_struct *work)
{
	struct sq_home *home = container_of(work, struct sq_home, free_work);

	/*
	 * No request is in flight, so nobody sets the alarm but an alarm_work that
	 * is still at it: it may do so once more before it ends. And the timer may
	 * queue it once more before it is canceled; then it finds nothing timed.
	 */
	cancel_work_sync(&home->alarm_work);
	hrtimer_cancel(&home->alarm);
	cancel_work_sync(&home->alarm_work);
	sq_tally_leave(sq_tally_of(home->device), home);
	sq_ring_destroy(home->ring);
	sq_home_free(home);
}

static atomic64_t sq_home_ids = ATOMIC64_INIT(0);

struct sq_home *sq_home_new(struct sq_device *device)
{
	struct sq_home *home;

	if (!current->mm)
		return ERR_PTR(-EINVAL);
	home = kzalloc(sizeof(*home), GFP_KERNEL_ACCOUNT);
	if (!home)
		return ERR_PTR(-ENOMEM);
	home->user = sq_user_get();
	if (!home->user) {
		kfree(home);
		return ERR_PTR(-ENOMEM);
	}
	init_waitqueue_head(&home->wait);
	spin_lock_init(&home->eventfd_lock);
	raw_spin_lock_init(&home->alarm_lock);
	mutex_init(&home->enable_lock);
	home->alarm_at = U64_MAX;
	sq_timer_init(&home->alarm, sq_alarm_fires);
	INIT_WORK(&home->drain_work, sq_drain_work);
	INIT_WORK(&home->alarm_work, sq_alarm_work);
	INIT_WORK(&home->free_work, sq_free_work);
	/* mmget would be a circle: mm, mapping, file, ring, mm. */
	mmgrab(current->mm);
	home->mm = current->mm;
	home->cred = get_current_cred();
	home->pkru = read_pkru();
	home->device = device;
	home->id = atomic64_inc_return(&sq_home_ids);
	sq_device_pin(device);
	return home;
}

/* LIFE-2: never waits for a completion. What is in flight keeps the ring, not the file, and is no event of anybody's any more. */
void sq_home_close(struct sq_home *home)
{
	sq_mm_close(home);
	(void)sq_eventfd_set(home, -1);
	sq_ring_abandon(home->ring);
	sq_mm_wait(home);
	sq_ring_put(home->ring);
}

void sq_home_free(struct sq_home *home)
{
	int i;

	sq_poll_free(home);
	for (i = 0; i < SQ_PAGES_NR; i++)
		sq_pages_free(&home->pages[i]);
	sq_user_put(home->user);
	put_cred(home->cred);
	mmdrop(home->mm);
	sq_device_unpin(home->device);
	kfree(home);
}

/* The last reference may go in an interrupt, so freeing is always a worker's. */
void sq_queue_free(struct sq_home *home)
{
	queue_work(sq_workqueue, &home->free_work);
}

/* False if it is queued already, or never will be. The caller has counted a reference for it. */
bool sq_queue_drain(struct sq_home *home)
{
	/* Not enabled yet, so nothing was accepted, and there is no user to be (LIFE-3). */
	if (smp_load_acquire(&home->disabled))
		return false;
	return sq_user_queue(home->user, &home->drain_work);
}

void sq_set_alarm(struct sq_home *home, u64 at_ns)
{
	unsigned long flags;

	/* 292 years from boot: that is never. */
	if (at_ns >= KTIME_MAX)
		return;
	raw_spin_lock_irqsave(&home->alarm_lock, flags);
	/*
	 * If the timer is about to say "earlier" by itself, its work will look at
	 * every request, and set the alarm again.
	 */
	if (at_ns < home->alarm_at) {
		home->alarm_at = at_ns;
		hrtimer_start(&home->alarm, ns_to_ktime(at_ns), HRTIMER_MODE_ABS);
	}
	raw_spin_unlock_irqrestore(&home->alarm_lock, flags);
}

/*
 * Whether nobody is left who could want what is done here. A kernel thread that drains a ring holds the memory of the ring's process, and
 * with it the mapping that keeps the file open: it is not closed by the end of the process, so the thread asks for itself. The owner of
 * the memory is a process that has it; one whose end nobody has followed has none.
 */
static bool sq_unwanted(void)
{
#ifdef CONFIG_MEMCG
	if (current->flags & PF_KTHREAD)
		return current->mm && !rcu_access_pointer(current->mm->owner);
#endif
	return fatal_signal_pending(current);
}

/* Between pieces of what may take long. An error: the caller was killed, and wants no more of it. */
int sq_pause(void)
{
	cond_resched();
	return sq_unwanted() ? -ECANCELED : 0;
}

u64 sq_now_ns(void)
{
	return ktime_get_ns();
}

/* How a wait ended; kernel/src/host.rs has the same numbers. */
enum { SQ_WAIT_READY, SQ_WAIT_TIMEOUT, SQ_WAIT_SIGNAL };

/*
 * `ready` takes the completion lock at most. It is called where sq_notify()
 * already finds this task, so nothing posted after it said no is missed.
 */
u32 sq_wait(struct sq_home *home, u64 deadline_ns, bool (*ready)(void *context), void *context)
{
	DEFINE_WAIT(entry);
	u32 ended;

	for (;;) {
		ktime_t until = ns_to_ktime(deadline_ns);

		prepare_to_wait(&home->wait, &entry, TASK_INTERRUPTIBLE);
		if (ready(context)) {
			ended = SQ_WAIT_READY;
			break;
		}
		if (signal_pending(current)) {
			ended = SQ_WAIT_SIGNAL;
			break;
		}
		if (deadline_ns >= KTIME_MAX) {
			schedule();
		} else if (ktime_get_ns() >= deadline_ns ||
			   !schedule_hrtimeout_range(&until, current->timer_slack_ns, HRTIMER_MODE_ABS)) {
			/* Rust looks once more: what is there when the time is up counts. */
			ended = SQ_WAIT_TIMEOUT;
			break;
		}
	}
	finish_wait(&home->wait, &entry);
	return ended;
}

void sq_notify(struct sq_home *home, bool waiters, bool eventfd)
{
	unsigned long flags;

	/*
	 * All, EPOLLEXCLUSIVE or not: one that sleeps on would never hear that the
	 * ring is over, which is said once. And without a key, so that each asks
	 * sq_poll(): io_uring and aio would take a key for the answer.
	 */
	if (waiters)
		__wake_up(&home->wait, TASK_NORMAL, 0, NULL);
	if (!eventfd)
		return;
	spin_lock_irqsave(&home->eventfd_lock, flags);
	if (home->eventfd)
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 8, 0)
		eventfd_signal(home->eventfd, 1);
#else
		eventfd_signal(home->eventfd);
#endif
	spin_unlock_irqrestore(&home->eventfd_lock, flags);
}

/* A negative fd forgets the eventfd. Of two threads at a time one wins. */
int sq_eventfd_set(struct sq_home *home, s32 fd)
{
	struct eventfd_ctx *context = NULL;
	int err = 0;

	if (fd >= 0) {
		context = eventfd_ctx_fdget(fd);
		if (IS_ERR(context))
			return PTR_ERR(context);
	}
	spin_lock_irq(&home->eventfd_lock);
	if (context && home->eventfd)
		err = -EBUSY;
	else if (!context && !home->eventfd)
		err = -ENXIO;
	else
		swap(home->eventfd, context);
	spin_unlock_irq(&home->eventfd_lock);
	/* The one that was there, or the one that was not taken. */
	if (context)
		eventfd_ctx_put(context);
	return err;
}

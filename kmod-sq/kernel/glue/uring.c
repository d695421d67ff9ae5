// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * io_uring's door: commands (IORING_OP_URING_CMD) on an open file.
 *
 * io_uring holds the file, and with it the module and the file's pool, until a
 * command is completed. The pool is freed by release(), so none is left then.
 *
 * IO_URING_F_NONBLOCK is not looked at. A driver's issue() may sleep, which
 * stalls the io_uring that it came from as it would stall a ring of ours; who
 * wants a thread of io_uring's to wait instead says so by IOSQE_ASYNC. To
 * return -EAGAIN for that would have io_uring copy the entry once more.
 */
#include <linux/hrtimer.h>
#include <linux/version.h>
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 8, 0)
#include <linux/io_uring.h>
#else
#include <linux/io_uring/cmd.h>
#endif

#include "glue.h"

/* Commands can be canceled: without that, exit would wait for one that never ends. */
#define SQ_URING_CANCEL	(LINUX_VERSION_CODE >= KERNEL_VERSION(6, 7, 0))

/* What a request in the pool needs for its command. In Rust's memory; kernel/src/command.rs sets this much aside. */
struct sq_task {
	struct io_uring_cmd	*cmd;
	struct sq_slot		*slot;	/* Rust: the request that this is in */
	bool			timed;	/* timer is initialised */
	struct hrtimer		timer;
};
#define SQ_TASK_BYTES 192
static_assert(sizeof(struct sq_task) <= SQ_TASK_BYTES);

/* In the command, from the moment that it is to be completed later. */
struct sq_uring_pdu {
	struct sq_task	*task;
};
static_assert(sizeof(struct sq_uring_pdu) <= sizeof_field(struct io_uring_cmd, pdu));
static_assert(offsetof(struct io_uring_sqe, cmd) % sizeof(u64) == 0);

static struct sq_uring_pdu *sq_uring_pdu(struct io_uring_cmd *cmd)
{
	return (struct sq_uring_pdu *)cmd->pdu;
}

/* Made by the first command, so that files without any do without. */
static struct sq_pool *sq_pool_of(struct sq_file *sf)
{
	/* Pairs with the cmpxchg() below: whoever sees a pool sees all of it. */
	struct sq_pool *pool = smp_load_acquire(&sf->pool);
	struct sq_pool *other;

	if (likely(pool))
		return pool;
	pool = sq_pool_new();
	if (!pool)
		return NULL;
	other = cmpxchg(&sf->pool, NULL, pool);
	if (!other)
		return pool;
	sq_pool_free(pool);
	return other;
}

int sq_uring_cmd(struct io_uring_cmd *cmd, unsigned int issue_flags)
{
	struct sq_file *sf = cmd->file->private_data;
	struct sq_home *home = smp_load_acquire(&sf->home);
	struct sq_pool *pool;
	const void *data;
	u64 extra;
	int ret;

#if SQ_URING_CANCEL
	if (issue_flags & IO_URING_F_CANCEL) {
		struct sq_task *task = sq_uring_pdu(cmd)->task;

		sq_slot_cancel(task->slot, sf->door, cmd);
		return 0;
	}
#endif
	if (cmd->cmd_op != SQ_IOC_ISSUE)
		return -ENOTTY;
	if (!(cmd->file->f_mode & FMODE_WRITE))
		return -EBADF;
	pool = sq_pool_of(sf);
	if (unlikely(!pool))
		return -ENOMEM;
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 5, 0)
	data = cmd->cmd;
#else
	data = io_uring_sqe_cmd(cmd->sqe);
#endif
	/* Both may be user space's to write: the address is read once, the entry by Rust. */
	if (issue_flags & IO_URING_F_SQE128)
		ret = sq_command_live(sf->door, pool, home ? home->ring : NULL, cmd, issue_flags, data, &extra);
	else
		ret = sq_command_user(sf->door, pool, home ? home->ring : NULL, cmd, issue_flags,
				      READ_ONCE(*(const u64 *)data), &extra);
	if (ret == SQ_DEFERRED)
		return -EIOCBQUEUED;
	if (!(issue_flags & IO_URING_F_CQE32))
		extra = 0;
	if (!ret && !extra)
		return 0;
	/*
	 * Returned, -EAGAIN would mean to try again, -EIOCBQUEUED to wait, and
	 * a number above 0 is lost by io_uring's threads before 6.10.
	 */
	io_uring_cmd_done(cmd, ret, extra, issue_flags);
	return -EIOCBQUEUED;
}

u64 sq_uring_features(void)
{
	if (!IS_ENABLED(CONFIG_IO_URING))
		return 0;
	return SQ_FEAT_URING_CMD | (SQ_URING_CANCEL ? SQ_FEAT_URING_CANCEL : 0);
}

void sq_task_hold(struct sq_task *task, struct sq_slot *slot, struct io_uring_cmd *cmd, unsigned int issue_flags,
		  bool cancelable)
{
	task->cmd = cmd;
	task->slot = slot;
	task->timed = false;
	sq_uring_pdu(cmd)->task = task;
#if SQ_URING_CANCEL
	if (cancelable)
		io_uring_cmd_mark_cancelable(cmd, issue_flags);
#endif
}

/* In the submitting task, or a kernel thread if that is gone. */
static void sq_task_work(struct io_uring_cmd *cmd, unsigned int issue_flags)
{
	u64 extra;
	int ret = sq_slot_finish(sq_uring_pdu(cmd)->task->slot, &extra);

	/* The slot may be another command's by now. */
	io_uring_cmd_done(cmd, ret, extra, issue_flags);
}

void sq_task_complete(struct sq_task *task)
{
	io_uring_cmd_complete_in_task(task->cmd, sq_task_work);
}

static enum hrtimer_restart sq_task_fires(struct hrtimer *timer)
{
	sq_slot_fired(container_of(timer, struct sq_task, timer)->slot);
	return HRTIMER_NORESTART;
}

void sq_task_start_timer(struct sq_task *task, u64 at_ns)
{
	sq_timer_init(&task->timer, sq_task_fires);
	task->timed = true;
	/* 292 years from boot: that is never. */
	if (at_ns < KTIME_MAX)
		hrtimer_start(&task->timer, ns_to_ktime(at_ns), HRTIMER_MODE_ABS);
}

void sq_task_stop_timer(struct sq_task *task)
{
	if (task->timed)
		hrtimer_cancel(&task->timer);
}

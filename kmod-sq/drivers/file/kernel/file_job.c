// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * A job: an operation that goes on after issue().
 *
 * Direct I/O is attempted inline, without waiting, and completes from wherever
 * the device says that it is done. Everything else, and direct I/O that would
 * wait, is a worker's: with the ring's credentials, its process's memory and I/O
 * accounts, and if the bytes are at user addresses its mm.
 */
#include <linux/cgroup.h>
#include <linux/cred.h>
#include <linux/kthread.h>
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <asm/pkru.h>

#include "file.h"

static void sq_job_work(struct sq_work *work);

/*
 * Until sq_account_off() this thread's memory and its I/O are those of the
 * memcg's group. (A process's own thread has them there already. Of two separate
 * hierarchies, version 1, it is the root's I/O.)
 */
static struct mem_cgroup *sq_account_on(struct mem_cgroup *memcg)
{
#if defined(CONFIG_MEMCG) && defined(CONFIG_BLK_CGROUP)
	if (memcg && (current->flags & PF_KTHREAD)) {
		struct cgroup_subsys_state *io = cgroup_get_e_css(memcg->css.cgroup, &io_cgrp_subsys);

		kthread_associate_blkcg(io);
		css_put(io);
	}
#endif
	return set_active_memcg(memcg);
}

static void sq_account_off(struct mem_cgroup *before)
{
	set_active_memcg(before);
	kthread_associate_blkcg(NULL);
}

/*
 * RLIMIT_FSIZE of the ring's process. A worker or polling thread has only the
 * mm, and asks its owner. False: it has none any more, the process is gone.
 * Without CONFIG_MEMCG an mm knows no owner, and what a kernel thread takes from
 * a ring has no such limit.
 */
static bool sq_fsize(unsigned long *limit)
{
#ifdef CONFIG_MEMCG
	struct task_struct *owner;

	if (current->flags & PF_KTHREAD) {
		rcu_read_lock();
		owner = rcu_dereference(current->mm->owner);
		if (owner)
			*limit = task_rlimit(owner, RLIMIT_FSIZE);
		rcu_read_unlock();
		return owner;
	}
#endif
	*limit = current->flags & PF_KTHREAD ? RLIM_INFINITY : rlimit(RLIMIT_FSIZE);
	return true;
}

static struct sq_job *sq_job_new(struct sq_request *request, enum sq_what what, loff_t off, size_t done)
{
	unsigned long fsize;
	struct inode *inode;
	struct sq_job *job;

	/* After the memcg was asked for: an mm that has an owner now had it then, so it was not the root's for want of one. */
	if (!sq_fsize(&fsize))
		return ERR_PTR(-ECANCELED);
	job = kzalloc(sizeof(*job), GFP_KERNEL_ACCOUNT);
	if (!job)
		return ERR_PTR(-ENOMEM);
	job->file = (struct file *)request->target;
	init_sync_kiocb(&job->iocb, job->file);
	inode = job->file->f_mapping->host;
	job->lane = sq_lane_get(inode, what == SQ_WRITE && S_ISREG(inode->i_mode) && !(job->iocb.ki_flags & IOCB_DIRECT));
	if (!job->lane) {
		kfree(job);
		return ERR_PTR(-ENOMEM);
	}
	job->request = request;
	job->what = what;
	job->off = off;
	job->done = done;
	job->fsize = fsize;
	job->cred = get_current_cred();
	job->pkru = read_pkru();
	/* The active one. */
	job->memcg = get_mem_cgroup_from_mm(NULL);
	job->work.run = sq_job_work;
	job->work.owner = THIS_MODULE;
	RB_CLEAR_NODE(&job->by_id);
	INIT_LIST_HEAD(&job->list);
	return job;
}

static void sq_job_free_sleeping(struct sq_work *work)
{
	struct sq_job *job = container_of(work, struct sq_job, work);

	kvfree(job->bvec);
	job->bvec = NULL;
	sq_job_free(job);
}

void sq_job_free(struct sq_job *job)
{
	/* Pages of so large a transfer are listed in memory that cannot be freed everywhere. */
	if (is_vmalloc_addr(job->bvec)) {
		job->work.run = sq_job_free_sleeping;
		sq_work_queue(job->lane->user, &job->work);
		return;
	}
	mem_cgroup_put(job->memcg);
	put_cred(job->cred);
	sq_lane_put(job->lane);
	kfree(job->bvec);
	kfree(job);
}

static void sq_job_complete(struct sq_job *job, ssize_t res)
{
	struct sq_request *request = job->request;
	static const u64 extra[2];

	/* An error counts only if nothing was transferred before it. */
	if (job->done)
		res = job->done;
	/* No signal is meant for a worker, and no call is made again by itself. */
	if (res <= -ERESTARTSYS && res >= -ERESTART_RESTARTBLOCK)
		res = -EINTR;
	sq_job_free(job);
	/* Last: this module may go when its requests have. */
	request->ops->complete(request, res, extra);
}

/* An attempt came to this. From any context. */
static void sq_job_attempted(struct sq_job *job, ssize_t res)
{
	bool transfer = job->what == SQ_READ || job->what == SQ_WRITE;
	bool rest;

	if (transfer && res > 0)
		job->done += res;
	/* A file system or a device that cannot be asked not to wait. */
	if (job->nowait && res == -EOPNOTSUPP)
		res = -EAGAIN;
	/* What would have waited is left; of what a read gave up at the end of the file nothing is. */
	rest = res == -EAGAIN || (transfer && res > 0 && job->done < job->request->payload.left &&
				  !(job->what == SQ_READ && job->off + job->done >= sq_file_bytes(job->file)));
	if (job->nowait && rest)
		sq_lanes_push(job);
	else
		sq_job_complete(job, res);
}

/* An attempt that was left going has two ends. What it was made with is in use until both have come. */
void sq_job_completes(struct kiocb *iocb, long res)
{
	struct sq_job *job = container_of(iocb, struct sq_job, iocb);

	sq_vfs_end(job);
	/*
	 * Ordered before the other end's load by the atomic. A rest waits with its
	 * list of pages: here it cannot be freed.
	 */
	job->res = res;
	if (atomic_dec_and_test(&job->ends))
		sq_job_attempted(job, res);
}

/* The other end, or the only one. In a context that may sleep. */
static void sq_job_tried(struct sq_job *job, ssize_t res)
{
	if (res != -EIOCBQUEUED) {
		sq_vfs_end(job);
	} else {
		if (!atomic_dec_and_test(&job->ends))
			return;
		res = job->res;
	}
	/* It may be long in its lane. The next attempt lists the pages anew. */
	kvfree(job->bvec);
	job->bvec = NULL;
	sq_job_attempted(job, res);
}

static void sq_job_run_inline(struct sq_job *job)
{
	job->nowait = true;
	if (sq_vfs_begin(job))
		sq_job_tried(job, sq_vfs_try(job));
	else
		sq_lanes_push(job);
}

static void sq_job_run(struct sq_job *job)
{
	struct sq_request *request = job->request;
	bool user = request->payload.kind == SQ_PAYLOAD_USER && request->payload.left;
	struct mem_cgroup *memcg;
	const struct cred *cred;
	ssize_t res;

	job->nowait = false;
	sq_vfs_begin(job);
	/* LIFE-3 */
	if (user && request->ops->enter_user(request)) {
		sq_job_tried(job, -ECANCELED);
		return;
	}
	if (user)
		write_pkru(job->pkru);
	memcg = sq_account_on(job->memcg);
	cred = override_creds(job->cred);
	res = sq_vfs_try(job);
	revert_creds(cred);
	sq_account_off(memcg);
	if (user)
		request->ops->leave_user(request);
	/* The job, the request and its ring may be gone after this. */
	sq_job_tried(job, res);
}

static void sq_job_work(struct sq_work *work)
{
	struct sq_job *job = container_of(work, struct sq_job, work);
	struct sq_lane *lane = job->lane;

	if (sq_lanes_begin(job))
		sq_job_run(job);
	else
		sq_job_free(job);
	sq_lanes_end(lane);
}

void sq_file_later(struct sq_request *request, enum sq_what what, loff_t off, size_t done)
{
	/* The ring's mm and credentials are current here. The job may be gone before its attempt has returned. */
	struct mem_cgroup *memcg = get_mem_cgroup_from_mm(current->mm);
	struct mem_cgroup *before = sq_account_on(memcg);
	struct sq_job *job = sq_job_new(request, what, off, done);
	static const u64 extra[2];

	if (IS_ERR(job))
		request->ops->complete(request, done ?: PTR_ERR(job), extra);
	else if ((job->iocb.ki_flags & IOCB_DIRECT) && (job->file->f_mode & FMODE_NOWAIT) &&
		 (what == SQ_READ || what == SQ_WRITE))
		sq_job_run_inline(job);
	else
		sq_lanes_push(job);
	sq_account_off(before);
	mem_cgroup_put(memcg);
}

// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Lanes: of one file a few jobs run at a time, the others wait in its own queue.
 * So a file that hangs holds a few workers, and as many of its jobs; all other
 * files go on. A job's work item is queued when it may run, so no item waits for
 * another. Within a file it is first come, first served.
 */
#include <linux/hashtable.h>
#include <linux/slab.h>
#include <linux/spinlock.h>

#include "file.h"

/* Buffered writes hold the inode's lock: a second keeps the file busy while the first one's completion is posted. */
#define SQ_LANE_WIDTH	8
#define SQ_LANE_IN_TURN	2

static DEFINE_SPINLOCK(sq_lanes_lock);
static DEFINE_HASHTABLE(sq_lanes, 8);
/* Jobs that are not started, by their request's id. */
static DEFINE_HASHTABLE(sq_unstarted, 8);

static struct sq_lane *sq_lane_of(struct sq_job *job)
{
	struct inode *inode = job->file->f_mapping->host;
	bool in_turn = job->what == SQ_WRITE && S_ISREG(inode->i_mode) && !(job->iocb.ki_flags & IOCB_DIRECT);
	struct sq_lane *lane;

	hash_for_each_possible(sq_lanes, lane, node, (unsigned long)inode)
		if (lane->inode == inode && lane->in_turn == in_turn)
			return lane;
	lane = job->spare;
	job->spare = NULL;
	*lane = (struct sq_lane){ .inode = inode, .in_turn = in_turn };
	INIT_LIST_HEAD(&lane->waiting);
	hash_add(sq_lanes, &lane->node, (unsigned long)inode);
	return lane;
}

void sq_lanes_push(struct sq_job *job)
{
	struct sq_lane *lane;
	unsigned long flags;

	spin_lock_irqsave(&sq_lanes_lock, flags);
	lane = sq_lane_of(job);
	job->lane = lane;
	hash_add(sq_unstarted, &job->by_id, job->request->id);
	if (lane->running < (lane->in_turn ? SQ_LANE_IN_TURN : SQ_LANE_WIDTH)) {
		lane->running++;
		sq_job_queue(job);
	} else {
		list_add_tail(&job->list, &lane->waiting);
	}
	spin_unlock_irqrestore(&sq_lanes_lock, flags);
}

bool sq_lanes_begin(struct sq_job *job)
{
	bool mine;

	spin_lock_irq(&sq_lanes_lock);
	mine = hash_hashed(&job->by_id);
	hash_del(&job->by_id);
	spin_unlock_irq(&sq_lanes_lock);
	return mine;
}

/* The next job of the lane takes the place of the one that ended. */
void sq_lanes_end(struct sq_lane *lane)
{
	struct sq_job *next;

	spin_lock_irq(&sq_lanes_lock);
	next = list_first_entry_or_null(&lane->waiting, struct sq_job, list);
	if (next) {
		list_del_init(&next->list);
		sq_job_queue(next);
		lane = NULL;
	} else if (--lane->running) {
		lane = NULL;
	} else {
		hash_del(&lane->node);
	}
	spin_unlock_irq(&sq_lanes_lock);
	kfree(lane);
}

void sq_file_cancel(u64 id)
{
	struct sq_request *request = NULL;
	static const u64 extra[2];
	struct sq_job *job;
	bool waits = false;
	s32 res;

	spin_lock_irq(&sq_lanes_lock);
	hash_for_each_possible(sq_unstarted, job, by_id, id) {
		if (job->request->id != id)
			continue;
		hash_del(&job->by_id);
		request = job->request;
		/* Bytes that were transferred at once are the result, as of any transfer that ends early. */
		res = job->done ?: -ECANCELED;
		/* Else its work item is queued already, and frees it. */
		waits = !list_empty(&job->list);
		list_del_init(&job->list);
		break;
	}
	spin_unlock_irq(&sq_lanes_lock);
	if (waits)
		sq_job_free(job);
	if (request)
		request->ops->complete(request, res, extra);
}

// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Lanes: of one file a few of a user's jobs run at a time, the others wait in its
 * own queue. So a file that hangs holds a few of the user's workers, and as many
 * jobs; his other files go on, and everything of others' does. A job's work is
 * queued when it may run, so none waits for another. Within a lane it is first
 * come, first served.
 *
 * Trees, since they hold as many as there are requests, and are searched with
 * interrupts off.
 */
#include <linux/cred.h>
#include <linux/rbtree.h>
#include <linux/slab.h>
#include <linux/spinlock.h>

#include "file.h"

/* Buffered writes hold the inode's lock: a second keeps the file busy while the first one's completion is posted. */
#define SQ_LANE_WIDTH	8
#define SQ_LANE_IN_TURN	2

static DEFINE_SPINLOCK(sq_lanes_lock);
static struct rb_root sq_lanes = RB_ROOT;
/* Jobs that are not started, by their request's id. */
static struct rb_root sq_unstarted = RB_ROOT;

static int sq_lane_order(struct rb_node *node, const struct rb_node *other)
{
	const struct sq_lane *a = rb_entry(node, struct sq_lane, node);
	const struct sq_lane *b = rb_entry(other, struct sq_lane, node);

	if (a->inode != b->inode)
		return a->inode < b->inode ? -1 : 1;
	if (a->user != b->user)
		return a->user < b->user ? -1 : 1;
	return a->in_turn - b->in_turn;
}

static int sq_lane_is(const void *key, const struct rb_node *node)
{
	return sq_lane_order((struct rb_node *)key, node);
}

struct sq_lane *sq_lane_get(struct inode *inode, bool in_turn)
{
	struct sq_lane key = { .inode = inode, .in_turn = in_turn, .user = sq_user_get() };
	struct sq_lane *lane, *made;

	if (!key.user)
		return NULL;
	spin_lock_irq(&sq_lanes_lock);
	lane = rb_entry_safe(rb_find(&key.node, &sq_lanes, sq_lane_is), struct sq_lane, node);
	if (lane)
		lane->jobs++;
	spin_unlock_irq(&sq_lanes_lock);
	if (lane) {
		sq_user_put(key.user);
		return lane;
	}
	made = kmalloc(sizeof(*made), GFP_KERNEL_ACCOUNT);
	if (!made) {
		sq_user_put(key.user);
		return NULL;
	}
	*made = key;
	INIT_LIST_HEAD(&made->waiting);
	spin_lock_irq(&sq_lanes_lock);
	lane = rb_entry(rb_find_add(&made->node, &sq_lanes, sq_lane_order) ?: &made->node, struct sq_lane, node);
	lane->jobs++;
	spin_unlock_irq(&sq_lanes_lock);
	if (lane != made) {
		sq_user_put(made->user);
		kfree(made);
	}
	return lane;
}

/* Under the lock. Whether nobody has it any more: then it goes, after the lock. */
static bool sq_lane_unused(struct sq_lane *lane)
{
	if (lane->jobs || lane->running)
		return false;
	rb_erase(&lane->node, &sq_lanes);
	return true;
}

static void sq_lane_free(struct sq_lane *lane)
{
	sq_user_put(lane->user);
	kfree(lane);
}

void sq_lane_put(struct sq_lane *lane)
{
	unsigned long flags;
	bool unused;

	spin_lock_irqsave(&sq_lanes_lock, flags);
	lane->jobs--;
	unused = sq_lane_unused(lane);
	spin_unlock_irqrestore(&sq_lanes_lock, flags);
	if (unused)
		sq_lane_free(lane);
}

static bool sq_job_before(struct rb_node *a, const struct rb_node *b)
{
	return rb_entry(a, struct sq_job, by_id)->request->id < rb_entry(b, struct sq_job, by_id)->request->id;
}

static int sq_job_is(const void *id, const struct rb_node *node)
{
	u64 other = rb_entry(node, struct sq_job, by_id)->request->id;

	return *(const u64 *)id < other ? -1 : *(const u64 *)id > other;
}

/* It is started, or canceled. */
static void sq_job_claim(struct sq_job *job)
{
	rb_erase(&job->by_id, &sq_unstarted);
	RB_CLEAR_NODE(&job->by_id);
}

void sq_lanes_push(struct sq_job *job)
{
	struct sq_lane *lane = job->lane;
	unsigned long flags;

	spin_lock_irqsave(&sq_lanes_lock, flags);
	rb_add(&job->by_id, &sq_unstarted, sq_job_before);
	if (lane->running < (lane->in_turn ? SQ_LANE_IN_TURN : SQ_LANE_WIDTH)) {
		lane->running++;
		sq_work_queue(lane->user, &job->work);
	} else {
		list_add_tail(&job->list, &lane->waiting);
	}
	spin_unlock_irqrestore(&sq_lanes_lock, flags);
}

bool sq_lanes_begin(struct sq_job *job)
{
	bool mine;

	spin_lock_irq(&sq_lanes_lock);
	mine = !RB_EMPTY_NODE(&job->by_id);
	if (mine)
		sq_job_claim(job);
	spin_unlock_irq(&sq_lanes_lock);
	return mine;
}

/* The next job of the lane takes the place of the one that ended. */
void sq_lanes_end(struct sq_lane *lane)
{
	struct sq_job *next;
	bool unused = false;

	spin_lock_irq(&sq_lanes_lock);
	next = list_first_entry_or_null(&lane->waiting, struct sq_job, list);
	if (next) {
		list_del_init(&next->list);
		sq_work_queue(lane->user, &next->work);
	} else {
		lane->running--;
		unused = sq_lane_unused(lane);
	}
	spin_unlock_irq(&sq_lanes_lock);
	if (unused)
		sq_lane_free(lane);
}

void sq_file_cancel(u64 id)
{
	struct sq_request *request = NULL;
	static const u64 extra[2];
	struct sq_job *job;
	bool waits = false;
	s32 res;

	spin_lock_irq(&sq_lanes_lock);
	job = rb_entry_safe(rb_find(&id, &sq_unstarted, sq_job_is), struct sq_job, by_id);
	if (job) {
		sq_job_claim(job);
		request = job->request;
		/* Bytes that were transferred at once are the result, as of any transfer that ends early. */
		res = job->done ?: -ECANCELED;
		/* Else its work is queued already, and frees it. */
		waits = !list_empty(&job->list);
		list_del_init(&job->list);
	}
	spin_unlock_irq(&sq_lanes_lock);
	if (waits)
		sq_job_free(job);
	if (request)
		request->ops->complete(request, res, extra);
}

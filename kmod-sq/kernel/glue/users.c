// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Workers by user (LIFE-4). What runs there may wait for a page or a file that
 * user space serves, for ever if it likes, and a queue runs a limited number of
 * items at a time. So each user has a queue of its own: whoever stalls it stalls
 * himself. No item waits for another.
 *
 * A user is a real uid, by which the kernel counts processes too, whatever
 * namespace it is in. Who has many of them (/etc/subuid) has as many queues.
 *
 * A queue is not free to make, and whoever works with one ring after another, or
 * by the doors without one, would make one a time: so it stays for a while.
 */
#include <linux/cred.h>
#include <linux/module.h>
#include <linux/rbtree.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/uidgid.h>

#include "glue.h"

/* Items of one user that run at a time: each is a kernel thread while it waits. */
#define SQ_USER_WORKERS	256
#define SQ_USER_LINGERS	HZ

struct sq_user {
	struct rb_node		node;	/* in sq_users */
	kuid_t			uid;
	unsigned int		refs;	/* 0: it lingers */
	struct workqueue_struct	*queue;
	struct delayed_work	end;
};

/* The tree and everybody's refs. From any context. */
static DEFINE_SPINLOCK(sq_users_lock);
static struct rb_root sq_users = RB_ROOT;

static int sq_uid_order(kuid_t a, kuid_t b)
{
	return uid_lt(a, b) ? -1 : uid_gt(a, b);
}

static int sq_user_by_uid(const void *uid, const struct rb_node *node)
{
	return sq_uid_order(*(const kuid_t *)uid, rb_entry(node, struct sq_user, node)->uid);
}

static int sq_user_order(struct rb_node *a, const struct rb_node *b)
{
	return sq_user_by_uid(&rb_entry(a, struct sq_user, node)->uid, b);
}

static void sq_user_free(struct sq_user *user)
{
	destroy_workqueue(user->queue);
	kfree(user);
}

static void sq_user_end(struct work_struct *work)
{
	struct sq_user *user = container_of(to_delayed_work(work), struct sq_user, end);
	bool gone;

	spin_lock_irq(&sq_users_lock);
	gone = !user->refs;
	if (gone)
		rb_erase(&user->node, &sq_users);
	spin_unlock_irq(&sq_users_lock);
	if (!gone)
		return;
	/* Somebody may have had it for a moment since this began, and set the clock once more. */
	cancel_delayed_work(&user->end);
	/* At most the tails of items are left. */
	sq_user_free(user);
}

static struct sq_user *sq_user_new(kuid_t uid)
{
	struct sq_user *user = kzalloc(sizeof(*user), GFP_KERNEL_ACCOUNT);

	if (!user)
		return NULL;
	/*
	 * Not WQ_MEM_RECLAIM: a drain may run any driver's issue(), and wait for
	 * what is not. Freezable: drains and jobs may write to disks, which must
	 * not change once hibernation has made its image. (sq_workqueue's items
	 * touch none.)
	 */
	user->queue = alloc_workqueue("sq-%u", WQ_UNBOUND | WQ_FREEZABLE, SQ_USER_WORKERS, from_kuid(&init_user_ns, uid));
	if (!user->queue) {
		kfree(user);
		return NULL;
	}
	user->uid = uid;
	INIT_DELAYED_WORK(&user->end, sq_user_end);
	return user;
}

/* The user that is at `node`, or null. */
static struct sq_user *sq_user_at(struct rb_node *node)
{
	struct sq_user *user = rb_entry_safe(node, struct sq_user, node);

	if (user)
		user->refs++;
	return user;
}

struct sq_user *sq_user_get(void)
{
	kuid_t uid = current_uid();
	struct sq_user *user, *made;

	spin_lock_irq(&sq_users_lock);
	user = sq_user_at(rb_find(&uid, &sq_users, sq_user_by_uid));
	spin_unlock_irq(&sq_users_lock);
	if (user)
		return user;
	made = sq_user_new(uid);
	if (!made)
		return NULL;
	spin_lock_irq(&sq_users_lock);
	user = sq_user_at(rb_find_add(&made->node, &sq_users, sq_user_order) ?: &made->node);
	spin_unlock_irq(&sq_users_lock);
	if (user != made)
		sq_user_free(made);
	return user;
}
EXPORT_SYMBOL_GPL(sq_user_get);

void sq_user_put(struct sq_user *user)
{
	unsigned long flags;

	spin_lock_irqsave(&sq_users_lock, flags);
	if (!--user->refs)
		queue_delayed_work(sq_workqueue, &user->end, SQ_USER_LINGERS);
	spin_unlock_irqrestore(&sq_users_lock, flags);
}
EXPORT_SYMBOL_GPL(sq_user_put);

bool sq_user_queue(struct sq_user *user, struct work_struct *work)
{
	return queue_work(user->queue, work);
}

static void sq_work_runs(struct work_struct *item)
{
	struct sq_work *work = container_of(item, struct sq_work, item);
	struct module *owner = work->owner;

	work->run(work);
	/* `work` may be gone. Its module may go now, and then ours, which waits for this to return. */
	module_put(owner);
	/* As after a drain. */
	cond_resched_tasks_rcu_qs();
}

void sq_work_queue(struct sq_user *user, struct sq_work *work)
{
	INIT_WORK(&work->item, sq_work_runs);
	__module_get(work->owner);
	queue_work(user->queue, &work->item);
}
EXPORT_SYMBOL_GPL(sq_work_queue);

/* Nobody has a reference any more. sq_workqueue is destroyed next, which waits for these. */
void sq_users_exit(void)
{
	struct rb_node *node;

	spin_lock_irq(&sq_users_lock);
	for (node = rb_first(&sq_users); node; node = rb_next(node))
		mod_delayed_work(sq_workqueue, &rb_entry(node, struct sq_user, node)->end, 0);
	spin_unlock_irq(&sq_users_lock);
}

// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * /dev/sqdma_c: a driver with the shape of real hardware, over a simulated engine.
 *
 * A batch of entries becomes a batch of descriptors, and the device's doorbell
 * is rung once, in commit(). Completions come from an hrtimer. A cancel stops a
 * descriptor, whether the engine has begun it or not. Only the timing of a
 * transfer is simulated; no bytes are moved.
 *
 * The commands are those of ../dma-rust.
 */
#include <linux/hrtimer.h>
#include <linux/math.h>
#include <linux/smp.h>
#include <linux/spinlock.h>
#include <linux/version.h>
#include <sq_module.h>

/* cmd_op: a u32, bytes. Completes with it, at 1 GB/s. */
#define DMA_TRANSFER	0
/* cmd_op: a u32, DMA_POSTED or one of the next. Completes with its low 31 bits. */
#define DMA_COUNT	1

#define DMA_MAX_BYTES	1000000000U
#define DMA_SLOTS	256
#define DMA_TICK_NS	50000

enum { DMA_POSTED, DMA_FINISHED, DMA_STOPPED, DMA_DOORBELLS, DMA_COUNTS };

static uint cpu = 1;
module_param(cpu, uint, 0444);
MODULE_PARM_DESC(cpu, "CPU that takes the engine's interrupts (default 1, if it is there)");

static ulong strays;
module_param(strays, ulong, 0444);
MODULE_PARM_DESC(strays, "out: interrupts that another CPU took");

struct dma_descriptor {
	struct sq_request	*request;	/* NULL: free */
	u64			id;
	u32			bytes;
	u64			due;		/* the tick at which it is finished; U64_MAX: no doorbell was rung for it */
};

/* The engine. Its lock is taken in interrupts, and around complete(): the framework's locks are inside it, never outside. */
static struct {
	spinlock_t		lock;
	struct hrtimer		timer;
	bool			ticking;
	u32			busy;
	u32			posted;		/* wait for the doorbell */
	u64			tick;
	u32			counts[DMA_COUNTS];
	struct dma_descriptor	descriptors[DMA_SLOTS];
} dma = { .lock = __SPIN_LOCK_UNLOCKED(dma.lock) };

static void dma_end(struct dma_descriptor *d, s32 res, int event)
{
	struct sq_request *request = d->request;

	d->request = NULL;
	dma.busy--;
	dma.counts[event]++;
	sq_complete(request, res);
}

static enum hrtimer_restart dma_interrupt(struct hrtimer *timer)
{
	unsigned long flags;
	bool goes_on;
	int i;

	spin_lock_irqsave(&dma.lock, flags);
	if (smp_processor_id() != cpu)
		strays++;
	dma.tick++;
	for (i = 0; i < DMA_SLOTS; i++) {
		struct dma_descriptor *d = &dma.descriptors[i];

		if (d->request && d->due <= dma.tick)
			dma_end(d, d->bytes, DMA_FINISHED);
	}
	goes_on = dma.ticking = dma.busy > 0;
	spin_unlock_irqrestore(&dma.lock, flags);
	if (!goes_on)
		return HRTIMER_NORESTART;
	hrtimer_forward_now(timer, ns_to_ktime(DMA_TICK_NS));
	return HRTIMER_RESTART;
}

static void dma_start_here(void *unused)
{
	hrtimer_start(&dma.timer, ns_to_ktime(DMA_TICK_NS), HRTIMER_MODE_REL_PINNED);
}

static s32 dma_transfer(struct sq_op *op, u32 bytes)
{
	struct dma_descriptor *d = dma.descriptors;
	s32 res = -EBUSY;

	if (!bytes || bytes >= DMA_MAX_BYTES)
		return -EINVAL;
	spin_lock_irq(&dma.lock);
	while (d < dma.descriptors + DMA_SLOTS && d->request)
		d++;
	if (d < dma.descriptors + DMA_SLOTS) {
		d->request = sq_defer(op);
		d->id = d->request->id;
		d->bytes = bytes;
		d->due = U64_MAX;
		dma.busy++;
		dma.posted++;
		dma.counts[DMA_POSTED]++;
		res = SQ_DEFERRED;
	}
	spin_unlock_irq(&dma.lock);
	return res;
}

static s32 dma_issue(const void *data, struct sq_op *op)
{
	const struct sq_sqe *sqe = sq_op_sqe(op);
	u32 argument = *(const u32 *)sqe->cmd;

	switch (sqe->cmd_op) {
	case DMA_TRANSFER:
		return dma_transfer(op, argument);
	case DMA_COUNT:
		return argument < DMA_COUNTS ? READ_ONCE(dma.counts[argument]) & S32_MAX : -EINVAL;
	default:
		return -EOPNOTSUPP;
	}
}

/* One doorbell a batch, however many descriptors it posted. */
static void dma_commit(const void *data)
{
	bool start = false;
	int i;

	spin_lock_irq(&dma.lock);
	if (dma.posted) {
		dma.posted = 0;
		dma.counts[DMA_DOORBELLS]++;
		for (i = 0; i < DMA_SLOTS; i++) {
			struct dma_descriptor *d = &dma.descriptors[i];

			if (d->request && d->due == U64_MAX)
				d->due = dma.tick + DIV_ROUND_UP(d->bytes, DMA_TICK_NS);
		}
		/* It may all have been stopped by now. */
		start = !dma.ticking && dma.busy;
		dma.ticking |= start;
	}
	spin_unlock_irq(&dma.lock);
	if (start && smp_call_function_single(cpu, dma_start_here, NULL, true))
		dma_start_here(NULL);
}

/* May not sleep, and does not. What is not there has been completed. */
static void dma_cancel(const void *data, u64 id)
{
	unsigned long flags;
	int i;

	spin_lock_irqsave(&dma.lock, flags);
	for (i = 0; i < DMA_SLOTS; i++) {
		struct dma_descriptor *d = &dma.descriptors[i];

		if (d->request && d->id == id) {
			dma_end(d, -ECANCELED, DMA_STOPPED);
			break;
		}
	}
	spin_unlock_irqrestore(&dma.lock, flags);
}

static const struct sq_driver_table dma_table = {
	SQ_DRIVER_TABLE("dma_c"),
	.opcodes	= BIT_ULL(SQ_OP_CMD),
	.issue		= dma_issue,
	.cancel		= dma_cancel,
	.commit		= dma_commit,
};

static int __init dma_prepare(void)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 13, 0)
	hrtimer_setup(&dma.timer, dma_interrupt, CLOCK_MONOTONIC, HRTIMER_MODE_REL_PINNED);
#else
	hrtimer_init(&dma.timer, CLOCK_MONOTONIC, HRTIMER_MODE_REL_PINNED);
	dma.timer.function = dma_interrupt;
#endif
	return 0;
}

/* No request is left, so nobody starts it any more; it may be on its last tick. */
static void dma_stop(void)
{
	hrtimer_cancel(&dma.timer);
}

module_sq_driver_with(&dma_table, NULL, dma_prepare, dma_stop);
MODULE_DESCRIPTION("sq example: a simulated DMA engine, driven in C");
MODULE_LICENSE("Dual MIT/GPL");

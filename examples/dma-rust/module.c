// SPDX-License-Identifier: GPL-2.0 OR MIT
/* The timer of the simulated engine, on a CPU of its own. */
#include <linux/cpumask.h>
#include <linux/hrtimer.h>
#include <linux/smp.h>
#include <linux/version.h>
#include <sq_rust.h>

#define TICK_NS 50000

static uint cpu = 1;
module_param(cpu, uint, 0444);
MODULE_PARM_DESC(cpu, "CPU that takes the engine's interrupts (default 1, if it is there)");

static ulong strays;
module_param(strays, ulong, 0444);
MODULE_PARM_DESC(strays, "out: interrupts that another CPU took");

static struct hrtimer sq_dma_timer;

/* src/module.rs */
bool sq_dma_interrupt(void);

static enum hrtimer_restart sq_dma_tick(struct hrtimer *timer)
{
	if (smp_processor_id() != cpu)
		strays++;
	if (!sq_dma_interrupt())
		return HRTIMER_NORESTART;
	hrtimer_forward_now(timer, ns_to_ktime(TICK_NS));
	return HRTIMER_RESTART;
}

static void sq_dma_start_here(void *unused)
{
	hrtimer_start(&sq_dma_timer, ns_to_ktime(TICK_NS), HRTIMER_MODE_REL_PINNED);
}

/* Once for each idle -> busy edge, so never while the timer is queued. */
void sq_dma_start_timer(void);
void sq_dma_start_timer(void)
{
	if (smp_call_function_single(cpu, sq_dma_start_here, NULL, true))
		sq_dma_start_here(NULL);
}

static int __init sq_dma_prepare(void)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 13, 0)
	hrtimer_setup(&sq_dma_timer, sq_dma_tick, CLOCK_MONOTONIC, HRTIMER_MODE_REL_PINNED);
#else
	hrtimer_init(&sq_dma_timer, CLOCK_MONOTONIC, HRTIMER_MODE_REL_PINNED);
	sq_dma_timer.function = sq_dma_tick;
#endif
	return 0;
}

/* No request is left, so nobody starts it any more; it may be on its last tick. */
static void sq_dma_end(void)
{
	hrtimer_cancel(&sq_dma_timer);
}

module_sq_rust_driver_with(sq_dma_prepare, sq_dma_end);
MODULE_DESCRIPTION("sq example: a simulated DMA engine, driven in Rust");
MODULE_LICENSE("Dual MIT/GPL");

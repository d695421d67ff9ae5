// SPDX-License-Identifier: MIT OR Apache-2.0
/* What people can see of rings: fdinfo, and counters of a device in sysfs. */
#include <linux/device.h>
#include <linux/list.h>
#include <linux/seq_file.h>
#include <linux/sysfs.h>

#include "glue.h"

static const char *const sq_modes[] = { "caller", "worker", "poll" };
static const char *const sq_stalls[] = { "no", "for completion slots", "for requests", "for an ENTER" };

/* Takes no lock that a request may hold, but by chance. */
void sq_show_home(struct seq_file *m, struct sq_home *home)
{
	struct sq_look look;

	sq_ring_look(home->ring, &look);
	seq_printf(m, "Ring:\t%llu\n", home->id);
	seq_printf(m, "Mode:\t%s\n", sq_modes[look.mode]);
	seq_printf(m, "SqEntries:\t%u\nCqEntries:\t%u\nMaxInflight:\t%u\n", look.sq_entries, look.cq_entries,
		   look.max_inflight);
	if (home->poll_thread)
		seq_printf(m, "SqThread:\t%d\nSqThreadCpu:\t%u\n", task_pid_nr(home->poll_thread),
			   task_cpu(home->poll_thread));
	seq_printf(m, "State:\t%s%s%s%s\n", look.draining ? "draining" : "idle",
		   look.stopped & SQ_STOP_DISABLED ? " disabled" : "", look.stopped & SQ_STOP_BROKEN ? " broken" : "",
		   look.stopped & SQ_STOP_QUIESCED ? " quiesced" : "");
	if (look.busy) {
		seq_puts(m, "Counters:\tbusy\n");
		return;
	}
	seq_printf(m, "Stalled:\t%s\n", sq_stalls[look.stall]);
	seq_printf(m, "SqHead:\t%u\nCqHead:\t%u\nCqTail:\t%u\nReserved:\t%u\n", look.sq_head, look.cq_head, look.cq_tail,
		   look.reserved);
	seq_printf(m, "Inflight:\t%llu\n", look.stats.inflight);
	seq_printf(m, "Entries:\t%llu\nCompletions:\t%llu\nSkipped:\t%llu\n", look.stats.entries, look.stats.completions,
		   look.stats.skipped);
	seq_printf(m, "Rejected:\t%llu\nRejectedInvalid:\t%llu\nRejectedOpcode:\t%llu\n", look.stats.rejected,
		   look.stats.rejected_invalid, look.stats.rejected_opcode);
	seq_printf(m, "Doorbells:\t%llu\nAvoided:\t%llu\nSleeps:\t%llu\n", look.stats.doorbells, look.stats.avoided,
		   look.stats.sleeps);
	seq_printf(m, "Stalls:\t%llu\nWakeups:\t%llu\n", look.stats.stalls, look.stats.wakeups);
}

void sq_tally_init(struct sq_tally *tally)
{
	mutex_init(&tally->lock);
	INIT_LIST_HEAD(&tally->homes);
}

/* The counters are u64s, from the first to the last field. */
#define SQ_COUNTERS_FROM	offsetof(struct sq_stats, entries)
#define SQ_COUNTERS_NR		((sizeof(struct sq_stats) - SQ_COUNTERS_FROM) / sizeof(u64))

static void sq_stats_add(struct sq_stats *sum, const struct sq_stats *stats)
{
	const u64 *from = &stats->entries;
	u64 *to = &sum->entries;
	size_t i;

	for (i = 0; i < SQ_COUNTERS_NR; i++)
		to[i] += from[i];
}

void sq_tally_join(struct sq_tally *tally, struct sq_home *home)
{
	mutex_lock(&tally->lock);
	list_add_tail(&home->tallied, &tally->homes);
	tally->rings++;
	mutex_unlock(&tally->lock);
}

/* The ring has ended: nothing is in flight any more. */
void sq_tally_leave(struct sq_tally *tally, struct sq_home *home)
{
	struct sq_stats stats;

	sq_ring_stats(home->ring, &stats);
	mutex_lock(&tally->lock);
	list_del(&home->tallied);
	tally->rings--;
	sq_stats_add(&tally->ended, &stats);
	mutex_unlock(&tally->lock);
}

static ssize_t sq_counter_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	unsigned long offset = (unsigned long)container_of(attr, struct dev_ext_attribute, attr)->var;
	struct sq_tally *tally = sq_device_tally(dev_get_drvdata(dev));
	struct sq_stats sum, stats;
	struct sq_home *home;

	mutex_lock(&tally->lock);
	sum = tally->ended;
	list_for_each_entry(home, &tally->homes, tallied) {
		sq_ring_stats(home->ring, &stats);
		sq_stats_add(&sum, &stats);
	}
	mutex_unlock(&tally->lock);
	return sysfs_emit(buf, "%llu\n", *(u64 *)((char *)&sum + offset));
}

static ssize_t rings_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	struct sq_tally *tally = sq_device_tally(dev_get_drvdata(dev));

	return sysfs_emit(buf, "%u\n", READ_ONCE(tally->rings));
}
static DEVICE_ATTR_RO(rings);

#define SQ_COUNTER(field)                                                                                             \
	static struct dev_ext_attribute sq_counter_##field = {                                                        \
		.attr = __ATTR(field, 0444, sq_counter_show, NULL),                                                   \
		.var = (void *)offsetof(struct sq_stats, field),                                                      \
	}
SQ_COUNTER(entries);
SQ_COUNTER(rejected);
SQ_COUNTER(completions);
SQ_COUNTER(skipped);
SQ_COUNTER(doorbells);
SQ_COUNTER(stalls);
SQ_COUNTER(wakeups);
SQ_COUNTER(inflight);
SQ_COUNTER(rejected_invalid);
SQ_COUNTER(rejected_opcode);
SQ_COUNTER(avoided);
SQ_COUNTER(sleeps);

static struct attribute *sq_counters[] = {
	&dev_attr_rings.attr,
	&sq_counter_entries.attr.attr,
	&sq_counter_rejected.attr.attr,
	&sq_counter_completions.attr.attr,
	&sq_counter_skipped.attr.attr,
	&sq_counter_doorbells.attr.attr,
	&sq_counter_stalls.attr.attr,
	&sq_counter_wakeups.attr.attr,
	&sq_counter_inflight.attr.attr,
	&sq_counter_rejected_invalid.attr.attr,
	&sq_counter_rejected_opcode.attr.attr,
	&sq_counter_avoided.attr.attr,
	&sq_counter_sleeps.attr.attr,
	NULL,
};

/* /sys/class/misc/sqNAME/counters/: of the rings there are and of those there were. */
static const struct attribute_group sq_counters_group = { .name = "counters", .attrs = sq_counters };

const struct attribute_group *sq_device_groups[] = { &sq_counters_group, NULL };

// SPDX-License-Identifier: MIT OR Apache-2.0
/* Ring pages and their mappings, setup-time allocation, and copies to and from the ring's process. */
#include <linux/kthread.h>
#include <linux/mmu_context.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

#include "glue.h"

/* MEM-1: charged to the caller's memcg, which says -ENOMEM when it is full rather than kill. */
#define SQ_GFP (GFP_KERNEL_ACCOUNT | __GFP_RETRY_MAYFAIL | __GFP_NOWARN)

/* 8-byte aligned. Not for interrupts, nor is sq_free(). */
void *sq_alloc(size_t size)
{
	return size > INT_MAX ? NULL : kvmalloc(size, SQ_GFP);
}

void sq_free(void *place)
{
	kvfree(place);
}

/*
 * Single pages, each with its own count: a mapping holds one on each page that
 * it shows, so pages outlive the ring as long as anybody sees them (LIFE-4).
 */
void *sq_pages_new(struct sq_home *home, u32 which, u64 offset, u64 bytes)
{
	struct sq_pages *pages = &home->pages[which];
	unsigned long nr = bytes >> PAGE_SHIFT;

	pages->offset = offset;
	pages->pages = kvcalloc(nr, sizeof(*pages->pages), SQ_GFP);
	if (!pages->pages)
		return NULL;
	while (pages->nr < nr) {
		struct page *page;

		/* A pool may be gigabytes. */
		if (fatal_signal_pending(current))
			return NULL;
		cond_resched();
		page = alloc_page(SQ_GFP | __GFP_ZERO);
		if (!page)
			return NULL;
		pages->pages[pages->nr++] = page;
	}
	pages->addr = vmap(pages->pages, nr, VM_MAP, PAGE_KERNEL);
	return pages->addr;
}

void sq_pages_free(struct sq_pages *pages)
{
	if (pages->addr)
		vunmap(pages->addr);
	while (pages->nr)
		put_page(pages->pages[--pages->nr]);
	kvfree(pages->pages);
}

/* The caller has checked the vma's flags. */
int sq_pages_map(const struct sq_pages *pages, struct vm_area_struct *vma)
{
	unsigned long nr = vma_pages(vma);

	if (nr > pages->nr)
		return -EINVAL;
	return vm_insert_pages(vma, vma->vm_start, pages->pages, &nr);
}

/*
 * Makes the ring's user memory current. Inline, and in a drain by a worker, it
 * is already; a driver's own thread may come from anywhere.
 */
static int sq_enter_mm(struct sq_home *home, size_t len, bool *entered)
{
	*entered = false;
	/* LIFE-2: requests that outlive their ring's file have no user memory. */
	if (READ_ONCE(home->closed) || len > INT_MAX)
		return -EFAULT;
	if (current->mm == home->mm)
		return 0;
	/* Another process's memory is not the ring's. */
	if (!(current->flags & PF_KTHREAD) || current->mm || !mmget_not_zero(home->mm))
		return -EFAULT;
	kthread_use_mm(home->mm);
	*entered = true;
	return 0;
}

static void sq_leave_mm(struct sq_home *home, bool entered)
{
	if (!entered)
		return;
	kthread_unuse_mm(home->mm);
	mmput_async(home->mm);
}

int sq_copy_in(struct sq_home *home, void *dst, u64 addr, size_t len)
{
	bool entered;
	int err = sq_enter_mm(home, len, &entered);

	if (err)
		return err;
	if (copy_from_user(dst, u64_to_user_ptr(addr), len))
		err = -EFAULT;
	sq_leave_mm(home, entered);
	return err;
}

int sq_copy_out(struct sq_home *home, u64 addr, const void *src, size_t len)
{
	bool entered;
	int err = sq_enter_mm(home, len, &entered);

	if (err)
		return err;
	if (copy_to_user(u64_to_user_ptr(addr), src, len))
		err = -EFAULT;
	sq_leave_mm(home, entered);
	return err;
}

/* For a kernel thread without an mm: the ring's is its own until sq_user_leave(). */
int sq_user_enter(struct sq_home *home)
{
	bool entered;

	return current->mm || sq_enter_mm(home, 0, &entered) ? -ECANCELED : 0;
}

void sq_user_leave(struct sq_home *home)
{
	sq_leave_mm(home, true);
}

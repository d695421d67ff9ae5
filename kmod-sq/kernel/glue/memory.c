// SPDX-License-Identifier: MIT OR Apache-2.0
/* Ring pages and their mappings, setup-time allocation, and copies to and from the ring's process. */
#include <linux/kthread.h>
#include <linux/mmu_context.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/sizes.h>
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
	while (pages->nr) {
		cond_resched();
		put_page(pages->pages[--pages->nr]);
	}
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

bool sq_mm_enter(struct sq_home *home)
{
	atomic_inc(&home->guests);
	/* Pairs with sq_mm_close(): either this sees `closed`, or sq_mm_wait() sees this guest. */
	smp_mb__after_atomic();
	if (!READ_ONCE(home->closed) && !smp_load_acquire(&home->disabled) && mmget_not_zero(home->mm)) {
		kthread_use_mm(home->mm);
		write_pkru(home->pkru);
		return true;
	}
	if (atomic_dec_and_test(&home->guests))
		wake_up_all(&home->wait);
	return false;
}

void sq_mm_leave(struct sq_home *home)
{
	write_pkru(SQ_PKRU_KTHREAD);
	kthread_unuse_mm(home->mm);
	/* The last user of an mm unmaps it all, which may end in our own release(): not here. */
	mmput_async(home->mm);
	/* Last: the wait is for no access to the mm's pages, which has ended, but `home` is needed up to here. */
	if (atomic_dec_and_test(&home->guests) && READ_ONCE(home->closed))
		wake_up_all(&home->wait);
}

void sq_mm_close(struct sq_home *home)
{
	WRITE_ONCE(home->closed, true);
	/* Pairs with sq_mm_enter(). */
	smp_mb();
}

/*
 * LIFE-2: the promise is made to whoever closes a ring of its own: its memory is
 * its own again. What is waited for is a copy, or an issue() in a worker, whose
 * further copies fail. But a page may be served by a thread of user space
 * (userfaultfd, FUSE), which takes as long as it likes. So:
 * - another process that happens to close last (SCM_RIGHTS) does not wait: none
 *   of its memory is at stake, and it must not hang on a stranger's page;
 * - nor does a task that exits (it has no mm any more), nor a kernel thread that
 *   puts files for everybody;
 * - a process that stalls its own pages waits for itself, until it is killed.
 */
void sq_mm_wait(struct sq_home *home)
{
	if (current->mm == home->mm)
		/* Killed: nobody is left to look. */
		(void)wait_event_killable(home->wait, !atomic_read(&home->guests));
}

/* What is copied between two looks at whether to go on. */
#define SQ_COPY_CHUNK SZ_1M

static int sq_copy(struct sq_home *home, void *kernel, u64 addr, size_t len, bool in)
{
	/* Inline, and in a drain by a worker, the ring's memory is current; a driver's own thread may come from anywhere. */
	bool enter = current->mm != home->mm;
	int err = 0;

	/* Another process's memory is not the ring's. */
	if (enter && (!(current->flags & PF_KTHREAD) || current->mm || !sq_mm_enter(home)))
		return -EFAULT;
	while (len) {
		size_t chunk = min_t(size_t, len, SQ_COPY_CHUNK);
		void __user *user = u64_to_user_ptr(addr);

		/* LIFE-2: requests that outlive their ring's file have no user memory. */
		if (READ_ONCE(home->closed) ||
		    (in ? copy_from_user(kernel, user, chunk) : copy_to_user(user, kernel, chunk))) {
			err = -EFAULT;
			break;
		}
		kernel += chunk;
		addr += chunk;
		len -= chunk;
		if (len) {
			err = sq_pause();
			if (err)
				break;
		}
	}
	if (enter)
		sq_mm_leave(home);
	return err;
}

int sq_copy_in(struct sq_home *home, void *dst, u64 addr, size_t len)
{
	return sq_copy(home, dst, addr, len, true);
}

int sq_copy_out(struct sq_home *home, u64 addr, const void *src, size_t len)
{
	/* Only read, as `in` is false. */
	return sq_copy(home, (void *)src, addr, len, false);
}

/* For a kernel thread without an mm: the ring's is its own until sq_user_leave(). */
int sq_user_enter(struct sq_home *home)
{
	return current->mm || !sq_mm_enter(home) ? -ECANCELED : 0;
}

void sq_user_leave(struct sq_home *home)
{
	sq_mm_leave(home);
}

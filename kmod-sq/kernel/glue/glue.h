/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What C and Rust have in common inside sq.ko. kernel/src/ffi.rs is the same
 * list in Rust.
 *
 *	device.c	drivers, nodes, and the calls on an open file
 *	home.c		life of what a ring stands on; sleeping, waking, the clock
 *	users.c		workers, by user
 *	poll.c		the polling thread
 *	show.c		fdinfo, and a device's counters in sysfs
 *	trace.c		tracepoints (sq_trace.h)
 *	memory.c	ring pages, mappings, allocation, user copies
 *	signal.c	the signal mask of a wait
 *	doors.c		what the doors without a ring need of their caller
 *	uring.c		io_uring's door
 *	small.c		locks, files, panic
 */
#ifndef _SQ_GLUE_H
#define _SQ_GLUE_H

#include <linux/eventfd.h>
#include <linux/fs.h>
#include <linux/hrtimer.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/sched.h>
#include <linux/version.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <asm/pkru.h>
#include <sq_driver.h>

/*
 * Protection keys of a kernel thread that is in nobody's memory: 0 alone. It is what the kernel begins with, unless told otherwise by debugfs,
 * and tells no module.
 */
#define SQ_PKRU_KTHREAD 0x55555554

/* Rust: Ring<KernelHost> */
struct sq_ring;

/* Rust: Doors, which needs no more room than this (kernel/src/caller.rs asserts it). Plain data. */
struct sq_door {
	u64	rust[8];
};

/* Rust: Pool<Current>, the requests of a file's commands, and one of them */
struct sq_pool;
struct sq_slot;

/* Pages that the kernel side and user space share. Written once, before the ring is published. */
struct sq_pages {
	struct page	**pages;
	void		*addr;		/* mapped here in the kernel */
	unsigned long	nr;
	u64		offset;		/* of mmap */
};

/* Order of mmap offsets; kernel/src/ffi.rs has the same numbers. */
enum { SQ_PAGES_USER, SQ_PAGES_KERNEL, SQ_PAGES_POOL, SQ_PAGES_NR };

struct sq_device;

/*
 * What a ring stands on: the kernel's side of kmod_sq::Host.
 *
 * It lives as long as the Rust ring, which counts references: one of the open
 * file, one of each request in flight, one of a queued drain, one of the polling
 * thread. The last one queues free_work. It pins both modules, but neither the file nor (beyond its
 * struct) the mm: see LIFE-2 and LIFE-3.
 */
struct sq_home {
	struct sq_ring		*ring;
	u64			id;		/* for people */
	struct list_head	tallied;	/* in its device's tally */
	struct mm_struct	*mm;		/* mmgrab: an identity, and the way to mmget_not_zero() */
	const struct cred	*cred;		/* every entry runs with it */
	u32			pkru;		/* protection keys are a thread's: those of whoever became its owner */
	struct sq_user		*user;		/* the same one's: whose worker drains */
	struct sq_device	*device;

	/* LIFE-3: a ring set up disabled changes hands when it is enabled. */
	bool			disabled;	/* while it is set, mm, cred, pkru and user may change, under enable_lock */
	bool			mapped;		/* its first owner can see it, so nobody else may have it */
	struct mutex		enable_lock;	/* only ever tried for */
	struct mm_struct	*owner_mm;	/* mm, or nobody's while disabled: for comparing */

	/* LIFE-2: a Dekker pair, see sq_mm_enter(). */
	bool			closed;		/* user memory is out of reach: the file is gone */
	atomic_t		guests;		/* kernel threads that are in the ring's user memory */

	wait_queue_head_t	wait;		/* waiters and pollers */
	spinlock_t		eventfd_lock;
	struct eventfd_ctx	*eventfd;	/* under eventfd_lock */

	struct work_struct	drain_work;	/* holds a reference to the ring while queued */
	struct work_struct	alarm_work;	/* needs none: freeing waits for it */
	struct work_struct	free_work;
	raw_spinlock_t		alarm_lock;	/* outside of the timer's own lock */
	u64			alarm_at;	/* when the timer goes off; U64_MAX: it is not set */
	struct hrtimer		alarm;

	struct task_struct	*poll_thread;	/* null but in polling mode; counted */
	bool			poll_started;
	int			poll_asked;	/* there is something to do: taken by the thread */

	struct sq_pages		pages[SQ_PAGES_NR];
};

/* An open file. */
struct sq_file {
	struct sq_device	*device;
	const struct sq_door	*door;		/* the device's */
	struct mutex		setup_lock;
	struct sq_home		*home;		/* set once, by release; null: no ring yet */
	struct sq_pool		*pool;		/* set once; null: no io_uring command yet */
};

static inline void sq_timer_init(struct hrtimer *timer, enum hrtimer_restart (*fires)(struct hrtimer *))
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 13, 0)
	hrtimer_init(timer, CLOCK_MONOTONIC, HRTIMER_MODE_ABS);
	timer->function = fires;
#else
	hrtimer_setup(timer, fires, CLOCK_MONOTONIC, HRTIMER_MODE_ABS);
#endif
}

/* --- home.c --- */
/* For what is bounded. */
extern struct workqueue_struct *sq_workqueue;
int sq_homes_init(void);
void sq_homes_exit(void);
struct sq_home *sq_home_new(struct sq_device *device);
/* Frees a home that never had a ring, or whose ring is gone. May sleep. */
void sq_home_free(struct sq_home *home);
/* The file is gone. */
void sq_home_close(struct sq_home *home);
/*
 * LIFE-3: what a kernel thread wears while it runs a ring's entries, mm and
 * credentials. False: it must not, as sq_mm_enter() says. *cred is what it had.
 */
bool sq_guise_on(const struct cred **cred, struct sq_home *home);
void sq_guise_off(const struct cred *cred, struct sq_home *home);

/* --- users.c; sq_driver.h has more --- */
/* For items that keep this module, or what does. False: it is queued already. */
bool sq_user_queue(struct sq_user *user, struct work_struct *work);
void sq_users_exit(void);

/* --- device.c --- */
extern const struct file_operations sq_file_operations;
/* Pins the device's module from a place that holds it already. */
void sq_device_pin(struct sq_device *device);
void sq_device_unpin(struct sq_device *device);
struct sq_tally *sq_tally_of(struct sq_device *device);
struct miscdevice;
struct sq_tally *sq_device_tally(struct miscdevice *misc);

/* --- poll.c --- */
struct sq_turn;
/* Nothing, for a home without a polling thread. */
void sq_poll_start(struct sq_home *home);
void sq_poll_free(struct sq_home *home);

/* --- show.c --- */
struct seq_file;
/* Counters of a device: the rings that there are, and sums of those that have ended. */
struct sq_tally {
	struct mutex		lock;
	struct list_head	homes;
	u32			rings;		/* in homes */
	struct sq_stats		ended;
};
void sq_tally_init(struct sq_tally *tally);
void sq_tally_join(struct sq_tally *tally, struct sq_home *home);
void sq_tally_leave(struct sq_tally *tally, struct sq_home *home);
extern const struct attribute_group *sq_device_groups[];
void sq_show_home(struct seq_file *m, struct sq_home *home);

/* --- memory.c --- */
/*
 * Makes the ring's user memory a kernel thread's own, until sq_mm_leave(). False
 * if its process or its file is gone, or the ring is not enabled yet. Whoever
 * uses that memory outside of a call of its process does so between these two.
 */
bool sq_mm_enter(struct sq_home *home);
void sq_mm_leave(struct sq_home *home);
/* The file is gone: from now on nobody enters. Waits for those inside, if the caller's memory is at stake. */
void sq_mm_close(struct sq_home *home);
void sq_mm_wait(struct sq_home *home);
int sq_pages_map(const struct sq_pages *pages, struct vm_area_struct *vma);
void sq_pages_free(struct sq_pages *pages);

/* --- uring.c --- */
struct io_uring_cmd;
int sq_uring_cmd(struct io_uring_cmd *cmd, unsigned int issue_flags);

/* --- signal.c --- */
void sq_sigmask_begin(u64 mask);
/* interrupted: a signal ended the wait, and is about to be delivered. */
void sq_sigmask_end(bool interrupted);

/* --- C that Rust calls (kernel/src/ffi.rs) --- */
void *sq_alloc(size_t size);
void sq_free(void *place);
void *sq_pages_new(struct sq_home *home, u32 which, u64 offset, u64 bytes);
int sq_copy_in(struct sq_home *home, void *dst, u64 addr, size_t len);
int sq_copy_out(struct sq_home *home, u64 addr, const void *src, size_t len);
int sq_user_enter(struct sq_home *home);
void sq_user_leave(struct sq_home *home);
void sq_lock_init(void *lock);
unsigned long sq_lock(void *lock);
bool sq_trylock(void *lock, unsigned long *flags);
void sq_unlock(void *lock, unsigned long flags);
struct file *sq_file_get(s32 fd);
void sq_file_ref(struct file *file);
void sq_file_put(struct file *file);
int sq_eventfd_set(struct sq_home *home, s32 fd);
void sq_notify(struct sq_home *home, bool waiters, bool eventfd);
bool sq_queue_drain(struct sq_home *home);
void sq_set_alarm(struct sq_home *home, u64 at_ns);
u64 sq_now_ns(void);
int sq_pause(void);
u32 sq_wait(struct sq_home *home, u64 deadline_ns, bool (*ready)(void *context), void *context);
void sq_queue_free(struct sq_home *home);
int sq_copy_entry(u64 *dst, u64 addr);
int sq_caller_copy_in(void *dst, u64 addr, size_t len);
int sq_caller_copy_out(u64 addr, const void *src, size_t len);
struct mm_struct *sq_caller_mm(void);
void sq_caller_mm_put(struct mm_struct *mm);
bool sq_caller_mm_enter(struct mm_struct *mm);
void sq_caller_mm_leave(struct mm_struct *mm);
int sq_caller_mm_copy_in(struct mm_struct *mm, void *dst, u64 addr, size_t len);
int sq_caller_mm_copy_out(struct mm_struct *mm, u64 addr, const void *src, size_t len);
void sq_event_new(void *event);
void sq_event_set(void *event);
bool sq_event_wait(void *event, bool interruptible);
bool sq_sleep_until(u64 at_ns);
struct sq_task;
u64 sq_uring_features(void);
void sq_task_hold(struct sq_task *task, struct sq_slot *slot, struct io_uring_cmd *cmd, unsigned int issue_flags,
		  bool cancelable);
void sq_task_complete(struct sq_task *task);
void sq_task_start_timer(struct sq_task *task, u64 at_ns);
void sq_task_stop_timer(struct sq_task *task);
int sq_poll_new(struct sq_home *home, s64 cpu);
void sq_poll_wake(struct sq_home *home);
bool sq_poll_busy(struct sq_turn *turn);
void sq_poll_relax(struct sq_turn *turn);
bool sq_poll_leaves(struct sq_turn *turn);
void sq_trace_reject(struct sq_home *home, u64 user_data, u8 opcode, s32 res);
void sq_trace_complete(struct sq_home *home, u64 user_data, s32 res);
void sq_trace_stall(struct sq_home *home, bool slots);
extern int sq_completions_traced;
void __noreturn sq_panic(const char *file, size_t len, u32 line);

/* --- Rust that C calls (kernel/src/lib.rs). Negative results are errors. --- */
/* Fills in the doors of a driver whose table has been checked. */
int sq_door_new(struct sq_door *door, const struct sq_driver_table *table, const void *data);
/* ring: null, or that of the same file, which says what opcodes the file has given up. */
long sq_door_issue(const struct sq_door *door, const struct sq_ring *ring, u64 addr);
struct sq_pool *sq_pool_new(void);
void sq_pool_free(struct sq_pool *pool);
/* The result, or SQ_DEFERRED: then sq_task_complete() is called for it. */
int sq_command_live(const struct sq_door *door, struct sq_pool *pool, const struct sq_ring *ring,
		    struct io_uring_cmd *cmd, unsigned int issue_flags, const void *entry, u64 *extra);
int sq_command_user(const struct sq_door *door, struct sq_pool *pool, const struct sq_ring *ring,
		    struct io_uring_cmd *cmd, unsigned int issue_flags, u64 addr, u64 *extra);
void sq_slot_fired(struct sq_slot *slot);
void sq_slot_cancel(struct sq_slot *slot, const struct sq_door *door, struct io_uring_cmd *cmd);
/* The result of what sq_task_complete() was called for. The slot is free afterwards. */
int sq_slot_finish(struct sq_slot *slot, u64 *extra);
int sq_rust_query(const struct sq_driver_table *table, const void *data, u8 *arg, size_t len);
/* On success the ring has one reference, for sq_ring_put(). */
int sq_ring_setup(struct sq_home *home, const struct sq_driver_table *table, const void *data, u8 *arg, size_t len,
		  struct sq_ring **ring);
long sq_ring_doorbell(struct sq_ring *ring);
long sq_ring_call(struct sq_ring *ring, u32 cmd, u8 *arg, size_t len);
__poll_t sq_ring_poll(struct sq_ring *ring);
void sq_ring_alarm(struct sq_ring *ring);

/* kmod-sq/src/look.rs says what it is. */
struct sq_look {
	u32		mode, sq_entries, cq_entries, max_inflight;
	u32		stopped, draining, busy;
	u32		sq_head, cq_head, cq_tail, reserved, stall;
	struct sq_stats	stats;
};
static_assert(sizeof(struct sq_look) == 152 && offsetof(struct sq_look, stats) == 48);
enum { SQ_STOP_DISABLED = 1, SQ_STOP_BROKEN = 2, SQ_STOP_QUIESCED = 4 };

void sq_ring_look(struct sq_ring *ring, struct sq_look *look);
void sq_ring_stats(struct sq_ring *ring, struct sq_stats *stats);
/* Not alive: the ring's process is gone, so nothing more is run. */
void sq_ring_drain(struct sq_ring *ring, bool alive);
/* One time awake; whether to call it again at once. */
bool sq_ring_poll_awake(struct sq_ring *ring, struct sq_turn *turn);
/* Stops and cancels, and waits for neither. */
void sq_ring_abandon(struct sq_ring *ring);
void sq_ring_keep(struct sq_ring *ring);
/* The ring and its home may be gone after it. */
void sq_ring_put(struct sq_ring *ring);
/* Drops the ring itself: nobody has a reference any more. */
void sq_ring_destroy(struct sq_ring *ring);

#endif /* _SQ_GLUE_H */

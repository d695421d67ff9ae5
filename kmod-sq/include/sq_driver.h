/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The boundary between sq.ko and a driver, in C.
 *
 * The same thing as kmod-sq/driver/src/abi.rs, with the same sizes asserted on
 * both sides. A driver module, in C or in Rust, fills in a table, registers it,
 * and /dev/sqNAME is there. The framework calls the table; a driver calls back
 * through the operations that come with each op and request. Nothing else
 * crosses from one module to the other.
 *
 * A bad entry never reaches a driver: what it sees is a private copy of the
 * entry, with every field that the opcode does not use known to be zero.
 */
#ifndef _SQ_DRIVER_H
#define _SQ_DRIVER_H

#include <linux/build_bug.h>
#include <linux/limits.h>
#include <linux/module.h>
#include <linux/types.h>
#include <linux/version.h>
#include <linux/workqueue.h>
#include <sq.h>

#ifndef CONFIG_X86_64
#error "sq is for x86-64 only, for now"
#endif
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 1, 0)
#error "sq needs Linux 6.1 or newer"
#endif

/* sq_driver_table.version. Another one is refused. */
#define SQ_DRIVER_VERSION	1U

/* sq_driver_table.flags: fd names a file */
#define SQ_DRIVER_FILES		(1U << 0)

/* What issue() returns when it has taken the request by defer(). */
#define SQ_DEFERRED		S32_MIN

/* Most segments of a payload. */
#define SQ_MAX_SEGMENTS		16

/* Longest name of a driver, without its NUL. */
#define SQ_DRIVER_NAME_MAX	15

/* sq_payload.kind: user addresses, reached by copy_from_user() and copy_to_user() only */
#define SQ_PAYLOAD_USER		0U
/* sq_payload.kind: kernel addresses in the ring's pool. User space may write there at any time: copy, then look. */
#define SQ_PAYLOAD_POOL		1U

struct sq_segment {
	u64	addr;
	u64	len;
};

/* Where an operation's bytes are. The cursor (at, passed, left) only moves forward. */
struct sq_payload {
	u32			kind;		/* SQ_PAYLOAD_ */
	u32			nr;		/* segments in use */
	u64			left;		/* bytes not yet passed */
	u32			at;		/* the segment that the cursor is in */
	u32			resv;		/* 0 */
	u64			passed;		/* bytes of that segment already passed */
	struct sq_segment	segments[SQ_MAX_SEGMENTS];
};

struct sq_op;
struct sq_request;

/* Flag of defer(): the request may wait without bound, until it is canceled. */
#define SQ_DEFER_INDEFINITE	(1U << 0)

/* What issue() may call. */
struct sq_op_ops {
	/*
	 * Takes the operation out of issue(), which must then return SQ_DEFERRED.
	 * At most once an operation. With flags 0 it never fails: the request was
	 * set aside when the entry was accepted. With SQ_DEFER_INDEFINITE, for what
	 * may wait without bound, it returns NULL when the ring has as many such
	 * requests as it may: then return -EBUSY.
	 */
	struct sq_request *(*defer)(struct sq_op *op, u32 flags);
	/* 0, -EFAULT, or -ECANCELED if the process is killed meanwhile. May sleep. */
	s32 (*copy_from_user)(const void *framework, void *dst, u64 addr, size_t len);
	s32 (*copy_to_user)(const void *framework, u64 addr, const void *src, size_t len);
};

/* An operation being issued. Valid until issue() returns. */
struct sq_op {
	const u64		sqe[16];	/* a struct sq_sqe128; the second half is 0 on rings of 64-byte entries */
	const struct sq_op_ops	*ops;
	const void		*framework;	/* for ops->copy_* */
	unsigned long		target;		/* SQ_DRIVER_FILES: the struct file *, else 0 */
	u64			extra[2];	/* out: second half of a 32-byte completion */
	struct sq_payload	payload;
};

/*
 * What may be done with a request. complete*() may be called from any context,
 * on PREEMPT_RT from any that may take a spinlock_t; the others may sleep.
 */
struct sq_request_ops {
	/* Completes the request, which is then gone. extra: two u64, never null. */
	void (*complete)(struct sq_request *request, s32 res, const u64 *extra);
	/*
	 * The framework's clock completes the request with res after delay_ns, or
	 * with -ECANCELED when it is canceled before. The request is gone.
	 */
	void (*complete_after)(struct sq_request *request, s32 res, u64 delay_ns);
	/* As in sq_op_ops, in any context that may sleep. -EFAULT once the ring is closed. */
	s32 (*copy_from_user)(struct sq_request *request, void *dst, u64 addr, size_t len);
	s32 (*copy_to_user)(struct sq_request *request, u64 addr, const void *src, size_t len);
	/*
	 * For a kernel thread without an mm, which wants to hand the payload's user
	 * addresses to the rest of the kernel: makes the ring's mm current, until
	 * leave_user(), which comes before complete(). 0, or -ECANCELED if the ring
	 * is closed or its process is gone. Whoever closes the ring may wait for it.
	 * The protection keys are those of whoever set the ring up, or enabled it;
	 * of a request that came by another door none is open. Until leave_user(),
	 * write_pkru() of <asm/pkru.h> may give others.
	 */
	s32 (*enter_user)(struct sq_request *request);
	void (*leave_user)(struct sq_request *request);
};

/* A request that a driver holds, and must complete exactly once. */
struct sq_request {
	const struct sq_request_ops	*ops;
	u64				id;		/* unique among the requests of all rings, for good */
	unsigned long			target;		/* as in sq_op */
	struct sq_payload		payload;	/* the cursor is where issue() left it */
};

/* What a driver is. */
struct sq_driver_table {
	u32		size;		/* sizeof(struct sq_driver_table) */
	u32		version;	/* SQ_DRIVER_VERSION */
	const char	*name;		/* [a-z0-9_]+, at most SQ_DRIVER_NAME_MAX: the device is /dev/sqNAME */
	u64		opcodes;	/* bit n: opcode n is taken */
	u32		flags;		/* SQ_DRIVER_ */
	u32		resv;		/* 0 */
	/*
	 * Starts an operation: returns its result (>= 0, or a negative errno), or
	 * SQ_DEFERRED. Never runs twice at a time for one ring. May sleep, but
	 * stalls its ring.
	 */
	s32 (*issue)(const void *data, struct sq_op *op);
	/*
	 * Makes the deferred request `id` finish in finite time, if this driver
	 * still has it. Runs at the same time as everything else. May not sleep.
	 */
	void (*cancel)(const void *data, u64 id);
	void (*begin)(const void *data);		/* before a batch of issue(), or null */
	void (*commit)(const void *data);		/* after it, or null */
	u64 (*target_bytes)(const void *data);		/* bytes of the target, or null */
};

/* kmod-sq/kernel/src/abi.rs asserts the same numbers of the Rust side. */
static_assert(sizeof(struct sq_payload) == 288);
static_assert(sizeof(struct sq_op) == 456);
static_assert(offsetof(struct sq_op, payload) == 168);
static_assert(sizeof(struct sq_op_ops) == 24);
static_assert(sizeof(struct sq_request) == 312);
static_assert(sizeof(struct sq_request_ops) == 48);
static_assert(sizeof(struct sq_driver_table) == 72);
static_assert(offsetof(struct sq_driver_table, issue) == 32);

/*
 * Workers by user. An operation that goes on after issue() may wait for user
 * space: for a page of its payload (userfaultfd), or for what a process serves
 * (FUSE). On a queue that all share, one user could stall everybody; of these
 * each user has one, which runs 256 items at a time.
 */
struct sq_user;

struct sq_work {
	void			(*run)(struct sq_work *work);	/* may sleep; the work may be gone when it returns */
	struct module		*owner;	/* THIS_MODULE: it stays until run() has returned */
	struct work_struct	item;	/* the framework's */
};

/**
 * sq_user_get - the user whose credentials are current
 *
 * In issue() that is the ring's user. May sleep.
 *
 * Returns a counted reference, or NULL if there is no memory.
 */
struct sq_user *sq_user_get(void);

/**
 * sq_user_put - gives a reference back, in any context that may take a spinlock_t
 * @user:	from sq_user_get()
 */
void sq_user_put(struct sq_user *user);

/**
 * sq_work_queue - has work done by a worker of a user's
 * @user:	a reference is held until @work runs
 * @work:	not queued at the moment; run and owner are set
 *
 * In any context that may take a spinlock_t, by whoever holds a request or an
 * open file: that pins the owner up to here.
 */
void sq_work_queue(struct sq_user *user, struct sq_work *work);

struct sq_device;

/**
 * sq_driver_register - makes /dev/sqNAME
 * @table:	the driver; valid until sq_driver_unregister() returns
 * @data:	handed to each of the table's functions, which may run at the same
 *		time on any CPU
 * @owner:	THIS_MODULE: it cannot go while a device is open or a request is
 *		held. Before its exit function returns, it must have returned from
 *		every function of a request's ops.
 * @mode:	permissions of the node, such as 0600
 *
 * For the owner's init function, as the last thing that it does: the node is
 * open to all who may from here on.
 *
 * Returns an ERR_PTR: -EINVAL if the table is of another version or malformed
 * (the log says why), -EEXIST if there is such a device, -ENOMEM.
 */
struct sq_device *sq_driver_register(const struct sq_driver_table *table, const void *data, struct module *owner,
				     umode_t mode);

/**
 * sq_driver_unregister - removes the node
 * @device:	from sq_driver_register()
 *
 * For the owner's exit function, which runs when nothing is open any more. Waits
 * for all tasks to be seen elsewhere (a moment), so whoever completed the last
 * request has left the driver, if it does not sleep on the way.
 */
void sq_driver_unregister(struct sq_device *device);

/* The beginning of every table. */
#define SQ_DRIVER_TABLE(driver_name) \
	.size = sizeof(struct sq_driver_table), .version = SQ_DRIVER_VERSION, .name = (driver_name)

/* The entry, a private copy. On rings of 128-byte entries it is the first half of a struct sq_sqe128. */
static inline const struct sq_sqe *sq_op_sqe(const struct sq_op *op)
{
	return (const struct sq_sqe *)op->sqe;
}

/* Takes the operation out of issue(), which must then return SQ_DEFERRED. It finishes without user space doing anything. Never fails. */
static inline struct sq_request *sq_defer(struct sq_op *op)
{
	return op->ops->defer(op, 0);
}

/* The same for what may wait without bound, until it is canceled. NULL: return -EBUSY. */
static inline struct sq_request *sq_defer_indefinite(struct sq_op *op)
{
	return op->ops->defer(op, SQ_DEFER_INDEFINITE);
}

/* Completes a request, from any context that may take a spinlock_t. */
static inline void sq_complete(struct sq_request *request, s32 res)
{
	static const u64 nothing[2];

	request->ops->complete(request, res, nothing);
}

/* Leaves a request to the framework's clock, and to whoever cancels it first. */
static inline void sq_complete_after(struct sq_request *request, s32 res, u64 delay_ns)
{
	request->ops->complete_after(request, res, delay_ns);
}

#endif /* _SQ_DRIVER_H */

/* SPDX-License-Identifier: (GPL-2.0-only WITH Linux-syscall-note) OR MIT */
/*
 * The ABI between an application and the kernel side of an sq ring.
 *
 * The same thing as the Rust crate sq-uapi; uapi/tests/header/ compares
 * every size, offset and constant of the two. docs/protocol.md has the rules.
 *
 * Entries have the layout of struct io_uring_sqe and struct io_uring_cqe, and
 * IORING_X and IOSQE_X are SQ_X with the same value. A number is borrowed only
 * with its meaning. What sq does not implement is refused with -EINVAL.
 *
 * All fields are little-endian, pointers travel as 64-bit integers, and there
 * are no bitfields and no padding: 32- and 64-bit programs have one layout.
 */
#ifndef _UAPI_SQ_H
#define _UAPI_SQ_H

#include <linux/ioctl.h>
#include <linux/types.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "sq rings are little-endian: the words of an entry are defined by their bytes"
#endif

#ifdef __cplusplus
extern "C" {
#define __sq_assert(what) static_assert(what, #what)
#else
#define __sq_assert(what) _Static_assert(what, #what)
#endif

#define __sq_size(type, bytes) __sq_assert(sizeof(struct type) == (bytes))
#define __sq_at(type, field, offset)                                           \
	__sq_assert(__builtin_offsetof(struct type, field) == (offset))

/* Version of this ABI. A module with another one is another device. */
#define SQ_ABI_VERSION		1U

/*
 * Submission entry, 64 bytes.
 */
struct sq_sqe {
	__u8	opcode;		/* SQ_OP_ */
	__u8	flags;		/* SQ_FIXED_FILE and so on */
	__u16	ioprio;		/* 0 */
	__s32	fd;		/* descriptor, registered index, or -1 */
	union {
		__aligned_u64	off;	/* bytes from the target's start */
		struct {
			__u32	cmd_op;	/* SQ_OP_CMD: the driver's command */
			__u32	__pad1;	/* 0 */
		};
	};
	__aligned_u64	addr;	/* user address, or bytes into a pool buffer */
	__u32	len;		/* bytes, or segments of a vector */
	union {
		__u32	op_flags;	/* flags of the opcode */
		__u32	fsync_flags;	/* SQ_FSYNC_ */
		__u32	cancel_flags;	/* SQ_ASYNC_CANCEL_ */
		__u32	cmd_flags;	/* SQ_CMD_ */
	};
	__aligned_u64	user_data;	/* echoed bit for bit */
	__u16	buf_index;	/* index of a pool buffer */
	__u16	personality;	/* 0 */
	__u32	file_index;	/* 0 */
	__u8	cmd[16];	/* SQ_OP_CMD: its own bytes; else 0 */
};

/*
 * Submission entry of a ring set up with SQ_SETUP_SQE128, 128 bytes.
 */
struct sq_sqe128 {
	struct sq_sqe	sqe;
	__u8		cmd_tail[64];	/* bytes 16..80 of cmd; else 0 */
};

/*
 * Completion, 16 bytes.
 */
struct sq_cqe {
	__aligned_u64	user_data;	/* the entry's */
	__s32		res;		/* result, or a negative errno */
	__u32		flags;		/* SQ_CQE_F_ */
};

/*
 * Completion of a ring set up with SQ_SETUP_CQE32, 32 bytes.
 */
struct sq_cqe32 {
	struct sq_cqe	cqe;
	__aligned_u64	extra[2];	/* results of the driver's own */
};

/*
 * sqe->opcode
 */
#define SQ_OP_NOP		0U	/* does nothing */
#define SQ_OP_READV		1U	/* addr: struct sq_iovec[len] */
#define SQ_OP_WRITEV		2U	/* addr: struct sq_iovec[len] */
#define SQ_OP_FSYNC		3U	/* flushes to stable storage */
#define SQ_OP_READ_FIXED	4U	/* into pool buffer buf_index, from byte addr of it */
#define SQ_OP_WRITE_FIXED	5U	/* from pool buffer buf_index, from byte addr of it */
#define SQ_OP_ASYNC_CANCEL	14U	/* addr: user_data, len: opcode to match */
#define SQ_OP_READ		22U	/* len bytes at addr */
#define SQ_OP_WRITE		23U	/* len bytes at addr */
#define SQ_OP_CMD		46U	/* the driver's own command (IORING_OP_URING_CMD) */

/*
 * sqe->flags
 */
#define SQ_FIXED_FILE		(1U << 0)	/* fd indexes the registered files */
#define SQ_IO_DRAIN		(1U << 1)	/* waits for all earlier requests */
#define SQ_IO_LINK		(1U << 2)	/* links the next entry */
#define SQ_IO_HARDLINK		(1U << 3)	/* links it whatever the result */
#define SQ_ASYNC		(1U << 4)	/* do not try inline */
#define SQ_CQE_SKIP_SUCCESS	(1U << 6)	/* no completion on success */

/*
 * sqe->fsync_flags
 */
#define SQ_FSYNC_DATASYNC	(1U << 0)	/* data, no needless metadata */

/*
 * sqe->cmd_flags
 */
#define SQ_CMD_FIXED		(1U << 0)	/* buf_index names a pool buffer (IORING_URING_CMD_FIXED) */

/*
 * sqe->cancel_flags and sq_cancel.flags
 */
#define SQ_ASYNC_CANCEL_ALL		(1U << 0)	/* all that match */
#define SQ_ASYNC_CANCEL_ANY		(1U << 2)	/* whatever is in flight */
#define SQ_ASYNC_CANCEL_USERDATA	(1U << 4)	/* match user_data: the default */
#define SQ_ASYNC_CANCEL_OP		(1U << 5)	/* match the opcode */

/*
 * cqe->flags
 */
#define SQ_CQE_F_MORE		(1U << 1)	/* more completions follow */

/*
 * The words that both sides share. They are 32 bits, and found by sq_offsets.
 *
 * sq_state, written by the drain owner
 */
#define SQ_SQ_NEED_WAKEUP	(1U << 0)	/* ring after publishing entries */
#define SQ_SQ_CQ_BLOCKED	(1U << 16)	/* ring after reaping */
#define SQ_SQ_DRAIN_WAIT	(1U << 17)	/* an SQ_IO_DRAIN entry waits */
#define SQ_SQ_NEED_ENTER	(1U << 18)	/* the next entry needs its own process: ring, or wait by ENTER */

/*
 * cq_flags, written by the reaper
 */
#define SQ_CQ_EVENTFD_DISABLED	(1U << 0)	/* a hint: no eventfd signal */

/*
 * A part of a ring that is mapped on its own.
 */
struct sq_region {
	__aligned_u64	offset;	/* for mmap, bytes */
	__aligned_u64	size;	/* bytes; 0: there is none */
};

/*
 * Where words and arrays are, in bytes from the start of their region.
 */
struct sq_offsets {
	__u32	sq_tail;	/* user region: entries published */
	__u32	cq_head;	/* user region: completions reaped */
	__u32	cq_flags;	/* user region: SQ_CQ_ */
	__u32	sqes;		/* user region: the entries */
	__u32	sq_head;	/* kernel region: entries consumed */
	__u32	sq_state;	/* kernel region: SQ_SQ_ */
	__u32	cq_tail;	/* kernel region: completions posted */
	__u32	broken;		/* kernel region: not 0 once the ring is broken */
	__u32	cqes;		/* kernel region: the completions */
	__u32	resv[7];	/* 0 */
};

/*
 * A segment of a vectored operation.
 */
struct sq_iovec {
	__aligned_u64	base;	/* user address */
	__aligned_u64	len;	/* bytes */
};

/*
 * The arguments of the calls. Each begins with its own size in bytes. What
 * follows the version that the kernel side knows must be 0, else -E2BIG.
 * Reserved fields and unknown flags are refused with -EINVAL.
 */

/*
 * SQ_IOC_SETUP
 */
struct sq_setup {
	__u32	size;			/* in: bytes of this structure */
	__u32	flags;			/* in: SQ_SETUP_ */
	__u32	sq_entries;		/* in: wanted, at least 1; out: a power of two */
	__u32	cq_entries;		/* in: wanted, 0: twice sq_entries; out: a power of two */
	__u32	max_inflight;		/* in: requests wanted, 0: half of cq_entries; out: granted */
	__u32	sq_thread_idle_ms;	/* in: SQPOLL: awake when idle, milliseconds; 0: default */
	__u32	sq_thread_cpu;		/* in: SQ_AFF: CPU number */
	__u32	buf_count;		/* in: buffers of the pool, 0: no pool */
	__u32	buf_bytes;		/* in: bytes of each, a multiple of 4096 */
	__u32	resv0;			/* 0 */
	__aligned_u64	features;	/* out: SQ_FEAT_ */
	struct sq_region	user;	/* out: what user space writes */
	struct sq_region	kernel;	/* out: what the kernel writes; read-only */
	struct sq_region	pool;	/* out: the pool of buffers */
	struct sq_offsets	offsets;	/* out: where the words are */
	__aligned_u64	resv[4];	/* 0 */
};

/*
 * sq_setup.flags
 */
#define SQ_SETUP_SQPOLL		(1U << 1)	/* a kernel thread polls the queue */
#define SQ_SETUP_SQ_AFF		(1U << 2)	/* sq_thread_cpu is valid */
#define SQ_SETUP_CLAMP		(1U << 4)	/* lower sizes to the limit */
#define SQ_SETUP_R_DISABLED	(1U << 6)	/* start disabled */
#define SQ_SETUP_SQE128		(1U << 10)	/* entries are 128 bytes */
#define SQ_SETUP_CQE32		(1U << 11)	/* completions are 32 bytes */
#define SQ_SETUP_WORKER		(1U << 30)	/* a worker drains; sq's own */
#define SQ_SETUP_ALL                                                           \
	(SQ_SETUP_SQPOLL | SQ_SETUP_SQ_AFF | SQ_SETUP_CLAMP |                  \
	 SQ_SETUP_R_DISABLED | SQ_SETUP_SQE128 | SQ_SETUP_CQE32 |              \
	 SQ_SETUP_WORKER)

/*
 * sq_setup.features and sq_query.features: 64 bits, sq's own
 */
#define SQ_FEAT_KERNEL_RDONLY	(1ULL << 0)	/* kernel region: read-only to users */
#define SQ_FEAT_BUF_POOL	(1ULL << 1)	/* there is a pool of buffers */
#define SQ_FEAT_FILES		(1ULL << 2)	/* fd is used, files can be registered */
#define SQ_FEAT_EMBEDDED	(1ULL << 3)	/* the kernel side is in this process */
#define SQ_FEAT_ISSUE		(1ULL << 4)	/* SQ_IOC_ISSUE: one entry a call */
#define SQ_FEAT_URING_CMD	(1ULL << 5)	/* io_uring commands: one entry each */
#define SQ_FEAT_URING_CANCEL	(1ULL << 6)	/* they may wait without bound */

/*
 * SQ_IOC_ENTER. A null argument is the bare doorbell.
 */
struct sq_enter {
	__u32	size;		/* in: bytes of this structure */
	__u32	flags;		/* in: SQ_ENTER_ */
	__u32	min_complete;	/* in: wait until so many completions are unreaped */
	__u32	resv;		/* 0 */
	__aligned_u64	timeout_ns;	/* in: TIMEOUT: longest wait, nanoseconds */
	__aligned_u64	min_wait_ns;	/* in: MIN_WAIT: then one is enough, nanoseconds */
	__aligned_u64	sigmask;	/* in: SIGMASK: signals blocked while waiting */
	__u32	consumed;	/* out: entries consumed by this call */
	__s32	wait_result;	/* out: 0, -ETIME, -EINTR, -EBUSY (reap first), -EBADFD or -ESHUTDOWN */
	__aligned_u64	resv2[2];	/* 0 */
};

/*
 * sq_enter.flags: sq's own
 */
#define SQ_ENTER_TIMEOUT	(1U << 0)	/* timeout_ns is valid */
#define SQ_ENTER_SIGMASK	(1U << 1)	/* sigmask is valid */
#define SQ_ENTER_WAIT_IDLE	(1U << 2)	/* also end when nothing is left to do */
#define SQ_ENTER_MIN_WAIT	(1U << 3)	/* min_wait_ns is valid */
#define SQ_ENTER_ALL                                                           \
	(SQ_ENTER_TIMEOUT | SQ_ENTER_SIGMASK | SQ_ENTER_WAIT_IDLE |            \
	 SQ_ENTER_MIN_WAIT)

/*
 * SQ_IOC_REGISTER
 */
struct sq_register {
	__u32	size;		/* in: bytes of this structure */
	__u32	op;		/* in: SQ_REGISTER_, SQ_UNREGISTER_ */
	__aligned_u64	arg;	/* in: user address of the argument */
	__u32	nr;		/* in: how many the argument holds */
	__u32	offset;		/* in: FILES_UPDATE: first index */
	__aligned_u64	resv[2];	/* 0 */
};

/*
 * sq_register.op: io_uring's numbers, and sq's own from 48 on
 */
#define SQ_REGISTER_FILES		2U	/* __s32[nr], -1: a hole */
#define SQ_UNREGISTER_FILES		3U	/* requests in flight keep theirs */
#define SQ_REGISTER_EVENTFD		4U	/* one __s32 */
#define SQ_UNREGISTER_EVENTFD		5U
#define SQ_REGISTER_FILES_UPDATE	6U	/* __s32[nr], from index offset */
#define SQ_REGISTER_ENABLE_RINGS	12U	/* ends SQ_SETUP_R_DISABLED */
#define SQ_REGISTER_ALLOW_OPCODES	48U	/* one __u64: bit n allows opcode n; only shrinks */

/*
 * SQ_IOC_QUIESCE
 */
struct sq_quiesce {
	__u32	size;		/* in: bytes of this structure */
	__u32	flags;		/* 0 */
	__aligned_u64	timeout_ns;	/* in: longest wait, nanoseconds */
	__aligned_u64	resv[2];	/* 0 */
};

/*
 * SQ_IOC_CANCEL
 */
struct sq_cancel {
	__u32	size;		/* in: bytes of this structure */
	__u32	flags;		/* in: SQ_ASYNC_CANCEL_ */
	__aligned_u64	user_data;	/* in: what to match */
	__u32	opcode;		/* in: SQ_ASYNC_CANCEL_OP: what to match */
	__u32	resv0;		/* 0 */
	__aligned_u64	resv[2];	/* 0 */
};

/*
 * SQ_IOC_QUERY. Needs no ring.
 */
struct sq_query {
	__u32	size;		/* in: bytes of this structure */
	__u32	flags;		/* 0 */
	__u32	abi_version;	/* out: SQ_ABI_VERSION */
	__u32	sqe_flags;	/* out: bits of sqe->flags that are implemented */
	__aligned_u64	features;	/* out: SQ_FEAT_ */
	__u32	setup_flags;	/* out: SQ_SETUP_ that are implemented */
	__u32	enter_flags;	/* out: SQ_ENTER_ that are implemented */
	__aligned_u64	opcodes;	/* out: bit n: opcode n is accepted */
	__aligned_u64	register_ops;	/* out: bit n: REGISTER operation n exists */
	__u32	max_sq_entries;	/* out: entries */
	__u32	max_cq_entries;	/* out: completions */
	__u32	max_inflight;	/* out: requests */
	__u32	max_iov;	/* out: segments of a vector */
	__u32	max_chain;	/* out: linked entries; 0: no links */
	__u32	max_files;	/* out: registered files */
	__u32	max_bufs;	/* out: buffers of a pool */
	__u32	max_buf_bytes;	/* out: bytes of a buffer */
	__aligned_u64	max_pool_bytes;	/* out: bytes of a pool */
	__aligned_u64	target_bytes;	/* out: bytes of the driver's target, 0: no size */
	__u8	driver[16];	/* out: the driver's name, NUL-terminated */
	__u32	max_commands;	/* out: io_uring commands of a file */
	__u32	resv0;		/* 0 */
	__aligned_u64	resv[3];	/* 0 */
};

/*
 * SQ_IOC_STATS. Counts since setup; each wraps.
 */
struct sq_stats {
	__u32	size;		/* in: bytes of this structure */
	__u32	flags;		/* 0 */
	__aligned_u64	entries;	/* out: entries consumed */
	__aligned_u64	rejected;	/* out: entries refused by the framework */
	__aligned_u64	completions;	/* out: completions posted */
	__aligned_u64	skipped;	/* out: successes that posted none */
	__aligned_u64	doorbells;	/* out: ENTER calls */
	__aligned_u64	stalls;		/* out: drains stopped for want of a slot, a request or an ENTER */
	__aligned_u64	wakeups;	/* out: waiters woken for completions */
	__aligned_u64	inflight;	/* out: requests in flight now */
	__aligned_u64	rejected_invalid;	/* out: of rejected: malformed, EINVAL */
	__aligned_u64	rejected_opcode;	/* out: of rejected: opcode not taken, EOPNOTSUPP */
	__aligned_u64	avoided;	/* out: times entries were found without a doorbell */
	__aligned_u64	sleeps;		/* out: times the worker or polling thread went to sleep */
};

/*
 * Limits of this version. QUERY reports those of the device: ask it.
 */
#define SQ_MAX_SQ_ENTRIES	32768U		/* entries of a ring */
#define SQ_MAX_CQ_ENTRIES	65536U		/* completions of a ring */
#define SQ_MAX_INFLIGHT		32768U		/* requests of a ring */
#define SQ_MAX_COMMANDS		128U		/* io_uring commands of a file */
#define SQ_MAX_IOV		16U		/* segments of a vector */
#define SQ_MAX_FILES		4096U		/* registered files */
#define SQ_MAX_BUFS		32768U		/* buffers of a pool */
#define SQ_MAX_BUF_BYTES	(1U << 30)	/* bytes of a buffer */
#define SQ_MAX_POOL_BYTES	(1ULL << 32)	/* bytes of a pool */
#define SQ_MAX_TRANSFER_BYTES	0x7ffff000U	/* bytes of an operation */

/*
 * Sizes of the first published version of each argument, in bytes. A smaller
 * one is refused. They are part of the ioctl numbers, and so never change.
 */
#define SQ_QUERY_SIZE_VER0	144
#define SQ_SETUP_SIZE_VER0	192
#define SQ_ENTER_SIZE_VER0	64
#define SQ_REGISTER_SIZE_VER0	40
#define SQ_QUIESCE_SIZE_VER0	32
#define SQ_CANCEL_SIZE_VER0	40
#define SQ_STATS_SIZE_VER0	104

/*
 * The calls: ioctls on the device.
 */
#define SQ_IOC_MAGIC		0x71U	/* 'q' */
#define SQ_IOC_QUERY		_IOC(_IOC_READ | _IOC_WRITE, SQ_IOC_MAGIC, 0, SQ_QUERY_SIZE_VER0)
#define SQ_IOC_SETUP		_IOC(_IOC_READ | _IOC_WRITE, SQ_IOC_MAGIC, 1, SQ_SETUP_SIZE_VER0)
#define SQ_IOC_ENTER		_IOC(_IOC_NONE, SQ_IOC_MAGIC, 2, 0)
#define SQ_IOC_REGISTER		_IOC(_IOC_WRITE, SQ_IOC_MAGIC, 3, SQ_REGISTER_SIZE_VER0)
#define SQ_IOC_QUIESCE		_IOC(_IOC_WRITE, SQ_IOC_MAGIC, 4, SQ_QUIESCE_SIZE_VER0)
#define SQ_IOC_CANCEL		_IOC(_IOC_WRITE, SQ_IOC_MAGIC, 5, SQ_CANCEL_SIZE_VER0)
#define SQ_IOC_STATS		_IOC(_IOC_READ | _IOC_WRITE, SQ_IOC_MAGIC, 6, SQ_STATS_SIZE_VER0)
/*
 * One struct sq_sqe, whose result is the call's: needs no ring. Also the cmd_op
 * of an io_uring command (IORING_OP_URING_CMD), with the entry in the command's
 * first 64 bytes (IORING_SETUP_SQE128), or its address in the first 8.
 */
#define SQ_IOC_ISSUE		_IOC(_IOC_WRITE, SQ_IOC_MAGIC, 7, 64)

/*
 * The layout, asserted wherever this header is compiled.
 */
__sq_size(sq_sqe, 64);
__sq_at(sq_sqe, opcode, 0);
__sq_at(sq_sqe, flags, 1);
__sq_at(sq_sqe, ioprio, 2);
__sq_at(sq_sqe, fd, 4);
__sq_at(sq_sqe, off, 8);
__sq_at(sq_sqe, cmd_op, 8);
__sq_at(sq_sqe, addr, 16);
__sq_at(sq_sqe, len, 24);
__sq_at(sq_sqe, op_flags, 28);
__sq_at(sq_sqe, user_data, 32);
__sq_at(sq_sqe, buf_index, 40);
__sq_at(sq_sqe, personality, 42);
__sq_at(sq_sqe, file_index, 44);
__sq_at(sq_sqe, cmd, 48);
__sq_size(sq_sqe128, 128);
__sq_at(sq_sqe128, cmd_tail, 64);
__sq_size(sq_cqe, 16);
__sq_at(sq_cqe, res, 8);
__sq_at(sq_cqe, flags, 12);
__sq_size(sq_cqe32, 32);
__sq_at(sq_cqe32, extra, 16);
__sq_size(sq_region, 16);
__sq_size(sq_offsets, 64);
__sq_at(sq_offsets, sq_head, 16);
__sq_at(sq_offsets, resv, 36);
__sq_size(sq_iovec, 16);
__sq_size(sq_setup, SQ_SETUP_SIZE_VER0);
__sq_at(sq_setup, features, 40);
__sq_at(sq_setup, user, 48);
__sq_at(sq_setup, kernel, 64);
__sq_at(sq_setup, pool, 80);
__sq_at(sq_setup, offsets, 96);
__sq_at(sq_setup, resv, 160);
__sq_size(sq_enter, SQ_ENTER_SIZE_VER0);
__sq_at(sq_enter, timeout_ns, 16);
__sq_at(sq_enter, consumed, 40);
__sq_at(sq_enter, resv2, 48);
__sq_size(sq_register, SQ_REGISTER_SIZE_VER0);
__sq_at(sq_register, arg, 8);
__sq_at(sq_register, resv, 24);
__sq_size(sq_quiesce, SQ_QUIESCE_SIZE_VER0);
__sq_at(sq_quiesce, timeout_ns, 8);
__sq_size(sq_cancel, SQ_CANCEL_SIZE_VER0);
__sq_at(sq_cancel, user_data, 8);
__sq_at(sq_cancel, resv, 24);
__sq_size(sq_query, SQ_QUERY_SIZE_VER0);
__sq_at(sq_query, features, 16);
__sq_at(sq_query, opcodes, 32);
__sq_at(sq_query, max_pool_bytes, 80);
__sq_at(sq_query, driver, 96);
__sq_at(sq_query, max_commands, 112);
__sq_at(sq_query, resv, 120);
__sq_size(sq_stats, SQ_STATS_SIZE_VER0);
__sq_at(sq_stats, entries, 8);
__sq_at(sq_stats, inflight, 64);
__sq_at(sq_stats, sleeps, 96);

#undef __sq_at
#undef __sq_size
#undef __sq_assert

#ifdef __cplusplus
}
#endif

#endif /* _UAPI_SQ_H */

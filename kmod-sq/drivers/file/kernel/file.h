/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What the C files of sq_file.ko have in common, and what src/vfs.rs calls.
 *
 *	file.c		the module; what a file is; reads that need not wait
 *	file_job.c	an operation that goes on after issue()
 *	file_lanes.c	which of these run, so that a slow file keeps no other waiting
 *	file_vfs.c	one attempt at an operation, by the VFS's iocb path
 */
#ifndef _SQ_GLUE_FILE_H
#define _SQ_GLUE_FILE_H

#include <linux/fs.h>
#include <linux/list.h>
#include <linux/uio.h>
#include <linux/workqueue.h>
#include <sq_driver.h>

/* src/vfs.rs has the same numbers. */
enum sq_what { SQ_READ, SQ_WRITE, SQ_SYNC, SQ_DATASYNC };

/* Jobs on one file that run at a time. */
struct sq_lane {
	struct hlist_node	node;
	struct inode		*inode;
	bool			in_turn;	/* what the file system does one at a time: buffered writes */
	unsigned int		running;
	struct list_head	waiting;
};

/* An operation that goes on after issue(). Whoever runs it has it for itself. */
struct sq_job {
	struct kiocb		iocb;
	struct sq_request	*request;	/* null: it was canceled before it was started */
	struct file		*file;		/* open while the request is held */
	enum sq_what		what;
	loff_t			off;
	size_t			done;		/* bytes that are transferred */
	unsigned long		fsize;		/* RLIMIT_FSIZE of whoever asked */
	const struct cred	*cred;		/* the ring's */
	struct mem_cgroup	*memcg;		/* of the ring's process: it pays for page cache */
	struct bio_vec		*bvec;		/* direct I/O on pool memory: its pages */
	bool			nowait;		/* this attempt is made inline */
	atomic_t		ends;		/* of an attempt: its call returns, and ki_complete() */
	ssize_t			res;

	struct work_struct	work;
	struct hlist_node	by_id;		/* hashed: not started, so it can be canceled */
	struct list_head	list;		/* in its lane's queue */
	struct sq_lane		*lane;
	struct sq_lane		*spare;		/* for a lane, should there be none */
};

/* --- file_job.c --- */
int sq_jobs_init(void);
void sq_jobs_exit(void);
/* Has it run by a worker. */
void sq_job_queue(struct sq_job *job);
void sq_job_free(struct sq_job *job);

/* --- file_lanes.c --- */
/* From any context. */
void sq_lanes_push(struct sq_job *job);
/* False: it was canceled. Either way sq_lanes_end() follows. */
bool sq_lanes_begin(struct sq_job *job);
void sq_lanes_end(struct sq_lane *lane);

/* --- file_vfs.c --- */
/* The bytes of a payload behind the first `done`. Its user addresses must be current. */
int sq_vfs_iter(struct iov_iter *iter, unsigned int direction, const struct sq_payload *payload, size_t done);
/* Around an attempt until its completion, which may be another thread's: keeps the file system from freezing. False: it would wait. */
bool sq_vfs_begin(struct sq_job *job);
void sq_vfs_end(struct sq_job *job);
/* A result, or -EIOCBQUEUED: sq_job_completes() was or will be called. */
ssize_t sq_vfs_try(struct sq_job *job);
/* ki_complete, from any context. */
void sq_job_completes(struct kiocb *iocb, long res);

/* --- C that Rust calls (src/vfs.rs). `file` is open. --- */
/* 0 and the kind of its file system, or -EOPNOTSUPP. */
int sq_file_look(struct file *file, u64 *magic);
u64 sq_file_bytes(struct file *file);
/* -EAGAIN: it would wait. */
int sq_file_read_now(struct file *file, loff_t off, const struct sq_payload *payload);
/* Does the rest, and completes the request. In a context that runs with the ring's mm and credentials. */
void sq_file_later(struct sq_request *request, enum sq_what what, loff_t off, size_t done);
/* Completes the request, if it has not been started. */
void sq_file_cancel(u64 id);

#endif /* _SQ_GLUE_FILE_H */

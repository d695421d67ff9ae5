/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What the C files of sq_file.ko have in common, and what src/vfs.rs calls.
 *
 *	file.c		the module; what a file is; reads that need not wait
 *	file_job.c	an operation that goes on after issue()
 *	file_lanes.c	which of these run, so that a slow file keeps no other waiting, nor a user another
 *	file_vfs.c	one attempt at an operation, by the VFS's iocb path
 */
#ifndef _SQ_GLUE_FILE_H
#define _SQ_GLUE_FILE_H

#include <linux/fs.h>
#include <linux/list.h>
#include <linux/rbtree.h>
#include <linux/uio.h>
#include <sq_driver.h>

/* src/vfs.rs has the same numbers. */
enum sq_what { SQ_READ, SQ_WRITE, SQ_SYNC, SQ_DATASYNC };

/* A user's jobs on one file. */
struct sq_lane {
	struct rb_node		node;
	struct inode		*inode;
	struct sq_user		*user;		/* counted */
	bool			in_turn;	/* what the file system does one at a time: buffered writes */
	unsigned int		jobs;		/* those that have it, attempted inline, waiting or running */
	unsigned int		running;	/* by workers */
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
	u32			pkru;		/* protection keys of the thread that issued it */
	struct mem_cgroup	*memcg;		/* of the ring's process: it pays for page cache */
	struct bio_vec		*bvec;		/* direct I/O on pool memory: its pages */
	bool			nowait;		/* this attempt is made inline */
	atomic_t		ends;		/* of an attempt: its call returns, and ki_complete() */
	ssize_t			res;

	struct sq_work		work;
	struct rb_node		by_id;		/* in a tree: not started, so it can be canceled */
	struct list_head	list;		/* in its lane's queue */
	struct sq_lane		*lane;
};

/* --- file_job.c --- */
/* From any context. */
void sq_job_free(struct sq_job *job);

/* --- file_lanes.c --- */
/* That of the user whose credentials are current, for a job. Null: there is no memory. */
struct sq_lane *sq_lane_get(struct inode *inode, bool in_turn);
/* From any context. */
void sq_lane_put(struct sq_lane *lane);
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

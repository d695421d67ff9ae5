// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * One attempt at an operation, by the VFS's iocb path: open mode, O_APPEND and
 * O_SYNC, LSM, fanotify, freeze, seals and the file system's own limits hold as
 * they do for a system call. What the system call path does itself is done here:
 * addresses are checked, and RLIMIT_FSIZE is the ring's process's. Of direct I/O
 * that goes on after its call nobody is notified, as with aio.
 */
#include <linux/bvec.h>
#include <linux/fsnotify.h>
#include <linux/mm.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "file.h"

/* A segment is what the kernel's own vectors have. */
static_assert(sizeof(struct sq_segment) == sizeof(struct iovec) && sizeof(struct sq_segment) == sizeof(struct kvec));
static_assert(offsetof(struct sq_segment, len) == offsetof(struct iovec, iov_len));
static_assert(offsetof(struct sq_segment, len) == offsetof(struct kvec, iov_len));

int sq_vfs_iter(struct iov_iter *iter, unsigned int direction, const struct sq_payload *payload, size_t done)
{
	u32 i;

	if (payload->kind == SQ_PAYLOAD_POOL) {
		iov_iter_kvec(iter, direction, (const struct kvec *)payload->segments, payload->nr, payload->left);
	} else {
		for (i = 0; i < payload->nr; i++)
			if (!access_ok(u64_to_user_ptr(payload->segments[i].addr), payload->segments[i].len))
				return -EFAULT;
		iov_iter_init(iter, direction, (const struct iovec *)payload->segments, payload->nr, payload->left);
	}
	iov_iter_advance(iter, done);
	return 0;
}

/* Direct I/O wants pages, which a kernel address does not give everywhere. */
static int sq_vfs_direct_pool(struct sq_job *job, struct iov_iter *iter, unsigned int direction)
{
	const struct sq_payload *payload = &job->request->payload;
	unsigned long addr = payload->segments[0].addr;
	size_t left = payload->left;
	unsigned int nr = 0;

	if (!job->bvec)
		job->bvec = kvmalloc_array(DIV_ROUND_UP(offset_in_page(addr) + left, PAGE_SIZE), sizeof(*job->bvec),
					   GFP_KERNEL_ACCOUNT | __GFP_NOWARN);
	if (!job->bvec)
		return -ENOMEM;
	while (left) {
		unsigned int offset = offset_in_page(addr);
		unsigned int len = min_t(size_t, left, PAGE_SIZE - offset);

		job->bvec[nr++] = (struct bio_vec){
			.bv_page	= vmalloc_to_page((void *)addr),
			.bv_len		= len,
			.bv_offset	= offset,
		};
		addr += len;
		left -= len;
	}
	iov_iter_bvec(iter, direction, job->bvec, nr, payload->left);
	iov_iter_advance(iter, job->done);
	return 0;
}

/* As generic_write_checks(), which sends a process SIGXFSZ: here the result says it, whoever makes the attempt. */
static int sq_vfs_limit(struct sq_job *job, struct iov_iter *iter)
{
	struct inode *inode = file_inode(job->file);
	loff_t at = job->iocb.ki_flags & IOCB_APPEND ? i_size_read(inode) : job->iocb.ki_pos;

	if (job->fsize == RLIM_INFINITY || !S_ISREG(inode->i_mode) || !iov_iter_count(iter))
		return 0;
	if (at >= (loff_t)min_t(unsigned long, job->fsize, LLONG_MAX))
		return -EFBIG;
	iov_iter_truncate(iter, job->fsize - at);
	return 0;
}

/* Sets a kernel thread's own limit, which nobody else looks at; returns the one it had. */
static unsigned long sq_set_fsize(unsigned long limit)
{
	task_lock(current);
	swap(current->signal->rlim[RLIMIT_FSIZE].rlim_cur, limit);
	task_unlock(current);
	return limit;
}

/*
 * The file may grow between sq_vfs_limit() and a write that appends to it: the
 * VFS looks again, under the inode's lock. In a process it finds the limit there.
 */
static ssize_t sq_vfs_write_limited(struct sq_job *job, struct iov_iter *iter)
{
	unsigned long limit;
	ssize_t res;

	if (!(current->flags & PF_KTHREAD))
		return job->file->f_op->write_iter(&job->iocb, iter);
	limit = sq_set_fsize(job->fsize);
	res = job->file->f_op->write_iter(&job->iocb, iter);
	sq_set_fsize(limit);
	return res;
}

static bool sq_vfs_freezes(struct sq_job *job)
{
	return job->what == SQ_WRITE && (job->file->f_mode & FMODE_WRITE) && S_ISREG(file_inode(job->file)->i_mode);
}

/* Not a part of the attempt, which may have the ring's mm: a file system may stay frozen for as long as it likes. */
bool sq_vfs_begin(struct sq_job *job)
{
	struct super_block *sb = file_inode(job->file)->i_sb;

	if (!sq_vfs_freezes(job))
		return true;
	if (!job->nowait)
		sb_start_write(sb);
	else if (!sb_start_write_trylock(sb))
		return false;
	/* Another thread may end it: lockdep is told that nobody holds it. */
	__sb_writers_release(sb, SB_FREEZE_WRITE);
	return true;
}

void sq_vfs_end(struct sq_job *job)
{
	struct super_block *sb = file_inode(job->file)->i_sb;

	if (!sq_vfs_freezes(job))
		return;
	__sb_writers_acquired(sb, SB_FREEZE_WRITE);
	sb_end_write(sb);
}

/* As vfs_iocb_iter_write(), which since 6.8 deals with freezing itself. */
static ssize_t sq_vfs_write(struct sq_job *job, struct iov_iter *iter)
{
	struct kiocb *iocb = &job->iocb;
	struct file *file = job->file;
	ssize_t res;

	if (!(file->f_mode & FMODE_WRITE))
		return -EBADF;
	if (!(file->f_mode & FMODE_CAN_WRITE) || !file->f_op->write_iter)
		return -EINVAL;
	res = rw_verify_area(WRITE, file, &iocb->ki_pos, iov_iter_count(iter)) ?: sq_vfs_limit(job, iter);
	if (res)
		return res;
	res = sq_vfs_write_limited(job, iter);
	if (res > 0)
		fsnotify_modify(file);
	return res;
}

ssize_t sq_vfs_try(struct sq_job *job)
{
	unsigned int direction = job->what == SQ_READ ? ITER_DEST : ITER_SOURCE;
	const struct sq_payload *payload = &job->request->payload;
	u16 ioprio = job->iocb.ki_ioprio;
	struct iov_iter iter;
	bool direct;
	int err;

	if (job->what == SQ_SYNC || job->what == SQ_DATASYNC)
		return vfs_fsync(job->file, job->what == SQ_DATASYNC);
	init_sync_kiocb(&job->iocb, job->file);
	/* Of the thread that issued it. What goes by the page cache has that of the thread that reads or writes back. */
	job->iocb.ki_ioprio = ioprio;
	job->iocb.ki_pos = job->off + job->done;
	if (job->nowait)
		job->iocb.ki_flags |= IOCB_NOWAIT;
	/* Completing a write, a stacked file system lets the one below freeze again if it sees this. */
	if (job->what == SQ_WRITE)
		job->iocb.ki_flags |= IOCB_WRITE;
	direct = job->iocb.ki_flags & IOCB_DIRECT;
	if (direct) {
		job->iocb.ki_complete = sq_job_completes;
		atomic_set(&job->ends, 2);
	}
	if (direct && payload->kind == SQ_PAYLOAD_POOL && payload->left)
		err = sq_vfs_direct_pool(job, &iter, direction);
	else
		err = sq_vfs_iter(&iter, direction, payload, job->done);
	if (err)
		return err;
	if (job->what == SQ_READ)
		return vfs_iocb_iter_read(job->file, &job->iocb, &iter);
	return sq_vfs_write(job, &iter);
}

// SPDX-License-Identifier: MIT OR Apache-2.0
/* Locks, files and the end of the world: what Rust cannot say itself. */
#include <linux/file.h>
#include <linux/magic.h>
#include <linux/major.h>
#include <linux/miscdevice.h>
#include <linux/net.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <sq_panic.h>

#include "glue.h"

/* kernel/src/lock.rs sets this much aside; lockdep makes a lock larger. */
#define SQ_LOCK_BYTES 96
static_assert(sizeof(raw_spinlock_t) <= SQ_LOCK_BYTES);
static_assert(__alignof__(raw_spinlock_t) <= 8);

/* A lock that nobody holds may be moved: Rust does so once, into its ring. */
void sq_lock_init(void *lock)
{
	raw_spin_lock_init((raw_spinlock_t *)lock);
}

/* Raw, with interrupts off: a driver may complete from an interrupt, on PREEMPT_RT too. */
unsigned long sq_lock(void *lock)
{
	unsigned long flags;

	raw_spin_lock_irqsave((raw_spinlock_t *)lock, flags);
	return flags;
}

bool sq_trylock(void *lock, unsigned long *flags)
{
	return raw_spin_trylock_irqsave((raw_spinlock_t *)lock, *flags);
}

void sq_unlock(void *lock, unsigned long flags)
{
	raw_spin_unlock_irqrestore((raw_spinlock_t *)lock, flags);
}

/*
 * SEC-3: files that may keep other files are no targets. A ring that kept itself,
 * or one of io_uring's, or a socket that it is in flight in, would never be
 * released; nor one that is mapped in memory which vhost keeps. Nor are those
 * whose close ends what a worker may wait for: a page, a file system or a
 * permission that the process itself is to give. A worker that waits keeps the
 * ring, which would keep them open. (No kernel tells modules what is io_uring's
 * or userfaultfd's but by the file's name, which nobody else can have: user space
 * cannot make files there.)
 */
static bool sq_file_refused(struct file *file)
{
	struct socket *socket = sock_from_file(file);
	struct inode *inode = file_inode(file);
	const unsigned char *name;

	if (file->f_op->release == sq_file_operations.release)
		return true;
	if (socket)
		return socket->ops->family == PF_UNIX;
	if (S_ISCHR(inode->i_mode) && imajor(inode) == MISC_MAJOR) {
		switch (iminor(inode)) {
		case FUSE_MINOR:
		case CUSE_MINOR:
		case VHOST_NET_MINOR:
		case VHOST_VSOCK_MINOR:
			return true;
		}
	}
	if (inode->i_sb->s_magic != ANON_INODE_FS_MAGIC)
		return false;
	name = file->f_path.dentry->d_name.name;
	return !strcmp(name, "[io_uring]") || !strcmp(name, "[userfaultfd]") || !strcmp(name, "[fanotify]");
}

struct file *sq_file_get(s32 fd)
{
	struct file *file;

	if (fd < 0)
		return ERR_PTR(-EBADF);
	/* A worker has no descriptors of the ring's process: the entry waits for one who has. */
	if (current->flags & PF_KTHREAD)
		return ERR_PTR(-EAGAIN);
	file = fget(fd);
	if (!file)
		return ERR_PTR(-EBADF);
	if (sq_file_refused(file)) {
		fput(file);
		return ERR_PTR(-EBADF);
	}
	return file;
}

void sq_file_ref(struct file *file)
{
	get_file(file);
}

/* From any context: the last reference is dropped by a task or a worker of its own. */
void sq_file_put(struct file *file)
{
	fput(file);
}

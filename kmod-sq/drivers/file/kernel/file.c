// SPDX-License-Identifier: MIT OR Apache-2.0
/* sq_file.ko: the driver is in ../src. The VFS is reached here and in file_*.c. */
#include <linux/magic.h>
#include <sq_rust.h>

#include "file.h"

/* Operations on anything else might never end. */
int sq_file_look(struct file *file, u64 *magic)
{
	struct inode *inode = file_inode(file);

	/* Of a block device it says nothing, and its node's file system may be any. */
	*magic = S_ISREG(inode->i_mode) ? inode->i_sb->s_magic : 0;
	return S_ISREG(inode->i_mode) || S_ISBLK(inode->i_mode) ? 0 : -EOPNOTSUPP;
}

u64 sq_file_bytes(struct file *file)
{
	return i_size_read(file->f_mapping->host);
}

/* Files that are all in memory (or in swap) know no IOCB_NOWAIT, and need none. */
static bool sq_in_memory(struct file *file)
{
	unsigned long magic = file_inode(file)->i_sb->s_magic;

	return S_ISREG(file_inode(file)->i_mode) && (magic == TMPFS_MAGIC || magic == RAMFS_MAGIC);
}

int sq_file_read_now(struct file *file, loff_t off, const struct sq_payload *payload)
{
	struct iov_iter iter;
	struct kiocb iocb;
	int err;

	init_sync_kiocb(&iocb, file);
	iocb.ki_pos = off;
	if (iocb.ki_flags & IOCB_DIRECT)
		return -EAGAIN;
	if (!sq_in_memory(file)) {
		if (!(file->f_mode & FMODE_NOWAIT))
			return -EAGAIN;
		/* As RWF_NOWAIT has it: what is not there is not even asked for. */
		iocb.ki_flags |= IOCB_NOWAIT | IOCB_NOIO;
	}
	err = sq_vfs_iter(&iter, ITER_DEST, payload, 0);
	return err ?: vfs_iocb_iter_read(file, &iocb, &iter);
}

module_sq_rust_driver();
MODULE_DESCRIPTION("sq driver of regular files and block devices");
MODULE_VERSION(SQ_VERSION);
MODULE_LICENSE("Dual MIT/GPL");

// SPDX-License-Identifier: MIT OR Apache-2.0
/* sq_file.ko: the driver is drivers/file, in Rust. The VFS is reached here and in file_*.c. */
#include <linux/err.h>
#include <linux/magic.h>
#include <linux/module.h>
#include <linux/moduleparam.h>

#include "file.h"
#include "panic.h"

/* kernel/file.rs */
const struct sq_driver_table *sq_file_table(void);
const void *sq_file_data(void);

static ushort mode = 0600;
module_param(mode, ushort, 0444);
MODULE_PARM_DESC(mode, "permissions of /dev/sqfile (default 0600)");

static struct sq_device *sq_file_device;

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

static int __init sq_file_init(void)
{
	int err = sq_jobs_init();

	if (err)
		return err;
	sq_file_device = sq_driver_register(sq_file_table(), sq_file_data(), THIS_MODULE, mode);
	err = PTR_ERR_OR_ZERO(sq_file_device);
	if (err)
		sq_jobs_exit();
	return err;
}

static void __exit sq_file_exit(void)
{
	sq_driver_unregister(sq_file_device);
	sq_jobs_exit();
}

module_init(sq_file_init);
module_exit(sq_file_exit);
MODULE_DESCRIPTION("sq driver of regular files and block devices");
MODULE_VERSION(SQ_VERSION);
MODULE_LICENSE("Dual MIT/GPL");

// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The mistake that sq is made to rule out: an entry in a shared page is checked where it lies, and then used where it
 * lies. `life attack` breaks into it. Not for use.
 *
 *   mmap             the shared page, with the entry, and a page with its bytes
 *   ioctl NAIVE_ONE  takes the entry: its bytes go to a room of 64. 0; -EINVAL if it is wrong; 1 if the room overflowed
 *
 * What lies behind the room is this module's too, as far as the longest copy comes, so that the kernel survives it.
 */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#define NAIVE_ONE	_IO('n', 0)
#define NAIVE_WRITE	1
#define NAIVE_ROOM	64

struct naive_entry {
	u32	opcode;
	u32	flags;
	u32	len;
	u32	resv[13];
};

struct naive_shared {
	struct naive_entry	entry;
	u8			bytes[PAGE_SIZE] __aligned(PAGE_SIZE);
};

struct naive_file {
	struct naive_shared	*shared;
	/* The room, and what is behind it. */
	u8			*room;
};

static long naive_one(struct naive_file *nf)
{
	struct naive_entry *entry = &nf->shared->entry;
	u32 len, i;

	/* The length first: on a host that has no time the two processors of a guest run in turns, and a window of two loads is hardly hit. */
	if (READ_ONCE(entry->len) > NAIVE_ROOM)
		return -EINVAL;
	if (READ_ONCE(entry->opcode) != NAIVE_WRITE || READ_ONCE(entry->flags))
		return -EINVAL;
	for (i = 0; i < ARRAY_SIZE(entry->resv); i++)
		if (READ_ONCE(entry->resv[i]))
			return -EINVAL;
	/* It was checked. It may have changed. */
	len = READ_ONCE(entry->len);
	/* Only for the kernel to survive. */
	if (len > PAGE_SIZE)
		return -EINVAL;
	memcpy(nf->room, nf->shared->bytes, len);
	if (!memchr_inv(nf->room + NAIVE_ROOM, 0, PAGE_SIZE - NAIVE_ROOM))
		return 0;
	memset(nf->room, 0, PAGE_SIZE);
	return 1;
}

static long naive_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	return cmd == NAIVE_ONE ? naive_one(file->private_data) : -ENOTTY;
}

static int naive_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct naive_file *nf = file->private_data;

	return remap_vmalloc_range(vma, nf->shared, vma->vm_pgoff);
}

static int naive_open(struct inode *inode, struct file *file)
{
	struct naive_file *nf = kzalloc(sizeof(*nf), GFP_KERNEL);

	BUILD_BUG_ON(sizeof(struct naive_entry) != 64);
	if (!nf)
		return -ENOMEM;
	nf->shared = vmalloc_user(sizeof(*nf->shared));
	nf->room = kzalloc(PAGE_SIZE, GFP_KERNEL);
	if (!nf->shared || !nf->room) {
		vfree(nf->shared);
		kfree(nf->room);
		kfree(nf);
		return -ENOMEM;
	}
	file->private_data = nf;
	return 0;
}

static int naive_release(struct inode *inode, struct file *file)
{
	struct naive_file *nf = file->private_data;

	vfree(nf->shared);
	kfree(nf->room);
	kfree(nf);
	return 0;
}

static const struct file_operations naive_file_operations = {
	.owner		= THIS_MODULE,
	.open		= naive_open,
	.release	= naive_release,
	.unlocked_ioctl	= naive_ioctl,
	.mmap		= naive_mmap,
};

static struct miscdevice naive_device = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= "sq_naive",
	.fops	= &naive_file_operations,
	.mode	= 0600,
};

module_misc_device(naive_device);
MODULE_DESCRIPTION("Checks an entry in a shared page, and then reads it again");
MODULE_LICENSE("Dual MIT/GPL");

// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * What one writes by hand when a driver needs to be asked to do something: six doors to an operation that does
 * nothing, each as short as its kind can be. sq's instruction counts are shown beside these. Nothing of sq is used.
 *
 *   ioctl BASE_NULL     enters the kernel and returns
 *   ioctl BASE_ONE      copies one entry; the result is the return value
 *   ioctl BASE_ARRAY    copies entries one after the other, writes each one's result
 *   ioctl BASE_CHUNKS   the same, as many at a time as the stack holds
 *   io_uring command    the entry is in the SQE, or (BASE_POINTER) behind a pointer in a short one
 *   ioctl BASE_ENTER    a bare ring: entries and completions in shared pages, indices and nothing else
 *
 * Not for use: the bare ring trusts its user not to overrun its own completions, and takes no lock. A wrong user
 * garbles the memory that it shares, and no other.
 */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/version.h>
#include <linux/vmalloc.h>
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 8, 0)
#include <linux/io_uring/cmd.h>
#else
#include <linux/io_uring.h>
#endif

#define BASE_OP_NOP	0

struct base_entry {
	u8	opcode;
	u8	pad[31];
	u64	user_data;
	u64	arg[3];
};

struct base_array {
	u64	entries;	/* struct base_entry * */
	u64	results;	/* s32 * */
	u32	nr;
	u32	pad;
};

#define BASE_NULL	_IO('b', 0)
#define BASE_ONE	_IOW('b', 1, struct base_entry)
#define BASE_ARRAY	_IOW('b', 2, struct base_array)
#define BASE_ENTER	_IO('b', 3)
#define BASE_CHUNKS	_IOW('b', 4, struct base_array)

/* Commands of io_uring. */
#define BASE_INLINE	0
#define BASE_POINTER	1

/* Entries on the stack: 1 KiB. */
#define BASE_CHUNK	16

#define BASE_ENTRIES	256
#define BASE_MASK	(BASE_ENTRIES - 1)

struct base_cqe {
	u64	user_data;
	s32	res;
	u32	flags;
};

/* The shared pages. */
struct base_shared {
	u32			sq_tail __aligned(128);
	u32			sq_head __aligned(128);
	u32			cq_tail;
	struct base_entry	sqes[BASE_ENTRIES] __aligned(128);
	struct base_cqe		cqes[BASE_ENTRIES];
};

struct base_file {
	u32			head;
	struct base_shared	*shared;
};

/* The driver: out of line, as it would be, and its entry is in private memory. */
static noinline __noclone s32 base_issue(const struct base_entry *entry)
{
	return entry->opcode == BASE_OP_NOP ? 0 : -EINVAL;
}

static long base_one(const void __user *user)
{
	struct base_entry entry;

	if (copy_from_user(&entry, user, sizeof(entry)))
		return -EFAULT;
	return base_issue(&entry);
}

static long base_array(const void __user *user)
{
	const struct base_entry __user *entries;
	s32 __user *results;
	struct base_array array;
	struct base_entry entry;
	u32 i;

	if (copy_from_user(&array, user, sizeof(array)))
		return -EFAULT;
	if (array.pad || array.nr > BASE_ENTRIES)
		return -EINVAL;
	entries = u64_to_user_ptr(array.entries);
	results = u64_to_user_ptr(array.results);
	for (i = 0; i < array.nr; i++) {
		if (copy_from_user(&entry, &entries[i], sizeof(entry)))
			return -EFAULT;
		if (put_user(base_issue(&entry), &results[i]))
			return -EFAULT;
	}
	return array.nr;
}

/* Out of line, for its room on the stack: the kernel may have that zeroed. */
static noinline long base_chunks(const void __user *user)
{
	const struct base_entry __user *entries;
	struct base_entry chunk[BASE_CHUNK];
	s32 results[BASE_CHUNK];
	s32 __user *to;
	struct base_array array;
	u32 done, nr, i;

	if (copy_from_user(&array, user, sizeof(array)))
		return -EFAULT;
	if (array.pad || array.nr > BASE_ENTRIES)
		return -EINVAL;
	entries = u64_to_user_ptr(array.entries);
	to = u64_to_user_ptr(array.results);
	for (done = 0; done < array.nr; done += nr) {
		nr = min_t(u32, array.nr - done, BASE_CHUNK);
		if (copy_from_user(chunk, entries + done, nr * sizeof(*chunk)))
			return -EFAULT;
		for (i = 0; i < nr; i++)
			results[i] = base_issue(&chunk[i]);
		if (copy_to_user(to + done, results, nr * sizeof(*results)))
			return -EFAULT;
	}
	return array.nr;
}

/* The one copy: word by word, or the compiler may read the shared entry when and as often as it likes. */
static __always_inline void base_snapshot(struct base_entry *to, const struct base_entry *from)
{
	const u64 *in = (const u64 *)from;
	u64 *out = (u64 *)to;

	out[0] = READ_ONCE(in[0]);
	out[1] = READ_ONCE(in[1]);
	out[2] = READ_ONCE(in[2]);
	out[3] = READ_ONCE(in[3]);
	out[4] = READ_ONCE(in[4]);
	out[5] = READ_ONCE(in[5]);
	out[6] = READ_ONCE(in[6]);
	out[7] = READ_ONCE(in[7]);
}

static long base_enter(struct base_file *bf)
{
	struct base_shared *shared = bf->shared;
	u32 head = bf->head;
	u32 tail = smp_load_acquire(&shared->sq_tail);
	u32 nr = tail - head;
	struct base_entry entry;
	struct base_cqe *cqe;

	if (nr > BASE_ENTRIES)
		return -EINVAL;
	for (; head != tail; head++) {
		base_snapshot(&entry, &shared->sqes[head & BASE_MASK]);
		cqe = &shared->cqes[head & BASE_MASK];
		cqe->res = base_issue(&entry);
		cqe->flags = 0;
		cqe->user_data = entry.user_data;
	}
	bf->head = head;
	smp_store_release(&shared->sq_head, head);
	smp_store_release(&shared->cq_tail, head);
	return nr;
}

static long base_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	switch (cmd) {
	case BASE_NULL:
		return 0;
	case BASE_ONE:
		return base_one((void __user *)arg);
	case BASE_ARRAY:
		return base_array((void __user *)arg);
	case BASE_CHUNKS:
		return base_chunks((void __user *)arg);
	case BASE_ENTER:
		return base_enter(file->private_data);
	default:
		return -ENOTTY;
	}
}

static int base_uring_cmd(struct io_uring_cmd *cmd, unsigned int issue_flags)
{
	struct base_entry entry;
	const void *inline_cmd;

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 5, 0)
	inline_cmd = io_uring_sqe_cmd(cmd->sqe);
#else
	inline_cmd = cmd->cmd;
#endif
	switch (cmd->cmd_op) {
	case BASE_INLINE:
		if (!(issue_flags & IO_URING_F_SQE128))
			return -EINVAL;
		base_snapshot(&entry, inline_cmd);
		break;
	case BASE_POINTER:
		if (copy_from_user(&entry, u64_to_user_ptr(READ_ONCE(*(u64 *)inline_cmd)), sizeof(entry)))
			return -EFAULT;
		break;
	default:
		return -EINVAL;
	}
	return base_issue(&entry);
}

static int base_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct base_file *bf = file->private_data;

	return remap_vmalloc_range(vma, bf->shared, vma->vm_pgoff);
}

static int base_open(struct inode *inode, struct file *file)
{
	struct base_file *bf = kzalloc(sizeof(*bf), GFP_KERNEL);

	BUILD_BUG_ON(sizeof(struct base_entry) != 64);
	if (!bf)
		return -ENOMEM;
	bf->shared = vmalloc_user(sizeof(*bf->shared));
	if (!bf->shared) {
		kfree(bf);
		return -ENOMEM;
	}
	file->private_data = bf;
	return 0;
}

static int base_release(struct inode *inode, struct file *file)
{
	struct base_file *bf = file->private_data;

	vfree(bf->shared);
	kfree(bf);
	return 0;
}

static const struct file_operations base_file_operations = {
	.owner		= THIS_MODULE,
	.open		= base_open,
	.release	= base_release,
	.unlocked_ioctl	= base_ioctl,
	.uring_cmd	= base_uring_cmd,
	.mmap		= base_mmap,
};

static struct miscdevice base_device = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= "sq_baseline",
	.fops	= &base_file_operations,
	.mode	= 0600,
};

module_misc_device(base_device);
MODULE_DESCRIPTION("Plain doors to an operation that does nothing, to compare sq with");
MODULE_LICENSE("Dual MIT/GPL");

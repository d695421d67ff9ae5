// SPDX-License-Identifier: MIT OR Apache-2.0
/* Drivers, their nodes, and the calls on an open file: bytes in, one call into Rust, bytes out. */
#include <linux/compat.h>
#include <linux/cred.h>
#include <linux/ctype.h>
#include <linux/list.h>
#include <linux/miscdevice.h>
#include <linux/mutex.h>
#include <linux/poll.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "glue.h"
#include "sq_trace.h"

/* A registered driver. Its owner's module is pinned by every open file and every home, so they may point here. */
struct sq_device {
	struct miscdevice		misc;
	/* A copy: opening must pin the driver's module, which pins ours by its imports. */
	struct file_operations		fops;
	const struct sq_driver_table	*table;
	const void			*data;
	struct sq_door			door;
	struct sq_tally			tally;
	struct module			*owner;
	char				name[2 + SQ_DRIVER_NAME_MAX + 1];
	struct list_head		list;
};

/* Largest argument that is looked at, and what fits on the stack. */
#define SQ_ARGUMENT_MAX		4096
#define SQ_ARGUMENT_SMALL	256

static struct sq_home *sq_home_of(struct file *file)
{
	struct sq_file *sf = file->private_data;

	/* Pairs with the release in sq_setup(): whoever sees a home sees all of it. */
	return smp_load_acquire(&sf->home);
}

/* Without arg: the doorbell. */
static __always_inline long sq_ring_do(struct sq_ring *ring, u32 cmd, u8 *arg, size_t len)
{
	return arg ? sq_ring_call(ring, cmd, arg, len) : sq_ring_doorbell(ring);
}

static noinline long sq_call_as_owner(struct sq_home *home, u32 cmd, u8 *arg, size_t len)
{
	const struct cred *cred = override_creds(home->cred);
	long ret = sq_ring_do(home->ring, cmd, arg, len);

	revert_creds(cred);
	return ret;
}

/* LIFE-3: one mm, and whatever the calling thread has become since, the ring's credentials. */
static __always_inline long sq_call_owned(struct sq_home *home, u32 cmd, u8 *arg, size_t len)
{
	if (current->mm != home->mm)
		return -EXDEV;
	if (likely(current_cred() == home->cred))
		return sq_ring_do(home->ring, cmd, arg, len);
	return sq_call_as_owner(home, cmd, arg, len);
}

/*
 * ENABLE_RINGS: the ring is its caller's from now on, mm, credentials and all. Not if
 * it has been mapped elsewhere: who can write entries would have them run by another.
 */
static long sq_enable(struct sq_home *home, u8 *arg, size_t len)
{
	const struct cred *cred = home->cred;
	struct sq_user *user = home->user;
	struct mm_struct *mm = home->mm;
	struct sq_user *new_user;
	long ret;

	if (current->mm != mm && (home->mapped || !current->mm))
		return -EXDEV;
	new_user = sq_user_get();
	if (!new_user)
		return -ENOMEM;
	ret = sq_ring_call(home->ring, SQ_IOC_REGISTER, arg, len);
	if (ret) {
		sq_user_put(new_user);
		return ret;
	}
	mmgrab(current->mm);
	home->mm = current->mm;
	home->cred = get_current_cred();
	home->pkru = read_pkru();
	home->user = new_user;
	/* Pairs with the acquires: whoever finds the ring enabled finds its owner. */
	smp_store_release(&home->disabled, false);
	smp_store_release(&home->owner_mm, home->mm);
	mmdrop(mm);
	put_cred(cred);
	sq_user_put(user);
	return 0;
}

/* One call at a time, since its owner may change. Nobody waits: a stranger's call may take for ever. */
static noinline long sq_call_disabled(struct sq_home *home, u32 cmd, u8 *arg, size_t len)
{
	long ret;

	if (!mutex_trylock(&home->enable_lock))
		return -EAGAIN;
	if (home->disabled && cmd == SQ_IOC_REGISTER && len >= sizeof(struct sq_register) &&
	    ((struct sq_register *)arg)->op == SQ_REGISTER_ENABLE_RINGS)
		ret = sq_enable(home, arg, len);
	else
		ret = sq_call_owned(home, cmd, arg, len);
	mutex_unlock(&home->enable_lock);
	return ret;
}

static __always_inline long sq_call(struct sq_home *home, u32 cmd, u8 *arg, size_t len)
{
	if (unlikely(smp_load_acquire(&home->disabled)))
		return sq_call_disabled(home, cmd, arg, len);
	return sq_call_owned(home, cmd, arg, len);
}

/* The signal mask is the caller's, not the ring's, so it is dealt with here. Rust checks all fields. */
static long sq_enter(struct sq_home *home, u8 *arg, size_t len)
{
	struct sq_enter *enter = (struct sq_enter *)arg;
	bool masked = len >= sizeof(*enter) && (enter->flags & SQ_ENTER_SIGMASK);
	long ret;

	if (masked)
		sq_sigmask_begin(enter->sigmask);
	ret = sq_call(home, SQ_IOC_ENTER, arg, len);
	if (masked)
		sq_sigmask_end(ret >= 0 && enter->wait_result == -EINTR);
	if (len >= sizeof(*enter))
		trace_sq_enter(home->id, ret < 0 ? ret : enter->consumed, enter->min_complete, enter->wait_result);
	return ret;
}

static long sq_setup(struct sq_file *sf, u8 *arg, size_t len, void __user *user)
{
	struct sq_device *device = sf->device;
	struct sq_home *home;
	long err;

	if (mutex_lock_killable(&sf->setup_lock))
		return -EINTR;
	err = -EBUSY;
	if (sf->home)
		goto out;
	home = sq_home_new(device);
	err = PTR_ERR_OR_ZERO(home);
	if (err)
		goto out;
	err = sq_ring_setup(home, device->table, device->data, arg, len, &home->ring);
	if (err) {
		sq_home_free(home);
		goto out;
	}
	home->disabled = ((struct sq_setup *)arg)->flags & SQ_SETUP_R_DISABLED;
	home->owner_mm = home->disabled ? ERR_PTR(-EXDEV) : home->mm;
	sq_tally_join(&device->tally, home);
	sq_poll_start(home);
	/* Before it is published: a ring that its owner cannot find is none. */
	if (copy_to_user(user, arg, len)) {
		sq_home_close(home);
		err = -EFAULT;
		goto out;
	}
	smp_store_release(&sf->home, home);
out:
	mutex_unlock(&sf->setup_lock);
	return err;
}

/* A call with an argument: its size is its first word, and Rust checks that the copy still says so. */
static long sq_call_argument(struct sq_file *sf, struct sq_home *home, u32 cmd, u8 *arg, size_t len,
			     void __user *user)
{
	bool out = cmd == SQ_IOC_QUERY || cmd == SQ_IOC_ENTER || cmd == SQ_IOC_STATS;
	long ret;

	if (copy_from_user(arg, user, len))
		return -EFAULT;
	if (cmd == SQ_IOC_SETUP)
		return sq_setup(sf, arg, len, user);
	if (cmd == SQ_IOC_QUERY)
		ret = sq_rust_query(sf->device->table, sf->device->data, arg, len);
	else if (cmd == SQ_IOC_ENTER)
		ret = sq_enter(home, arg, len);
	else if (cmd == SQ_IOC_STATS)
		/* Anybody's: whoever holds the file may know, and is in nobody's way. */
		ret = sq_ring_call(home->ring, cmd, arg, len);
	else
		ret = sq_call(home, cmd, arg, len);
	if (ret >= 0 && out && copy_to_user(user, arg, len))
		return -EFAULT;
	return ret;
}

/* Apart, for its room on the stack: the kernel may have that zeroed. */
static noinline long sq_ioctl_argument(struct file *file, struct sq_home *home, u32 cmd, void __user *user)
{
	u8 small[SQ_ARGUMENT_SMALL] __aligned(8);
	u8 *large;
	u32 size;
	long ret;

	if (get_user(size, (u32 __user *)user))
		return -EFAULT;
	if (size < sizeof(u32))
		return -EINVAL;
	if (size > SQ_ARGUMENT_MAX)
		return -E2BIG;
	if (size <= sizeof(small))
		return sq_call_argument(file->private_data, home, cmd, small, size, user);
	large = kmalloc(size, GFP_KERNEL_ACCOUNT);
	if (!large)
		return -ENOMEM;
	ret = sq_call_argument(file->private_data, home, cmd, large, size, user);
	kfree(large);
	return ret;
}

static noinline long sq_call_apart(struct sq_home *home)
{
	return sq_call(home, SQ_IOC_ENTER, NULL, 0);
}

static noinline long sq_doorbell_traced(struct sq_home *home)
{
	long ret = sq_call(home, SQ_IOC_ENTER, NULL, 0);

	trace_sq_enter(home->id, ret, 0, 0);
	return ret;
}

static long sq_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct sq_file *sf = file->private_data;
	struct sq_home *home = sq_home_of(file);

	if (likely(cmd == SQ_IOC_ENTER) && likely(!arg) && likely(home)) {
		if (unlikely(trace_sq_enter_enabled()))
			return sq_doorbell_traced(home);
		/* Pairs with the releases: whoever finds an owner finds all of it. Anybody else is told what is wrong. */
		if (likely(current->mm == smp_load_acquire(&home->owner_mm)) && likely(current_cred() == home->cred))
			return sq_ring_doorbell(home->ring);
		return sq_call_apart(home);
	}
	switch (cmd) {
	case SQ_IOC_ISSUE:
		/* An operation may be a write. */
		if (!(file->f_mode & FMODE_WRITE))
			return -EBADF;
		return sq_door_issue(sf->door, home ? home->ring : NULL, arg);
	case SQ_IOC_ENTER:
	case SQ_IOC_REGISTER:
	case SQ_IOC_QUIESCE:
	case SQ_IOC_CANCEL:
	case SQ_IOC_STATS:
		if (!home)
			return -ENXIO;
		break;
	case SQ_IOC_SETUP:
		/* A ring is mapped for writing. */
		if (!(file->f_mode & FMODE_WRITE))
			return -EBADF;
		break;
	case SQ_IOC_QUERY:
		break;
	default:
		return -ENOTTY;
	}
	return sq_ioctl_argument(file, home, cmd, (void __user *)arg);
}

static void sq_vma_flags(struct vm_area_struct *vma, vm_flags_t set, vm_flags_t clear)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
	vma->vm_flags = (vma->vm_flags | set) & ~clear;
#else
	vm_flags_mod(vma, set, clear);
#endif
}

static int sq_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct sq_home *home = sq_home_of(file);
	u64 offset = (u64)vma->vm_pgoff << PAGE_SHIFT;
	bool own;
	u32 which;

	if (!home)
		return -ENXIO;
	if (smp_load_acquire(&home->disabled)) {
		if (!mutex_trylock(&home->enable_lock))
			return -EBUSY;
		/* Here only: without the lock its owner may be changing. */
		own = vma->vm_mm == home->mm;
		if (own)
			home->mapped = true;
		mutex_unlock(&home->enable_lock);
	} else {
		own = vma->vm_mm == home->mm;
	}
	if (!own)
		return -EXDEV;
	/* A private mapping would be a copy, and one of a file opened read-only is not VM_SHARED. */
	if (!(vma->vm_flags & VM_SHARED))
		return -EINVAL;
	for (which = 0; which < SQ_PAGES_NR; which++)
		if (home->pages[which].nr && home->pages[which].offset == offset)
			break;
	if (which == SQ_PAGES_NR)
		return -EINVAL;
	if (vma->vm_flags & VM_EXEC)
		return -EACCES;
	/* What the kernel writes nobody else does, by mprotect() neither. */
	if (which == SQ_PAGES_KERNEL && (vma->vm_flags & VM_WRITE))
		return -EACCES;
	/* VM_IO: no madvise() that undoes VM_DONTCOPY, and no core dump. */
	sq_vma_flags(vma, VM_IO | VM_DONTCOPY | VM_DONTEXPAND | VM_DONTDUMP,
		     VM_MAYEXEC | (which == SQ_PAGES_KERNEL ? VM_MAYWRITE : 0));
	return sq_pages_map(&home->pages[which], vma);
}

static __poll_t sq_poll(struct file *file, poll_table *table)
{
	struct sq_home *home = sq_home_of(file);

	if (!home)
		return EPOLLERR;
	/* First onto the queue, then the look: what is posted in between wakes. */
	poll_wait(file, &home->wait, table);
	return sq_ring_poll(home->ring);
}

static int sq_open(struct inode *inode, struct file *file)
{
	struct sq_device *device = container_of(file->private_data, struct sq_device, misc);
	struct sq_file *sf = kzalloc(sizeof(*sf), GFP_KERNEL_ACCOUNT);

	if (!sf)
		return -ENOMEM;
	sf->device = device;
	sf->door = &device->door;
	mutex_init(&sf->setup_lock);
	file->private_data = sf;
	return nonseekable_open(inode, file);
}

static int sq_release(struct inode *inode, struct file *file)
{
	struct sq_file *sf = file->private_data;

	if (sf->home)
		sq_home_close(sf->home);
	if (sf->pool)
		sq_pool_free(sf->pool);
	kfree(sf);
	return 0;
}

static void sq_show_fdinfo(struct seq_file *m, struct file *file)
{
	struct sq_home *home = sq_home_of(file);

	if (home)
		sq_show_home(m, home);
}

const struct file_operations sq_file_operations = {
	.open		= sq_open,
	.release	= sq_release,
	.unlocked_ioctl	= sq_ioctl,
	.compat_ioctl	= compat_ptr_ioctl,
	.mmap		= sq_mmap,
	.poll		= sq_poll,
	.llseek		= noop_llseek,
	.show_fdinfo	= sq_show_fdinfo,
#ifdef CONFIG_IO_URING
	.uring_cmd	= sq_uring_cmd,
#endif
};

/* Ours as well: requests may outlive the driver's interest, and their completions run here. */
void sq_device_pin(struct sq_device *device)
{
	__module_get(device->owner);
	__module_get(THIS_MODULE);
}

void sq_device_unpin(struct sq_device *device)
{
	module_put(device->owner);
	module_put(THIS_MODULE);
}

struct sq_tally *sq_tally_of(struct sq_device *device)
{
	return &device->tally;
}

struct sq_tally *sq_device_tally(struct miscdevice *misc)
{
	return &container_of(misc, struct sq_device, misc)->tally;
}

static LIST_HEAD(sq_devices);
static DEFINE_MUTEX(sq_devices_lock);

static struct sq_device *sq_device_named(const char *name)
{
	struct sq_device *device;

	list_for_each_entry(device, &sq_devices, list)
		if (!strcmp(device->name, name))
			return device;
	return NULL;
}

/* misc_register() would find out about a name that is taken too, but complains at length and says not whose it is. */
static int sq_add(struct sq_device *device)
{
	const struct sq_device *other;
	int err;

	mutex_lock(&sq_devices_lock);
	other = sq_device_named(device->name);
	if (other) {
		pr_err("sq: %s: /dev/%s belongs to module %s: unload that one first, or give this driver another name\n",
		       module_name(device->owner), device->name, module_name(other->owner));
		err = -EEXIST;
	} else {
		err = misc_register(&device->misc);
	}
	if (!err)
		list_add_tail(&device->list, &sq_devices);
	mutex_unlock(&sq_devices_lock);
	return err;
}

static bool sq_name_is_good(const char *name)
{
	size_t i;

	for (i = 0; name[i]; i++)
		if (i == SQ_DRIVER_NAME_MAX || !(islower(name[i]) || isdigit(name[i]) || name[i] == '_'))
			return false;
	return i > 0;
}

static int sq_check_table(const struct sq_driver_table *table, struct module *owner, umode_t mode)
{
	const char *who = module_name(owner);

	/* These two first, and only these: the rest of another version may mean anything. */
	if (table->version != SQ_DRIVER_VERSION || table->size != sizeof(*table)) {
		pr_err("sq: %s has driver table version %u of %u bytes, sq.ko has version %u of %zu: rebuild %s with the headers of this sq.ko\n", who,
		       table->version, table->size, SQ_DRIVER_VERSION, sizeof(*table), who);
		return -EINVAL;
	}
	if (!table->name || !sq_name_is_good(table->name)) {
		pr_err("sq: %s: a driver's name is 1 to %u of a-z, 0-9 and _\n", who, SQ_DRIVER_NAME_MAX);
		return -EINVAL;
	}
	if (!table->issue || !table->cancel || table->resv || (table->flags & ~SQ_DRIVER_FILES)) {
		pr_err("sq: %s: issue or cancel is missing, or a reserved bit is set (flags %#x)\n", who, table->flags);
		return -EINVAL;
	}
	if (mode & ~0666) {
		pr_err("sq: %s: mode %#o is no mode of a device node\n", who, mode);
		return -EINVAL;
	}
	return 0;
}

struct sq_device *sq_driver_register(const struct sq_driver_table *table, const void *data, struct module *owner,
				     umode_t mode)
{
	struct sq_device *device;
	int err = sq_check_table(table, owner, mode);

	if (err)
		return ERR_PTR(err);
	device = kzalloc(sizeof(*device), GFP_KERNEL);
	if (!device)
		return ERR_PTR(-ENOMEM);
	err = sq_door_new(&device->door, table, data);
	if (err) {
		kfree(device);
		return ERR_PTR(err);
	}
	snprintf(device->name, sizeof(device->name), "sq%s", table->name);
	device->table = table;
	device->data = data;
	device->owner = owner;
	device->fops = sq_file_operations;
	device->fops.owner = owner;
	sq_tally_init(&device->tally);
	device->misc = (struct miscdevice){
		.minor	= MISC_DYNAMIC_MINOR,
		.name	= device->name,
		.fops	= &device->fops,
		.mode	= mode,
		.groups	= sq_device_groups,
	};
	err = sq_add(device);
	if (err) {
		kfree(device);
		return ERR_PTR(err);
	}
	return device;
}
EXPORT_SYMBOL_GPL(sq_driver_register);

void sq_driver_unregister(struct sq_device *device)
{
	mutex_lock(&sq_devices_lock);
	misc_deregister(&device->misc);
	list_del(&device->list);
	mutex_unlock(&sq_devices_lock);
	/*
	 * Whoever completed the last request, and with it dropped the last
	 * reference, may not have returned through the driver yet, in whatever
	 * task it is: this waits until each has been seen elsewhere. (All kernels
	 * with full preemption that Debian has know of tasks; one that does not
	 * waits for those only that run.)
	 */
	synchronize_rcu_tasks();
	kfree(device);
}
EXPORT_SYMBOL_GPL(sq_driver_unregister);

static int __init sq_init(void)
{
	return sq_homes_init();
}

static void __exit sq_exit(void)
{
	sq_homes_exit();
}

module_init(sq_init);
module_exit(sq_exit);
MODULE_DESCRIPTION("io_uring-style queues for kernel modules");
MODULE_VERSION(SQ_VERSION);
MODULE_LICENSE("Dual MIT/GPL");

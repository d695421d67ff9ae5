// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sabotages that only the built module can show: of the C glue, in a guest, and of the code as it was compiled.

use super::super::Mutant;
use super::super::check::Check;
use super::row;
use crate::vm::Alone;

const DEVICE: &str = "kmod-sq/kernel/glue/device.c";
const DOORS: &str = "kmod-sq/kernel/glue/doors.c";
const FILE_JOB: &str = "kmod-sq/drivers/file/kernel/file_job.c";
const HOME: &str = "kmod-sq/kernel/glue/home.c";
const MEMORY: &str = "kmod-sq/kernel/glue/memory.c";
const SQ: &str = "kmod-sq/src/sq.rs";
const COPY: &str = "uapi/src/copy.rs";
const MAPPED: &str = "uapi/src/mapped.rs";

/// What a bare entry passes before its driver is called.
const BARE: &str = "*op4 = user_data;";

const fn life(group: &'static str, check: &'static str) -> Check {
    Check::Guest(Alone::Life(group, check))
}

const FORK: Check = life("share", "fork:");
const READ_ONLY: Check = life("memory", "read-only");
const FLAGS: Check = life("memory", "the flags of");

pub(super) const ROWS: &[Mutant] = &[
    // The object.
    row(
        "a fence an operation",
        "BELL-4",
        SQ,
        [BARE, "*op4 = user_data; ring.mem.kernel_fence(Fence::PostKernel);"],
        Check::Object("the drain loop has 1 fences"),
    ),
    row(
        "no kernel fence in real memory",
        "BELL-4",
        MAPPED,
        ["kernel_fence(&self, _: Fence) {\n        fence(Ordering::SeqCst);", "kernel_fence(&self, _: Fence) {"],
        Check::Object("without a full fence"),
    ),
    row(
        "a call an operation",
        "SNAP-2",
        SQ,
        [BARE, "*op4 = user_data; core::hint::black_box(ring.host.now_ns());"],
        Check::Object("the drain loop calls sq_now_ns"),
    ),
    row(
        "a word of an entry loaded twice",
        "SNAP-1",
        COPY,
        ["        a.load(Ordering::Relaxed),", "        a.load(Ordering::Relaxed) | a.load(Ordering::Relaxed),"],
        Check::Object("the snapshot has 9 loads for 8 words"),
    ),
    row(
        "an entry looked at again",
        "SNAP-2",
        SQ,
        [
            BARE,
            "*op4 = user_data | ring.mem.sqe_run(head.wrapping_add(taken(places.len())), 1).next().map_or(0, |w| w[4]);",
        ],
        Check::Object("a round copies an entry twice"),
    ),
    row(
        "an index that may panic",
        "SEC-1",
        SQ,
        ["sq.batch.get(..ix(taken.posted)).unwrap_or_default()", "&sq.batch[..ix(taken.posted)]"],
        Check::Object("may panic"),
    ),
    row(
        "a door loads a word twice",
        "SNAP-1",
        DOORS,
        [
            "unsafe_get_user(dst[3], src + 3, fault);",
            "unsafe_get_user(dst[3], src + 3, fault);\n\tunsafe_get_user(dst[3], src + 3, fault);",
        ],
        Check::Guest(Alone::Test("doors", "snap1_each_word_is_loaded_once")),
    ),
    // Whose ring it is.
    row("a stranger's calls let in", "LIFE-3", DEVICE, ["if (current->mm != home->mm)", "if (!home->mm)"], FORK),
    row("a stranger's mmap let in", "LIFE-3", DEVICE, ["if (!own)", "if (!own && !home->mm)"], FORK),
    row(
        "entries run as whoever rings",
        "LIFE-3",
        DEVICE,
        [" && likely(current_cred() == home->cred))", ")"],
        life("share", "LIFE-3: entries run with"),
    ),
    row(
        "a worker runs entries as itself",
        "LIFE-3",
        HOME,
        ["override_creds(home->cred)", "override_creds(current_cred())"],
        life("share", "LIFE-3: the other way round"),
    ),
    row(
        "a ring that was mapped enabled by another",
        "LIFE-3",
        DEVICE,
        ["home->mapped = true;", "home->mapped = false;"],
        life("share", "a ring that was mapped"),
    ),
    row(
        "entries run when their process is gone",
        "LIFE-3",
        HOME,
        ["sq_ring_drain(home->ring, alive);", "sq_ring_drain(home->ring, true);"],
        life("share", "its process gone"),
    ),
    row(
        "a worker goes on for the dead",
        "BELL-3",
        HOME,
        ["return current->mm && !rcu_access_pointer(current->mm->owner);", "return false;"],
        life("kill", "while another drains"),
    ),
    // Ring memory.
    row(
        "the kernel's pages mapped writable",
        "IDX-2",
        DEVICE,
        ["(vma->vm_flags & VM_WRITE))", "(vma->vm_flags & VM_WRITE) && !home)"],
        READ_ONLY,
    ),
    row(
        "the kernel's pages made writable later",
        "IDX-2",
        DEVICE,
        ["(which == SQ_PAGES_KERNEL ? VM_MAYWRITE : 0)", "0"],
        READ_ONLY,
    ),
    row("mappings pinned for long", "LIFE-4", DEVICE, ["VM_IO | VM_DONTCOPY", "VM_DONTCOPY"], FLAGS),
    row("mappings inherited by fork", "LIFE-4", DEVICE, ["VM_IO | VM_DONTCOPY", "VM_IO"], FLAGS),
    row(
        "ring memory charged to nobody",
        "MEM-1",
        MEMORY,
        ["(GFP_KERNEL_ACCOUNT |", "(GFP_KERNEL |"],
        life("memory", "the memcg pays"),
    ),
    // Its end, and being told.
    row(
        "close does not wait for a copy",
        "LIFE-2",
        MEMORY,
        ["if (current->mm == home->mm)", "if (!home->mm)"],
        life("stall", "a close waits"),
    ),
    row(
        "a stranger's close waits for a copy",
        "LIFE-2",
        MEMORY,
        ["if (current->mm == home->mm)", "if (home->mm)"],
        life("stall", "a stranger that closes last"),
    ),
    row(
        "poll puts nobody on the queue",
        "BELL-4",
        DEVICE,
        ["poll_wait(file, &home->wait, table);", ""],
        life("poll", "poll: readable"),
    ),
    row(
        "a second eventfd taken",
        "BELL-4",
        HOME,
        ["if (context && home->eventfd)", "if (context && !home->mm)"],
        Check::Guest(Alone::Test("conformance", "only_an_eventfd_is_an_eventfd_and_only_one")),
    ),
    row(
        "an argument of any size taken",
        "SEC-1",
        DEVICE,
        ["if (size > SQ_ARGUMENT_MAX)", "if (size > INT_MAX)"],
        life("hostile", "every call with arguments"),
    ),
    row(
        "one of two told of the end",
        "BELL-4",
        HOME,
        ["__wake_up(&home->wait, TASK_NORMAL, 0,", "__wake_up(&home->wait, TASK_NORMAL, 1,"],
        life("poll", "epoll: two with EPOLLEXCLUSIVE"),
    ),
    row(
        "who is woken takes the key for the answer",
        "BELL-4",
        HOME,
        ["TASK_NORMAL, 0, NULL);", "TASK_NORMAL, 0, (void *)0x11UL);"],
        life("poll", "io_uring: a poll says"),
    ),
    row(
        "a closed ring signals its eventfd",
        "LIFE-2",
        HOME,
        ["(void)sq_eventfd_set(home, -1);", ""],
        life("poll", "LIFE-2: a ring that is closed"),
    ),
    row(
        "a worker without a process's protection keys",
        "LIFE-3",
        MEMORY,
        ["write_pkru(home->pkru);", ""],
        life("memory", "a protection key"),
    ),
    row(
        "a job without its issuer's protection keys",
        "LIFE-3",
        FILE_JOB,
        ["write_pkru(job->pkru);", "write_pkru(read_pkru());"],
        life("memory", "a protection key"),
    ),
    // Whom the file driver's work is charged to.
    row(
        "a kernel thread's I/O is the root's",
        "MEM-1",
        FILE_JOB,
        ["kthread_associate_blkcg(io);", ""],
        life("accounts", "MEM-1: I/O by kernel threads"),
    ),
    row(
        "lists of pages charged to nobody",
        "MEM-1",
        FILE_JOB,
        ["return set_active_memcg(memcg);", "return set_active_memcg(NULL);"],
        life("accounts", "MEM-1: io.max holds"),
    ),
    row(
        "a list of pages kept while its job waits",
        "MEM-1",
        FILE_JOB,
        ["kvfree(job->bvec);\n\tjob->bvec = NULL;\n\tsq_job_attempted", "sq_job_attempted"],
        life("accounts", "MEM-1: direct I/O that waits"),
    ),
];

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The cost of the queue itself: an operation that does nothing, by every way there is to ask for it.
//!
//! Each row is named after what it crosses. An embedded row crosses nothing, or a thread: it is the queue's own cost, not
//! that of entering a kernel. Read it beside the system calls, not instead of them.
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kmod_sq::snapshot::Snapshot;
use liburing_shm::{Backend, Ring, opcode};
use sq_uapi::{Mapped, Parts, SqOffsets, UserMem};

const BATCHES: [u32; 4] = [1, 8, 32, 128];

fn ring_round(ring: &mut Ring, batch: u32) -> u64 {
    let sq = ring.submission();
    for n in 0..batch {
        sq.push(opcode::Nop::new().build().user_data(u64::from(n))).expect("the ring has room for a batch");
    }
    ring.submit().expect("a null operation is accepted");
    // In caller mode they are all there; a polling thread takes a moment.
    let (mut sum, mut left) = (0, batch);
    while left > 0 {
        for completion in ring.completion().reap() {
            sum += completion.user_data();
            left -= 1;
        }
    }
    sum
}

fn null(c: &mut Criterion) {
    let mut group = c.benchmark_group("null operation");
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));

    let backend = Backend::embedded(sq_null::Null).expect("the null driver has a short name");
    for batch in BATCHES {
        group.throughput(Throughput::Elements(batch.into()));
        let mut ring = Ring::builder(128).build(&backend).expect("an embedded ring");
        // Counted once, out of the timed loop: each operation completes, and succeeds.
        for n in 0..batch {
            ring.submission().push(opcode::Nop::new().build().user_data(n.into())).expect("room");
        }
        ring.submit_and_wait(batch).expect("a null operation is accepted");
        assert_eq!(ring.completion().reap().filter(|done| done.result() == Ok(0)).count(), batch as usize);
        group.bench_function(BenchmarkId::new("sq embedded, caller mode (function call)", batch), |b| {
            b.iter(|| black_box(ring_round(&mut ring, batch)));
        });
    }

    for batch in BATCHES {
        group.throughput(Throughput::Elements(batch.into()));
        let mut ring = Ring::builder(128).poll(Duration::from_secs(1)).build(&backend).expect("an embedded ring");
        group.bench_function(BenchmarkId::new("sq embedded, polling mode (thread)", batch), |b| {
            b.iter(|| black_box(ring_round(&mut ring, batch)));
        });
    }

    match io_uring::IoUring::new(256) {
        Err(error) => eprintln!("SKIPPED io_uring: {error} (switched off on this host?)"),
        Ok(mut uring) => {
            for batch in BATCHES {
                group.throughput(Throughput::Elements(batch.into()));
                group.bench_function(BenchmarkId::new("io_uring NOP (system call)", batch), |b| {
                    b.iter(|| black_box(uring_round(&mut uring, batch)));
                });
            }
        }
    }

    group.throughput(Throughput::Elements(1));
    let (reader, _writer) = rustix::pipe::pipe().expect("a pipe");
    group.bench_function(BenchmarkId::new("ioctl FIONREAD (system call)", 1), |b| {
        b.iter(|| black_box(rustix::io::ioctl_fionread(&reader).expect("a pipe has bytes to count")));
    });
    group.bench_function(BenchmarkId::new("getppid (system call)", 1), |b| {
        b.iter(|| black_box(rustix::process::getppid()));
    });
    group.finish();
}

fn uring_round(uring: &mut io_uring::IoUring, batch: u32) -> u64 {
    let mut sq = uring.submission();
    for n in 0..batch {
        let nop = io_uring::opcode::Nop::new().build().user_data(u64::from(n));
        // SAFETY: a NOP refers to no memory.
        unsafe { sq.push(&nop) }.expect("the ring has room for a batch");
    }
    drop(sq);
    uring.submit().expect("io_uring takes a NOP");
    uring.completion().map(|completion| completion.user_data()).sum()
}

/// What the one copy of an entry costs, out of memory that the other half has just written.
fn snapshot(c: &mut Criterion) {
    let mut group = c.benchmark_group("snapshot");
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    let mut memory = vec![0u64; (256 + BATCH_OF_ENTRIES * 64) / 8 + 64];
    let start = std::ptr::NonNull::from(memory.as_mut_slice()).cast::<u8>();
    let offsets = SqOffsets { sqes: 256, cq_head: 128, ..SqOffsets::default() };
    // The kernel-written region is not used here.
    let parts = Parts {
        user: start,
        kernel: start,
        offsets,
        sq_entries: BATCH_OF_ENTRIES as u32,
        cq_entries: 1,
        sqe128: false,
        cqe32: false,
    };
    // SAFETY: the vector holds what the offsets say and outlives the view; it is accessed through the view only.
    let mem = unsafe { Mapped::new(parts) };
    group.throughput(Throughput::Elements(BATCH_OF_ENTRIES as u64));
    group.bench_function("write entries", |b| b.iter(|| write_all(&mem)));
    group.bench_function("write entries, then snapshot each", |b| {
        let mut private = [0; 16];
        b.iter(|| {
            write_all(&mem);
            for index in 0..BATCH_OF_ENTRIES as u32 {
                black_box(Snapshot::take(&mem, index, false, black_box(&mut private)));
            }
        });
    });
    group.finish();
    drop(memory);
}

const BATCH_OF_ENTRIES: usize = 32;

fn write_all(mem: &Mapped) {
    for index in 0..BATCH_OF_ENTRIES as u32 {
        mem.write_sqe(index, black_box([u64::from(index); 8]));
    }
}

criterion_group!(benches, null, snapshot);
criterion_main!(benches);

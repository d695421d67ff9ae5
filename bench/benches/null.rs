// SPDX-License-Identifier: MIT OR Apache-2.0
//! The cost of the queue itself: an operation that does nothing, by every way there is to ask for it.
//!
//! Each row is named after what it crosses. An embedded row crosses nothing, or a thread: it is the queue's own cost, not
//! that of entering a kernel. Read it beside the system calls, not instead of them.
//!
//! What the snapshot costs is the difference to a run without it:
//! `RUSTFLAGS="--cfg sq_bench_without_snapshot" cargo bench -p sq-bench -- caller`.
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use liburing_shm::{Backend, Ring, opcode};

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

criterion_group!(benches, null);
criterion_main!(benches);

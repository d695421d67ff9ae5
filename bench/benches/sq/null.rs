// SPDX-License-Identifier: MIT OR Apache-2.0
//! The cost of the queue itself: an operation that does nothing, by every way there is to ask for it.
//!
//! What the snapshot costs in all this is the difference to a build without it, which `cargo xtask bench` makes too:
//! `RUSTFLAGS="--cfg sq_bench_without_snapshot" cargo bench -- 'null operation/ring embedded caller'`.

use std::fs::OpenOptions;

use criterion::{Criterion, Throughput};
use io_uring::IoUring;
use liburing_shm::{Ring, opcode};
use sq_bench::baseline::{self, Array, Bare, One};
use sq_bench::cpu;
use sq_bench::uring::Inline;
use std::time::Duration;

use crate::host::{Group, Home, Host, SYSTEM, THREAD, homes, id, row, skip};
use crate::queue::{Queue, round};

pub(crate) const BATCHES: [u32; 4] = [1, 8, 32, 128];
const ENTRIES: u32 = 128;

pub(crate) fn rows(c: &mut Criterion, host: &Host) {
    let mut group = c.benchmark_group("null operation");
    let homes = homes(sq_null::Null);
    let null_takes_commands = host.io_uring && takes_commands("/dev/null");
    if !null_takes_commands {
        skip("uring_cmd to /dev/null", "this kernel's /dev/null takes no command");
    }
    for batch in BATCHES {
        group.throughput(Throughput::Elements(batch.into()));
        for home in &homes {
            rings(&mut group, host, home, batch);
        }
        if host.io_uring {
            row(&mut group, id("io_uring NOP", SYSTEM, batch), uring, |uring| round(uring, batch));
        }
        if null_takes_commands {
            commands(&mut group, "/dev/null", 0, batch);
        }
        for home in homes.iter().filter(|home| home.crosses == SYSTEM) {
            if host.io_uring {
                commands(&mut group, &home.name, sq_uapi::ioctl::ISSUE, batch);
            }
        }
        if host.baseline {
            plain(&mut group, host, batch);
        }
    }
    calls(&mut group, &homes, host);
    group.finish();
}

/// The ring in each mode, a batch at a time: the next is pushed when this one has been reaped.
fn rings(group: &mut Group<'_>, host: &Host, home: &Home, batch: u32) {
    let Home { backend, name, crosses } = home;
    let caller = || checked(Ring::builder(ENTRIES).build(backend).expect("a ring"), batch);
    row(group, id(format_args!("ring {name} caller"), crosses, batch), caller, |ring| round(ring, batch));
    let Some(pair) = host.cpus else { return };
    // The embedded worker is a thread of this process, and starts where its ring is made.
    let worker =
        || cpu::on(pair.far, || checked(Ring::builder(ENTRIES).worker().build(backend).expect("a ring"), batch));
    row(group, id(format_args!("ring {name} worker"), THREAD, batch), worker, |ring| round(ring, batch));
    let poll = || cpu::on(pair.far, || checked(polled(home, pair.far), batch));
    row(group, id(format_args!("ring {name} poll"), THREAD, batch), poll, |ring| round(ring, batch));
}

/// A ring with a polling thread on the processor `cpu`.
pub(crate) fn polled(home: &Home, cpu: usize) -> Ring {
    let cpu = u32::try_from(cpu).expect("a processor's number is small");
    // Sized for steady load.
    let builder = Ring::builder(4 * ENTRIES).poll(Duration::from_secs(1)).poll_cpu(cpu);
    builder.build(&home.backend).expect("a ring with a polling thread")
}

fn uring() -> IoUring {
    checked(IoUring::new(2 * ENTRIES).expect("an io_uring"), ENTRIES)
}

/// Each operation completes, and succeeds: looked at once, out of the timed loop.
fn checked<Q: Queue>(mut queue: Q, batch: u32) -> Q {
    round(&mut queue, batch);
    assert_eq!(queue.reap(), 0, "a completion that nobody asked for");
    queue
}

/// Whether io_uring may send a file commands.
fn takes_commands(path: &str) -> bool {
    let file = OpenOptions::new().read(true).write(true).open(path);
    let uring = file.map_err(Into::into).and_then(|file| Inline::new(file, 0));
    uring.is_ok_and(|mut uring| uring.round(1, |_| [0; 8]) == 1)
}

/// io_uring's commands, with the entry inside.
fn commands(group: &mut Group<'_>, node: &str, cmd_op: u32, batch: u32) {
    let open = || {
        let file = OpenOptions::new().read(true).write(true).open(node).expect("it was opened before");
        Inline::new(file, cmd_op).expect("an io_uring")
    };
    let entry = |n: u32| opcode::Nop::new().build().user_data(n.into()).as_sqe().to_words();
    row(group, id(format_args!("uring_cmd {node}"), SYSTEM, batch), open, |uring| {
        assert_eq!(uring.round(batch, entry), batch);
    });
}

/// The plain module of bench/baseline.
fn plain(group: &mut Group<'_>, host: &Host, batch: u32) {
    const LOADED: &str = "the plain module was there";
    row(
        group,
        id("base-ioctl", SYSTEM, batch),
        || One::open().expect(LOADED),
        |door| {
            assert!((0..batch).all(|n| door.call(n.into())));
        },
    );
    row(
        group,
        id("base-array", SYSTEM, batch),
        || Array::open().expect(LOADED),
        |door| {
            assert_eq!(door.call(batch), batch);
        },
    );
    row(
        group,
        id("base-ring", SYSTEM, batch),
        || Bare::open().expect(LOADED),
        |ring| {
            (0..batch).for_each(|n| ring.push(n.into()));
            ring.enter();
            assert_eq!(ring.reap(), batch);
        },
    );
    if host.io_uring {
        let open = || Inline::new(baseline::open().expect(LOADED), baseline::INLINE).expect("an io_uring");
        row(group, id("base-uring_cmd", SYSTEM, batch), open, |uring| {
            assert_eq!(uring.round(batch, |n| baseline::nop_words(n.into())), batch);
        });
    }
}

/// Calls that do one thing, and what the hand-overs are made of.
fn calls(group: &mut Group<'_>, homes: &[Home], host: &Host) {
    group.throughput(Throughput::Elements(1));
    for Home { backend, name, crosses } in homes {
        let open = || backend.open().expect("it opens");
        row(group, id(format_args!("ioctl door {name}"), crosses, 1), open, |device| {
            device.issue(&opcode::Nop::new().build()).expect("a null operation is accepted")
        });
    }
    if host.baseline {
        row(group, id("base-null ioctl", SYSTEM, 1), || One::open().expect("it was there"), |door| door.null());
    }
    let pipe = || rustix::pipe::pipe().expect("a pipe");
    row(group, id("ioctl FIONREAD", SYSTEM, 1), pipe, |(reader, _writer)| {
        rustix::io::ioctl_fionread(reader).expect("a pipe has bytes to count")
    });
    row(group, id("getppid", SYSTEM, 1), || (), |()| rustix::process::getppid());
}

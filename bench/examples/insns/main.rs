// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guest instructions per operation, for `cargo xtask vm insns`: run under QEMU's `-icount shift=0`, where the time stamp counter
//! advances by one an instruction.
//!
//! An operation is counted whole: building the entry, handing it over, whatever the kernel does with it, and having read its result.
//! With the argument `trace` it does one round of each kind, with marks between them, for QEMU to write down.
//!
//! Lines on stdout are `door,batch,instructions`, and after a word: `also` for other ways of the plain module, `where` for the parts
//! of a ring's round.

mod meter;

use std::error::Error;
use std::fs::OpenOptions;
use std::hint::black_box;
use std::io::{Read as _, Write as _};

use liburing_shm::opcode::{Read, ReadFixed, Target};
use liburing_shm::{Backend, Ring, opcode};

use meter::{BATCHES, Phases, measure, phases};
use sq_bench::baseline::{self, Array, Bare, One};
use sq_bench::uring::{Inline, Pointer};

fn main() -> Result<(), Box<dyn Error>> {
    if std::env::args().nth(1).as_deref() == Some("trace") {
        return trace();
    }
    ring()?;
    ioctl()?;
    uring_cmd()?;
    one()?;
    array()?;
    command()?;
    bare_ring()?;
    ram()?;
    Ok(())
}

/// A mark is an ioctl that does nothing: `xtask/src/vm/trace.rs` cuts there.
fn trace() -> Result<(), Box<dyn Error>> {
    let backend = Backend::device("/dev/sqnull");
    let mut ring = Ring::builder(meter::CHUNK / 2).cq_entries(meter::CHUNK).build(&backend)?;
    let device = backend.open()?;
    let mut mark = One::open()?;
    let mut marked_rounds = || -> Result<(), Box<dyn Error>> {
        mark.null();
        for batch in [1, 32, 128] {
            mark.null();
            push(&mut ring, batch);
            enter(&mut ring);
            reap(&mut ring);
        }
        mark.null();
        device.issue(&opcode::Nop::new().build())?;
        mark.null();
        Ok(())
    };
    // Pages, caches of the kernel's allocator, and a first look at the completion slots that are free again.
    for _ in 0..100 {
        marked_rounds()?;
    }
    let mut console = OpenOptions::new().read(true).write(true).open("/dev/ttyS0")?;
    console.write_all(b"sq-trace-begin\n")?;
    console.read_exact(&mut [0])?;
    marked_rounds()?;
    console.write_all(b"sq-trace-end\n")?;
    Ok(())
}

fn ring() -> Result<(), Box<dyn Error>> {
    let mut ring = Ring::builder(meter::CHUNK / 2).cq_entries(meter::CHUNK).build(&Backend::device("/dev/sqnull"))?;
    for batch in BATCHES {
        measure("ring", batch, || {
            push(&mut ring, batch);
            enter(&mut ring);
            reap(&mut ring)
        })?;
    }
    for batch in [1, 32] {
        phases("ring", batch, |at: &mut Phases| {
            push(&mut ring, batch);
            at.pushed();
            enter(&mut ring);
            at.entered();
            let reaped = reap(&mut ring);
            at.reaped();
            reaped
        })?;
    }
    Ok(())
}

#[inline(always)]
fn push(ring: &mut Ring, batch: u32) {
    for n in 0..batch {
        ring.submission().push(opcode::Nop::new().build().user_data(n.into())).expect("the ring has room for a batch");
    }
}

#[inline(always)]
fn enter(ring: &mut Ring) {
    ring.submit().expect("a null operation is accepted");
}

/// How many succeeded.
#[inline(always)]
fn reap(ring: &mut Ring) -> u32 {
    let mut good = 0;
    for completion in ring.completion().reap() {
        black_box(completion.user_data());
        good += u32::from(completion.result().is_ok());
    }
    good
}

fn ioctl() -> Result<(), Box<dyn Error>> {
    let device = Backend::device("/dev/sqnull").open()?;
    let call = |n: u32| device.issue(&opcode::Nop::new().build().user_data(n.into())).is_ok();
    for batch in BATCHES {
        measure("ioctl", batch, || (0..batch).map(|n| u32::from(call(n))).sum())?;
    }
    Ok(())
}

fn bare_ring() -> Result<(), Box<dyn Error>> {
    let mut ring = Bare::open()?;
    for batch in BATCHES {
        measure("base-ring", batch, || {
            (0..batch).for_each(|n| ring.push(n.into()));
            ring.enter();
            ring.reap()
        })?;
    }
    for batch in [1, 32] {
        phases("base-ring", batch, |at: &mut Phases| {
            (0..batch).for_each(|n| ring.push(n.into()));
            at.pushed();
            ring.enter();
            at.entered();
            let reaped = ring.reap();
            at.reaped();
            reaped
        })?;
    }
    Ok(())
}

fn one() -> Result<(), Box<dyn Error>> {
    let mut door = One::open()?;
    measure("also a null ioctl", 1, || door.null())?;
    for batch in BATCHES {
        measure("base-ioctl", batch, || (0..batch).map(|n| u32::from(door.call(n.into()))).sum())?;
    }
    Ok(())
}

fn array() -> Result<(), Box<dyn Error>> {
    let mut door = Array::open()?;
    for batch in BATCHES {
        measure("base-array", batch, || door.call(batch))?;
        measure("also base-array in chunks", batch, || door.call_in_chunks(batch))?;
    }
    Ok(())
}

fn command() -> Result<(), Box<dyn Error>> {
    let mut inline = Inline::new(baseline::open()?, baseline::INLINE)?;
    let mut pointer = Pointer::new(baseline::open()?, baseline::POINTER)?;
    let entry = |n: u32| baseline::nop_words(n.into());
    for batch in BATCHES {
        measure("base-uring_cmd", batch, || inline.round(batch, entry))?;
        measure("also base-uring_cmd by pointer", batch, || pointer.round(batch, entry))?;
    }
    Ok(())
}

/// 512 bytes read from /dev/sqram into this process's memory, or into the ring's own.
fn ram() -> Result<(), Box<dyn Error>> {
    const BYTES: u32 = 512;
    let backend = Backend::device("/dev/sqram");
    let builder = Ring::builder(meter::CHUNK / 2).cq_entries(meter::CHUNK).pool(1, 4096);
    let (mut ring, device) = (builder.build(&backend)?, backend.open()?);
    let mut buffer = [1u8; BYTES as usize];
    let read = Read::new(Target::Device, buffer.as_mut_ptr(), BYTES).build();
    for batch in BATCHES {
        measure("ram/ring", batch, || {
            for _ in 0..batch {
                // SAFETY: the buffer stays, and nobody looks at it.
                unsafe { ring.submission().push_raw(read) }.expect("the ring has room for a batch");
            }
            enter(&mut ring);
            reap(&mut ring)
        })?;
        measure("ram/ring pool", batch, || {
            for _ in 0..batch {
                let read = ReadFixed::new(Target::Device, 0, 0, BYTES).build();
                ring.submission().push(read).expect("the ring has room for a batch");
            }
            enter(&mut ring);
            reap(&mut ring)
        })?;
        // SAFETY: as above.
        let call = |_| u32::from(unsafe { device.issue_raw(&read) }.is_ok());
        measure("ram/ioctl", batch, || (0..batch).map(call).sum())?;
    }
    Ok(())
}

fn uring_cmd() -> Result<(), Box<dyn Error>> {
    let open = || OpenOptions::new().read(true).write(true).open("/dev/sqnull");
    let mut inline = Inline::new(open()?, sq_uapi::ioctl::ISSUE)?;
    let mut pointer = Pointer::new(open()?, sq_uapi::ioctl::ISSUE)?;
    let entry = |_: u32| opcode::Nop::new().build().as_sqe().to_words();
    for batch in BATCHES {
        measure("uring_cmd", batch, || inline.round(batch, entry))?;
        measure("also uring_cmd by pointer", batch, || pointer.round(batch, entry))?;
    }
    Ok(())
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bytes to and from a store in memory, the ram driver, 32 operations at a time: by user pointer and from the ring's own buffers,
//! beside one ioctl an operation, `pread` and `pwrite` of a file in memory, and nothing but the copy.
//!
//! Each way goes over as many bytes: the store and the buffers of a block size times 32.

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;

use criterion::{Criterion, Throughput};
use liburing_shm::opcode::{Read, ReadFixed, Target, Write, WriteFixed};
use liburing_shm::{Entry, RawEntry, Ring};
use rustix::fs::{MemfdFlags, memfd_create};

use crate::host::{CALL, Group, Home, Host, SYSTEM, good, homes, id, row, skip};

const DEPTH: u16 = 32;
const SIZES: [u32; 5] = [512, 4 << 10, 16 << 10, 128 << 10, 1 << 20];
const PAGE: u32 = 4096;

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Read,
    Write,
}

pub(crate) fn rows(c: &mut Criterion, _: &Host) {
    skip("payload by registered user buffers", "not there yet: docs/protocol.md, SEC-2");
    let store = SIZES[SIZES.len() - 1] as usize * usize::from(DEPTH);
    let homes = homes(sq_ram::Ram::in_process(store).expect("a store in this process"));
    for (name, way) in [("payload read", Way::Read), ("payload write", Way::Write)] {
        let mut group = c.benchmark_group(name);
        for size in SIZES {
            group.throughput(Throughput::Bytes(u64::from(size) * u64::from(DEPTH)));
            for home in &homes {
                if fits(home, size) {
                    ours(&mut group, home, way, size);
                }
            }
            plain(&mut group, way, size);
        }
        group.finish();
    }
}

/// A module's store may be small.
fn fits(home: &Home, size: u32) -> bool {
    let bytes = home.backend.query().expect("a backend says what it is").target_bytes;
    let fits = bytes >= u64::from(size) * u64::from(DEPTH);
    if !fits {
        skip(&format!("payload of {size} bytes by {}", home.name), format_args!("its store has {bytes} bytes"));
    }
    fits
}

fn ours(group: &mut Group<'_>, home: &Home, way: Way, size: u32) {
    let Home { backend, name, crosses } = home;
    let ring = || {
        let mut ring =
            Ring::builder(DEPTH.into()).pool(DEPTH, size.next_multiple_of(PAGE)).build(backend).expect("a ring");
        // Touched, like everybody's buffers.
        let pool = ring.submitter().pool().expect("it was asked for");
        for index in 0..DEPTH {
            pool.write(index, 0, &vec![1; size as usize]).expect("it fits");
        }
        pooled(&mut ring, way, size);
        ring
    };
    row(group, id(format_args!("ring {name} pool"), crosses, size), ring, |ring| pooled(ring, way, size));
    let with_buffers = || (Ring::builder(DEPTH.into()).build(backend).expect("a ring"), buffers(size));
    row(group, id(format_args!("ring {name} user pointer"), crosses, size), with_buffers, |(ring, buffers)| {
        by_pointer(ring, buffers, way, size);
    });
    let door = || (backend.open().expect("it opens"), buffers(size));
    row(group, id(format_args!("ioctl door {name}"), crosses, size), door, |(device, buffers)| {
        for (n, buffer) in buffers.iter_mut().enumerate() {
            let entry = raw(way, buffer, n as u64 * u64::from(size));
            // SAFETY: the buffer is valid for all of `size` bytes, and nobody else uses it during the call.
            let done = unsafe { device.issue_raw(&entry) };
            assert_eq!(done, Ok(size));
        }
    });
}

fn pooled(ring: &mut Ring, way: Way, size: u32) {
    for index in 0..DEPTH {
        let offset = u64::from(index) * u64::from(size);
        let entry: Entry = match way {
            Way::Read => ReadFixed::new(Target::Device, index, 0, size).offset(offset).build(),
            Way::Write => WriteFixed::new(Target::Device, index, 0, size).offset(offset).build(),
        };
        ring.submission().push(entry).expect("the ring has room for a batch");
    }
    all(ring, size);
}

fn by_pointer(ring: &mut Ring, buffers: &mut [Vec<u8>], way: Way, size: u32) {
    for (n, buffer) in buffers.iter_mut().enumerate() {
        let entry = raw(way, buffer, n as u64 * u64::from(size));
        // SAFETY: the buffer is valid for all of `size` bytes; it is in the caller's hands until `all` has seen the completion.
        unsafe { ring.submission().push_raw(entry) }.expect("the ring has room for a batch");
    }
    all(ring, size);
}

fn raw(way: Way, buffer: &mut [u8], offset: u64) -> RawEntry {
    let size = u32::try_from(buffer.len()).expect("a block is small");
    match way {
        Way::Read => Read::new(Target::Device, buffer.as_mut_ptr(), size).offset(offset).build(),
        Way::Write => Write::new(Target::Device, buffer.as_ptr(), size).offset(offset).build(),
    }
}

fn all(ring: &mut Ring, size: u32) {
    ring.submit().expect("the operations are accepted");
    let whole = |done| assert_eq!(good(&done), size, "the whole block");
    assert_eq!(ring.completion().reap().map(whole).count(), usize::from(DEPTH));
}

fn buffers(size: u32) -> Vec<Vec<u8>> {
    vec![vec![1; size as usize]; DEPTH.into()]
}

fn plain(group: &mut Group<'_>, way: Way, size: u32) {
    let bytes = size as usize * usize::from(DEPTH);
    let file = || {
        let file = File::from(memfd_create("sq-bench", MemfdFlags::CLOEXEC).expect("a file in memory"));
        file.write_all_at(&vec![1; bytes], 0).expect("room in memory");
        (file, buffers(size))
    };
    let name = if way == Way::Read { "pread of a memfd" } else { "pwrite of a memfd" };
    row(group, id(name, SYSTEM, size), file, |(file, buffers)| {
        for (n, buffer) in buffers.iter_mut().enumerate() {
            let offset = n as u64 * u64::from(size);
            let done = if way == Way::Read { file.read_at(buffer, offset) } else { file.write_at(buffer, offset) };
            assert_eq!(done.expect("a file in memory"), size as usize);
        }
    });
    row(
        group,
        id("memcpy", CALL, size),
        || (vec![1u8; bytes], buffers(size)),
        |(store, buffers)| {
            for (buffer, place) in buffers.iter_mut().zip(store.chunks_exact_mut(size as usize)) {
                match way {
                    Way::Read => buffer.copy_from_slice(place),
                    Way::Write => place.copy_from_slice(buffer),
                }
            }
            black_box((store, buffers));
        },
    );
}

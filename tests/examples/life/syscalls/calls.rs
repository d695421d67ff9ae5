// SPDX-License-Identifier: MIT OR Apache-2.0
//! One call after another, each drawn at random: nearly right ones more often than wild ones.

use std::fs;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use io_uring::opcode::UringCmd80;
use io_uring::types::Fd;
use io_uring::{IoUring, cqueue, squeue};
use sq_uapi::consts::{enter_flags, register_op, setup_flags};
use sq_uapi::{SqRegion, SqSetup, ioctl};

use super::world::{Area, BUFFER_BYTES, World};
use crate::Random;
use crate::proc::sleep_us;
use crate::raw::{self, cancel_any, command, delay, echo, last, never, nop, transfer};

/// The last two are examples/dma-rust and examples/dma-c, which `run` wants loaded.
pub(super) const NODES: [&str; 5] = [raw::NULL, "/dev/sqram", "/dev/sqfile", "/dev/sqdma", "/dev/sqdma_c"];
const NUMBERS: [u32; 8] = [
    ioctl::QUERY,
    ioctl::SETUP,
    ioctl::ENTER,
    ioctl::REGISTER,
    ioctl::QUIESCE,
    ioctl::CANCEL,
    ioctl::STATS,
    ioctl::ISSUE,
];

type Uring = IoUring<squeue::Entry128, cqueue::Entry>;

pub(super) fn run(world: &World, random: &mut Random, calls: u32, done: &AtomicU32) {
    let mut uring = None;
    for _ in 0..calls {
        one(world, random, &mut uring);
        done.fetch_add(1, Ordering::Relaxed);
    }
}

fn one(world: &World, random: &mut Random, uring: &mut Option<Uring>) {
    match random.below(40) {
        0..3 => open(world, random),
        3..7 => set_up(world, random),
        7..11 => map(world, random),
        11..19 => push(world, random),
        19..22 => bell(world, random),
        22..30 => call(world, random),
        30..32 => remap(world, random),
        32..34 => command_by_uring(world, random, uring),
        34 => world.put(World::slot(random), -1),
        35 => duplicate(world, random),
        36 => poll(world, random),
        37 => look(world, random),
        38 => fork(world, random),
        _ => sleep_us(random.below(300)),
    }
}

fn bell(world: &World, random: &mut Random) {
    let _ = raw::ioctl(any_fd(world, random), ioctl::ENTER, 0);
}

fn any_fd(world: &World, random: &mut Random) -> i32 {
    world.fd(World::slot(random))
}

/// A device, or what devices take: an eventfd, a file.
fn open(world: &World, random: &mut Random) {
    let fd = match random.below(8) {
        // SAFETY: no precondition.
        0 => unsafe { libc::eventfd(0, libc::EFD_NONBLOCK) },
        1 => {
            // SAFETY: a NUL-terminated name.
            let fd = unsafe { libc::memfd_create(c"life".as_ptr(), 0) };
            // SAFETY: any descriptor.
            unsafe { libc::ftruncate(fd, 1 << 16) };
            fd
        }
        2 => device(random, libc::O_RDONLY),
        _ => device(random, libc::O_RDWR),
    };
    world.put(World::slot(random), fd);
}

fn device(random: &mut Random, flags: i32) -> i32 {
    let node = std::ffi::CString::new(NODES[random.below(NODES.len() as u64) as usize]).unwrap_or_default();
    // SAFETY: a NUL-terminated path.
    unsafe { libc::open(node.as_ptr(), flags) }
}

fn set_up(world: &World, random: &mut Random) {
    let slot = World::slot(random);
    if world.fd(slot) < 0 || random.below(3) == 0 {
        world.put(slot, device(random, libc::O_RDWR));
    }
    let mut setup = shape(random);
    if raw::call(world.fd(slot), ioctl::SETUP, &mut setup).is_ok() {
        world.keep_setup(slot, setup);
        // Most want to be used.
        for region in [setup.user, setup.kernel] {
            map_region(world, random, slot, region);
        }
    }
}

fn shape(random: &mut Random) -> SqSetup {
    let entries = [1, 2, 7, 8, 64, 4096][random.below(6) as usize];
    let modes = [0, 0, setup_flags::WORKER, setup_flags::SQPOLL];
    let mut flags = modes[random.below(4) as usize];
    for flag in [setup_flags::R_DISABLED, setup_flags::SQE128, setup_flags::CQE32, setup_flags::CLAMP, 1 << 9] {
        if random.below(8) == 0 {
            flags |= flag;
        }
    }
    let mut setup = raw::shape(entries, flags);
    if random.below(3) == 0 {
        (setup.buf_count, setup.buf_bytes) = (1 + random.below(4) as u32, 4096 << random.below(4));
    }
    if random.below(4) == 0 {
        setup.max_inflight = random.below(9) as u32;
        setup.cq_entries = random.below(20) as u32;
        // One word of it is anything; not the pool, which may take all of the memory there is.
        let word = random.below(24);
        if !(2..5).contains(&word) {
            let mut words: [u64; 24] = bytes_to_words(&setup);
            words[word as usize] ^= 1 << random.below(64);
            setup = words_to_bytes(words);
        }
    }
    // A thread that polls takes half of the guest.
    setup.sq_thread_idle_ms = 1;
    setup
}

fn bytes_to_words(setup: &SqSetup) -> [u64; 24] {
    let mut bytes = [0; 192];
    kmod_sq::call::write(setup, &mut bytes);
    std::array::from_fn(|n| u64::from_ne_bytes(bytes[n * 8..][..8].try_into().unwrap_or_default()))
}

fn words_to_bytes(words: [u64; 24]) -> SqSetup {
    // SAFETY: both are 192 bytes, and every pattern is a value.
    unsafe { std::mem::transmute(words) }
}

fn map(world: &World, random: &mut Random) {
    let slot = World::slot(random);
    let setup = world.setup(slot);
    let region = [setup.user, setup.kernel, setup.pool][random.below(3) as usize];
    let region = match random.below(8) {
        0 => SqRegion { offset: region.offset + (4096 << random.below(40)), ..region },
        1 => SqRegion { size: region.size + 4096, ..region },
        2 => SqRegion { size: 4096, ..region },
        _ => region,
    };
    map_region(world, random, slot, region);
}

fn map_region(world: &World, random: &mut Random, slot: usize, region: SqRegion) {
    let setup = world.setup(slot);
    let writable = region.offset != setup.kernel.offset || random.below(8) == 0;
    let prot = if writable { 3 } else { 1 } | if random.below(16) == 0 { libc::PROT_EXEC } else { 0 };
    let flags = if random.below(16) == 0 { libc::MAP_PRIVATE } else { libc::MAP_SHARED };
    let (len, fd) = (region.size as usize, world.fd(slot));
    // SAFETY: a new mapping, where the kernel likes.
    let at = unsafe { libc::mmap(ptr::null_mut(), len, prot, flags, fd, region.offset as i64) };
    if at == libc::MAP_FAILED {
        return;
    }
    let area = Area {
        at: at.expose_provenance(),
        len,
        writable: writable && region == setup.user && flags == libc::MAP_SHARED,
        setup,
    };
    let old = world.areas[World::area(random)].try_lock().map(|mut place| place.replace(area));
    if let Ok(Some(old)) = old {
        unmap(old.at, old.len);
    }
}

fn unmap(at: usize, len: usize) {
    // SAFETY: a mapping of a table's entry that is no more, or that is locked.
    unsafe { libc::munmap(ptr::with_exposed_provenance_mut(at), len) };
}

/// Changes a mapping. What is left of it is not written to.
fn remap(world: &World, random: &mut Random) {
    let Ok(mut place) = world.areas[World::area(random)].try_lock() else { return };
    let Some(area) = place.as_mut() else { return };
    let at = ptr::with_exposed_provenance_mut::<libc::c_void>(area.at);
    let half = (area.len / 2).next_multiple_of(4096).min(area.len);
    match random.below(6) {
        0 => {
            unmap(area.at, area.len);
            *place = None;
        }
        1 => {
            unmap(area.at + half, area.len - half);
            (area.len, area.writable) = (half, false);
        }
        2 => {
            area.writable = false;
            // SAFETY: of a mapping that is locked.
            unsafe { libc::mprotect(at, half, random.below(8) as i32) };
        }
        3 => {
            let len = [half, area.len, area.len * 2][random.below(3) as usize];
            // SAFETY: of a mapping that is locked.
            let moved = unsafe { libc::mremap(at, area.len, len, libc::MREMAP_MAYMOVE) };
            if moved != libc::MAP_FAILED {
                (area.at, area.len, area.writable) = (moved.expose_provenance(), len, false);
            }
        }
        4 => {
            area.writable = false;
            // SAFETY: of a mapping that is locked and not touched any more.
            unsafe { libc::madvise(at, area.len, random.below(26) as i32) };
        }
        _ => {
            // SAFETY: as above.
            unsafe { libc::mlock(at, half) };
        }
    }
}

/// Entries, and an index that is right more often than not.
fn push(world: &World, random: &mut Random) {
    let Ok(place) = world.areas[World::area(random)].try_lock() else { return };
    let Some(area) = place.as_ref().filter(|area| area.writable) else { return };
    let map = std::mem::ManuallyDrop::new(raw::Map { at: ptr::with_exposed_provenance_mut(area.at), len: area.len });
    let offsets = area.setup.offsets;
    let stride = if area.setup.flags & setup_flags::SQE128 != 0 { 128 } else { 64 };
    let word = map.word(offsets.sq_tail);
    let mut tail = word.load(Ordering::Relaxed);
    for _ in 0..=random.below(4) {
        let at = offsets.sqes as usize + (tail & (area.setup.sq_entries - 1)) as usize * stride;
        for (n, part) in entry(world, random).into_iter().enumerate() {
            map.long(at + n * 8).store(part, Ordering::Relaxed);
        }
        tail = tail.wrapping_add(1);
    }
    word.store(if random.below(64) == 0 { random.next() as u32 } else { tail }, Ordering::Release);
    if random.below(2) == 0 {
        // As if what was asked for before had been reaped.
        let reaped = map.word(offsets.cq_head);
        reaped.store(reaped.load(Ordering::Relaxed).wrapping_add(random.below(3) as u32), Ordering::Release);
    }
}

fn entry(world: &World, random: &mut Random) -> [u64; 8] {
    let at = match random.below(6) {
        0 => 0xffff_8880_0000_0000 | random.next() >> 20,
        1 => random.below(8192),
        2 => world.areas[World::area(random)].try_lock().ok().and_then(|a| Some(a.as_ref()?.at)).unwrap_or(0) as u64,
        _ => world.buffer as u64,
    };
    let len = random.below(BUFFER_BYTES as u64);
    let mut words = match random.below(14) {
        0 => nop(1),
        1 | 2 => delay(2, random.below(500_000)),
        3 => never(3),
        4 => cancel_any(4),
        5 => command(sq_null::cmd::RESULT, 5, random.below(8192).wrapping_sub(5000), 0),
        6 => transfer(22, 6, at, len),
        7 => transfer(23, 7, at, len),
        // The engines' transfers end by an interrupt, which a cancel may meet; the other drivers know this command, or refuse it.
        9 | 10 => command(0, 10, random.below(300_000), 0),
        8 => transfer([1, 2, 3, 4, 5][random.below(5) as usize], 8, at, random.below(20)),
        _ => echo(9, 9),
    };
    if random.below(2) == 0 {
        // A file, for the driver that takes them.
        words[0] = (words[0] & 0xffff_ffff) | u64::from(any_fd(world, random) as u32) << 32;
    }
    if random.below(4) == 0 {
        // ASYNC, FIXED_FILE, CQE_SKIP_SUCCESS, or what is none.
        words[0] ^= 1 << (8 + random.below(8));
    }
    if random.below(8) == 0 {
        // Not the address of a transfer: this process shall live.
        words[[0, 1, 3, 4, 5, 6, 7][random.below(7) as usize]] ^= 1 << random.below(64);
    }
    words
}

/// Any of the calls, on any descriptor, with an argument that is nearly right.
fn call(world: &World, random: &mut Random) {
    let slot = World::slot(random);
    let number = NUMBERS[random.below(8) as usize];
    let mut arg = [0u64; 64];
    argument(world, random, number, &mut arg);
    if random.below(4) == 0 {
        arg[random.below(8) as usize] ^= 1 << random.below(64);
    }
    let number = if random.below(32) == 0 { random.next() as u32 } else { number };
    if number == ioctl::SETUP {
        // Its sizes are drawn with care.
        return set_up(world, random);
    }
    let place = match random.below(24) {
        0 => 0xffff_8880_0000_0000,
        1 => world.areas[World::area(random)].try_lock().ok().and_then(|a| Some(a.as_ref()?.at)).unwrap_or(8),
        _ => ptr::from_mut(&mut arg).expose_provenance(),
    };
    let _ = raw::ioctl(world.fd(slot), number, place);
}

fn argument(world: &World, random: &mut Random, number: u32, arg: &mut [u64; 64]) {
    let size = |bytes: u64, high: u64| bytes | high << 32;
    match number {
        ioctl::QUERY => arg[0] = 144,
        ioctl::ENTER => {
            arg[0] = size(64, random.below(16) & u64::from(enter_flags::ALL) | 1);
            arg[1] = random.below(10);
            arg[2] = random.below(2_000_000);
            arg[3] = random.below(1_000_000);
            arg[4] = random.next();
        }
        ioctl::REGISTER => {
            let op = [2, 3, 4, 5, 6, 12, 48][random.below(7) as usize];
            let fds = 48;
            for (n, place) in arg[fds..].iter_mut().enumerate() {
                *place = u64::from(world.fd(n % 12) as u32) | u64::from(any_fd(world, random) as u32) << 32;
            }
            if op == 48 {
                arg[fds] = u64::MAX >> random.below(60);
            }
            arg[0] = size(40, op);
            arg[1] = if matches!(op, 3 | 5 | 12) { 0 } else { ptr::from_ref(&arg[fds]).expose_provenance() as u64 };
            let nr = if matches!(op, 4 | 48) { 1 } else { random.below(9) };
            arg[2] = size(if matches!(op, 3 | 5 | 12) { 0 } else { nr }, if op == 6 { random.below(4) } else { 0 });
        }
        ioctl::QUIESCE => (arg[0], arg[1]) = (32, random.below(3_000_000)),
        ioctl::CANCEL => {
            arg[0] = size(40, [0, 1, 4, 16, 17, 33][random.below(6) as usize]);
            (arg[1], arg[2]) = (random.below(10), 46);
        }
        ioctl::STATS => arg[0] = 104,
        _ => arg[..8].copy_from_slice(&entry(world, random)),
    }
}

fn command_by_uring(world: &World, random: &mut Random, uring: &mut Option<Uring>) {
    if uring.is_none() || random.below(16) == 0 {
        *uring = IoUring::builder().build(8).ok();
    }
    let Some(uring) = uring else { return };
    for _ in 0..=random.below(4) {
        let mut cmd = [0; 80];
        cmd.chunks_exact_mut(8)
            .zip(entry(world, random))
            .for_each(|(to, word)| to.copy_from_slice(&word.to_le_bytes()));
        let number = if random.below(16) == 0 { random.next() as u32 } else { ioctl::ISSUE };
        let entry = UringCmd80::new(Fd(any_fd(world, random)), number).cmd(cmd).build();
        let flags = if random.below(4) == 0 { squeue::Flags::ASYNC } else { squeue::Flags::empty() };
        // SAFETY: transfers go to a buffer that stays, to mappings of rings, or where the process has nothing.
        let _ = unsafe { uring.submission().push(&entry.flags(flags)) };
    }
    let _ = uring.submit();
    uring.completion().for_each(drop);
}

fn duplicate(world: &World, random: &mut Random) {
    // SAFETY: a new descriptor.
    let fd = unsafe { libc::dup(any_fd(world, random)) };
    world.put(World::slot(random), fd);
}

fn poll(world: &World, random: &mut Random) {
    let mut polls: [libc::pollfd; 3] = std::array::from_fn(|_| libc::pollfd {
        fd: any_fd(world, random),
        events: libc::POLLIN | libc::POLLOUT,
        revents: 0,
    });
    // SAFETY: as many as said.
    unsafe { libc::poll(polls.as_mut_ptr(), 3, random.below(2) as i32) };
}

/// What is shown of a file, and calls that it does not have.
fn look(world: &World, random: &mut Random) {
    let fd = any_fd(world, random);
    let mut byte = 0u8;
    match random.below(4) {
        0 | 1 => drop(fs::read_to_string(format!("/proc/self/fdinfo/{fd}"))),
        2 => {
            // SAFETY: one byte.
            unsafe { libc::read(fd, (&raw mut byte).cast(), 1) };
        }
        _ => {
            // SAFETY: any descriptor.
            unsafe { libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK) };
        }
    }
}

/// A child with all descriptors and none of the mappings. It ends by itself, or with the program.
fn fork(world: &World, random: &mut Random) {
    let mut own = Random::new(random.next());
    // SAFETY: the child uses its own copy of what the threads had, whose locks it only tries.
    if unsafe { libc::fork() } == 0 {
        for _ in 0..10 {
            let fd = any_fd(world, &mut own);
            let _ = match own.below(4) {
                0 => raw::ioctl(fd, ioctl::ENTER, 0),
                1 => raw::stats(fd).map(|_| 0),
                2 => raw::register(fd, register_op::ENABLE_RINGS, 0, 0),
                _ => raw::Map::new(fd, world.setup(own.below(12) as usize).user, 3).map(|_| 0),
            };
        }
        // SAFETY: leaves without running anybody's destructors.
        unsafe { libc::_exit(last() & 1) };
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the glue calls: the Rust half of glue/glue.h.

use core::ffi::c_void;
use core::ptr::NonNull;

use kmod_sq::call::{self, ring_call};
use kmod_sq::{Abilities, Geometry, Host, Look, Mode, Polled, RingRef};
use sq_driver::Bound;
use sq_driver::abi::Table;
use sq_uapi::{Errno, Mapped, Parts, SqRegion, SqSetup, SqStats};

use crate::host::{KernelHost, KernelRing, Turn};
use crate::{array, ffi};

/// `EPOLLIN | EPOLLRDNORM`, `EPOLLERR`, `EPOLLHUP`.
const READABLE: u32 = 0x41;
const ERROR: u32 = 0x8;
const HANGUP: u32 = 0x10;

/// QUERY.
///
/// # Safety
///
/// **table**; `arg` is `len` bytes, the caller's own.
#[unsafe(no_mangle)]
unsafe extern "C" fn sq_rust_query(table: *const Table, data: *const c_void, arg: *mut u8, len: usize) -> i32 {
    // SAFETY: the contract.
    let arg = unsafe { bytes(arg, len) };
    // SAFETY: the contract.
    let bound = unsafe { bind(table, data) };
    // SAFETY: no precondition.
    let features = KernelHost::ABILITIES.features | unsafe { ffi::sq_uring_features() };
    let home = Abilities { features, ..KernelHost::ABILITIES };
    let answer = bound.and_then(|bound| kmod_sq::query(&bound, &home, &call::read(arg)?));
    result(answer.map(|answer| call::write(&answer, arg)))
}

/// SETUP. On success `*ring` is a ring with one reference.
///
/// # Safety
///
/// **home** and **table**; `arg` is `len` bytes, the caller's own; `ring` is writable.
#[unsafe(no_mangle)]
unsafe extern "C" fn sq_ring_setup(
    home: NonNull<ffi::Home>,
    table: *const Table,
    data: *const c_void,
    arg: *mut u8,
    len: usize,
    ring: *mut *const KernelRing,
) -> i32 {
    // SAFETY: the contract.
    let arg = unsafe { bytes(arg, len) };
    // SAFETY: the contract.
    let bound = unsafe { bind(table, data) };
    // SAFETY: the contract.
    let made = bound.and_then(|bound| unsafe { setup(home, bound, arg) }).map(|made| {
        // SAFETY: the contract.
        unsafe { ring.write(made.as_ptr()) };
    });
    result(made)
}

/// A call on a ring.
///
/// # Safety
///
/// **reference**; `arg` is `len` bytes, the caller's own.
#[unsafe(no_mangle)]
unsafe extern "C" fn sq_ring_call(ring: &KernelRing, cmd: u32, arg: *mut u8, len: usize) -> i64 {
    // SAFETY: the contract.
    let arg = unsafe { bytes(arg, len) };
    ring_call(ring, cmd, arg).map_or_else(|errno| i64::from(errno.to_res()), i64::from)
}

/// The bare doorbell.
///
/// # Safety
///
/// **reference**.
#[unsafe(no_mangle)]
unsafe extern "C" fn sq_ring_doorbell(ring: &KernelRing) -> i64 {
    ring.doorbell().map_or_else(|errno| i64::from(errno.to_res()), i64::from)
}

/// What `poll` reports. The caller is on the wait queue already.
///
/// # Safety
///
/// **reference**.
#[unsafe(no_mangle)]
unsafe extern "C" fn sq_ring_poll(ring: &KernelRing) -> u32 {
    let ready = ring.poll();
    let events = [(ready.readable, READABLE), (ready.broken, ERROR), (ready.over, HANGUP)];
    events.iter().filter(|(is, _)| *is).fold(0, |mask, (_, event)| mask | event)
}

/// What fdinfo shows. Waits for nobody.
///
/// # Safety
///
/// **reference**; `look` is writable.
#[unsafe(no_mangle)]
unsafe extern "C" fn sq_ring_look(ring: &KernelRing, look: *mut Look) {
    // SAFETY: the contract.
    unsafe { look.write(ring.look()) };
}

/// The counters.
///
/// # Safety
///
/// **reference**; `stats` is writable.
#[unsafe(no_mangle)]
unsafe extern "C" fn sq_ring_stats(ring: &KernelRing, stats: *mut SqStats) {
    // SAFETY: the contract.
    unsafe { stats.write(ring.stats()) };
}

/// The alarm went off.
///
/// # Safety
///
/// **reference**.
#[unsafe(no_mangle)]
unsafe extern "C" fn sq_ring_alarm(ring: &KernelRing) {
    ring.alarm();
}

/// The drain that `sq_queue_drain` queued. Not `alive`: the ring's process is gone.
///
/// # Safety
///
/// **reference**.
#[unsafe(no_mangle)]
unsafe extern "C" fn sq_ring_drain(ring: &KernelRing, alive: bool) {
    if !alive {
        // What is in flight is canceled by the drain, which runs nothing.
        ring.shut();
    }
    ring.work();
}

/// A turn of the polling thread. Whether it takes another at once; else it sleeps until `sq_poll_wake`.
///
/// # Safety
///
/// **reference**; `turn` is the calling thread's.
#[unsafe(no_mangle)]
unsafe extern "C" fn sq_ring_poll_awake(ring: &KernelRing, turn: *mut ffi::Turn) -> bool {
    // SAFETY: the contract.
    let mut turn = unsafe { Turn::new(turn) };
    ring.poll_awake(&mut turn) == Polled::Again
}

/// A reference for the polling thread.
///
/// # Safety
///
/// **reference**.
#[unsafe(no_mangle)]
unsafe extern "C" fn sq_ring_keep(ring: &KernelRing) {
    core::mem::forget(ring.keep());
}

/// The file is gone.
///
/// # Safety
///
/// **reference**.
#[unsafe(no_mangle)]
unsafe extern "C" fn sq_ring_abandon(ring: &KernelRing) {
    ring.abandon();
}

/// Gives up a reference.
///
/// # Safety
///
/// **reference**: the ring's first one, or one from `sq_ring_keep` or `Host::work`; this takes it over.
#[unsafe(no_mangle)]
unsafe extern "C" fn sq_ring_put(ring: NonNull<KernelRing>) {
    // SAFETY: the contract.
    drop(unsafe { RingRef::from_raw(ring) });
}

/// Drops a ring that nobody refers to.
///
/// # Safety
///
/// Called once, where one may sleep, after `sq_queue_free`; no alarm runs any more.
#[unsafe(no_mangle)]
unsafe extern "C" fn sq_ring_destroy(ring: NonNull<KernelRing>) {
    // SAFETY: the contract; `setup` wrote the ring there.
    unsafe { ring.drop_in_place() };
    // SAFETY: from `array::place`, and empty now.
    unsafe { array::give_back(ring) };
}

/// # Safety
///
/// **home**.
unsafe fn setup(home: NonNull<ffi::Home>, bound: Bound, arg: &mut [u8]) -> Result<NonNull<KernelRing>, Errno> {
    let mut asked: SqSetup = call::read(arg)?;
    let geometry = Geometry::new(&asked)?;
    if geometry.mode == Mode::Poll {
        // SAFETY: **home**, once.
        Errno::from_res(unsafe { ffi::sq_poll_new(home.as_ptr(), geometry.cpu.map_or(-1, i64::from)) })?;
    }
    // SAFETY: **home**, once.
    let (parts, pool) = unsafe { pages(home, &geometry) }?;
    // SAFETY: the contract; the pages are `geometry`'s.
    let place = unsafe { place(home, bound, geometry, parts, pool) }?;
    geometry.report(&mut asked, KernelRing::features(&geometry, &bound));
    call::write(&asked, arg);
    Ok(place)
}

/// The regions, and the address of the pool if there is one. Not inlined, nor is [`place`]: getting memory may go deep into the kernel's
/// memory management, and a ring on its way into its place is large on the stack. There, only it and its arrays are still to be had.
///
/// # Safety
///
/// **home**; once, before anything can map them.
#[inline(never)]
unsafe fn pages(home: NonNull<ffi::Home>, geometry: &Geometry) -> Result<(Parts, usize), Errno> {
    let region = |which, region: SqRegion| {
        // SAFETY: the contract; each region is asked for once.
        let start = unsafe { ffi::sq_pages_new(home.as_ptr(), which, region.offset, region.size) };
        NonNull::new(start).ok_or(Errno::ENOMEM)
    };
    let parts = Parts {
        user: region(ffi::PAGES_USER, geometry.user)?,
        kernel: region(ffi::PAGES_KERNEL, geometry.kernel)?,
        offsets: geometry.offsets,
        sq_entries: geometry.sq_entries,
        cq_entries: geometry.cq_entries,
        sqe128: geometry.sqe128,
        cqe32: geometry.cqe32,
    };
    let pool = match geometry.pool.size {
        0 => 0,
        _ => region(ffi::PAGES_POOL, geometry.pool)?.as_ptr().expose_provenance(),
    };
    Ok((parts, pool))
}

/// The ring, in its place.
///
/// # Safety
///
/// **home** and **pages**: `parts` and `pool` are from [`pages`] with this `geometry`.
#[inline(never)]
unsafe fn place(
    home: NonNull<ffi::Home>,
    bound: Bound,
    geometry: Geometry,
    parts: Parts,
    pool: usize,
) -> Result<NonNull<KernelRing>, Errno> {
    // SAFETY: **pages**: they outlive the ring; a Geometry's regions hold its words and arrays. This side uses only KernelMem.
    let mem = unsafe { Mapped::new(parts) };
    let place = array::place::<KernelRing>()?;
    // SAFETY: the contract.
    let host = unsafe { KernelHost::new(home) };
    // SAFETY: **home**: the pages live as long as the home, which the ring's host keeps; the ring is put in its place and made a
    // reference next.
    match unsafe { KernelRing::new(host, mem, geometry, pool, bound) } {
        // SAFETY: memory for one ring.
        Ok(ring) => unsafe { place.write(ring) },
        Err(errno) => {
            // SAFETY: nothing was written there.
            unsafe { array::give_back(place) };
            return Err(errno);
        }
    }
    // SAFETY: it has been put there, and this is the first reference. It is the file's, who drops it by `sq_ring_put`.
    core::mem::forget(unsafe { RingRef::from_raw(place) });
    Ok(place)
}

/// # Safety
///
/// **table**: until every copy is gone.
pub(crate) unsafe fn bind(table: *const Table, data: *const c_void) -> Result<Bound, Errno> {
    // SAFETY: the contract. The lifetime ends with the driver's module, which the holder of the result pins.
    let table = unsafe { &*table };
    // SAFETY: the contract: `data` belongs to the table, and the header asks its functions to be callable from anywhere.
    unsafe { Bound::new(table, data) }
}

/// # Safety
///
/// `arg` is `len` bytes, initialised, that nobody else touches during 'a.
unsafe fn bytes<'a>(arg: *mut u8, len: usize) -> &'a mut [u8] {
    // SAFETY: the contract.
    unsafe { core::slice::from_raw_parts_mut(arg, len) }
}

fn result(result: Result<(), Errno>) -> i32 {
    result.map_or_else(Errno::to_res, |()| 0)
}

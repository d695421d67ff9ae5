// SPDX-License-Identifier: MIT OR Apache-2.0
//! What poll(2) and epoll(7) say of a ring's file, in each mode (BELL-4, LIFE-1).

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::thread;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use sq_uapi::consts::{setup_flags, sqe_flags};
use sq_uapi::{SqQuiesce, SqSetup, ioctl};

use crate::proc::until;
use crate::raw::{MODES, NULL, Raw, call, delay, echo, never, nop, shape};
use crate::{Check, Outcome, Why, joined, want};

pub(crate) const CHECKS: &[Check] = &[
    ("poll: readable once there is a completion", polled),
    ("poll: hung up when it is quiesced, an error when it is broken", polled_to_the_end),
    ("epoll: each batch of completions is an edge, reaped or not", || MODES.into_iter().try_for_each(edges)),
];

/// Long enough for anything that happens at all.
const SOON_MS: i32 = 5000;

fn ring(flags: u32) -> Result<Raw, Why> {
    Ok(Raw::new(NULL, shape(8, flags))?)
}

fn polled() -> Outcome {
    let mut ring = ring(0)?;
    let fd = ring.raw();
    let ready = move |ms| {
        let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd.
        unsafe { libc::poll(&raw mut poll, 1, ms) }
    };
    want!(ready(0), 0);
    let waits = thread::spawn(move || ready(-1));
    ring.push(delay(1, 50_000_000));
    ring.bell()?;
    want!(woken(waits)?, 1);
    want!(ring.reap(), [(1, 0)]);
    Ok(())
}

/// What a thread returned that sleeps in poll, without a timeout: at the end of one it would look once more, and find what nobody woke it for.
fn woken<T>(thread: thread::JoinHandle<T>) -> Result<T, Why> {
    until(10, "nobody wakes who polls", || thread.is_finished())?;
    Ok(joined(thread))
}

/// Who sleeps on a ring that has nothing more to tell is told so, whatever it asked for: quiesced, with nothing in flight (LIFE-1), or
/// broken (IDX-3). A polling thread is awake then, or asleep.
fn polled_to_the_end() -> Outcome {
    let events = |fd, events, ms| {
        let mut poll = libc::pollfd { fd, events, revents: 0 };
        // SAFETY: one pollfd.
        unsafe { libc::poll(&raw mut poll, 1, ms) };
        poll.revents
    };
    let asleep = SqSetup { sq_thread_idle_ms: 1, ..shape(8, setup_flags::SQPOLL) };
    for setup in MODES.map(|flags| shape(8, flags)).into_iter().chain([asleep]) {
        let mut ring = Raw::new(NULL, setup)?;
        let fd = ring.raw();
        ring.push(never(1));
        ring.bell()?;
        if setup.sq_thread_idle_ms == 1 {
            until(20, "the polling thread does not sleep", || ring.stats().sleeps > 0)?;
        }
        want!(events(fd, libc::POLLIN, 10), 0);
        let waits = thread::spawn(move || events(fd, 0, -1));
        let mut quiesce = SqQuiesce { size: 32, timeout_ns: 5_000_000_000, ..SqQuiesce::default() };
        call(fd, ioctl::QUIESCE, &mut quiesce)?;
        want!(woken(waits)?, libc::POLLHUP);
        // If the worker was late, the entry is not accepted any more.
        if !ring.reap().is_empty() {
            want!(ring.stats().completions, 1);
        }
        want!(events(fd, libc::POLLIN, 0), libc::POLLHUP);
    }
    let mut ring = ring(0)?;
    let fd = ring.raw();
    let waits = thread::spawn(move || events(fd, 0, -1));
    ring.push(echo(1, 1));
    ring.user.word(ring.setup.offsets.sq_tail).store(ring.setup.sq_entries + 1, Ordering::Release);
    want!(ring.bell(), Err(libc::EBADFD));
    want!(woken(waits)?, libc::POLLERR);
    want!(events(fd, libc::POLLIN, 0), libc::POLLERR);
    Ok(())
}

/// An epoll that hears of changes only.
struct Edges(OwnedFd);

impl Edges {
    fn of(ring: &Raw) -> Result<Self, Why> {
        let made = epoll::create(CreateFlags::CLOEXEC).and_then(|fd| {
            epoll::add(&fd, ring.fd.as_fd(), EventData::new_u64(0), EventFlags::IN | EventFlags::ET)?;
            Ok(Self(fd))
        });
        made.map_err(|error| error.raw_os_error().into())
    }

    /// The next edge, within so many milliseconds.
    fn next(&self, ms: i32) -> Result<EventFlags, Why> {
        let mut events = Vec::with_capacity(1);
        let timeout = Timespec { tv_sec: (ms / 1000).into(), tv_nsec: i64::from(ms % 1000) * 1_000_000 };
        epoll::wait(&self.0, rustix::buffer::spare_capacity(&mut events), Some(&timeout))
            .map_err(|error| error.raw_os_error())?;
        Ok(events.first().map_or(EventFlags::empty(), |event: &epoll::Event| event.flags))
    }

    /// There is one, and no other.
    fn one(&self) -> Outcome {
        want!(self.next(SOON_MS)?, EventFlags::IN);
        self.none()
    }

    fn none(&self) -> Outcome {
        want!(self.next(20)?, EventFlags::empty());
        Ok(())
    }
}

/// The completions that are there are never reaped until the end, so that an edge too many would be seen.
fn edges(flags: u32) -> Outcome {
    let mut ring = ring(flags)?;
    let edges = Edges::of(&ring)?;
    edges.none()?;
    for n in 1..=3 {
        ring.push(echo(n, n));
        ring.bell()?;
        edges.one()?;
    }
    // A doorbell is none, nor an entry that is consumed, nor a success that is skipped.
    ring.bell()?;
    edges.none()?;
    let mut skipped = nop(4);
    skipped[0] |= u64::from(sqe_flags::CQE_SKIP_SUCCESS) << 8;
    ring.push(skipped);
    ring.bell()?;
    until(20, "the success is not skipped", || ring.stats().skipped > 0)?;
    edges.none()?;
    // A completion from elsewhere.
    ring.push(delay(5, 50_000_000));
    ring.bell()?;
    edges.one()?;
    let ids: Vec<_> = ring.reap().into_iter().map(|(id, _)| id).collect();
    want!(ids, [1, 2, 3, 5]);
    edges.none()?;
    ring.push(echo(6, 6));
    ring.bell()?;
    edges.one()
}

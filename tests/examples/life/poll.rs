// SPDX-License-Identifier: MIT OR Apache-2.0
//! What poll(2) and epoll(7) say of a ring's file, in each mode (BELL-4, LIFE-1).

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use sq_conformance::guest::{sleeps_in, this_thread};
use sq_uapi::consts::{register_op, setup_flags, sqe_flags};
use sq_uapi::{SqQuiesce, SqSetup, ioctl};

use crate::proc::until;
use crate::raw::{MODES, NULL, Raw, address, call, delay, echo, never, nop, register, shape};
use crate::{Check, Outcome, Why, joined, want};

pub(crate) const CHECKS: &[Check] = &[
    ("poll: readable once there is a completion", polled),
    ("poll: hung up when it is quiesced, an error when it is broken", polled_to_the_end),
    ("epoll: two with EPOLLEXCLUSIVE are both told of the end", polled_by_two),
    // In a thread of its own: what io_uring has left to do at its end interrupts a wait of the thread that used it.
    ("io_uring: a poll says what poll says", || joined(thread::spawn(polled_by_io_uring))),
    ("epoll: each batch of completions is an edge, reaped or not", || MODES.into_iter().try_for_each(edges)),
    ("LIFE-2: a ring that is closed signals no eventfd", || MODES.into_iter().try_for_each(silent_once_closed)),
];

/// Long enough for anything that happens at all.
const SOON_MS: i32 = 5000;

fn ring(flags: u32) -> Result<Raw, Why> {
    Ok(Raw::new(NULL, shape(8, flags))?)
}

fn polled() -> Outcome {
    let mut ring = ring(0)?;
    want!(events(ring.raw(), libc::POLLIN, 0), 0);
    let waits = sleeper(ring.raw(), libc::POLLIN)?;
    ring.push(delay(1, 50_000_000));
    ring.bell()?;
    want!(woken(waits)?, libc::POLLIN);
    want!(ring.reap(), [(1, 0)]);
    Ok(())
}

/// What a thread returned that sleeps in poll, without a timeout: at the end of one it would look once more, and find what nobody woke it for.
fn woken<T>(thread: thread::JoinHandle<T>) -> Result<T, Why> {
    until(10, "nobody wakes who polls", || thread.is_finished())?;
    Ok(joined(thread))
}

/// What poll(2) says of these events, after `ms` milliseconds at most, or whenever there is something to say.
pub(crate) fn events(fd: RawFd, events: i16, ms: i32) -> i16 {
    let mut poll = libc::pollfd { fd, events, revents: 0 };
    // SAFETY: one pollfd.
    unsafe { libc::poll(&raw mut poll, 1, ms) };
    poll.revents
}

/// A thread that asks for these events, and sleeps in poll by now. It returns what it is told, which may be what it did not ask for.
fn sleeper(fd: RawFd, asked: i16) -> Result<thread::JoinHandle<i16>, Why> {
    asleep(&[libc::SYS_poll], move || events(fd, asked, -1))
}

/// A thread that does this, and sleeps in one of these calls by now.
fn asleep<T: Send + 'static>(
    calls: &[i64],
    does: impl FnOnce() -> T + Send + 'static,
) -> Result<thread::JoinHandle<T>, Why> {
    let (tell, told) = mpsc::channel();
    let thread = thread::spawn(move || {
        let _ = tell.send(this_thread());
        does()
    });
    let id = told.recv().map_err(|_| "no thread".to_owned())?;
    until(20, "who polls does not sleep", || sleeps_in(id).is_some_and(|call| calls.contains(&call)))?;
    Ok(thread)
}

/// Who sleeps on a ring that has nothing more to tell is told so, whatever it asked for: quiesced (LIFE-1), or broken (IDX-3). With
/// nothing in flight there is no completion that would wake it. A polling thread is awake then, or asleep.
fn polled_to_the_end() -> Outcome {
    let asleep = SqSetup { sq_thread_idle_ms: 1, ..shape(8, setup_flags::SQPOLL) };
    for setup in MODES.map(|flags| shape(8, flags)).into_iter().chain([asleep]) {
        let used = || -> Result<Raw, Why> {
            let mut ring = Raw::new(NULL, setup)?;
            ring.push(echo(1, 1));
            ring.bell()?;
            want!(ring.wait(1, 20_000), Ok(0));
            want!(ring.reap(), [(1, 1)]);
            if setup.sq_thread_idle_ms == 1 {
                until(20, "the polling thread does not sleep", || ring.stats().sleeps > 0)?;
            }
            want!(events(ring.raw(), libc::POLLIN, 10), 0);
            Ok(ring)
        };
        for in_flight in [false, true] {
            let mut ring = used()?;
            if in_flight {
                ring.push(never(2));
                ring.bell()?;
                until(20, "the entry is not accepted", || ring.stats().inflight == 1)?;
            }
            let waits = sleeper(ring.raw(), 0)?;
            let mut quiesce = SqQuiesce { size: 32, timeout_ns: 5_000_000_000, ..SqQuiesce::default() };
            call(ring.raw(), ioctl::QUIESCE, &mut quiesce)?;
            want!((setup.flags, in_flight, woken(waits)?), (setup.flags, in_flight, libc::POLLHUP));
            let canceled = [(2, -libc::ECANCELED)];
            want!(ring.reap(), canceled[..usize::from(in_flight)]);
            want!(events(ring.raw(), libc::POLLIN, 0), libc::POLLHUP);
        }
        let ring = used()?;
        let waits = sleeper(ring.raw(), 0)?;
        let too_far = ring.tail.wrapping_add(ring.setup.sq_entries + 1);
        ring.user.word(ring.setup.offsets.sq_tail).store(too_far, Ordering::Release);
        let rung = ring.bell();
        if setup.flags == 0 {
            want!(rung, Err(libc::EBADFD));
        }
        want!((setup.flags, woken(waits)?), (setup.flags, libc::POLLERR));
        want!(events(ring.raw(), libc::POLLIN, 0), libc::POLLERR);
    }
    Ok(())
}

/// Of two that share a file by EPOLLEXCLUSIVE the kernel may wake one alone. Of a ring's end, which comes once, both are told.
fn polled_by_two() -> Outcome {
    let ring = ring(0)?;
    let mut threads = Vec::new();
    for _ in 0..2 {
        let set = Epoll::of(&ring, EventFlags::IN | EventFlags::EXCLUSIVE)?;
        let calls = [libc::SYS_epoll_wait, libc::SYS_epoll_pwait, libc::SYS_epoll_pwait2];
        threads.push(asleep(&calls, move || set.wait(None))?);
    }
    let mut quiesce = SqQuiesce { size: 32, timeout_ns: 5_000_000_000, ..SqQuiesce::default() };
    call(ring.raw(), ioctl::QUIESCE, &mut quiesce)?;
    for thread in threads {
        want!(woken(thread)??, EventFlags::HUP);
    }
    Ok(())
}

/// Others take what wakes them for the answer.
fn polled_by_io_uring() -> Outcome {
    let mut others = io_uring::IoUring::new(2).map_err(|error| error.to_string())?;
    let mut ring = ring(0)?;
    for (ends, expected) in [(false, libc::POLLIN), (true, libc::POLLHUP)] {
        let fd = io_uring::types::Fd(ring.raw());
        let poll = io_uring::opcode::PollAdd::new(fd, libc::POLLIN as u32).build();
        // SAFETY: it points nowhere.
        unsafe { others.submission().push(&poll) }.map_err(|error| error.to_string())?;
        others.submit().map_err(|error| error.to_string())?;
        if ends {
            let mut quiesce = SqQuiesce { size: 32, timeout_ns: 5_000_000_000, ..SqQuiesce::default() };
            call(ring.raw(), ioctl::QUIESCE, &mut quiesce)?;
        } else {
            ring.push(delay(1, 50_000_000));
            ring.bell()?;
        }
        others.submit_and_wait(1).map_err(|error| error.to_string())?;
        let told: Vec<i32> = others.completion().map(|done| done.result()).collect();
        want!((ends, told), (ends, vec![i32::from(expected)]));
        want!(ring.reap().len(), usize::from(!ends));
    }
    Ok(())
}

/// What is in flight ends when its ring is closed, and is nobody's event. The eventfd may be another ring's as well.
fn silent_once_closed(flags: u32) -> Outcome {
    let made = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
    let event = made.map_err(|error| error.raw_os_error())?;
    let with_event = || -> Result<Raw, Why> {
        let ring = ring(flags)?;
        let fd = event.as_raw_fd();
        register(ring.raw(), register_op::EVENTFD, address(&fd), 1)?;
        Ok(ring)
    };
    let (mut closed, mut other) = (with_event()?, with_event()?);
    closed.push(never(1));
    closed.push(delay(2, 10_000_000_000));
    closed.bell()?;
    until(20, "the requests do not begin", || closed.stats().inflight == 2)?;
    drop(closed);
    want!(events(event.as_raw_fd(), libc::POLLIN, 400), 0);
    other.push(echo(1, 1));
    other.bell()?;
    want!(events(event.as_raw_fd(), libc::POLLIN, SOON_MS), libc::POLLIN);
    want!(other.reap(), [(1, 1)]);
    Ok(())
}

/// An epoll set with one ring.
struct Epoll(OwnedFd);

impl Epoll {
    fn of(ring: &Raw, events: EventFlags) -> Result<Self, Why> {
        let made = epoll::create(CreateFlags::CLOEXEC).and_then(|fd| {
            epoll::add(&fd, ring.fd.as_fd(), EventData::new_u64(0), events)?;
            Ok(Self(fd))
        });
        made.map_err(|error| error.raw_os_error().into())
    }

    /// The next edge, within so many milliseconds.
    fn next(&self, ms: i32) -> Result<EventFlags, Why> {
        let timeout = Timespec { tv_sec: (ms / 1000).into(), tv_nsec: i64::from(ms % 1000) * 1_000_000 };
        self.wait(Some(&timeout))
    }

    fn wait(&self, timeout: Option<&Timespec>) -> Result<EventFlags, Why> {
        let mut events = Vec::with_capacity(1);
        epoll::wait(&self.0, rustix::buffer::spare_capacity(&mut events), timeout)
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
    let edges = Epoll::of(&ring, EventFlags::IN | EventFlags::ET)?;
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

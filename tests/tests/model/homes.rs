// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where programs run: behind the library, on either backend, and over a checker's memory and surroundings.

use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use kmod_sq::{Geometry, RingRef};
use liburing_shm::ring::{Consumer, Producer};
use liburing_shm::{Backend, CancelFlags, CompletionQueue, Error, RawEntry, Ring, SubmissionQueue, Submitter, Wait};
use sq_conformance::checkers::hostile_host::{HostileHost, ring_over};
use sq_conformance::checkers::interleave::with_others;
use sq_driver::Driver;
use sq_uapi::consts::{enter_flags, setup_flags};
use sq_uapi::{Cqe, Errno, KernelMem, SqCancel, SqEnter, SqQuiesce, SqSetup, SqStats, Sqe, UserMem};

use super::plan::{Mode, Shape};
use super::transfers::{Hands, Place, Transfer};

/// Long enough for anything that comes at all: only what is lost takes as long.
const LOST: Duration = Duration::from_secs(20);

/// A ring, and all that users do with one.
pub(crate) trait Home {
    /// Publishes batches, each whole or not at all, and rings for each; several by several threads.
    fn submit(&mut self, batches: &[Vec<Sqe>]) -> Vec<Sent>;
    /// Waits for completions, and gives up only if they are lost.
    fn wait(&mut self, completions: u32) -> Result<(), Errno>;
    fn reap(&mut self, most: usize) -> Vec<Cqe>;
    fn cancel(&mut self, flags: u32, user_data: u64, opcode: u8) -> Result<u32, Errno>;
    fn quiesce(&mut self) -> Result<(), Errno>;
    fn stats(&mut self) -> SqStats;
    /// Has a transfer's memory ready.
    fn hand_over(&mut self, _: Transfer, _: u64, _: &mut Sqe) {
        unreachable!("a home without hands")
    }
    /// What is in a transfer's memory.
    fn place(&self, _: Transfer, _: u64) -> Place {
        unreachable!("a home without hands")
    }
    /// CQ-5, of slots that only the kernel side sees. From outside it cannot be told.
    fn balanced(&self) -> bool {
        true
    }
}

/// What became of a batch.
pub(crate) struct Sent {
    pub(crate) published: bool,
    /// By the doorbell, if it had to be rung.
    pub(crate) said: Result<(), Errno>,
}

/// The library's ring.
pub(crate) struct Library {
    submitter: Submitter,
    sq: Mutex<SubmissionQueue>,
    cq: CompletionQueue,
    /// Last, so that the ring goes before its bytes: with the pool.
    hands: Option<Hands>,
}

impl Library {
    pub(crate) fn new(backend: &Backend, shape: Shape) -> Self {
        Self::build(backend, shape, (0, 0))
    }

    /// With memory for transfers.
    pub(crate) fn with_hands(backend: &Backend, shape: Shape) -> Self {
        let mut library = Self::build(backend, shape, Hands::POOL);
        library.hands = library.submitter.pool().map(Hands::new);
        library
    }

    fn build(backend: &Backend, shape: Shape, (count, bytes): (u16, u32)) -> Self {
        let builder = Ring::builder(shape.sq_entries).cq_entries(shape.cq_entries).max_inflight(shape.max_inflight);
        let builder = builder.pool(count, bytes);
        let builder = match shape.mode {
            Mode::Caller => builder,
            Mode::Worker => builder.worker(),
            Mode::Poll => builder.poll(Duration::from_millis(1)),
        };
        let (submitter, sq, cq) = builder.build(backend).expect("a ring of this shape").split();
        Self { submitter, sq: Mutex::new(sq), cq, hands: None }
    }
}

fn errno(error: &Error) -> Errno {
    error.errno().expect("an error with a number")
}

/// Under the lock, as threads that share a queue do. Not published if there is no room for all.
fn publish(sq: &Mutex<SubmissionQueue>, batch: &[Sqe]) -> Sent {
    let mut sq = sq.lock().unwrap();
    if (sq.room() as usize) < batch.len() {
        return Sent { published: false, said: Ok(()) };
    }
    for sqe in batch {
        // SAFETY: the null driver uses no address; those for the ram driver are `Hands`', which goes after the ring.
        unsafe { sq.push_raw(RawEntry::of(*sqe)) }.expect("room was looked for");
    }
    Sent { published: true, said: sq.submit().map(|_| ()).map_err(|error| errno(&error)) }
}

impl Home for Library {
    fn submit(&mut self, batches: &[Vec<Sqe>]) -> Vec<Sent> {
        let (sq, submitter) = (&self.sq, &self.submitter);
        if let [batch] = batches {
            return vec![publish(sq, batch)];
        }
        std::thread::scope(|scope| {
            let threads: Vec<_> = batches
                .iter()
                .map(|batch| {
                    scope.spawn(move || {
                        let Sent { published, said } = publish(sq, batch);
                        // Once more, beside the other thread's.
                        let again = submitter.wait(&Wait::new(0)).map(|_| ()).map_err(|error| errno(&error));
                        Sent { published, said: said.and(again) }
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    fn wait(&mut self, completions: u32) -> Result<(), Errno> {
        let start = Instant::now();
        let waited = self.submitter.wait(&Wait::new(completions).timeout(LOST));
        // What is there when the time is up counts, but nobody woke this waiter.
        let slept = if start.elapsed() < LOST { Ok(()) } else { Err(Errno::ETIME) };
        waited.map_err(|error| errno(&error)).and(slept)
    }

    fn reap(&mut self, most: usize) -> Vec<Cqe> {
        let mut reap = self.cq.reap();
        reap.by_ref().take(most).map(|done| *done.as_cqe()).collect()
    }

    fn cancel(&mut self, flags: u32, user_data: u64, opcode: u8) -> Result<u32, Errno> {
        let flags = CancelFlags::from_bits(flags).expect("known flags");
        self.submitter.cancel(flags, user_data, opcode).map_err(|error| errno(&error))
    }

    fn quiesce(&mut self) -> Result<(), Errno> {
        self.submitter.quiesce(LOST).map_err(|error| errno(&error))
    }

    fn stats(&mut self) -> SqStats {
        self.submitter.stats().expect("stats")
    }

    fn hand_over(&mut self, transfer: Transfer, serial: u64, sqe: &mut Sqe) {
        self.hands.as_mut().expect("hands").hand_over(transfer, serial, sqe);
    }

    fn place(&self, transfer: Transfer, serial: u64) -> Place {
        self.hands.as_ref().expect("hands").place(transfer, serial)
    }
}

/// A ring over a checker's memory and surroundings: one thread, and time passes when all sleep. `M` and the driver may have bugs
/// planted in them.
pub(crate) struct Checked<M: KernelMem + UserMem + Send + Sync + 'static> {
    ring: RingRef<HostileHost<M>>,
    mem: M,
    producer: Producer<M>,
    consumer: Consumer,
}

impl<M: KernelMem + UserMem + Clone + Send + Sync + 'static> Checked<M> {
    pub(crate) fn new<D: Driver>(shape: Shape, driver: &'static D, mem: M) -> Self {
        let setup = SqSetup {
            flags: match shape.mode {
                Mode::Caller => 0,
                Mode::Worker => setup_flags::WORKER,
                Mode::Poll => setup_flags::SQPOLL,
            },
            sq_thread_idle_ms: u32::from(shape.mode == Mode::Poll),
            sq_entries: shape.sq_entries,
            cq_entries: shape.cq_entries,
            max_inflight: shape.max_inflight,
            ..SqSetup::default()
        };
        let geometry = Geometry::new(&setup).expect("a ring of this shape");
        // SAFETY: there is no pool.
        let ring = unsafe { ring_over(geometry, mem.clone(), 0, driver) }.expect("a ring of this shape");
        // The reference is to find what sleeps, not the surroundings.
        ring.host().lawless.store(true, SeqCst);
        Self { ring, producer: Producer::new(mem.clone()), mem, consumer: Consumer::new() }
    }

    /// No waiter is ever woken.
    pub(crate) fn deaf(self) -> Self {
        self.ring.host().deaf.store(true, SeqCst);
        self
    }

    /// While `call` sleeps, the worker and the clock have their turns.
    fn with_time<R>(&self, call: impl FnOnce() -> R) -> R {
        let ring = self.ring.clone();
        with_others(Rc::new(move |why| HostileHost::time_passes(&ring, why)), call)
    }
}

impl<M: KernelMem + UserMem + Clone + Send + Sync + 'static> Home for Checked<M> {
    fn submit(&mut self, batches: &[Vec<Sqe>]) -> Vec<Sent> {
        let mut submit = |batch: &Vec<Sqe>| {
            if (self.producer.room() as usize) < batch.len() {
                return Sent { published: false, said: Ok(()) };
            }
            batch.iter().for_each(|sqe| self.producer.push(sqe.to_words()).expect("room"));
            self.producer.publish();
            match self.ring.doorbell() {
                Ok(_) | Err(Errno::EBUSY) => Sent { published: true, said: Ok(()) },
                Err(errno) => Sent { published: true, said: Err(errno) },
            }
        };
        batches.iter().map(&mut submit).collect()
    }

    fn wait(&mut self, completions: u32) -> Result<(), Errno> {
        let mut enter = SqEnter {
            min_complete: completions,
            flags: enter_flags::TIMEOUT,
            timeout_ns: LOST.as_nanos() as u64,
            ..SqEnter::default()
        };
        let start = self.ring.host().clock_ns();
        self.with_time(|| self.ring.enter(&mut enter))?;
        // As above.
        let slept = self.ring.host().clock_ns() - start;
        if slept < enter.timeout_ns { Errno::from_res(enter.wait_result).map(|_| ()) } else { Err(Errno::ETIME) }
    }

    fn reap(&mut self, most: usize) -> Vec<Cqe> {
        self.consumer.ready(&self.mem);
        let words: Vec<[u64; 4]> = (0..most).map_while(|_| self.consumer.pop(&self.mem)).collect();
        if self.consumer.release(&self.mem) {
            // As the library: a doorbell that finds the ring still blocked is no error.
            let _ = self.ring.doorbell();
        }
        words.into_iter().map(|[a, b, ..]| Cqe::from_words([a, b])).collect()
    }

    fn cancel(&mut self, flags: u32, user_data: u64, opcode: u8) -> Result<u32, Errno> {
        self.ring.cancel(&SqCancel { flags, user_data, opcode: opcode.into(), ..SqCancel::default() })
    }

    fn quiesce(&mut self) -> Result<(), Errno> {
        let quiesce = SqQuiesce { timeout_ns: LOST.as_nanos() as u64, ..SqQuiesce::default() };
        self.with_time(|| self.ring.quiesce(&quiesce))
    }

    fn stats(&mut self) -> SqStats {
        self.ring.stats()
    }

    fn balanced(&self) -> bool {
        self.ring.balanced()
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs a [`Program`] over hostile memory: every step by itself, or in the middle of another.
//!
//! After each step, also one that runs between two loads of another, the slots add up (CQ-5) and no more is consumed than was published
//! (IDX-3); after each step of the first thread every completion is an entry's (SUB-2), entries came as they were pushed, if nobody
//! meddled (SNAP-1, SUB-1), and a ring is broken if, and only if, an index left its window (IDX-3). At the end nothing is in flight
//! (LIFE-1), and what poll said of the end has stayed true.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::atomic::Ordering::SeqCst;

use kmod_sq::{Geometry, Mode, Ready, Ring, RingRef};
use liburing_shm::ring::{Consumer, Producer};
use sq_driver::Bound;
use sq_null::Null;
use sq_uapi::consts::register_op;
use sq_uapi::structs::Argument;
use sq_uapi::{Errno, KernelWord, SqCancel, SqEnter, SqQuiesce, SqRegister, UserMem, ioctl};

use super::calls;
use super::hostile::{Access, HostileMem, Record, UserSide};
use super::hostile_host::{HostileHost, ring_bound, ring_over, rings_alive};
use super::interleave::{Why, with_others};
use super::judge::Judge;
use super::probe::{self, Probe};
use super::program::{Attack, Driver, Program, REGISTER, Shape, Step, matching};
use super::vulnerable;

/// How many calls are in the middle of each other at most.
const DEPTH: u32 = 3;

/// Numbers that look random.
#[derive(Clone, Debug)]
pub struct Mixer(pub u64);

impl Mixer {
    /// The next one.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Bytes from a seed.
#[must_use]
pub fn bytes_of(seed: u64, len: usize) -> Vec<u8> {
    let mut mixer = Mixer(seed);
    (0..len).map(|_| mixer.draw() as u8).collect()
}

/// Flips bits of entries, moves indices.
fn foe(attack: Attack) -> impl FnMut(Access, &mut UserSide) + Send {
    let mut mixer = Mixer(attack.seed);
    let rate = u64::from(attack.rate());
    move |access, user| {
        let draw = if rate == 0 { u64::MAX } else { mixer.draw() };
        if (draw & 0xff) >= rate {
            return;
        }
        let small = (draw >> 40) as u32 & 3;
        match draw >> 8 & 0x3f {
            0 => user.sq_tail = draw as u32,
            1 => user.cq_head = draw as u32,
            2..=5 => user.sq_tail = user.sq_tail.wrapping_add(small),
            6 | 7 => user.cq_head = user.cq_head.wrapping_add(small),
            8 => user.cq_head = user.cq_head.wrapping_sub(small),
            9 | 10 => user.cq_flags = draw as u32,
            _ => {
                // Preferably the entry that is being read.
                let slot = if let Access::Sqe(index, _) = access { index as usize } else { (draw >> 32) as usize };
                let slot = slot % user.sqes.len();
                user.sqes[slot][(draw >> 16) as usize & 15] ^= 1 << (draw >> 24 & 63);
            }
        }
    }
}

/// A ring and its users.
struct World {
    /// The driver takes files.
    probe: bool,
    sq_entries: u32,
    /// The open file.
    ring: RefCell<Option<RingRef<HostileHost>>>,
    /// What the worker and the clock have, also when the file is closed.
    background: RefCell<Option<RingRef<HostileHost>>>,
    mem: HostileMem,
    producer: RefCell<Producer<HostileMem>>,
    consumer: RefCell<Consumer>,
    serial: Cell<u64>,
    /// Entries that were pushed and not copied yet, as long as nobody meddles.
    pushed: RefCell<VecDeque<[u64; 8]>>,
    /// Somebody writes to the ring who does not keep the protocol: entries are not what was pushed.
    meddled: Cell<bool>,
    /// Opcodes that were not given up.
    allowed: Cell<u64>,
    /// What poll has said.
    polled: Cell<Ready>,
    judge: RefCell<Judge>,
    others: RefCell<VecDeque<(u8, Step)>>,
    depth: Cell<u32>,
    /// Turns that others had, in the middle of calls.
    turns: Cell<u64>,
    ran: Cell<Ran>,
}

/// What came of a program, for those who ask whether programs are worth running.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ran {
    /// Entries that the kernel side copied.
    pub accepted: usize,
    /// Completions.
    pub completed: usize,
    /// Steps in the middle of another.
    pub nested: usize,
    /// The ring broke.
    pub broken: bool,
}

/// Runs a program.
///
/// # Panics
///
/// If a rule is broken.
pub fn run(program: Program) -> Ran {
    run_with(program, Flaw::None)
}

/// A bug to plant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// None.
    None,
    /// The null driver sees its entries by a second look at their slots: [`vulnerable`].
    SecondLook,
}

impl Flaw {
    /// What `SQ_VULNERABLE` asks for: to see what a fuzz target does then.
    #[must_use]
    pub fn asked_for() -> Self {
        if std::env::var_os("SQ_VULNERABLE").is_some() { Self::SecondLook } else { Self::None }
    }
}

/// As [`run`], of a kernel side with a flaw.
///
/// # Panics
///
/// If a rule is broken.
pub fn run_with(program: Program, flaw: Flaw) -> Ran {
    let Program { shape, attack, steps, others } = program;
    let Some(world) = World::new(shape, attack, others, flaw) else { return Ran::default() };
    let alive = rings_alive() - 1;
    let world = Rc::new(world);
    let meanwhile = Rc::clone(&world);
    with_others(Rc::new(move |why| meanwhile.others_run(why)), || {
        for step in &steps {
            world.step(step);
            world.check();
        }
        world.end();
    });
    // The closure above is gone, and with it all that the world is kept by.
    vulnerable::look_again(None);
    assert_eq!(rings_alive(), alive, "LIFE-2: a ring that nobody has is not freed");
    let World { mem, judge, ran, .. } = Rc::into_inner(world).expect("nobody else has the world");
    judge.into_inner().close(mem.record().parked);
    ran.get()
}

impl World {
    /// `None` if there is no such ring.
    fn new(shape: Shape, attack: Attack, others: Vec<(u8, Step)>, flaw: Flaw) -> Option<Self> {
        let setup = shape.setup();
        let geometry = Geometry::new(&setup).ok()?;
        let mem = HostileMem::new(geometry.sq_entries, geometry.cq_entries, Box::new(foe(attack)));
        let bytes = usize::try_from(geometry.pool.size).unwrap();
        // It outlives the ring, which is freed before `run` returns, and is there for every run of this thread.
        thread_local!(static POOL: RefCell<Vec<u64>> = RefCell::new(vec![0; 1024]));
        let pool = POOL.with_borrow_mut(|pool| pool.as_mut_ptr().expose_provenance());
        assert!(bytes <= 8 * 1024);
        probe::pool_is(pool as u64, bytes as u64);
        let probe = shape.driver() != Driver::Null;
        if probe {
            mem.may_park();
        }
        let ring = if shape.driver() == Driver::Batches {
            // SAFETY: the pool is as long as the geometry says, and stays.
            unsafe { ring_over(geometry, mem.clone(), pool, &Probe::<true>) }
        } else if probe {
            // SAFETY: the table expects a Probe, which has no data to speak of.
            let bound = unsafe { Bound::new(probe::IN_C, std::ptr::from_ref(&Probe::<false>).cast()) };
            // SAFETY: as above.
            bound.and_then(|bound| unsafe { ring_bound(geometry, mem.clone(), pool, bound) })
        } else if flaw == Flaw::SecondLook {
            let slots = mem.clone();
            vulnerable::look_again(Some(Rc::new(move || slots.peek())));
            // SAFETY: the table expects a Null, which has no data to speak of.
            let bound = unsafe { Bound::new(vulnerable::table::<Null>(), std::ptr::from_ref(&Null).cast()) };
            // SAFETY: as above.
            bound.and_then(|bound| unsafe { ring_bound(geometry, mem.clone(), pool, bound) })
        } else {
            // SAFETY: as above.
            unsafe { ring_over(geometry, mem.clone(), pool, &Null) }
        };
        let ring = ring.unwrap();
        let attacked = attack.rate() > 0;
        ring.host().lawless.store(attacked, SeqCst);
        ring.host().traces.store(attack.traces(), SeqCst);
        Some(Self {
            probe,
            sq_entries: geometry.sq_entries,
            background: RefCell::new(Some(ring.clone())),
            ring: RefCell::new(Some(ring)),
            producer: RefCell::new(Producer::new(mem.clone())),
            mem,
            consumer: RefCell::new(Consumer::new()),
            serial: Cell::new(1),
            pushed: RefCell::default(),
            meddled: Cell::new(attacked),
            allowed: Cell::new(u64::MAX),
            polled: Cell::default(),
            judge: RefCell::new(Judge::new(probe, bytes > 0, shape.wide_cqe())),
            others: RefCell::new(others.into()),
            depth: Cell::new(0),
            turns: Cell::new(0),
            ran: Cell::default(),
        })
    }

    /// The ring, as a call on its file has it: kept until the call returns.
    fn ring(&self) -> Option<RingRef<HostileHost>> {
        self.ring.borrow().clone()
    }

    /// Another thread's turn, in the middle of what this one does. If this one sleeps, whoever is next wakes up at once: a thread, the
    /// worker, the clock.
    fn others_run(&self, why: Why) -> bool {
        if self.depth.get() >= DEPTH {
            return false;
        }
        let due = {
            let mut others = self.others.borrow_mut();
            match others.front_mut() {
                Some((wait, _)) if *wait > 0 && why == Why::Point => {
                    *wait -= 1;
                    return false;
                }
                Some(_) => others.pop_front(),
                None if why == Why::Point => return false,
                None => None,
            }
        };
        self.depth.set(self.depth.get() + 1);
        let background = self.background.borrow().clone();
        let did = match (due, background) {
            (Some((_, step)), _) => {
                self.count(|ran| ran.nested += 1);
                self.step(&step);
                true
            }
            (None, Some(ring)) => HostileHost::run_worker(&ring) || HostileHost::ring_alarm(&ring),
            (None, None) => false,
        };
        self.depth.set(self.depth.get() - 1);
        self.turns.set(self.turns.get() + u64::from(did));
        did
    }

    fn count(&self, how: impl FnOnce(&mut Ran)) {
        let mut ran = self.ran.get();
        how(&mut ran);
        self.ran.set(ran);
    }

    fn publish(&self) {
        self.producer.borrow_mut().publish();
    }

    /// Somebody moves indices who does not keep the protocol: what is published was not pushed, and nobody rings for it.
    fn lawless(&self) {
        self.meddled.set(true);
        if let Some(ring) = self.ring() {
            ring.host().lawless.store(true, SeqCst);
        }
    }

    fn step(&self, step: &Step) {
        // Close has the last reference to itself.
        match self.ring().filter(|_| !matches!(step, Step::Close)) {
            Some(ring) => HostileHost::as_process(&ring, || self.act(step)),
            None => self.act(step),
        }
        let published = self.mem.published();
        assert!(published.holds(), "IDX-3, after {step:?}: {published:?}");
        if let Some(ring) = self.ring() {
            assert!(ring.balanced(), "CQ-5, after {step:?}");
            let allowed = ring.allowed();
            assert_eq!(allowed & !self.allowed.replace(allowed), 0, "SEC-3: an opcode comes back, after {step:?}");
        }
    }

    /// A call that says how many entries it has consumed: no more than went meanwhile, and no less if nobody else could consume any. If
    /// it fails, it has consumed none.
    fn consumes(&self, ring: &Ring<HostileHost>, call: impl FnOnce() -> u32) {
        let (before, turns) = (self.mem.published().consumed(), self.turns.get());
        let said = u64::from(call());
        let went = self.mem.published().consumed() - before;
        let by_itself = ring.geometry().mode == Mode::Caller && self.turns.get() == turns;
        assert!(!by_itself || said == went, "SUB-1: {went} entries went, and the call that took them says {said}");
        assert!(said <= went, "SUB-1: {went} entries went, and a call says that it consumed {said}");
        let most = 2 * u64::from(self.sq_entries);
        assert!(said <= most, "BELL-3: {said} entries in one call");
    }

    fn act(&self, step: &Step) {
        if let Step::Turn { entry, times } = step {
            let push = Step::Push { entry: entry.clone(), times: *times };
            return [push, Step::Submit, Step::Reap(63)].iter().for_each(|step| self.act(step));
        }
        let user =
            matches!(step, Step::Push { .. } | Step::Publish | Step::Complete | Step::Write { .. } | Step::Flip { .. });
        if user {
            return self.act_alone(step);
        }
        // The worker and the clock go on when the file is closed.
        let goes_on = matches!(step, Step::Background | Step::Sleep(_));
        let ring = if goes_on { self.background.borrow().clone() } else { self.ring() };
        let Some(ring) = ring else { return };
        match step {
            Step::Submit => {
                self.publish();
                self.consumes(&ring, || ring.doorbell().unwrap_or(0));
            }
            Step::Enter { flags, min_complete, timeout_ns, min_wait_ns } => {
                self.publish();
                let mut enter = SqEnter {
                    flags: u32::from(flags % 32),
                    min_complete: u32::from(min_complete % 8),
                    timeout_ns: (*timeout_ns).into(),
                    min_wait_ns: (*min_wait_ns).into(),
                    ..SqEnter::default()
                };
                // What the flags do not refer to must be 0: mostly it is.
                if *timeout_ns < 250 {
                    enter.timeout_ns *= u64::from(flags & 1);
                    enter.min_wait_ns *= u64::from(flags >> 3 & 1);
                }
                let mut entered = Ok(0);
                self.consumes(&ring, || {
                    entered = ring.enter(&mut enter);
                    enter.consumed
                });
                let known = [0, Errno::ETIME.to_res(), Errno::EINTR.to_res(), Errno::EBUSY.to_res()];
                let ended = [Errno::EBADFD.to_res(), Errno::ESHUTDOWN.to_res()];
                assert!(
                    known.contains(&enter.wait_result) || ended.contains(&enter.wait_result),
                    "{entered:?} {enter:?}"
                );
            }
            Step::Reap(most) => {
                let bell = {
                    let mut consumer = self.consumer.borrow_mut();
                    consumer.ready(&self.mem);
                    let _ = (0..most % 64).map_while(|_| consumer.pop(&self.mem)).count();
                    consumer.release(&self.mem)
                };
                if bell {
                    let _ = ring.doorbell();
                }
            }
            Step::Cancel { back, flags, opcode } => {
                let (flags, user_data, opcode) = matching(self.serial.get(), *back, *flags, *opcode);
                let _ = ring.cancel(&SqCancel { user_data, flags, opcode, ..SqCancel::default() });
            }
            Step::Sleep(ns) => HostileHost::sleep(&ring, (*ns).into()),
            Step::Background => {
                HostileHost::run_worker(&ring);
            }
            Step::PollFile => {
                // Before, since another one may have its answer meanwhile.
                let said = self.polled.get();
                let ready = ring.poll();
                assert!(!ready.over || ring.stats().inflight == 0, "LIFE-1: EPOLLHUP, and more may come");
                assert!(ready.over >= said.over, "LIFE-1: EPOLLHUP was said, and is taken back");
                assert!(ready.broken >= said.broken, "IDX-3: EPOLLERR was said, and is taken back");
                let said = self.polled.get();
                self.polled.set(Ready { over: ready.over | said.over, broken: ready.broken | said.broken, ..ready });
            }
            Step::Look => {
                let look = ring.look();
                assert!(look.busy == 1 || look.cq_tail.wrapping_sub(look.cq_head) + look.reserved <= look.cq_entries);
            }
            Step::Register { which, arg, nr, offset } => {
                let bare = [register_op::UNREGISTER_FILES, register_op::UNREGISTER_EVENTFD, register_op::ENABLE_RINGS];
                let op = REGISTER[usize::from(which % 8)];
                self.judge.borrow_mut().circumstances.restricted |= op == register_op::ALLOW_OPCODES;
                // Operations without an argument take none; others want one of something, or some files.
                let some = u32::from(!bare.contains(&op));
                let many =
                    if op == register_op::FILES || op == register_op::FILES_UPDATE { u32::from(nr % 8) } else { 1 };
                let (arg, nr, offset) = (u64::from(*arg), many * some, u32::from(offset % 8));
                let offset = if op == register_op::FILES_UPDATE { offset } else { 0 };
                let reg = SqRegister { op, arg: arg * u64::from(some), nr, offset, ..SqRegister::default() };
                let _ = ring.register(&reg);
            }
            Step::Call(call) => {
                self.judge.borrow_mut().circumstances.restricted |= call.number().0 == ioctl::REGISTER;
                calls::on_ring(call, &ring);
            }
            Step::Kill => {
                self.judge.borrow_mut().circumstances.killed = true;
                ring.host().kill();
            }
            Step::Quiesce(timeout_ns) => {
                let quiesce = SqQuiesce { timeout_ns: (*timeout_ns).into(), ..SqQuiesce::default() };
                let ended = ring.quiesce(&quiesce);
                // Nothing comes any more: nobody drains either.
                assert!(ended.is_err() || (ring.stats().inflight == 0 && ring.poll().over), "LIFE-1");
                let killed = self.judge.borrow().circumstances.killed;
                let fits = matches!(ended, Ok(()) | Err(Errno::ETIME)) || (killed && ended == Err(Errno::EINTR));
                assert!(fits, "LIFE-1: {ended:?}");
            }
            Step::Close => {
                *self.ring.borrow_mut() = None;
                ring.abandon();
                HostileHost::run_worker(&ring);
            }
            _ => {}
        }
    }

    /// What needs no ring.
    fn act_alone(&self, step: &Step) {
        match step {
            Step::Push { entry, times } => {
                for _ in 0..=times % 16 {
                    self.serial.set(self.serial.get() + 1);
                    let words = entry.words(self.serial.get(), self.probe);
                    if self.producer.borrow_mut().push(words).is_ok() {
                        self.pushed.borrow_mut().push_back(words);
                    }
                }
            }
            Step::Publish => self.publish(),
            Step::Complete => probe::complete_oldest(),
            Step::Write { word, by } => {
                self.lawless();
                self.mem.meddle(|user| {
                    let place = match word % 8 {
                        0..5 => &mut user.sq_tail,
                        5 | 6 => &mut user.cq_head,
                        _ => &mut user.cq_flags,
                    };
                    *place = place.wrapping_add_signed((*by >> (word >> 6)).into());
                });
                // At once, since whoever publishes next puts it right.
                if (1..5).contains(&(word % 8))
                    && let Some(ring) = self.ring()
                {
                    self.consumes(&ring, || ring.doorbell().unwrap_or(0));
                }
            }
            Step::Flip { slot, bit } => {
                self.meddled.set(true);
                self.mem.meddle(|user| {
                    let slot = usize::from(*slot) % user.sqes.len();
                    user.sqes[slot][usize::from(bit / 64 % 16)] ^= 1 << (bit % 64);
                });
            }
            _ => {}
        }
    }

    /// After each step of the first thread, when no other is in the middle of one.
    fn check(&self) {
        let record = self.mem.record();
        self.judge.borrow_mut().hear(&record);
        self.in_order(&record);
        self.count(|ran| {
            ran.accepted += record.accepted.len();
            ran.completed += record.completed.len();
            ran.broken |= record.may_break;
        });
        let Some(ring) = self.ring() else { return };
        assert!(!record.must_break || ring.is_broken(), "IDX-3: cq_head was out of its window");
        assert!(record.may_break || !ring.is_broken(), "IDX-3: every index was in its window");
        let stats = ring.stats();
        assert!(stats.inflight >= probe::holds() as u64, "CAN-1: more requests are held than are in flight");
        assert_eq!(stats.entries, self.mem.published().consumed(), "SUB-1: entries are counted as they are consumed");
        // What is in flight goes on by itself.
        let look = ring.look();
        let sleeps = look.mode != 0 && look.stopped == 0 && stats.inflight == 0 && !ring.host().is_asked();
        assert!(!sleeps || self.mem.load_kernel(KernelWord::SqState) != 0, "BELL-1: it sleeps, and need not be rung");
    }

    /// SNAP-1, SUB-1: if nobody meddles, the entries are those that were pushed, each once and in order.
    fn in_order(&self, news: &Record) {
        let mut pushed = self.pushed.borrow_mut();
        if self.meddled.get() {
            return pushed.clear();
        }
        for words in &news.accepted {
            let next = pushed.pop_front();
            let same = next.is_some_and(|next| words[..8] == next && words[8..] == [0; 8]);
            assert!(same, "SUB-1: {words:x?}, and not {next:x?}");
        }
    }

    /// LIFE-1: the file is closed, and nothing is left; or it was, and whatever was held then completes into nowhere.
    fn end(&self) {
        self.others.borrow_mut().clear();
        if let Some(ring) = self.ring() {
            let quiesce = SqQuiesce { size: SqQuiesce::MIN_SIZE as u32, ..SqQuiesce::default() };
            assert_eq!(ring.quiesce(&quiesce), Ok(()), "LIFE-1");
            assert_eq!(ring.stats().inflight, 0, "LIFE-1");
            assert!(ring.balanced(), "CQ-5");
        }
        while probe::holds() > 0 {
            probe::complete_oldest();
        }
        let files = [&self.ring, &self.background].map(|place| place.borrow_mut().take());
        // A worker that was asked for before the file was closed comes all the same.
        for ring in files.iter().flatten() {
            HostileHost::run_worker(ring);
        }
        drop(files);
        let record = self.mem.record();
        self.judge.borrow_mut().hear(&record);
        self.in_order(&record);
    }
}

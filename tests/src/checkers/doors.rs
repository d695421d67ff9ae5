// SPDX-License-Identifier: MIT OR Apache-2.0
//! Programs for the doors that need no ring: `SQ_IOC_ISSUE` and io_uring's commands, over one thread that plays all of them.
//!
//! The entry changes at any look at it (SNAP-1: there is one), others run while one sleeps, a command's task comes late, and the
//! clock fires at any time. Each command has one result (CAN-1), and it is its own entry's.

use std::cell::{Cell, RefCell};
use std::ptr;
use std::sync::atomic::AtomicU64;

use arbitrary::{Arbitrary, Result as Made, Unstructured};
use kmod_sq::{Caller, Doors, Issued, Pool, Slot, Source, Tasks};
use sq_driver::{Bound, Errno};
use sq_uapi::consts::{limit, sqe_flags};

use super::hostile_host::{AnyFile, PlainLock, is_mapped, is_odd};
use super::interleave::unlocked;
use super::judge::Judge;
use super::probe::{self, Probe};
use super::program::Entry;

/// What callers of one file do.
#[derive(Clone, Debug)]
pub struct Visit {
    /// Commands can be canceled, as from Linux 6.7 on.
    cancelable: bool,
    steps: Vec<Step>,
}

impl<'a> Arbitrary<'a> for Visit {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> Made<Self> {
        let mut visit = Self { cancelable: bytes.arbitrary()?, steps: Vec::new() };
        while !bytes.is_empty() {
            visit.steps.push(bytes.arbitrary()?);
        }
        Ok(visit)
    }
}

#[derive(Arbitrary, Clone, Debug)]
enum Step {
    /// A call that waits; if `signal`, one arrives while it sleeps.
    Issue { entry: Entry, signal: bool, nowhere: bool },
    /// An io_uring command.
    Command { entry: Entry, how: How },
    /// The driver completes what it holds longest.
    Complete,
    /// io_uring cancels a command.
    Cancel(u8),
    /// The timer of a command goes off.
    Fire(u8),
    /// The task of a command comes to complete it.
    Task(u8),
    /// Opcodes are given up.
    Restrict(u8),
}

/// Bit 0: the entry is in the SQE, else at a user address. While the command is being held, bit 1: it is canceled, if it can be; bit 2: the
/// driver completes what it holds longest.
#[derive(Arbitrary, Clone, Copy, Debug)]
struct How(u8);

impl How {
    fn live(self) -> bool {
        self.0 & 1 != 0
    }

    /// Seldom as many as a file has requests, and one more.
    fn times(self) -> u32 {
        if self.0 >= 248 { limit::COMMANDS + 1 } else { 1 }
    }
}

/// Whoever calls.
struct Visitor;

/// A completed command is left to its task; a timer is set. Cells: one thread.
struct Task {
    slot: Cell<*const Slot<Visitor>>,
    name: Cell<usize>,
    timer: Cell<bool>,
    done: Cell<bool>,
    cancelable: Cell<bool>,
}

// SAFETY: only one thread ever has them.
unsafe impl Send for Task {}
// SAFETY: as above.
unsafe impl Sync for Task {}

/// What the calling thread is at.
#[derive(Default)]
struct Desk {
    /// The entry at user address [`ENTRY`].
    entry: Cell<[u64; 8]>,
    /// How often it was copied.
    copies: Cell<u32>,
    now_ns: Cell<u64>,
    signal: Cell<bool>,
    cancelable: Cell<bool>,
    looks: Cell<u32>,
    /// What comes while a command is being held: a cancel, by these doors, and a completion.
    cancels: Cell<Option<Doors>>,
    completes: Cell<bool>,
    /// Tasks in the order in which their commands were held.
    tasks: RefCell<Vec<*const Task>>,
}

/// Where entries are.
const ENTRY: u64 = 0x7000;

thread_local!(static DESK: Desk = Desk::default());

impl Caller for Visitor {
    type File = AnyFile;
    type Memory = ();
    type Event = Cell<bool>;

    unsafe fn copy_entry(dst: *mut [u64; 8], addr: u64) -> Result<(), Errno> {
        unlocked("an entry is read");
        if addr != ENTRY {
            return Err(Errno::EFAULT);
        }
        let entry = DESK.with(|desk| {
            desk.copies.set(desk.copies.get() + 1);
            // The next look finds something else.
            desk.entry.replace([u64::MAX; 8])
        });
        // SAFETY: the contract.
        unsafe { dst.write(entry) };
        Ok(())
    }

    unsafe fn copy_from_user(dst: *mut u8, addr: u64, len: usize) -> Result<(), Errno> {
        unlocked("user memory is read");
        is_mapped(addr, len)?;
        let look = DESK.with(|desk| desk.looks.replace(desk.looks.get() + 1));
        // SAFETY: the contract.
        is_odd(unsafe { std::slice::from_raw_parts_mut(dst, len) }, look);
        Ok(())
    }

    unsafe fn copy_to_user(addr: u64, _: *const u8, len: usize) -> Result<(), Errno> {
        unlocked("user memory is written");
        is_mapped(addr, len)
    }

    fn file(fd: i32) -> Result<AnyFile, Errno> {
        unlocked("a descriptor is looked up");
        if fd < 0 { Err(Errno::EBADF) } else { Ok(AnyFile::open()) }
    }

    fn memory() {}

    unsafe fn copy_in((): &(), dst: *mut u8, addr: u64, len: usize) -> Result<(), Errno> {
        // SAFETY: the contract.
        unsafe { Self::copy_from_user(dst, addr, len) }
    }

    unsafe fn copy_out((): &(), addr: u64, src: *const u8, len: usize) -> Result<(), Errno> {
        // SAFETY: the contract.
        unsafe { Self::copy_to_user(addr, src, len) }
    }

    unsafe fn event_new(event: *mut Cell<bool>) {
        // SAFETY: the contract.
        unsafe { event.write(Cell::new(false)) };
    }

    unsafe fn event_set(event: *const Cell<bool>) {
        // SAFETY: the contract.
        let set = unsafe { &*event }.replace(true);
        assert!(!set, "CAN-1: a call is completed twice");
    }

    unsafe fn event_wait(event: *const Cell<bool>, interruptible: bool) -> bool {
        unlocked("a thread sleeps");
        // SAFETY: the contract.
        let event = unsafe { &*event };
        // While it sleeps, the driver completes what it holds; but a signal may come first.
        while !event.get() {
            if interruptible && DESK.with(|desk| desk.signal.take()) {
                return false;
            }
            assert!(probe::holds() > 0, "a call waits for what nobody holds");
            probe::complete_oldest();
        }
        true
    }

    fn now_ns() -> u64 {
        DESK.with(|desk| desk.now_ns.get())
    }

    fn sleep_until(at_ns: u64) -> bool {
        unlocked("a thread sleeps");
        let far = at_ns > 1 << 62;
        if far || DESK.with(|desk| desk.signal.take()) {
            return false;
        }
        DESK.with(|desk| desk.now_ns.set(desk.now_ns.get().max(at_ns)));
        true
    }
}

impl Tasks for Visitor {
    type Lock<T: Send> = PlainLock<T>;
    type Array<T: Send> = Box<[T]>;
    type Command = usize;
    type Task = Task;

    fn array<T: Send>(len: usize, make: impl FnMut(usize) -> T) -> Result<Box<[T]>, Errno> {
        Ok((0..len).map(make).collect())
    }

    fn task() -> Task {
        let no = || Cell::new(false);
        Task { slot: Cell::new(ptr::null()), name: Cell::new(0), timer: no(), done: no(), cancelable: no() }
    }

    fn name(command: usize) -> usize {
        command
    }

    fn cancelable() -> bool {
        DESK.with(|desk| desk.cancelable.get())
    }

    unsafe fn hold(task: *const Task, slot: *const Slot<Self>, command: usize, cancelable: bool) {
        // SAFETY: the contract: the slot's own.
        let this = unsafe { &*task };
        this.slot.set(slot);
        this.name.set(command);
        this.cancelable.set(cancelable);
        let (cancels, completes) = DESK.with(|desk| {
            let mut tasks = desk.tasks.borrow_mut();
            // A command that was done at once is there yet.
            tasks.retain(|other| !ptr::eq(*other, task));
            tasks.push(task);
            // SAFETY: parts of the pool.
            let endless = tasks.iter().filter(|task| unsafe { &***task }.cancelable.get()).count();
            assert!(endless <= limit::COMMANDS as usize / 8 * 7, "CQ-4: {endless} requests may wait without bound");
            (desk.cancels.get().filter(|_| cancelable), desk.completes.get())
        });
        if let Some(doors) = cancels {
            // SAFETY: held, and not completed.
            unsafe { Slot::cancel(slot, &doors, command) };
        }
        if completes {
            probe::complete_oldest();
        }
    }

    unsafe fn complete(task: *const Task) {
        // SAFETY: the contract.
        let done = unsafe { &*task }.done.replace(true);
        assert!(!done, "CAN-1: a command is completed twice");
    }

    unsafe fn start_timer(task: *const Task, _: u64) {
        // SAFETY: the contract.
        let set = unsafe { &*task }.timer.replace(true);
        assert!(!set, "a timer is started twice");
    }

    unsafe fn stop_timer(task: *const Task) {
        // SAFETY: the contract.
        unsafe { &*task }.timer.set(false);
    }
}

/// A file's doors, and who is at them.
struct Hall {
    doors: Doors,
    pool: Box<Pool<Visitor>>,
    allowed: u64,
    serial: usize,
    /// The entries of commands that are not completed.
    open: Vec<(usize, [u64; 16])>,
    visited: Visited,
}

/// What came of a visit, for those who ask whether visits are worth making.
#[derive(Clone, Copy, Debug, Default)]
pub struct Visited {
    /// Calls that waited, and commands that were done at once.
    pub at_once: usize,
    /// Commands that their task completed.
    pub later: usize,
}

/// Runs a visit.
///
/// # Panics
///
/// If a rule is broken.
pub fn run(visit: &Visit) -> Visited {
    DESK.with(|desk| {
        desk.cancelable.set(visit.cancelable);
        desk.signal.set(false);
        desk.tasks.borrow_mut().clear();
    });
    // SAFETY: the table expects a Probe, which has no data to speak of.
    let bound = unsafe { Bound::new(probe::IN_C, ptr::from_ref(&Probe::<false>).cast()) }.unwrap();
    let mut hall = Hall {
        doors: Doors::new(bound),
        pool: Box::new(Pool::new().unwrap()),
        allowed: u64::MAX,
        serial: 0,
        open: Vec::new(),
        visited: Visited::default(),
    };
    for step in &visit.steps {
        hall.step(step);
    }
    hall.end();
    hall.visited
}

impl Hall {
    fn step(&mut self, step: &Step) {
        match step {
            Step::Issue { entry, signal, nowhere } => self.issue(entry, *signal, *nowhere),
            Step::Command { entry, how } => (0..how.times()).for_each(|_| self.command(entry, *how)),
            Step::Complete => probe::complete_oldest(),
            Step::Cancel(which) => self.with_task(*which, |hall, task| hall.cancel(task)),
            Step::Fire(which) => self.with_task(*which, |_, task| fire(task)),
            Step::Task(which) => self.with_task(*which, Self::complete),
            Step::Restrict(bits) => self.allowed &= !(1 << (bits % 64)),
        }
    }

    fn with_task(&mut self, which: u8, then: impl FnOnce(&mut Self, &Task)) {
        let task = DESK.with(|desk| {
            let tasks = desk.tasks.borrow();
            tasks.get(usize::from(which) % tasks.len().max(1)).copied()
        });
        if let Some(task) = task {
            // SAFETY: a part of the pool, which this has.
            then(self, unsafe { &*task });
        }
    }

    /// `SQ_IOC_ISSUE`.
    fn issue(&mut self, entry: &Entry, signal: bool, nowhere: bool) {
        let words = alone(entry, 0x15);
        DESK.with(|desk| {
            desk.entry.set(words);
            desk.copies.set(0);
            desk.signal.set(signal);
        });
        let res = self.doors.issue::<Visitor>(if nowhere { 8 } else { ENTRY }, self.allowed);
        let copies = DESK.with(|desk| {
            desk.signal.set(false);
            desk.copies.get()
        });
        assert_eq!(copies, u32::from(!nowhere), "SNAP-1: an entry is copied once");
        if nowhere {
            assert_eq!(res, Errno::EFAULT.to_res());
        } else {
            Judge::alone(&widen(words), self.allowed).judge(res, signal);
            self.visited.at_once += 1;
        }
    }

    /// An io_uring command.
    fn command(&mut self, entry: &Entry, how: How) {
        self.serial += 1;
        let words = alone(entry, self.serial as u64);
        let shared = words.map(AtomicU64::new);
        DESK.with(|desk| {
            desk.entry.set(words);
            desk.copies.set(0);
            desk.cancels.set((how.0 & 2 != 0).then_some(self.doors));
            desk.completes.set(how.0 & 4 != 0);
        });
        let full = self.open.len() >= limit::COMMANDS as usize;
        let source = if how.live() { Source::Live(&shared) } else { Source::User(ENTRY) };
        match self.doors.command(&self.pool, self.serial, source, self.allowed) {
            Issued::Done(res, _) => {
                self.visited.at_once += 1;
                if full {
                    assert_eq!(res, Errno::EBUSY.to_res(), "a file has so many requests");
                } else {
                    Judge::alone(&widen(words), self.allowed).judge(res, false);
                }
            }
            Issued::Later => {
                assert!(!full, "a file has more requests than there are");
                self.open.push((self.serial, widen(words)));
                let task = DESK.with(|desk| *desk.tasks.borrow().last().expect("held"));
                // SAFETY: as in `with_task`.
                let task = unsafe { &*task };
                let canceled = how.0 & 2 != 0 && task.cancelable.get();
                assert!(
                    !canceled || task.done.get(),
                    "CAN-1: a cancel that came while a command was issued is forgotten"
                );
            }
        }
    }

    /// io_uring cancels a command that it may cancel, if it is not completed.
    fn cancel(&mut self, task: &Task) {
        if task.cancelable.get() && !task.done.get() {
            // SAFETY: held, and not completed.
            unsafe { Slot::cancel(task.slot.get(), &self.doors, task.name.get()) };
        }
    }

    /// A task comes to complete its command, if that is done.
    fn complete(&mut self, task: &Task) {
        if !task.done.get() {
            return;
        }
        let name = task.name.get();
        // SAFETY: a slot of the pool, which this has.
        let slot = unsafe { &*task.slot.get() };
        // SAFETY: `Tasks::complete` was called for it, and this is the first time since.
        let (res, _) = unsafe { slot.finish() };
        assert!(!task.timer.get(), "a timer is left behind");
        task.done.set(false);
        DESK.with(|desk| desk.tasks.borrow_mut().retain(|other| !ptr::eq(*other, task)));
        let at = self.open.iter().position(|(open, _)| *open == name).expect("CAN-1: a command has one result");
        let (_, words) = self.open.remove(at);
        self.visited.later += 1;
        Judge::alone(&words, u64::MAX).judge(res, true);
    }

    /// io_uring ends: it cancels what it can, and waits for the rest.
    fn end(&mut self) {
        let tasks = DESK.with(|desk| desk.tasks.borrow().clone());
        for task in tasks {
            // SAFETY: as in `with_task`.
            let task = unsafe { &*task };
            self.cancel(task);
            fire(task);
            while !task.done.get() && probe::holds() > 0 {
                probe::complete_oldest();
            }
            self.complete(task);
        }
        // Commands that completed in `hold` are not `Later`; the others all had their task.
        assert!(self.open.is_empty(), "LIFE-1: {:x?} never completes", self.open);
    }
}

fn fire(task: &Task) {
    if task.timer.replace(false) {
        // SAFETY: the timer was set, and is not stopped.
        unsafe { Slot::fired(task.slot.get()) };
    }
}

/// An entry without CQE_SKIP_SUCCESS, which would be all that is wrong with half of them.
fn alone(entry: &Entry, serial: u64) -> [u64; 8] {
    let mut words = entry.words(serial, true);
    words[0] &= !(u64::from(sqe_flags::CQE_SKIP_SUCCESS) << 8);
    words
}

fn widen(words: [u64; 8]) -> [u64; 16] {
    let mut wide = [0; 16];
    wide[..8].copy_from_slice(&words);
    wide
}

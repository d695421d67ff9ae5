// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the kernel side of a ring needs from where it runs.

use core::ops::DerefMut;
use core::ptr::NonNull;

use sq_uapi::{Errno, KernelMem};

use crate::ring::Ring;

/// A short lock: held for a bounded time, never across user access, `issue` or `cancel` (LOCK-1), and taken in
/// interrupts by completions. In the kernel a raw spinlock with interrupts off.
pub trait Lock<T> {
    /// A lock around `value`.
    fn new(value: T) -> Self;
    /// Runs `f` with the lock held.
    fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R;
    /// As [`Lock::with`], or `None` at once if somebody else holds it.
    fn try_with<R>(&self, f: impl FnOnce(&mut T) -> R) -> Option<R>;
}

/// An open file that an entry can name.
pub trait HostFile: Clone + Send {
    /// The file as a driver sees it ([`sq_driver::Op::target`]).
    fn target(&self) -> usize;
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// The condition held.
    Ready,
    /// The deadline passed.
    Timeout,
    /// A signal arrived.
    Signal,
}

/// Whom a posted batch wakes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notify {
    /// Threads in [`Host::wait`], and pollers.
    pub waiters: bool,
    /// The registered eventfd.
    pub eventfd: bool,
}

impl Notify {
    /// Whether anybody is to be woken.
    #[must_use]
    pub const fn any(self) -> bool {
        self.waiters || self.eventfd
    }
}

/// What a trace can tell of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The framework refused an entry.
    Reject {
        /// The entry's.
        user_data: u64,
        /// The entry's.
        opcode: u8,
        /// Why.
        errno: Errno,
    },
    /// A completion was posted.
    Complete {
        /// The entry's.
        user_data: u64,
        /// Its result.
        res: i32,
    },
    /// The drain stopped with entries left.
    Stall {
        /// For want of a completion slot; else of a request.
        slots: bool,
    },
}

/// What a home can do, as QUERY reports it.
#[derive(Clone, Copy, Debug)]
pub struct Abilities {
    /// [`consts::features`](sq_uapi::consts::features) of its own.
    pub features: u64,
    /// `sq_setup.flags` that it implements.
    pub setup_flags: u32,
    /// `sq_enter.flags` that it implements.
    pub enter_flags: u32,
}

/// The surroundings of a ring: the kernel, a process, or a checker. Cold: a null operation makes no call to it.
pub trait Host: Sized + Send + Sync + 'static {
    /// What this home can do. What it cannot is refused.
    const ABILITIES: Abilities;

    /// The ring's shared memory.
    type Mem: KernelMem + Send + Sync;
    /// The completion lock.
    type Lock<T: Send>: Lock<T> + Send + Sync;
    /// Memory taken at setup.
    type Array<T: Send>: DerefMut<Target = [T]> + Send;
    /// An open file.
    type File: HostFile;

    /// Memory for `len` values, at setup only.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    fn array<T: Send>(len: usize, make: impl FnMut(usize) -> T) -> Result<Self::Array<T>, Errno>;

    /// Copies from a user address.
    ///
    /// # Safety
    ///
    /// `dst` is writable for `len` bytes.
    ///
    /// # Errors
    ///
    /// `EFAULT`, or `ECANCELED` if the process is killed meanwhile.
    unsafe fn copy_from_user(&self, dst: *mut u8, addr: u64, len: usize) -> Result<(), Errno>;

    /// Copies to a user address.
    ///
    /// # Safety
    ///
    /// `src` is readable for `len` bytes.
    ///
    /// # Errors
    ///
    /// `EFAULT`, or `ECANCELED` if the process is killed meanwhile.
    unsafe fn copy_to_user(&self, addr: u64, src: *const u8, len: usize) -> Result<(), Errno>;

    /// Makes user addresses the calling thread's own, until [`Host::leave_user`]. Not for a thread that has them already. A home
    /// whose threads all have them need do nothing.
    ///
    /// # Errors
    ///
    /// `ECANCELED` if they are out of reach: the ring is closed, or its process is gone.
    fn enter_user(&self) -> Result<(), Errno> {
        Ok(())
    }

    /// The end of what [`Host::enter_user`] began, in the same thread.
    fn leave_user(&self) {}

    /// The open file that `fd` names in the calling process.
    ///
    /// # Errors
    ///
    /// `EBADF` if there is none, or if it may not be kept by a ring; `EAGAIN` if this context has no descriptors to look in: the entry
    /// then waits for an ENTER.
    fn file(&self, fd: i32) -> Result<Self::File, Errno>;

    /// Takes (or, with `None`, forgets) the eventfd that [`Notify::eventfd`] signals.
    ///
    /// # Errors
    ///
    /// `EBADF` or `EINVAL` if `fd` is no eventfd, `EBUSY` if there is one already, `ENXIO` if there is none to forget. Of two
    /// callers at a time one wins.
    fn set_eventfd(&self, fd: Option<i32>) -> Result<(), Errno>;

    /// Wakes. Called after a batch was posted, with no lock held, from any context.
    fn notify(&self, whom: Notify);

    /// Has [`Ring::work`] called soon, from a worker. A call while one is queued is absorbed; a call while it runs is
    /// not. Any context.
    fn work(ring: &Ring<Self>);

    /// Has [`Ring::alarm`] called at `at_ns` on the clock of [`Host::now_ns`], or earlier. A later call with an earlier
    /// time brings it forward. Any context.
    fn alarm(ring: &Ring<Self>, at_ns: u64);

    /// Monotonic time in nanoseconds.
    fn now_ns(&self) -> u64;

    /// Called between pieces of work that may be many or long, with no lock held, where one may sleep: others get a turn.
    /// A home whose threads are preempted anyway need do nothing.
    ///
    /// # Errors
    ///
    /// `ECANCELED` if the calling thread was killed: it wants no more done.
    fn pause(&self) -> Result<(), Errno> {
        Ok(())
    }

    /// Sleeps until `ready` holds, `deadline` (on the clock of [`Host::now_ns`]) passes or a signal arrives. `ready` is called after
    /// the caller has been put where [`Host::notify`] finds it, and after each wake-up.
    fn wait(&self, deadline: Option<u64>, ready: &mut dyn FnMut() -> bool) -> Waited;

    /// Whether [`Event::Complete`] is wanted: asked once a batch, since telling of each completion is not free.
    fn traces_completions(&self) -> bool {
        false
    }

    /// Tells whoever traces. Any context, no lock held.
    fn trace(&self, _: Event) {}

    /// Frees a ring whose last reference has gone.
    ///
    /// # Safety
    ///
    /// `ring` came from [`RingRef::from_raw`](crate::RingRef::from_raw) and nobody uses it any more.
    unsafe fn free(ring: NonNull<Ring<Self>>);
}

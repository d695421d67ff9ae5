// SPDX-License-Identifier: MIT OR Apache-2.0
//! The door that does not wait: io_uring's `uring_cmd`.
//!
//! A command that its driver completes in `issue` is answered at once. One that it defers is completed through the task that
//! submitted it, by a request of its file's [`Pool`]. The request is set aside before the entry is even copied, since nothing is allocated
//! and a driver's `defer` does not fail: an empty pool is `EBUSY`.

use core::cell::Cell;
use core::ops::Deref;
use core::ptr;

use sq_driver::abi::{DEFER_INDEFINITE, OpOps, RawOp, RawRequest};
use sq_uapi::Errno;

use super::pool::{Pool, Returned, Slot};
use super::{Caller, Doors, Source, empty_op, outcome, user};
use crate::host::Lock;

/// What this door needs besides the caller: where commands come from and are completed.
pub trait Tasks: Caller {
    /// As [`Host::Lock`](crate::Host::Lock).
    type Lock<T: Send>: Lock<T> + Send + Sync;
    /// As [`Host::Array`](crate::Host::Array).
    type Array<T: Send>: Deref<Target = [T]> + Send;
    /// A command being issued.
    type Command: Copy;
    /// What it needs to be completed later; one in each request. Any context uses it, by pointer.
    type Task: Send + Sync;

    /// Memory for `len` values.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    fn array<T: Send>(len: usize, make: impl FnMut(usize) -> T) -> Result<Self::Array<T>, Errno>;

    /// A task of no command.
    fn task() -> Self::Task;

    /// A number for a command that no other has until it is completed. Not 0.
    fn name(command: Self::Command) -> usize;

    /// Whether commands can be canceled. If not, none may wait without bound.
    fn cancelable() -> bool;

    /// The command is to be completed later: remembers what that takes. If `cancelable`, a cancel of the command calls [`Slot::cancel`] from
    /// here on. May sleep.
    ///
    /// # Safety
    ///
    /// `task` is `slot`'s, which this thread is issuing.
    unsafe fn hold(task: *const Self::Task, slot: *const Slot<Self>, command: Self::Command, cancelable: bool);

    /// Has [`Slot::finish`] called, once, by the task that the command came from. Any context.
    ///
    /// # Safety
    ///
    /// The slot is Done and this is the one who made it so. The pool may be gone when this returns.
    unsafe fn complete(task: *const Self::Task);

    /// Has [`Slot::fired`] called at `at_ns`. Any context; under the slot's lock.
    ///
    /// # Safety
    ///
    /// After [`Tasks::hold`]; once.
    unsafe fn start_timer(task: *const Self::Task, at_ns: u64);

    /// Makes sure that [`Slot::fired`] neither runs nor is called any more. May sleep.
    ///
    /// # Safety
    ///
    /// Not under the slot's lock, nor in [`Slot::fired`].
    unsafe fn stop_timer(task: *const Self::Task);
}

/// What came of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Issued {
    /// It is done: its result, and the first word of the second half of a 32-byte completion.
    Done(i32, u64),
    /// [`Tasks::complete`] is called for it.
    Later,
}

/// What `defer` needs to know of the command being issued, on the issuer's stack.
struct Issuing<'a, C: Tasks> {
    slot: &'a Slot<C>,
    command: usize,
    taken: Cell<bool>,
    /// `defer` was refused because the command could not be canceled.
    endless: Cell<bool>,
}

impl Doors {
    /// Issues the entry of a command. `allowed`: as in [`Doors::issue`].
    #[inline]
    pub fn command<C: Tasks>(&self, pool: &Pool<C>, command: C::Command, source: Source<'_>, allowed: u64) -> Issued {
        let Some(slot) = pool.take() else { return Issued::Done(Errno::EBUSY.to_res(), 0) };
        let issuing = Issuing { slot, command: C::name(command), taken: Cell::new(false), endless: Cell::new(false) };
        let mut op = empty_op(&Issuing::<C>::OPS, (&raw const issuing).cast());
        let res = match self.start::<C>(&mut op, source, allowed, &slot.file) {
            Ok(_) if issuing.taken.get() => return self.taken(slot, command),
            // Trying again, as its driver's -EBUSY says, would be in vain.
            Ok(res) if res == Errno::EBUSY.to_res() && issuing.endless.get() => Errno::EOPNOTSUPP.to_res(),
            Ok(res) => outcome(res),
            Err(errno) => errno.to_res(),
        };
        drop(slot.file.take());
        pool.give_back(slot);
        let [extra, _] = op.extra;
        Issued::Done(res, extra)
    }

    /// The driver has taken the request, and may have given it back already.
    #[inline(never)]
    fn taken<C: Tasks>(&self, slot: &Slot<C>, command: C::Command) -> Issued {
        let cancelable = slot.indefinite.get();
        // SAFETY: this thread is issuing the slot.
        unsafe { C::hold(&raw const slot.task, slot, command, cancelable) };
        // Until `returned` a cancel may come, but no completion: the command is still ours. After it the slot is not, unless it is Done.
        match slot.returned() {
            Returned::Away(None) => Issued::Later,
            Returned::Away(Some(id)) => {
                self.driver.cancel(id);
                Issued::Later
            }
            Returned::Done if cancelable => {
                // A cancel may be on its way to the command: only its task can tell that there is none.
                // SAFETY: Done, by this thread.
                unsafe { Slot::complete(slot) };
                Issued::Later
            }
            Returned::Done => {
                // SAFETY: Done, by this thread.
                let (res, extra) = unsafe { slot.finish() };
                Issued::Done(res, extra)
            }
        }
    }
}

impl<C: Tasks> Issuing<'_, C> {
    const OPS: OpOps = user::op_ops::<C>(defer::<C>);
}

/// # Safety
///
/// `op` is the operation being issued. Null if it is called twice for it, or if it may wait without bound and that cannot be had.
unsafe extern "C" fn defer<C: Tasks>(op: *mut RawOp, flags: u32) -> *mut RawRequest {
    // SAFETY: the contract: valid until `issue` returns.
    let op = unsafe { &*op };
    // SAFETY: `command` set it to its own.
    let issuing = unsafe { &*op.framework.cast::<Issuing<'_, C>>() };
    if issuing.taken.get() {
        return ptr::null_mut();
    }
    if flags & DEFER_INDEFINITE != 0 {
        issuing.endless.set(!C::cancelable());
        if issuing.endless.get() || !issuing.slot.may_wait() {
            return ptr::null_mut();
        }
    }
    issuing.taken.set(true);
    issuing.slot.begin(op, issuing.command)
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The door that waits: `SQ_IOC_ISSUE`. Its result is the operation's.
//!
//! A driver that defers gets a request on the caller's stack, which is safe because the caller does not leave before the request
//! has been given back: by [`RequestOps::complete`], or by [`RequestOps::complete_after`], after which the caller is its own clock.
//! Giving it back is one [`Caller::event_set`], the last access that anybody but the caller makes.

use core::cell::{Cell, UnsafeCell};
use core::mem::MaybeUninit;
use core::ptr;

use sq_driver::abi::{OpOps, RawOp, RawRequest, RequestOps};
use sq_uapi::Errno;

use super::user::{self, Reaches};
use super::{Caller, Doors, Source, empty_op, outcome, request};

/// How a request was given back.
#[derive(Clone, Copy)]
enum Back {
    Done(i32),
    After { at_ns: u64, res: i32 },
}

/// One call, on its caller's stack. Only `taken` and `file` mean anything before the request is taken.
#[repr(C)]
struct Call<C: Caller> {
    /// First, so that a pointer to one is a pointer to the other.
    request: UnsafeCell<MaybeUninit<RawRequest>>,
    event: UnsafeCell<MaybeUninit<C::Event>>,
    memory: UnsafeCell<Option<C::Memory>>,
    back: UnsafeCell<Back>,
    taken: Cell<bool>,
    file: Cell<Option<C::File>>,
}

impl Doors {
    /// Issues the entry at user address `addr` and waits for its result, the operation's own or a negative error number. `allowed`: bit n
    /// is set if the file has not given up opcode n.
    ///
    /// A signal cancels an operation that its driver has deferred, and the call waits for it nevertheless: if it was done after all the
    /// result is its own, else `EINTR`.
    #[inline]
    pub fn issue<C: Caller>(&self, addr: u64, allowed: u64) -> i32 {
        let call = Call::<C> {
            request: UnsafeCell::new(MaybeUninit::uninit()),
            event: UnsafeCell::new(MaybeUninit::uninit()),
            memory: UnsafeCell::new(None),
            back: UnsafeCell::new(Back::Done(0)),
            taken: Cell::new(false),
            file: Cell::new(None),
        };
        let mut op = empty_op(&Call::<C>::OPS, (&raw const call).cast());
        let res = match self.start::<C>(&mut op, Source::User(addr), allowed, &call.file) {
            Ok(res) => res,
            Err(errno) => return errno.to_res(),
        };
        if call.taken.get() { self.wait(&call) } else { outcome(res) }
    }

    /// Waits until the request has been given back. After this nobody else knows of the call.
    #[inline(never)]
    fn wait<C: Caller>(&self, call: &Call<C>) -> i32 {
        let event = call.event.get().cast_const().cast::<C::Event>();
        // SAFETY: `defer` made the event, on this thread.
        let interrupted = !unsafe { C::event_wait(event, true) };
        if interrupted {
            // SAFETY: `defer` wrote the request, and its id is constant.
            let id = unsafe { (*call.request.get().cast::<RawRequest>()).id };
            self.driver.cancel(id);
            // The driver's promise bounds this: the operation is bounded, or `cancel` makes it finish.
            // SAFETY: as above.
            unsafe { C::event_wait(event, false) };
        }
        // SAFETY: the event orders what was written before it was set, and nobody writes after.
        match unsafe { *call.back.get() } {
            Back::Done(res) if interrupted && res == Errno::ECANCELED.to_res() => Errno::EINTR.to_res(),
            Back::Done(res) => outcome(res),
            Back::After { at_ns, res } if !interrupted && C::sleep_until(at_ns) => outcome(res),
            Back::After { .. } => Errno::EINTR.to_res(),
        }
    }
}

impl<C: Caller> Call<C> {
    const OPS: OpOps = user::op_ops::<C>(defer::<C>);
    const REQUEST_OPS: RequestOps = user::request_ops::<Self>(complete::<C>, complete_after::<C>);

    /// Gives the request back.
    ///
    /// # Safety
    ///
    /// `request` is held by the caller, who gives it up.
    unsafe fn give(request: *mut RawRequest, back: Back) {
        let call = request.cast_const().cast::<Self>();
        // SAFETY: `defer` made the pointer from a call, which stays until its event is set.
        let place = unsafe { UnsafeCell::raw_get(&raw const (*call).back) };
        // SAFETY: the waiter does not look before the event is set.
        unsafe { place.write(back) };
        // SAFETY: as above.
        let event = unsafe { UnsafeCell::raw_get(&raw const (*call).event) };
        // SAFETY: `defer` made it; a request is given back once. No reference into the call exists here.
        unsafe { C::event_set(event.cast_const().cast()) };
    }
}

impl<C: Caller> Reaches for Call<C> {
    type Caller = C;

    unsafe fn memory<'a>(request: *mut RawRequest) -> Result<&'a C::Memory, Errno> {
        let call = request.cast_const().cast::<Self>();
        // SAFETY: `defer` made the pointer from a call, which stays while the request is held.
        let place = unsafe { UnsafeCell::raw_get(&raw const (*call).memory) };
        // SAFETY: written before the request was handed out, and not since.
        unsafe { &*place }.as_ref().ok_or(Errno::EFAULT)
    }
}

/// # Safety
///
/// `op` is the operation being issued. Null if it is called twice for it.
unsafe extern "C" fn defer<C: Caller>(op: *mut RawOp, _: u32) -> *mut RawRequest {
    // SAFETY: the contract: valid until `issue` returns.
    let op = unsafe { &*op };
    // SAFETY: `issue` set it to its call.
    let call = unsafe { &*op.framework.cast::<Call<C>>() };
    if call.taken.replace(true) {
        return ptr::null_mut();
    }
    // SAFETY: the request is not out yet, so the cell is this thread's.
    unsafe { *call.memory.get() = Some(C::memory()) };
    // SAFETY: as above.
    unsafe { C::event_new(call.event.get().cast()) };
    // SAFETY: as above.
    unsafe { call.request.get().cast::<RawRequest>().write(request(op, &Call::<C>::REQUEST_OPS)) };
    // The pointer is to the whole call, so that the way back stays inside its provenance.
    op.framework.cast_mut().cast()
}

/// # Safety
///
/// `request` is held by the caller, who gives it up.
unsafe extern "C" fn complete<C: Caller>(request: *mut RawRequest, res: i32, _: *const [u64; 2]) {
    // SAFETY: the contract.
    unsafe { Call::<C>::give(request, Back::Done(res)) };
}

/// # Safety
///
/// `request` is held by the caller, who gives it up.
unsafe extern "C" fn complete_after<C: Caller>(request: *mut RawRequest, res: i32, delay_ns: u64) {
    let at_ns = C::now_ns().saturating_add(delay_ns);
    // SAFETY: the contract.
    unsafe { Call::<C>::give(request, Back::After { at_ns, res }) };
}

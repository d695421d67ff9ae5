// SPDX-License-Identifier: MIT OR Apache-2.0
//! What drivers call on operations and requests of every door, mostly to reach their caller's memory.

use core::ffi::c_void;

use sq_driver::abi::{OpOps, RawOp, RawRequest, RequestOps};
use sq_uapi::Errno;

use super::Caller;

/// What a request is a part of.
pub(super) trait Reaches {
    /// Whose memory it reaches.
    type Caller: Caller;

    /// That memory.
    ///
    /// # Safety
    ///
    /// `request` is such a part, and held by the caller for all of 'a.
    unsafe fn memory<'a>(request: *mut RawRequest) -> Result<&'a <Self::Caller as Caller>::Memory, Errno>;
}

pub(super) const fn op_ops<C: Caller>(defer: unsafe extern "C" fn(*mut RawOp, u32) -> *mut RawRequest) -> OpOps {
    OpOps { defer, copy_from_user: copy_from_user::<C>, copy_to_user: copy_to_user::<C> }
}

pub(super) const fn request_ops<R: Reaches>(
    complete: unsafe extern "C" fn(*mut RawRequest, i32, *const [u64; 2]),
    complete_after: unsafe extern "C" fn(*mut RawRequest, i32, u64),
) -> RequestOps {
    RequestOps {
        complete,
        complete_after,
        copy_from_user: request_copy_from_user::<R>,
        copy_to_user: request_copy_to_user::<R>,
        enter_user: enter_user::<R>,
        leave_user: leave_user::<R>,
    }
}

fn done(result: Result<(), Errno>) -> i32 {
    result.map_or_else(Errno::to_res, |()| 0)
}

/// # Safety
///
/// `dst` is writable for `len` bytes. `issue` runs in its caller's context.
unsafe extern "C" fn copy_from_user<C: Caller>(_: *const c_void, dst: *mut u8, addr: u64, len: usize) -> i32 {
    // SAFETY: the contract.
    done(unsafe { C::copy_from_user(dst, addr, len) })
}

/// # Safety
///
/// `src` is readable for `len` bytes. `issue` runs in its caller's context.
unsafe extern "C" fn copy_to_user<C: Caller>(_: *const c_void, addr: u64, src: *const u8, len: usize) -> i32 {
    // SAFETY: the contract.
    done(unsafe { C::copy_to_user(addr, src, len) })
}

/// # Safety
///
/// `request` is held by the caller, and `dst` writable for `len` bytes.
unsafe extern "C" fn request_copy_from_user<R: Reaches>(
    request: *mut RawRequest,
    dst: *mut u8,
    addr: u64,
    len: usize,
) -> i32 {
    // SAFETY: the contract.
    let memory = unsafe { R::memory(request) };
    // SAFETY: the contract.
    done(memory.and_then(|memory| unsafe { R::Caller::copy_in(memory, dst, addr, len) }))
}

/// # Safety
///
/// `request` is held by the caller, and `src` readable for `len` bytes.
unsafe extern "C" fn request_copy_to_user<R: Reaches>(
    request: *mut RawRequest,
    addr: u64,
    src: *const u8,
    len: usize,
) -> i32 {
    // SAFETY: the contract.
    let memory = unsafe { R::memory(request) };
    // SAFETY: the contract.
    done(memory.and_then(|memory| unsafe { R::Caller::copy_out(memory, addr, src, len) }))
}

/// # Safety
///
/// `request` is held by the caller, a thread without user addresses of its own.
unsafe extern "C" fn enter_user<R: Reaches>(request: *mut RawRequest) -> i32 {
    // SAFETY: the contract.
    let memory = unsafe { R::memory(request) };
    done(memory.and_then(R::Caller::enter))
}

/// # Safety
///
/// `request` is held by the caller, a thread in which `enter_user` succeeded for it.
unsafe extern "C" fn leave_user<R: Reaches>(request: *mut RawRequest) {
    // SAFETY: the contract.
    if let Ok(memory) = unsafe { R::memory(request) } {
        R::Caller::leave(memory);
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Arguments of calls as bytes.

use sq_uapi::structs::Argument;

/// The bytes of an argument, for a call that writes results into it.
pub(crate) fn bytes_of_mut<T: Argument>(value: &mut T) -> &mut [u8] {
    let place = std::ptr::from_mut(value).cast::<u8>();
    // SAFETY: a T is size_of::<T>() initialised bytes, and any bytes written there are a T (contract of Argument).
    unsafe { std::slice::from_raw_parts_mut(place, size_of::<T>()) }
}

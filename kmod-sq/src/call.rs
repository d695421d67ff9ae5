// SPDX-License-Identifier: MIT OR Apache-2.0
//! The calls on a ring: from a number and bytes to a method, and back. Both homes go through here, so that what a size or a
//! reserved field means is decided once.

use sq_uapi::structs::Argument;
use sq_uapi::{Errno, SqEnter, ioctl};

use crate::host::Host;
use crate::ring::Ring;

/// Reads an argument that its caller says has `bytes.len()` bytes.
///
/// # Errors
///
/// `EINVAL` if it is smaller than the first version of the structure or its `size` field disagrees; `E2BIG` if it is larger than this
/// version and what follows is not zero.
pub fn read<T: Argument>(bytes: &[u8]) -> Result<T, Errno> {
    if bytes.len() < T::MIN_SIZE {
        return Err(Errno::EINVAL);
    }
    let (known, rest) = bytes.split_at_checked(size_of::<T>()).unwrap_or((bytes, &[]));
    if rest.iter().any(|byte| *byte != 0) {
        return Err(Errno::E2BIG);
    }
    let [a, b, c, d, ..] = *known else { return Err(Errno::EINVAL) };
    if usize::try_from(u32::from_le_bytes([a, b, c, d])) != Ok(bytes.len()) {
        return Err(Errno::EINVAL);
    }
    let mut value = T::default();
    let place = (&raw mut value).cast::<u8>();
    // SAFETY: `known` has at most size_of::<T>() bytes, and any bytes are a T (contract of Argument).
    unsafe { core::ptr::copy_nonoverlapping(known.as_ptr(), place, known.len()) };
    Ok(value)
}

/// Writes an argument back, as much of it as its caller knows. What this version does not know of stays zero.
pub fn write<T: Argument>(value: &T, bytes: &mut [u8]) {
    let len = bytes.len().min(size_of::<T>());
    let place = core::ptr::from_ref(value).cast::<u8>();
    // SAFETY: a T is size_of::<T>() initialised bytes without padding (contract of Argument).
    let value = unsafe { core::slice::from_raw_parts(place, len) };
    for (to, from) in bytes.iter_mut().zip(value) {
        *to = *from;
    }
}

/// A call on a ring, by its ioctl number. An empty `arg` is a null pointer.
///
/// # Errors
///
/// `ENOTTY` for an unknown number (and for QUERY and SETUP, which are not calls on a ring); else the call's own.
pub fn ring_call<H: Host>(ring: &Ring<H>, number: u32, arg: &mut [u8]) -> Result<u32, Errno> {
    match number {
        ioctl::ENTER if arg.is_empty() => ring.doorbell(),
        ioctl::ENTER => {
            let mut enter: SqEnter = read(arg)?;
            ring.enter(&mut enter)?;
            write(&enter, arg);
            Ok(0)
        }
        ioctl::REGISTER => ring.register(&read(arg)?),
        ioctl::QUIESCE => ring.quiesce(&read(arg)?).map(|()| 0),
        ioctl::CANCEL => ring.cancel(&read(arg)?),
        ioctl::STATS => {
            let mut stats: sq_uapi::SqStats = read(arg)?;
            if stats != (sq_uapi::SqStats { size: stats.size, ..Default::default() }) {
                return Err(Errno::EINVAL);
            }
            stats = sq_uapi::SqStats { size: stats.size, ..ring.stats() };
            write(&stats, arg);
            Ok(0)
        }
        _ => Err(Errno::ENOTTY),
    }
}

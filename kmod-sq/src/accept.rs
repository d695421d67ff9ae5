// SPDX-License-Identifier: MIT OR Apache-2.0
//! From a parsed entry to what a driver needs: where its bytes are, and which file it names. Whatever the entry's numbers
//! lead to is fetched once, here (SNAP-3).

use sq_driver::abi::{MAX_SEGMENTS, PAYLOAD_POOL, PAYLOAD_USER, RawPayload, Segment};
use sq_uapi::consts::{limit, sqe_flags};
use sq_uapi::{Errno, SqIovec};

use crate::geometry::nospec;
use crate::host::{Host, Lock};
use crate::ix;
use crate::parse::{Bytes, Parsed};
use crate::ring::{Mode, Ring};

/// Works out the segments of an operation, which is `sqe`, from where its bytes are. `pool` finds a part of a buffer, by index,
/// offset and length; `copy_in` fills bytes from a user address.
#[expect(clippy::as_conversions, reason = "fields are cut out of words by truncation")]
pub(crate) fn payload(
    bytes: Bytes,
    sqe: &[u64; 16],
    payload: &mut RawPayload,
    pool: impl FnOnce(u16, u64, u32) -> Option<u64>,
    copy_in: impl FnOnce(&mut [u8], u64) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let [_, _, addr, w3, _, w5, ..] = *sqe;
    let (len, index) = (w3 as u32, w5 as u16);
    (payload.kind, payload.nr, payload.at, payload.passed, payload.left) = (PAYLOAD_USER, 0, 0, 0, 0);
    if bytes == Bytes::Vector {
        return vector(addr, len, payload, copy_in);
    }
    if len > limit::TRANSFER_BYTES {
        return Err(Errno::EINVAL);
    }
    let addr = if bytes == Bytes::Pool {
        payload.kind = PAYLOAD_POOL;
        pool(index, addr, len).ok_or(Errno::EFAULT)?
    } else {
        addr.checked_add(u64::from(len)).ok_or(Errno::EFAULT)?;
        addr
    };
    let [first, ..] = &mut payload.segments;
    first.write(Segment { addr, len: u64::from(len) });
    payload.nr = 1;
    payload.left = u64::from(len);
    Ok(())
}

/// Copies a vector in, once, and checks the copy. Apart: its array is no part of everybody's stack.
#[inline(never)]
fn vector(
    addr: u64,
    count: u32,
    payload: &mut RawPayload,
    copy_in: impl FnOnce(&mut [u8], u64) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let count_u = ix(count);
    if count_u > MAX_SEGMENTS {
        return Err(Errno::EINVAL);
    }
    let mut vector = [SqIovec::default(); MAX_SEGMENTS];
    let len = size_of::<SqIovec>().saturating_mul(count_u);
    // SAFETY: the array has MAX_SEGMENTS >= count elements without padding, and any bytes are a value of them.
    let bytes = unsafe { core::slice::from_raw_parts_mut(vector.as_mut_ptr().cast(), len) };
    copy_in(bytes, addr)?;
    let mut total = 0u64;
    for (segment, piece) in payload.segments.iter_mut().zip(vector).take(count_u) {
        piece.base.checked_add(piece.len).ok_or(Errno::EFAULT)?;
        total = total.checked_add(piece.len).ok_or(Errno::EINVAL)?;
        segment.write(Segment { addr: piece.base, len: piece.len });
    }
    if total > u64::from(limit::TRANSFER_BYTES) {
        return Err(Errno::EINVAL);
    }
    payload.nr = count;
    payload.left = total;
    Ok(())
}

/// The file that an entry names: resolved once, now (SEC-3).
pub(crate) fn file<H: Host>(ring: &Ring<H>, parsed: &Parsed) -> Result<H::File, Errno> {
    if parsed.flags() & sqe_flags::FIXED_FILE == 0 {
        // A worker or polling thread has no descriptors to look in.
        if ring.geometry.mode != Mode::Caller {
            return Err(Errno::EBADF);
        }
        return ring.host.file(parsed.fd());
    }
    let index = u32::try_from(parsed.fd()).map_err(|_| Errno::EBADF)?;
    ring.files
        .with(|files| {
            let table = files.table()?;
            let count = u32::try_from(table.len()).unwrap_or(0);
            table.get(ix(nospec(index, count)?))?.clone()
        })
        .ok_or(Errno::EBADF)
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sizes and places of a ring: chosen once at setup, private ever after (IDX-1).
//!
//! ```text
//!  user region, mapped read-write            kernel region, mapped read-only
//!  0    sq_tail          (submitter)         0    sq_head, sq_state  (drain owner)
//!  128  cq_head, cq_flags  (reaper)          128  cq_tail            (whoever posts)
//!  256  sqes[sq_entries]                     256  broken             (set once)
//!                                            384  cqes[cq_entries]
//! ```
//!
//! Each writer's hot words have a pair of cache lines of their own.

use sq_uapi::consts::{limit, setup_flags};
use sq_uapi::{Errno, SqOffsets, SqRegion, SqSetup};

use crate::ix;
use crate::ring::Mode;

/// Bytes that keep two writers' words apart: adjacent-line prefetch couples lines in pairs.
const PAIR: u32 = 128;
/// Regions begin at a multiple of this, and are a multiple of it long.
const PAGE: u64 = 4096;
/// Offset to `mmap` of the kernel-written region.
const KERNEL_AT: u64 = 1 << 32;
/// Offset to `mmap` of the pool.
const POOL_AT: u64 = 1 << 33;

const DEFAULT_IDLE_MS: u32 = 1000;

/// The shape of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Submission entries, a power of two.
    pub sq_entries: u32,
    /// Completion entries, a power of two, at least `sq_entries`.
    pub cq_entries: u32,
    /// Requests, at most `cq_entries`.
    pub max_inflight: u32,
    /// Buffers of the pool.
    pub buf_count: u32,
    /// Bytes of each.
    pub buf_bytes: u32,
    /// Entries are 128 bytes.
    pub sqe128: bool,
    /// Completions are 32 bytes.
    pub cqe32: bool,
    /// Who drains.
    pub mode: Mode,
    /// How long the polling thread spins on an idle ring.
    pub idle_ns: u64,
    /// CPU of the polling thread.
    pub cpu: Option<u32>,
    /// Set up disabled.
    pub disabled: bool,
    /// The regions.
    pub user: SqRegion,
    /// As above.
    pub kernel: SqRegion,
    /// As above; size 0 without a pool.
    pub pool: SqRegion,
    /// Where the words are.
    pub offsets: SqOffsets,
}

impl Geometry {
    /// Checks a SETUP and works out the shape.
    ///
    /// # Errors
    ///
    /// `EINVAL` for an unknown flag, a reserved field, a combination that has no meaning, or a size out of range.
    pub fn new(setup: &SqSetup) -> Result<Self, Errno> {
        let flags = setup.flags;
        let has = |flag| flags & flag != 0;
        if flags & !setup_flags::ALL != 0 || setup.resv0 != 0 || setup.resv != [0; 4] {
            return Err(Errno::EINVAL);
        }
        // What the kernel side fills in must come as zero: a later version may give it a meaning on the way in.
        if setup.features != 0
            || [setup.user, setup.kernel, setup.pool] != [SqRegion::default(); 3]
            || setup.offsets != SqOffsets::default()
        {
            return Err(Errno::EINVAL);
        }
        let mode = match (has(setup_flags::SQPOLL), has(setup_flags::WORKER)) {
            (false, false) => Mode::Caller,
            (false, true) => Mode::Worker,
            (true, false) => Mode::Poll,
            (true, true) => return Err(Errno::EINVAL),
        };
        let cpu = has(setup_flags::SQ_AFF).then_some(setup.sq_thread_cpu);
        if (mode != Mode::Poll && (cpu.is_some() || setup.sq_thread_idle_ms != 0))
            || (cpu.is_none() && setup.sq_thread_cpu != 0)
        {
            return Err(Errno::EINVAL);
        }
        let clamp = has(setup_flags::CLAMP);
        let sq_entries = entries(setup.sq_entries, limit::SQ_ENTRIES, clamp)?;
        let cq_wanted = if setup.cq_entries == 0 { sq_entries.saturating_mul(2) } else { setup.cq_entries };
        let cq_entries = entries(cq_wanted, limit::CQ_ENTRIES, clamp)?;
        if cq_entries < sq_entries {
            return Err(Errno::EINVAL);
        }
        let most = cq_entries.min(limit::INFLIGHT);
        let max_inflight = match setup.max_inflight {
            0 => (cq_entries >> 1).clamp(1, limit::INFLIGHT),
            n if n <= most => n,
            _ if clamp => most,
            _ => return Err(Errno::EINVAL),
        };
        let pool_bytes = pool_bytes(setup.buf_count, setup.buf_bytes)?;
        let idle_ms = if setup.sq_thread_idle_ms == 0 { DEFAULT_IDLE_MS } else { setup.sq_thread_idle_ms };
        let (sqe128, cqe32) = (has(setup_flags::SQE128), has(setup_flags::CQE32));

        let offsets = SqOffsets {
            sq_tail: 0,
            cq_head: PAIR,
            cq_flags: PAIR.saturating_add(4),
            sqes: PAIR.saturating_mul(2),
            sq_head: 0,
            sq_state: 4,
            cq_tail: PAIR,
            broken: PAIR.saturating_mul(2),
            cqes: PAIR.saturating_mul(3),
            resv: [0; 7],
        };
        let sqe_bytes = if sqe128 { 128 } else { 64 };
        let cqe_bytes = if cqe32 { 32 } else { 16 };
        Ok(Self {
            sq_entries,
            cq_entries,
            max_inflight,
            buf_count: setup.buf_count,
            buf_bytes: setup.buf_bytes,
            sqe128,
            cqe32,
            mode,
            idle_ns: u64::from(idle_ms).saturating_mul(1_000_000),
            cpu,
            disabled: has(setup_flags::R_DISABLED),
            user: SqRegion { offset: 0, size: region(offsets.sqes, sq_entries, sqe_bytes) },
            kernel: SqRegion { offset: KERNEL_AT, size: region(offsets.cqes, cq_entries, cqe_bytes) },
            pool: SqRegion { offset: if pool_bytes == 0 { 0 } else { POOL_AT }, size: pool_bytes },
            offsets,
        })
    }

    /// Writes into a SETUP what was made of it.
    pub const fn report(&self, setup: &mut SqSetup, features: u64) {
        setup.sq_entries = self.sq_entries;
        setup.cq_entries = self.cq_entries;
        setup.max_inflight = self.max_inflight;
        setup.features = features;
        setup.user = self.user;
        setup.kernel = self.kernel;
        setup.pool = self.pool;
        setup.offsets = self.offsets;
    }

    /// Requests that may wait without bound, at most: they leave an eighth of the completion slots, and at least one, to what
    /// can complete, and one request, without which no entry is accepted (CQ-4).
    #[must_use]
    pub fn most_indefinite(&self) -> u32 {
        let slots = self.cq_entries.saturating_sub((self.cq_entries >> 3).max(1));
        slots.min(self.max_inflight.saturating_sub(1))
    }

    /// The segment `off..off + len` of buffer `index` as an offset in the pool, or `None` if it is not all inside.
    #[must_use]
    pub fn pool_offset(&self, index: u16, off: u64, len: u32) -> Option<u64> {
        let index = nospec(u32::from(index), self.buf_count)?;
        let bytes = u64::from(self.buf_bytes);
        if off > bytes || u64::from(len) > bytes.wrapping_sub(off) {
            return None;
        }
        let off = off & fits(off, bytes);
        u64::from(index).checked_mul(u64::from(self.buf_bytes))?.checked_add(off)
    }
}

/// `index` if it is below `len`, and 0 on a path that the processor only speculates on (SEC-1).
pub(crate) fn nospec(index: u32, len: u32) -> Option<u32> {
    if index >= len {
        return None;
    }
    let index = u64::from(index) & fits(u64::from(index).wrapping_add(1), u64::from(len));
    u32::try_from(index).ok()
}

/// All ones if `value` is at most `most`, which is below 2^63, and 0 otherwise, without a branch to mispredict.
fn fits(value: u64, most: u64) -> u64 {
    // What a branch before says of it is forgotten: by that there would be nothing to compute.
    let value = core::hint::black_box(value);
    // The top bit is set if the value has it, or the difference.
    let above = (value | most.wrapping_sub(value)).cast_signed().wrapping_shr(63).cast_unsigned();
    !above
}

fn entries(wanted: u32, most: u32, clamp: bool) -> Result<u32, Errno> {
    match wanted {
        0 => Err(Errno::EINVAL),
        n if n <= most => n.checked_next_power_of_two().ok_or(Errno::EINVAL),
        _ if clamp => Ok(most),
        _ => Err(Errno::EINVAL),
    }
}

fn pool_bytes(count: u32, bytes: u32) -> Result<u64, Errno> {
    if (count == 0) != (bytes == 0) || count > limit::BUFS || bytes > limit::BUF_BYTES {
        return Err(Errno::EINVAL);
    }
    let total = u64::from(count).saturating_mul(u64::from(bytes));
    if !u64::from(bytes).is_multiple_of(PAGE) || total > limit::POOL_BYTES {
        return Err(Errno::EINVAL);
    }
    Ok(total)
}

fn region(start: u32, count: u32, each: u64) -> u64 {
    let bytes = u64::from(count).saturating_mul(each).saturating_add(u64::from(start));
    bytes.div_ceil(PAGE).saturating_mul(PAGE)
}

const _: () = assert!(ix(limit::CQ_ENTRIES).is_power_of_two() && ix(limit::SQ_ENTRIES).is_power_of_two());

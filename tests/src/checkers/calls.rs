// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a call must say to any bytes, worked out from docs/protocol.md ("Arguments of the calls").

use arbitrary::{Arbitrary, Result as Made, Unstructured};
use kmod_sq::{Geometry, Host, Ring, RingRef, call, query};
use sq_driver::Bound;
use sq_uapi::consts::{features, limit};
use sq_uapi::{Errno, SqQuery, SqSetup, ioctl};

use super::hostile::{Access, UserSide};
use super::hostile_host::{HostileHost, hostile_ring};
use super::probe::Probe;
use super::program::{Call, Shape};

/// Calls, on a ring of this shape or of the last one that a call of SETUP asked for.
#[derive(Clone, Debug)]
pub struct Session {
    shape: Shape,
    calls: Vec<Call>,
}

impl<'a> Arbitrary<'a> for Session {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> Made<Self> {
        let mut session = Self { shape: bytes.arbitrary()?, calls: Vec::new() };
        while !bytes.is_empty() {
            session.calls.push(bytes.arbitrary()?);
        }
        Ok(session)
    }
}

fn ring_of(setup: &SqSetup) -> Option<RingRef<HostileHost>> {
    // A large ring is as any other, but slower to make.
    let small = Geometry::new(setup).is_ok_and(|geometry| geometry.cq_entries <= 64);
    if !small {
        return None;
    }
    hostile_ring(setup, &Probe::<true>, Box::new(|_: Access, _: &mut UserSide| ())).ok().map(|(ring, _)| ring)
}

/// Makes all calls of a session.
///
/// # Panics
///
/// If one does what it must not.
pub fn run(session: &Session) {
    // SAFETY: the table is Probe's own, and Probe has no data to speak of.
    let bound =
        unsafe { Bound::new(sq_driver::table::<Probe<true>>(), std::ptr::from_ref(&Probe::<true>).cast()) }.unwrap();
    let mut ring = ring_of(&session.shape.setup());
    for call in &session.calls {
        if let Some(setup) = without_ring(call, &bound) {
            ring = ring_of(&setup).or(ring);
        }
        let Some(ring) = &ring else { continue };
        on_ring(call, ring);
        assert!(ring.balanced(), "CQ-5");
    }
}

/// Makes a call on a ring, and judges it.
///
/// # Panics
///
/// If it is not what it must be.
pub fn on_ring(call: &Call, ring: &RingRef<HostileHost>) {
    let (number, known) = call.number();
    let mut argument = call.argument();
    let before = argument.clone();
    let result = call::ring_call(ring, number, &mut argument);
    judge(number, known, &before, &argument, result);
}

/// What is wrong with the size of an argument of `known` bytes at most, if anything is.
fn wrong_size(known: usize, argument: &[u8]) -> Option<Errno> {
    let (first, rest) = argument.split_at(argument.len().min(known));
    if first.len() < known {
        return Some(Errno::EINVAL);
    }
    if rest.iter().any(|byte| *byte != 0) {
        return Some(Errno::E2BIG);
    }
    let says = u32::from_le_bytes([first[0], first[1], first[2], first[3]]);
    (says as usize != argument.len()).then_some(Errno::EINVAL)
}

/// Judges a call on a ring: its argument before and after, and what it returned.
fn judge(number: u32, known: usize, before: &[u8], after: &[u8], result: Result<u32, Errno>) {
    let on_a_ring = [ioctl::ENTER, ioctl::REGISTER, ioctl::QUIESCE, ioctl::CANCEL, ioctl::STATS].contains(&number);
    if !on_a_ring {
        assert_eq!(result, Err(Errno::ENOTTY), "{number:#x} is not a call on a ring");
    } else if number == ioctl::ENTER && before.is_empty() {
        // The bare doorbell.
    } else if let Some(errno) = wrong_size(known, before) {
        assert_eq!(result, Err(errno), "{} bytes for {number:#x}", before.len());
    }
    assert_eq!(before.len(), after.len());
    let writes = result.is_ok() && [ioctl::ENTER, ioctl::STATS].contains(&number);
    if !writes {
        assert_eq!(before, after, "an argument that is not for writing, or was refused, stays as it was");
    }
    assert_eq!(before.get(..4), after.get(..4), "the size stays");
    assert!(after.iter().skip(known).all(|byte| *byte == 0) || result.is_err(), "what is not known stays 0");
}

/// Makes the calls that need no ring, and judges them. A SETUP that was right comes back.
fn without_ring(call: &Call, bound: &Bound) -> Option<SqSetup> {
    let (number, known) = call.number();
    let mut argument = call.argument();
    match number {
        ioctl::SETUP => {
            let setup: Result<SqSetup, _> = call::read(&argument);
            let Ok(mut setup) = setup else {
                assert_eq!(setup.err(), wrong_size(known, &argument));
                return None;
            };
            assert_eq!(wrong_size(known, &argument), None);
            let asked = setup;
            let geometry = Geometry::new(&setup).ok()?;
            shape_is_sound(&setup, &geometry);
            // A ring has what its device has, but a pool only if it was asked for.
            let has = Ring::<HostileHost>::features(&geometry, bound);
            let may = query(bound, &<HostileHost>::ABILITIES, &SqQuery::default()).unwrap().features;
            let no_pool = if geometry.pool.size == 0 { features::BUF_POOL } else { 0 };
            assert_eq!(has, may & !no_pool);
            geometry.report(&mut setup, has);
            call::write(&setup, &mut argument);
            assert_eq!(argument[4..8], setup.flags.to_le_bytes());
            return Some(asked);
        }
        ioctl::QUERY => {
            let asked: Result<SqQuery, _> = call::read(&argument);
            let Ok(asked) = asked else {
                assert_eq!(asked.err(), wrong_size(known, &argument));
                return None;
            };
            // Everything but the size is the kernel side's to fill in.
            let blank = argument[4..].iter().all(|byte| *byte == 0);
            let answer = query(bound, &<HostileHost>::ABILITIES, &asked);
            assert_eq!(answer.is_ok(), blank, "{answer:?}");
            if let Ok(answer) = answer {
                call::write(&answer, &mut argument);
                assert_eq!(argument[..4], answer.size.to_le_bytes());
                assert_eq!((answer.max_sq_entries, answer.resv), (limit::SQ_ENTRIES, [0; 3]));
            }
        }
        _ => {}
    }
    None
}

/// IDX-1, MEM-1: what a SETUP was made into is within every limit, and its parts lie beside each other.
fn shape_is_sound(setup: &SqSetup, geometry: &Geometry) {
    let Geometry { sq_entries, cq_entries, max_inflight, buf_count, buf_bytes, user, kernel, pool, offsets, .. } =
        *geometry;
    assert!(sq_entries.is_power_of_two() && sq_entries <= limit::SQ_ENTRIES);
    assert!(cq_entries.is_power_of_two() && (sq_entries..=limit::CQ_ENTRIES).contains(&cq_entries));
    assert!((1..=cq_entries.min(limit::INFLIGHT)).contains(&max_inflight));
    assert!(geometry.most_indefinite() < max_inflight && geometry.most_indefinite() < cq_entries);
    assert_eq!((setup.features, setup.resv0, setup.resv), (0, 0, [0; 4]));
    let [sqe, cqe] = [if geometry.sqe128 { 128 } else { 64 }, if geometry.cqe32 { 32 } else { 16 }];
    assert!(u64::from(offsets.sqes) + u64::from(sq_entries) * sqe <= user.size);
    assert!(u64::from(offsets.cqes) + u64::from(cq_entries) * cqe <= kernel.size);
    assert_eq!(pool.size, u64::from(buf_count) * u64::from(buf_bytes));
    assert!(pool.size <= limit::POOL_BYTES && u64::from(buf_bytes) % 4096 == 0);
    assert!(user.offset + user.size <= kernel.offset);
    assert!(pool.size == 0 || kernel.offset + kernel.size <= pool.offset);
    // No part of a buffer is outside the pool.
    for (index, off, len) in [(0, 0, buf_bytes), (buf_count, 0, 0), (buf_count.wrapping_sub(1), buf_bytes, 1)] {
        let place = geometry.pool_offset(index as u16, off.into(), len);
        assert!(place.is_none_or(|at| at + u64::from(len) <= pool.size));
    }
}

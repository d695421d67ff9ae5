// SPDX-License-Identifier: MIT OR Apache-2.0
//! Transfers to and from the ram driver: what they are, the memory that a program has for them, and the bytes that there should be.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use liburing_shm::{Backend, Pool, RawEntry};
use sq_uapi::consts::{op, sqe_flags};
use sq_uapi::{Errno, SqIovec, Sqe};

/// The store's length. The guest loads the module with as many.
pub(crate) const END: u64 = 64 << 10;
/// What an entry has to itself of its program's memory, and of the pool.
const PLACE: usize = 64;
/// More entries than a program has.
const PLACES: usize = 256;
const BUFFER: usize = 4096;

/// The bytes of one.
pub(crate) type Place = [u8; PLACE];

#[derive(Clone, Copy, Debug)]
pub(crate) struct Transfer {
    pub(crate) write: bool,
    pub(crate) form: Form,
    pub(crate) off: u64,
    /// Up to [`PLACE`].
    pub(crate) len: u8,
    pub(crate) later: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Plain,
    /// In two segments.
    Vector,
    /// In the pool.
    Fixed,
    /// At an address that nobody has mapped.
    Astray,
}

impl Transfer {
    /// Without its addresses.
    pub(crate) fn sqe(self, nop: Sqe) -> Sqe {
        let opcode = match (self.form, self.write) {
            (Form::Plain | Form::Astray, false) => op::READ,
            (Form::Plain | Form::Astray, true) => op::WRITE,
            (Form::Vector, false) => op::READV,
            (Form::Vector, true) => op::WRITEV,
            (Form::Fixed, false) => op::READ_FIXED,
            (Form::Fixed, true) => op::WRITE_FIXED,
        };
        let flags = nop.flags | if self.later { sqe_flags::ASYNC } else { 0 };
        Sqe { opcode, flags, off: self.off, len: self.len.into(), ..nop }
    }

    /// What is in its place beforehand.
    fn fresh(self, serial: u64) -> Place {
        std::array::from_fn(|at| if self.write { (serial as u8).wrapping_mul(37).wrapping_add(at as u8) } else { 0xee })
    }
}

/// What the store holds, if entries do what they say.
pub(crate) struct Store(Vec<u8>);

impl Store {
    pub(crate) fn new() -> Self {
        Self(vec![0; END as usize])
    }

    /// Does one transfer. Returns its result, and what is in its place afterwards.
    pub(crate) fn run(&mut self, transfer: Transfer, serial: u64) -> (i32, Place) {
        let mut place = transfer.fresh(serial);
        let at = transfer.off.min(END) as usize;
        let inside = usize::from(transfer.len).min(END as usize - at);
        let stored = &mut self.0[at..at + inside];
        let errno = match transfer {
            Transfer { off, .. } if off > i64::MAX as u64 => Errno::EINVAL,
            Transfer { write: true, len: 1.., .. } if inside == 0 => Errno::ENOSPC,
            Transfer { form: Form::Astray, .. } if inside > 0 => Errno::EFAULT,
            Transfer { write: true, .. } => {
                stored.copy_from_slice(&place[..inside]);
                return (inside as i32, place);
            }
            Transfer { write: false, .. } => {
                place[..inside].copy_from_slice(stored);
                return (inside as i32, place);
            }
        };
        (errno.to_res(), place)
    }
}

/// A program's memory. It stays until its ring is gone.
pub(crate) struct Hands {
    /// First: with it goes the ring, if that was not its last reference before.
    pool: Pool,
    bytes: Box<[AtomicU8]>,
    vectors: Box<[[SqIovec; 2]]>,
}

impl Hands {
    pub(crate) const POOL: (u16, u32) = ((PLACES * PLACE / BUFFER) as u16, BUFFER as u32);

    pub(crate) fn new(pool: Pool) -> Self {
        Self {
            bytes: (0..PLACES * PLACE).map(|_| AtomicU8::new(0)).collect(),
            vectors: vec![[SqIovec { base: 0, len: 0 }; 2]; PLACES].into(),
            pool,
        }
    }

    fn buffer(serial: u64) -> (u16, u32) {
        let at = serial as usize * PLACE;
        ((at / BUFFER) as u16, (at % BUFFER) as u32)
    }

    /// Fills in where its bytes are, and those.
    pub(crate) fn hand_over(&mut self, transfer: Transfer, serial: u64, sqe: &mut Sqe) {
        let fresh = transfer.fresh(serial);
        let place = &self.bytes[serial as usize * PLACE..][..PLACE];
        let addr = place.as_ptr().expose_provenance() as u64;
        match transfer.form {
            Form::Astray => sqe.addr = 8,
            Form::Fixed => {
                let (buffer, at) = Self::buffer(serial);
                self.pool.write(buffer, at, &fresh).expect("a place in the pool");
                (sqe.buf_index, sqe.addr) = (buffer, at.into());
                return;
            }
            Form::Plain => sqe.addr = addr,
            Form::Vector => {
                let (len, first) = (u64::from(transfer.len), u64::from(transfer.len) / 3);
                let vector = &mut self.vectors[serial as usize];
                *vector = [SqIovec { base: addr, len: first }, SqIovec { base: addr + first, len: len - first }];
                (sqe.addr, sqe.len) = (vector.as_ptr().expose_provenance() as u64, 2);
            }
        }
        place.iter().zip(fresh).for_each(|(byte, fresh)| byte.store(fresh, Relaxed));
    }

    /// What is in its place.
    pub(crate) fn place(&self, transfer: Transfer, serial: u64) -> Place {
        let mut place = [0; PLACE];
        match transfer.form {
            Form::Fixed => {
                let (buffer, at) = Self::buffer(serial);
                self.pool.read(buffer, at, &mut place).expect("a place in the pool");
            }
            _ => place = std::array::from_fn(|at| self.bytes[serial as usize * PLACE + at].load(Relaxed)),
        }
        place
    }
}

/// The store as a program finds it: all zeros.
pub(crate) fn clear(backend: &Backend) {
    let zeros = vec![0u8; END as usize];
    let addr = zeros.as_ptr().expose_provenance() as u64;
    let write = RawEntry::of(Sqe { opcode: op::WRITE, addr, len: END as u32, ..Sqe::NOP });
    // SAFETY: the call does not return before it is done with the bytes.
    let written = unsafe { backend.open().expect("the store").issue_raw(&write) };
    assert_eq!(written, Ok(END as u32));
}

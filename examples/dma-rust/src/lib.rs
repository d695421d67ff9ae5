// SPDX-License-Identifier: MIT OR Apache-2.0
//! /dev/sqdma: a driver with the shape of real hardware, over a simulated engine.
//!
//! - A batch of entries becomes a batch of descriptors, and the device's doorbell is rung once, in [`Driver::commit`].
//! - Completions come from an interrupt: [`Engine::interrupt`], called by an hrtimer in the module and by a thread in a process.
//! - A cancel stops a descriptor, whether the engine has begun it or not.
//!
//! Only the timing of a transfer is simulated; no bytes are moved.
#![no_std]
#![deny(unsafe_code)]

mod engine;
#[cfg(target_os = "none")]
mod module;
#[cfg(not(target_os = "none"))]
mod process;

use core::ops::Deref;

use sq_driver::{Driver, Errno, Issued, Op, Opcodes, RequestId, op};

pub use engine::{Engine, Event, SLOTS, Timer};
#[cfg(not(target_os = "none"))]
pub use process::Ticker;

sq_driver::command! {
    /// Transfers so many bytes, at 1 GB/s, and completes with their number.
    pub struct Transfer = 0 {
        /// Bytes, at most a second's worth.
        pub bytes: u32,
    }

    /// Completes with the low 31 bits of a counter: an [`Event`].
    pub struct Count = 1 {
        /// Which one.
        pub event: u32,
    }
}

/// Most bytes of a transfer.
const MAX_BYTES: u32 = 1_000_000_000;

/// The driver of an engine, wherever that lives.
#[derive(Debug)]
pub struct Dma<E>(E);

impl<E, T> Driver for Dma<E>
where
    E: Deref<Target = Engine<T>> + Send + Sync + 'static,
    T: Timer,
{
    const NAME: &'static core::ffi::CStr = c"dma";
    const OPCODES: Opcodes = Opcodes::NONE.with(op::CMD);
    const BATCHES: bool = true;

    fn issue<'op>(&self, op: Op<'op>) -> Issued<'op> {
        if let Some(Count { event }) = op.entry().command() {
            return op.finish(Event::from_number(event).map(|event| self.0.count(event)).ok_or(Errno::EINVAL));
        }
        match op.entry().command() {
            Some(Transfer { bytes: 0 | MAX_BYTES.. }) => op.fail(Errno::EINVAL),
            Some(Transfer { bytes }) => match self.0.reserve() {
                None => op.fail(Errno::EBUSY),
                Some(descriptor) => {
                    let (request, issued) = op.defer();
                    self.0.post(descriptor, request, bytes);
                    issued
                }
            },
            None => op.fail(Errno::EOPNOTSUPP),
        }
    }

    // One doorbell a batch, however many descriptors it posted.
    fn commit(&self) {
        self.0.ring_doorbell();
    }

    // Bounded: what is not there has been completed, or is about to be by whoever took it.
    fn cancel(&self, id: RequestId) {
        self.0.stop(id);
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel side of an sq ring.
//!
//! This crate knows no kernel and no libc. It runs in three homes that differ by two traits: the memory it shares with user
//! space ([`sq_uapi::KernelMem`], hot, monomorphised) and everything else it needs from around it ([`Host`], cold).
//! What is fuzzed and model-checked is the very code that is loaded.
//!
//! # The path of an entry
//!
//! ```text
//!  shared slot --snapshot--> private words --parse--> Parsed --accept--> RawOp --driver--> result --> completion
//!                                                                                  |
//!                                                                                  +--> Request ... later --> completion
//! ```
//!
//! Only [`snapshot`] can touch the slot; only what [`parse`] accepted reaches a driver. An entry that completes inline
//! touches no request, makes no call to [`Host`] and allocates nothing; while no request is in flight, it takes no lock either.
//!
//! # Threat model
//!
//! User space may write any user-written word at any time, ring or not ring the doorbell as it likes, from any number
//! of threads. It can break its own ring ([`Ring::is_broken`]); it cannot make this side read outside its arrays, act on
//! an entry that it changed after the snapshot, lose a completion or use memory without bound. Each rule cited here as
//! `IDX-3`, `BELL-1` and so on is in docs/protocol.md; the tests that hold it have its id in their names or in what they say.
//!
//! # What it does not do (yet)
//!
//! Links, drain barriers, timeouts, multishot requests and registered user buffers are refused.
#![no_std]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::float_arithmetic
)]

#[cfg(loom)]
extern crate std;

mod accept;
pub mod call;
mod cancel;
mod cq;
mod door;
mod drain;
mod enter;
mod geometry;
mod host;
mod issue;
mod look;
pub mod parse;
mod poll;
mod posted;
mod query;
mod register;
mod request;
mod ring;
pub mod snapshot;
mod sq;
mod sync;

pub use door::{Caller, Doors, Issued, Pool, Slot, Source, Tasks};
pub use geometry::Geometry;
pub use host::{Abilities, Event, Host, HostFile, Lock, Notify, Waited};
pub use look::Look;
pub use poll::{Polled, Poller};
pub use query::query;
pub use ring::{Mode, Ready, Ring, RingRef};
#[cfg(loom)]
pub use sync::model;

/// A `u32` as an index.
#[expect(clippy::as_conversions, reason = "usize has 64 bits here: widening")]
const fn ix(value: u32) -> usize {
    value as usize
}

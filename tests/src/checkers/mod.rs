// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memories and surroundings that check a ring while it runs.
//!
//! The ring's code is generic over its memory and its host, so what runs here is what is loaded: `liburing_shm::ring` on
//! the user side, `kmod_sq::Ring` on the kernel side.
//!
//! - with `--cfg loom`: `loom_mem` and `model_host`, all interleavings and all stale loads of a small program, by
//!   the loom model checker. `Weaken` makes one ordering weaker or drops one fence, to show that the models notice.
//! - with `--cfg shuttle`: `shuttle_mem` and `model_host`, random interleavings of many threads.
//! - without: [`hostile`], a memory whose user side changes between any two loads, with oracles for what the kernel
//!   side may do with it; [`program`], what users may do, made from any bytes; [`world`], which runs it, and [`judge`], which
//!   says what must come of it. Fuzz targets and seeds are the same programs. And a second thread on real memory: [`attack`], and whom
//!   it breaks into or not, [`victim`].

#[cfg(not(loom))]
pub mod attack;
#[cfg(not(loom))]
pub mod calls;
#[cfg(not(loom))]
pub mod doors;
#[cfg(not(loom))]
pub mod entries;
#[cfg(not(loom))]
pub mod hostile;
#[cfg(not(loom))]
pub mod hostile_host;
#[cfg(not(loom))]
pub mod interleave;
#[cfg(not(loom))]
pub mod judge;
#[cfg(loom)]
pub mod loom_mem;
#[cfg(loom)]
pub mod loom_run;
#[cfg(any(loom, shuttle))]
pub mod model_host;
#[cfg(any(loom, shuttle))]
pub mod model_sync;
#[cfg(not(loom))]
mod pairing;
#[cfg(not(loom))]
pub mod probe;
#[cfg(not(loom))]
pub mod program;
#[cfg(not(loom))]
pub mod published;
#[cfg(shuttle)]
pub mod shuttle_mem;
pub mod slots;
#[cfg(not(loom))]
pub mod victim;
#[cfg(not(loom))]
pub mod vulnerable;
#[cfg(not(loom))]
pub mod world;

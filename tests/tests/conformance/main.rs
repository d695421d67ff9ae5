// SPDX-License-Identifier: MIT OR Apache-2.0
//! The conformance suite: written once, against the library, and run on the embedded backend and, in a guest with
//! `SQ_BACKEND=device`, on `/dev/sq*`.

mod calls;
mod cancel;
mod common;
mod completion;
mod door;
mod modes;
mod register;
mod submit;
mod wait;
mod wedges;

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The user half of a ring: one producer of entries, one consumer of completions.
//!
//! Both are generic over the memory, so that checkers drive them together with the kernel side. They do not know the
//! backend: they say when the doorbell has to be rung, and whoever holds them rings it.

mod consumer;
mod producer;

pub use consumer::Consumer;
pub use producer::{Full, Producer};

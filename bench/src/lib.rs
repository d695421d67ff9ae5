// SPDX-License-Identifier: MIT OR Apache-2.0
//! What sq is compared with, and where it is measured. The benchmarks are in `benches/sq/`, the exact counts in `examples/insns/`.

pub mod bare;
pub mod baseline;
pub mod cpu;
pub mod uring;

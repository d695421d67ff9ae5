// SPDX-License-Identifier: MIT OR Apache-2.0
//! Benchmarks of sq beside a plain ioctl and io_uring: see `benches/`.

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The conformance suite of sq, and the memories and models that check it.

pub mod checkers;
pub mod guest;

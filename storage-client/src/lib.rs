// SPDX-License-Identifier: MIT OR Apache-2.0
//! A storage client on sq rings.

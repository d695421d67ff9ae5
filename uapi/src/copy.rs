// SPDX-License-Identifier: MIT OR Apache-2.0
//! Copying bytes that somebody else may be writing.

use core::sync::atomic::{AtomicU64, Ordering};

/// Copies 64 bytes of an entry: each word is loaded once (SNAP-1).
#[inline]
#[must_use]
pub fn load_entry(words: &[AtomicU64; 8]) -> [u64; 8] {
    // Unrolled by hand: a rolled loop costs twice as much.
    let [a, b, c, d, e, f, g, h] = words;
    [
        a.load(Ordering::Relaxed),
        b.load(Ordering::Relaxed),
        c.load(Ordering::Relaxed),
        d.load(Ordering::Relaxed),
        e.load(Ordering::Relaxed),
        f.load(Ordering::Relaxed),
        g.load(Ordering::Relaxed),
        h.load(Ordering::Relaxed),
    ]
}

/// Copies `len` bytes between places that do not overlap, either of which may be written by others meanwhile.
///
/// A plain `memcpy` on such bytes would be a data race in Rust's eyes. One string instruction in assembly is not: to the
/// compiler it is an opaque access by the machine, like a device's. On every x86-64 since 2012 it is also as fast.
///
/// # Safety
///
/// `src` is readable and `dst` writable for `len` bytes, and no Rust reference to either claims that they are stable.
#[inline]
pub unsafe fn copy_shared(dst: *mut u8, src: *const u8, len: usize) {
    // SAFETY: the contract; `rep movsb` with a clear direction flag (guaranteed by the ABI) touches exactly those bytes.
    unsafe {
        core::arch::asm!(
            "rep movsb",
            inout("rcx") len => _,
            inout("rdi") dst => _,
            inout("rsi") src => _,
            options(nostack, preserves_flags),
        );
    }
}

#[cfg(not(target_arch = "x86_64"))]
compile_error!("sq is for x86-64 only, for now");

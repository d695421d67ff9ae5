// SPDX-License-Identifier: MIT OR Apache-2.0
//! The panic handler of every module with Rust in it; include/sq_panic.h is its C half.

use core::panic::PanicInfo;

unsafe extern "C" {
    fn sq_panic(file: *const u8, len: usize, line: u32) -> !;
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let (file, line) = info.location().map_or(("?", 0), |at| (at.file(), at.line()));
    // SAFETY: the bytes of a str; the function prints them and does not return.
    unsafe { sq_panic(file.as_ptr(), file.len(), line) }
}

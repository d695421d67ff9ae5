// SPDX-License-Identifier: MIT OR Apache-2.0
//! SNAP-1, counted: the processor's watchpoints on the words of an entry say how often the kernel has loaded each.

use std::fs::File;
use std::io::Read;
use std::os::fd::FromRawFd;

use io_uring::squeue::Flags;
use sq_uapi::Sqe;

use super::common::{device, echo, open, result};
use super::issue::issue;
use super::uring_rig::{Pointer, Rig, has_commands};

/// So many watchpoints a processor has.
const WATCHED: usize = 4;

/// Counts what the kernel does at a word, on behalf of this thread.
struct Watch(File);

impl Watch {
    /// `None`, and a word about it, if it cannot be had.
    fn new(word: &u64) -> Option<Self> {
        // struct perf_event_attr, as long as it was when it had breakpoints' lengths and branch types: VER5.
        const SIZE: u64 = 112;
        const BREAKPOINT: u64 = 5;
        const EXCLUDE_USER: u64 = 1 << 4;
        const READ_OR_WRITE: u64 = 3;
        let mut attr = [0u64; SIZE as usize / 8];
        (attr[0], attr[5], attr[6]) = (BREAKPOINT | SIZE << 32, EXCLUDE_USER, READ_OR_WRITE << 32);
        (attr[7], attr[8]) = (std::ptr::from_ref(word).expose_provenance() as u64, 8);
        // SAFETY: reads the attributes, which say their size. This thread, any processor, no group, no flag but CLOEXEC.
        let fd = unsafe { libc::syscall(libc::SYS_perf_event_open, attr.as_ptr(), 0, -1, -1, 8) };
        if fd < 0 {
            println!("SKIP: no watchpoints here: {}", std::io::Error::last_os_error());
            return None;
        }
        // SAFETY: just made, and nobody else's.
        Some(Self(unsafe { File::from_raw_fd(fd as i32) }))
    }

    fn count(&mut self) -> u64 {
        let mut count = [0; 8];
        self.0.read_exact(&mut count).unwrap();
        u64::from_le_bytes(count)
    }
}

/// Loads of each word of the entry while `act` runs.
fn loads(words: &[u64; 8], mut act: impl FnMut()) -> Option<[u64; 8]> {
    let mut loads = [0; 8];
    for (words, loads) in words.chunks(WATCHED).zip(loads.chunks_mut(WATCHED)) {
        let mut watches = words.iter().map(Watch::new).collect::<Option<Vec<_>>>()?;
        act();
        for (watch, load) in watches.iter_mut().zip(loads) {
            *load = watch.count();
        }
    }
    Some(loads)
}

/// Bare, with a command of its own, failing, and refused.
fn entries() -> [&'static [u64; 8]; 5] {
    let refused = Sqe { personality: 1, ..Sqe::NOP };
    let opcode = Sqe { opcode: 200, ..Sqe::NOP };
    [Sqe::NOP, echo(5), result(-5), refused, opcode].map(|sqe| &*Box::leak(Box::new(sqe.to_words())))
}

fn sqe_at(words: &'static [u64; 8]) -> &'static Sqe {
    // SAFETY: a Sqe is these eight words, any bits are one, and nothing changes them.
    unsafe { &*std::ptr::from_ref(words).cast() }
}

#[test]
fn snap1_each_word_is_loaded_once() {
    let Some(_one) = device() else { return };
    let file = open();
    for words in entries() {
        let counted = loads(words, || _ = issue(&file, sqe_at(words)));
        let Some(counted) = counted else { return };
        assert_eq!(counted, [1; 8], "by the ioctl: {words:x?}");
    }
    if !has_commands() {
        return;
    }
    let mut rig = Rig::<Pointer>::new(&file);
    for words in entries() {
        let counted = loads(words, || {
            rig.push_at(sqe_at(words), Flags::empty(), 0);
            rig.wait(1);
        });
        assert_eq!(counted, Some([1; 8]), "by the address in a command: {words:x?}");
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bugs, planted around the ring: in its memory and its driver. (The third, a wake-up that is lost, is `HostileHost::deaf`.)

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use sq_conformance::checkers::hostile::HostileMem;
use sq_driver::{Driver, Errno, Issued, Op, Opcodes, Request, RequestId, op};
use sq_uapi::{CqePlace, Fence, KernelMem, KernelWord, UserMem, UserWord};

/// A memory in which one completion in eleven is the one before once more.
#[derive(Clone)]
pub(crate) struct Twice {
    mem: HostileMem,
    last: Arc<AtomicU32>,
}

impl Twice {
    pub(crate) fn new(mem: HostileMem) -> Self {
        Self { mem, last: Arc::default() }
    }
}

/// A completion's place.
pub(crate) struct Place<'a> {
    twice: &'a Twice,
    index: u32,
    place: <HostileMem as KernelMem>::Place<'a>,
}

impl CqePlace for Place<'_> {
    fn write(self, [user_data, result]: [u64; 2]) {
        self.write_wide([user_data, result, 0, 0]);
    }

    fn write_wide(self, words: [u64; 4]) {
        let Twice { mem, last } = self.twice;
        let count = last.fetch_add(1, SeqCst);
        let words = if count % 11 == 10 { mem.read_cqe(self.index.wrapping_sub(1)) } else { words };
        self.place.write_wide(words);
    }
}

impl KernelMem for Twice {
    type Place<'a> = Place<'a>;

    fn load_user(&self, word: UserWord) -> u32 {
        self.mem.load_user(word)
    }

    fn store_kernel(&self, word: KernelWord, value: u32) {
        self.mem.store_kernel(word, value);
    }

    fn sqe_run(&self, head: u32, most: u32) -> impl ExactSizeIterator<Item = [u64; 8]> {
        self.mem.sqe_run(head, most)
    }

    fn copy_sqe_tail(&self, index: u32) -> [u64; 8] {
        self.mem.copy_sqe_tail(index)
    }

    fn cqe_run(&self, tail: u32, most: u32) -> impl ExactSizeIterator<Item = Place<'_>> {
        let place = move |(n, place)| Place { twice: self, index: tail.wrapping_add(n), place };
        (0..u32::MAX).zip(self.mem.cqe_run(tail, most)).map(place)
    }

    fn kernel_fence(&self, site: Fence) {
        self.mem.kernel_fence(site);
    }
}

// SAFETY: they are those of `mem`.
unsafe impl UserMem for Twice {
    type Slots = <HostileMem as UserMem>::Slots;

    fn sq_entries(&self) -> u32 {
        self.mem.sq_entries()
    }

    fn load_kernel(&self, word: KernelWord) -> u32 {
        self.mem.load_kernel(word)
    }

    fn store_user(&self, word: UserWord, value: u32) {
        self.mem.store_user(word, value);
    }

    fn slots(&self, tail: u32, room: u32) -> Self::Slots {
        self.mem.slots(tail, room)
    }

    unsafe fn write_sqe_tail(&self, index: u32, words: [u64; 8]) {
        // SAFETY: the caller's.
        unsafe { self.mem.write_sqe_tail(index, words) };
    }

    fn read_cqe(&self, index: u32) -> [u64; 4] {
        self.mem.read_cqe(index)
    }

    fn user_fence(&self, site: Fence) {
        self.mem.user_fence(site);
    }
}

thread_local!(static KEPT: RefCell<Vec<Request>> = const { RefCell::new(Vec::new()) });

/// What the last program left behind is dropped.
pub(crate) fn forget() {
    drop(KEPT.take());
}

/// The null driver, but it keeps what never completes itself; `DEAF` to one cancel in three.
pub(crate) struct Keeper<const DEAF: bool>;

impl<const DEAF: bool> Driver for Keeper<DEAF> {
    const NAME: &'static core::ffi::CStr = c"keeper";
    const OPCODES: Opcodes = Opcodes::NONE.with(op::NOP).with(op::CMD);

    fn issue<'op>(&self, op: Op<'op>) -> Issued<'op> {
        if op.entry().opcode() != op::CMD || op.entry().cmd_op() != sq_null::cmd::NEVER {
            return sq_null::Null.issue(op);
        }
        match op.defer_indefinite() {
            Ok((request, issued)) => {
                KEPT.with_borrow_mut(|kept| kept.push(request));
                issued
            }
            Err(busy) => busy,
        }
    }

    fn cancel(&self, id: RequestId) {
        if DEAF && id.raw().is_multiple_of(3) {
            return;
        }
        let found = KEPT.with_borrow_mut(|kept| {
            let at = kept.iter().position(|request| request.id() == id)?;
            Some(kept.remove(at))
        });
        if let Some(request) = found {
            request.complete(Err(Errno::ECANCELED));
        }
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! IDX-4: how often the kernel side touches the shared indices for a batch.
#![cfg(not(loom))]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use kmod_sq::Geometry;
use sq_conformance::checkers::hostile::{Access, HostileMem, UserSide};
use sq_conformance::checkers::hostile_host::ring_over;
use sq_conformance::checkers::slots::WriteSqe;
use sq_null::Null;
use sq_uapi::{Fence, KernelMem, KernelWord, SqSetup, Sqe, UserMem, UserWord};

/// A memory that counts loads and stores of words.
#[derive(Clone)]
struct Counting {
    mem: HostileMem,
    counts: Arc<Mutex<BTreeMap<String, u32>>>,
}

impl Counting {
    fn count(&self, what: String) {
        *self.counts.lock().unwrap().entry(what).or_default() += 1;
    }

    /// Since the last call.
    fn counted(&self) -> [u32; 3] {
        let counts = std::mem::take(&mut *self.counts.lock().unwrap());
        ["load SqTail", "store SqHead", "store CqTail"].map(|what| counts.get(what).copied().unwrap_or(0))
    }
}

impl KernelMem for Counting {
    type Place<'a> = <HostileMem as KernelMem>::Place<'a>;

    fn load_user(&self, word: UserWord) -> u32 {
        self.count(format!("load {word:?}"));
        self.mem.load_user(word)
    }

    fn store_kernel(&self, word: KernelWord, value: u32) {
        self.count(format!("store {word:?}"));
        self.mem.store_kernel(word, value);
    }

    fn sqe_run(&self, head: u32, most: u32) -> impl ExactSizeIterator<Item = [u64; 8]> {
        self.mem.sqe_run(head, most)
    }

    fn copy_sqe_tail(&self, index: u32) -> [u64; 8] {
        self.mem.copy_sqe_tail(index)
    }

    fn cqe_run(&self, tail: u32, most: u32) -> impl ExactSizeIterator<Item = Self::Place<'_>> {
        self.mem.cqe_run(tail, most)
    }

    fn kernel_fence(&self, site: Fence) {
        self.mem.kernel_fence(site);
    }
}

/// One look at the tail for all that was published, and one publication of 64 entries and their completions: posted where they belong,
/// or gathered, as they are while they are traced.
#[test]
fn idx4_a_batch_is_picked_up_and_published_as_one() {
    for traced in [0, 1] {
        let geometry = Geometry::new(&SqSetup { sq_entries: 256, ..SqSetup::default() }).unwrap();
        let mem = HostileMem::new(256, 512, Box::new(|_: Access, _: &mut UserSide| ()));
        let counting = Counting { mem: mem.clone(), counts: Arc::default() };
        // SAFETY: there is no pool.
        let ring = unsafe { ring_over(geometry, counting.clone(), 0, &Null) }.unwrap();
        ring.host().traces.store(traced, std::sync::atomic::Ordering::SeqCst);
        let (mut tail, mut first) = (0, true);
        // The first opens the short way for the next. None leaves the arrays, which would be one more publication.
        for batch in [1u32, 1, 2, 8, 64, 65, 110] {
            for index in tail..tail + batch {
                mem.write_sqe(index, Sqe { user_data: index.into(), ..Sqe::NOP }.to_words());
            }
            tail += batch;
            mem.store_user(UserWord::SqTail, tail);
            counting.counted();
            assert_eq!(ring.doorbell(), Ok(batch));
            let [looks, heads, tails] = counting.counted();
            let most = batch.div_ceil(64);
            assert_eq!((heads, tails), (most, most), "IDX-4: a batch of {batch}, traced {traced}");
            // The short way looks first. It leaves the first entry, for which it is not open yet, and more than a batch to the long one, which
            // looks again. While completions are traced it is not taken.
            let again = traced == 0 && (first || batch > 64);
            assert_eq!(looks, 1 + u32::from(again), "IDX-4: looks for a batch of {batch}, traced {traced}");
            first = false;
        }
    }
}

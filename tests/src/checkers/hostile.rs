// SPDX-License-Identifier: MIT OR Apache-2.0
//! A memory whose user side may change between any two loads, with oracles for what the kernel side does.
//!
//! A [`Foe`] is called before every load of a user-written word and may change any of them. The memory panics when the
//! kernel side
//!
//! - loads a word of an accepted entry a second time, or an entry that was not published, or not in order (SNAP-1);
//! - loads `sq_tail` again in the middle of a pass (IDX-3);
//! - loads `cq_head` or `cq_flags` without the completion lock, or a word twice while it holds it (IDX-3);
//! - publishes an entry that it did not copy, or a completion that it did not write (IDX-4);
//! - writes a completion over one that is not reaped (CQ-1);
//! - breaks the ring of a user who kept every index in its window (IDX-3).
//!
//! A waiter alone looks twice while it holds the lock, the second time behind its fence (BELL-4), and goes by the second look. Between two times
//! that the lock is held anything may be loaded again: `cq_head` is then checked again, against the private copies as they are
//! by then, and of `cq_flags` every value is as good.
//!
//! It cannot load a kernel-written word back, nor its shape, which is nowhere in the memory: there is no such method.
//!
//! Each load is a [`point`] where another thread may run, too.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sq_uapi::{CqePlace, Fence, KernelMem, KernelWord, UserMem, UserWord};

use super::interleave::{Why, is_locked, point, section};
use super::published::Published;
use super::slots::{Slots, WriteSqe};

/// A load that is about to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Of a shared word.
    Word(UserWord),
    /// Of a word of the entry at this free-running index.
    Sqe(u32, usize),
}

/// What user space can write at any time.
#[derive(Clone, Debug)]
pub struct UserSide {
    /// The word.
    pub sq_tail: u32,
    /// The word.
    pub cq_head: u32,
    /// The word.
    pub cq_flags: u32,
    /// The slots of the submission queue.
    pub sqes: Vec<[u64; 16]>,
}

/// Somebody who writes while the kernel side reads.
pub trait Foe: Send {
    /// Called before each load.
    fn before(&mut self, access: Access, user: &mut UserSide);
}

impl<F: FnMut(Access, &mut UserSide) + Send> Foe for F {
    fn before(&mut self, access: Access, user: &mut UserSide) {
        self(access, user);
    }
}

/// What the kernel side did, for a test to judge.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Each entry as it was copied, in order: what the kernel side must act on.
    pub accepted: Vec<[u64; 16]>,
    /// Each completion as it was written, in order.
    pub completed: Vec<[u64; 4]>,
    /// An index out of its window was loaded.
    pub may_break: bool,
    /// A `cq_head` out of its window was loaded: each load of it is checked.
    pub must_break: bool,
    /// An entry was copied and is not consumed: it waits for its own process.
    pub parked: bool,
}

/// The memory: one value for each half.
#[derive(Clone)]
pub struct HostileMem(Arc<Mutex<State>>);

struct State {
    user: UserSide,
    foe: Box<dyn Foe>,
    cqes: Vec<[u64; 4]>,
    sq_head: u32,
    sq_state: u32,
    cq_tail: u32,
    broken: u32,
    /// `sq_tail` and `cq_head` as the kernel side last accepted them.
    tail_seen: u32,
    head_seen: u32,
    /// The time that the lock was last held when a word was loaded, and the words that were.
    section: Option<u64>,
    looked: Vec<UserWord>,
    /// Entries copied and completions written, free-running.
    copied: u32,
    written: u32,
    wide_copied: u32,
    /// One entry may have been copied and wait to be consumed.
    parks: bool,
    /// Places that are not posted may be written again.
    rewrites: bool,
    record: Record,
    /// As user space sees it.
    published: Published,
}

impl State {
    fn tail_written(&mut self) {
        self.published.tail_is(self.user.sq_tail);
    }

    /// A word is loaded: once each time that the lock is held.
    fn looks(&mut self, word: UserWord) {
        let now = section();
        if now.is_none() {
            assert_eq!(word, UserWord::SqTail, "IDX-3: {word:?} is loaded without the completion lock");
            return;
        }
        if now != self.section {
            self.section = now;
            self.looked.clear();
        }
        assert!(!self.looked.contains(&word), "IDX-3: {word:?} is loaded twice while the lock is held");
        self.looked.push(word);
    }

    fn is_head(&self, head: u32) -> bool {
        head == self.copied || (self.parks && head.wrapping_add(1) == self.copied)
    }
}

fn len<T>(items: &[T]) -> u32 {
    u32::try_from(items.len()).unwrap()
}

impl HostileMem {
    /// From now on a driver may take a request and return a result all the same, which is found out behind it: a place was written and is
    /// not posted, and the next entry copied, which is dropped unread.
    pub fn may_rewrite(&self) {
        self.state().rewrites = true;
    }

    /// From now on an entry may be copied in one context and consumed in another.
    pub fn may_park(&self) {
        self.state().parks = true;
    }

    /// Zeroed memory of a ring, under attack by `foe`.
    #[must_use]
    pub fn new(sq_entries: u32, cq_entries: u32, foe: Box<dyn Foe>) -> Self {
        Self(Arc::new(Mutex::new(State {
            user: UserSide { sq_tail: 0, cq_head: 0, cq_flags: 0, sqes: vec![[0; 16]; sq_entries as usize] },
            foe,
            cqes: vec![[0; 4]; cq_entries as usize],
            sq_head: 0,
            sq_state: 0,
            cq_tail: 0,
            broken: 0,
            tail_seen: 0,
            head_seen: 0,
            section: None,
            looked: Vec::new(),
            copied: 0,
            written: 0,
            wide_copied: 0,
            parks: false,
            rewrites: false,
            record: Record::default(),
            published: Published::new(sq_entries),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // An oracle may have spoken: what is dropped after that finds the memory all the same.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the kernel side did since the last call of this.
    #[must_use]
    pub fn record(&self) -> Record {
        let mut s = self.state();
        let record = &mut s.record;
        let (may_break, must_break) = (record.may_break, record.must_break);
        let news = std::mem::replace(record, Record { may_break, must_break, ..Record::default() });
        Record { parked: s.copied != s.sq_head, ..news }
    }

    /// The entry that was copied last.
    #[must_use]
    pub fn last_copied(&self) -> u32 {
        self.state().copied.wrapping_sub(1)
    }

    /// Looks at the entry that was copied last, past all oracles but under the same attack.
    #[must_use]
    pub fn peek(&self) -> [u64; 8] {
        let index = self.last_copied();
        std::array::from_fn(|word| self.load(Access::Sqe(index, word)))
    }

    /// Writes into the user side, between two calls.
    pub fn meddle(&self, how: impl FnOnce(&mut UserSide)) {
        let mut s = self.state();
        how(&mut s.user);
        s.tail_written();
    }

    /// What was published and consumed so far.
    #[must_use]
    pub fn published(&self) -> Published {
        self.state().published
    }
}

impl HostileMem {
    fn load(&self, access: Access) -> u64 {
        point(Why::Point);
        let mut s = self.state();
        let State { foe, user, .. } = &mut *s;
        foe.before(access, user);
        s.tail_written();
        let user = &s.user;
        match access {
            Access::Word(UserWord::SqTail) => user.sq_tail.into(),
            Access::Word(UserWord::CqHead) => user.cq_head.into(),
            Access::Word(UserWord::CqFlags) => user.cq_flags.into(),
            Access::Sqe(index, word) => user.sqes[(index & (len(&user.sqes) - 1)) as usize][word],
        }
    }
}

impl HostileMem {
    /// Copies an entry, as a run does.
    pub fn copy_sqe(&self, index: u32) -> [u64; 8] {
        {
            let mut s = self.state();
            if s.rewrites && index.wrapping_add(1) == s.copied {
                // It was copied behind a promise that was broken, and dropped unread.
                s.copied = index;
                s.record.accepted.pop();
            }
            assert_eq!(index, s.copied, "SNAP-1: each entry is copied once, in order");
            let left = s.tail_seen.wrapping_sub(index);
            assert!((1..=len(&s.user.sqes)).contains(&left), "IDX-3: entry {index} was not published");
            s.copied = index.wrapping_add(1);
        }
        let words: [u64; 8] = std::array::from_fn(|word| self.load(Access::Sqe(index, word)));
        let mut whole = [0; 16];
        whole[..8].copy_from_slice(&words);
        self.state().record.accepted.push(whole);
        words
    }

    fn write_cqe(&self, index: u32, words: [u64; 4]) {
        let mut s = self.state();
        assert_eq!(index, s.written, "CQ-1: completions are written once, in order");
        let entries = len(&s.cqes);
        assert!(index.wrapping_sub(s.head_seen) < entries, "CQ-1: an unreaped completion is overwritten");
        s.written = index.wrapping_add(1);
        s.cqes[(index & (entries - 1)) as usize] = words;
        s.record.completed.push(words);
    }
}

/// A completion's place.
pub struct Place<'a> {
    mem: &'a HostileMem,
    index: u32,
}

impl CqePlace for Place<'_> {
    fn write(self, [user_data, result]: [u64; 2]) {
        self.mem.write_cqe(self.index, [user_data, result, 0, 0]);
    }

    fn write_wide(self, words: [u64; 4]) {
        self.mem.write_cqe(self.index, words);
    }
}

impl WriteSqe for HostileMem {
    fn write_sqe(&self, index: u32, words: [u64; 8]) {
        let mut s = self.state();
        let slot = (index & (len(&s.user.sqes) - 1)) as usize;
        s.user.sqes[slot][..8].copy_from_slice(&words);
    }
}

impl KernelMem for HostileMem {
    type Place<'a> = Place<'a>;

    fn load_user(&self, word: UserWord) -> u32 {
        let value = u32::try_from(self.load(Access::Word(word))).unwrap();
        let mut s = self.state();
        s.looks(word);
        match word {
            // Under a lock it is looked at by somebody who does not drain.
            UserWord::SqTail if is_locked() => {}
            UserWord::SqTail => {
                assert!(s.is_head(s.sq_head), "IDX-3: sq_tail is loaded again before the pass has ended");
                s.record.may_break |= value.wrapping_sub(s.sq_head) > len(&s.user.sqes);
                s.tail_seen = value;
            }
            UserWord::CqHead => {
                let out = value.wrapping_sub(s.head_seen) > s.cq_tail.wrapping_sub(s.head_seen);
                s.record.may_break |= out;
                s.record.must_break |= out;
                if !out {
                    s.head_seen = value;
                }
            }
            UserWord::CqFlags => {}
        }
        value
    }

    fn store_kernel(&self, word: KernelWord, value: u32) {
        let mut s = self.state();
        match word {
            KernelWord::SqHead => {
                assert!(s.is_head(value), "IDX-4: sq_head passes what was copied, and nothing else");
                s.sq_head = value;
                let tail = s.user.sq_tail;
                s.published.head_is(value, tail);
            }
            KernelWord::SqState => s.sq_state = value,
            KernelWord::CqTail => {
                if s.rewrites {
                    // The places behind were written for nothing.
                    let posted = s.record.completed.len().saturating_sub(s.written.wrapping_sub(value) as usize);
                    s.record.completed.truncate(posted);
                    s.written = value;
                }
                assert_eq!(value, s.written, "IDX-4: cq_tail passes what was written, and nothing else");
                s.cq_tail = value;
            }
            KernelWord::Broken => {
                assert!(s.record.may_break, "IDX-3: broken, but every index was in its window");
                assert_eq!((s.broken, value), (0, 1), "broken is set once");
                s.broken = value;
            }
        }
    }

    fn sqe_run(&self, head: u32, most: u32) -> impl ExactSizeIterator<Item = [u64; 8]> {
        // As many slots as there are up to the end of the array: no more are named by one run.
        let straight = self.sq_entries() - (head & (self.sq_entries() - 1));
        (0..most.min(straight)).map(move |n| self.copy_sqe(head.wrapping_add(n)))
    }

    fn copy_sqe_tail(&self, index: u32) -> [u64; 8] {
        {
            let mut s = self.state();
            let mine = (index.wrapping_add(1), index);
            assert_eq!(mine, (s.copied, s.wide_copied), "SNAP-1: the second half is copied once, after the first");
            s.wide_copied = index.wrapping_add(1);
        }
        let words: [u64; 8] = std::array::from_fn(|word| self.load(Access::Sqe(index, word + 8)));
        self.state().record.accepted.last_mut().unwrap()[8..].copy_from_slice(&words);
        words
    }

    fn cqe_run(&self, tail: u32, most: u32) -> impl ExactSizeIterator<Item = Place<'_>> {
        let entries = len(&self.state().cqes);
        (0..most.min(entries - (tail & (entries - 1)))).map(move |n| Place { mem: self, index: tail.wrapping_add(n) })
    }

    fn kernel_fence(&self, fence: Fence) {
        if fence == Fence::WatchKernel {
            // A waiter looks again.
            self.state().looked.clear();
        }
    }
}

// SAFETY: slots are reached through the memory, by index, and the memory is kept by whoever has them.
unsafe impl UserMem for HostileMem {
    type Slots = Slots<Self>;

    fn sq_entries(&self) -> u32 {
        len(&self.state().user.sqes)
    }

    fn load_kernel(&self, word: KernelWord) -> u32 {
        let s = self.state();
        match word {
            KernelWord::SqHead => s.sq_head,
            KernelWord::SqState => s.sq_state,
            KernelWord::CqTail => s.cq_tail,
            KernelWord::Broken => s.broken,
        }
    }

    fn store_user(&self, word: UserWord, value: u32) {
        let mut s = self.state();
        match word {
            UserWord::SqTail => s.user.sq_tail = value,
            UserWord::CqHead => s.user.cq_head = value,
            UserWord::CqFlags => s.user.cq_flags = value,
        }
        s.tail_written();
    }

    fn slots(&self, tail: u32, room: u32) -> Slots<Self> {
        Slots::new(self.clone(), self.sq_entries(), tail, room)
    }

    unsafe fn write_sqe_tail(&self, index: u32, words: [u64; 8]) {
        let mut s = self.state();
        let slot = (index & (len(&s.user.sqes) - 1)) as usize;
        s.user.sqes[slot][8..].copy_from_slice(&words);
    }

    fn read_cqe(&self, index: u32) -> [u64; 4] {
        let s = self.state();
        s.cqes[(index & (len(&s.cqes) - 1)) as usize]
    }

    fn user_fence(&self, _: Fence) {}
}

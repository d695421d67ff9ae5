// SPDX-License-Identifier: MIT OR Apache-2.0
//! What every test needs: the backend under test, and commands for the null driver.

use std::time::{Duration, Instant};

use liburing_shm::opcode::{Cmd, Command};
use liburing_shm::{Backend, Builder, Completion, Entry, Errno, Error, Ring, Submitter, Wait};

/// Long enough for anything that happens at all, also in an emulated guest.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// The null driver, in this process or loaded.
pub(crate) fn null() -> Backend {
    if std::env::var_os("SQ_BACKEND").is_some_and(|value| value == "device") {
        Backend::device("/dev/sqnull")
    } else {
        Backend::embedded(sq_null::Null).expect("a short name")
    }
}

pub(crate) fn build(builder: Builder) -> Ring {
    builder.build(&null()).expect("a ring of this shape")
}

pub(crate) fn ring(entries: u32) -> Ring {
    build(Ring::builder(entries))
}

/// A command of the null driver.
pub(crate) struct Null<const OP: u32>(pub(crate) u64, pub(crate) u64);

impl<const OP: u32> Command for Null<OP> {
    const CMD_OP: u32 = OP;
    type Bytes = [u8; 16];

    fn to_bytes(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.0.to_le_bytes());
        bytes[8..].copy_from_slice(&self.1.to_le_bytes());
        bytes
    }

    fn from_bytes(_: [u8; 16]) -> Self {
        unreachable!("the driver looks at words")
    }
}

pub(crate) fn echo(value: u64) -> Entry {
    Cmd::new(&Null::<{ sq_null::cmd::ECHO }>(value, !value)).build()
}

pub(crate) fn fails(errno: Errno) -> Entry {
    let res = i64::from(errno.to_res()).cast_unsigned();
    Cmd::new(&Null::<{ sq_null::cmd::RESULT }>(res, 0)).build()
}

pub(crate) fn delay(time: Duration) -> Entry {
    let ns = u64::try_from(time.as_nanos()).expect("a short time");
    Cmd::new(&Null::<{ sq_null::cmd::DELAY }>(ns, 7)).build()
}

pub(crate) fn never() -> Entry {
    Cmd::new(&Null::<{ sq_null::cmd::NEVER }>(0, 0)).build()
}

/// Everything that is there to reap.
pub(crate) fn reap(ring: &mut Ring) -> Vec<Completion> {
    ring.completion().reap().collect()
}

/// Pushes, submits and reaps one entry.
pub(crate) fn one(ring: &mut Ring, entry: Entry) -> Result<u32, Errno> {
    ring.submission().push(entry.user_data(0x5a)).expect("room for one");
    ring.submit_and_wait(1).expect("a completion");
    let done = reap(ring);
    assert_eq!(done.len(), 1);
    assert_eq!(done[0].user_data(), 0x5a);
    done[0].result()
}

/// The error number that a call failed with.
pub(crate) fn errno<T: std::fmt::Debug>(result: Result<T, liburing_shm::Error>) -> Errno {
    result.expect_err("an error").errno().expect("an error with a number")
}

/// Waits, and for less than the time that it has: what is there when that is up counts, however long it has been there.
pub(crate) fn wait(submitter: &Submitter, wait: Wait) -> Result<u32, Error> {
    let start = Instant::now();
    let waited = submitter.wait(&wait.timeout(SOON));
    assert!(start.elapsed() < SOON, "nobody woke the waiter");
    waited
}

/// Looks until it is so.
pub(crate) fn soon(what: &str, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < SOON, "in vain: {what}");
        std::thread::yield_now();
    }
}

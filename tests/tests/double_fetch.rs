// SPDX-License-Identifier: MIT OR Apache-2.0
//! SNAP-1, SNAP-2: a kernel side that validates an entry and then looks at it again is found, by the memory's oracle, by random
//! programs that know no oracle, and by a second thread on real memory. The real one is not.
#![cfg(not(loom))]

use std::rc::Rc;
use std::time::{Duration, Instant};

use kmod_sq::{Geometry, RingRef};
use sq_conformance::checkers::attack::Count;
use sq_conformance::checkers::hostile::{Access, HostileMem, UserSide};
use sq_conformance::checkers::hostile_host::{HostileHost, ring_bound};
use sq_conformance::checkers::program::Program;
use sq_conformance::checkers::slots::WriteSqe;
use sq_conformance::checkers::victim::{Handler, Victim};
use sq_conformance::checkers::vulnerable::{self, look_again};
use sq_conformance::checkers::world::{Flaw, bytes_of, run_with};
use sq_driver::Bound;
use sq_uapi::{SqSetup, Sqe, UserMem, UserWord};

/// In this process the oracle's panic would end the test: it is raised inside a driver's call. So another one looks again, and this one
/// hears what it says.
#[test]
fn snap1_the_oracle_finds_a_second_look() {
    if std::env::var_os("SQ_LOOK_AGAIN").is_some() {
        let mem = HostileMem::new(1, 2, Box::new(|_: Access, _: &mut UserSide| ()));
        let slots = mem.clone();
        look_again(Some(Rc::new(move || slots.copy_sqe(slots.last_copied()))));
        mem.write_sqe(0, Sqe::NOP.to_words());
        mem.store_user(UserWord::SqTail, 1);
        let table = vulnerable::table::<sq_null::Null>();
        // SAFETY: the table expects a Null, and this one is static.
        let bound = unsafe { Bound::new(table, std::ptr::from_ref(&sq_null::Null).cast()) }.unwrap();
        let geometry = Geometry::new(&SqSetup { sq_entries: 1, ..SqSetup::default() }).unwrap();
        // SAFETY: there is no pool.
        let ring: RingRef<HostileHost> = unsafe { ring_bound(geometry, mem, 0, bound) }.unwrap();
        let _ = ring.doorbell();
        return;
    }
    let mut again = std::process::Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", "--nocapture", "snap1_the_oracle_finds_a_second_look"]).env("SQ_LOOK_AGAIN", "1");
    let output = again.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "a second look goes unnoticed");
    assert!(text.contains("SNAP-1: each entry is copied once"), "{text}");
}

/// The same programs that the real kernel side passes in `hostile_memory`. `cargo xtask fuzz` shows it of the fuzz target.
#[test]
fn snap2_random_programs_find_a_second_look() {
    let found = (0..3000).find(|seed| {
        let program = Program::of_bytes(&bytes_of(*seed, 100 + (*seed % 7) as usize * 200)).unwrap();
        let Err(panic) = std::panic::catch_unwind(|| run_with(program, Flaw::SecondLook)) else { return false };
        // A completion that is no entry's, as its slot was when it was copied. Any other panic is news.
        let why = panic.downcast_ref::<String>().map_or("", String::as_str);
        println!("seed {seed}: {why}");
        let expected = why.starts_with("SUB-2: ");
        if !expected {
            std::panic::resume_unwind(panic);
        }
        true
    });
    assert!(found.is_some(), "3000 programs have not found it");
}

/// For what is a matter of milliseconds on a machine with nothing else to do.
const PATIENCE: Duration = Duration::from_secs(100);

/// The first look that wins is the last.
fn until_won(handler: Handler) -> Count {
    let started = Instant::now();
    let more = |count: &Count| count.won == 0 && started.elapsed() < PATIENCE;
    Victim::new(handler).attacked(more)
}

#[test]
fn snap2_a_second_thread_breaks_into_a_second_look_and_not_into_ours() {
    let mut most = 0;
    for handler in [Handler::InPlace, Handler::SecondLook] {
        let count = until_won(handler);
        println!("{handler:?}: {} in {} attempts", count.won, count.attempts());
        assert!(count.won > 0, "the attacker has not won in {} attempts", count.attempts());
        most = most.max(count.attempts());
    }
    // In a guest it is the same code, but slower.
    let least = if std::env::var_os("SQ_BACKEND").is_some() { 20_000 } else { 200_000 };
    // So many take some milliseconds, in which a busy machine may not have run the attacker at all.
    let started = Instant::now();
    let more = |count: &Count| {
        let patient = count.attempts().is_multiple_of(1024) && started.elapsed() > PATIENCE;
        count.attempts() < most.max(least) || !(count.saw_both() || patient)
    };
    let count = Victim::new(Handler::Ours).attacked(more);
    println!("ours: {} in {} attempts", count.won, count.attempts());
    assert_eq!(count.won, 0, "a command that the ring has given up came to its driver");
    assert!(count.saw_both(), "there was no attack: {count:?}");
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random programs over a memory that changes between any two loads: the ring breaks or the results are exact.
#![cfg(not(loom))]

use arbitrary::{Arbitrary, Unstructured};
use sq_conformance::checkers::doors::{self, Visit};
use sq_conformance::checkers::hostile::{Access, UserSide};
use sq_conformance::checkers::hostile_host::hostile_ring;
use sq_conformance::checkers::program::Program;
use sq_conformance::checkers::slots::WriteSqe;
use sq_conformance::checkers::world::{Ran, bytes_of, run};
use sq_uapi::consts::{op, register_op};
use sq_uapi::{Cqe, KernelWord, SqRegister, SqSetup, Sqe, UserMem, UserWord};

/// SNAP-1, SUB-2, CQ-1, CQ-5, IDX-3, BELL-3 on every program. A failing seed is replayed by `SQ_SEED=n`.
#[test]
fn random_programs() {
    let only = std::env::var("SQ_SEED").ok().and_then(|seed| seed.parse::<u64>().ok());
    // In a guest this is the same code, but slower.
    let all = if std::env::var_os("SQ_BACKEND").is_some() { 200 } else { 6000 };
    let (mut sum, mut broken) = (Ran::default(), 0);
    for seed in only.map_or(0..all, |seed| seed..seed + 1) {
        let program = || Program::of_bytes(&bytes_of(seed, 100 + (seed % 7) as usize * 200)).map(run);
        match std::panic::catch_unwind(program) {
            Ok(ran) => {
                let Ran { accepted, completed, nested, broken: breaks } = ran.unwrap_or_default();
                sum.accepted += accepted;
                sum.completed += completed;
                sum.nested += nested;
                broken += u32::from(breaks);
            }
            Err(panic) => {
                eprintln!("SQ_SEED={seed} runs this program alone");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("{sum:?}, {broken} rings broke");
    // Otherwise the programs would not be worth much.
    let enough = sum.completed as u64 > all * 8 && sum.nested as u64 > all * 5 && u64::from(broken) > all / 20;
    assert!(only.is_some() || enough, "{sum:?}, {broken} rings broke");
}

/// SNAP-1, CAN-1, SUB-2: random visits to the doors that need no ring.
#[test]
fn random_visits() {
    let only = std::env::var("SQ_SEED").ok().and_then(|seed| seed.parse::<u64>().ok());
    let all = if std::env::var_os("SQ_BACKEND").is_some() { 50 } else { 1500 };
    let (mut at_once, mut later) = (0, 0);
    for seed in only.map_or(0..all, |seed| seed..seed + 1) {
        let bytes = bytes_of(seed, 100 + (seed % 5) as usize * 150);
        let visit = Visit::arbitrary(&mut Unstructured::new(&bytes)).unwrap();
        match std::panic::catch_unwind(|| doors::run(&visit)) {
            Ok(visited) => {
                at_once += visited.at_once as u64;
                later += visited.later as u64;
            }
            Err(panic) => {
                eprintln!("SQ_SEED={seed} runs this visit alone");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("{at_once} at once, {later} later");
    assert!(only.is_some() || (at_once > all * 2 && later > all / 8), "{at_once} at once, {later} later");
}

/// SNAP-1: opcode and `user_data` change right after they were loaded, and right before the next word is. The completion is that of the
/// copy, whichever way the entry goes: a bare NOP or an entry that is more than its opcode, in a drain, alone on the short way, or one of
/// two there.
#[test]
fn snap_1_a_late_change_is_not_seen() {
    let foe = |access: Access, user: &mut UserSide| {
        if let Access::Sqe(index, 5) = access {
            let sqe = &mut user.sqes[index as usize % 4];
            sqe[0] = u64::MAX;
            sqe[4] = 666;
        }
    };
    let bare = Sqe { user_data: 7, ..Sqe::NOP };
    let more = Sqe { opcode: op::CMD, off: 1, ..bare };
    for sqe in [bare, more] {
        let setup = SqSetup { sq_entries: 4, ..SqSetup::default() };
        let (ring, mem) = hostile_ring(&setup, &sq_null::Null, Box::new(foe)).unwrap();
        // The first drain opens the short way.
        let mut tail = 0;
        for batch in [1, 1, 2] {
            (tail..tail + batch).for_each(|index| mem.write_sqe(index, sqe.to_words()));
            tail += batch;
            mem.store_user(UserWord::SqTail, tail);
            assert_eq!(ring.doorbell(), Ok(batch));
            for index in tail - batch..tail {
                let [a, b, ..] = mem.read_cqe(index);
                assert_eq!(Cqe::from_words([a, b]), Cqe { user_data: 7, res: 0, flags: 0 }, "{sqe:?}, entry {index}");
            }
        }
    }
}

/// IDX-3: an index out of its window breaks the ring, and only that.
#[test]
fn idx_3_indices_out_of_their_windows() {
    for (word, value) in [(UserWord::SqTail, 5), (UserWord::SqTail, u32::MAX), (UserWord::CqHead, 1)] {
        let setup = SqSetup { sq_entries: 4, ..SqSetup::default() };
        let (ring, mem) = hostile_ring(&setup, &sq_null::Null, Box::new(|_: Access, _: &mut UserSide| ())).unwrap();
        mem.store_user(UserWord::SqTail, 1);
        mem.store_user(word, value);
        let _ = ring.doorbell();
        assert!(ring.is_broken(), "{word:?} = {value}");
    }
}

/// IDX-3: who has an eventfd, and maybe no file to poll, is told by it that the ring broke, once.
#[test]
fn idx_3_an_eventfd_is_signalled_when_the_ring_breaks() {
    let setup = SqSetup { sq_entries: 4, ..SqSetup::default() };
    let (ring, mem) = hostile_ring(&setup, &sq_null::Null, Box::new(|_: Access, _: &mut UserSide| ())).unwrap();
    // What is at a user address is another descriptor at each look: one of them is good.
    let register = SqRegister { op: register_op::EVENTFD, nr: 1, arg: 0x1000, ..SqRegister::default() };
    assert!((0..100).any(|_| ring.register(&register).is_ok()));
    mem.store_user(UserWord::SqTail, 5);
    for _ in 0..2 {
        assert!(ring.doorbell().is_err());
        assert_eq!(ring.host().signals(), 1);
    }
}

/// IDX-3: more completion slots are free than the queue has entries, and nothing is in the way of a pass.
#[test]
fn idx_3_a_tail_too_far_on_the_short_way() {
    let setup = SqSetup { sq_entries: 4, cq_entries: 32, ..SqSetup::default() };
    let (ring, mem) = hostile_ring(&setup, &sq_null::Null, Box::new(|_: Access, _: &mut UserSide| ())).unwrap();
    (0..4).for_each(|index| mem.write_sqe(index, Sqe::NOP.to_words()));
    for tail in [1, 5] {
        mem.store_user(UserWord::SqTail, tail);
        assert!(ring.doorbell().is_ok(), "{tail}");
    }
    mem.store_user(UserWord::SqTail, 10);
    assert!(ring.doorbell().is_err());
    assert!(ring.is_broken());
    assert_eq!(mem.load_kernel(KernelWord::SqHead), 5, "no slot is read twice");
}

/// CQ-2, WAIT-1: the reaper comes between the last look of a pass that found no slot and the flush that ends it. The ring is not
/// blocked then, and must not say so.
#[test]
fn cq_2_a_stall_ends_with_its_cause() {
    let (mut stalled, mut went_on) = (0, 0);
    for look in 1..12u32 {
        let mut seen = 0;
        let foe = move |access: Access, user: &mut UserSide| {
            if matches!(access, Access::Word(UserWord::CqHead)) {
                seen += 1;
                if seen == look {
                    user.cq_head = 4;
                }
            }
        };
        let setup = SqSetup { sq_entries: 4, cq_entries: 4, ..SqSetup::default() };
        let (ring, mem) = hostile_ring(&setup, &sq_null::Null, Box::new(foe)).unwrap();
        for (at, tail) in [(0, 4), (4, 6)] {
            for index in at..tail {
                mem.write_sqe(index, Sqe::NOP.to_words());
            }
            mem.store_user(UserWord::SqTail, tail);
            let _ = ring.doorbell();
        }
        if ring.is_broken() {
            // It came before the four completions did.
            continue;
        }
        *if ring.stats().stalls > 0 { &mut stalled } else { &mut went_on } += 1;
        // Whoever reaps rings if CQ_BLOCKED is said. When all is reaped, nothing is wrong with this ring.
        let _ = ring.doorbell();
        mem.store_user(UserWord::CqHead, mem.load_kernel(KernelWord::CqTail));
        let _ = ring.doorbell();
        assert_ne!(ring.doorbell(), Err(sq_driver::Errno::EBUSY), "look {look}");
        assert!(ring.balanced());
    }
    assert!(stalled > 0 && went_on > 0, "{stalled} passes stalled, and {went_on} were given slots in time");
}

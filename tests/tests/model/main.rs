// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random programs against a small reference, in every home: in this process, in the guest, and over a checker's memory.
//!
//! A program that fails is shrunk and printed with its seed: `SQ_SEED=n` runs it again. `SQ_PROGRAMS=n` runs so many.
//!
//! SUB-1, SUB-2, CQ-1, CQ-2, CQ-4, CQ-5, CAN-1, WAIT-1, BELL-1, BELL-3, BELL-4, LIFE-1.
#![cfg(not(loom))]

mod homes;
mod plan;
mod planted;
mod reference;
mod transfers;

use liburing_shm::Backend;
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use sq_conformance::checkers::hostile::{Access, HostileMem, UserSide};
use sq_uapi::Errno;

use homes::{Checked, Home, Library};
use plan::{Act, Kind, Op, Plan, Shape};
use planted::{Keeper, Twice};
use reference::Reference;

/// Runs a program in a home, beside the reference.
fn run(plan: &Plan, home: &mut dyn Home) -> Result<(), String> {
    let mut model = Reference::new(plan.shape);
    for act in &plan.acts {
        step(act, home, &mut model).map_err(|error| format!("{act:?}: {error}"))?;
        model.check(&home.stats())?;
        if !home.balanced() {
            return Err(format!("CQ-5: the slots do not add up after {act:?}"));
        }
    }
    // For some the second time: that is no error (LIFE-1).
    quiesce(home, &mut model)?;
    hear(home, &mut model, usize::MAX)?;
    model.end(&home.stats())?;
    model.surely_done().try_for_each(|user_data| transferred(home, &model, user_data))
}

/// What is done has left its bytes.
fn transferred(home: &dyn Home, model: &Reference, user_data: u64) -> Result<(), String> {
    let Some((transfer, place)) = model.left(user_data) else { return Ok(()) };
    let there = home.place(transfer, user_data);
    if there == place { Ok(()) } else { Err(format!("{user_data} leaves {there:x?}, not {place:x?}: {transfer:?}")) }
}

fn quiesce(home: &mut dyn Home, model: &mut Reference) -> Result<(), String> {
    model.quiesce();
    home.quiesce().map_err(|errno| format!("LIFE-1: QUIESCE says {errno}"))?;
    model.quiesced(&home.stats())
}

fn hear(home: &mut dyn Home, model: &mut Reference, most: usize) -> Result<usize, String> {
    let done = home.reap(most);
    for cqe in &done {
        model.reap(cqe.user_data, cqe.res, cqe.flags)?;
        transferred(home, model, cqe.user_data)?;
    }
    Ok(done.len())
}

fn step(act: &Act, home: &mut dyn Home, model: &mut Reference) -> Result<(), String> {
    match act {
        Act::Submit(batch) => submit(&[batch], home, model),
        Act::Together(one, other) => submit(&[one, other], home, model),
        Act::Reap(most) => hear(home, model, *most).map(|_| ()),
        Act::Wait(wanted) => {
            let wanted = if model.is_shut() { *wanted } else { model.due().min(*wanted) };
            match home.wait(wanted) {
                Err(Errno::ESHUTDOWN) if model.is_shut() => Ok(()),
                // What it waits for needs slots: reaping comes first.
                Ok(()) | Err(Errno::EBUSY) if !model.is_shut() => Ok(()),
                said => Err(format!("WAIT-1: {wanted} completions are due, and {said:?} came")),
            }
        }
        Act::Cancel(which) => {
            let accepted = home.stats().entries;
            let outcome = model.cancel_call(*which, accepted);
            let (flags, user_data, opcode) = which.fields(model.serial());
            Reference::canceled(outcome, home.cancel(flags, user_data, opcode))
        }
        Act::Settle if model.is_shut() => {
            hear(home, model, usize::MAX)?;
            model.end(&home.stats())
        }
        Act::Settle => settle(home, model),
        Act::Quiesce => quiesce(home, model),
    }
}

/// CQ-2, BELL-4, WAIT-1: whatever is due comes, if it is only waited for and reaped.
fn settle(home: &mut dyn Home, model: &mut Reference) -> Result<(), String> {
    while model.due() > 0 {
        let due = model.due();
        let waited = home.wait(1);
        let heard = hear(home, model, usize::MAX)?;
        match waited {
            _ if heard > 0 => {}
            Err(errno) => return Err(format!("BELL-4: {due} completions are due, and {errno} came")),
            Ok(()) => {
                return Err(format!("WAIT-1: {due} completions are due, a wait for 1 is over, and there is none"));
            }
        }
    }
    Ok(())
}

/// A batch for which there is no room is left out.
fn submit(batches: &[&Vec<Op>], home: &mut dyn Home, model: &mut Reference) -> Result<(), String> {
    let mut serial = model.serial();
    let mut number = |batch: &[Op]| {
        let numbered = batch.iter().map(|op| {
            let mut sqe = op.sqe(serial);
            if let Kind::Transfer(transfer) = op.kind {
                home.hand_over(transfer, serial, &mut sqe);
            }
            serial += 1;
            sqe
        });
        numbered.collect::<Vec<_>>()
    };
    let sqes: Vec<_> = batches.iter().map(|batch| number(batch)).collect();
    let sent = home.submit(&sqes);
    // The numbers of a batch that found no room are nobody's.
    let published = batches.iter().zip(&sent).map(|(batch, sent)| (batch.as_slice(), sent.published));
    model.publish(&published.collect::<Vec<_>>());
    sent.iter().try_for_each(|sent| model.submitted(sent.published, sent.said))
}

/// How a program failed, shrunk, if one of the seeds makes one that does.
fn search(
    plans: &impl Strategy<Value = Plan>,
    seeds: std::ops::Range<u64>,
    test: impl Fn(&Plan) -> Result<(), String>,
) -> Option<String> {
    for seed in seeds {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let config = Config { cases: 1, failure_persistence: None, max_shrink_iters: 2000, ..Config::default() };
        let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
        match runner.run(plans, |plan| test(&plan).map_err(TestCaseError::fail)) {
            Ok(()) => {}
            Err(TestError::Fail(why, plan)) => return Some(format!("SQ_SEED={seed}: {why}\n{plan:#?}")),
            Err(TestError::Abort(why)) => return Some(format!("SQ_SEED={seed}: {why}")),
        }
    }
    None
}

/// Seeds from the environment, or so many.
fn seeds(most: u64) -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    match (number("SQ_SEED"), number("SQ_PROGRAMS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, programs) => 0..programs.unwrap_or(most),
    }
}

fn must_hold(seeds: std::ops::Range<u64>, test: impl Fn(&Plan) -> Result<(), String>) {
    if let Some(failure) = search(&plan::plans(), seeds, test) {
        panic!("{failure}");
    }
}

fn calm(shape: Shape) -> HostileMem {
    HostileMem::new(shape.sq_entries, shape.cq_entries, Box::new(|_: Access, _: &mut UserSide| ()))
}

fn in_guest() -> bool {
    std::env::var_os("SQ_BACKEND").is_some_and(|value| value == "device")
}

/// 10 000 programs in this process; in a guest 200 on `/dev/sqnull`.
#[test]
fn programs() {
    if in_guest() {
        let backend = Backend::device("/dev/sqnull");
        must_hold(seeds(200), |plan| run(plan, &mut Library::new(&backend, plan.shape)));
    } else {
        let backend = Backend::embedded(sq_null::Null).unwrap();
        must_hold(seeds(10_000), |plan| run(plan, &mut Library::new(&backend, plan.shape)));
    }
}

/// With transfers, to and from the ram driver.
#[test]
fn programs_of_transfers() {
    let backend = if in_guest() {
        Backend::device("/dev/sqram")
    } else {
        Backend::embedded(sq_ram::Ram::in_process(transfers::END as usize).unwrap()).unwrap()
    };
    let failure = search(&plan::transfers(), seeds(if in_guest() { 100 } else { 2000 }), |plan| {
        transfers::clear(&backend);
        run(plan, &mut Library::with_hands(&backend, plan.shape))
    });
    if let Some(failure) = failure {
        panic!("{failure}");
    }
}

/// The same over a checker's memory, where the same seed runs the same way each time.
#[test]
fn programs_checked() {
    // In a guest it is the same code, but slower.
    let most = if in_guest() { 50 } else { 2000 };
    must_hold(seeds(most), |plan| run(plan, &mut Checked::new(plan.shape, &sq_null::Null, calm(plan.shape))));
    // And with the driver that bugs are planted in, as long as there are none.
    must_hold(seeds(most), |plan| {
        planted::forget();
        run(plan, &mut Checked::new(plan.shape, &Keeper::<false>, calm(plan.shape)))
    });
}

fn must_be_found(what: &str, test: impl Fn(&Plan) -> Result<(), String>) {
    let found =
        search(&plan::plans(), 0..500, test).unwrap_or_else(|| panic!("{what}: 500 programs have not found it"));
    let lines: Vec<&str> = found.lines().take(1).collect();
    println!("{what}: {}", lines.join(" "));
}

#[test]
fn a_double_completion_is_found() {
    must_be_found("double completion", |plan| {
        run(plan, &mut Checked::new(plan.shape, &sq_null::Null, Twice::new(calm(plan.shape))))
    });
}

#[test]
fn a_lost_cancel_is_found() {
    must_be_found("lost cancel", |plan| {
        planted::forget();
        run(plan, &mut Checked::new(plan.shape, &Keeper::<true>, calm(plan.shape)))
    });
}

#[test]
fn a_lost_wake_up_is_found() {
    must_be_found("lost wake-up", |plan| {
        run(plan, &mut Checked::new(plan.shape, &sq_null::Null, calm(plan.shape)).deaf())
    });
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The engine in this process, by the very code that the module runs.

use liburing_shm::opcode::{AsyncCancel, Cmd};
use liburing_shm::{Backend, CancelFlags, Errno, Ring};
use sq_dma::{Count, Dma, Event, SLOTS, Transfer};

fn ring(backend: &Backend) -> Ring {
    Ring::builder(512).cq_entries(1024).max_inflight(1024).build(backend).unwrap()
}

fn count(ring: &mut Ring, event: Event) -> u32 {
    ring.submission().push(Cmd::new(&Count { event: event as u32 }).build()).unwrap();
    ring.submit_and_wait(1).unwrap();
    ring.completion().reap().next().unwrap().result().unwrap()
}

fn push(ring: &mut Ring, bytes: u32, user_data: u64) {
    ring.submission().push(Cmd::new(&Transfer { bytes }).build().user_data(user_data)).unwrap();
}

#[test]
fn a_batch_has_one_doorbell() {
    let mut ring = ring(&Backend::embedded(Dma::in_process()).unwrap());
    for batch in 1..=3 {
        (0..20).for_each(|n| push(&mut ring, 1000 + n, u64::from(n)));
        ring.submit_and_wait(20).unwrap();
        assert_eq!(ring.completion().reap().filter(|d| d.result() == Ok(1000 + d.user_data() as u32)).count(), 20);
        assert_eq!(count(&mut ring, Event::Doorbell), batch);
    }
    assert_eq!(count(&mut ring, Event::Finished), 60);
}

#[test]
fn a_cancel_stops_a_descriptor() {
    let mut ring = ring(&Backend::embedded(Dma::in_process()).unwrap());
    push(&mut ring, 999_999_999, 1);
    push(&mut ring, 50_000, 2);
    ring.submit_and_wait(1).unwrap();
    assert_eq!(ring.completion().reap().next().unwrap().user_data(), 2);
    ring.submission().push(AsyncCancel::user_data(1).build().user_data(3)).unwrap();
    ring.submit_and_wait(2).unwrap();
    let mut done: Vec<_> = ring.completion().reap().map(|done| (done.user_data(), done.result())).collect();
    done.sort_by_key(|done| done.0);
    assert_eq!(done, [(1, Err(Errno::ECANCELED)), (3, Ok(0))]);
    assert_eq!(count(&mut ring, Event::Stopped), 1);
}

/// Two rings, whose descriptors end within a tick or two while they are canceled: whoever takes a request first ends it, and nobody
/// else.
#[test]
fn a_cancel_and_the_interrupt_race_and_one_wins() {
    const LAPS: u32 = 300;
    let backend = Backend::embedded(Dma::in_process()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut ring = ring(&backend);
                for lap in 0..LAPS {
                    (0..100).for_each(|n| push(&mut ring, 1 + (n as u32 * lap) % 120_000, n));
                    ring.submit().unwrap();
                    match ring.submitter().cancel(CancelFlags::ANY | CancelFlags::ALL, 0, 0) {
                        Err(error) => {
                            assert!(matches!(error.errno(), Some(Errno::ENOENT | Errno::EALREADY)), "{error}")
                        }
                        Ok(canceled) => assert!(canceled <= 100),
                    }
                    ring.submit_and_wait(100).unwrap();
                    let mut done: Vec<u64> = ring.completion().reap().map(|done| done.user_data()).collect();
                    done.sort_unstable();
                    assert!(done.into_iter().eq(0..100));
                }
            });
        }
    });
    let mut ring = ring(&backend);
    let (finished, stopped) = (count(&mut ring, Event::Finished), count(&mut ring, Event::Stopped));
    assert_eq!(finished + stopped, 2 * 100 * LAPS);
    println!("{finished} finished, {stopped} stopped");
}

#[test]
fn the_engine_is_full() {
    let mut ring = ring(&Backend::embedded(Dma::in_process()).unwrap());
    (0..=SLOTS as u64).for_each(|n| push(&mut ring, 1_000_000, n));
    ring.submit_and_wait(SLOTS as u32 + 1).unwrap();
    let refused = ring.completion().reap().filter(|done| done.result() == Err(Errno::EBUSY)).count();
    assert_eq!(refused, 1);
}

#[test]
fn nonsense_is_refused() {
    let mut ring = ring(&Backend::embedded(Dma::in_process()).unwrap());
    push(&mut ring, 0, 1);
    push(&mut ring, 1_000_000_000, 2);
    ring.submission().push(Cmd::new(&Count { event: 4 }).build()).unwrap();
    ring.submit_and_wait(3).unwrap();
    assert!(ring.completion().reap().all(|done| done.result() == Err(Errno::EINVAL)));
}

#[test]
fn rings_that_close_leave_nothing_behind() {
    let backend = Backend::embedded(Dma::in_process()).unwrap();
    for _ in 0..20 {
        let mut ring = ring(&backend);
        (0..100).for_each(|n| push(&mut ring, 900_000_000, n));
        ring.submit().unwrap();
    }
    let mut ring = ring(&backend);
    assert_eq!(count(&mut ring, Event::Stopped), 2000);
    assert_eq!(count(&mut ring, Event::Posted), 2000);
}

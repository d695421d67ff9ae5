// SPDX-License-Identifier: MIT OR Apache-2.0
//! The driver in this process: no module, no root.

use liburing_shm::opcode::{AsyncCancel, Cmd, Command};
use liburing_shm::{Backend, Completion, Errno, Ring};
use sq_sample::{Add, Device, Later};

fn ring() -> Ring {
    Ring::builder(8).build(&Backend::embedded(Device).unwrap()).unwrap()
}

fn one<C: Command>(ring: &mut Ring, command: &C) -> Result<u32, Errno> {
    ring.submission().push(Cmd::new(command).build()).unwrap();
    ring.submit_and_wait(1).unwrap();
    ring.completion().reap().next().unwrap().result()
}

#[test]
fn commands_complete() {
    let mut ring = ring();
    assert_eq!(one(&mut ring, &Add { a: 40, b: 2 }), Ok(42));
    assert_eq!(one(&mut ring, &Add { a: u32::MAX, b: 1 }), Err(Errno::EOVERFLOW));
    assert_eq!(one(&mut ring, &Later { value: 7, delay_ms: 1 }), Ok(7));
    assert_eq!(one(&mut ring, &Later { value: 7, delay_ms: 10_001 }), Err(Errno::EINVAL));
    assert_eq!(one(&mut ring, &Later { value: -1, delay_ms: 1 }), Err(Errno::EINVAL));
}

#[test]
fn what_completes_later_can_be_canceled() {
    let mut ring = ring();
    ring.submission().push(Cmd::new(&Later { value: 7, delay_ms: 10_000 }).build().user_data(1)).unwrap();
    ring.submission().push(AsyncCancel::user_data(1).build().user_data(2)).unwrap();
    ring.submit_and_wait(2).unwrap();
    let mut done: Vec<Completion> = ring.completion().reap().collect();
    done.sort_by_key(Completion::user_data);
    assert_eq!(done[0].result(), Err(Errno::ECANCELED));
    assert_eq!(done[1].result(), Ok(0));
}

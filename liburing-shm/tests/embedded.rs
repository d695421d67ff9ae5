// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is particular to the embedded backend: whose thread does what, and that nothing spins.

use std::fs;
use std::time::Duration;

use liburing_shm::{Backend, Ring, Wait, opcode};

fn null() -> Backend {
    Backend::embedded(sq_null::Null).unwrap()
}

/// CPU time of this process's threads of this name, in seconds.
fn cpu_seconds(name: &str) -> f64 {
    let ticks: u64 = fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|task| {
            let stat = fs::read_to_string(task.ok()?.path().join("stat")).ok()?;
            let (head, tail) = stat.rsplit_once(')')?;
            // utime and stime are the 14th and 15th fields; `tail` begins with the third.
            let mut fields = tail.split_whitespace().skip(11);
            let both: u64 = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
            head.ends_with(name).then_some(both)
        })
        .sum();
    ticks as f64 / 100.0
}

/// Of the three modes, on one after the other so that no other test's threads are in the count.
#[test]
fn an_idle_ring_uses_no_cpu() {
    for builder in [Ring::builder(8), Ring::builder(8).worker(), Ring::builder(8).poll(Duration::from_millis(10))] {
        let mut ring = builder.build(&null()).unwrap();
        ring.submission().push(opcode::Nop::new().build()).unwrap();
        ring.submit_and_wait(1).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        let before = cpu_seconds("sq-worker");
        std::thread::sleep(Duration::from_secs(2));
        let used = cpu_seconds("sq-worker") - before;
        assert!(used <= 0.02, "{used} s of CPU in 2 s of doing nothing");
    }
}

#[test]
fn a_kernel_written_page_is_read_only_to_the_user_half() {
    let ring = Ring::builder(8).pool(1, 4096).build(&null()).unwrap();
    let setup = ring.submitter().setup();
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let shared: Vec<_> = maps.lines().filter(|line| line.contains("memfd:sq-ring")).collect();
    let kernel_region = |line: &&&str| {
        let offset = line.split_whitespace().nth(2).unwrap();
        u64::from_str_radix(offset, 16).unwrap() == setup.user.size
    };
    let perms: Vec<_> =
        shared.iter().filter(kernel_region).map(|line| line.split_whitespace().nth(1).unwrap()).collect();
    assert!(perms.contains(&"r--s") && perms.contains(&"rw-s"), "one mapping for each half: {perms:?}");
}

#[test]
fn any_driver_can_be_embedded() {
    use sq_driver::{Driver, Issued, Op, Opcodes, RequestId, op};

    /// Completes each NOP on another thread.
    struct Slow;

    impl Driver for Slow {
        const NAME: &'static core::ffi::CStr = c"slow";
        const OPCODES: Opcodes = Opcodes::NONE.with(op::NOP);

        fn issue<'op>(&self, op: Op<'op>) -> Issued<'op> {
            let (request, issued) = op.defer();
            std::thread::spawn(move || request.complete(Ok(42)));
            issued
        }

        fn cancel(&self, _: RequestId) {}
    }

    let mut ring = Ring::builder(8).build(&Backend::embedded(Slow).unwrap()).unwrap();
    for n in 0..100 {
        for _ in 0..8 {
            ring.submission().push(opcode::Nop::new().build().user_data(n)).unwrap();
        }
        ring.submit().unwrap();
        ring.submitter().wait(&Wait::new(8).timeout(Duration::from_secs(20))).unwrap();
        let done: Vec<_> = ring.completion().reap().map(|done| (done.user_data(), done.result())).collect();
        assert_eq!(done, [(n, Ok(42)); 8]);
    }
}

#[test]
fn a_request_that_its_driver_drops_completes_with_eio() {
    use sq_driver::{Driver, Issued, Op, Opcodes, RequestId, op};

    struct Forgetful;

    impl Driver for Forgetful {
        const NAME: &'static core::ffi::CStr = c"forgetful";
        const OPCODES: Opcodes = Opcodes::NONE.with(op::NOP);

        fn issue<'op>(&self, op: Op<'op>) -> Issued<'op> {
            op.defer().1
        }

        fn cancel(&self, _: RequestId) {}
    }

    let mut ring = Ring::builder(8).build(&Backend::embedded(Forgetful).unwrap()).unwrap();
    ring.submission().push(opcode::Nop::new().build()).unwrap();
    ring.submit_and_wait(1).unwrap();
    assert_eq!(ring.completion().reap().next().unwrap().result(), Err(liburing_shm::Errno::EIO));
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What people see of a loaded module's rings: fdinfo, and the device's counters in sysfs. One test, alone in its program,
//! since it counts.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use std::{env, fs};

use liburing_shm::opcode::{Cmd, command};
use liburing_shm::{Backend, Errno, Ring, SqeFlags, opcode};

command! {
    /// `sq_null::cmd::NEVER`
    struct Never = 3 {}
}

/// What fdinfo says of the only ring of this process.
fn fdinfo() -> BTreeMap<String, String> {
    let fds = fs::read_dir("/proc/self/fd").unwrap().map_while(Result::ok);
    let ring =
        fds.filter(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == "/dev/sqnull")).last().unwrap();
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", ring.file_name().display())).unwrap();
    text.lines().filter_map(|line| line.split_once(":\t")).map(|(name, value)| (name.into(), value.into())).collect()
}

fn counter(name: &str) -> u64 {
    fs::read_to_string(format!("/sys/class/misc/sqnull/counters/{name}")).unwrap().trim().parse().unwrap()
}

fn counters() -> BTreeMap<&'static str, u64> {
    let names = ["entries", "rejected", "rejected_invalid", "rejected_opcode", "completions", "skipped", "doorbells"];
    let more = ["avoided", "sleeps", "stalls", "wakeups", "inflight", "rings"];
    names.into_iter().chain(more).map(|name| (name, counter(name))).collect()
}

#[test]
fn fdinfo_and_sysfs_say_what_the_ring_did() {
    if env::var_os("SQ_BACKEND").is_none_or(|value| value != "device") {
        println!("SKIPPED: there is no module here, so neither fdinfo nor sysfs");
        return;
    }
    let before = counters();
    let backend = Backend::device("/dev/sqnull");
    let mut ring = Ring::builder(8).cq_entries(32).max_inflight(4).build(&backend).unwrap();
    let bad = opcode::Nop::new().build().flags(SqeFlags::IO_LINK);
    let unknown = opcode::ReadFixed::new(opcode::Target::Device, 0, 0, 0).build();
    let skipped = opcode::Nop::new().build().flags(SqeFlags::CQE_SKIP_SUCCESS);
    for entry in [opcode::Nop::new().build(), bad, unknown, skipped, Cmd::new(&Never {}).build()] {
        ring.submission().push(entry).unwrap();
    }
    ring.submit_and_wait(3).unwrap();
    assert_eq!(ring.completion().reap().count(), 3);

    let seen = fdinfo();
    let expected = [
        ("Mode", "caller"),
        ("SqEntries", "8"),
        ("CqEntries", "32"),
        ("MaxInflight", "4"),
        ("State", "idle"),
        ("Stalled", "no"),
        ("SqHead", "5"),
        ("CqTail", "3"),
        ("Inflight", "1"),
        ("Entries", "5"),
        ("Completions", "3"),
        ("Skipped", "1"),
        ("Rejected", "2"),
        ("RejectedInvalid", "1"),
        ("RejectedOpcode", "1"),
        ("Doorbells", "1"),
        ("Avoided", "0"),
        ("Stalls", "0"),
    ];
    for (name, value) in expected {
        assert_eq!(seen.get(name).map(String::as_str), Some(value), "{name} in {seen:?}");
    }
    assert!(seen["Ring"].parse::<u64>().unwrap() > 0);

    let gained = |what| counter(what) - before[what];
    let counts = [("entries", 5), ("rejected", 2), ("rejected_invalid", 1), ("rejected_opcode", 1), ("completions", 3)];
    let more = [("skipped", 1), ("doorbells", 1), ("inflight", 1), ("rings", 1)];
    for (name, count) in counts.into_iter().chain(more) {
        assert_eq!(gained(name), count, "{name}, of a ring that is there");
    }

    ring.submitter().quiesce(Duration::from_secs(20)).unwrap();
    assert!(fdinfo()["State"].ends_with("quiesced"));
    assert_eq!(ring.completion().reap().next().unwrap().result(), Err(Errno::ECANCELED));
    drop(ring);
    let start = Instant::now();
    while counter("rings") > before["rings"] {
        assert!(start.elapsed() < Duration::from_secs(20), "the ring is not freed");
    }
    for (name, count) in counts {
        // The request that never ended has ended: one completion more.
        assert_eq!(gained(name), count + u64::from(name == "completions"), "{name}, of a ring that has gone");
    }
    assert_eq!(gained("inflight"), 0);

    let mut poller = Ring::builder(8).poll(Duration::from_millis(1)).build(&backend).unwrap();
    poller.submission().push(opcode::Nop::new().build()).unwrap();
    poller.submit_and_wait(1).unwrap();
    let seen = fdinfo();
    assert_eq!(seen["Mode"], "poll");
    let comm = fs::read_to_string(format!("/proc/{}/comm", seen["SqThread"])).unwrap();
    assert_eq!(comm.trim(), format!("sq-poll-{}", std::process::id()));
}

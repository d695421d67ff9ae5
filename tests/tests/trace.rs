// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tracepoints of a loaded module. One test, alone in its program: tracing is one for all. Needs root.

use std::path::Path;
use std::{env, fs};

use liburing_shm::{Backend, Ring, SqeFlags, opcode};

const TRACEFS: &str = "/sys/kernel/tracing";

/// The lines of the trace that this process caused, without what comes before the event's name.
fn lines() -> Vec<String> {
    let trace = fs::read_to_string(format!("{TRACEFS}/trace")).unwrap();
    trace.lines().filter_map(|line| Some(line.split_once(": sq_")?.1.to_owned())).collect()
}

fn enable(on: bool) {
    fs::write(format!("{TRACEFS}/events/sq/enable"), if on { "1" } else { "0" }).unwrap();
}

/// Six entries on a ring with four completion slots: one is refused, one is silent, and the drain stops once.
fn use_it(ring: &mut Ring) {
    let bad = opcode::Nop::new().build().flags(SqeFlags::IO_LINK).user_data(0xbad);
    let silent = opcode::Nop::new().build().flags(SqeFlags::CQE_SKIP_SUCCESS).user_data(0x5);
    let nop = |n| opcode::Nop::new().build().user_data(n);
    for entry in [nop(1), bad, silent, nop(2)] {
        ring.submission().push(entry).unwrap();
    }
    ring.submit().unwrap();
    for entry in [nop(3), nop(4)] {
        ring.submission().push(entry).unwrap();
    }
    ring.submit().unwrap();
    assert_eq!(ring.completion().reap().count(), 4);
    ring.submit_and_wait(1).unwrap();
    assert_eq!(ring.completion().reap().count(), 1);
}

#[test]
fn events_are_told_while_somebody_listens() {
    if env::var_os("SQ_BACKEND").is_none_or(|value| value != "device") {
        println!("SKIPPED: there is no module here, so no tracepoint");
        return;
    }
    if !Path::new(&format!("{TRACEFS}/events")).exists() {
        println!("SKIPPED: this kernel has no tracefs");
        return;
    }
    assert!(Path::new(&format!("{TRACEFS}/events/sq")).exists(), "the module has no tracepoints");
    let mut ring = Ring::builder(4).cq_entries(4).build(&Backend::device("/dev/sqnull")).unwrap();
    use_it(&mut ring);
    assert_eq!(lines(), [""; 0], "nobody listens");

    enable(true);
    use_it(&mut ring);
    enable(false);
    let told = lines();
    use_it(&mut ring);
    assert_eq!(lines(), told, "nobody listens any more");

    let fdinfo = fs::read_dir("/proc/self/fdinfo").unwrap().map_while(Result::ok);
    let id = fdinfo
        .filter_map(|fd| {
            fs::read_to_string(fd.path()).ok()?.lines().find_map(|line| line.strip_prefix("Ring:\t").map(String::from))
        })
        .next()
        .unwrap();
    let expected = [
        "reject: ring=ID user_data=0xbad opcode=0 res=-22",
        "complete: ring=ID user_data=0x1 res=0",
        "complete: ring=ID user_data=0xbad res=-22",
        "complete: ring=ID user_data=0x2 res=0",
        "enter: ring=ID ret=4 min_complete=0 wait_result=0",
        "complete: ring=ID user_data=0x3 res=0",
        "stall: ring=ID for=slots",
        "enter: ring=ID ret=1 min_complete=0 wait_result=0",
        "complete: ring=ID user_data=0x4 res=0",
        // The reaper found the ring blocked, and rang.
        "enter: ring=ID ret=1 min_complete=0 wait_result=0",
        "enter: ring=ID ret=0 min_complete=1 wait_result=0",
    ];
    assert_eq!(told, expected.map(|line| line.replace("ID", &id)));
}

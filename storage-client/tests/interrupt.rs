// SPDX-License-Identifier: MIT OR Apache-2.0
//! Signals in the middle: nothing is left that looks complete.
#![forbid(unsafe_code)]
#![allow(missing_docs, reason = "a test binary")]

mod common;

use std::fs;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::{Dir, Loop, check_failure, command, names, stderr};
use rustix::process::{Pid, Signal, kill_process};

/// Long enough that no machine copies it before the signal arrives; a hole, so it costs nothing to make.
const BYTES: u64 = 4 << 30;

/// Runs the rest with no signal ignored: these tests may run in the background of a shell that has SIGINT so.
const NONE_IGNORED: &[&str] = &["env", "--default-signal"];

/// Runs the rest as `nohup` does, and as a shell without job control does in the background.
const TWO_IGNORED: &[&str] = &["sh", "-c", r#"trap "" HUP INT; exec "$0" "$@""#];

/// Starts the command, and signals it as soon as `begun` is true of its process.
fn interrupt(args: &[&str], signal: Signal, begun: impl Fn(u32) -> bool) -> Output {
    interrupt_as(NONE_IGNORED, args, &[signal], begun)
}

/// The same below another command, and with several signals, one after the other.
fn interrupt_as(above: &[&str], args: &[&str], signals: &[Signal], begun: impl Fn(u32) -> bool) -> Output {
    let mut child = Command::new(above[0])
        .args(&above[1..])
        .arg(command().get_program())
        .args(command().get_args())
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command");
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    let until = Instant::now() + Duration::from_secs(120);
    while !begun(child.id()) {
        assert!(Instant::now() < until, "it does not begin");
        assert_eq!(child.try_wait().unwrap(), None, "it ended before the signal");
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_millis(20));
    for signal in signals {
        kill_process(pid, *signal).expect("a signal");
    }
    child.wait_with_output().expect("its end")
}

/// What a process has handed to `write` and its like, in bytes.
fn written_by(pid: u32) -> u64 {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    io.lines().find_map(|line| line.strip_prefix("wchar: ")).map_or(0, |bytes| bytes.parse().unwrap())
}

fn hole(dir: &Dir, name: &str, bytes: u64) -> String {
    let path = dir.file(name, b"");
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(bytes).expect("a large hole");
    path.to_str().unwrap().to_owned()
}

#[test]
fn an_interrupted_copy_leaves_the_destination_as_it_was() {
    let dir = Dir::new();
    let src = hole(&dir, "src", BYTES);
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let dst = dir.file("dst", b"old");
        let begun = |_| dir.names().iter().any(|name| name.starts_with("dst.part-"));
        let output = interrupt(&["copy", &src, dst.to_str().unwrap(), "--no-verify"], signal, begun);
        check_failure(&output, code, &["interrupted", "is as it was"]);
        assert_eq!(dir.names(), ["dst", "src"]);
        assert_eq!(fs::read(&dst).unwrap(), b"old");
    }
}

/// The third of them ends it, and as the first that counts: the second would end it at once, and leave the partial copy.
#[test]
fn a_signal_that_is_ignored_stays_so() {
    let dir = Dir::new();
    let src = hole(&dir, "src", BYTES);
    let dst = dir.join("dst");
    let begun = |_| dir.names().iter().any(|name| name.starts_with("dst.part-"));
    let args = ["copy", &src, dst.to_str().unwrap(), "--no-verify"];
    let output = interrupt_as(TWO_IGNORED, &args, &[Signal::HUP, Signal::INT, Signal::TERM], begun);
    check_failure(&output, 143, &["interrupted by signal 15"]);
    assert_eq!(dir.names(), ["src"]);
}

/// What was written there is counted, and is not all.
#[test]
fn an_interrupted_copy_to_a_device_says_how_far_it_came() {
    let dir = Dir::new();
    let (src, image) = (hole(&dir, "src", BYTES), hole(&dir, "image", BYTES));
    let Some(device) = Loop::on(image.as_ref(), "an interrupted copy to a device") else { return };
    // More than can be in flight.
    let begun = |pid| written_by(pid) > 32 << 20;
    let output = interrupt(&["copy", &src, device.path()], Signal::INT, begun);
    check_failure(&output, 130, &["interrupted", "is no copy"]);
    let said = stderr(&output);
    let (before, _) = said.split_once(" bytes were written").expect("it says how many");
    let written: u64 = before.rsplit(' ').next().unwrap().parse().unwrap();
    assert!(written > 0 && written < BYTES, "{said}");
}

#[test]
fn a_killed_copy_has_a_name_that_says_so() {
    let dir = Dir::new();
    let src = hole(&dir, "src", BYTES);
    let begun = |_| dir.names().iter().any(|name| name.starts_with("dst.part-"));
    let dst = dir.join("dst");
    let output = interrupt(&["copy", &src, dst.to_str().unwrap(), "--no-verify"], Signal::KILL, begun);
    assert_eq!(output.status.code(), None, "{}", stderr(&output));
    assert!(!dst.exists());
    assert_eq!(dir.names().len(), 2, "the source and a .part file: {:?}", dir.names());
}

#[test]
fn an_interrupted_demo_leaves_no_store() {
    let (dir, place) = (Dir::new(), Dir::new());
    hole(&dir, "large", BYTES);
    let begun = |_| !place.names().is_empty();
    let args = ["--from", dir.path().to_str().unwrap(), "--to", place.path().to_str().unwrap(), "--keep"];
    let output = interrupt(&args, Signal::INT, begun);
    check_failure(&output, 130, &["interrupted"]);
    assert!(names(place.path()).is_empty(), "{:?}", names(place.path()));
}

#[test]
fn an_interrupted_bench_reports_and_says_so() {
    let dir = Dir::new();
    let path = hole(&dir, "file", 1 << 20);
    let start = Instant::now();
    let begun = |_| start.elapsed() > Duration::from_millis(300);
    let output = interrupt(&["bench", &path, "--seconds", "600"], Signal::INT, begun);
    check_failure(&output, 130, &["interrupted"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("IOPS"));
    let start = Instant::now();
    let begun = |_| start.elapsed() > Duration::from_millis(300);
    let output = interrupt(&["bench", &path, "--seconds", "600", "--json"], Signal::INT, begun);
    check_failure(&output, 130, &["interrupted"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one document");
    assert!(report["operations"].is_u64(), "{report}");
}

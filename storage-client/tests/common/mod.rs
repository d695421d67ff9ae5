// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the tests of the command share.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

/// A directory that goes with the test.
pub(crate) struct Dir(PathBuf);

impl Dir {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("sq-storage-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a directory for the test");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }

    /// A file with this content.
    pub(crate) fn file(&self, name: impl AsRef<Path>, bytes: &[u8]) -> PathBuf {
        let path = self.join(name);
        fs::write(&path, bytes).expect("a file for the test");
        path
    }

    /// What is in it, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        names(&self.0)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("a directory");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The command, on the embedded backend: the tests are the same with and without a module.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sq-storage"));
    command.args(["--backend", "embedded"]);
    command
}

pub(crate) fn run<I: IntoIterator<Item = A>, A: AsRef<OsStr>>(args: I) -> Output {
    command().args(args).output().expect("the command runs")
}

/// Runs it and expects success; returns standard output.
pub(crate) fn ok<I: IntoIterator<Item = A>, A: AsRef<OsStr>>(args: I) -> String {
    let output = run(args);
    assert!(output.status.success(), "{}", stderr(&output));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Runs it with `--json` and expects success.
pub(crate) fn json<I: IntoIterator<Item = A>, A: AsRef<OsStr>>(args: I) -> Value {
    let args = args.into_iter().map(|arg| arg.as_ref().to_owned()).chain(["--json".into()]);
    serde_json::from_str(&ok(args)).expect("JSON")
}

/// Runs it and expects this exit code, and a message with these words.
pub(crate) fn fails<I: IntoIterator<Item = A>, A: AsRef<OsStr>>(args: I, code: i32, words: &[&str]) {
    check_failure(&run(args), code, words);
}

pub(crate) fn check_failure(output: &Output, code: i32, words: &[&str]) {
    let text = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Bytes that repeat at no block size.
pub(crate) fn bytes(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect()
}

/// Says, where it is seen, that a test did nothing.
pub(crate) fn skipped(what: &str, why: &str) {
    println!("SKIPPED {what}: {why}");
    eprintln!("SKIPPED {what}: {why}");
}

/// A loop device, which goes with the test.
pub(crate) struct Loop(String);

impl Loop {
    /// With `image` behind it. `None`, and said so of `what`, if there can be none.
    pub(crate) fn on(image: &Path, what: &str) -> Option<Self> {
        let attach = Command::new("losetup").args(["--find", "--show"]).arg(image).output();
        match attach {
            Ok(output) if output.status.success() => {
                Some(Self(String::from_utf8(output.stdout).unwrap().trim().to_owned()))
            }
            _ => {
                skipped(what, "no loop device can be had here (root and /dev/loop* are needed)");
                None
            }
        }
    }

    pub(crate) fn path(&self) -> &str {
        &self.0
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

/// Runs a shell line in a mount namespace of its own, as root there. `None` if this machine does not allow it.
pub(crate) fn in_mounts(line: &str) -> Option<Output> {
    let sandbox = |line: &str| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--user", "--map-root-user", "--mount", "sh", "-c", line]);
        unshare.output().ok()
    };
    // In one's own user namespace, or as root without one.
    let probe = "mount -t tmpfs none /mnt";
    if sandbox(probe).is_some_and(|output| output.status.success()) {
        return sandbox(line);
    }
    let root = |line: &str| Command::new("unshare").args(["--mount", "sh", "-c", line]).output().ok();
    if root(probe).is_some_and(|output| output.status.success()) { root(line) } else { None }
}

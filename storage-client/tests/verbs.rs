// SPDX-License-Identifier: MIT OR Apache-2.0
//! The demo, `verify`, `bench`, `info`, and what the command line says.
#![forbid(unsafe_code)]
#![allow(missing_docs, reason = "a test binary")]

mod common;

use std::fs;
use std::os::unix::fs::{FileExt, symlink};
use std::process::Command;

use common::{Dir, bytes, command, fails, json, names, ok, run, skipped};

fn tree() -> Dir {
    let dir = Dir::new();
    dir.file("empty", b"");
    dir.file("one", b"1");
    fs::create_dir_all(dir.join("deep/er")).unwrap();
    for n in 0..100 {
        dir.file(format!("deep/{n}"), &bytes(n * 331));
    }
    dir.file("deep/er/large", &bytes(1_234_567));
    symlink("one", dir.join("link")).unwrap();
    dir
}

#[test]
fn the_demo_stores_a_tree_and_gets_it_back() {
    let (tree, place) = (tree(), Dir::new());
    let (from, to) = (tree.path().to_str().unwrap(), place.path().to_str().unwrap());
    for mode in ["caller", "worker", "poll"] {
        let report = json(["--from", from, "--to", to, "--mode", mode, "--block-size", "8K"]);
        assert_eq!((&report["files"], &report["skipped"], &report["verified"]), (&103.into(), &1.into(), &true.into()));
        assert_eq!(report["bytes"], 1_234_567 + 1 + 331 * 99 * 100 / 2);
        let rows = report["rows"].as_array().unwrap();
        let of = |n: usize| rows[n]["counts"]["operations"].as_u64().unwrap();
        assert_eq!(rows.len(), 4);
        assert_eq!((of(0), of(2)), (of(1), of(3)), "both ways make the same operations");
        assert_eq!(of(0), 2 * of(2), "a read and a write a block, then a read");
        assert!(rows[0]["counts"]["doorbells"].as_u64().unwrap() > 0);
    }
    assert!(place.names().is_empty(), "the stores are removed: {:?}", place.names());

    let text = ok(["demo", "--from", from, "--to", to, "--keep"]);
    assert!(text.contains("verified") && text.contains("doorbells/op") && text.contains("embedded file"), "{text}");
    let [store] = &place.names()[..] else { panic!("one store: {:?}", place.names()) };
    let store = place.join(store);
    assert_eq!(names(&store), ["deep", "empty", "one"]);
    for file in ["empty", "one", "deep/99", "deep/er/large"] {
        assert!(fs::read(store.join(file)).unwrap() == fs::read(tree.join(file)).unwrap(), "{file}");
    }
}

#[test]
fn the_demo_stores_what_git_tracks() {
    let dir = tree();
    let git = |args: &[&str]| {
        Command::new("git").arg("-C").arg(dir.path()).args(args).output().is_ok_and(|output| output.status.success())
    };
    if !git(&["init"]) || !git(&["add", "one", "deep/7", "link"]) {
        return skipped("the demo on tracked files", "git is missing");
    }
    let output = command().args(["--json"]).current_dir(dir.join("deep")).output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["files"], &report["skipped"], &report["bytes"]), (&2.into(), &1.into(), &(1 + 7 * 331).into()));
}

#[test]
fn the_demo_says_what_it_lacks() {
    let dir = Dir::new();
    let output = command().current_dir(dir.path()).env("GIT_CEILING_DIRECTORIES", "/").output().unwrap();
    // A checkout around the directory for temporary files is possible, and then there is nothing tracked in it.
    common::check_failure(&output, 2, &["--from DIR"]);
    let output = command().current_dir(dir.path()).env("PATH", dir.path()).output().unwrap();
    common::check_failure(&output, 2, &["git is not installed", "--from DIR"]);
    let missing = dir.join("missing");
    fails(["--from", missing.to_str().unwrap()], 1, &["missing"]);
    fails(["--from", dir.path().to_str().unwrap()], 2, &["there are no", "--from DIR"]);
    let file = dir.file("file", b"x");
    fails(["--from", dir.path().to_str().unwrap(), "--to", "/proc/none"], 1, &["cannot create", "/proc/none"]);
    fails(["--from", "x", "info"], 2, &["behind `demo`"]);
    fails(["--from", file.to_str().unwrap()], 1, &["not a directory"]);
}

/// Each small file takes four descriptors of an embedded ring's process: two to copy it, and the ring's own two.
#[test]
fn the_demo_keeps_to_the_limit_of_open_files() {
    let (tree, place) = (Dir::new(), Dir::new());
    for n in 0..100 {
        tree.file(n.to_string(), b"1");
    }
    let mut limited = Command::new("sh");
    limited.args(["-c", r#"ulimit -S -n 128; exec "$0" "$@""#]).arg(command().get_program());
    limited.args(command().get_args()).args(["--json", "--depth", "64", "--block-size", "4K"]);
    limited.args(["--from", tree.path().to_str().unwrap(), "--to", place.path().to_str().unwrap()]);
    let output = limited.output().expect("the command runs");
    assert!(output.status.success(), "{}", common::stderr(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&report["files"], &report["bytes"], &report["verified"]), (&100.into(), &100.into(), &true.into()));
}

#[test]
fn verify_finds_a_difference_and_says_where() {
    let dir = Dir::new();
    let content = bytes(300_000);
    let (a, b) = (dir.file("a", &content), dir.file("b", &content));
    let (a, b) = (a.to_str().unwrap(), b.to_str().unwrap());
    let report = json(["verify", a, b]);
    assert_eq!(report["bytes"], 300_000);
    assert_eq!(report["digest"], json(["verify", b, a])["digest"]);
    for at in [0, 4095, 4096, 299_999] {
        dir.file("b", &content);
        let file = fs::OpenOptions::new().write(true).open(b).unwrap();
        file.write_all_at(&[!content[at]], at as u64).unwrap();
        fails(["verify", a, b, "--block-size", "4K"], 3, &["differ", &format!("byte {at}")]);
    }
    dir.file("b", &content[..299_999]);
    fails(["verify", a, b], 3, &["300000 bytes and 299999 bytes"]);
    fails(["verify", a, dir.join("c").to_str().unwrap()], 1, &["cannot find"]);
    dir.file("a", b"");
    dir.file("b", b"");
    assert_eq!(json(["verify", a, b])["bytes"], 0);
}

#[test]
fn an_error_is_json_too() {
    let output = run(["verify", "/nonexistent/a", "/nonexistent/b", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let error: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&error["error"]["kind"], &error["error"]["exit_code"]), (&"io".into(), &1.into()));
}

#[test]
fn a_name_that_is_no_unicode_is_reported() {
    use std::os::unix::ffi::OsStrExt;
    let dir = Dir::new();
    let odd = dir.join(std::ffi::OsStr::from_bytes(b"n\xff"));
    fs::write(&odd, "x").expect("the file");
    let report = json(["verify".as_ref(), odd.as_os_str(), odd.as_os_str()]);
    assert!(report["a"].as_str().unwrap().ends_with("n\u{fffd}"), "{report}");
}

#[test]
fn bench_measures_reads_and_writes() {
    let dir = Dir::new();
    let path = dir.file("file", &bytes(1 << 20));
    let path = path.to_str().unwrap();
    for mode in ["caller", "worker", "poll"] {
        let args =
            ["bench", path, "--seconds", "0.1", "--block-size", "4K", "--writes", "50", "--overwrite", "--mode", mode];
        let report = json(args);
        let operations = |n: usize| report["latencies"][n]["operations"].as_u64().unwrap();
        assert_eq!(report["operations"].as_u64().unwrap(), operations(0) + operations(1));
        for latency in report["latencies"].as_array().unwrap() {
            let of = |name: &str| latency[name].as_u64().unwrap();
            assert!(of("p50_ns") <= of("p99_ns") && of("p99_ns") <= of("p999_ns") && of("p999_ns") <= of("max_ns"));
        }
    }
    assert_eq!(fs::metadata(path).unwrap().len(), 1 << 20);
    let text = ok(["bench", "--size", "1M", "--seconds", "0.05", "--sequential", "--depth", "1"]);
    assert!(text.contains("IOPS") && text.contains("p99.9"), "{text}");
    fails(["bench", path, "--writes", "1"], 2, &["--overwrite"]);
    fails(["bench", path, "--block-size", "2M"], 2, &["less than a block"]);
    fails(["bench", path, "--seconds", "0"], 2, &["more than 0"]);
}

#[test]
fn info_lists_what_the_backend_can_do() {
    let report = json(["info"]);
    assert_eq!((&report["backend"], &report["embedded"]), (&"embedded file".into(), &true.into()));
    let opcodes: Vec<_> = report["opcodes"].as_array().unwrap().iter().map(|op| op["name"].as_str().unwrap()).collect();
    for name in ["READ", "WRITE", "READV", "WRITEV", "FSYNC", "READ_FIXED", "WRITE_FIXED"] {
        assert!(opcodes.contains(&name), "{opcodes:?}");
    }
    let text = ok(["info"]);
    assert!(text.contains("WRITE_FIXED") && text.contains("registered files") && text.contains("no module"), "{text}");
}

#[test]
fn help_teaches() {
    let text = ok(["--help"]);
    for word in ["Examples:", "copy", "verify", "bench", "info", "--from", "--backend", "Exit codes"] {
        assert!(text.contains(word), "{word}");
    }
    assert!(ok(["copy", "--help"]).contains(".part-"));
}

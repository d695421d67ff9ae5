// SPDX-License-Identifier: MIT OR Apache-2.0
//! `copy`: what arrives, and what is left when it does not.
#![forbid(unsafe_code)]
#![allow(missing_docs, reason = "a test binary")]

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{Dir, Loop, bytes, check_failure, fails, in_mounts, json, names, ok, run, skipped};

const BLOCK: usize = 4096;

#[test]
fn what_arrives_is_what_was_there() {
    let dir = Dir::new();
    let sizes = [0, 1, 511, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 16 * BLOCK - 1, 16 * BLOCK + 1, 1_000_003];
    for (n, size) in sizes.into_iter().enumerate() {
        let content = bytes(size);
        let src = dir.file(format!("src{n}"), &content);
        let dst = dir.join(format!("dst{n}"));
        for mode in ["caller", "worker", "poll"] {
            let report = json([
                "copy".as_ref(),
                src.as_os_str(),
                dst.as_ref(),
                "--block-size=4K".as_ref(),
                format!("--mode={mode}").as_ref(),
            ]);
            assert_eq!(report["bytes"], size);
            assert_eq!(report["counts"]["operations"], 2 * size.div_ceil(BLOCK), "one read and one write a block");
            assert!(fs::read(&dst).expect("the copy") == content, "{size} bytes, mode {mode}");
        }
    }
    assert_eq!(dir.names().len(), 2 * sizes.len(), "no partial file is left: {:?}", dir.names());
}

#[test]
fn shapes_of_rings_make_no_difference() {
    let dir = Dir::new();
    let content = bytes(777_777);
    let src = dir.file("src", &content);
    for (depth, block) in [("1", "4K"), ("3", "12K"), ("64", "4K"), ("2", "1M"), ("16", "128K"), ("16384", "4K")] {
        let dst = dir.join("dst");
        ok([
            "copy",
            src.to_str().unwrap(),
            dst.to_str().unwrap(),
            "--depth",
            depth,
            "--block-size",
            block,
            "--no-verify",
        ]);
        assert!(fs::read(&dst).expect("the copy") == content, "depth {depth}, blocks of {block}");
    }
}

#[test]
fn holes_become_zeros_and_bits_are_preserved() {
    let dir = Dir::new();
    let src = dir.file("src", b"");
    let file = fs::OpenOptions::new().write(true).open(&src).expect("the source");
    file.set_len(3 << 20).expect("a hole");
    std::os::unix::fs::FileExt::write_all_at(&file, b"island", 1 << 20).expect("an island");
    fs::set_permissions(&src, fs::Permissions::from_mode(0o751)).expect("a mode");
    let dst = dir.join("dst");
    ok(["copy".as_ref(), src.as_os_str(), dst.as_ref()]);
    assert!(fs::read(&src).unwrap() == fs::read(&dst).unwrap());
    assert_eq!(fs::metadata(&dst).unwrap().permissions().mode() & 0o7777, 0o751);
}

#[test]
fn an_existing_file_is_replaced_and_a_link_is_followed() {
    let dir = Dir::new();
    let src = dir.file("src", b"new");
    let old = dir.file("old", b"old and longer");
    let link = dir.join("link");
    symlink("old", &link).expect("a link");
    ok(["copy".as_ref(), src.as_os_str(), link.as_ref()]);
    assert_eq!(fs::read(&old).unwrap(), b"new");
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
}

#[test]
fn what_cannot_be_copied_is_refused_before_anything_is_written() {
    let dir = Dir::new();
    let src = dir.file("src", b"x");
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let src_path = src.to_str().unwrap();
    fs::create_dir(dir.join("sub")).unwrap();
    symlink("nowhere", dir.join("dangling")).unwrap();
    symlink("src", dir.join("alias")).unwrap();
    fs::hard_link(&src, dir.join("twin")).unwrap();
    let before = dir.names();

    fails(["copy", &path("missing"), &path("dst")], 1, &["cannot find", "missing", "no such file"]);
    fails(["copy", src_path, &path("nodir/dst")], 1, &["directory", "nodir"]);
    fails(["copy", src_path, &path("src/dst")], 1, &["not a directory"]);
    fails(["copy", src_path, &path("nodir/")], 2, &["no directory", "nodir/"]);
    fails(["copy", src_path, &path("nodir/.")], 2, &["no directory"]);
    fails(["copy", src_path, &path("sub")], 2, &["is a directory", "sub/src"]);
    fails(["copy", &path("sub"), &path("dst")], 2, &["is a directory"]);
    fails(["copy", src_path, src_path], 2, &["same file"]);
    fails(["copy", src_path, &path("alias")], 2, &["same file"]);
    fails(["copy", src_path, &path("twin")], 2, &["same file"]);
    fails(["copy", src_path, &path("dangling")], 2, &["symbolic link to nothing"]);
    fails(["copy", "/dev/zero", &path("dst")], 2, &["character device"]);
    fails(["copy", src_path, "/dev/full"], 2, &["character device"]);
    fails(["copy", src_path], 2, &["Usage"]);
    fails(["copy", src_path, &path("dst"), "--block-size", "1000"], 2, &["multiple of 4096"]);
    fails(["copy", src_path, &path("dst"), "--depth", "0"], 2, &["depth"]);
    fails(["copy", src_path, &path("dst"), "--backend", "/dev/null"], 1, &["the ring failed"]);
    fails(["copy", src_path, &path("dst"), "--backend", "/dev/sqnone"], 1, &["/dev/sqnone", "is the module loaded?"]);
    assert_eq!(dir.names(), before);
    assert_eq!(fs::read(&src).unwrap(), b"x");

    let made = Command::new("mkfifo").arg(dir.join("fifo")).status();
    if made.is_ok_and(|status| status.success()) {
        fails(["copy", &path("fifo"), &path("dst")], 2, &["pipe"]);
        fails(["copy", src_path, &path("fifo")], 2, &["pipe"]);
    } else {
        skipped("a pipe as source", "mkfifo is missing");
    }
}

#[test]
fn a_file_without_a_size_is_not_taken_for_an_empty_one() {
    let dir = Dir::new();
    let dst = dir.join("dst");
    fails(["copy", "/proc/self/status", dst.to_str().unwrap()], 1, &["goes on after its 0 bytes"]);
    assert!(dir.names().is_empty(), "{:?}", dir.names());
}

#[test]
fn without_permission_nothing_happens() {
    let dir = Dir::new();
    let src = dir.file("src", b"x");
    fs::create_dir(dir.join("closed")).unwrap();
    fs::set_permissions(dir.join("closed"), fs::Permissions::from_mode(0o555)).unwrap();
    let secret = dir.file("secret", b"x");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o000)).unwrap();
    // Root may do all this, unless it gives up what makes it root.
    let plain = |args: &[&Path]| {
        let mut setpriv = Command::new("setpriv");
        setpriv.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(env!("CARGO_BIN_EXE_sq-storage"));
        setpriv.args(["--backend=embedded", "copy"]).args(args).output()
    };
    let is_root = fs::read(&secret).is_ok();
    let run =
        |src: &Path, dst: &Path| if is_root { plain(&[src, dst]).ok() } else { Some(run(["copy".as_ref(), src, dst])) };
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    match run(&src, &dir.join("closed/dst")) {
        Some(output) if !common::stderr(&output).contains("setpriv") => {
            check_failure(&output, 1, &["cannot create", "closed", "permission denied"]);
            let output = run(&secret, Path::new("/tmp/never")).expect("it ran before");
            check_failure(&output, 1, &["cannot open", "secret", "permission denied"]);
        }
        _ => skipped("copy without permission", "run by root, and setpriv is missing or does not work"),
    }
    assert!(names(&dir.join("closed")).is_empty());
}

#[test]
fn a_full_disk_leaves_nothing() {
    let dir = Dir::new();
    let src = dir.file("src", &bytes(3 << 20));
    let tool = env!("CARGO_BIN_EXE_sq-storage");
    let src = src.display();
    let line = format!(
        "mkdir -p {0}/small && mount -t tmpfs -o size=1m none {0}/small && echo old > {0}/small/dst; \
         {tool} --backend embedded copy {src} {0}/small/dst; code=$?; ls {0}/small; cat {0}/small/dst; exit $code",
        dir.path().display()
    );
    let Some(output) = in_mounts(&line) else {
        return skipped("copy to a full disk", "no mount namespace can be had here");
    };
    check_failure(&output, 1, &["no room for 3 MiB", "left"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "dst\nold\n", "only what was there, as it was");
}

#[test]
fn a_copy_that_cannot_have_its_name_is_kept() {
    let dir = Dir::new();
    let src = dir.file("src", b"new");
    let (tool, src, at) = (env!("CARGO_BIN_EXE_sq-storage"), src.display(), dir.path().display());
    let line = format!(
        "cd {at} && echo old > dst && mount --bind dst dst && {tool} --backend embedded copy {src} dst; \
         code=$?; cat dst; cat dst.part-*; exit $code"
    );
    let Some(output) = in_mounts(&line) else {
        return skipped("copy to a mounted file", "no mount namespace can be had here");
    };
    check_failure(&output, 1, &["the copy is complete", "cannot be called", "/dst: ", "dst.part-"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "old\nnew");
}

#[test]
fn a_source_that_is_written_to_meanwhile_is_an_error() {
    let dir = Dir::new();
    let src = dir.file("src", &bytes(64 << 20));
    let before = fs::metadata(&src).unwrap().modified().unwrap();
    let writing = AtomicBool::new(true);
    let output = std::thread::scope(|scope| {
        scope.spawn(|| {
            let file = fs::OpenOptions::new().write(true).open(&src).expect("the source");
            while writing.load(Ordering::Relaxed) {
                std::os::unix::fs::FileExt::write_all_at(&file, b"x", 0).expect("a byte");
            }
        });
        // From then on it is written to, before, while and after it is copied.
        let until = Instant::now() + Duration::from_secs(20);
        while fs::metadata(&src).unwrap().modified().unwrap() == before && Instant::now() < until {}
        let output = run(["copy".as_ref(), src.as_os_str(), dir.join("dst").as_ref()]);
        writing.store(false, Ordering::Relaxed);
        output
    });
    check_failure(&output, 1, &["src was written to while it was copied"]);
    assert_eq!(dir.names(), ["src"]);
}

#[test]
fn a_mode_that_keeps_its_owner_out_is_copied() {
    let dir = Dir::new();
    let src = dir.file("src", b"x");
    fs::set_permissions(&src, fs::Permissions::from_mode(0o044)).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    // Another user reads it as such, and owns the copy.
    let mut setpriv = Command::new("setpriv");
    setpriv.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(env!("CARGO_BIN_EXE_sq-storage"));
    let output = setpriv.arg("--backend=embedded").arg("copy").args([&src, &dir.join("dst")]).output();
    match output {
        Ok(output) if !common::stderr(&output).contains("setpriv") => {
            assert!(output.status.success(), "{}", common::stderr(&output));
            assert_eq!(fs::metadata(dir.join("dst")).unwrap().permissions().mode() & 0o7777, 0o044);
        }
        _ => skipped("copy of a mode without its owner", "not run by root, or setpriv is missing"),
    }
}

#[test]
fn a_size_limit_is_an_error_and_leaves_nothing() {
    let dir = Dir::new();
    let src = dir.file("src", &bytes(6 << 20));
    let (tool, dst) = (env!("CARGO_BIN_EXE_sq-storage"), dir.join("dst"));
    // The limit holds for the ring's own memory, too: 4 MiB are enough for a small ring.
    let line =
        format!("ulimit -f 4096; exec {tool} --backend embedded --depth 4 copy {} {}", src.display(), dst.display());
    let output = Command::new("bash").args(["-c", &line]).output();
    let Ok(output) = output else { return skipped("copy over a size limit", "bash is missing") };
    check_failure(&output, 1, &["dst", "ulimit"]);
    assert_eq!(dir.names(), ["src"]);
}

#[test]
fn a_loop_device_is_copied_to_and_compared() {
    let dir = Dir::new();
    let image = dir.file("image", &vec![0xee; 4 << 20]);
    let Some(device) = Loop::on(&image, "copy to a block device") else { return };
    let device = device.path();
    let content = bytes(1_000_001);
    let (src, long) = (dir.file("src", &content), dir.file("long", &vec![1; (4 << 20) + 1]));
    let (src, long) = (src.to_str().unwrap(), long.to_str().unwrap());
    ok(["copy", src, device]);
    assert!(fs::read(device).unwrap()[..content.len()] == content);
    let report = json(["verify", src, device]);
    assert_eq!(report["rest_bytes"], (4 << 20) - content.len());
    fails(["copy", long, device], 1, &["too short", "1 are missing", "nothing was written"]);
    assert!(fs::read(device).unwrap()[..content.len()] == content, "nothing was written");
    ok(["copy", device, dir.join("back").to_str().unwrap()]);
    assert!(fs::read(dir.join("back")).unwrap() == fs::read(device).unwrap());
    fails(["copy", device, device], 2, &["same file"]);
}

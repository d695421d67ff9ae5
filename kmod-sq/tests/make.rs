// SPDX-License-Identifier: MIT OR Apache-2.0
//! What `make` says when it cannot build: which thing is wrong, and what to do about it.
//!
//! Kernels and compilers are made up here, so that nothing has to be installed, or must not be.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder of its own for each test.
struct Place(PathBuf);

impl Place {
    /// Without make there is no module build either.
    fn new(test: &str) -> Option<Self> {
        if Command::new("make").arg("--version").output().is_err() {
            println!("SKIP: no make on this machine");
            return None;
        }
        let dir = std::env::temp_dir().join(format!("sq-make-{test}-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a temporary folder");
        Some(Self(dir))
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().expect("below the folder")).expect("a folder");
        fs::write(&path, text).expect("a file");
        path
    }

    /// A kernel's build directory; `config` is said besides that it is x86-64 with modules.
    fn kernel(&self, release: &str, config: &str) -> PathBuf {
        let auto = format!("CONFIG_X86_64=y\nCONFIG_MODULES=y\n{config}");
        self.write("kernel/include/config/auto.conf", &auto);
        self.write("kernel/include/generated/utsrelease.h", &format!("#define UTS_RELEASE \"{release}\"\n"));
        self.write("kernel/Makefile", "");
        self.0.join("kernel")
    }

    /// A compiler that says of itself what the shell commands in `answers` print.
    fn rustc(&self, answers: &str) -> PathBuf {
        let path = self.write("rustc", &format!("#!/bin/sh\ncase \"$*\" in\n{answers}\nesac\n"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("mode 755");
        path
    }

    /// `rustc(answers)` of this version, with its library's sources in a folder called `sources`.
    fn rustc_with(&self, minor: u32, sources: &str, answers: &str) -> PathBuf {
        self.write(&format!("{sources}/library/core/src/lib.rs"), "");
        let link = self.0.join("sysroot/lib/rustlib/src/rust");
        fs::create_dir_all(link.parent().expect("below")).expect("a folder");
        std::os::unix::fs::symlink(self.0.join(sources), link).expect("a link");
        let sysroot = self.0.join("sysroot");
        self.rustc(&format!(
            "--version) echo 'rustc 1.{minor}.0';;\n'--print sysroot') echo {};;\n{answers}",
            sysroot.display()
        ))
    }

    fn make(&self, folder: &Path, words: &[&str]) -> Command {
        let mut make = Command::new("make");
        make.arg("-C").arg(folder).arg(format!("OUT={}", self.0.join("out").display())).args(words);
        make.env_remove("MAKEFLAGS").env_remove("RUSTC").env("LC_ALL", "C");
        make
    }

    /// What make writes to stderr; it must fail.
    fn make_fails(&self, folder: &Path, words: &[&str]) -> String {
        let output = self.make(folder, words).output().expect("make runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "make {words:?} succeeded: {said}");
        said
    }

    /// make for this kernel with this compiler fails, and all of `expected` is in what it says.
    fn fails(&self, kernel: &Path, rustc: &Path, expected: &[&str]) {
        let kdir = format!("KDIR={}", kernel.display());
        let rustc = format!("RUSTC={}", rustc.display());
        contains(&self.make_fails(here(), &[&kdir, &rustc]), expected);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn contains(said: &str, expected: &[&str]) {
    for part in expected {
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }
}

/// Not reached by what these tests expect.
const ANY: &str = "/bin/true";

#[test]
fn missing_headers() {
    let Some(place) = Place::new("headers") else { return };
    let kernel = place.0.join("kernel");
    place.fails(&kernel, Path::new(ANY), &["no kernel headers at", "apt install linux-headers-", "KDIR="]);
    let installed = Path::new("/lib/modules/6.1.0-none/build");
    place.fails(installed, Path::new(ANY), &["apt install linux-headers-6.1.0-none."]);
}

#[test]
fn a_source_that_is_not_prepared() {
    let Some(place) = Place::new("unprepared") else { return };
    place.write("kernel/Makefile", "");
    place.fails(&place.0.join("kernel"), Path::new(ANY), &["not prepared", "modules_prepare"]);
}

#[test]
fn wrong_kernels() {
    let Some(place) = Place::new("kernels") else { return };
    for old in ["5.15.0-91-generic", "6.0.19", "4.19.0"] {
        place.fails(&place.kernel(old, ""), Path::new(ANY), &[old, "needs 6.1 or newer"]);
    }
    let cfi = place.kernel("6.12.0", "CONFIG_CFI_CLANG=y\n");
    place.fails(&cfi, Path::new(ANY), &["CONFIG_CFI_CLANG", "no support"]);
    let arm = place.kernel("6.12.0", "");
    place.write("kernel/include/config/auto.conf", "CONFIG_ARM64=y\nCONFIG_MODULES=y\n");
    place.fails(&arm, Path::new(ANY), &["not x86-64"]);
    place.write("kernel/include/config/auto.conf", "CONFIG_X86_64=y\n");
    place.fails(&arm, Path::new(ANY), &["without loadable modules"]);
}

/// Past the kernel's check, which 6.1 and what follows pass.
#[test]
fn wrong_compilers() {
    for good in ["6.1.0-56-cloud-amd64", "6.12.117+deb12-rt-amd64", "6.10.1", "7.0.0-rc1", "10.2.0"] {
        let Some(place) = Place::new("compilers") else { return };
        let kernel = place.kernel(good, "");
        let hint = "apt install rustc-web rust-web-src";
        place.fails(&kernel, Path::new("/nowhere/rustc"), &["/nowhere/rustc does not run", hint]);
        let old = place.rustc("--version) echo 'rustc 1.63.0';;");
        place.fails(&kernel, &old, &["is 1.63, older than 1.88", hint]);
    }
}

#[test]
fn compilers_without_the_sources_of_core() {
    let Some(place) = Place::new("sources") else { return };
    let kernel = place.kernel("6.12.0", "");
    let bare = place.rustc("--version) echo 'rustc 1.90.0';;\n'--print sysroot') echo /nowhere;;");
    place.fails(&kernel, &bare, &["has no sources at /nowhere/lib", "rust-web-src", "rustup component add rust-src"]);
    let drifted = place.rustc_with(90, "rustc-1.88.0", "");
    place.fails(&kernel, &drifted, &["is 1.90 but its sources are", "rustc-1.88.0"]);
}

#[test]
fn a_compiler_that_knows_a_flag_no_more() {
    let Some(place) = Place::new("flags") else { return };
    let kernel = place.kernel("6.12.0", "");
    let strict =
        place.rustc_with(99, "rustc-1.99.0", "*cfg) echo 'error: unknown unstable option: `plt`' >&2; exit 1;;");
    place.fails(&kernel, &strict, &["refuses a flag (error: unknown unstable option: `plt`)"]);
}

/// As root's DKMS runs it at boot.
#[test]
fn no_home() {
    let script = here().join("scripts/find-rust.sh");
    let mut sh = Command::new("sh");
    sh.arg(script).env_remove("HOME").env("SQ_RUSTFLAGS", "").env("PATH", "/bin:/usr/bin");
    let output = sh.output().expect("sh runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_driver_before_sq() {
    let Some(place) = Place::new("driver") else { return };
    let kernel = place.kernel("6.12.0", "");
    let text = format!(
        "SQ_NAME := x\nSQ_C := m.c\nSQ_DIR := {}\ninclude $(SQ_DIR)/kmod-sq/driver.mk\n",
        here().join("..").display()
    );
    place.write("x/Makefile", &text);
    let said = place.make_fails(&place.0.join("x"), &[&format!("KDIR={}", kernel.display()), "SQ_OUT=/nowhere"]);
    contains(&said, &["no /nowhere/Module.symvers", "build sq.ko for this kernel first", "SQ_OUT="]);
}

#[test]
fn install_before_build() {
    let Some(place) = Place::new("install") else { return };
    contains(&place.make_fails(here(), &["modules_install"]), &["nothing built in", "run make first"]);
}

/// Each target, each variable that the Makefile gives a default, and where to read on.
#[test]
fn help_teaches() {
    let Some(place) = Place::new("help") else { return };
    let output = place.make(here(), &["-s", "help"]).output().expect("make runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    contains(&said, &["make KDIR=", "make check", "make modules_install", "make clean", "docs/install.md", "modprobe"]);
    for file in ["Makefile", "scripts/common.mk"] {
        let text = fs::read_to_string(here().join(file)).expect("a file of ours");
        for variable in text.lines().filter_map(|line| line.split_once(" ?= ")).map(|(name, _)| name) {
            // Which of the two a Makefile that includes it wants is not the user's.
            if variable != "SQ_NEEDS_RUST" {
                contains(&said, &[&format!("\n  {variable} ")]);
            }
        }
    }
}

/// Who includes the header without our Makefile is told as well.
#[test]
fn the_header_names_the_oldest_kernel() {
    let Some(place) = Place::new("header") else { return };
    let header = here().join("include/sq_driver.h");
    let text = fs::read_to_string(&header).expect("a header of ours");
    for name in text.lines().filter_map(|line| line.strip_prefix("#include <linux/")?.strip_suffix('>')) {
        place.write(&format!("linux/{name}"), "");
    }
    for (code, refused) in [("(6 << 16)", true), ("((6 << 16) + (1 << 8))", false)] {
        let version = "#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))\n";
        place.write("linux/version.h", &format!("{version}#define LINUX_VERSION_CODE {code}\n"));
        let mut gcc = Command::new("gcc");
        gcc.args(["-E", "-DCONFIG_X86_64", "-D__KERNEL__", "-o", "/dev/null"]).arg(&header);
        gcc.arg("-I").arg(&place.0).arg("-I").arg(here().join("../uapi/include"));
        let Ok(output) = gcc.output() else {
            println!("SKIP: no gcc on this machine");
            return;
        };
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(said.contains("sq needs Linux 6.1 or newer"), refused, "{said}");
    }
}

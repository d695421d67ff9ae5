// SPDX-License-Identifier: MIT OR Apache-2.0
//! Running gcc. It only compiles: no library of the other word size is needed.

use std::path::Path;
use std::process::{Command, Output};

const INSTALL: &str = "apt-get install gcc libc6-dev";

/// A word size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bits {
    /// 32.
    M32,
    /// 64.
    M64,
}

impl Bits {
    /// What this machine's gcc compiles for.
    pub(crate) const ALL: &[Self] = if cfg!(target_arch = "x86_64") { &[Self::M64, Self::M32] } else { &[Self::M64] };
}

/// Compiles `c`, strictly: `Err` is what gcc said.
pub(crate) fn compile(name: &str, c: &str, bits: Bits) -> Result<(), String> {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{bits:?}.c"));
    std::fs::write(&file, c).unwrap_or_else(|error| panic!("cannot write {}: {error}", file.display()));
    let mut gcc = Command::new("gcc");
    gcc.args(["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-c", "-o", "/dev/null"]);
    gcc.arg("-I").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("include"));
    if cfg!(target_arch = "x86_64") {
        gcc.arg(match bits {
            Bits::M32 => "-m32",
            Bits::M64 => "-m64",
        });
    }
    if bits == Bits::M32 {
        // Debian keeps <asm/types.h> here; the file is the same for both word sizes.
        gcc.arg("-isystem").arg(format!("/usr/include/{}", multiarch()));
    }
    let output = run(gcc.arg(&file));
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!said.contains("linux/types.h: No such file"), "the kernel's headers are missing: {INSTALL}\n{said}");
    Err(said)
}

/// Compiles `cpp`, as C++ of this standard; not `-Wpedantic`, since ISO C++ has no anonymous structures. `Ok(false)`: without g++.
pub(crate) fn compile_cpp(standard: &str, cpp: &str) -> Result<bool, String> {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{standard}.cc"));
    std::fs::write(&file, cpp).unwrap_or_else(|error| panic!("cannot write {}: {error}", file.display()));
    let mut gcc = Command::new("g++");
    gcc.arg(format!("-std={standard}")).args(["-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-I"]);
    match gcc.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("include")).arg(&file).output() {
        Ok(output) if output.status.success() => Ok(true),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(_) => Ok(false),
    }
}

fn multiarch() -> String {
    let output = run(Command::new("gcc").arg("-print-multiarch"));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("gcc does not run ({error}): {INSTALL}"))
}

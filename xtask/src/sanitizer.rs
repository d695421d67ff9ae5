// SPDX-License-Identifier: MIT OR Apache-2.0
//! The Rust objects as a debug kernel wants them: each access to memory tells the kernel's sanitizer.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::ctx::Ctx;
use crate::kernel::Kernel;
use crate::process::stdout;

/// As the kernel compiles its C for KASAN_INLINE. Globals are not covered: what they need is a relocation that the loader refuses.
const KASAN: &str = "-Zsanitizer=kernel-address -Zsanitizer-recover=kernel-address \
    -Cllvm-args=-asan-mapping-offset=0xdffffc0000000000 -Cllvm-args=-asan-globals=0 \
    -Cllvm-args=-asan-kernel-mem-intrinsic-prefix=1";

/// As the kernel compiles its C for KCSAN: it has no use for function entries, and volatile accesses are marked.
const KCSAN: &str = "-Zunstable-options -Zsanitizer=thread -Cllvm-args=-tsan-instrument-func-entry-exit=0 \
    -Cllvm-args=-tsan-distinguish-volatile=1";

/// Variables of kmod-sq's Makefile for `kernel`.
pub(crate) fn variables(ctx: &Ctx, kernel: Kernel, rustc: &str) -> Result<Vec<String>> {
    match kernel {
        Kernel::Kasan => Ok(vec![format!("SQ_RUSTFLAGS_EXTRA={KASAN}")]),
        Kernel::Kcsan => {
            let target = target(ctx, rustc)?;
            Ok(vec![format!("SQ_TARGET={}", target.display()), format!("SQ_RUSTFLAGS_EXTRA={KCSAN}")])
        }
        _ => Ok(Vec::new()),
    }
}

/// Counts the places in each Rust object of `out` that tell the sanitizer.
///
/// # Errors
/// When an object has none.
pub(crate) fn check(kernel: Kernel, out: &Path) -> Result<Vec<String>> {
    let prefix = if kernel == Kernel::Kasan { "__asan_" } else { "__tsan_" };
    let mut notes = Vec::new();
    for entry in fs::read_dir(out)? {
        let object = entry?.path();
        let name = object.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !name.ends_with("_rust.o") {
            continue;
        }
        let relocations = stdout(Command::new("objdump").arg("-r").arg(&object))?;
        let places = relocations.lines().filter(|line| line.contains(prefix)).count();
        if places == 0 {
            bail!("{name}: nothing in it calls {prefix}*: it was built without the sanitizer");
        }
        notes.push(format!("{name}: {places} calls of {prefix}*"));
    }
    notes.sort();
    Ok(notes)
}

/// rustc believes that its bare target has no thread sanitizer; a copy of the target that says otherwise.
fn target(ctx: &Ctx, rustc: &str) -> Result<PathBuf> {
    let name = "x86_64-unknown-none";
    let mut print = Command::new(rustc);
    print.args(["-Zunstable-options", "--print", "target-spec-json", "--target", name]).env("RUSTC_BOOTSTRAP", "1");
    let mut target: Value = serde_json::from_str(&stdout(&mut print)?).context("rustc's description of a target")?;
    let known = target["supported-sanitizers"].as_array_mut().context("a target that knows no sanitizers")?;
    known.push(json!("thread"));
    let text = serde_json::to_string_pretty(&target)?;
    let file = ctx.cache.join("targets").join(format!("{name}.json"));
    fs::create_dir_all(ctx.cache.join("targets"))?;
    // Only if it differs: the time of the file is what make looks at.
    if fs::read_to_string(&file).ok().as_deref() != Some(&text) {
        fs::write(&file, text)?;
    }
    Ok(file)
}

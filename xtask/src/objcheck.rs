// SPDX-License-Identifier: MIT OR Apache-2.0
//! What must not be in a Rust object that goes into the kernel, read from the object itself.

mod code;
mod hot;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::process::stdout;

/// C symbols that Rust code may call, besides the glue's own `sq_*`.
const ALLOWED_UNDEFINED: &[&str] = &["memcpy", "memmove", "memset", "memcmp", "bcmp", "strlen", "__x86_return_thunk"];

/// One thunk per register.
const ALLOWED_PREFIXES: &[&str] = &["sq_", "__x86_indirect_thunk_"];

/// What the kernel's x86-64 module loader applies (arch/x86/kernel/module.c); others are refused at load.
const ALLOWED_RELOCATIONS: &[&str] = &[
    "R_X86_64_NONE",
    "R_X86_64_64",
    "R_X86_64_32",
    "R_X86_64_32S",
    "R_X86_64_PC32",
    "R_X86_64_PLT32",
    "R_X86_64_PC64",
];

/// Uses of `core::panicking` that may be there, as "section -> target", each with the reason why no input leads to it.
const JUSTIFIED_PANICS: [(&str, &str); 0] = [];

/// Bytes of stack that a function may take: the kernel's own limit for C. What is below may be the kernel's memory management.
const FRAME: u64 = 2048;

/// A ring on its way into its place: `edge::place`, below which nothing but it and its arrays is allocated.
const PLACE: (&str, u64) = ("4edge5place", 5 * 1024);

/// The object with the drain loop.
const RINGS: &str = "sq_rust.o";

/// Where an entry is consumed that comes alone.
const DOORBELL: &str = "sq_ring_doorbell";

/// Functions besides with a full fence, and the one that the memory's `kernel_fence` must have left there.
const FENCED: [(&str, &str); 2] = [("sq_ring_poll_awake", "BellKernel"), ("sq_ring_poll", "WatchKernel")];

/// Checks each Rust object in the build directory `out`; returns one line of figures for each.
///
/// # Errors
/// Lists every violation found in the first object that has one.
pub(crate) fn check(out: &Path) -> Result<Vec<String>> {
    let mut objects: Vec<_> = fs::read_dir(out)?
        .filter_map(|e| Some(e.ok()?.path()))
        .filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().ends_with("_rust.o")))
        .collect();
    objects.sort();
    if objects.is_empty() {
        bail!("no Rust object (*_rust.o) in {}", out.display());
    }
    objects.iter().map(|object| check_object(object)).collect()
}

fn check_object(object: &Path) -> Result<String> {
    let tool = |program: &str, args: &[&str]| stdout(Command::new(program).args(args).arg(object));
    let code = tool("objdump", &["-dr", "--no-show-raw-insn"])?;
    let relocations = Relocations::parse(&tool("objdump", &["-r"])?);
    let undefined = tool("nm", &["--undefined-only", "--format=just-symbols"])?;

    let mut faults: Vec<String> = Vec::new();
    faults.extend(vector_instructions(&code).map(|l| format!("vector register: {}", l.trim())).take(5));
    faults.extend(
        undefined.lines().filter(|s| !allowed(s)).map(|s| format!("undefined symbol not in the allow-list: {s}")),
    );
    faults.extend(
        relocations
            .kinds
            .keys()
            .filter(|k| !ALLOWED_RELOCATIONS.contains(&k.as_str()))
            .map(|k| format!("relocation the loader refuses: {k}")),
    );
    faults.extend(unjustified(&relocations.panicking, &JUSTIFIED_PANICS));
    faults.extend(large_frames(&code));
    let name = object.file_name().unwrap_or_default().to_string_lossy();
    let mut note = format!("{name}: {} panicking call sites", relocations.panicking.len());
    if name == RINGS {
        let functions = code::functions(&code);
        let loops = hot::loops(&functions);
        if loops.is_empty() {
            faults.push("no drain loop: no round that copies 8 words and calls a driver".to_owned());
        }
        let alone = hot::alone(&functions, DOORBELL);
        if alone.is_empty() {
            faults.push(format!("{DOORBELL} copies no entry that comes alone"));
        }
        for drain in loops.iter().chain(&alone) {
            faults.extend(drain.faults());
            let _ = write!(note, "; {}", drain.note());
        }
        faults.extend(FENCED.iter().filter_map(|(name, fence)| unfenced(&functions, name, fence)));
    }
    if !faults.is_empty() {
        bail!("object check of {name}:\n  {}", faults.join("\n  "));
    }
    Ok(note)
}

/// Functions that take more stack than they may.
fn large_frames(disassembly: &str) -> Vec<String> {
    let mut frames: BTreeMap<&str, u64> = BTreeMap::new();
    let mut function = "";
    for line in disassembly.lines() {
        if let Some((_, name)) = line.strip_suffix(">:").and_then(|line| line.split_once(" <")) {
            function = name;
        } else if let Some((_, bytes)) = line.split_once("$0x").filter(|_| line.contains("\tsub "))
            && let Some(bytes) = bytes.strip_suffix(",%rsp")
        {
            // Of more than a page there is one for each.
            let frame = frames.entry(function).or_default();
            *frame = frame.saturating_add(u64::from_str_radix(bytes, 16).unwrap_or(u64::MAX));
        }
    }
    let most = |name: &str| if name.contains(PLACE.0) { PLACE.1 } else { FRAME };
    let large = frames.iter().filter(|(name, bytes)| **bytes > most(name));
    large.map(|(name, bytes)| format!("{name} takes {bytes} bytes of stack, {} at most", most(name))).collect()
}

/// A function that must have a fence, and has none.
fn unfenced(functions: &[code::Function], name: &str, fence: &str) -> Option<String> {
    let fenced = functions.iter().any(|function| function.name == name && function.has_fence());
    (!fenced).then(|| format!("{name} has no full fence: {fence}"))
}

fn unjustified(found: &[String], justified: &[(&str, &str)]) -> Vec<String> {
    let listed = |site: &&String| justified.iter().any(|(known, _)| site == known);
    found.iter().filter(|site| !listed(site)).map(|site| format!("may panic: {site}")).collect()
}

fn vector_instructions(disassembly: &str) -> impl Iterator<Item = &str> {
    disassembly.lines().filter(|l| ["%xmm", "%ymm", "%zmm"].iter().any(|r| l.contains(r)))
}

fn allowed(symbol: &str) -> bool {
    ALLOWED_UNDEFINED.contains(&symbol) || ALLOWED_PREFIXES.iter().any(|p| symbol.starts_with(p))
}

/// The relocations of an object, as `objdump -r` prints them, debug information left out.
struct Relocations {
    /// Type to number of uses.
    kinds: BTreeMap<String, usize>,
    /// "section -> target" for each use of `core::panicking` from outside it.
    panicking: Vec<String>,
}

impl Relocations {
    fn parse(listing: &str) -> Self {
        let mut this = Self { kinds: BTreeMap::new(), panicking: Vec::new() };
        let mut section = "";
        for line in listing.lines() {
            if let Some(rest) = line.strip_prefix("RELOCATION RECORDS FOR [") {
                section = rest.trim_end_matches("]:");
                continue;
            }
            let mut words = line.split_whitespace();
            let (Some(_offset), Some(kind), Some(target)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            if section.starts_with(".debug") || !kind.starts_with("R_") {
                continue;
            }
            *this.kinds.entry(kind.to_owned()).or_default() += 1;
            // Elsewhere it is objtool's unwind table that names the function, not a call.
            if section.starts_with(".text") && is_panicking(target) && !is_panicking(section) {
                this.panicking.push(format!("{section} -> {target}"));
            }
        }
        this
    }
}

/// Both of rustc's manglings spell the module `4core9panicking`, the newer with `Nt` and a hash around `core`.
fn is_panicking(name: &str) -> bool {
    name.contains("4core9panicking")
}

#[cfg(test)]
mod tests;

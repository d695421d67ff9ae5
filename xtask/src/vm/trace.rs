// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every instruction that the guest's kernel runs between two points: QEMU writes them down while its log is on.
//!
//! The program in the guest asks for it by writing [`BEGIN`] to the console, and waits there for a newline; [`END`] ends it.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ChildStdin;

use anyhow::{Context, Result, bail};

pub(super) const BEGIN: &str = "sq-trace-begin";
pub(super) const END: &str = "sq-trace-end";

/// QEMU's options for a machine whose trace, and whose monitor's socket, are in `dir`.
pub(super) fn options(dir: &Path) -> [String; 6] {
    let monitor = format!("unix:{},server,nowait", dir.join("monitor").display());
    let log = dir.join("trace").display().to_string();
    // The kernel's half of the addresses.
    ["-monitor", &monitor, "-D", &log, "-dfilter", "0xffffffff80000000+0x7fffffff"].map(str::to_owned)
}

/// Does what a line of the guest's console asks for.
pub(super) fn obey(line: &str, dir: &Path, guest: &mut ChildStdin) -> Result<()> {
    if line.contains(BEGIN) {
        command(dir, &["singlestep on", "log exec,nochain,in_asm"])?;
        guest.write_all(b"\n")?;
        guest.flush()?;
    } else if line.contains(END) {
        command(dir, &["log none", "singlestep off"])?;
    }
    Ok(())
}

fn command(dir: &Path, commands: &[&str]) -> Result<()> {
    let mut monitor = UnixStream::connect(dir.join("monitor")).context("no way to QEMU's monitor")?;
    let prompt = |monitor: &mut UnixStream| -> Result<()> {
        let (mut text, mut byte) = (Vec::new(), [0]);
        while !text.ends_with(b"(qemu) ") {
            if monitor.read(&mut byte)? == 0 {
                bail!("QEMU's monitor went away");
            }
            text.extend(byte);
        }
        Ok(())
    };
    prompt(&mut monitor)?;
    for line in commands {
        writeln!(monitor, "{line}")?;
        prompt(&mut monitor)?;
    }
    Ok(())
}

/// What was run between two marks.
#[derive(Clone, Default)]
pub(super) struct Cost {
    pub(super) instructions: i64,
    /// Fences and locked instructions.
    pub(super) locked: i64,
    pub(super) indirect_calls: i64,
    /// Instructions by function.
    pub(super) functions: BTreeMap<String, i64>,
}

impl Cost {
    /// What is left without `other`.
    pub(super) fn without(&self, other: &Self) -> Self {
        let mut functions = self.functions.clone();
        for (name, count) in &other.functions {
            *functions.entry(name.clone()).or_default() -= count;
        }
        functions.retain(|_, count| *count != 0);
        Self {
            instructions: self.instructions - other.instructions,
            locked: self.locked - other.locked,
            indirect_calls: self.indirect_calls - other.indirect_calls,
            functions,
        }
    }
}

/// The trace in `dir`, cut where the function `mark` is entered: what was run from one mark to the next.
pub(super) fn read(dir: &Path, symbols: &str, mark: &str) -> Result<Vec<Cost>> {
    let text = fs::read(dir.join("trace")).context("QEMU wrote no trace")?;
    cut(&String::from_utf8_lossy(&text), &Symbols::parse(symbols), mark)
}

fn cut(text: &str, symbols: &Symbols, mark: &str) -> Result<Vec<Cost>> {
    let mut listing: HashMap<u64, &str> = HashMap::new();
    let mut costs: Vec<Cost> = Vec::new();
    let mut last = "";
    for line in text.lines() {
        // "0xffffffff81e015f0:  8b 43 1c                 movl     0x1c(%rbx), %eax"
        if let Some((address, instruction)) = line.strip_prefix("0x").and_then(|line| line.split_once(":  ")) {
            let instruction = instruction.split_once("  ").map_or("", |(_, text)| text.trim());
            listing.insert(u64::from_str_radix(address, 16)?, instruction);
        }
        // "Trace 0: 0x7f66836c2340 [0000000000000000/ffffffff81e015f0/18c0c2b0/ff020201]"
        let Some(rest) = line.strip_prefix("Trace ") else { continue };
        let address = rest.split('/').nth(1).with_context(|| format!("not a line of a trace: {line}"))?;
        let address = u64::from_str_radix(address, 16)?;
        let (start, name) = symbols.at(address);
        if name == mark && start == address {
            costs.push(Cost::default());
        }
        if let Some(cost) = costs.last_mut() {
            let instruction = listing.get(&address).copied().unwrap_or("");
            let thunk = name.starts_with("__x86_indirect_thunk");
            cost.instructions += 1;
            cost.locked += i64::from(is_locked(instruction));
            let calls = if thunk { last != name } else { instruction.contains('*') };
            cost.indirect_calls += i64::from(calls);
            *cost.functions.entry(name.to_owned()).or_default() += 1;
        }
        last = name;
    }
    // After the last mark nothing ends.
    costs.pop();
    Ok(costs)
}

fn is_locked(instruction: &str) -> bool {
    let fence = ["mfence", "lfence", "sfence"].contains(&instruction);
    fence || instruction.starts_with("lock") || (instruction.starts_with("xchg") && instruction.contains('('))
}

/// `/proc/kallsyms`.
struct Symbols(BTreeMap<u64, String>);

impl Symbols {
    fn parse(text: &str) -> Self {
        let symbol = |line: &str| -> Option<(u64, String)> {
            let mut words = line.split_whitespace();
            let address = u64::from_str_radix(words.next()?, 16).ok()?;
            let code = ["t", "T", "w", "W"].contains(&words.next()?);
            code.then_some((address, words.next()?.to_owned()))
        };
        Self(text.lines().filter_map(symbol).collect())
    }

    /// Where the function around `address` begins, and its name.
    fn at(&self, address: u64) -> (u64, &str) {
        self.0.range(..=address).next_back().map_or((0, "?"), |(start, name)| (*start, name))
    }
}

#[cfg(test)]
mod tests {
    use super::{Symbols, cut};

    #[test]
    fn a_trace_is_cut_at_its_marks_and_counted() {
        let symbols = Symbols::parse("10 T mark\n20 t work\n30 d data\n40 T __x86_indirect_thunk_rax\n");
        let listing = "0x0000000000000010:  90                       nop\n\
            0x0000000000000020:  f0 ff 00                 lock incl (%rax)\n\
            0x0000000000000023:  87 03                    xchgl    %eax, (%rbx)\n\
            0x0000000000000025:  ff d0                    callq    *%rax\n\
            0x0000000000000040:  ff e0                    jmpq     *%rax\n\
            0x0000000000000042:  ff e0                    jmpq     *%rax\n";
        let run = |addresses: &[u64]| -> String {
            addresses.iter().map(|address| format!("Trace 0: 0x7f [0/{address:016x}/0/0] \n")).collect()
        };
        let text = format!("{listing}{}", run(&[0x20, 0x10, 0x10, 0x20, 0x23, 0x25, 0x40, 0x42, 0x10, 0x20]));
        let costs = cut(&text, &symbols, "mark").unwrap();
        assert_eq!(costs.len(), 2);
        assert_eq!((costs[0].instructions, costs[0].locked, costs[0].indirect_calls), (1, 0, 0));
        let besides = costs[1].without(&costs[0]);
        assert_eq!((besides.instructions, besides.locked, besides.indirect_calls), (5, 2, 2));
        assert_eq!(besides.functions.get("work"), Some(&3));
        assert_eq!(besides.functions.get("mark"), None);
    }
}

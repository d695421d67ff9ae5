// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every instruction that the guest runs between two points, in its kernel and in the process: QEMU writes them down while its log
//! is on.
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
    // All addresses of processes, and those of the kernel's code.
    let addresses = "0x0..0x7fffffffffff,0xffffffff80000000+0x7fffffff";
    ["-monitor", &monitor, "-D", &log, "-dfilter", addresses].map(str::to_owned)
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

/// Instructions, and which of them are dear.
#[derive(Clone, Copy, Default, PartialEq)]
pub(super) struct Counted {
    pub(super) instructions: i64,
    /// Fences and locked instructions.
    pub(super) locked: i64,
    pub(super) indirect_calls: i64,
}

/// What was run between two marks.
#[derive(Clone, Default)]
pub(super) struct Cost {
    pub(super) functions: BTreeMap<String, Counted>,
}

/// The function that all code outside the kernel is.
pub(super) const PROCESS: &str = "the process";

impl Cost {
    /// What is left without `other`.
    pub(super) fn without(&self, other: &Self) -> Self {
        let mut functions = self.functions.clone();
        for (name, count) in &other.functions {
            let left = functions.entry(name.clone()).or_default();
            left.instructions -= count.instructions;
            left.locked -= count.locked;
            left.indirect_calls -= count.indirect_calls;
        }
        functions.retain(|_, count| *count != Counted::default());
        Self { functions }
    }

    /// Of the functions that are chosen.
    pub(super) fn sum(&self, chosen: impl Fn(&str) -> bool) -> Counted {
        let mut sum = Counted::default();
        for (_, count) in self.functions.iter().filter(|(name, _)| chosen(name)) {
            sum.instructions += count.instructions;
            sum.locked += count.locked;
            sum.indirect_calls += count.indirect_calls;
        }
        sum
    }

    fn of(&mut self, function: &str) -> &mut Counted {
        self.functions.entry(function.to_owned()).or_default()
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
            let count = cost.of(name);
            count.instructions += 1;
            count.locked += i64::from(is_locked(instruction));
            // A call by a thunk is that of whoever goes there.
            match name.starts_with(THUNK) {
                true if !last.starts_with(THUNK) => cost.of(last).indirect_calls += 1,
                true => {}
                false => count.indirect_calls += i64::from(instruction.contains('*')),
            }
        }
        last = name;
    }
    // After the last mark nothing ends.
    costs.pop();
    Ok(costs)
}

const THUNK: &str = "__x86_indirect_thunk";

fn is_locked(instruction: &str) -> bool {
    let fence = ["mfence", "lfence", "sfence"].contains(&instruction);
    fence || instruction.starts_with("lock") || (instruction.starts_with("xchg") && instruction.contains('('))
}

/// A symbol as people write it, without the types of generic functions, which are always the module's own.
fn plain(symbol: &str) -> String {
    let name = format!("{:#}", rustc_demangle::demangle(symbol)).replace("::<", "<");
    // Around a method's type there is another pair of brackets: "<Ring<Host>>::bell".
    let outer = if name.starts_with('<') { 1 } else { 0 };
    let (mut plain, mut depth) = (String::new(), 0);
    for c in name.chars() {
        depth += i32::from(c == '<') - i32::from(c == '>');
        if depth <= outer && !"<>".contains(c) {
            plain.push(c);
        }
    }
    plain
}

/// `/proc/kallsyms`.
struct Symbols(BTreeMap<u64, String>);

impl Symbols {
    fn parse(text: &str) -> Self {
        let symbol = |line: &str| -> Option<(u64, String)> {
            let mut words = line.split_whitespace();
            let address = u64::from_str_radix(words.next()?, 16).ok()?;
            let code = ["t", "T", "w", "W"].contains(&words.next()?);
            code.then_some((address, plain(words.next()?)))
        };
        Self(text.lines().filter_map(symbol).collect())
    }

    /// Where the function around `address` begins, and its name.
    fn at(&self, address: u64) -> (u64, &str) {
        if address >> 63 == 0 {
            return (0, PROCESS);
        }
        self.0.range(..=address).next_back().map_or((0, "?"), |(start, name)| (*start, name))
    }
}

#[cfg(test)]
mod tests {
    use super::{Counted, PROCESS, Symbols, cut, plain};

    #[test]
    fn symbols_are_shown_as_people_write_them() {
        let flush = "_RINvNtCs3m5clQ6cE13_7kmod_sq2sq5flushNtNtCs5X7gjqGinrz_9sq_kernel4host10KernelHostEBD_";
        assert_eq!(plain(flush), "kmod_sq::sq::flush");
        let bell = "_RNvMNtCs3m5clQ6cE13_7kmod_sq5enterINtNtB4_4ring4RingNtNtCs5X7gjqGinrz_9sq_kernel4host10KernelHostE4bellBS_";
        assert_eq!(plain(bell), "kmod_sq::ring::Ring::bell");
        assert_eq!(plain("sq_ioctl"), "sq_ioctl");
    }

    #[test]
    fn a_trace_is_cut_at_its_marks_and_counted() {
        const KERNEL: u64 = 0xffff_ffff_8000_0000;
        let names =
            [(0x10, 'T', "mark"), (0x20, 't', "work"), (0x30, 'd', "data"), (0x40, 'T', "__x86_indirect_thunk_rax")];
        let symbols: String = names.map(|(at, kind, name)| format!("{:x} {kind} {name}\n", KERNEL + at)).concat();
        let listing = [
            (KERNEL + 0x10, "90                       nop"),
            (KERNEL + 0x20, "f0 ff 00                 lock incl (%rax)"),
            (KERNEL + 0x23, "87 03                    xchgl    %eax, (%rbx)"),
            (KERNEL + 0x25, "ff d0                    callq    *%rax"),
            (KERNEL + 0x40, "ff e0                    jmpq     *%rax"),
            (KERNEL + 0x42, "ff e0                    jmpq     *%rax"),
            (0x5000, "0f ae f0                 mfence"),
        ];
        let listing: String = listing.map(|(at, code)| format!("0x{at:016x}:  {code}\n")).concat();
        let run = |addresses: &[u64]| -> String {
            addresses.iter().map(|address| format!("Trace 0: 0x7f [0/{address:016x}/0/0] \n")).collect()
        };
        let kernel = [0x20, 0x10, 0x10, 0x20, 0x23, 0x25, 0x40, 0x42].map(|at| KERNEL + at);
        let text = format!("{listing}{}{}", run(&kernel), run(&[0x5000, KERNEL + 0x10, KERNEL + 0x20]));
        let costs = cut(&text, &Symbols::parse(&symbols), "mark").unwrap();
        assert_eq!(costs.len(), 2);
        let sum = |count: Counted| (count.instructions, count.locked, count.indirect_calls);
        assert_eq!(sum(costs[0].sum(|_| true)), (1, 0, 0));
        let besides = costs[1].without(&costs[0]);
        assert_eq!(sum(besides.sum(|_| true)), (6, 3, 2));
        assert_eq!(sum(besides.functions["work"]), (3, 2, 2));
        assert_eq!(sum(besides.functions[PROCESS]), (1, 1, 0));
        assert!(!besides.functions.contains_key("mark"));
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! x86-64 code as `objdump -dr --no-show-raw-insn` prints it: functions of instructions, and what an instruction reads and writes.

use std::fmt;

/// A function of an object. Each has a section of its own, so addresses begin at 0.
pub(super) struct Function {
    pub(super) name: String,
    pub(super) code: Vec<Instruction>,
}

pub(super) struct Instruction {
    address: u64,
    /// With its prefixes: `lock cmpxchg`.
    pub(super) name: String,
    pub(super) operands: Vec<Operand>,
    /// What a relocation makes it refer to.
    pub(super) symbol: Option<String>,
    jump: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Operand {
    /// A register, by the name of all of its 64 bits.
    Register(&'static str),
    Memory(Memory),
    Constant,
}

/// `displacement(base,index,scale)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) displacement: i64,
    pub(super) base: Option<&'static str>,
    pub(super) index: Option<(&'static str, u8)>,
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}({}", self.displacement, self.base.unwrap_or(""))?;
        if let Some((index, scale)) = self.index {
            write!(f, ",{index},{scale}")?;
        }
        f.write_str(")")
    }
}

/// The functions of a listing.
pub(super) fn functions(listing: &str) -> Vec<Function> {
    let mut functions: Vec<Function> = Vec::new();
    for line in listing.lines() {
        if let Some((_, name)) = line.strip_suffix(">:").and_then(|line| line.split_once(" <")) {
            functions.push(Function { name: name.to_owned(), code: Vec::new() });
            continue;
        }
        let Some(function) = functions.last_mut() else { continue };
        if let Some((_, relocation)) = line.split_once(": R_X86_64_") {
            // Of the instruction before: "PLT32 memset-0x4".
            let symbol = relocation.split_whitespace().nth(1).unwrap_or("");
            if let Some(last) = function.code.last_mut() {
                last.symbol = Some(symbol.trim_end_matches("-0x4").to_owned());
                last.jump = None;
            }
        } else if let Some(instruction) = Instruction::parse(line) {
            function.code.push(instruction);
        }
    }
    functions
}

impl Instruction {
    fn parse(line: &str) -> Option<Self> {
        let (address, text) = line.split_once(":\t")?;
        let address = u64::from_str_radix(address.trim(), 16).ok()?;
        let text = text.split('#').next()?.trim();
        let mut words = text.split_whitespace();
        let mut name = words.next()?.to_owned();
        if ["lock", "rep", "repz", "repnz", "notrack", "bnd", "data16", "cs"].contains(&name.as_str()) {
            name = format!("{name} {}", words.next().unwrap_or(""));
        }
        let rest = words.collect::<Vec<_>>().join(" ");
        let jump = if name.starts_with('j') { u64::from_str_radix(rest.split(' ').next()?, 16).ok() } else { None };
        let operands = if jump.is_some() || name == "call" { Vec::new() } else { operands(&rest) };
        Some(Self { address, name, operands, symbol: None, jump })
    }

    /// A call, by the symbol it calls.
    pub(super) fn called(&self) -> Option<&str> {
        (self.name == "call").then(|| self.symbol.as_deref().unwrap_or("an address"))
    }

    /// A call of what a pointer leads to.
    pub(super) fn calls_indirectly(&self) -> bool {
        self.called().is_some_and(|symbol| symbol.starts_with("__x86_indirect_thunk_"))
    }

    /// A fence, or an instruction that is one.
    pub(super) fn is_locked(&self) -> bool {
        let swaps = self.name.starts_with("xchg") && self.memory().is_some();
        self.name.starts_with("lock ") || ["mfence", "lfence", "sfence"].contains(&self.name.as_str()) || swaps
    }

    /// A full fence, and nothing but that: `mfence`, or a locked or of nothing to the top of the stack.
    pub(super) fn is_fence(&self) -> bool {
        let on_stack = self.memory().is_some_and(|memory| memory.base == Some("rsp"));
        self.name == "mfence" || (self.name.starts_with("lock or") && on_stack)
    }

    pub(super) fn memory(&self) -> Option<&Memory> {
        self.operands.iter().find_map(|operand| match operand {
            Operand::Memory(memory) => Some(memory),
            _ => None,
        })
    }

    /// The memory it reads.
    pub(super) fn loads(&self) -> Option<&Memory> {
        let memory = self.memory()?;
        let only_written = self.name.starts_with("mov") && matches!(self.operands.last(), Some(Operand::Memory(_)));
        let only_named = self.name.starts_with("lea") || self.name.contains("nop");
        (!only_written && !only_named).then_some(memory)
    }

    /// The register it writes, those of its own rules left out.
    pub(super) fn writes(&self) -> Option<&'static str> {
        let compares = ["cmp", "test", "push", "bt "].iter().any(|name| format!("{} ", self.name).starts_with(name));
        match self.operands.last() {
            Some(Operand::Register(register)) if !compares => Some(register),
            _ => None,
        }
    }
}

impl Function {
    pub(super) fn has_fence(&self) -> bool {
        self.code.iter().any(Instruction::is_fence)
    }

    /// Where control may go from the instruction at `at`.
    pub(super) fn successors(&self, at: usize) -> Vec<usize> {
        let instruction = &self.code[at];
        let next = || (at + 1 < self.code.len()).then_some(at + 1);
        let target = instruction.jump.and_then(|jump| self.code.iter().position(|i| i.address == jump));
        match instruction.name.as_str() {
            "jmp" => target.into_iter().collect(),
            "ret" | "ud2" | "int3" => Vec::new(),
            name if name.starts_with('j') => target.into_iter().chain(next()).collect(),
            _ => next().into_iter().collect(),
        }
    }
}

fn operands(text: &str) -> Vec<Operand> {
    let mut operands = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (at, c) in text.char_indices().chain([(text.len(), ',')]) {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 && at > start => {
                operands.push(operand(&text[start..at]));
                start = at + 1;
            }
            _ => {}
        }
    }
    operands
}

fn operand(text: &str) -> Operand {
    if let Some((displacement, inside)) = text.trim_end_matches(')').split_once('(') {
        let mut parts = inside.split(',');
        let base = parts.next().and_then(register);
        let index = parts.next().and_then(register);
        let scale = parts.next().and_then(|scale| scale.parse().ok()).unwrap_or(1);
        let displacement = displacement.rsplit(':').next().and_then(number).unwrap_or(0);
        return Operand::Memory(Memory { displacement, base, index: index.map(|index| (index, scale)) });
    }
    register(text).map_or(Operand::Constant, Operand::Register)
}

fn number(text: &str) -> Option<i64> {
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
    Some(sign * i64::from_str_radix(digits.trim_start_matches("0x"), 16).ok()?)
}

/// `%r9d` is a part of r9.
fn register(text: &str) -> Option<&'static str> {
    const NUMBERED: [&str; 8] = ["r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];
    const NAMED: [(&str, &str); 9] = [
        ("rax", "ax"),
        ("rbx", "bx"),
        ("rcx", "cx"),
        ("rdx", "dx"),
        ("rsi", "si"),
        ("rdi", "di"),
        ("rbp", "bp"),
        ("rsp", "sp"),
        ("rip", "ip"),
    ];
    let name = text.trim().strip_prefix('%')?;
    if let Some(whole) = NUMBERED.into_iter().find(|whole| name.trim_end_matches(['d', 'w', 'b']) == *whole) {
        return Some(whole);
    }
    let low = match name.trim_end_matches(['l', 'h']) {
        short @ ("a" | "b" | "c" | "d") => format!("{short}x"),
        short => short.trim_start_matches(['r', 'e']).to_owned(),
    };
    NAMED.into_iter().find(|(_, part)| *part == low).map(|(whole, _)| whole)
}

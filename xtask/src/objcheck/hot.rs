// SPDX-License-Identifier: MIT OR Apache-2.0
//! The drain loop as it was compiled: SNAP-1 in the machine's own words, and what an operation costs besides.
//!
//! The loop is found by what it does: it copies eight words from one place, calls the driver through a pointer, and comes
//! back to the copy. Its shortest round is that of an entry that is nothing but its opcode. The way of an entry that comes alone does
//! the same, and leaves the function.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use super::code::{Function, Instruction, Memory, Operand};

/// 64-bit words of an entry.
const WORDS: i64 = 8;
/// The scheduler mixes other instructions between the loads.
const SPREAD: usize = 32;
/// What a function may take as an address.
const ARGUMENTS: [&str; 3] = ["rdi", "rsi", "rdx"];
const CLOBBERED: [&str; 9] = ["rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11"];

/// To the search for the shortest round, a call of anything but a pointer is as long as this many instructions.
const DETOUR: usize = 1000;

/// A drain loop's shortest round, or the shortest way of an entry that comes alone.
pub(super) struct Loop<'a> {
    function: &'a Function,
    /// Its instructions in the order in which they run, beginning with the first of the copy.
    round: Vec<usize>,
    alone: bool,
    copy: Copy,
    /// All copies of the function: of both halves of long entries too.
    copies: Vec<Copy>,
}

/// Loads of eight words in a row from one address.
#[derive(Clone)]
struct Copy {
    loads: BTreeSet<usize>,
    place: Memory,
}

impl Copy {
    /// The address of an entry may be kept with any distance to it; that of its second half is made from the entry's.
    fn is_first_half(&self) -> bool {
        self.place.displacement != WORDS * 8
    }
}

/// Every drain loop among `functions`: one for each kind of ring.
pub(super) fn loops(functions: &[Function]) -> Vec<Loop<'_>> {
    functions.iter().flat_map(|function| ways(function, false)).collect()
}

/// The ways of an entry that comes alone in the function of that name.
pub(super) fn alone<'a>(functions: &'a [Function], name: &str) -> Vec<Loop<'a>> {
    functions.iter().filter(|function| function.name == name).flat_map(|function| ways(function, true)).collect()
}

fn ways(function: &Function, alone: bool) -> impl Iterator<Item = Loop<'_>> {
    let copies = copies(function);
    let first_halves: Vec<Copy> = copies.iter().filter(|copy| copy.is_first_half()).cloned().collect();
    first_halves.into_iter().filter_map(move |copy| Loop::through(function, copy, &copies, alone))
}

fn copies(function: &Function) -> Vec<Copy> {
    let mut copies: Vec<Copy> = Vec::new();
    for (at, first) in function.code.iter().enumerate() {
        let Some(place) = first.loads().filter(|_| first.writes().is_some()) else { continue };
        let (mut loads, mut offsets) = (BTreeSet::new(), BTreeSet::new());
        for (n, instruction) in function.code.iter().enumerate().skip(at).take(SPREAD) {
            if let Some(memory) = instruction.loads().filter(|memory| same_place(memory, place)) {
                loads.insert(n);
                offsets.insert(memory.displacement - place.displacement);
            }
            let moved = instruction.writes().is_some_and(|register| depends(place, register));
            if moved || instruction.name.starts_with('j') || instruction.name == "call" {
                break;
            }
        }
        let seen = copies.iter().any(|other| other.loads.contains(&at));
        if !seen && (0..WORDS).all(|word| offsets.contains(&(word * 8))) && place.base != Some("rsp") {
            copies.push(Copy { loads, place: place.clone() });
        }
    }
    copies
}

fn same_place(one: &Memory, other: &Memory) -> bool {
    one.base == other.base && one.index == other.index
}

fn depends(memory: &Memory, register: &str) -> bool {
    memory.base == Some(register) || memory.index.is_some_and(|(index, _)| index == register)
}

impl<'a> Loop<'a> {
    /// The shortest way from the copy by a driver's call back to the copy or, of an entry alone, out of the function.
    fn through(function: &'a Function, copy: Copy, copies: &[Copy], alone: bool) -> Option<Self> {
        let start = *copy.loads.first()?;
        // A step: where, and whether the driver has been called by then.
        let mut before: BTreeMap<(usize, bool), (usize, bool)> = BTreeMap::new();
        let mut queue = BinaryHeap::from([Reverse((0, (start, false), None))]);
        while let Some(Reverse((length, step, from))) = queue.pop() {
            if before.contains_key(&step) {
                continue;
            }
            before.extend(from.map(|from| (step, from)));
            let (at, called) = step;
            let ends = if alone { function.successors(at).is_empty() } else { at == start };
            if ends && called {
                let mut round = if alone { vec![at] } else { Vec::new() };
                let mut step = step;
                while let Some(from) = before.get(&step) {
                    round.push(from.0);
                    step = *from;
                }
                round.reverse();
                return Some(Self { function, round, alone, copy, copies: copies.to_vec() });
            }
            let instruction = &function.code[at];
            let detour = instruction.called().is_some() && !instruction.calls_indirectly();
            let length = length + if detour { DETOUR } else { 1 };
            let now = called || instruction.calls_indirectly();
            let steps = function.successors(at).into_iter().filter(|next| *next != start || now);
            queue.extend(steps.map(|next| Reverse((length, (next, now), Some(step)))));
        }
        None
    }

    fn instructions(&self) -> impl Iterator<Item = (usize, &'a Instruction)> {
        self.round.iter().map(|at| (*at, &self.function.code[*at]))
    }

    fn count(&self, what: fn(&Instruction) -> bool) -> usize {
        self.instructions().filter(|(_, instruction)| what(instruction)).count()
    }

    /// SNAP-1, SNAP-2: each word is loaded once, and nobody has the entry's address afterwards. And a round calls nobody but
    /// the driver, and orders nothing: fences are a batch's, and an entry alone is one.
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = BTreeSet::new();
        if self.copy.loads.len() != WORDS as usize {
            faults.insert(format!("the snapshot has {} loads for {WORDS} words", self.copy.loads.len()));
        }
        let other = |at: &usize| *at != self.round[0] && self.begins_a_copy(*at);
        if self.round.iter().any(other) {
            faults.insert("a round copies an entry twice".to_owned());
        }
        self.follow_the_address(&mut faults);
        for (_, instruction) in self.instructions().filter(|(_, instruction)| !instruction.calls_indirectly()) {
            faults.extend(instruction.called().map(|symbol| format!("the drain loop calls {symbol}")));
        }
        let drivers = self.count(Instruction::calls_indirectly);
        if drivers != 1 {
            faults.insert(format!("the drain loop calls {drivers} pointers an operation"));
        }
        let fences = self.count(Instruction::is_locked);
        if fences > 0 && !self.alone {
            faults.insert(format!("the drain loop has {fences} fences or locked instructions an operation"));
        }
        // BELL-4: between showing a batch and looking whether anybody watches. An entry alone is a batch; others are published elsewhere.
        if self.alone && self.count(Instruction::is_fence) == 0 {
            faults.insert("a batch is published without a full fence: PostKernel".to_owned());
        }
        let name = &self.function.name;
        faults.into_iter().map(|fault| format!("{name}: {fault}")).collect()
    }

    /// Follows the entry's address, or what makes it one of the array's, along every way from the copy to the next copy.
    fn follow_the_address(&self, faults: &mut BTreeSet<String>) {
        let place = &self.copy.place;
        let varies = place.index.map(|(index, _)| index).or(place.base);
        let mut known: BTreeMap<usize, Address> = BTreeMap::new();
        let start = Address { registers: varies.into_iter().collect(), slots: BTreeSet::new() };
        let mut queue = vec![(self.round[0], start)];
        while let Some((at, address)) = queue.pop() {
            let mut merged = known.get(&at).cloned().unwrap_or_default();
            merged.merge(address);
            if known.get(&at) == Some(&merged) {
                continue;
            }
            let mut address = merged.clone();
            known.insert(at, merged);
            let instruction = &self.function.code[at];
            let looks = instruction.loads().filter(|memory| address.reaches(memory));
            if let Some(memory) = looks.filter(|_| !self.may_load(at)) {
                faults.insert(format!("a second look at the entry: {} {memory}", instruction.name));
            }
            if instruction.name == "call" {
                // An index that is left over in its register is no address.
                let given = ARGUMENTS.iter().filter(|argument| address.registers.contains(**argument));
                let given = given.filter(|argument| place.index.is_none() || varies != Some(argument));
                faults.extend(given.map(|register| format!("a call gets the entry's address in {register}")));
            }
            address.step(instruction);
            if at == self.round[0] || !self.begins_a_copy(at) {
                queue.extend(self.function.successors(at).into_iter().map(|next| (next, address.clone())));
            }
        }
    }

    /// Where the next entry's turn begins.
    fn begins_a_copy(&self, at: usize) -> bool {
        self.copies.iter().any(|copy| copy.is_first_half() && copy.loads.first() == Some(&at))
    }

    /// A load of this copy, or of the copy of the other half of a long entry.
    fn may_load(&self, at: usize) -> bool {
        let other_half = |copy: &Copy| copy.place.displacement == WORDS * 8 && copy.loads.len() == WORDS as usize;
        self.copy.loads.contains(&at) || self.copies.iter().any(|copy| other_half(copy) && copy.loads.contains(&at))
    }

    /// What a round costs.
    pub(super) fn note(&self) -> String {
        format!(
            "{}: {} instructions, {} loads of the entry, {} fences and locked, {} indirect calls",
            if self.alone { "an operation that comes alone" } else { "drain loop, an operation" },
            self.round.len(),
            self.copy.loads.len(),
            self.count(Instruction::is_locked),
            self.count(Instruction::calls_indirectly),
        )
    }
}

/// Where the address of the entry may be, or a part of it.
#[derive(Clone, Default, PartialEq, Eq)]
struct Address {
    registers: BTreeSet<&'static str>,
    /// Places on the stack, by their distance from rsp.
    slots: BTreeSet<i64>,
}

impl Address {
    fn merge(&mut self, other: Self) {
        self.registers.extend(other.registers);
        self.slots.extend(other.slots);
    }

    fn reaches(&self, memory: &Memory) -> bool {
        self.registers.iter().any(|register| depends(memory, register))
    }

    fn in_register(&self, operand: &Operand) -> bool {
        matches!(operand, Operand::Register(register) if self.registers.contains(register))
    }

    /// What is computed from an address is one; what is loaded through it is not.
    fn step(&mut self, instruction: &Instruction) {
        if instruction.name == "call" {
            self.registers.retain(|register| !CLOBBERED.contains(register));
            return;
        }
        let Some((target, sources)) = instruction.operands.split_last() else { return };
        let kept = |memory: &Memory| memory.base == Some("rsp") && self.slots.contains(&memory.displacement);
        let loaded = instruction.loads().is_some_and(kept);
        let named =
            instruction.name.starts_with("lea") && instruction.memory().is_some_and(|memory| self.reaches(memory));
        let moved = sources.iter().any(|source| self.in_register(source));
        let moves = instruction.name.starts_with("mov") || instruction.name.starts_with("lea");
        let zero = instruction.name.starts_with("xor") && sources.first() == Some(target);
        let is = loaded || named || moved || (!moves && self.in_register(target));
        match (instruction.writes(), target) {
            (Some(register), _) if is && !zero => _ = self.registers.insert(register),
            (Some(register), _) => _ = self.registers.remove(register),
            (None, Operand::Memory(memory)) if moves && memory.base == Some("rsp") => {
                if moved {
                    self.slots.insert(memory.displacement);
                } else {
                    self.slots.remove(&memory.displacement);
                }
            }
            _ => {}
        }
    }
}

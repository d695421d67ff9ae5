// SPDX-License-Identifier: MIT OR Apache-2.0
//! What was to be reached, and whether it was: judged from the figures, so that the document cannot say otherwise.

use super::data::{Data, GBS, NS};
use super::markdown::{NONE, number, text_table, times};
use super::report::Sources;
use super::{END_TO_END, WITH, WITHOUT};

struct Gate {
    what: &'static str,
    /// What it is, in words and number.
    measured: Option<String>,
    gate: String,
    met: Option<bool>,
    goal: String,
    reached: Option<bool>,
}

impl Gate {
    fn at_most(what: &'static str, value: Option<f64>, gate: f64, goal: f64, show: fn(f64) -> String) -> Self {
        Self::new(what, value, [gate, goal], show, "at most", |value, limit| value <= limit)
    }

    fn at_least(what: &'static str, value: Option<f64>, gate: f64, goal: f64, show: fn(f64) -> String) -> Self {
        Self::new(what, value, [gate, goal], show, "at least", |value, limit| value >= limit)
    }

    fn new(
        what: &'static str,
        value: Option<f64>,
        [gate, goal]: [f64; 2],
        show: fn(f64) -> String,
        words: &str,
        holds: fn(f64, f64) -> bool,
    ) -> Self {
        let wanted = |limit: f64| format!("{words} {}", show(limit));
        let judge = |limit: f64| value.map(|value| holds(value, limit));
        let goal_text = if goal == gate { NONE.to_owned() } else { wanted(goal) };
        let reached = if goal == gate { None } else { judge(goal) };
        Self { what, measured: value.map(show), gate: wanted(gate), met: judge(gate), goal: goal_text, reached }
    }

    fn exactly(what: &'static str, value: Option<f64>, wanted: f64) -> Self {
        Self::new(what, value, [wanted, wanted], number, "exactly", |value, wanted| (value - wanted).abs() < 1e-9)
    }
}

/// The table of all gates.
pub(crate) fn table(from: &Sources) -> String {
    let rows: Vec<Vec<String>> = all(from).into_iter().map(row).collect();
    text_table(&["what", "measured", "gate", "met", "goal", "reached"], &rows)
}

fn row(gate: Gate) -> Vec<String> {
    let word = |holds: Option<bool>, unknown: &str| match holds {
        Some(true) => "yes".to_owned(),
        Some(false) => "**no**".to_owned(),
        None => unknown.to_owned(),
    };
    let Gate { what, measured, gate, met, goal, reached } = gate;
    let met = word(met, "not measured");
    let measured = measured.unwrap_or_else(|| NONE.to_owned());
    vec![what.to_owned(), measured, gate, met, goal, word(reached, NONE)]
}

fn all(from: &Sources) -> Vec<Gate> {
    let mut gates = exact(from);
    gates.extend(embedded(&from.native));
    gates.extend(doorbells(from));
    gates.extend(rest(&from.native));
    gates
}

/// Guest instructions.
fn exact(from: &Sources) -> Vec<Gate> {
    let count = |door: &str, batch: u32| from.insns.get(door, batch);
    let fewer = |door: &str| Some(count(door, 32)? / count("ring", 32)?);
    let calls = |what: &str, batch: u32| from.calls.value("round", "ring", batch, what);
    // Between two rounds that go the same way; one operation has a shorter one.
    let each = |what: &str| Some((calls(what, 128)? - calls(what, 32)?) / 96.0);
    // The process calls its backend through a pointer, and its C library; the gate is the kernel's.
    let kernel = |batch: u32| {
        let process = from.calls.value("function", "the process", format!("ring {batch}"), "indirect").unwrap_or(0.0);
        Some(calls("indirect", batch)? - process)
    };
    let indirect = kernel(32).zip(kernel(128)).map(|(many, most)| (most - many) / 96.0);
    let whole = |value: f64| format!("{value:.1}");
    vec![
        Gate::at_most("guest instructions, null op, batch 32, ring", count("ring", 32), 110.0, 95.0, whole),
        Gate::at_least("fewer than one ioctl an operation", fewer("base-ioctl"), 7.0, 8.0, times),
        Gate::at_least("fewer than uring_cmd", fewer("base-uring_cmd"), 5.4, 6.0, times),
        Gate::at_least("fewer than an ioctl with an array", fewer("base-array"), 1.65, 1.9, times),
        Gate::at_most("the same, batch 128", count("ring", 128), 92.0, 78.0, whole),
        Gate::at_most(
            "batch 1, beside one plain ioctl",
            count("ring", 1).zip(count("base-ioctl", 1)).map(|(ring, ioctl)| ring / ioctl),
            1.1,
            1.0,
            times,
        ),
        Gate::exactly("fences and locked instructions, for one more operation", each("locked"), 0.0),
        Gate::exactly("indirect calls of the kernel, for one more operation", indirect, 1.0),
    ]
}

fn embedded(native: &Data) -> Vec<Gate> {
    let ns = |value: f64| format!("{value:.2} ns");
    let null = native.value("null operation", "ring embedded caller", 32, NS);
    let snapshot = native.difference(END_TO_END, [WITH, WITHOUT], 32);
    let [ours, theirs] =
        ["ring embedded poll", "io_uring SQPOLL NOP"].map(|row| native.value("steady load", row, 32, NS));
    vec![
        Gate::at_most("native, embedded null op, batch 32 (the queue alone)", null, 8.0, 6.0, ns),
        Gate::at_most("what the snapshot is of that, end to end", snapshot, 1.5, 1.2, ns),
        Gate::at_least(
            "polling mode, steady load, batch 32: faster than io_uring's SQPOLL",
            ours.zip(theirs).map(|(ours, theirs)| theirs / ours),
            2.0,
            3.0,
            times,
        ),
    ]
}

fn doorbells(from: &Sources) -> Vec<Gate> {
    let steady = |data: &Data, row: &str, what: &str| data.value("steady load", row, 32, what);
    let edge = |data: &Data, row: &str| data.value("wake-up", row, 1, "doorbells/edge");
    let (native, guest) = (&from.native, &from.guest);
    let saturated = |what, value| Gate::at_most(what, value, 0.01, 0.01, number);
    vec![
        Gate::exactly(
            "doorbells, polling, steady load, an operation",
            steady(native, "ring embedded poll", "doorbells/op"),
            0.0,
        ),
        Gate::exactly("the same on the module", steady(guest, "ring /dev/sqnull poll", "doorbells/op"), 0.0),
        Gate::exactly("doorbells, caller, a batch", steady(native, "ring embedded caller", "doorbells/batch"), 1.0),
        Gate::exactly("the same on the module", steady(guest, "ring /dev/sqnull caller", "doorbells/batch"), 1.0),
        saturated(
            "doorbells, worker, saturated, an operation",
            steady(native, "ring embedded worker copying 64 KiB", "doorbells/op"),
        ),
        saturated("the same on the module", steady(guest, "ring /dev/sqram worker copying 64 KiB", "doorbells/op")),
        Gate::exactly("doorbells, worker, idle to busy", edge(native, "ring embedded worker one way"), 1.0),
        Gate::exactly("the same on the module", edge(guest, "ring /dev/sqnull worker one way"), 1.0),
        Gate::exactly("doorbells, polling, asleep to busy", edge(native, "ring embedded poll asleep one way"), 1.0),
        Gate::exactly("the same on the module", edge(guest, "ring /dev/sqnull poll asleep one way"), 1.0),
    ]
}

fn rest(native: &Data) -> Vec<Gate> {
    let read = |row: &str| native.value("payload read", row, 4096, GBS);
    let copy = read("ring embedded pool").zip(read("memcpy")).map(|(ring, copy)| ring / copy);
    let woken = |row: &str| native.value("wake-up", row, 1, "p50 ns");
    let better = woken("eventfd one way").zip(woken("futex one way")).map(|(a, b)| a.min(b));
    let wake = woken("ring embedded worker one way").zip(better).map(|(ours, best)| ours / best);
    let part = |value: f64| format!("{value:.2}");
    let percent = |value: f64| format!("{:.0} %", value * 100.0);
    let grown = |group: &str, [first, last]: [u32; 2]| {
        let at = |row: &str, parameter: u32| native.value(group, row, parameter, NS);
        let (ring, bare) = ("ring embedded caller", "bare ring");
        let more = (at(ring, last)? - at(ring, first)?) - (at(bare, last)? - at(bare, first)?);
        Some(more / at(ring, first)?)
    };
    vec![
        Gate::at_least("4 KiB read, pool buffers, depth 32: part of memcpy's speed", copy, 0.8, 0.9, part),
        Gate::at_most(
            "idle to first completion, worker, median, beside the better of eventfd and futex",
            wake,
            1.5,
            1.2,
            times,
        ),
        Gate::at_most(
            "1 to 1000 rings: growth that a bare ring has not",
            grown("many rings", [1, 1000]),
            0.2,
            0.2,
            percent,
        ),
        Gate::at_most(
            "32 to 32768 entries, batch 32: the same",
            grown("many entries at batch 32", [32, 32768]),
            0.2,
            0.2,
            percent,
        ),
        Gate::at_most(
            "1 to 32768 entries, batch 1: the same",
            grown("many entries at batch 1", [1, 32768]),
            0.2,
            0.2,
            percent,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::{Gate, number, row};

    #[test]
    fn a_gate_is_judged_by_its_number() {
        let cells = |gate| row(gate)[1..].join("|");
        assert_eq!(cells(Gate::at_most("x", Some(7.0), 8.0, 6.0, number)), "7.00|at most 8.00|yes|at most 6.00|**no**");
        assert_eq!(cells(Gate::at_least("x", Some(7.0), 8.0, 8.0, number)), "7.00|at least 8.00|**no**|–|–");
        assert_eq!(cells(Gate::exactly("x", Some(1.0), 1.0)), "1.00|exactly 1.00|yes|–|–");
        assert_eq!(cells(Gate::exactly("x", None, 0.0)), "–|exactly 0|not measured|–|–");
    }
}

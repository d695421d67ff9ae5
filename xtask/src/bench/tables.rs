// SPDX-License-Identifier: MIT OR Apache-2.0
//! The parts of docs/performance.md that are figures.

use super::data::{Data, GBS, NS, Passes};
use super::facts::{Facts, SKIPPED};
use super::markdown::{CROSSES, NONE, number, or_none, passes, table, text_table, times};
use super::report::Sources;
use super::{END_TO_END, WITH, WITHOUT};

pub(crate) const BATCHES: [u32; 4] = [1, 8, 32, 128];
const DOORS: [(&str, &str); 7] = [
    ("ring", "sq: ring"),
    ("ioctl", "sq: one ioctl an operation"),
    ("uring_cmd", "sq: io_uring's command"),
    ("base-ioctl", "plain C: one ioctl an operation"),
    ("base-array", "plain C: an ioctl with an array"),
    ("base-uring_cmd", "plain C: io_uring's command"),
    ("base-ring", "plain C: a bare ring, no protocol"),
];
const NOT_YET: &str = "*Not measured yet: `cargo xtask bench`.*\n";
const NOT_YET_GUEST: &str = "*Not measured yet: `cargo xtask vm bench`.*\n";

/// A row for each row of a group, a column for each parameter.
fn grid(data: &Data, group: &str, what: &str, parameters: &[u32], show: fn(Passes) -> String) -> Vec<Vec<String>> {
    let row = |(name, crosses): (String, String)| {
        let cell = |parameter: &u32| or_none(data.get(group, &name, parameter, what).map(show));
        let cells = parameters.iter().map(cell);
        [name.clone(), crosses].into_iter().chain(cells).collect()
    };
    data.rows(group, what).into_iter().map(row).collect()
}

fn head(first: &str, parameters: impl IntoIterator<Item = impl ToString>) -> Vec<String> {
    [first.to_owned(), CROSSES.to_owned()].into_iter().chain(parameters.into_iter().map(|p| p.to_string())).collect()
}

fn whole(data: &Data, group: &str, what: &str, title: &str, parameters: &[u32], show: fn(Passes) -> String) -> String {
    if data.rows(group, what).is_empty() {
        return NOT_YET.to_owned();
    }
    table(&head(title, parameters), &grid(data, group, what, parameters, show))
}

pub(crate) fn headline(from: &Sources) -> String {
    let count = |door: &str, batch: u32| from.insns.get(door, batch).map_or(NONE.to_owned(), |n| format!("{n:.0}"));
    format!(
        "A null operation through `/dev/sqnull` on a stock Debian 6.12 kernel takes **{} instructions** at batch 32 and {} at 128,\n\
         from building the entry to having read its completion, both sides of the kernel's boundary, counted exactly. A plain C module\n\
         with none of our code takes {} by one ioctl an operation, {} by io_uring's `uring_cmd`, {} by an ioctl with an array, and {} by\n\
         a bare ring that checks nothing. Times, other operations, and what these figures can and cannot say:\n\
         [docs/performance.md](docs/performance.md).\n",
        count("ring", 32),
        count("ring", 128),
        count("base-ioctl", 32),
        count("base-uring_cmd", 32),
        count("base-array", 32),
        count("base-ring", 32),
    )
}

/// The four problems, and what answering them costs.
pub(crate) fn problems(from: &Sources) -> String {
    let native = &from.native;
    let get = |group: &str, row: &str, parameter: u32, what: &str, unit: &str| {
        let value = native.value(group, row, parameter, what);
        value.map_or_else(|| format!("{NONE} {unit}"), |value| format!("{} {unit}", number(value)))
    };
    let ns = |group: &str, row: &str, parameter: u32| get(group, row, parameter, NS, "ns");
    let p50 = |row: &str| get("wake-up", row, 1, "p50 ns", "ns");
    let bells = |row: &str| get("steady load", row, 32, "doorbells/op", "");
    let copy = or_none(native.difference(END_TO_END, [WITH, WITHOUT], 32).map(number));
    let bare = or_none(native.difference("snapshot", ["bare ring with the copy", "bare ring without"], 32).map(number));
    let insns = |door: &str| or_none(from.insns.get(door, 1).map(number));
    let rows = [
        [
            "1. nobody can sleep until data arrives in shared memory",
            &format!(
                "One doorbell, which is one call: {} guest instructions for a whole operation on an idle ring, a plain ioctl's {}. \
                 It wakes a sleeping worker in {}, where an eventfd takes {} and a futex {}. While the worker is awake nobody rings: {} doorbells an \
                 operation under load.",
                insns("ring"),
                insns("base-ioctl"),
                p50("ring embedded worker one way"),
                p50("eventfd one way"),
                p50("futex one way"),
                bells("ring embedded worker").trim(),
            ),
        ],
        [
            "2. the other side changes an entry after it was checked",
            "Each entry is read once: exactly eight loads of it are in the module's object, which every build checks, and nothing after \
             them can reach the slot. What that costs is the next row.",
        ],
        [
            "3. \"copying ruins the gain\"",
            &format!(
                "The copy costs {copy} ns of an embedded operation at batch 32 ({bare} ns on a bare ring). Keeping the entries still instead costs, \
                 at batch 1, {} by page protection with another thread running, {} by stopping that thread; at batch 32, {} and {}, and neither \
                 is the whole of it. Payload is copied once: see the table of payloads.",
                ns("snapshot", "bare ring page made read-only beside a thread", 1),
                ns("snapshot", "bare ring other thread stopped", 1),
                ns("snapshot", "bare ring page made read-only beside a thread", 32),
                ns("snapshot", "bare ring other thread stopped", 32),
            ),
        ],
        [
            "4. a thread that polls burns a core",
            &format!(
                "By default there is no thread: the caller's own doorbell drains, {} an operation at batch 32 where the queue is all there is. A \
                 polling thread under steady load takes {}, io_uring's {}; it is worth a core only where entering the kernel is what costs.",
                ns("null operation", "ring embedded caller", 32),
                ns("steady load", "ring embedded poll", 32),
                ns("steady load", "io_uring SQPOLL NOP", 32),
            ),
        ],
    ];
    text_table(&["problem", "answer, in figures"], &rows.map(|row| row.map(str::to_owned).to_vec()))
}

pub(crate) fn insns(from: &Sources) -> String {
    let ring = |batch: u32| from.insns.get("ring", batch);
    let row = |(door, name): (&str, &str)| {
        let cell = |batch: u32| or_none(from.insns.get(door, batch).map(number));
        let more = from.insns.get(door, 32).zip(ring(32)).map(|(count, ring)| times(count / ring));
        [name.to_owned()].into_iter().chain(BATCHES.map(cell)).chain([or_none(more)]).collect()
    };
    let head = ["instructions an operation", "batch 1", "8", "32", "128", "beside the ring at 32"];
    let mut text = table(&head, &DOORS.map(row));
    let others = from.insns.doors().into_iter().filter(|door| DOORS.iter().all(|(known, _)| known != door));
    let rows: Vec<Vec<String>> = others
        .map(|door| {
            let cell = |batch: u32| or_none(from.insns.get(&door, batch).map(number));
            [door.clone()].into_iter().chain(BATCHES.map(cell)).collect()
        })
        .collect();
    if !rows.is_empty() {
        text.push('\n');
        text.push_str(&table(&["512 bytes read by the ram driver", "batch 1", "8", "32", "128"], &rows));
    }
    text
}

/// Fences, locked instructions and indirect calls: each counted where it is.
pub(crate) fn calls(from: &Sources) -> String {
    let calls = &from.calls;
    if calls.is_empty() {
        return "*Not counted yet: `cargo xtask vm insns --update`.*\n".to_owned();
    }
    let value = |group: &str, row: &str, batch: u32, what: &str| calls.value(group, row, batch, what);
    let row = |(what, name): (&str, &str)| {
        let [one, many, most] = [1, 32, 128].map(|batch| value("round", "ring", batch, what));
        let each = many.zip(most).map(|(many, most)| number((most - many) / 96.0));
        let ioctl = value("round", "ioctl", 1, what);
        [
            name.to_owned(),
            or_none(one.map(number)),
            or_none(many.map(number)),
            or_none(each),
            or_none(ioctl.map(number)),
        ]
        .to_vec()
    };
    let kinds = [
        ("instructions", "instructions"),
        ("locked", "fences and locked instructions"),
        ("indirect", "indirect calls"),
    ];
    let head = ["a whole round", "ring, 1 operation", "ring, 32", "for one more", "one ioctl"];
    let mut text = table(&head, &kinds.map(row));
    for (what, title) in
        [("locked", "fences and locked instructions are in"), ("indirect", "indirect calls are made by")]
    {
        let rows = functions(calls, what);
        text.push('\n');
        text.push_str(&table(&[title, "ring, 1 operation", "ring, 32", "one ioctl"], &rows));
    }
    text
}

/// Where they are: the rows of `what` by function, the most first.
fn functions(calls: &Data, what: &str) -> Vec<Vec<String>> {
    let mut rows: Vec<(String, [f64; 3])> = Vec::new();
    for (function, _) in calls.rows("function", what) {
        let at = |round: &str| calls.value("function", &function, round, what).unwrap_or(0.0);
        rows.push((function.clone(), ["ring 1", "ring 32", "ioctl 1"].map(at)));
    }
    rows.retain(|(_, counts)| counts.iter().any(|count| *count != 0.0));
    rows.sort_by(|(_, a), (_, b)| b[1].total_cmp(&a[1]).then(b[0].total_cmp(&a[0])));
    rows.into_iter()
        .map(|(function, counts)| {
            let name =
                why(what, &function).map_or_else(|| format!("`{function}`"), |why| format!("`{function}`: {why}"));
            [name].into_iter().chain(counts.map(number)).collect()
        })
        .collect()
}

/// What a fence, a locked instruction or an indirect call is there for. What nobody has explained yet stands by its name alone.
fn why(what: &str, function: &str) -> Option<&'static str> {
    Some(match (what, function) {
        ("locked", "the process") => "it counts its doorbell; the fence between cq_head and CQ_BLOCKED (CQ-2)",
        ("locked", "sq_ring_doorbell") => {
            "takes the drain, and gives it back (BELL-5); on the short way the fence between cq_tail and who sleeps (BELL-4)"
        }
        ("locked", "kmod_sq::ring::Ring::drain") => "gives the drain back when not all went the short way",
        ("locked", "kmod_sq::sq::pass") => "the fence between cq_tail and who sleeps (BELL-4)",
        ("locked", "_raw_spin_lock_irqsave") => "the completion lock, once a batch",
        ("locked", "sq_copy_entry") => "copy_from_user's barrier against speculation",
        ("indirect", "the process") => "the backend, chosen at run time; a function in another part of the program",
        ("indirect", "sq_ring_doorbell" | "kmod_sq::sq::consume_pairs" | "sq_door_issue") => {
            "the driver, once an operation"
        }
        ("indirect", "__x64_sys_ioctl") => "the kernel's way to a file's ioctl",
        _ => return None,
    })
}

/// Where the instructions of a round are.
pub(crate) fn stages(from: &Sources) -> String {
    let calls = &from.calls;
    if calls.is_empty() {
        return String::new();
    }
    let mut rows: Vec<(String, [f64; 4])> = Vec::new();
    for (function, _) in calls.rows("function", "instructions") {
        let at = |round: &str| calls.value("function", &function, round, "instructions").unwrap_or(0.0);
        rows.push((function.clone(), ["ring 1", "ring 32", "ring 128", "ioctl 1"].map(at)));
    }
    rows.sort_by(|(_, a), (_, b)| b[1].total_cmp(&a[1]).then(b[0].total_cmp(&a[0])));
    let rows: Vec<Vec<String>> = rows
        .into_iter()
        .filter(|(_, counts)| counts.iter().any(|count| *count >= 4.0))
        .map(|(function, [one, many, most, ioctl])| {
            let each = (most - many) / 96.0;
            vec![format!("`{function}`"), number(one), number(many), number(each), number(ioctl)]
        })
        .collect();
    table(&["function", "ring, 1 operation", "ring, 32", "for one more", "one ioctl"], &rows)
}

pub(crate) fn null(from: &Sources) -> String {
    whole(&from.native, "null operation", NS, "ns an operation, at batch", &BATCHES, passes)
}

pub(crate) fn steady(from: &Sources) -> String {
    let data = &from.native;
    let mut text = whole(data, "steady load", NS, "ns an operation, at batch", &BATCHES, passes);
    let rows = grid(data, "steady load", "doorbells/op", &BATCHES, passes);
    if !rows.is_empty() {
        text.push('\n');
        text.push_str(&table(&head("doorbells an operation, at batch", BATCHES), &rows));
    }
    text
}

pub(crate) fn snapshot(from: &Sources) -> String {
    let data = &from.native;
    let mut text = whole(data, "snapshot", NS, "ns an operation, at batch", &[1, 32], passes);
    let difference = |batch: u32| or_none(data.difference(END_TO_END, [WITH, WITHOUT], batch).map(number));
    let mut rows = grid(data, END_TO_END, NS, &BATCHES, passes);
    if !rows.is_empty() {
        let last = ["**what the copy costs, end to end**".to_owned(), String::new()];
        rows.push(last.into_iter().chain(BATCHES.map(difference)).collect());
        text.push('\n');
        text.push_str(&table(&head("the whole path, ns an operation, at batch", BATCHES), &rows));
    }
    text
}

/// For docs/threat-model.md: what else would keep an entry still, beside the copy.
pub(crate) fn alternatives(from: &Sources) -> String {
    const BATCHES: [u32; 2] = [1, 32];
    const UNCHECKED: &str = "bare ring without";
    let rows = [
        ("copy it (ours)", "bare ring with the copy"),
        (
            "make its page read-only and writable again, another thread running",
            "bare ring page made read-only beside a thread",
        ),
        ("stop and start the process's other thread", "bare ring other thread stopped"),
    ];
    let row = |(way, row): (&str, &str)| {
        let cell = |batch| or_none(from.native.difference("snapshot", [row, UNCHECKED], batch).map(number));
        [way.to_owned()].into_iter().chain(BATCHES.map(cell)).collect()
    };
    let title = "nanoseconds an entry beside an unchecked ring's, at batch".to_owned();
    table(&[title, BATCHES[0].to_string(), BATCHES[1].to_string()], &rows.map(row))
}

pub(crate) fn payload(from: &Sources) -> String {
    const SIZES: [u32; 5] = [512, 4096, 16384, 131_072, 1_048_576];
    let part = |(group, title): (&str, &str)| whole(&from.native, group, GBS, title, &SIZES, passes);
    let tables =
        [("payload read", "read, GB/s, blocks of bytes"), ("payload write", "write, GB/s, blocks of bytes")].map(part);
    if from.native.is_empty() { NOT_YET.to_owned() } else { tables.join("\n") }
}

pub(crate) fn wakeup(from: &Sources) -> String {
    let data = &from.native;
    let kinds = ["p50 ns", "p99 ns", "p99.9 ns", "doorbells/edge"];
    let row = |(name, crosses): (String, String)| {
        let cells = kinds.map(|what| or_none(data.get("wake-up", &name, 1, what).map(passes)));
        [name, crosses].into_iter().chain(cells).collect()
    };
    let rows: Vec<Vec<String>> = data.rows("wake-up", "p50 ns").into_iter().map(row).collect();
    if rows.is_empty() {
        return NOT_YET.to_owned();
    }
    let ball = data.value("steady load", "cache line there and back", 1, NS);
    let ball = ball.map_or(String::new(), |ns| {
        format!(
            "\nMoving one cache line between these two processors and back took {} ns in the same run.\n",
            number(ns)
        )
    });
    table(&head("idle to completion", ["median ns", "p99", "p99.9", "doorbells"]), &rows) + &ball
}

pub(crate) fn many(from: &Sources) -> String {
    let parts = [
        ("many rings", "ns an operation, rings", &[1, 10, 100, 1000][..]),
        ("many entries at batch 32", "batch 32, entries", &[32, 1024, 32768]),
        ("many entries at batch 1", "batch 1, entries", &[1, 32, 1024, 32768]),
    ];
    if from.native.is_empty() {
        return NOT_YET.to_owned();
    }
    parts.map(|(group, title, parameters)| whole(&from.native, group, NS, title, parameters, passes)).join("\n")
}

pub(crate) fn storage(from: &Sources) -> String {
    const DEPTHS: [u32; 4] = [1, 8, 32, 128];
    let iops = |each: Passes| passes(Passes { median: 1e6 / each.median, ..each });
    let parts = ["cached read", "cached write", "direct read", "direct write"].map(|kind| {
        let group = format!("storage {kind}");
        let rows = grid(&from.native, &group, NS, &DEPTHS, iops);
        if rows.is_empty() {
            return String::new();
        }
        table(&head(&format!("{kind}, thousand operations a second, at depth"), DEPTHS), &rows)
    });
    let text = parts.iter().filter(|part| !part.is_empty()).map(String::as_str).collect::<Vec<_>>().join("\n");
    if text.is_empty() { NOT_YET.to_owned() } else { text }
}

/// The guest's times, each beside the ring's at the same batch.
pub(crate) fn guest(from: &Sources) -> String {
    const RING: &str = "ring /dev/sqnull caller";
    let data = &from.guest;
    let ratio = |group: &str, row: &str, batch: u32| {
        Some(data.value(group, row, batch, NS)? / data.value("null operation", RING, batch, NS)?)
    };
    let grid = |group: &str| -> Vec<Vec<String>> {
        let row = |(name, crosses): (String, String)| {
            let cells = BATCHES.map(|batch| or_none(ratio(group, &name, batch).map(times)));
            [name, crosses].into_iter().chain(cells).collect()
        };
        data.rows(group, NS).into_iter().map(row).collect()
    };
    let rows = grid("null operation");
    if rows.is_empty() {
        return NOT_YET_GUEST.to_owned();
    }
    let title = "time beside the ring's, at batch";
    let mut text = table(&head(title, BATCHES), &rows);
    text.push('\n');
    text.push_str(&table(&head("under steady load", BATCHES), &grid("steady load")));
    text
}

/// Where it was measured.
pub(crate) fn facts(from: &Sources) -> String {
    let part = |title: &str, facts: &Facts| -> String {
        let rows: Vec<Vec<String>> = facts
            .iter()
            .filter(|(name, _)| *name != SKIPPED)
            .map(|(name, value)| vec![name.to_owned(), value.to_owned()])
            .collect();
        if rows.is_empty() { String::new() } else { text_table(&[title, ""], &rows) }
    };
    let parts = [
        part("native", &from.native_facts),
        spreads(&from.native, "native"),
        part("guest, times", &from.guest_facts),
        spreads(&from.guest, "guest"),
        part("guest, instructions", &from.calls_facts),
    ];
    parts.iter().filter(|part| !part.is_empty()).map(String::as_str).collect::<Vec<_>>().join("\n")
}

fn spreads(data: &Data, where_: &str) -> String {
    let spreads = data.spreads();
    if !spreads.is_empty() && !data.is_repeated() {
        return format!("The {where_} has one pass: how far a row's figures lie apart is not known.\n");
    }
    let (Some(middle), Some(tenth)) = (spreads.get(spreads.len() / 2), spreads.get(spreads.len() * 9 / 10)) else {
        return String::new();
    };
    format!(
        "Between the {where_} passes, the slowest and the fastest of a row lie {:.1} % apart in the median of the rows, and more than {:.0} % in every \
         tenth of them.\n",
        middle * 100.0,
        tenth * 100.0
    )
}

pub(crate) fn skipped(from: &Sources) -> String {
    let all =
        |facts: &Facts, place: &str| facts.all(SKIPPED).map(|skip| format!("- {place}: {skip}\n")).collect::<String>();
    let text = all(&from.native_facts, "native") + &all(&from.guest_facts, "guest");
    if text.is_empty() { "Nothing was skipped.\n".to_owned() } else { text }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask bench-report`: docs/performance.md, README's headline and a table of docs/threat-model.md, from the raw figures. Prose stands
//! in the documents themselves; what is between a pair of marks is written here, and a test stage compares.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use super::data::{Data, NS};
use super::facts::Facts;
use super::markdown::fill;
use super::plots::{Line, Plot};
use super::{FOLDER, gates, tables};
use crate::ctx::Ctx;
use crate::vm::{Counts, INSNS};

/// Everything that was measured.
pub(crate) struct Sources {
    pub(crate) insns: Counts,
    /// What is in a round, by function.
    pub(crate) calls: Data,
    pub(crate) calls_facts: Facts,
    pub(crate) native: Data,
    pub(crate) native_facts: Facts,
    pub(crate) guest: Data,
    pub(crate) guest_facts: Facts,
}

impl Sources {
    fn load(ctx: &Ctx) -> Result<Self> {
        let file = |name: &str| ctx.root.join(FOLDER).join(name);
        Ok(Self {
            insns: Counts::load(&ctx.root.join(INSNS))?,
            calls: Data::load(&file("calls.csv"))?,
            calls_facts: Facts::load(&file("calls.facts"))?,
            native: Data::load(&file("native.csv"))?,
            native_facts: Facts::load(&file("native.facts"))?,
            guest: Data::load(&file("guest.csv"))?,
            guest_facts: Facts::load(&file("guest.facts"))?,
        })
    }
}

type Part = fn(&Sources) -> String;

const PARTS: [(&str, Part); 15] = [
    ("problems", tables::problems),
    ("gates", gates::table),
    ("insns", tables::insns),
    ("calls", tables::calls),
    ("stages", tables::stages),
    ("null", tables::null),
    ("steady", tables::steady),
    ("snapshot", tables::snapshot),
    ("payload", tables::payload),
    ("wakeup", tables::wakeup),
    ("many", tables::many),
    ("storage", tables::storage),
    ("guest", tables::guest),
    ("facts", tables::facts),
    ("skipped", tables::skipped),
];

/// Writes documents and plots.
pub(crate) fn run(ctx: &Ctx) -> Result<ExitCode> {
    for (path, text) in made(ctx)? {
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        eprintln!("{}", path.strip_prefix(&ctx.root).unwrap_or(&path).display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether what is there is what the figures say.
pub(crate) fn check(ctx: &Ctx) -> Result<()> {
    for (path, text) in made(ctx)? {
        if fs::read_to_string(&path).ok().as_ref() != Some(&text) {
            let path = path.strip_prefix(&ctx.root).unwrap_or(&path).display();
            bail!("{path} is not what {INSNS} and {FOLDER}/ say; run: cargo xtask bench-report");
        }
    }
    Ok(())
}

/// The files as they are to be.
fn made(ctx: &Ctx) -> Result<BTreeMap<PathBuf, String>> {
    let from = Sources::load(ctx)?;
    let mut files = BTreeMap::new();
    let folder = ctx.root.join(FOLDER);
    for plot in plots(&from) {
        files.insert(folder.join(plot.file).with_extension("svg"), plot.svg()?);
    }
    let document = ctx.root.join("docs/performance.md");
    let mut text = read(&document)?;
    for (name, part) in PARTS {
        text = fill(&text, name, &part(&from)).with_context(|| format!("in {}", document.display()))?;
    }
    files.insert(document, text);
    let others: [(&str, &str, Part); 2] =
        [("README.md", "headline", tables::headline), ("docs/threat-model.md", "alternatives", tables::alternatives)];
    for (name, mark, part) in others {
        let path = ctx.root.join(name);
        let text = fill(&read(&path)?, mark, &part(&from)).with_context(|| format!("in {name}"))?;
        files.insert(path, text);
    }
    Ok(files)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Those that there are figures for.
fn plots(from: &Sources) -> Vec<Plot> {
    let all = [batch_ns(&from.native), batch_insns(&from.insns), depth_iops(&from.native), latency(&from.native)];
    all.into_iter().filter(|plot| plot.lines.iter().any(|line| !line.points.is_empty())).collect()
}

fn marks(numbers: &[u32]) -> Vec<(f64, String)> {
    numbers.iter().map(|number| (f64::from(*number), number.to_string())).collect()
}

fn line(name: &str, points: impl IntoIterator<Item = (f64, Option<f64>)>) -> Line {
    let points = points.into_iter().filter_map(|(x, y)| Some((x, y?))).collect();
    // The peers are named after what they are; ours all have a ring or a door.
    let ours = !name.starts_with("plain") && (name.contains("sq") || name.starts_with("ring"));
    Line { name: name.to_owned(), points, ours }
}

fn batch_ns(native: &Data) -> Plot {
    let rows = [
        ("null operation", "ring embedded caller"),
        ("steady load", "ring embedded poll"),
        ("steady load", "io_uring SQPOLL NOP"),
        ("null operation", "io_uring NOP"),
        ("null operation", "uring_cmd /dev/null"),
    ];
    let batched = |(group, row): (&str, &str)| {
        let name = if group == "steady load" { format!("{row} (steady load)") } else { row.to_owned() };
        line(&name, tables::BATCHES.map(|batch| (f64::from(batch), native.value(group, row, batch, NS))))
    };
    let flat = |row: &str| {
        let value = native.value("null operation", row, 1, NS);
        line(row, tables::BATCHES.map(|batch| (f64::from(batch), value)))
    };
    let lines = rows.into_iter().map(batched).chain(["ioctl FIONREAD", "getppid"].map(flat)).collect();
    Plot {
        file: "batch-ns",
        title: "Null operation on this host: the queue's own cost, beside system calls".to_owned(),
        x: "operations in a batch",
        y: "ns an operation",
        marks: marks(&tables::BATCHES),
        lines,
    }
}

fn batch_insns(insns: &Counts) -> Plot {
    let doors = [
        ("ring", "sq ring"),
        ("ioctl", "sq ioctl door"),
        ("uring_cmd", "sq uring_cmd door"),
        ("base-ioctl", "plain C ioctl"),
        ("base-array", "plain C ioctl with an array"),
        ("base-uring_cmd", "plain C uring_cmd"),
        ("base-ring", "plain C bare ring, no protocol"),
    ];
    let counted = |(door, name): (&str, &str)| {
        line(name, tables::BATCHES.map(|batch| (f64::from(batch), insns.get(door, batch))))
    };
    Plot {
        file: "batch-insns",
        title: "Null operation on the real module: exact guest instructions".to_owned(),
        x: "operations in a batch",
        y: "instructions an operation",
        marks: marks(&tables::BATCHES),
        lines: doors.into_iter().map(counted).collect(),
    }
}

fn depth_iops(native: &Data) -> Plot {
    const DEPTHS: [u32; 4] = [1, 8, 32, 128];
    let mut lines = Vec::new();
    for kind in ["cached", "direct"] {
        let group = format!("storage {kind} read");
        for row in ["ring embedded caller", "io_uring", "pread"] {
            // One call at a time has no depth.
            let at = |depth: u32| if row == "pread" { 1 } else { depth };
            let iops = |depth: u32| native.value(&group, row, at(depth), NS).map(|ns| 1e9 / ns);
            let name = format!("{}, {kind}", if row == "pread" { "pread, one at a time" } else { row });
            lines.push(line(&name, DEPTHS.map(|depth| (f64::from(depth), iops(depth)))));
        }
    }
    Plot {
        file: "depth-iops",
        title: "4 KiB random reads of a file, embedded file driver".to_owned(),
        x: "operations in flight",
        y: "operations a second",
        marks: marks(&DEPTHS),
        lines,
    }
}

fn latency(native: &Data) -> Plot {
    // The share that took longer than the figure: each decade of it is as wide as the next.
    let percentiles = [("50", 50.0), ("90", 90.0), ("99", 99.0), ("99.9", 99.9)];
    let also = [("75", 75.0), ("95", 95.0), ("99.5", 99.5)];
    let place = |percentile: f64| 50.0 / (100.0 - percentile);
    let mut points: Vec<(&str, f64)> = percentiles.iter().chain(&also).map(|(name, p)| (*name, place(*p))).collect();
    points.sort_by(|(_, a), (_, b)| a.total_cmp(b));
    let rows = [
        "ring embedded worker one way",
        "ring embedded poll asleep one way",
        "eventfd one way",
        "futex one way",
        "ring embedded worker both ways",
        "eventfd both ways",
        "futex both ways",
    ];
    let lines = rows.map(|row| {
        let us = |name: &str| native.value("wake-up", row, 1, &format!("p{name} ns")).map(|ns| ns / 1e3);
        line(row, points.iter().map(|(name, x)| (*x, us(name))))
    });
    Plot {
        file: "wakeup-latency",
        title: "From an idle ring to its first completion, across two processors".to_owned(),
        x: "percentile of the hand-overs",
        y: "microseconds",
        marks: percentiles.map(|(name, p)| (place(p), name.to_owned())).to_vec(),
        lines: lines.into_iter().collect(),
    }
}

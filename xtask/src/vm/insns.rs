// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask vm insns`: exact guest instructions per operation, by every door, beside a plain C module's.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::guest::{Guest, Job, Results};
use super::trace::{self, Cost, Counted, PROCESS};
use crate::bench::data::{Data, Figure};
use crate::bench::{self, facts, report};
use crate::cargo;
use crate::ctx::Ctx;
use crate::kernel::Kernel;
use crate::module;

/// The gate, and what is shown beside it: `rep movsb` counts one a byte, so that with erms a copy looks dear.
const CPUS: [&str; 2] = ["max", "max,-erms"];

/// The committed counts.
pub(crate) const TABLE: &str = "bench/insns.csv";
const TABLE_KERNEL: Kernel = Kernel::V6_12;
/// How much worse a count may be than the committed one.
const TOLERANCE: f64 = 1.03;

const TIMEOUT: Duration = Duration::from_secs(120);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Kernel to boot
    #[arg(long, short, value_name = "K", default_value = "6.12")]
    kernel: Kernel,
    /// Fail if a count is more than 3 % worse than in bench/insns.csv
    #[arg(long)]
    check: bool,
    /// Write the counts to bench/insns.csv, what they are made of to docs/performance/, and docs/performance.md anew
    #[arg(long, conflicts_with = "check")]
    update: bool,
    /// Show which functions of the kernel the instructions are in
    #[arg(long)]
    functions: bool,
}

/// Counts by door and batch.
#[derive(PartialEq)]
pub(crate) struct Counts(Vec<(String, u32, f64)>);

impl Counts {
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("in {}", path.display()))
    }

    /// In their order.
    pub(crate) fn doors(&self) -> Vec<String> {
        let mut doors: Vec<String> = Vec::new();
        for (door, ..) in &self.0 {
            if !doors.contains(door) {
                doors.push(door.clone());
            }
        }
        doors
    }

    pub(crate) fn get(&self, door: &str, batch: u32) -> Option<f64> {
        self.0.iter().find(|(d, b, _)| d == door && *b == batch).map(|(_, _, count)| *count)
    }

    fn parse(text: &str) -> Result<Self> {
        let row = |line: &str| -> Option<(String, u32, f64)> {
            let mut cells = line.split(',');
            let row = (cells.next()?.to_owned(), cells.next()?.parse().ok()?, cells.next()?.parse().ok()?);
            cells.next().is_none().then_some(row)
        };
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines
            .map(|line| row(line).with_context(|| format!("not door,batch,instructions: {line}")))
            .collect::<Result<_>>()
            .map(Self)
    }

    fn lines(&self) -> String {
        self.0.iter().map(|(door, batch, count)| format!("{door},{batch},{count:.1}\n")).collect()
    }

    /// What is worse in `now`, or not there.
    fn worse(&self, now: &Self) -> Vec<String> {
        let judge = |(door, batch, was): &(String, u32, f64)| match now.get(door, *batch) {
            None => Some(format!("{door} at batch {batch} was {was:.1} and is not measured")),
            Some(is) if is > was * TOLERANCE => Some(format!("{door} at batch {batch} was {was:.1} and is {is:.1}")),
            Some(_) => None,
        };
        self.0.iter().filter_map(judge).collect()
    }
}

/// What one boot measured.
struct Measured {
    counts: Counts,
    /// What is only for readers.
    notes: Vec<String>,
}

pub(crate) fn run(ctx: &Ctx, args: &Args) -> Result<ExitCode> {
    if (args.check || args.update) && args.kernel != TABLE_KERNEL {
        bail!("{TABLE} is about {TABLE_KERNEL}");
    }
    let gate = measure(ctx, args.kernel, CPUS[0])?;
    let beside = measure(ctx, args.kernel, CPUS[1])?;
    let release = release(ctx, args.kernel)?;
    eprint!("{}", table(&release, &gate, Some(&beside)));
    let rounds = traced(ctx, args.kernel)?;
    eprint!("{}", calls(&rounds, args.functions));
    print!("{}", gate.counts.lines());
    if args.update {
        let head = format!("# cargo xtask vm insns --update: {release}, -cpu {}", CPUS[0]);
        fs::write(ctx.root.join(TABLE), format!("{head}\n{}", gate.counts.lines()))?;
        keep(ctx, &rounds)?;
        return report::run(ctx);
    }
    if args.check {
        compare(ctx, &gate.counts)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The gate alone: returns the table for readers.
///
/// # Errors
/// Names the counts that are worse than the committed ones.
pub(crate) fn check(ctx: &Ctx) -> Result<String> {
    let gate = measure(ctx, TABLE_KERNEL, CPUS[0])?;
    compare(ctx, &gate.counts)?;
    Ok(table(&release(ctx, TABLE_KERNEL)?, &gate, None))
}

fn compare(ctx: &Ctx, now: &Counts) -> Result<()> {
    let committed = fs::read_to_string(ctx.root.join(TABLE)).with_context(|| format!("no {TABLE}"))?;
    let worse = Counts::parse(&committed)?.worse(now);
    if !worse.is_empty() {
        let head = committed.lines().next().unwrap_or("");
        bail!("more instructions than in {TABLE} ({head}):\n  {}", worse.join("\n  "));
    }
    Ok(())
}

fn measure(ctx: &Ctx, kernel: Kernel, cpu: &str) -> Result<Measured> {
    let mut guest = prepare(ctx, kernel)?;
    guest.cpu = cpu.to_owned();
    let program = guest.files.add_program(&program(ctx)?)?;
    guest.jobs.push(Job::new("insns", program, TIMEOUT));
    let results = finish(ctx, guest)?;
    let last = results.jobs.last().context("the guest returned no result")?;
    let note = |line: &&str| line.starts_with("also ") || line.starts_with("where ");
    let (notes, counts): (Vec<&str>, Vec<&str>) = last.stdout.lines().partition(note);
    let notes = notes.into_iter().map(str::to_owned).collect();
    Ok(Measured { counts: Counts::parse(&counts.join("\n"))?, notes })
}

/// The rounds between the program's marks, and their operations.
const ROUNDS: [(&str, u32); 4] = [("ring", 1), ("ring", 32), ("ring", 128), ("ioctl", 1)];

/// What the guest runs for them. From mark to mark it runs the mark's call too.
fn traced(ctx: &Ctx, kernel: Kernel) -> Result<[Cost; 4]> {
    let mut guest = prepare(ctx, kernel)?;
    guest.trace = true;
    // A kernel with one processor takes the lock prefixes out.
    guest.append = "noreplace-smp".to_owned();
    let program = guest.files.add_program(&program(ctx)?)?;
    guest.jobs.push(Job::new("symbols", "cat /proc/kallsyms".to_owned(), TIMEOUT));
    guest.jobs.push(Job::new("insns", format!("{program} trace"), TIMEOUT));
    let results = finish(ctx, guest)?;
    let symbols = results.jobs.iter().find(|job| job.name == "symbols").context("no symbols came back")?;
    let costs = trace::read(results.dir(), &symbols.stdout, "base_ioctl")?;
    let [null, one, many, most, ioctl] = &costs[..] else { bail!("{} rounds in the trace, not 5", costs.len()) };
    Ok([one, many, most, ioctl].map(|cost| cost.without(null)))
}

/// A guest under icount, with all modules loaded.
fn prepare(ctx: &Ctx, kernel: Kernel) -> Result<Guest> {
    let mut guest = Guest::new(ctx, kernel)?;
    guest.icount = true;
    let mut modules = module::build(ctx, kernel)?.modules;
    modules.push(module::build_baseline(ctx, kernel)?);
    guest.load_modules(&modules)?;
    Ok(guest)
}

fn finish(ctx: &Ctx, guest: Guest) -> Result<Results> {
    let results = guest.boot(ctx)?;
    for job in &results.jobs {
        if job.code != 0 || !job.complaints.is_empty() {
            bail!("{} failed in the guest ({}):\n{}{}", job.name, job.code, job.stderr, job.complaints.join("\n"));
        }
    }
    Ok(results)
}

/// The measuring program, built for this host.
fn program(ctx: &Ctx) -> Result<PathBuf> {
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--release", "-p", "sq-bench", "--example", "insns"]).current_dir(&ctx.root);
    cargo::program(&mut cargo, "example", "insns")
}

fn release(ctx: &Ctx, kernel: Kernel) -> Result<String> {
    let image = kernel.image(ctx)?;
    let name = image.file_name().unwrap_or_default().to_string_lossy();
    Ok(name.trim_start_matches("vmlinuz-").to_owned())
}

/// Everything, for a reader.
fn table(release: &str, gate: &Measured, beside: Option<&Measured>) -> String {
    let mut text = format!("guest instructions per operation, {release}\n");
    let mut columns = vec![(CPUS[0], gate)];
    columns.extend(beside.map(|beside| (CPUS[1], beside)));
    let row = |door: &str, batch: &str, cells: Vec<String>| {
        format!("{door:16}{batch:>6}{}\n", cells.iter().map(|cell| format!("{cell:>12}")).collect::<String>())
    };
    text.push_str(&row("door", "batch", columns.iter().map(|(cpu, _)| (*cpu).to_owned()).collect()));
    for (door, batch, _) in &gate.counts.0 {
        let cell = |measured: &Measured| measured.counts.get(door, *batch).map_or(String::new(), |n| format!("{n:.1}"));
        let cells = columns.iter().map(|(_, measured)| cell(measured)).collect();
        text.push_str(&row(door, &batch.to_string(), cells));
    }
    text.push('\n');
    for note in &gate.notes {
        // The first cell has the most to say.
        let (name, rest) = note.split_once(',').unwrap_or((note, ""));
        let rest: String = rest.split(',').map(|cell| format!("{cell:>12}")).collect();
        let _ = writeln!(text, "{name:34}{rest}");
    }
    text
}

/// Whole rounds, as the guest runs them.
fn calls(costs: &[Cost; 4], functions: bool) -> String {
    let mut text = String::from("\n");
    let line = |what: &str, cells: [String; 3]| format!("{what:40}{:>14}{:>20}{:>16}\n", cells[0], cells[1], cells[2]);
    let counted = |what: &str, count: Counted| {
        line(what, [count.instructions, count.locked, count.indirect_calls].map(|count| count.to_string()))
    };
    text.push_str(&line("a round", ["instructions", "fences and locked", "indirect calls"].map(str::to_owned)));
    for ((round, batch), cost) in ROUNDS.iter().zip(costs) {
        text.push_str(&counted(&format!("{round}, {batch} entries"), cost.sum(|_| true)));
        text.push_str(&counted("  of it in the kernel", cost.sum(|name| name != PROCESS)));
        if functions {
            let mut rows: Vec<_> = cost.functions.iter().collect();
            rows.sort_by_key(|(_, count)| std::cmp::Reverse(count.instructions));
            rows.iter().for_each(|(name, count)| text.push_str(&counted(&format!("    {name}"), **count)));
        }
    }
    text
}

/// Keeps what the rounds are made of, for docs/performance.md.
fn keep(ctx: &Ctx, costs: &[Cost; 4]) -> Result<()> {
    let mut data = Data::default();
    for ((round, batch), cost) in ROUNDS.iter().zip(costs) {
        let mut add = |group: &str, row: &str, parameter: &str, count: Counted| {
            let kinds =
                [("instructions", count.instructions), ("locked", count.locked), ("indirect", count.indirect_calls)];
            for (what, value) in kinds {
                let [group, row, parameter, what] = [group, row, parameter, what].map(str::to_owned);
                let crosses = "system call".to_owned();
                data.0.push(Figure { group, row, crosses, parameter, what, pass: 1, value: value as f64 });
            }
        };
        add("round", round, &batch.to_string(), cost.sum(|_| true));
        cost.functions.iter().for_each(|(name, count)| add("function", name, &format!("{round} {batch}"), *count));
    }
    let folder = ctx.root.join(bench::FOLDER);
    fs::create_dir_all(&folder)?;
    data.save(&folder.join("calls.csv"))?;
    let mut facts = facts::of_guest(ctx, TABLE_KERNEL)?;
    facts.add("machine", format!("{}, -cpu {}", super::qemu::ICOUNT.join(" "), CPUS[0]));
    facts.save(&folder.join("calls.facts"))
}

#[cfg(test)]
mod tests {
    use super::Counts;

    #[test]
    fn a_row_that_is_worse_or_gone_is_found() {
        let was = Counts::parse("# how\nring,1,100.0\nring,8,50.0\nioctl,1,700.0").unwrap();
        let now = Counts::parse("ring,1,102.9\nring,8,51.6").unwrap();
        let worse = was.worse(&now);
        assert_eq!(worse, ["ring at batch 8 was 50.0 and is 51.6", "ioctl at batch 1 was 700.0 and is not measured"]);
        assert!(was.worse(&was).is_empty());
    }

    #[test]
    fn lines_come_back_as_they_were() {
        let text = "ring,1,100.0\nbase-ring,128,63.5\n";
        assert_eq!(Counts::parse(text).unwrap().lines(), text);
        assert!(Counts::parse("ring,1").is_err() && Counts::parse("ring,1,2,3").is_err());
    }
}

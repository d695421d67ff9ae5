// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random or sequential reads and writes at queue depth, on one file or device: operations a second, and how long they took.
//!
//! A latency is from the push of an operation to the moment it was reaped, so it holds the time in both queues.

mod target;

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use liburing_shm::Errno;
use liburing_shm::opcode::Target as Fixed;
use liburing_shm::safe::{self, Reap, Submit};
use serde::Serialize;

use crate::Error;
use crate::engine::{system, wait};
use crate::files::Files;
use crate::progress::Progress;
use crate::report::{Table, per, time};
use crate::ring::{RingOptions, Shape};
use crate::size::{Bytes, mb_per_s};
use crate::stop::Stop;
use target::Target;

/// What is measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// A file or block device, or a temporary file.
    pub path: Option<PathBuf>,
    /// Bytes of the temporary file.
    pub size_bytes: u64,
    /// How many of 100 operations write.
    pub write_percent: u8,
    /// One block after another, instead of any.
    pub sequential: bool,
    /// For how long.
    pub seconds: f64,
    /// Writing to `path` destroys what is in it: that it may.
    pub overwrite: bool,
}

/// What it came to.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The ring.
    pub ring: Shape,
    /// On what.
    #[serde(serialize_with = "crate::report::lossy")]
    pub path: PathBuf,
    /// Its bytes.
    pub size_bytes: u64,
    /// `random` or `sequential`.
    pub order: &'static str,
    /// How many of 100 operations wrote.
    pub write_percent: u8,
    /// For how long.
    pub seconds: f64,
    /// Operations.
    pub operations: u64,
    /// Operations a second.
    pub iops: f64,
    /// Megabytes a second.
    pub mb_per_s: f64,
    /// Doorbells.
    pub doorbells: u64,
    /// Times that this side was woken for completions.
    pub wakeups: u64,
    /// Whether a signal ended it early.
    pub interrupted: bool,
    /// Of reads and of writes, if there were any.
    pub latencies: Vec<Latency>,
}

/// How long operations took.
#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    /// `read` or `write`.
    pub what: &'static str,
    /// How many.
    pub operations: u64,
    /// Nanoseconds, on average.
    pub mean_ns: u64,
    /// Nanoseconds that half of them did not exceed.
    pub p50_ns: u64,
    /// 99 of 100.
    pub p99_ns: u64,
    /// 999 of 1000.
    pub p999_ns: u64,
    /// None.
    pub max_ns: u64,
}

/// Longest latency that is told apart: an hour.
const MAX_NS: u64 = 3_600_000_000_000;

/// Digits of a latency that are kept.
const DIGITS: u8 = 3;

/// Measures.
///
/// # Errors
///
/// What kept it from being done. A signal ends the measurement early, and is no error.
pub fn run(options: &Options, ring: &RingOptions, stop: &Stop, progress: &Progress) -> Result<Report, Error> {
    if options.write_percent > 100 {
        return Err(Error::Refused(format!("{} of 100 operations cannot write: use 0 to 100", options.write_percent)));
    }
    let limit = Duration::try_from_secs_f64(options.seconds)
        .ok()
        .filter(|limit| !limit.is_zero())
        .ok_or_else(|| Error::Refused(format!("{} seconds cannot be measured: use more than 0", options.seconds)))?;
    let backend = ring.backend()?;
    let (submit, reap) = safe::ring(ring.builder()?, &backend)?;
    let shape = Shape::new(ring, &backend, submit.submitter().features());
    let target = Target::open(options, ring.block_bytes, stop, progress)?;
    progress.end();
    let mut files = Files::new(submit.submitter().clone(), 1)?;
    let slot = files.insert(&target.file)?;
    let run = Run {
        submit: &submit,
        file: slot.target(),
        blocks: target.bytes / u64::from(ring.block_bytes),
        block_bytes: ring.block_bytes,
        options,
        random: 0x9e37_79b9_7f4a_7c15,
        cursor: 0,
        flights: vec![None; ring.depth.into()],
        times: [histogram()?, histogram()?],
    };
    let before = submit.submitter().stats()?;
    let (times, seconds) = run.run(reap, limit, stop, &target)?;
    let after = submit.submitter().stats()?;
    let operations = times.iter().map(Histogram::len).sum();
    Ok(Report {
        ring: shape,
        path: target.path.clone(),
        size_bytes: target.bytes,
        order: if options.sequential { "sequential" } else { "random" },
        write_percent: options.write_percent,
        seconds,
        operations,
        iops: operations as f64 / seconds,
        mb_per_s: mb_per_s(operations.saturating_mul(ring.block_bytes.into()), seconds),
        doorbells: after.doorbells.wrapping_sub(before.doorbells),
        wakeups: after.wakeups.wrapping_sub(before.wakeups),
        interrupted: stop.signal().is_some(),
        latencies: ["read", "write"]
            .iter()
            .zip(&times)
            .filter(|(_, t)| !t.is_empty())
            .map(|(w, t)| latency(w, t))
            .collect(),
    })
}

fn histogram() -> Result<Histogram<u64>, Error> {
    Histogram::new_with_max(MAX_NS, DIGITS).map_err(|error| Error::Refused(format!("no histogram: {error}")))
}

fn latency(what: &'static str, times: &Histogram<u64>) -> Latency {
    Latency {
        what,
        operations: times.len(),
        mean_ns: times.mean() as u64,
        p50_ns: times.value_at_quantile(0.5),
        p99_ns: times.value_at_quantile(0.99),
        p999_ns: times.value_at_quantile(0.999),
        max_ns: times.max(),
    }
}

struct Run<'a> {
    submit: &'a Submit,
    file: Fixed,
    blocks: u64,
    block_bytes: u32,
    options: &'a Options,
    random: u64,
    cursor: u64,
    /// When each operation in flight was pushed, and whether it writes.
    flights: Vec<Option<(Instant, bool)>>,
    /// Of reads, and of writes.
    times: [Histogram<u64>; 2],
}

impl Run<'_> {
    fn run(
        mut self,
        mut reap: Reap,
        limit: Duration,
        stop: &Stop,
        target: &Target,
    ) -> Result<([Histogram<u64>; 2], f64), Error> {
        let start = Instant::now();
        let mut idle: Vec<usize> = (0..self.flights.len()).collect();
        let mut failure = None;
        loop {
            let more = failure.is_none() && stop.signal().is_none() && start.elapsed() < limit;
            if more {
                while let Some(token) = idle.pop() {
                    self.push(token)?;
                }
            } else if idle.len() == self.flights.len() {
                break;
            }
            wait(self.submit, 1)?;
            let mut now = None;
            for done in reap.by_ref() {
                let Ok(token) = usize::try_from(done.token) else { continue };
                let Some((pushed, writes)) = self.flights.get_mut(token).and_then(Option::take) else { continue };
                idle.push(token);
                let now = *now.get_or_insert_with(Instant::now);
                self.note(done.result, now - pushed, writes, target).unwrap_or_else(|error| {
                    failure.get_or_insert(error);
                });
            }
        }
        failure.map_or_else(|| Ok((self.times, start.elapsed().as_secs_f64())), Err)
    }

    fn push(&mut self, token: usize) -> Result<(), Error> {
        let Some(buf) = self.submit.buffer() else { return Ok(()) };
        let writes = self.draw() % 100 < u64::from(self.options.write_percent);
        let block = if self.options.sequential {
            self.cursor = (self.cursor + 1) % self.blocks;
            self.cursor
        } else {
            self.draw() % self.blocks
        };
        let offset = block * u64::from(self.block_bytes);
        if let Some(place) = self.flights.get_mut(token) {
            *place = Some((Instant::now(), writes));
        }
        if writes {
            self.submit.write(self.file, offset, buf, self.block_bytes, token as u64)?;
        } else {
            self.submit.read(self.file, offset, buf, self.block_bytes, token as u64)?;
        }
        Ok(())
    }

    fn note(&mut self, result: Result<u32, Errno>, time: Duration, writes: bool, target: &Target) -> Result<(), Error> {
        let what = if writes { "write" } else { "read" };
        let bytes = result.map_err(|errno| Error::io(what, &target.path, system(errno)))?;
        if bytes != self.block_bytes {
            let short = std::io::Error::other(format!("{bytes} bytes of a block of {}", self.block_bytes));
            return Err(Error::io(what, &target.path, short));
        }
        let [reads, writes_] = &mut self.times;
        let times = if writes { writes_ } else { reads };
        times.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        Ok(())
    }

    /// xorshift64: good enough to spread blocks, and the same each run.
    fn draw(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random >> 11
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.ring)?;
        let Self { order, write_percent, path, seconds, .. } = self;
        let reads = 100 - write_percent;
        let size = Bytes(self.size_bytes);
        writeln!(f, "{order}, {reads} % reads, {write_percent} % writes, {} ({size}), {seconds:.2} s", path.display())?;
        if self.interrupted {
            writeln!(f, "(ended early by a signal)")?;
        }
        let (doorbells, wakeups) = (per(self.doorbells, self.operations), per(self.wakeups, self.operations));
        write!(f, "{:.0} IOPS, {:.0} MB/s, {} operations", self.iops, self.mb_per_s, self.operations)?;
        writeln!(f, ", {doorbells} doorbells and {wakeups} wake-ups an operation\n")?;
        let mut table = Table::new(&["latency", "operations", "mean", "p50", "p99", "p99.9", "max"]);
        for l in &self.latencies {
            let times = [l.mean_ns, l.p50_ns, l.p99_ns, l.p999_ns, l.max_ns];
            table.row([l.what.to_owned(), l.operations.to_string()].into_iter().chain(times.map(time)));
        }
        write!(f, "{table}")
    }
}

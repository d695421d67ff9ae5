// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading the counter, and what is left of it without the reading itself.

use std::error::Error;

pub(crate) const BATCHES: [u32; 4] = [1, 8, 32, 128];

/// Operations in one chunk. Rings have as many completion slots, so that all chunks do the same.
pub(crate) const CHUNK: u32 = 512;
const CHUNKS: usize = 41;

/// One an instruction under icount. Memory accesses stay on their side of it.
#[inline(always)]
fn now() -> u64 {
    // SAFETY: every x86-64 processor has a time stamp counter, and Linux lets user space read it.
    unsafe { core::arch::x86_64::_rdtsc() }
}

fn least(mut samples: Vec<u64>) -> Result<u64, Box<dyn Error>> {
    samples.sort_unstable();
    let (least, median) = (samples[0], samples[samples.len() / 2]);
    if least != median {
        return Err(format!("not exact: at least {least}, in the middle {median}; is this -icount shift=0?").into());
    }
    Ok(least)
}

/// What two readings in a row are apart.
fn overhead() -> Result<u64, Box<dyn Error>> {
    let pair = |_| {
        let start = now();
        now() - start
    };
    least((0..CHUNKS).map(pair).collect())
}

/// Instructions an operation takes when `round` does `batch` of them and says how many succeeded.
fn count(batch: u32, mut round: impl FnMut() -> u32) -> Result<f64, Box<dyn Error>> {
    let mut chunk = || {
        let mut good = 0;
        let start = now();
        for _ in 0..CHUNK / batch {
            good += round();
        }
        (now() - start, good)
    };
    chunk(); // pages and caches of the kernel's allocator
    let mut samples = Vec::new();
    for _ in 0..CHUNKS {
        let (sample, good) = chunk();
        if good != CHUNK {
            return Err(format!("{good} of {CHUNK} operations succeeded").into());
        }
        samples.push(sample);
    }
    let total = least(samples)? - overhead()?;
    Ok(total as f64 / f64::from(CHUNK))
}

pub(crate) fn measure(door: &str, batch: u32, round: impl FnMut() -> u32) -> Result<(), Box<dyn Error>> {
    let count = count(batch, round).map_err(|why| format!("{door}, batch {batch}: {why}"))?;
    println!("{door},{batch},{count:.1}");
    Ok(())
}

/// When the parts of a round ended.
#[derive(Default)]
pub(crate) struct Phases {
    start: u64,
    pushed: u64,
    entered: u64,
    reaped: u64,
}

impl Phases {
    #[inline(always)]
    pub(crate) fn pushed(&mut self) {
        self.pushed = now();
    }

    #[inline(always)]
    pub(crate) fn entered(&mut self) {
        self.entered = now();
    }

    #[inline(always)]
    pub(crate) fn reaped(&mut self) {
        self.reaped = now();
    }
}

/// Where the instructions of a round of `batch` operations go.
pub(crate) fn phases(door: &str, batch: u32, mut round: impl FnMut(&mut Phases) -> u32) -> Result<(), Box<dyn Error>> {
    let mut parts: [Vec<u64>; 3] = Default::default();
    for _ in 0..CHUNKS {
        let mut at = Phases { start: now(), ..Phases::default() };
        if round(&mut at) != batch {
            return Err("an operation of the round failed".into());
        }
        parts[0].push(at.pushed - at.start);
        parts[1].push(at.entered - at.pushed);
        parts[2].push(at.reaped - at.entered);
    }
    for (part, samples) in ["build+push", "enter", "reap"].into_iter().zip(parts) {
        let count = least(samples)? - overhead()?;
        println!("where {door},{batch},{part},{:.1}", count as f64 / f64::from(batch));
    }
    Ok(())
}

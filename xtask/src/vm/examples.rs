// SPDX-License-Identifier: MIT OR Apache-2.0
//! The worked examples in a guest: drivers outside the tree's build, loaded beside sq.ko, in a storm of cancels and closes.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::Depth;
use super::guest::{Guest, Job};
use crate::ctx::Ctx;
use crate::kernel::Kernel;
use crate::module;

/// Folder below examples/, and the driver's name.
const EXAMPLES: [(&str, &str); 2] = [("dma-rust", "dma"), ("dma-c", "dma_c")];

/// Descriptors, and how long they may take under emulation on a busy host.
const STORM: (u32, Duration) = (40_000, Duration::from_secs(120));
const STORM_LONG: (u32, Duration) = (10_000_000, Duration::from_secs(3 * 3600));

/// Adds the drivers and their jobs. They are unloaded again.
pub(super) fn add(ctx: &Ctx, kernel: Kernel, guest: &mut Guest, storm: &Path, depth: Depth) -> Result<()> {
    let storm = guest.files.add_program(storm)?;
    let (descriptors, timeout) = if depth == Depth::Long { STORM_LONG } else { STORM };
    for (folder, name) in EXAMPLES {
        guest.load_modules(&module::build_driver(ctx, kernel, &ctx.root.join("examples").join(folder))?.modules)?;
        // The submitters are on CPU 0, the engine's interrupts on CPU 1: all of them, says the module. A ring that is closed with
        // descriptors in flight, and the module with it, is let go with the last of them, by a worker.
        let line = format!(
            "set -e
            taskset 1 {storm} /dev/sq{name} {descriptors}
            [ $(cat /sys/module/sq_{name}/parameters/strays) = 0 ]
            for second in 1 2 3 4 5 6 7 8 9 10; do
                if rmmod sq_{name} 2>/dev/null; then exit 0; fi
                sleep 1
            done
            rmmod sq_{name}"
        );
        guest.jobs.push(Job::new(&format!("example {folder}: storm"), line, timeout));
    }
    Ok(())
}

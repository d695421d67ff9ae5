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
const STORM_PART: (u32, Duration) = (4_000, Duration::from_secs(120));

/// Adds the drivers and their jobs, and their names to `loaded`: they stay.
pub(super) fn add(
    ctx: &Ctx,
    kernel: Kernel,
    guest: &mut Guest,
    storm: &Path,
    depth: Depth,
    loaded: &mut Vec<String>,
) -> Result<()> {
    let storm = guest.files.add_program(storm)?;
    let (descriptors, timeout) = match depth {
        Depth::Part => STORM_PART,
        Depth::Usual => STORM,
        Depth::Long => STORM_LONG,
    };
    for (folder, name) in EXAMPLES {
        guest.load_modules(&module::build_driver(ctx, kernel, &ctx.root.join("examples").join(folder))?.modules)?;
        // The submitters are on CPU 0, the engine's interrupts on CPU 1: all of them, says the module.
        let line = format!(
            "set -e
            taskset 1 {storm} /dev/sq{name} {descriptors}
            [ $(cat /sys/module/sq_{name}/parameters/strays) = 0 ]"
        );
        guest.jobs.push(Job::new(&format!("example {folder}: storm"), line, timeout));
        loaded.push(format!("sq_{name}"));
    }
    Ok(())
}

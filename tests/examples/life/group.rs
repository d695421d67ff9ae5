// SPDX-License-Identifier: MIT OR Apache-2.0
//! A control group, in a version 2 hierarchy at /sys/fs/cgroup. Needs root.

use std::fs;
use std::path::Path;

use crate::{Outcome, Why, os};

const ROOT: &str = "/sys/fs/cgroup";
const GROUP: &str = "/sys/fs/cgroup/sq-life";

/// Processes join it; it goes when they have. One at a time.
pub(crate) struct Group;

impl Group {
    /// None: the kernel has no such controller.
    pub(crate) fn new(controllers: &[&str]) -> Result<Option<Self>, Why> {
        let there = fs::read_to_string(format!("{ROOT}/cgroup.controllers")).map_err(os("cgroup.controllers"))?;
        if controllers.iter().any(|wanted| !there.split_whitespace().any(|name| name == *wanted)) {
            return Ok(None);
        }
        for controller in controllers {
            fs::write(format!("{ROOT}/cgroup.subtree_control"), format!("+{controller}"))
                .map_err(os("subtree_control"))?;
        }
        fs::create_dir(GROUP).map_err(os("mkdir"))?;
        Ok(Some(Self))
    }

    pub(crate) fn has(file: &str) -> bool {
        Path::new(GROUP).join(file).exists()
    }

    pub(crate) fn set(file: &'static str, value: &str) -> Outcome {
        fs::write(format!("{GROUP}/{file}"), value).map_err(os(file))
    }

    pub(crate) fn join() -> Outcome {
        Self::set("cgroup.procs", "0")
    }

    /// Of all disks.
    pub(crate) fn io(key: &str) -> Result<u64, Why> {
        let text = fs::read_to_string(format!("{GROUP}/io.stat")).map_err(os("io.stat"))?;
        Ok(text.split_whitespace().filter_map(|word| word.strip_prefix(key)?.parse::<u64>().ok()).sum())
    }

    /// In bytes.
    pub(crate) fn memory() -> Result<u64, Why> {
        let text = fs::read_to_string(format!("{GROUP}/memory.current")).map_err(os("memory.current"))?;
        text.trim().parse().map_err(|_| Why::from(format!("memory.current: {text}")))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(GROUP);
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel's fault injection (debugfs), narrowed to what runs below a function of ours.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::Why;

const DEBUGFS: &str = "/sys/kernel/debug";

/// What can be made to fail: slab objects, pages, and copies from and to user memory.
pub(crate) const FAILING: [&str; 3] = ["failslab", "fail_page_alloc", "fail_usercopy"];

/// Whether this kernel has it all.
pub(crate) fn available() -> bool {
    FAILING.iter().all(|what| Path::new(DEBUGFS).join(what).join("require-start").exists())
}

/// From now on faults happen below functions of the modules that are loaded now, and nowhere else.
pub(crate) fn only_below_us() -> Result<(), Why> {
    let modules = fs::read_to_string("/proc/modules").map_err(failed("/proc/modules"))?;
    let (mut start, mut end) = (u64::MAX, 0);
    for line in modules.lines().filter(|line| line.starts_with("sq")) {
        let words: Vec<&str> = line.split(' ').collect();
        let size = words.get(1).and_then(|size| size.parse::<u64>().ok());
        let at = words.get(5).and_then(|at| u64::from_str_radix(at.trim_start_matches("0x"), 16).ok());
        let (Some(size), Some(at)) = (size, at) else { return Err(format!("/proc/modules: {line}").into()) };
        start = start.min(at);
        end = end.max(at + size);
    }
    for what in FAILING {
        for (name, value) in [("probability", 0), ("require-start", start), ("require-end", end), ("verbose", 0)] {
            set(what, name, &value.to_string())?;
        }
        set(what, "times", "-1")?;
        set(what, "task-filter", "N")?;
    }
    // Allocations that may sleep fail as well: all of ours are of that kind.
    set("failslab", "ignore-gfp-wait", "N")?;
    set("fail_page_alloc", "ignore-gfp-wait", "N")?;
    set("fail_page_alloc", "ignore-gfp-highmem", "N")?;
    set("fail_page_alloc", "min-order", "0")
}

/// Of a hundred times, in how many `what` fails, whoever runs.
pub(crate) fn probability(what: &str, percent: u32) -> Result<(), Why> {
    set(what, "probability", &percent.to_string())
}

fn set(what: &str, name: &str, value: &str) -> Result<(), Why> {
    let path = format!("{DEBUGFS}/{what}/{name}");
    fs::write(&path, value).map_err(failed(&path))
}

/// The calling thread's `fail-nth`.
pub(crate) struct Nth(File);

impl Nth {
    pub(crate) fn open() -> Result<Self, Why> {
        let path = "/proc/thread-self/fail-nth";
        OpenOptions::new().read(true).write(true).open(path).map(Self).map_err(failed(path))
    }

    /// The `nth` thing from here on that can fail does.
    pub(crate) fn arm(&self, nth: u32) -> Result<(), Why> {
        self.0.write_all_at(nth.to_string().as_bytes(), 0).map_err(failed("fail-nth"))
    }

    /// Ends that; whether it did fail.
    pub(crate) fn disarm(&self) -> Result<bool, Why> {
        let mut text = [0; 16];
        let len = self.0.read_at(&mut text, 0).map_err(failed("fail-nth"))?;
        self.arm(0)?;
        Ok(String::from_utf8_lossy(&text[..len]).trim() == "0")
    }
}

fn failed(what: &str) -> impl Fn(std::io::Error) -> Why {
    let what = what.to_owned();
    move |why| Why::from(format!("{what}: {why}"))
}

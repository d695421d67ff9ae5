// SPDX-License-Identifier: MIT OR Apache-2.0
//! On what it was measured.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::ctx::Ctx;
use crate::kernel::Kernel;
use crate::module;
use crate::process::stdout;

/// Lines `name: value`, in their order.
#[derive(Default)]
pub(crate) struct Facts(Vec<(String, String)>);

impl Facts {
    /// A file that is not there holds nothing.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        if !path.exists() {
            return Ok(Self::default());
        }
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let pair = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned()));
        Ok(Self(text.lines().filter_map(pair).collect()))
    }

    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let text: String = self.0.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    pub(crate) fn add(&mut self, name: &str, value: impl Into<String>) {
        self.0.push((name.to_owned(), value.into()));
    }

    fn begin(&mut self, ctx: &Ctx) {
        self.add("measured", said(ctx, "date", &["-u", "+%Y-%m-%d %H:%M UTC"]));
        self.add("commit", said(ctx, "git", &["describe", "--always", "--dirty"]));
    }

    /// Every value with this name.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// What was not there to measure on.
pub(crate) const SKIPPED: &str = "skipped";

/// This host's, to be asked for before anything is measured.
pub(crate) fn of_host(ctx: &Ctx) -> Facts {
    let mut facts = Facts::default();
    facts.begin(ctx);
    let cpu = cpu_field("model name");
    let numbers = ["cpu family", "model", "stepping"].map(cpu_field).join("/");
    facts.add("processor", format!("{} x {cpu} (family/model/stepping {numbers})", cpus()));
    facts.add("hypervisor", hypervisor());
    facts.add("governor", governor());
    facts.add("kernel", said(ctx, "uname", &["-srm"]));
    facts.add("mitigations", mitigations());
    facts.add("load when it began", load());
    facts.add("rustc", said(ctx, "rustc", &["--version"]));
    facts
}

/// A guest's, of the modules that were built for it.
pub(crate) fn of_guest(ctx: &Ctx, kernel: Kernel) -> Result<Facts> {
    let mut facts = Facts::default();
    facts.begin(ctx);
    facts.add("emulator", said(ctx, "qemu-system-x86_64", &["--version"]));
    let image = kernel.image(ctx)?;
    facts.add("kernel", image.file_name().unwrap_or_default().to_string_lossy().trim_start_matches("vmlinuz-"));
    for (name, hash) in module::hashes(ctx, kernel)? {
        facts.add(&format!("sha256 of {name}"), hash);
    }
    let tested = if module::is_tested(ctx, kernel)? {
        "yes: cargo xtask vm test passed with these files"
    } else {
        "not since they were built"
    };
    facts.add("tested", tested);
    Ok(facts)
}

/// The version of a crate in Cargo.lock.
pub(crate) fn crate_version(ctx: &Ctx, name: &str) -> String {
    let lock = fs::read_to_string(ctx.root.join("Cargo.lock")).unwrap_or_default();
    let after = lock.split(&format!("name = \"{name}\"\nversion = \"")).nth(1);
    after.and_then(|rest| rest.split('"').next()).unwrap_or("unknown").to_owned()
}

/// The first line of what a program prints.
fn said(ctx: &Ctx, program: &str, args: &[&str]) -> String {
    let answer = stdout(Command::new(program).args(args).current_dir(&ctx.root));
    answer.map_or_else(|_| "unknown".to_owned(), |text| text.lines().next().unwrap_or("").trim().to_owned())
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn cpu_field(name: &str) -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let value =
        |line: &str| line.split_once(':').filter(|(key, _)| key.trim() == name).map(|(_, v)| v.trim().to_owned());
    info.lines().find_map(value).unwrap_or_else(|| "unknown".to_owned())
}

fn hypervisor() -> String {
    let text = stdout(&mut Command::new("lscpu")).unwrap_or_default();
    let vendor = text.lines().find_map(|line| line.strip_prefix("Hypervisor vendor:"));
    vendor.map_or_else(|| "none".to_owned(), |vendor| format!("{} (a virtual machine)", vendor.trim()))
}

fn governor() -> String {
    let read = fs::read_to_string("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
    read.map_or_else(|_| "not this machine's to choose".to_owned(), |name| name.trim().to_owned())
}

/// Only those that are there: "Not affected" is no news.
fn mitigations() -> String {
    let Ok(folder) = fs::read_dir("/sys/devices/system/cpu/vulnerabilities") else { return "unknown".to_owned() };
    let mut all: Vec<String> = folder
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let (name, text) = (path.file_name()?.to_string_lossy().into_owned(), fs::read_to_string(&path).ok()?);
            (text.trim() != "Not affected").then(|| format!("{name} ({})", text.trim()))
        })
        .collect();
    all.sort();
    all.join("; ")
}

fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("unknown").to_owned()
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What `modinfo` says of our modules: licence, version, description, and a line for each parameter.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::process::stdout;

/// # Errors
/// Names the module and what it lacks.
pub(crate) fn check(modules: &[PathBuf]) -> Result<()> {
    for module in modules {
        let section = stdout(Command::new("readelf").args(["--wide", "--string-dump=.modinfo"]).arg(module))?;
        let faults = faults(&section, env!("CARGO_PKG_VERSION"));
        if !faults.is_empty() {
            bail!("modinfo {}: {}", name(module), faults.join("; "));
        }
    }
    Ok(())
}

fn name(module: &Path) -> String {
    module.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// `section` as readelf prints it: `  [     c]  version=0.1.0`.
fn faults(section: &str, version: &str) -> Vec<String> {
    let fields: Vec<(&str, &str)> =
        section.lines().filter_map(|line| line.split_once("]  ")?.1.trim_end().split_once('=')).collect();
    let value = |key: &str| fields.iter().find(|(k, _)| *k == key).map(|(_, value)| *value);
    let mut faults = Vec::new();
    for (key, wanted) in [("license", "Dual MIT/GPL"), ("version", version)] {
        if value(key) != Some(wanted) {
            faults.push(format!("{key} is {:?}, not {wanted:?}", value(key)));
        }
    }
    if value("description").is_none_or(str::is_empty) {
        faults.push("no description".to_owned());
    }
    for (_, parameter) in fields.iter().filter(|(key, _)| *key == "parmtype") {
        let parameter = parameter.split(':').next().unwrap_or_default();
        if !fields.iter().any(|(key, text)| *key == "parm" && text.starts_with(&format!("{parameter}:"))) {
            faults.push(format!("nothing about parameter {parameter}"));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::faults;

    const GOOD: &str = "\nString dump of section '.modinfo':\n  [     0]  license=Dual MIT/GPL\n  [    15]  version=1.2.3\n\
        \x20 [    25]  description=does nothing\n  [    40]  parmtype=mode:ushort\n  [    55]  parm=mode:permissions\n";

    #[test]
    fn what_is_missing_is_named() {
        assert!(faults(GOOD, "1.2.3").is_empty());
        assert_eq!(faults(GOOD, "1.2.4"), ["version is Some(\"1.2.3\"), not \"1.2.4\""]);
        for (line, fault) in [("license", "license"), ("description", "no description"), ("parm=", "parameter mode")] {
            let text: Vec<&str> = GOOD.lines().filter(|l| !l.contains(line)).collect();
            let faults = faults(&text.join("\n"), "1.2.3");
            assert!(faults.len() == 1 && faults[0].contains(fault), "{line}: {faults:?}");
        }
    }
}

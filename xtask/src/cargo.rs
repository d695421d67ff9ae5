// SPDX-License-Identifier: MIT OR Apache-2.0
//! The programs that cargo builds, by what it says about them.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::process::tail;

/// A program.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Program {
    /// What its target is called.
    pub(crate) name: String,
    /// What its target is: "bin", "test", "example", ..
    pub(crate) kind: String,
    pub(crate) path: PathBuf,
}

/// The programs that this call of cargo makes, or made earlier.
pub(crate) fn programs(cargo: &mut Command) -> Result<Vec<Program>> {
    let output = cargo.args(["--quiet", "--message-format=json"]).output().context("cannot run cargo")?;
    if !output.status.success() {
        let args: Vec<_> = cargo.get_args().map(|arg| arg.to_string_lossy()).collect();
        bail!("cargo {} failed:\n{}", args.join(" "), tail(&String::from_utf8_lossy(&output.stderr), 60));
    }
    Ok(read(&String::from_utf8_lossy(&output.stdout)))
}

/// The one of [`programs`] whose target has that kind and name.
pub(crate) fn program(cargo: &mut Command, kind: &str, name: &str) -> Result<PathBuf> {
    let wanted = |program: &Program| program.kind == kind && program.name == name;
    let program = programs(cargo)?.into_iter().find(wanted);
    Ok(program.with_context(|| format!("cargo built no {kind} called {name}"))?.path)
}

fn read(messages: &str) -> Vec<Program> {
    let program = |message: Value| {
        let (target, text) = (&message["target"], |value: &Value| value.as_str().map(str::to_owned));
        let path = PathBuf::from(message["executable"].as_str()?);
        Some(Program { name: text(&target["name"])?, kind: text(&target["kind"][0])?, path })
    };
    messages.lines().filter_map(|line| serde_json::from_str(line).ok()).filter_map(program).collect()
}

#[cfg(test)]
mod tests {
    use super::{Program, read};

    #[test]
    fn what_is_no_program_is_left_out() {
        let text = r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"sq"},"executable":null}
noise
{"reason":"compiler-artifact","target":{"kind":["test"],"name":"doors"},"executable":"/t/doors-1"}
{"reason":"build-finished","success":true}"#;
        let doors = Program { name: "doors".to_owned(), kind: "test".to_owned(), path: "/t/doors-1".into() };
        assert_eq!(read(text), [doors]);
    }
}

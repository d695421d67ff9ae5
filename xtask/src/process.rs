// SPDX-License-Identifier: MIT OR Apache-2.0
//! Running programs: quiet while all is well, with a spinner on a terminal, and with their output when not.

use std::io::{BufRead, BufReader, IsTerminal, stderr};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

/// A spinner with elapsed time; invisible when stderr is not a terminal.
pub(crate) fn spinner(label: &str) -> ProgressBar {
    if !stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner().with_prefix(label.to_owned());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} [{elapsed}] {wide_msg:.dim}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// What a program left: whether it succeeded, and stdout and stderr as they came.
pub(crate) struct Output {
    pub(crate) ok: bool,
    pub(crate) text: String,
}

/// Runs `command` to its end under a spinner, both streams captured in order.
///
/// # Errors
/// When it cannot be started.
pub(crate) fn capture(label: &str, command: &mut Command) -> Result<Output> {
    let bar = spinner(label);
    let (reader, writer) = std::io::pipe().context("cannot create a pipe")?;
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(std::process::Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .spawn()
        .with_context(|| format!("cannot run {program}"))?;
    // The command keeps its copies of the pipe's write end; dropping them lets the reader see the end.
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut text = String::new();
    for line in BufReader::new(reader).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        bar.set_message(line.trim().to_owned());
        text.push_str(&line);
        text.push('\n');
    }
    let ok = child.wait()?.success();
    bar.finish_and_clear();
    Ok(Output { ok, text })
}

/// Like [`capture`], but failing is an error that carries the end of the output.
pub(crate) fn run(label: &str, command: &mut Command) -> Result<String> {
    let output = capture(label, command)?;
    if !output.ok {
        bail!("{label} failed: {}\n{}", line_of(command), tail(&output.text, 60));
    }
    Ok(output.text)
}

/// stdout of a short helper program.
pub(crate) fn stdout(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {}", command.get_program().to_string_lossy()))?;
    if !output.status.success() {
        bail!("{} failed: {}", line_of(command), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The last `lines` lines of `text`.
pub(crate) fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// True when `program` is found in PATH.
pub(crate) fn found(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

fn line_of(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|w| w.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

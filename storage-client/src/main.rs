// SPDX-License-Identifier: MIT OR Apache-2.0
//! The `sq-storage` command.
#![forbid(unsafe_code)]

mod cli;

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use serde::Serialize;
use sq_storage::progress::Progress;
use sq_storage::stop::Stop;
use sq_storage::{Error, bench, copy, demo, info, verify};

use cli::{Cli, Verb};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let json = cli.ring.json;
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            if json {
                let error = serde_json::json!({
                    "error": { "kind": error.kind(), "message": error.to_string(), "exit_code": error.exit_code() }
                });
                print(&error.to_string());
            }
            fail(&error)
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode, Error> {
    let stop = Stop::on_signals().map_err(|error| Error::io("handle", "signals", error))?;
    let json = cli.ring.json;
    let progress = if json { Progress::hidden() } else { Progress::stderr() };
    let ring = cli.ring.options();
    let verb = match cli.verb {
        Some(_) if cli.demo.given() => {
            return Err(Error::Refused("--from, --to and --keep are for the demo: put them behind `demo`".into()));
        }
        Some(verb) => verb,
        None => Verb::Demo(cli.demo),
    };
    match verb {
        Verb::Demo(args) => show(json, &demo::run(&args.options(), &ring, &stop, &progress)?)?,
        Verb::Copy(args) => show(json, &copy::run(&args.options(), &ring, &stop, &progress)?)?,
        Verb::Verify(args) => show(json, &verify::run(&args.options(), &ring, &stop, &progress)?)?,
        Verb::Info => show(json, &info::run(&ring)?)?,
        Verb::Bench(args) => {
            let report = bench::run(&args.options(), &ring, &stop, &progress)?;
            show(json, &report)?;
            if let Some(signal) = stop.signal() {
                // What is printed is a report, and one document.
                let error = Error::Interrupted { signal, left: "the figures are of the time until then".into() };
                return Ok(fail(&error));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show<R: Display + Serialize>(json: bool, report: &R) -> Result<(), Error> {
    print(&if json {
        serde_json::to_string_pretty(report).map_err(|error| Error::io("print", "the report", error.into()))?
    } else {
        report.to_string()
    });
    Ok(())
}

fn fail(error: &Error) -> ExitCode {
    eprintln!("sq-storage: error: {error}");
    ExitCode::from(error.exit_code())
}

/// Whoever reads standard output may have gone: that is not this program's failure.
fn print(text: &str) {
    let _ = writeln!(io::stdout().lock(), "{}", text.trim_end());
}

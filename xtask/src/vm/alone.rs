// SPDX-License-Identifier: MIT OR Apache-2.0
//! One check, or one test, by itself in a guest.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::guest::{Guest, Job, JobResult};
use super::{disk, life};
use crate::cargo;
use crate::ctx::Ctx;
use crate::kernel::Kernel;

/// What is run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Alone {
    /// A group of tests/examples/life, and a part of the names of those of its checks that are run.
    Life(&'static str, &'static str),
    /// A target of the conformance suite, and a test of it, on the devices.
    Test(&'static str, &'static str),
}

impl fmt::Display for Alone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Life(group, check) => write!(f, "life {group}: {check}"),
            Self::Test(target, test) => write!(f, "{target} {test}"),
        }
    }
}

impl Alone {
    /// What its program is called.
    pub(crate) const fn program(self) -> &'static str {
        match self {
            Self::Life(..) => "life",
            Self::Test(target, _) => target,
        }
    }

    /// Has a cargo that knows its folders build the program.
    pub(crate) fn build(self, cargo: &mut Command) -> Result<PathBuf> {
        match self {
            Self::Life(..) => life::build(cargo),
            Self::Test(target, _) => {
                let args = ["test", "--no-run", "-p", "sq-conformance", "--test", target];
                cargo::program(cargo.args(args), "test", target)
            }
        }
    }

    /// Boots `kernel` with `modules` and runs it, which is `program`, as the last job, no longer than `limit`.
    pub(crate) fn run(
        self,
        ctx: &Ctx,
        kernel: Kernel,
        modules: &[PathBuf],
        program: &Path,
        limit: Duration,
    ) -> Result<Vec<JobResult>> {
        let mut guest = Guest::new(ctx, kernel)?;
        if let Self::Life("accounts", _) = self {
            disk::add(&mut guest)?;
        }
        guest.load_modules(modules)?;
        let program = guest.files.add_program(program)?;
        let job = match self {
            Self::Life(group, check) => {
                guest.jobs.push(life::prepare());
                let user = life::is_users(group);
                Job { user, ..Job::new("life", format!("exec {program} {group} '{check}'"), limit) }
            }
            Self::Test(target, test) => Job::new(target, format!("SQ_BACKEND=device exec {program} {test}"), limit),
        };
        guest.jobs.push(job);
        let mut results = guest.boot(ctx)?;
        Ok(std::mem::take(&mut results.jobs))
    }
}

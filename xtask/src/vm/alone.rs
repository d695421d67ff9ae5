// SPDX-License-Identifier: MIT OR Apache-2.0
//! One check, or one test, by itself in a guest.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use super::guest::{Guest, Job, JobResult};
use super::{life, suite};
use crate::ctx::Ctx;
use crate::kernel::Kernel;

/// Far more than one of them takes.
const TIMEOUT: Duration = Duration::from_secs(60);

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
    /// Boots `kernel` with `modules` and runs it, as the last job. The program is the checkout's own.
    pub(crate) fn run(self, ctx: &Ctx, kernel: Kernel, modules: &[PathBuf]) -> Result<Vec<JobResult>> {
        let mut guest = Guest::new(ctx, kernel)?;
        guest.load_modules(modules)?;
        let job = match self {
            Self::Life(group, check) => {
                let program = guest.files.add_program(&life::program(ctx)?)?;
                guest.jobs.push(life::prepare());
                let user = life::is_users(group);
                Job { user, ..Job::new("life", format!("exec {program} {group} '{check}'"), TIMEOUT) }
            }
            Self::Test(target, test) => {
                let program = guest.files.add_program(&suite::test_program(ctx, target)?)?;
                Job::new(target, format!("SQ_BACKEND=device exec {program} {test}"), TIMEOUT)
            }
        };
        guest.jobs.push(job);
        let mut results = guest.boot(ctx)?;
        Ok(std::mem::take(&mut results.jobs))
    }
}

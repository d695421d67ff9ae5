// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ending early, when a signal asks for it.

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;

use crate::Error;

/// Whether to stop. Looked at between batches: what is in flight is waited for, then the caller cleans up.
#[derive(Clone, Debug)]
pub struct Stop(Arc<AtomicUsize>);

impl Stop {
    /// Nothing ever asks.
    #[must_use]
    pub fn never() -> Self {
        Self(Arc::default())
    }

    /// SIGINT, SIGTERM and SIGHUP ask. The second of them ends the process at once, should a device never answer. One that is
    /// ignored stays so: SIGHUP under `nohup`, SIGINT in the background of a shell without job control.
    ///
    /// # Errors
    ///
    /// The system's, if a handler cannot be installed.
    pub fn on_signals() -> io::Result<Self> {
        let (asked, signal) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let ignored = ignored();
        for number in [SIGINT, SIGTERM, SIGHUP] {
            if ignored & (1 << (number - 1)) != 0 {
                continue;
            }
            // In this order: the first signal finds the flag unset.
            flag::register_conditional_shutdown(number, 128 + number, Arc::clone(&asked))?;
            flag::register(number, Arc::clone(&asked))?;
            flag::register_usize(number, Arc::clone(&signal), usize::try_from(number).unwrap_or(usize::MAX))?;
        }
        // A write over the file size limit is an error of that write, and no reason to die with a partial file.
        flag::register(SIGXFSZ, Arc::default())?;
        Ok(Self(signal))
    }

    /// The signal that asked, if one did.
    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            signal => Some(i32::try_from(signal).unwrap_or(SIGINT)),
        }
    }

    /// An error, if a signal asked.
    ///
    /// # Errors
    ///
    /// [`Error::Interrupted`].
    pub fn check(&self) -> Result<(), Error> {
        match self.signal() {
            None => Ok(()),
            Some(signal) => Err(Error::Interrupted { signal, left: "nothing was left behind".into() }),
        }
    }
}

/// The signals that this process ignores, a bit each; none if /proc is not there to say so.
fn ignored() -> u64 {
    let status = fs::read("/proc/self/status").unwrap_or_default();
    let status = String::from_utf8_lossy(&status);
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

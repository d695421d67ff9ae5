// SPDX-License-Identifier: MIT OR Apache-2.0
//! What there is nothing wrong with. `xtask` runs it on a module with bugs planted where this comes by.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::raw::{NULL, Raw, echo, shape};
use crate::{Check, Outcome, joined, want};

pub(crate) const CHECKS: &[Check] = &[("a ring is used, looked at by two threads, and closed", look)];

fn look() -> Outcome {
    let mut ring = Raw::new(NULL, shape(8, 0))?;
    ring.push(echo(1, 1));
    ring.bell()?;
    want!(ring.reap(), [(1, 1)]);
    let ring = Arc::new(ring);
    let end = Instant::now() + Duration::from_secs(4);
    let threads = [0, 1].map(|_| {
        let ring = ring.clone();
        thread::spawn(move || {
            while Instant::now() < end {
                want!(ring.stats().entries, 1);
            }
            Ok(())
        })
    });
    for thread in threads {
        joined::<Outcome>(thread)?;
    }
    Ok(())
}

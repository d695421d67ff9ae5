// SPDX-License-Identifier: MIT OR Apache-2.0
//! The attack on a double fetch: one thread has an entry consumed again and again, another changes it meanwhile, between one that is
//! taken and one that is refused.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// What came of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// The entry was the one that is taken, all along.
    Accepted,
    /// It was the other, all along.
    Refused,
    /// It was checked as the one, and used as the other.
    Won,
}

/// What came of all attempts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Entries that were taken.
    pub accepted: u64,
    /// Entries that were refused.
    pub refused: u64,
    /// How often the attacker broke in.
    pub won: u64,
}

impl Count {
    /// All of them.
    #[must_use]
    pub const fn attempts(&self) -> u64 {
        self.accepted + self.refused + self.won
    }

    /// Whether there was an attack: both entries were seen, or one in place of the other.
    #[must_use]
    pub const fn saw_both(&self) -> bool {
        self.won > 0 || (self.accepted > 0 && self.refused > 0)
    }
}

/// Attempts while `more`, and another thread calls `flip` without pause.
///
/// # Errors
///
/// Those of an attempt, which end it.
pub fn attack<E>(
    flip: impl Fn() + Sync,
    mut more: impl FnMut(&Count) -> bool,
    mut attempt: impl FnMut() -> Result<Attempt, E>,
) -> Result<Count, E> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                flip();
            }
        });
        let mut count = Count::default();
        let mut result = Ok(());
        while result.is_ok() && more(&count) {
            result = attempt().map(|attempt| {
                *match attempt {
                    Attempt::Accepted => &mut count.accepted,
                    Attempt::Refused => &mut count.refused,
                    Attempt::Won => &mut count.won,
                } += 1;
            });
        }
        stop.store(true, Relaxed);
        result.map(|()| count)
    })
}

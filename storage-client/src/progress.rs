// SPDX-License-Identifier: MIT OR Apache-2.0
//! How far it is, on standard error, if that is a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A progress bar, or none.
#[derive(Clone, Debug)]
pub struct Progress(ProgressBar);

impl Progress {
    /// None.
    #[must_use]
    pub fn hidden() -> Self {
        Self(ProgressBar::hidden())
    }

    /// One on standard error. It shows nothing if that is no terminal.
    #[must_use]
    pub fn stderr() -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(10));
        let style = "{prefix:>8} [{bar:32}] {bytes:>10} of {total_bytes} {binary_bytes_per_sec:>12} {eta:>4} left";
        // The template is a constant: if it were wrong, the default style is not.
        Self(bar.with_style(
            ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "),
        ))
    }

    /// Begins again, for `bytes` of something.
    pub fn begin(&self, what: &'static str, bytes: u64) {
        self.0.set_prefix(what);
        self.0.set_length(bytes);
        self.0.reset();
    }

    /// So many bytes more.
    pub fn add(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    /// Clears the line.
    pub fn end(&self) {
        self.0.finish_and_clear();
    }
}

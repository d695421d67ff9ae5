// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which ring: backend, mode, depth and block size.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use liburing_shm::{Backend, Builder, Features, Ring};
use serde::Serialize;

use crate::Error;
use crate::size::Bytes;

/// Where the kernel side is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// `/dev/sqfile` if it is there, else in this process.
    #[default]
    Auto,
    /// In this process.
    Embedded,
    /// A device node.
    Device(PathBuf),
}

impl FromStr for Choice {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "auto" => Self::Auto,
            "embedded" => Self::Embedded,
            path => Self::Device(path.into()),
        })
    }
}

/// Who drains the submission queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The doorbell does, in the caller's context.
    #[default]
    Caller,
    /// A worker, which the doorbell wakes.
    Worker,
    /// A thread that polls, and sleeps when idle.
    Poll,
}

/// How long the polling thread stays awake on an idle ring.
const POLL_IDLE: Duration = Duration::from_millis(2);

/// The shape of a ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingOptions {
    /// Where the kernel side is to be.
    pub backend: Choice,
    /// Who drains the submission queue.
    pub mode: Mode,
    /// Operations in flight at most.
    pub depth: u16,
    /// Bytes of one operation at most.
    pub block_bytes: u32,
}

impl Default for RingOptions {
    fn default() -> Self {
        Self { backend: Choice::Auto, mode: Mode::Caller, depth: 8, block_bytes: 256 << 10 }
    }
}

/// What block sizes are multiples of: the pages of the ring's buffers.
pub const BLOCK_UNIT: u32 = 4096;

impl RingOptions {
    /// The backend that was chosen.
    ///
    /// # Errors
    ///
    /// [`Error::Ring`] if a driver is refused.
    pub fn backend(&self) -> Result<Backend, Error> {
        Ok(match &self.backend {
            Choice::Auto => Backend::auto(sq_file::File::in_process())?,
            Choice::Embedded => Backend::embedded(sq_file::File::in_process())?,
            Choice::Device(path) => Backend::device(path),
        })
    }

    /// A ring of this shape, to be built on a backend.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if depth or block size are out of range.
    pub fn builder(&self) -> Result<Builder, Error> {
        if self.depth == 0 {
            return Err(Error::Refused("a depth of 0 does nothing: use 1 or more".into()));
        }
        if self.block_bytes == 0 || !self.block_bytes.is_multiple_of(BLOCK_UNIT) {
            let why = format!(
                "a block of {} bytes is no multiple of {BLOCK_UNIT}: the ring's buffers are pages",
                self.block_bytes
            );
            return Err(Error::Refused(why));
        }
        // Twice as many entries as operations: when others drain the queue, an operation can be complete before the slot of its
        // entry is given back, which happens once a batch.
        let builder = Ring::builder(u32::from(self.depth) * 2).pool(self.depth, self.block_bytes);
        Ok(match self.mode {
            Mode::Caller => builder,
            Mode::Worker => builder.worker(),
            Mode::Poll => builder.poll(POLL_IDLE),
        })
    }
}

/// What ring it was in the end.
#[derive(Clone, Debug, Serialize)]
pub struct Shape {
    /// A device node, or `embedded DRIVER`.
    pub backend: String,
    /// Whether the kernel side is in this process: then a doorbell is a function call and crosses nothing.
    pub embedded: bool,
    /// Who drains the submission queue.
    pub mode: Mode,
    /// Operations in flight at most.
    pub depth: u16,
    /// Bytes of one operation at most.
    pub block_bytes: u32,
}

impl Shape {
    pub(crate) fn new(options: &RingOptions, backend: &Backend, features: Features) -> Self {
        Self {
            backend: backend.describe(),
            embedded: features.contains(Features::EMBEDDED),
            mode: options.mode,
            depth: options.depth,
            block_bytes: options.block_bytes,
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = match self.mode {
            Mode::Caller => "drained by the caller",
            Mode::Worker => "drained by a worker",
            Mode::Poll => "drained by a polling thread",
        };
        let Self { backend, depth, block_bytes, .. } = self;
        let block = Bytes((*block_bytes).into());
        write!(f, "backend {backend}, {mode}, depth {depth}, blocks of {block}")?;
        if self.embedded {
            write!(
                f,
                "\n(embedded: the kernel side runs in this process; its doorbell is a function call, not a system call)"
            )?;
        }
        Ok(())
    }
}

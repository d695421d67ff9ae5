// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can go wrong, one variant a cause.

use std::fmt;
use std::io;
use std::path::PathBuf;

use sq_uapi::Errno;

use crate::ring::Full;

/// An error of a backend or a ring.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The device node cannot be opened.
    Open {
        /// The node.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Memory cannot be had or mapped.
    Map {
        /// Why.
        source: io::Error,
    },
    /// The ring's thread cannot be started.
    Thread {
        /// Why.
        source: io::Error,
    },
    /// A call was refused.
    Call {
        /// Which.
        what: &'static str,
        /// Why.
        errno: Errno,
    },
    /// The device reports a layout that cannot be: it is no sq device, or another version of one.
    Layout,
    /// An entry was not pushed.
    Push(PushError),
}

const TOO_LARGE: &str = " (fewer entries, or fewer and smaller buffers, take less)";

/// Why an entry was not pushed. Nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PushError {
    /// The queue is full: submit first.
    Full,
    /// The entry has 128 bytes and the ring's have 64.
    TooWide,
    /// The entry names a place in the pool that is not there.
    NoBuffer,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open { path, source } => {
                write!(f, "cannot open {}: {source}", path.display())?;
                match source.kind() {
                    io::ErrorKind::PermissionDenied => f.write_str(
                        " (nodes are 0600 by default: load the module with mode=, or change the node's owner)",
                    ),
                    io::ErrorKind::NotFound => f.write_str(" (is the module loaded?)"),
                    _ => Ok(()),
                }
            }
            Self::Map { source } => {
                write!(f, "cannot get the ring's memory: {source}")?;
                match source.kind() {
                    // An embedded ring's is a file.
                    io::ErrorKind::FileTooLarge => f.write_str(" (over the process's limit, see ulimit -f)"),
                    io::ErrorKind::OutOfMemory => f.write_str(TOO_LARGE),
                    _ => Ok(()),
                }
            }
            Self::Thread { source } => write!(f, "cannot start the ring's thread: {source}"),
            Self::Call { what, errno } => {
                write!(f, "{what}: {errno}")?;
                match (*what, *errno) {
                    (_, Errno::ENOTTY) => {
                        f.write_str(": this is no sq device, or of a module that is older than this program")
                    }
                    (_, Errno::E2BIG) => f.write_str(": the module is older than this program"),
                    ("setup", Errno::EINVAL) => f.write_str(": a size is out of range or a flag is unknown here"),
                    ("setup", Errno::ENOMEM) => f.write_str(TOO_LARGE),
                    ("setup", Errno::EAGAIN) => {
                        f.write_str(": there are as many polling threads as sq.ko's parameter poll_threads allows")
                    }
                    _ => Ok(()),
                }
            }
            Self::Layout => f.write_str("the device reports an impossible ring: it is another version of sq, or none"),
            Self::Push(push) => push.fmt(f),
        }
    }
}

impl fmt::Display for PushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => Full.fmt(f),
            Self::TooWide => f.write_str("the entry has 128 bytes: build the ring with wide_entries()"),
            Self::NoBuffer => f.write_str("the entry names bytes outside the ring's buffers"),
        }
    }
}

impl std::error::Error for PushError {}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Open { source, .. } | Self::Map { source } | Self::Thread { source } => Some(source),
            Self::Call { errno, .. } => Some(errno),
            Self::Push(push) => Some(push),
            Self::Layout => None,
        }
    }
}

impl Error {
    /// The error number, if it is one.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Call { errno, .. } => Some(*errno),
            Self::Open { source, .. } | Self::Map { source } | Self::Thread { source } => {
                source.raw_os_error().and_then(Errno::new)
            }
            Self::Layout | Self::Push(_) => None,
        }
    }
}

impl From<PushError> for Error {
    fn from(push: PushError) -> Self {
        Self::Push(push)
    }
}

impl From<Full> for PushError {
    fn from(_: Full) -> Self {
        Self::Full
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can go wrong, one variant a cause, and the exit code of each.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::size::Bytes;

/// Why a verb did not do what it was asked.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// Something about a file failed.
    Io {
        /// What was tried: a verb in the infinitive.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// At which byte, if it was a transfer.
        at: Option<u64>,
        /// Why.
        source: io::Error,
    },
    /// The ring failed, or could not be made.
    Ring(liburing_shm::Error),
    /// What was asked for is not done: the message says what to do instead.
    Refused(String),
    /// The destination has no room.
    NoSpace {
        /// The destination.
        path: PathBuf,
        /// Bytes that it was to hold.
        needs: u64,
        /// Bytes that its filesystem has left.
        free: Option<u64>,
    },
    /// The destination is a device that is too small.
    ShortDevice {
        /// The device.
        path: PathBuf,
        /// Its bytes.
        has: u64,
        /// Bytes that it was to hold.
        needs: u64,
    },
    /// A file has fewer or more bytes than it said it had.
    Resized {
        /// The file.
        path: PathBuf,
        /// Its bytes at first.
        expected: u64,
        /// Where it ended, or `None` if it went on.
        ended: Option<u64>,
    },
    /// A file was written to while it was copied.
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// Nothing is under way, and the work has not ended.
    Stuck,
    /// A copy is complete, and cannot have its name.
    Unnamed {
        /// What it was to be called.
        path: PathBuf,
        /// What it is called.
        left: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Two things that were to be the same are not.
    Differ {
        /// One.
        a: PathBuf,
        /// The other.
        b: PathBuf,
        /// How.
        how: Difference,
    },
    /// A block device was written in part.
    Incomplete {
        /// The device.
        path: PathBuf,
        /// Bytes that were written, not all of them from the front.
        copied: u64,
        /// What ended it.
        cause: Box<Error>,
    },
    /// A signal ended it.
    Interrupted {
        /// The signal's number.
        signal: i32,
        /// What is left behind, for people.
        left: String,
    },
}

/// How two files differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// In length.
    Size(u64, u64),
    /// In a block: where it begins, and the first byte that differs if a second look found one.
    Block {
        /// Where the block begins.
        block: u64,
        /// The first byte that differs.
        byte: Option<u64>,
    },
}

impl Error {
    /// A failure of `what` on `path`.
    pub fn io(what: &'static str, path: impl AsRef<Path>, source: io::Error) -> Self {
        Self::Io { what, path: path.as_ref().to_owned(), at: None, source }
    }

    /// The same, from rustix.
    pub fn os(what: &'static str, path: impl AsRef<Path>, errno: rustix::io::Errno) -> Self {
        Self::io(what, path, errno.into())
    }

    /// The exit code: 1 failed, 2 not asked properly, 3 not the same, 128 + n ended by signal n.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Refused(_) => 2,
            Self::Differ { .. } => 3,
            Self::Incomplete { cause, .. } => cause.exit_code(),
            Self::Interrupted { signal, .. } => u8::try_from(128 + signal).unwrap_or(255),
            _ => 1,
        }
    }

    /// The cause in one word, for machines.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => "no_space",
            Self::Io { .. } => "io",
            Self::Ring(_) => "ring",
            Self::Refused(_) => "refused",
            Self::NoSpace { .. } => "no_space",
            Self::ShortDevice { .. } => "short_device",
            Self::Resized { .. } => "resized",
            Self::Changed { .. } => "changed",
            Self::Stuck => "stuck",
            Self::Unnamed { .. } => "unnamed",
            Self::Differ { .. } => "differ",
            Self::Incomplete { cause, .. } => cause.kind(),
            Self::Interrupted { .. } => "interrupted",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { what, path, at, source } => {
                write!(f, "cannot {what} {}", path.display())?;
                if let Some(at) = at {
                    write!(f, " at byte {at}")?;
                }
                write!(f, ": {}{}", lower(source), hint(source))
            }
            Self::Ring(error) => write!(f, "the ring failed: {error}"),
            Self::Refused(why) => f.write_str(why),
            Self::NoSpace { path, needs, free } => {
                write!(f, "no room for {} at {}", Bytes(*needs), path.display())?;
                match free {
                    Some(free) if free < needs => {
                        write!(f, ": its filesystem has {} left; free some space", Bytes(*free))
                    }
                    _ => f.write_str(": free some space there, or raise the quota"),
                }
            }
            Self::ShortDevice { path, has, needs } => write!(
                f,
                "{} is too short: it has {has} bytes, {needs} are needed, {} are missing; nothing was written",
                path.display(),
                needs - has
            ),
            Self::Resized { path, expected, ended: Some(ended) } => write!(
                f,
                "{} ended at byte {ended}, it had {expected} bytes at first: it was changed meanwhile; try again",
                path.display()
            ),
            Self::Resized { path, expected, ended: None } => write!(
                f,
                "{} goes on after its {expected} bytes: it was changed meanwhile, or has no fixed size (as files in /proc)",
                path.display()
            ),
            Self::Changed { path } => write!(
                f,
                "{} was written to while it was copied, so the copy would be what it never was: stop its writer, or copy a snapshot",
                path.display()
            ),
            Self::Stuck => f.write_str(
                "nothing is under way and not all is done: no buffer is free, or no place for a file; please report it, this is a fault of sq-storage",
            ),
            Self::Unnamed { path, left, source } => write!(
                f,
                "the copy is complete, and cannot be called {}: {}{}; it is called {}",
                path.display(),
                lower(source),
                hint(source),
                left.display()
            ),
            Self::Differ { a, b, how } => {
                write!(f, "{} and {} differ: ", a.display(), b.display())?;
                match how {
                    Difference::Size(one, other) => write!(f, "{one} bytes and {other} bytes"),
                    Difference::Block { byte: Some(byte), .. } => write!(f, "first at byte {byte}"),
                    Difference::Block { block, byte: None } => {
                        write!(f, "the block at byte {block}, says its checksum; where in it, a second look did not find")
                    }
                }
            }
            Self::Incomplete { path, copied, cause } => write!(
                f,
                "{cause}; {} is no copy: {copied} bytes were written to it, not all of them from the front",
                path.display()
            ),
            Self::Interrupted { signal, left } => write!(f, "interrupted by signal {signal}: {left}"),
        }
    }
}

/// The system's words, without their capital and the number.
fn lower(source: &io::Error) -> String {
    let text = source.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => " (check its owner and mode, and those of its directory)",
        io::ErrorKind::NotFound => " (check the spelling)",
        io::ErrorKind::StorageFull => " (free some space there)",
        io::ErrorKind::QuotaExceeded => " (raise the quota, or free some space)",
        io::ErrorKind::FileTooLarge => " (over the process's limit, see ulimit -f, or the filesystem's)",
        io::ErrorKind::ResourceBusy => " (it is mounted, or in use by something else)",
        io::ErrorKind::ReadOnlyFilesystem => " (choose another place, or remount it)",
        _ if source.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error()) => {
            " (raise the limit, see ulimit -n)"
        }
        _ => "",
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } | Self::Unnamed { source, .. } => Some(source),
            Self::Ring(error) => Some(error),
            Self::Incomplete { cause, .. } => Some(&**cause),
            _ => None,
        }
    }
}

impl From<liburing_shm::Error> for Error {
    fn from(error: liburing_shm::Error) -> Self {
        Self::Ring(error)
    }
}

impl From<liburing_shm::safe::Refused> for Error {
    fn from(refused: liburing_shm::safe::Refused) -> Self {
        Self::Ring(refused.error.into())
    }
}

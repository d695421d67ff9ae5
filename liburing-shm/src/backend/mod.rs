// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where the kernel side of a ring is: behind a device, or in this process.

mod device;
#[cfg(feature = "embedded")]
mod embedded;
mod map;

use std::fmt;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::Arc;

use sq_uapi::{Mapped, SqQuery, SqSetup};

use crate::{Device, Error};

/// A kernel side to make rings on. Cheap to clone; one backend serves any number of rings.
#[derive(Clone)]
pub struct Backend(Arc<Kind>);

enum Kind {
    Device(PathBuf),
    #[cfg(feature = "embedded")]
    Embedded(embedded::Embedded),
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Backend").field(&self.describe()).finish()
    }
}

impl Backend {
    /// The device node of a loaded module, `/dev/sqNAME`.
    ///
    /// A forked child inherits no memory of a ring (LIFE-4), and what it allocates later may be at the same addresses: there a ring may be
    /// dropped, and must not be used.
    #[must_use]
    pub fn device(path: impl AsRef<Path>) -> Self {
        Self(Arc::new(Kind::Device(path.as_ref().to_owned())))
    }

    /// `driver`, in this process: no module and no privilege is needed, and no boundary is crossed.
    ///
    /// A ring's memory is a memfd, which counts as a file: a ring larger than `RLIMIT_FSIZE` is an [`Error::Map`]. A forked child does not
    /// inherit it (LIFE-4), see [`Backend::device`].
    ///
    /// # Errors
    ///
    /// [`Error::Call`] if the driver's name is longer than 15 bytes.
    #[cfg(feature = "embedded")]
    pub fn embedded<D: sq_driver::Driver>(driver: D) -> Result<Self, Error> {
        Ok(Self(Arc::new(Kind::Embedded(embedded::Embedded::new(driver)?))))
    }

    /// `/dev/sqNAME` if it is there (also if it may not be opened: that is then an error of the ring), else `driver` in this process.
    ///
    /// # Errors
    ///
    /// As [`Backend::embedded`].
    #[cfg(feature = "embedded")]
    pub fn auto<D: sq_driver::Driver>(driver: D) -> Result<Self, Error> {
        let path = PathBuf::from(format!("/dev/sq{}", D::NAME.to_string_lossy()));
        if path.exists() { Ok(Self::device(path)) } else { Self::embedded(driver) }
    }

    /// What it is, for people: a path, or `embedded NAME`.
    #[must_use]
    pub fn describe(&self) -> String {
        match &*self.0 {
            Kind::Device(path) => path.display().to_string(),
            #[cfg(feature = "embedded")]
            Kind::Embedded(embedded) => format!("embedded {}", embedded.name()),
        }
    }

    /// What it can do: versions, features, opcodes, limits.
    ///
    /// # Errors
    ///
    /// [`Error::Open`] or [`Error::Call`] of a device.
    pub fn query(&self) -> Result<SqQuery, Error> {
        let query = SqQuery { size: size_of::<SqQuery>() as u32, ..SqQuery::default() };
        match &*self.0 {
            Kind::Device(path) => device::query(path, query),
            #[cfg(feature = "embedded")]
            Kind::Embedded(embedded) => embedded.query(&query),
        }
    }

    /// Opens it without a ring, to issue one entry at a time.
    ///
    /// # Errors
    ///
    /// [`Error::Open`] of a device.
    pub fn open(&self) -> Result<Device, Error> {
        Ok(Device(match &*self.0 {
            Kind::Device(path) => device::alone(path)?,
            #[cfg(feature = "embedded")]
            Kind::Embedded(embedded) => embedded.open(),
        }))
    }

    pub(crate) fn setup(&self, setup: &mut SqSetup) -> Result<Opened, Error> {
        match &*self.0 {
            Kind::Device(path) => device::setup(path, setup),
            #[cfg(feature = "embedded")]
            Kind::Embedded(embedded) => embedded.setup(setup),
        }
    }
}

/// The kernel side of one open file, as the library calls it.
pub(crate) trait Door: Send + Sync + fmt::Debug {
    /// A call by its ioctl number. An empty `arg` is a null pointer.
    fn call(&self, number: u32, arg: &mut [u8]) -> Result<u32, sq_uapi::Errno>;
}

pub(crate) use device::Bell;

/// A ring that was set up: how to call it, and its memory as this half sees it.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) door: Box<dyn Door>,
    /// A device's doorbell: the shortest way to it.
    pub(crate) bell: Option<Bell>,
    pub(crate) mem: Mapped,
    /// Start of the pool, in this half's mapping.
    pub(crate) pool: Option<NonNull<u8>>,
    /// Unmaps when dropped; dropped after the door.
    pub(crate) _mappings: Mappings,
}

/// What keeps the user half's mappings.
#[derive(Debug)]
#[expect(dead_code, reason = "held for their drop")]
pub(crate) enum Mappings {
    Device(device::Maps),
    #[cfg(feature = "embedded")]
    Embedded(Arc<embedded::Memory>),
}

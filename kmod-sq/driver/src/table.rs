// SPDX-License-Identifier: MIT OR Apache-2.0
//! From a [`Driver`] to the C table, and from a C table to calls.

use core::ffi::{CStr, c_void};

use sq_uapi::Errno;

use crate::Driver;
use crate::abi::{RawOp, TABLE_FILES, TABLE_VERSION, Table};
use crate::issue::Op;
use crate::request::RequestId;

struct TableOf<D>(D);

impl<D: Driver> TableOf<D> {
    const TABLE: Table = Table {
        size: size_of::<Table>() as u32,
        version: TABLE_VERSION,
        name: D::NAME.as_ptr(),
        opcodes: D::OPCODES.bits(),
        flags: if D::FILES { TABLE_FILES } else { 0 },
        resv: 0,
        issue: issue::<D>,
        cancel: cancel::<D>,
        begin: if D::BATCHES { Some(begin::<D>) } else { None },
        commit: if D::BATCHES { Some(commit::<D>) } else { None },
        target_bytes: Some(target_bytes::<D>),
    };
}

/// The C table of a driver; its `data` is a `*const D`.
#[must_use]
pub const fn table<D: Driver>() -> &'static Table {
    &TableOf::<D>::TABLE
}

/// # Safety
///
/// `data` is a valid `*const D`, and `op` valid and exclusive until the call returns.
unsafe extern "C" fn issue<D: Driver>(data: *const c_void, op: *mut RawOp) -> i32 {
    // SAFETY: the contract.
    let driver = unsafe { &*data.cast::<D>() };
    // SAFETY: the contract.
    let op = unsafe { &mut *op };
    driver.issue(Op::from_raw(op)).into_raw()
}

/// # Safety
///
/// `data` is a valid `*const D`.
unsafe extern "C" fn cancel<D: Driver>(data: *const c_void, id: u64) {
    // SAFETY: the contract.
    unsafe { &*data.cast::<D>() }.cancel(RequestId::new(id));
}

/// # Safety
///
/// `data` is a valid `*const D`.
unsafe extern "C" fn begin<D: Driver>(data: *const c_void) {
    // SAFETY: the contract.
    unsafe { &*data.cast::<D>() }.begin();
}

/// # Safety
///
/// `data` is a valid `*const D`.
unsafe extern "C" fn commit<D: Driver>(data: *const c_void) {
    // SAFETY: the contract.
    unsafe { &*data.cast::<D>() }.commit();
}

/// # Safety
///
/// `data` is a valid `*const D`.
unsafe extern "C" fn target_bytes<D: Driver>(data: *const c_void) -> u64 {
    // SAFETY: the contract.
    unsafe { &*data.cast::<D>() }.target_bytes()
}

/// A driver as the framework calls it: a table and the data that goes with it.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// The table's, within reach.
    issue: unsafe extern "C" fn(*const c_void, *mut RawOp) -> i32,
    table: &'static Table,
    data: *const c_void,
}

// SAFETY: `Driver: Send + Sync`, and the contract of `Bound::new` asks the same of a driver in C.
unsafe impl Send for Bound {}
// SAFETY: as above.
unsafe impl Sync for Bound {}

impl Bound {
    /// Binds a table to its data.
    ///
    /// # Safety
    ///
    /// `data` is what the table's functions expect, they may be called with it from any thread, and both stay valid
    /// until the value and all its copies are gone.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the table has another version or size than this framework knows, or a name of no or more than 15 bytes.
    pub unsafe fn new(table: &'static Table, data: *const c_void) -> Result<Self, Errno> {
        if table.version != TABLE_VERSION || table.size as usize != size_of::<Table>() || table.resv != 0 {
            return Err(Errno::EINVAL);
        }
        if table.flags & !TABLE_FILES != 0 {
            return Err(Errno::EINVAL);
        }
        let bound = Self { issue: table.issue, table, data };
        if bound.name().is_empty() || bound.name().count_bytes() > 15 { Err(Errno::EINVAL) } else { Ok(bound) }
    }

    /// Starts an operation: its result, or [`DEFERRED`](crate::abi::DEFERRED).
    ///
    /// # Safety
    ///
    /// What `op` points to is what its fields say, and stays until the call returns.
    #[inline]
    pub unsafe fn issue(&self, op: &mut RawOp) -> i32 {
        // SAFETY: the contract, and that of `new`; `op` is exclusive.
        unsafe { (self.issue)(self.data, op) }
    }

    /// Makes a request finish.
    pub fn cancel(&self, id: u64) {
        // SAFETY: the contract of `new`.
        unsafe { (self.table.cancel)(self.data, id) }
    }

    /// Whether the driver wants to know of batches.
    #[must_use]
    pub const fn batches(&self) -> bool {
        self.table.begin.is_some() || self.table.commit.is_some()
    }

    /// Before a batch.
    pub fn begin(&self) {
        if let Some(begin) = self.table.begin {
            // SAFETY: the contract of `new`.
            unsafe { begin(self.data) }
        }
    }

    /// After a batch.
    #[inline]
    pub fn commit(&self) {
        if let Some(commit) = self.table.commit {
            // SAFETY: the contract of `new`.
            unsafe { commit(self.data) }
        }
    }

    /// Bytes of the target, or 0.
    #[must_use]
    pub fn target_bytes(&self) -> u64 {
        // SAFETY: the contract of `new`.
        self.table.target_bytes.map_or(0, |f| unsafe { f(self.data) })
    }

    /// Bit n: opcode n is taken.
    #[must_use]
    pub const fn opcodes(&self) -> u64 {
        self.table.opcodes
    }

    /// Whether `fd` names a file.
    #[must_use]
    pub const fn files(&self) -> bool {
        self.table.flags & TABLE_FILES != 0
    }

    /// The driver's name.
    #[must_use]
    pub fn name(&self) -> &'static CStr {
        // SAFETY: a table's name is NUL-terminated and static.
        unsafe { CStr::from_ptr(self.table.name) }
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! A kernel side with the bug that this project is about: it validates an entry, and then uses the entry, not the copy that it
//! validated. To show that the checkers, a fuzzer and an attacker find it.
//!
//! The ring is the real one. Between it and the driver stands a table that puts a second look at the slot in place of the private
//! copy. It is in this crate only, which nothing that is shipped depends on, and no feature leads to it.

use std::cell::RefCell;
use std::ffi::c_void;
use std::marker::PhantomData;
use std::rc::Rc;

use sq_driver::Driver;
use sq_driver::abi::{RawOp, Table};

/// Looks at the slot of the entry that is being issued.
pub type Look = Rc<dyn Fn() -> [u64; 8]>;

thread_local!(static LOOK: RefCell<Option<Look>> = const { RefCell::new(None) });

/// Until it is called again, drivers of [`table`]s see what `look` does; without one they see the copy.
pub fn look_again(look: Option<Look>) {
    LOOK.set(look);
}

/// The table of a driver, with the bug.
#[must_use]
pub const fn table<D: Driver>() -> &'static Table {
    &Vulnerable::<D>::TABLE
}

struct Vulnerable<D>(PhantomData<D>);

impl<D: Driver> Vulnerable<D> {
    const HONEST: &'static Table = sq_driver::table::<D>();
    const TABLE: Table = Table {
        issue: issue::<D>,
        size: Self::HONEST.size,
        version: Self::HONEST.version,
        name: Self::HONEST.name,
        opcodes: Self::HONEST.opcodes,
        flags: Self::HONEST.flags,
        resv: Self::HONEST.resv,
        cancel: Self::HONEST.cancel,
        begin: Self::HONEST.begin,
        commit: Self::HONEST.commit,
        target_bytes: Self::HONEST.target_bytes,
    };
}

/// # Safety
///
/// As the table's `issue`.
unsafe extern "C" fn issue<D: Driver>(data: *const c_void, op: *mut RawOp) -> i32 {
    if let Some(look) = LOOK.with_borrow(Clone::clone) {
        let live = look();
        // SAFETY: the contract: valid and exclusive until this returns.
        let sqe = unsafe { &mut (*op).sqe };
        sqe[..8].copy_from_slice(&live);
    }
    // SAFETY: the contract.
    unsafe { (Vulnerable::<D>::HONEST.issue)(data, op) }
}

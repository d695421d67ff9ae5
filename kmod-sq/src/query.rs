// SPDX-License-Identifier: MIT OR Apache-2.0
//! QUERY: what a device can do, before there is a ring.

use sq_driver::Bound;
use sq_uapi::consts::{ABI_VERSION, features, limit, sqe_flags};
use sq_uapi::{Errno, SqQuery};

use crate::host::Abilities;
use crate::parse::Accepts;
use crate::register;

/// Fills in a QUERY about `driver` in a home.
///
/// # Errors
///
/// `EINVAL` if what the kernel side fills in, a flag or a reserved field is not zero.
pub fn query(driver: &Bound, home: &Abilities, query: &SqQuery) -> Result<SqQuery, Errno> {
    if *query != (SqQuery { size: query.size, ..SqQuery::default() }) {
        return Err(Errno::EINVAL);
    }
    let mut name = [0u8; 16];
    for (to, from) in name.iter_mut().zip(driver.name().to_bytes()).take(15) {
        *to = *from;
    }
    let max_commands = if home.features & features::URING_CMD == 0 { 0 } else { limit::COMMANDS };
    let files = if driver.files() { features::FILES } else { 0 };
    let fixed_file = if driver.files() { sqe_flags::FIXED_FILE } else { 0 };
    Ok(SqQuery {
        size: query.size,
        flags: 0,
        abi_version: ABI_VERSION,
        sqe_flags: u32::from(sqe_flags::ASYNC | sqe_flags::CQE_SKIP_SUCCESS | fixed_file),
        features: features::KERNEL_RDONLY | features::ISSUE | features::BUF_POOL | files | home.features,
        setup_flags: home.setup_flags,
        enter_flags: home.enter_flags,
        opcodes: Accepts::new(driver.opcodes(), driver.files()).opcodes(),
        register_ops: register::OPS,
        max_sq_entries: limit::SQ_ENTRIES,
        max_cq_entries: limit::CQ_ENTRIES,
        max_inflight: limit::INFLIGHT,
        max_iov: limit::IOV,
        max_chain: 0,
        max_files: limit::FILES,
        max_bufs: limit::BUFS,
        max_buf_bytes: limit::BUF_BYTES,
        max_pool_bytes: limit::POOL_BYTES,
        target_bytes: driver.target_bytes(),
        driver: name,
        max_commands,
        resv0: 0,
        resv: [0; 3],
    })
}

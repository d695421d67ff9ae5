// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a backend can do.

use std::fmt;

use liburing_shm::{Features, SqQuery, SqeFlags};
use serde::Serialize;

use crate::Error;
use crate::report::Table;
use crate::ring::RingOptions;
use crate::size::Bytes;

/// Names of the opcodes that there are: io_uring's numbers.
const OPCODES: [(u8, &str); 10] = [
    (0, "NOP"),
    (1, "READV"),
    (2, "WRITEV"),
    (3, "FSYNC"),
    (4, "READ_FIXED"),
    (5, "WRITE_FIXED"),
    (14, "ASYNC_CANCEL"),
    (22, "READ"),
    (23, "WRITE"),
    (46, "CMD"),
];

/// A backend's answer to QUERY.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// A device node, or `embedded DRIVER`.
    pub backend: String,
    /// Whether the kernel side runs in this process.
    pub embedded: bool,
    /// The driver's name.
    pub driver: String,
    /// Version of the ABI.
    pub abi_version: u32,
    /// What it has.
    pub features: Vec<String>,
    /// Flags that entries may have.
    pub entry_flags: Vec<String>,
    /// Opcodes that it takes.
    pub opcodes: Vec<Opcode>,
    /// Its limits.
    pub limits: Vec<Limit>,
}

/// An opcode.
#[derive(Clone, Debug, Serialize)]
pub struct Opcode {
    /// Its number.
    pub number: u8,
    /// Its name, io_uring's.
    pub name: String,
}

/// A limit.
#[derive(Clone, Debug, Serialize)]
pub struct Limit {
    /// Of what.
    pub name: &'static str,
    /// At most.
    pub value: u64,
    /// Whether it counts bytes.
    pub bytes: bool,
}

/// Asks.
///
/// # Errors
///
/// [`Error::Ring`] if there is no such device, or it does not answer.
pub fn run(options: &RingOptions) -> Result<Report, Error> {
    let backend = options.backend()?;
    let query = backend.query()?;
    let features = Features::from_bits_truncate(query.features);
    let name: Vec<u8> = query.driver.iter().copied().take_while(|byte| *byte != 0).collect();
    let entry_flags = SqeFlags::from_bits_truncate(query.sqe_flags as u8);
    Ok(Report {
        backend: backend.describe(),
        embedded: features.contains(Features::EMBEDDED),
        driver: String::from_utf8_lossy(&name).into_owned(),
        abi_version: query.abi_version,
        features: features.iter_names().map(|(name, _)| name.to_owned()).collect(),
        entry_flags: entry_flags.iter_names().map(|(name, _)| name.to_owned()).collect(),
        opcodes: (0u8..64).filter(|n| query.opcodes >> n & 1 != 0).map(opcode).collect(),
        limits: limits(&query),
    })
}

fn opcode(number: u8) -> Opcode {
    let name = OPCODES.iter().find(|(n, _)| *n == number).map_or("unknown to this program", |(_, name)| name);
    Opcode { number, name: name.to_owned() }
}

fn limits(query: &SqQuery) -> Vec<Limit> {
    let count = |name, value: u32| Limit { name, value: value.into(), bytes: false };
    let bytes = |name, value| Limit { name, value, bytes: true };
    vec![
        count("submission entries", query.max_sq_entries),
        count("completion entries", query.max_cq_entries),
        count("requests in flight", query.max_inflight),
        count("segments of a vectored operation", query.max_iov),
        count("entries of a chain (0: no links)", query.max_chain),
        count("registered files", query.max_files),
        count("buffers of a ring", query.max_bufs),
        bytes("bytes of a buffer", query.max_buf_bytes.into()),
        bytes("bytes of all buffers", query.max_pool_bytes),
        bytes("bytes of the target (0: it has no size of its own)", query.target_bytes),
    ]
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.embedded { "in this process: no module is used" } else { "a device of a loaded module" };
        writeln!(f, "backend      {} ({place})", self.backend)?;
        writeln!(f, "driver       {}", self.driver)?;
        writeln!(f, "ABI version  {}", self.abi_version)?;
        writeln!(f, "features     {}", self.features.join(" "))?;
        writeln!(f, "entry flags  {}\n", self.entry_flags.join(" "))?;
        let mut opcodes = Table::new(&["opcode", "number"]);
        for opcode in &self.opcodes {
            opcodes.row([opcode.name.clone(), opcode.number.to_string()]);
        }
        let mut limits = Table::new(&["limit", "at most"]);
        for limit in &self.limits {
            let value = if limit.bytes { Bytes(limit.value).to_string() } else { limit.value.to_string() };
            limits.row([limit.name.to_owned(), value]);
        }
        write!(f, "{opcodes}\n{limits}")
    }
}

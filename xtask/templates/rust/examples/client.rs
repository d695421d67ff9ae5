// SPDX-License-Identifier: MIT OR Apache-2.0
//! A client in Rust: of the module if it is loaded, else of the driver in this process.

use liburing_shm::opcode::Cmd;
use liburing_shm::{Backend, Ring};
use sq_sample::{Add, Device, Later};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let backend = Backend::auto(Device)?;
    println!("on {}", backend.describe());
    let mut ring = Ring::builder(8).build(&backend)?;
    ring.submission().push(Cmd::new(&Later { value: 7, delay_ms: 10 }).build().user_data(1))?;
    ring.submission().push(Cmd::new(&Add { a: 40, b: 2 }).build().user_data(2))?;
    ring.submit_and_wait(2)?;
    for done in ring.completion().reap() {
        println!("{}: {}", done.user_data(), done.result()?);
    }
    Ok(())
}

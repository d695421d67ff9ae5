// SPDX-License-Identifier: MIT OR Apache-2.0
//! A client in Rust.

use liburing_shm::opcode::{Cmd, command};
use liburing_shm::{Backend, Ring};

command! {
    /// `struct sample_add`
    struct Add = 0 { a: u32, b: u32 }

    /// `struct sample_later`
    struct Later = 1 { value: i32, delay_ms: u32 }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let backend = Backend::device("/dev/sqsample");
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

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the fuzzers found worth keeping, run as ordinary tests: fuzz/seeds, and `SQ_CORPUS` (a folder like it) if that is set.
//!
//! SNAP-1, SUB-2, CQ-1, CQ-5, IDX-3, CAN-1, LIFE-1, SEC-1: what the targets check.
#![cfg(not(loom))]

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

use arbitrary::{Arbitrary, Unstructured};
use sq_conformance::checkers::{calls, doors, entries, program::Program, world};

/// Runs every input of a target. A folder of artifacts does as well: `SQ_CORPUS=fuzz/artifacts`.
fn replay<T: for<'a> Arbitrary<'a>>(target: &str, run: impl Fn(T)) {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds");
    let more = std::env::var_os("SQ_CORPUS").map(PathBuf::from);
    let mut count = 0;
    for folder in [Some(kept.clone()), more].into_iter().flatten() {
        let Ok(files) = fs::read_dir(folder.join(target)) else { continue };
        for file in files {
            let path = file.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            // Captured, and so shown only if it fails.
            println!("{}", path.display());
            match T::arbitrary(&mut Unstructured::new(&bytes)) {
                Ok(input) => run(input),
                // A fuzzer may keep what is too short.
                Err(_) if folder != kept => continue,
                Err(error) => panic!("a seed is no input any more: {error}"),
            }
            count += 1;
        }
    }
    if count == 0 && std::env::var_os("SQ_BACKEND").is_some() {
        println!("SKIP: a guest has no fuzz/seeds");
        return;
    }
    assert!(count > 0, "fuzz/seeds/{target} has no inputs");
}

#[test]
fn entry_parser() {
    let formed = Cell::new(0);
    replay("entry_parser", |input| formed.set(formed.get() + u32::from(entries::check(&input))));
    let guest = std::env::var_os("SQ_BACKEND").is_some();
    assert!(guest || formed.get() > 0, "fuzz/seeds/entry_parser has no entry that is in order");
}

#[test]
fn ring_calls() {
    replay("ring_calls", |program: Program| {
        world::run(program);
    });
}

#[test]
fn doors() {
    replay("doors", |visit| {
        doors::run(&visit);
    });
}

#[test]
fn uapi() {
    replay("uapi", |session| calls::run(&session));
}

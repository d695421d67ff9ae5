// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every benchmark, in one program and one run: here, and in a guest on the real module.
//!
//!     cargo bench                         everything once, some minutes
//!     cargo bench -- 'null operation'     one group, or any part of a row's name
//!     cargo bench -- --quick              everything, with less patience
//!     cargo xtask bench                   everything three times, kept for docs/performance.md
//!     cargo test -p sq-bench --benches    each row once, to see that it works
//!
//! A row's name says in brackets what each of its operations, or batches, crosses: a function call, another thread, a system
//! call. An embedded row crosses no system call: it is the queue's own cost, not that of entering a kernel. Rows that are to be
//! compared stand next to each other, in one batch size after the other, so that whatever the machine does besides is done to all.
//!
//! What this host has not got is skipped, with a line `SKIP: what: why`. What is not a time an operation is printed as
//! `figure,GROUP,ROW,PARAMETER,WHAT,VALUE`.

mod host;
mod many;
mod null;
mod payload;
mod queue;
mod snapshot;
mod steady;
mod storage;
mod wakeup;

use std::time::Duration;

use criterion::Criterion;

use host::Host;

fn main() {
    let host = Host::look();
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(40))
        .measurement_time(Duration::from_millis(160))
        .sample_size(20)
        .nresamples(2000)
        .without_plots()
        .configure_from_args();
    null::rows(&mut criterion, &host);
    steady::rows(&mut criterion, &host);
    snapshot::rows(&mut criterion, &host);
    payload::rows(&mut criterion, &host);
    wakeup::rows(&mut criterion, &host);
    many::rows(&mut criterion, &host);
    storage::rows(&mut criterion, &host);
    criterion.final_summary();
}

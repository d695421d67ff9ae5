// SPDX-License-Identifier: MIT OR Apache-2.0
//! What does not load, and what is said then: tests/outsider asks for what sq.ko refuses; modules without the right sq.ko, and
//! modules in use.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::guest::{Guest, Job};
use crate::ctx::Ctx;
use crate::kernel::Kernel;
use crate::module;

const TIMEOUT: Duration = Duration::from_secs(60);

/// refuses WHAT PATTERN COMMAND..: the command fails, and it or the kernel's log says so: once more than the log did before.
const BEGIN: &str = r#"
refuses() {
    what=$1 pattern=$2
    shift 2
    before=$(dmesg | grep -c "$pattern")
    if "$@" 2>/tmp/said; then echo "$what: $* succeeded"; exit 1; fi
    dmesg >>/tmp/said
    [ $(grep -c "$pattern" /tmp/said) -gt $before ] || { echo "$what: nobody says '$pattern':"; tail -5 /tmp/said; exit 1; }
}
"#;

const TABLES: &str = r#"
outsider="insmod /w/sq_outsider.ko"
$outsider && [ -c /dev/sqoutsider ] && rmmod sq_outsider || exit 1
again="version [0-9]* of [0-9]* bytes, sq.ko has version [0-9]* of [0-9]*: rebuild sq_outsider with the headers of this sq.ko"
refuses "table version" "sq: sq_outsider has driver table $again" $outsider ask=version
refuses "table size" "sq: sq_outsider has driver table $again" $outsider ask=size
refuses "name" "sq: sq_outsider: a driver's name is 1 to 15 of a-z, 0-9 and _" $outsider ask=name
refuses "flags" "sq: sq_outsider: issue or cancel is missing, or a reserved bit is set (flags 0xfffffffe)" $outsider ask=flags
refuses "cancel" "sq: sq_outsider: issue or cancel is missing, or a reserved bit is set (flags 0x0)" $outsider ask=cancel
refuses "mode" "sq: sq_outsider: mode 01777 is no mode of a device node" $outsider mode=01777
owner="sq: sq_outsider: /dev/sqnull belongs to module sq_null: unload that one first, or give this driver another name"
refuses "a taken name" "File exists" $outsider ask=taken
refuses "a taken name" "$owner" $outsider ask=taken
[ -c /dev/sqnull ] && [ ! -e /sys/module/sq_outsider ]
"#;

/// modprobe would load sq.ko first, which insmod does not.
const WRONG_SQ: &str = r#"
grep -q "vermagic=.*modversions" /lib/modules/sq.ko || { echo "SKIP: a kernel without modversions"; exit 77; }
refuses "another sq.ko" "sq_outsider: disagrees about version of symbol sq_driver_register" insmod /w/foreign.ko
"#;

const ORDER: &str = r#"
rmmod sq_file sq_ram sq_null sq || exit 1
refuses "no sq.ko" "sq_null: Unknown symbol sq_driver_register" insmod /lib/modules/sq_null.ko
for module in sq sq_null sq_ram sq_file; do insmod /lib/modules/$module.ko || exit 1; done
"#;

const IN_USE: &str = r#"
exec 3</dev/sqnull
refuses "an open node" "temporarily unavailable" rmmod sq_null
refuses "a driver" "temporarily unavailable" rmmod sq
[ "$(cat /sys/module/sq_null/refcnt)" = 1 ] || exit 1
exec 3<&-
rmmod sq_null && insmod /lib/modules/sq_null.ko
"#;

/// Adds the jobs, for a guest that has loaded `modules`, which stay loaded.
pub(super) fn jobs(ctx: &Ctx, kernel: Kernel, guest: &mut Guest, modules: &Path) -> Result<()> {
    let outsider = module::build_outsider(ctx, kernel, modules)?;
    for (name, module) in [("sq_outsider.ko", &outsider.right), ("foreign.ko", &outsider.foreign)] {
        let data = fs::read(module).with_context(|| format!("cannot read {}", module.display()))?;
        guest.files.add(&format!("w/{name}"), data, 0o644);
    }
    for (name, line) in [
        ("refused: tables of drivers", TABLES),
        ("refused: the symbols of another sq.ko", WRONG_SQ),
        ("refused: a driver before sq.ko", ORDER),
        ("refused: unloading what is in use", IN_USE),
    ] {
        guest.jobs.push(Job::new(name, format!("{BEGIN}{line}"), TIMEOUT));
    }
    Ok(())
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What was installed, loaded and used: in a guest, and in one with Secure Boot.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};

use super::{KERNEL, WAYS};
use crate::ctx::Ctx;
use crate::vm::{Guest, Job, Owner, storage_client, summarise};

const TIMEOUT: Duration = Duration::from_secs(120);

/// The modules of one way, from the first insmod to the last rmmod.
const USE: &str = r#"set -e
cd /lib/modules/$way
for module in sq sq_null sq_ram sq_file; do insmod $module.ko; done
# The drivers from outside are there if DKMS built them.
if [ $way = dkms ]; then
    for driver in outrust outc; do
        insmod sq_$driver.ko
        test -c /dev/sq$driver
        rmmod sq_$driver
    done
fi
mkdir -p /tmp/from /tmp/to && cp *.ko /tmp/from
$client --json demo --from /tmp/from --to /tmp/to >/tmp/report
grep -q '"backend": "/dev/sqfile"' /tmp/report
grep -q '"verified": true' /tmp/report
# The last worker's reference is soon gone, not at once.
for module in sq_file sq_ram sq_null sq; do
    tries=0
    until rmmod $module; do
        tries=$((tries + 1))
        [ $tries -lt 50 ] || exit 1
        sleep 0.1
    done
done
"#;

/// As docs/install.md has the messages.
const UNSIGNED: &str = r#"set -e
mount -t securityfs securityfs /sys/kernel/security
grep -F '[integrity]' /sys/kernel/security/lockdown
! insmod /lib/modules/make/sq.ko 2>said
grep "Key was rejected by service" said
dmesg | grep "Loading of unsigned module is rejected"
"#;

const UNKNOWN: &str = r#"set -e
! insmod /lib/modules/deb/sq.ko 2>said
grep "Key was rejected by service" said
dmesg | grep "Loading of module with unavailable key is rejected"
"#;

/// Boots both with the modules in `out`, a folder for each of [`WAYS`]; returns the tables of their jobs.
///
/// # Errors
/// With the table, when a job failed.
pub(super) fn boot(ctx: &Ctx, out: &Path, owner: &Owner) -> Result<String> {
    let using = |way: &str| format!("way={way}\n{USE}");
    let plain =
        guest(ctx, out, &[("what make installed", using("make")), ("what the package installed", using("deb"))])?;
    let jobs = [
        ("Secure Boot: what make installed is refused", UNSIGNED.to_owned()),
        ("Secure Boot: what DKMS signed with its own key is refused", UNKNOWN.to_owned()),
        ("Secure Boot: what DKMS signed with the owner's key", using("dkms")),
    ];
    let mut secured = guest(ctx, out, &jobs)?;
    owner.secure(&mut secured)?;
    let mut tables = String::new();
    for guest in [plain, secured] {
        let summary = summarise(KERNEL, &guest.boot(ctx)?);
        if summary.failed > 0 {
            bail!("{}", summary.table);
        }
        tables.push_str(&format!("{}\n", summary.table));
    }
    Ok(tables)
}

fn guest(ctx: &Ctx, out: &Path, jobs: &[(&str, String)]) -> Result<Guest> {
    let mut guest = Guest::new(ctx, KERNEL)?;
    let client = guest.files.add_program(&storage_client(ctx)?)?;
    for way in WAYS {
        for entry in fs::read_dir(out.join(way))? {
            let module = entry?.path();
            let name = module.file_name().unwrap_or_default().to_string_lossy().into_owned();
            guest.files.add(&format!("lib/modules/{way}/{name}"), fs::read(&module)?, 0o644);
        }
    }
    for (name, line) in jobs {
        guest.jobs.push(Job::new(name, format!("client={client}\n{line}"), TIMEOUT));
    }
    Ok(guest)
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! From the checkout to somebody's machine: the source archive, make, DKMS, the Debian package.

mod clean;
pub(crate) mod deb;
pub(crate) mod dist;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::ctx::Ctx;
use crate::kernel::Kernel;
use crate::process::run;
use crate::vm::{Guest, Job, storage_client, summarise};
use clean::{Clean, Session};

const SCRIPT: &str = include_str!("clean.sh");
/// The ways by which [`SCRIPT`] installs.
const WAYS: [&str; 3] = ["make", "dkms", "deb"];
const TIMEOUT: Duration = Duration::from_secs(120);

/// `cargo xtask install-test`
pub(crate) fn print_tested(ctx: &Ctx) -> Result<ExitCode> {
    println!("{}", test(ctx)?);
    Ok(ExitCode::SUCCESS)
}

/// Packs, installs in a clean Debian without network in each of [`WAYS`], removes, and loads and uses in a guest what was built.
///
/// # Errors
/// [`crate::test::Missing`] when this user is not root.
pub(crate) fn test(ctx: &Ctx) -> Result<String> {
    let kernel = Kernel::V6_12;
    let clean = Clean::new(ctx)?;
    let tarball = dist::make(ctx)?;
    let again = scratch(ctx, "dist")?;
    dist::check_reproducible(&tarball, &again.path)?;
    let package = deb::make(ctx, &tarball)?;

    let build = kernel.headers(ctx)?;
    let release = build.file_name().and_then(|name| name.to_str()?.strip_prefix("linux-headers-"));
    let dir = scratch(ctx, "install")?;
    for lang in ["rust", "c"] {
        let mut new = Command::new(std::env::current_exe()?);
        new.args(["new-driver", &format!("out{lang}"), "--lang", lang, "--dir"]).arg(&dir.path);
        run("new-driver", &mut new)?;
    }
    let session = Session {
        script: SCRIPT,
        inputs: vec![tarball.path.clone(), package.clone(), dir.path.join("outrust"), dir.path.join("outc")],
        release: release.context("headers are called linux-headers-RELEASE")?,
        build: &build,
        version: &tarball.version,
    };
    clean.run(&dir, &session)?;

    let mut guest = Guest::new(ctx, kernel)?;
    let client = guest.files.add_program(&storage_client(ctx)?)?;
    for way in WAYS {
        for entry in fs::read_dir(dir.path.join("out").join(way))? {
            let module = entry?.path();
            let name = module.file_name().unwrap_or_default().to_string_lossy().into_owned();
            guest.files.add(&format!("lib/modules/{way}/{name}"), fs::read(&module)?, 0o644);
        }
        let line = format!("way={way} client={client}\n{USE}");
        guest.jobs.push(Job::new(&format!("load and use what {way} installed"), line, TIMEOUT));
    }
    guest.jobs.push(Job::new("unsigned modules under lockdown", LOCKDOWN.to_owned(), TIMEOUT));
    let summary = summarise(kernel, &guest.boot(ctx)?.jobs);
    if summary.failed > 0 {
        bail!("{}", summary.table);
    }
    Ok(format!("{}\n{}\n{}", dist::describe(&tarball.path)?, dist::describe(&package)?, summary.table))
}

/// The modules of one way, from the first insmod to the last rmmod.
const USE: &str = r#"set -e
cd /lib/modules/$way
for module in sq sq_null sq_ram sq_file; do insmod $module.ko; done
for driver in outrust outc; do
    [ ! -e sq_$driver.ko ] || { insmod sq_$driver.ko && test -c /dev/sq$driver && rmmod sq_$driver; }
done
mkdir -p /tmp/from /tmp/to && cp *.ko /tmp/from
$client --json demo --from /tmp/from --to /tmp/to >/tmp/report
grep -q '"backend": "/dev/sqfile"' /tmp/report
grep -q '"verified": true' /tmp/report
rmmod sq_file sq_ram sq_null sq
"#;

/// Last, since it cannot be undone. DKMS signed the second with a key that this kernel does not know.
const LOCKDOWN: &str = r#"
lockdown=/sys/kernel/security/lockdown
mount -t securityfs securityfs /sys/kernel/security && [ -w $lockdown ] || { echo "no lockdown in this kernel"; exit 77; }
echo integrity >$lockdown || exit 1
! insmod /lib/modules/make/sq.ko || exit 1
dmesg | grep "Lockdown: insmod: unsigned module loading is restricted" || exit 1
! insmod /lib/modules/dkms/sq.ko || exit 1
"#;

/// A folder of the cache for one run, which goes with this.
pub(crate) struct Scratch {
    path: PathBuf,
}

pub(crate) fn scratch(ctx: &Ctx, name: &str) -> Result<Scratch> {
    let path = ctx.cache.join("run").join(format!("{name}-{}", std::process::id()));
    fs::create_dir_all(&path)?;
    Ok(Scratch { path })
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Packages: what is missing is installed when we may, and otherwise named with the exact command.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, Once, PoisonError};

use anyhow::{Context, Result, bail};

use crate::process::{found, run, stdout};

/// Another apt may be at work.
const WAIT: [&str; 2] = ["-o", "DPkg::Lock::Timeout=300"];

static KERNEL_PACKAGES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Makes sure that each of `packages` is installed.
///
/// # Errors
/// Names the exact command when this user may not install packages.
pub(crate) fn ensure(packages: &[&str]) -> Result<()> {
    let missing: Vec<&str> = packages.iter().copied().filter(|p| !installed(p)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let manual = format!("apt-get update && apt-get install -y --no-install-recommends {}", missing.join(" "));
    if !found("apt-get") {
        bail!(
            "this machine has no apt-get; what needs it is for Debian 12, of which the guests' kernels are, and wants: {}",
            missing.join(" ")
        );
    }
    if !may_install() {
        bail!("missing packages, and no root or passwordless sudo to install them. Run as root:\n  {manual}");
    }
    update();
    let mut command = as_root("apt-get");
    command.args(WAIT).args(["install", "-y", "--no-install-recommends"]).args(&missing);
    command.env("DEBIAN_FRONTEND", "noninteractive");
    run(&format!("installing {}", missing.join(" ")), &mut command).with_context(|| format!("by hand: {manual}"))?;
    Ok(())
}

/// Real packages with kernel images or headers. Asking apt takes a second, so it is asked once a run.
pub(crate) fn kernel_packages() -> Result<Vec<String>> {
    let mut known = KERNEL_PACKAGES.lock().unwrap_or_else(PoisonError::into_inner);
    if known.is_empty() {
        let search = ["search", "--names-only", "^linux-(image|headers)-[0-9]"];
        let text = stdout(Command::new("apt-cache").args(search))?;
        *known = text.lines().filter_map(|l| l.split_whitespace().next()).map(str::to_owned).collect();
    }
    Ok(known.clone())
}

/// The newest version of `package`.
pub(crate) fn version(package: &str) -> Result<String> {
    let text = stdout(Command::new("apt-cache").args(["show", "--no-all-versions", package]))?;
    let line = text.lines().find_map(|l| l.strip_prefix("Version: "));
    Ok(line.with_context(|| format!("apt knows no version of {package}"))?.to_owned())
}

/// The packages that `package` depends on, first alternatives only.
pub(crate) fn depends(package: &str) -> Result<Vec<String>> {
    let text = stdout(Command::new("apt-cache").args(["show", "--no-all-versions", package]))?;
    let line = text.lines().find_map(|l| l.strip_prefix("Depends: ")).unwrap_or_default();
    Ok(line.split(',').filter_map(|d| d.split_whitespace().next()).map(str::to_owned).collect())
}

/// Downloads `packages` and unpacks them into `dir`; needs no root.
pub(crate) fn unpack(packages: &[String], dir: &Path) -> Result<()> {
    let debs = dir.join("debs");
    fs::create_dir_all(&debs)?;
    let label = format!("downloading {}", packages.first().map_or("", String::as_str));
    let mut download = Command::new("apt-get");
    // The unprivileged _apt user cannot write to a private cache; apt only warns, at length.
    download.args(["-o", "APT::Sandbox::User=root", "download"]).args(packages).current_dir(&debs);
    run(&label, &mut download)?;
    for entry in fs::read_dir(&debs)? {
        let mut extract = Command::new("dpkg-deb");
        extract.arg("-x").arg(entry?.path()).arg(dir);
        run("unpacking", &mut extract)?;
    }
    fs::remove_dir_all(&debs)?;
    Ok(())
}

/// `apt-get update`, at most once a run; failing only means that the lists stay as old as they are.
pub(crate) fn update() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if may_install() {
            if let Err(error) = run("apt-get update", as_root("apt-get").arg("update")) {
                eprintln!("note: {error:#}");
            }
            KERNEL_PACKAGES.lock().unwrap_or_else(PoisonError::into_inner).clear();
        } else {
            eprintln!("note: package lists may be old; as root: apt-get update");
        }
    });
}

fn installed(package: &str) -> bool {
    let query = Command::new("dpkg-query").args(["-W", "-f=${Status}", package]).stderr(Stdio::null()).output();
    query.is_ok_and(|o| String::from_utf8_lossy(&o.stdout).contains("install ok installed"))
}

pub(crate) fn is_root() -> bool {
    stdout(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}

fn may_install() -> bool {
    let sudo = || Command::new("sudo").args(["-n", "true"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    is_root() || (found("sudo") && sudo().is_ok_and(|s| s.success()))
}

fn as_root(program: &str) -> Command {
    if is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.args(["-n", "--preserve-env=DEBIAN_FRONTEND", program]);
    command
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask dist`: the sources as one archive, byte for byte the same wherever and by whomever it is made.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};

use crate::ctx::{Ctx, lock};
use crate::process::{run, stdout};

/// The sources, packed.
pub(crate) struct Tarball {
    pub(crate) path: PathBuf,
    pub(crate) version: String,
    /// Time of all files in it, in seconds: that of the last commit.
    pub(crate) epoch: u64,
    /// Nobody else makes another one there meanwhile.
    _lock: File,
}

/// Packs the files that git tracks, as they are in the checkout, into target/dist/sq-VERSION.tar.xz. Nothing else: a key may lie about.
pub(crate) fn make(ctx: &Ctx) -> Result<Tarball> {
    let git = |args: &[&str]| stdout(Command::new("git").args(args).current_dir(&ctx.root));
    let files = tracked(&ctx.root)?;
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let changed = git(&["status", "--porcelain"])?;
    if !changed.is_empty() {
        eprintln!(
            "note: this is no commit; what git does not track (??) is not packed, what was changed is:\n{}",
            changed.trim_end()
        );
    }
    let epoch = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(epoch) => epoch,
        Err(_) => git(&["log", "-1", "--format=%ct"])?,
    };
    let epoch = epoch.trim().parse().with_context(|| format!("SOURCE_DATE_EPOCH is no number: {epoch:?}"))?;
    let version = version(&ctx.root)?;
    let path = ctx.root.join(format!("target/dist/sq-{version}.tar.xz"));
    let lock = lock(&ctx.root.join("target/dist"))?;
    pack(&ctx.root, &files, &format!("sq-{version}"), epoch, &path)?;
    Ok(Tarball { path, version, epoch, _lock: lock })
}

/// The tracked files that are there: one that was deleted and not yet committed is still listed.
fn tracked(root: &Path) -> Result<Vec<String>> {
    let listing = stdout(Command::new("git").args(["ls-files", "-z", "--cached"]).current_dir(root))
        .context("the archive holds what git tracks, so it is made in a git checkout")?;
    Ok(listing.split_terminator('\0').filter(|file| root.join(file).exists()).map(str::to_owned).collect())
}

/// `cargo xtask dist`
pub(crate) fn print_made(ctx: &Ctx) -> Result<ExitCode> {
    println!("{}", describe(&make(ctx)?.path)?);
    Ok(ExitCode::SUCCESS)
}

/// Packs the same again, from files that lie elsewhere with other times and modes.
///
/// # Errors
/// When the two differ.
pub(crate) fn check_reproducible(tarball: &Tarball, scratch: &Path) -> Result<()> {
    fs::create_dir_all(scratch)?;
    let mut tar = Command::new("sh");
    tar.args(["-c", "umask 077 && tar --touch --no-same-permissions -xf \"$0\""]).arg(&tarball.path);
    run("unpacking", tar.current_dir(scratch))?;
    let name = format!("sq-{}", tarball.version);
    let listing =
        stdout(Command::new("find").args([".", "-type", "f", "-printf", "%P\\0"]).current_dir(scratch.join(&name)))?;
    let mut files: Vec<&str> = listing.split_terminator('\0').collect();
    files.reverse();
    let again = scratch.join("again.tar.xz");
    pack(&scratch.join(&name), &files, &name, tarball.epoch, &again)?;
    if fs::read(&again)? != fs::read(&tarball.path)? {
        bail!("packed again from other times, modes and order, {} differs", tarball.path.display());
    }
    Ok(())
}

/// Path, size and checksum, one line.
pub(crate) fn describe(path: &Path) -> Result<String> {
    let sum = stdout(Command::new("sha256sum").arg(path))?;
    let sum = sum.split_whitespace().next().context("sha256sum printed nothing")?;
    Ok(format!("{}  {} bytes  sha256 {sum}", path.display(), fs::metadata(path)?.len()))
}

/// The version of the workspace, which dkms.conf has to repeat: DKMS does not look elsewhere.
fn version(root: &Path) -> Result<String> {
    let read = |file: &str, begin: &str| -> Result<String> {
        let text = fs::read_to_string(root.join(file)).with_context(|| format!("cannot read {file}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix(begin)?.strip_suffix('"'));
        line.map(str::to_owned).with_context(|| format!("{file} has no line {begin}..\""))
    };
    let version = read("Cargo.toml", "version = \"")?;
    let dkms = read("dkms.conf", "PACKAGE_VERSION=\"")?;
    if dkms != version {
        bail!("Cargo.toml is of version {version}, but PACKAGE_VERSION of dkms.conf is {dkms}: make them the same");
    }
    Ok(version)
}

fn pack(dir: &Path, files: &[&str], prefix: &str, epoch: u64, target: &Path) -> Result<()> {
    let mut files = files.to_vec();
    files.sort_unstable();
    fs::create_dir_all(target.parent().context("a file is in a folder")?)?;
    let tar = target.with_extension("");
    let mut command = Command::new("tar");
    command.args(["--create", "--format=ustar", "--owner=0", "--group=0", "--numeric-owner", "--mode=u=rwX,go=rX"]);
    command.arg(format!("--mtime=@{epoch}")).arg(format!("--transform=s,^,{prefix}/,"));
    command.args(["--no-recursion", "--null", "--verbatim-files-from", "--files-from=-", "--file"]).arg(&tar);
    let mut child = command.current_dir(dir).stdin(Stdio::piped()).spawn().context("cannot run tar")?;
    child.stdin.take().context("a pipe was asked for")?.write_all(files.join("\0").as_bytes())?;
    if !child.wait()?.success() {
        bail!("tar could not pack {}", dir.display());
    }
    // One thread: with more, xz cuts the input into blocks by their number.
    run("compressing", Command::new("xz").args(["--force", "-6", "--threads=1"]).arg(&tar))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::tracked;
    use crate::process::stdout;

    #[test]
    fn a_key_that_lies_about_is_not_packed() {
        let root = std::env::temp_dir().join(format!("sq-dist-{}", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        let git = |args: &[&str]| stdout(Command::new("git").args(args).current_dir(&root)).unwrap();
        git(&["init", "--quiet"]);
        for file in ["source", "gone", "my-key"] {
            fs::write(root.join(file), file).unwrap();
        }
        git(&["add", "source", "gone"]);
        fs::remove_file(root.join("gone")).unwrap();
        assert_eq!(tracked(&root).unwrap(), ["source"]);
        fs::remove_dir_all(root).unwrap();
    }
}

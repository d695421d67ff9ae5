// SPDX-License-Identifier: MIT OR Apache-2.0
//! Debug kernels: built from Debian's linux-source-6.12 with the configurations in `xtask/kernels`, once for each version and
//! configuration. What is kept is what it takes to boot them and to build modules for them.

use std::collections::BTreeSet;
use std::collections::hash_map::DefaultHasher;
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};

use super::version_key;
use crate::apt;
use crate::ctx::Ctx;
use crate::process::run;

const SOURCE: &str = "linux-source-6.12";
const NEEDED: [&str; 9] = ["gcc", "make", "flex", "bison", "bc", "libelf-dev", "libssl-dev", "xz-utils", "lz4"];

const COMMON: &str = include_str!("../../kernels/common.config");
const KASAN: &str = include_str!("../../kernels/kasan.config");
const KCSAN: &str = include_str!("../../kernels/kcsan.config");

/// Of the sources, what a module's build reads. Tools lie where the kernel was built.
const SOURCES_KEPT: [&str; 6] = ["Makefile", "Kbuild", "include", "scripts", "arch/x86", "tools/scripts"];
/// Of the build, the same.
const BUILD_KEPT: [&str; 8] = [
    ".config",
    "Makefile",
    "Module.symvers",
    "include",
    "scripts",
    "arch/x86/include",
    "tools/objtool/objtool",
    "source",
];

/// A kernel in the cache.
pub(super) struct BuiltKernel {
    pub(super) image: PathBuf,
    /// Its build directory.
    pub(super) headers: PathBuf,
}

/// True if `name` need not be built first.
pub(super) fn at_hand(ctx: &Ctx, name: &str) -> bool {
    newest_built(ctx, name).is_some()
}

/// The kernel called `name`, built if that was not done before. One of older sources will do: apt may know newer ones any day.
pub(super) fn get(ctx: &Ctx, name: &str) -> Result<BuiltKernel> {
    let built = newest_built(ctx, name);
    let dir = match (version(), built) {
        (Ok(version), Some(built)) => {
            if built != place(ctx, name, &version) {
                note(&format!("apt has the sources of {version}; without {} they are built", built.display()));
            }
            built
        }
        (Err(_), Some(built)) => {
            note(&format!("apt knows no {SOURCE}; using {}", built.display()));
            built
        }
        (version, None) => place(ctx, name, &version?),
    };
    if !dir.join(DONE).is_file() {
        fs::create_dir_all(&dir)?;
        let lock = File::create(dir.join("lock"))?;
        flock(&lock, FlockOperation::LockExclusive).context("cannot lock the kernel's directory")?;
        // Another run may have built it meanwhile.
        if !dir.join(DONE).is_file() {
            build(name, &dir).with_context(|| format!("no {name} kernel"))?;
        }
    }
    Ok(BuiltKernel { image: dir.join("vmlinuz"), headers: dir.join("build") })
}

/// Each once a run.
fn note(text: &str) {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    if SAID.lock().unwrap_or_else(PoisonError::into_inner).insert(text.to_owned()) {
        eprintln!("note: {text}");
    }
}

/// Written last.
const DONE: &str = "done";
/// Says that the sources are all there: not before they are unpacked, and not while some are removed.
const WHOLE: &str = "whole";

/// The directory of the newest version that was built with the configuration of today.
fn newest_built(ctx: &Ctx, name: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(ctx.cache.join(BUILT)).ok()?;
    let version = |entry: fs::DirEntry| -> Option<String> {
        let entry = entry.file_name().into_string().ok()?;
        let (version, _) = entry.strip_prefix(name)?.strip_prefix('-')?.rsplit_once('-')?;
        let dir = place(ctx, name, version);
        (dir.ends_with(&entry) && dir.join(DONE).is_file()).then(|| version.to_owned())
    };
    let versions = entries.filter_map(|entry| version(entry.ok()?));
    versions.max_by_key(|version| version_key(version)).map(|version| place(ctx, name, &version))
}

/// Below the cache.
const BUILT: &str = "kernels/built";

fn config(name: &str) -> String {
    format!("{COMMON}{}", if name == "kcsan" { KCSAN } else { KASAN })
}

/// The newest version of the sources that apt knows.
fn version() -> Result<String> {
    apt::version(SOURCE).or_else(|_| {
        apt::update();
        apt::version(SOURCE)
    })
}

fn place(ctx: &Ctx, name: &str, version: &str) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    (config(name), version).hash(&mut hasher);
    ctx.cache.join(BUILT).join(format!("{name}-{version}-{:016x}", hasher.finish()))
}

/// Goes on where a build was interrupted.
fn build(name: &str, dir: &Path) -> Result<()> {
    apt::ensure(&NEEDED)?;
    let start = Instant::now();
    eprintln!("note: building the {name} kernel, once: half an hour on two idle cores; {}", dir.display());
    let (source, build) = (dir.join("source"), dir.join("build"));
    if !dir.join(WHOLE).is_file() {
        unpack(dir)?;
    }
    fs::create_dir_all(&build)?;
    fs::write(build.join(".config"), config(name))?;
    let make = |target: &[&str]| -> Result<()> {
        let mut make = Command::new("nice");
        make.args(["-n", "5", "make", "-C"]).arg(&source).arg(format!("O={}", build.display()));
        make.arg(format!("-j{}", std::thread::available_parallelism().map_or(1, usize::from))).args(target);
        make.env_remove("MAKEFLAGS");
        run(&format!("building the {name} kernel"), &mut make).map(drop)
    };
    make(&["olddefconfig"])?;
    check_config(&config(name), &fs::read_to_string(build.join(".config"))?)?;
    make(&["bzImage", "modules"])?;
    fs::rename(build.join("arch/x86/boot/bzImage"), dir.join("vmlinuz"))?;
    fs::remove_file(dir.join(WHOLE))?;
    keep(&source, &SOURCES_KEPT)?;
    keep(&build, &BUILD_KEPT)?;
    fs::write(dir.join(DONE), "")?;
    eprintln!("note: the {name} kernel took {} s", start.elapsed().as_secs());
    Ok(())
}

fn unpack(dir: &Path) -> Result<()> {
    let package = dir.join("package");
    // What an interrupted run left.
    for left in [&dir.join("source"), &dir.join(SOURCE), &package] {
        if left.exists() {
            fs::remove_dir_all(left)?;
        }
    }
    apt::unpack(&[SOURCE.to_owned()], &package)?;
    let mut tar = Command::new("tar");
    tar.arg("xf").arg(package.join(format!("usr/src/{SOURCE}.tar.xz"))).arg("-C").arg(dir);
    run("unpacking the kernel's sources", &mut tar)?;
    fs::remove_dir_all(&package)?;
    fs::rename(dir.join(SOURCE), dir.join("source"))?;
    fs::write(dir.join(WHOLE), "")?;
    Ok(())
}

/// Kconfig drops in silence what another choice excludes.
fn check_config(asked: &str, got: &str) -> Result<()> {
    let wanted = |line: &&str| line.starts_with("CONFIG_") || line.ends_with(" is not set");
    let lost: Vec<&str> = asked.lines().filter(wanted).filter(|line| !got.lines().any(|l| l == *line)).collect();
    if !lost.is_empty() {
        bail!("Kconfig does not take these lines of xtask/kernels:\n  {}", lost.join("\n  "));
    }
    Ok(())
}

/// Removes everything from `dir` but the paths in `kept`, and objects from those.
fn keep(dir: &Path, kept: &[&str]) -> Result<()> {
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
            let path = entry?.path();
            let inside = path.strip_prefix(dir)?;
            let is_folder = path.is_dir() && !path.is_symlink();
            if kept.iter().any(|k| inside.starts_with(k)) {
                // The scripts' own objects, and the sources of what is in the kernel.
                let end = path.extension().unwrap_or_default();
                if is_folder {
                    folders.push(path);
                } else if ["o", "a", "c", "S"].iter().any(|e| end == *e) && !inside.starts_with("scripts") {
                    fs::remove_file(&path)?;
                }
            } else if is_folder && kept.iter().any(|k| Path::new(k).starts_with(inside)) {
                folders.push(path);
            } else if is_folder {
                fs::remove_dir_all(&path)?;
            } else {
                fs::remove_file(&path)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{DONE, check_config, config, newest_built, place};
    use crate::ctx::Ctx;

    #[test]
    fn the_newest_that_is_built_is_found() {
        let cache = std::env::temp_dir().join(format!("sq-built-{}", std::process::id()));
        let ctx = Ctx { root: "/nowhere".into(), cache: cache.clone(), ci: false };
        assert_eq!(newest_built(&ctx, "kasan"), None);
        let [old, new, unfinished] =
            ["6.12.9-1~deb12u1", "6.12.117-1~deb12u1", "6.12.200-1"].map(|v| place(&ctx, "kasan", v));
        let other_config = old.with_file_name("kasan-6.12.300-1-0123456789abcdef");
        for dir in [&old, &new, &unfinished, &other_config, &place(&ctx, "kcsan", "6.12.400-1")] {
            fs::create_dir_all(dir).unwrap();
        }
        for dir in [&old, &new, &other_config] {
            fs::write(dir.join(DONE), "").unwrap();
        }
        assert_eq!(newest_built(&ctx, "kasan"), Some(new));
        assert_eq!(newest_built(&ctx, "kcsan"), None);
        fs::remove_dir_all(cache).unwrap();
    }

    #[test]
    fn a_line_that_kconfig_drops_is_named() {
        let asked = config("kasan");
        assert!(check_config(&asked, &asked).is_ok());
        let error = check_config(&asked, &asked.replace("CONFIG_KASAN=y", "# CONFIG_KASAN is not set")).unwrap_err();
        assert!(error.to_string().contains("CONFIG_KASAN=y") && !error.to_string().contains("KASAN_INLINE"));
        assert!(!config("kcsan").contains("CONFIG_KASAN="));
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where things are: the checkout, the cache, and whether this is a CI run.

use std::collections::hash_map::DefaultHasher;
use std::env;
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// What every chore needs to know about its surroundings.
pub(crate) struct Ctx {
    /// Root of the checkout.
    pub(crate) root: PathBuf,
    /// Root of the cache, outside the checkout.
    pub(crate) cache: PathBuf,
    /// CI=true: a missing tool fails instead of skipping.
    pub(crate) ci: bool,
}

impl Ctx {
    pub(crate) fn new() -> Result<Self> {
        // `cargo xtask` sets the first; a copied binary still finds the checkout it was built in.
        let manifest = env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").to_owned());
        let root = Path::new(&manifest).parent().context("xtask has no parent directory")?.to_path_buf();
        let cache = cache_dir()?;
        fs::create_dir_all(&cache)
            .with_context(|| format!("cannot create the cache {}; set SQ_CACHE", cache.display()))?;
        Ok(Self { root, cache, ci: env::var("CI").is_ok_and(|v| v == "true" || v == "1") })
    }

    /// The same for another checkout.
    pub(crate) fn in_checkout(&self, root: PathBuf) -> Self {
        Self { root, cache: self.cache.clone(), ci: self.ci }
    }

    /// A directory of the cache that belongs to this checkout alone.
    pub(crate) fn checkout_cache(&self, name: &str) -> PathBuf {
        let mut hasher = DefaultHasher::new();
        self.root.hash(&mut hasher);
        self.cache.join(format!("{name}-{:016x}", hasher.finish()))
    }
}

/// Takes the lock on a folder that only one run may use at a time; another one waits. It is held until the file is closed, and lies beside
/// the folder, which may come and go.
pub(crate) fn lock(folder: &Path) -> Result<File> {
    let mut path = folder.as_os_str().to_owned();
    path.push(".lock");
    let path = PathBuf::from(path);
    fs::create_dir_all(path.parent().context("a file is in a folder")?)?;
    let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
        eprintln!("note: another run is at work in {}: waiting for its end", folder.display());
    }
    flock(&file, FlockOperation::LockExclusive).with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

fn cache_dir() -> Result<PathBuf> {
    let from = |name: &str| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(dir) = from("SQ_CACHE") {
        return Ok(dir);
    }
    from("XDG_CACHE_HOME")
        .or_else(|| from("HOME").map(|home| home.join(".cache")))
        .map(|dir| dir.join("sq"))
        .context("neither SQ_CACHE, XDG_CACHE_HOME nor HOME is set: set SQ_CACHE to a directory")
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use rustix::fs::{FlockOperation, flock};
    use rustix::io::Errno;

    #[test]
    fn a_folder_is_one_runs_alone() {
        let home = std::env::temp_dir().join(format!("sq-lock-{}", std::process::id()));
        let first = super::lock(&home.join("6.12")).unwrap();
        let second = File::open(home.join("6.12.lock")).unwrap();
        let taken = || flock(&second, FlockOperation::NonBlockingLockExclusive);
        assert_eq!(taken(), Err(Errno::WOULDBLOCK));
        drop(first);
        assert_eq!(taken(), Ok(()));
        fs::remove_dir_all(home).unwrap();
    }
}

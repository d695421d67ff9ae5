// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two virtio disks for a guest: one with ext4, mounted on /mnt, and a bare one, /dev/vdb.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::guest::{Guest, Job};
use crate::apt;
use crate::process::run;

const EXT4_BYTES: u64 = 192 << 20;
const BARE_BYTES: u64 = 32 << 20;

/// What the disks, and tests on them, need that a kernel may have as a module. (ext4 asks for a checksum by a name that is no module's.)
const WANTED: [&str; 7] = ["virtio_pci", "virtio_blk", "crc32c_generic", "ext4", "overlay", "fuse", "vhost_vsock"];

const MOUNT: &str = "
for i in 1 2 3 4 5; do [ -b /dev/vdb ] || sleep 1; done
mkdir -p /mnt && mount -t ext4 /dev/vda /mnt && chmod 1777 /mnt";

/// Adds the kernel's own modules for the disks, and the job that loads them and mounts the first.
pub(super) fn add(guest: &mut Guest) -> Result<()> {
    apt::ensure(&["e2fsprogs", "xz-utils"])?;
    let mut found = Vec::new();
    // Debug kernels have them all built in.
    let all = if guest.kernel.debug() { HashMap::new() } else { stock(&guest.image)? };
    for name in WANTED {
        collect(&all, name, &mut found)?;
    }
    let mut line = "set -e\n".to_owned();
    for (name, data) in found {
        let path = format!("/lib/modules/stock/{name}.ko");
        guest.files.add(&path, data, 0o644);
        line.push_str(&format!("insmod {path}\n"));
    }
    line.push_str(MOUNT);
    guest.jobs.push(Job::new("disks", line, Duration::from_secs(30)));
    guest.disks = true;
    Ok(())
}

/// The disks' images, made in `dir`. They take the room that is written to.
pub(super) fn make(dir: &Path) -> Result<Vec<PathBuf>> {
    let image = |name: &str, bytes| -> Result<PathBuf> {
        let path = dir.join(name);
        File::create(&path)?.set_len(bytes).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    };
    let ext4 = image("ext4.img", EXT4_BYTES)?;
    run("mkfs.ext4", Command::new("/sbin/mkfs.ext4").arg("-qF").arg(&ext4))?;
    Ok(vec![ext4, image("bare.img", BARE_BYTES)?])
}

/// Every module of the package that `image` is from, by name.
fn stock(image: &Path) -> Result<HashMap<String, PathBuf>> {
    let package = image.parent().and_then(Path::parent).context("an image lies in /boot of its package")?;
    let mut modules = HashMap::new();
    let mut folders = vec![package.join("lib/modules")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                folders.push(path);
            } else if let Some((name, _)) = name.split_once(".ko") {
                modules.insert(name.replace('-', "_"), path);
            }
        }
    }
    Ok(modules)
}

/// Adds `name` behind what it depends on. What is no module is built in.
fn collect(all: &HashMap<String, PathBuf>, name: &str, found: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    let Some(path) = all.get(name) else { return Ok(()) };
    if found.iter().any(|(known, _)| known == name) {
        return Ok(());
    }
    let data = read(path)?;
    for needed in depends(&data) {
        collect(all, &needed.replace('-', "_"), found)?;
    }
    found.push((name.to_owned(), data));
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    if path.extension().is_some_and(|end| end == "xz") {
        let output = Command::new("xz").arg("-dc").arg(path).output().context("cannot run xz")?;
        if !output.status.success() {
            bail!("xz cannot read {}", path.display());
        }
        return Ok(output.stdout);
    }
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The names in a module's "depends=", as modinfo prints them.
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|bytes| bytes == KEY) else { return Vec::new() };
    let value = module[at + KEY.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(value).split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::depends;

    #[test]
    fn what_a_module_depends_on() {
        assert_eq!(depends(b"\x7fELF\0license=GPL\0depends=jbd2,mbcache\0retpoline=Y\0"), ["jbd2", "mbcache"]);
        assert!(depends(b"\0depends=\0name=x\0").is_empty() && depends(b"").is_empty());
    }
}

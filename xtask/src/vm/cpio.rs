// SPDX-License-Identifier: MIT OR Apache-2.0
//! The "newc" archive that the kernel unpacks as its first file system (kernel: early-userspace/buffer-format.rst).
//!
//! Written here rather than by cpio(1), so that equal contents give equal bytes (exact instruction counts need
//! that) and every file belongs to the guest's root.

use std::collections::BTreeMap;

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;

/// Files of an archive by path, without a leading slash; directories are made as needed.
#[derive(Default)]
pub(crate) struct Archive {
    files: BTreeMap<String, (Vec<u8>, u32)>,
}

impl Archive {
    /// Adds or replaces a file with the permission bits `mode`.
    pub(crate) fn insert(&mut self, path: &str, data: Vec<u8>, mode: u32) {
        self.files.insert(path.trim_start_matches('/').to_owned(), (data, mode));
    }

    pub(crate) fn contains(&self, path: &str) -> bool {
        self.files.contains_key(path.trim_start_matches('/'))
    }

    /// The archive's bytes, with `directories` even when they are empty.
    pub(crate) fn encode(&self, directories: &[&str]) -> Vec<u8> {
        let mut all: BTreeMap<&str, Option<&(Vec<u8>, u32)>> = BTreeMap::new();
        for path in directories.iter().copied().chain(self.files.keys().map(String::as_str)) {
            let parents = path.match_indices('/').map(|(at, _)| &path[..at]);
            all.extend(parents.map(|dir| (dir, None)));
            all.insert(path, self.files.get(path));
        }
        let mut out = Vec::new();
        for (inode, (path, file)) in (1_u32..).zip(all) {
            match file {
                Some((data, mode)) => entry(&mut out, inode, path, FILE | mode, data),
                None => entry(&mut out, inode, path, DIRECTORY | 0o755, &[]),
            }
        }
        entry(&mut out, 0, "TRAILER!!!", 0, &[]);
        out
    }
}

fn entry(out: &mut Vec<u8>, inode: u32, path: &str, mode: u32, data: &[u8]) {
    let links = 1;
    // ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
    let fields = [inode, mode, 0, 0, links, 0, size(data.len()), 0, 0, 0, 0, size(path.len() + 1), 0];
    out.extend_from_slice(b"070701");
    for field in fields {
        out.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    out.extend_from_slice(path.as_bytes());
    out.push(0);
    pad(out);
    out.extend_from_slice(data);
    pad(out);
}

fn size(len: usize) -> u32 {
    u32::try_from(len).expect("a file in an initramfs is smaller than 4 GiB")
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::Archive;

    #[test]
    fn parents_come_before_their_files_and_all_is_aligned() {
        let mut archive = Archive::default();
        archive.insert("/a/b/c", b"hello".to_vec(), 0o755);
        let bytes = archive.encode(&["proc"]);
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes);
        let order: Vec<_> = ["a\0", "a/b\0", "a/b/c\0", "proc\0", "TRAILER!!!\0"].map(|n| text.find(n)).to_vec();
        assert!(order.iter().all(Option::is_some) && order.is_sorted());
    }
}

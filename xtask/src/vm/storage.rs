// SPDX-License-Identifier: MIT OR Apache-2.0
//! The storage client in a guest, on /dev/sqfile: on ext4 on a virtio disk, on memory, and on a bare disk.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::guest::{Guest, Job};

/// Debug builds under emulation.
const TIMEOUT: Duration = Duration::from_secs(120);

/// `client` is found by itself, as any program that opens /dev/sqfile if it is there; it must say that it did.
const BEGIN: &str = r#"set -e
client() {
    /w/sq-storage --json "$@" >report || { cat report; exit 1; }
    grep -q '"backend": "/dev/sqfile"' report
}
"#;

/// Stores a tree, reads it back, verifies it, and compares with plain calls.
const DEMO: &str = r#"
mkdir -p tree && cp -r /sq /lib/modules/sq*.ko tree
for where in "/mnt --mode caller" "/mnt --mode worker" /dev/shm; do
    client demo --from tree --to $where
    grep -q '"verified": true' report
done
"#;

/// Copies, reads back and verifies; then cmp, which knows nothing of rings, looks at what is on the disk.
const COPY: &str = r#"
dd if=/dev/urandom of=/dev/shm/source bs=100k count=23 2>/dev/null
client copy /dev/shm/source /mnt/source
for mode in caller worker poll; do
    client copy /mnt/source /mnt/$mode --mode $mode --block-size 64K --depth 32
done
client copy /mnt/source /dev/vdb
client verify /dev/shm/source /dev/vdb
umount /mnt && mount -t ext4 /dev/vda /mnt
echo 3 >/proc/sys/vm/drop_caches
for copy in source caller worker poll; do cmp /mnt/$copy /dev/shm/source; done
dd if=/dev/vdb bs=100k count=23 2>/dev/null | cmp - /dev/shm/source
rm /mnt/source /mnt/caller /mnt/worker /mnt/poll /dev/shm/source
"#;

/// Adds the program and the jobs. The disks are there already.
pub(super) fn add(guest: &mut Guest, program: &Path) -> Result<()> {
    guest.files.add_program(program)?;
    for (name, line) in [("storage client: demo", DEMO), ("storage client: copy", COPY)] {
        guest.jobs.push(Job::new(name, format!("{BEGIN}{line}"), TIMEOUT));
    }
    Ok(())
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! QEMU's command line. TCG always: /dev/kvm may exist and still not run an ordinary guest.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{secure, trace};
use crate::process::stdout;

/// What `qexit` makes QEMU return: (16 << 1) | 1.
pub(crate) const EXIT_BY_GUEST: i32 = 33;
/// What it returns when the guest powers off, or panics and reboots.
pub(crate) const POWER_OFF: i32 = 0;

/// Deterministic: virtual time follows instructions, and nothing is random.
pub(crate) const ICOUNT: [&str; 6] = ["-accel", "tcg", "-icount", "shift=0,sleep=off", "-smp", "1"];
/// As fast as it goes.
pub(crate) const TWO_CPUS: [&str; 4] = ["-accel", "tcg,thread=multi", "-smp", "2"];

/// What differs from one boot to the next.
pub(crate) struct Machine<'a> {
    pub(crate) kernel: &'a Path,
    pub(crate) initrd: &'a Path,
    /// Where the second UART writes: the guest's results.
    pub(crate) results: &'a Path,
    /// Raw images: /dev/vda, /dev/vdb.
    pub(crate) disks: &'a [PathBuf],
    /// The firmware's variables, if it has Secure Boot.
    pub(crate) variables: Option<&'a Path>,
    pub(crate) cpu: &'a str,
    pub(crate) mem_mib: u32,
    pub(crate) icount: bool,
    pub(crate) append: &'a str,
    /// Directory of a trace that the guest may ask for.
    pub(crate) trace: Option<&'a Path>,
    /// The console is the terminal, for a shell.
    pub(crate) interactive: bool,
}

impl Machine<'_> {
    pub(crate) fn command(&self) -> Command {
        // It goes when we do: nobody else would end a guest whose xtask was killed.
        let mut qemu = Command::new("setpriv");
        qemu.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
        if self.icount {
            qemu.args(ICOUNT).args(["-rtc", "base=2026-01-01,clock=vm", "-seed", "42"]);
        } else {
            qemu.args(TWO_CPUS);
        }
        qemu.args(["-m", &self.mem_mib.to_string(), "-cpu", self.cpu, "-nodefaults", "-display", "none"]);
        qemu.args(["-no-reboot", "-device", "isa-debug-exit,iobase=0xf4,iosize=4"]);
        if self.interactive {
            qemu.args(["-serial", "mon:stdio"]);
        } else {
            match self.trace {
                Some(dir) => qemu.args(trace::options(dir)),
                None => qemu.args(["-monitor", "none"]),
            };
            qemu.args(["-serial", "stdio"]);
        }
        qemu.args(["-serial", &format!("file:{}", self.results.display())]);
        if let Some(variables) = self.variables {
            qemu.args(secure::options(variables));
        }
        for disk in self.disks {
            // They live no longer than the guest, so nothing need reach the host's disk.
            let drive = format!("file={},if=virtio,format=raw,cache=unsafe,discard=unmap", disk.display());
            qemu.args(["-drive", &drive]);
        }
        qemu.arg("-kernel").arg(self.kernel).arg("-initrd").arg(self.initrd);
        // Crypto self tests would take every second tick of a single CPU for seconds after boot. The timer's check counts ticks
        // while it spins, and panics when a busy host lets it see none.
        let base = "console=ttyS0 quiet panic=-1 oops=panic cryptomgr.notests no_timer_check";
        qemu.args(["-append", &format!("{base} {}", self.append)]);
        qemu
    }
}

/// Whether it may run a stale translation of code that another processor patches.
pub(super) fn is_before_8_1() -> bool {
    stdout(Command::new("qemu-system-x86_64").arg("--version"))
        .is_ok_and(|says| version(&says).is_some_and(|version| version < (8, 1)))
}

/// From "QEMU emulator version 7.2.22 (Debian ..)".
fn version(says: &str) -> Option<(u32, u32)> {
    let mut numbers = says.split("version ").nth(1)?.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn versions_are_numbers() {
        assert_eq!(version("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)\nCopyright (c)"), Some((7, 2)));
        assert_eq!(version("QEMU emulator version 10.0.2"), Some((10, 0)));
        assert_eq!(version(""), None);
    }
}

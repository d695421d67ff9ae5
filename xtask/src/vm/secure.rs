// SPDX-License-Identifier: MIT OR Apache-2.0
//! A machine with Secure Boot: firmware that trusts one key, the "snakeoil" of Debian's package ovmf, whose secret is no secret.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::guest::Guest;
use crate::apt;
use crate::process::run;

const CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd";
const VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.snakeoil.fd";
const KEY: &str = "/usr/share/ovmf/PkKek-1-snakeoil.key";
const CERTIFICATE: &str = "/usr/share/ovmf/PkKek-1-snakeoil.pem";
const PASSWORD: &str = "pass:snakeoil";

/// The key that the firmware trusts, for a kernel and for modules.
pub(crate) struct Owner {
    dir: PathBuf,
    /// In PEM, without a password.
    pub(crate) key: PathBuf,
    /// Its certificate in DER.
    pub(crate) certificate: PathBuf,
}

impl Owner {
    /// Makes files in `dir`, for as long as machines are booted with them.
    pub(crate) fn new(dir: &Path) -> Result<Self> {
        apt::ensure(&["openssl", "ovmf", "sbsigntool"])?;
        let owner = Self { dir: dir.to_owned(), key: dir.join("owner.key"), certificate: dir.join("owner.der") };
        let mut rsa = Command::new("openssl");
        rsa.args(["rsa", "-in", KEY, "-passin", PASSWORD, "-out"]).arg(&owner.key);
        run("the key of Secure Boot", &mut rsa)?;
        let mut x509 = Command::new("openssl");
        x509.args(["x509", "-in", CERTIFICATE, "-outform", "DER", "-out"]).arg(&owner.certificate);
        run("the certificate of Secure Boot", &mut x509)?;
        Ok(owner)
    }

    /// Gives `guest` such a firmware, and signs its kernel.
    pub(crate) fn secure(&self, guest: &mut Guest) -> Result<()> {
        let kernel = self.dir.join("vmlinuz.signed");
        let mut sign = Command::new("sbsign");
        sign.arg("--key").arg(&self.key).args(["--cert", CERTIFICATE, "--output"]).arg(&kernel).arg(&guest.image);
        run("signing the kernel", &mut sign)?;
        let variables = self.dir.join("variables.fd");
        fs::copy(VARIABLES, &variables).with_context(|| format!("no {VARIABLES}"))?;
        guest.image = kernel;
        guest.variables = Some(variables);
        guest.mem_mib = 1024;
        Ok(())
    }
}

/// The guest's archive in what came over the second UART: the firmware writes its console there as well, and first.
pub(super) fn without_console(results: &[u8]) -> &[u8] {
    let begin = results.windows(4).position(|bytes| bytes == b"./\0\0");
    results.get(begin.unwrap_or_default()..).unwrap_or_default()
}

/// QEMU's part in it: only code in SMM may write the firmware's `variables`.
pub(super) fn options(variables: &Path) -> Vec<String> {
    let drive = |unit: u8, more: &str, file: &str| format!("if=pflash,format=raw,unit={unit}{more},file={file}");
    let words = ["-machine", "q35,smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on"];
    let mut options = words.map(str::to_owned).to_vec();
    options.extend(["-drive".to_owned(), drive(0, ",readonly=on", CODE)]);
    options.extend(["-drive".to_owned(), drive(1, "", &variables.display().to_string())]);
    options
}

#[cfg(test)]
mod tests {
    use super::without_console;

    #[test]
    fn the_archive_begins_after_the_console() {
        assert_eq!(without_console(b"\x1b[2J./x \x1b[./\0\0\0rest"), b"./\0\0\0rest");
        assert_eq!(without_console(b"./\0\0\0"), b"./\0\0\0");
        assert_eq!(without_console(b"EFI stub: no archive"), b"EFI stub: no archive");
    }
}

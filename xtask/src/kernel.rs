// SPDX-License-Identifier: MIT OR Apache-2.0
//! Kernels. Stock Debian ones: the newest package of each flavour, its image and its headers, unpacked in the cache. And
//! two with the kernel's own sanitizers, built from Debian's sources.

mod built;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::apt;
use crate::ctx::Ctx;

/// A kernel flavour that the project supports.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kernel {
    /// 6.12 LTS, Debian's cloud build
    #[value(name = "6.12")]
    V6_12,
    /// 6.1 LTS, Debian's cloud build: the oldest we support
    #[value(name = "6.1")]
    V6_1,
    /// 6.12 LTS with PREEMPT_RT
    #[value(name = "6.12-rt")]
    V6_12Rt,
    /// 6.1 LTS with PREEMPT_RT
    #[value(name = "6.1-rt")]
    V6_1Rt,
    /// 6.12 with KASAN, UBSAN, lockdep, kmemleak and fault injection, built here once (minutes)
    #[value(name = "kasan")]
    Kasan,
    /// 6.12 with KCSAN and lockdep, built here once (minutes)
    #[value(name = "kcsan")]
    Kcsan,
}

impl Kernel {
    /// Every stock flavour: modules are compiled for all of them.
    pub(crate) const STOCK: [Self; 4] = [Self::V6_12, Self::V6_1, Self::V6_12Rt, Self::V6_1Rt];
    /// Those that the test command boots.
    pub(crate) const BOOTED: [Self; 3] = [Self::V6_12, Self::V6_1, Self::V6_12Rt];

    /// Those that look for faults themselves.
    pub(crate) const DEBUG: [Self; 2] = [Self::Kasan, Self::Kcsan];

    /// `chosen`, or the newest cloud kernel when nothing was chosen.
    pub(crate) fn or_default(chosen: &[Self]) -> Vec<Self> {
        if chosen.is_empty() { vec![Self::V6_12] } else { chosen.to_vec() }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V6_12 => "6.12",
            Self::V6_1 => "6.1",
            Self::V6_12Rt => "6.12-rt",
            Self::V6_1Rt => "6.1-rt",
            Self::Kasan => "kasan",
            Self::Kcsan => "kcsan",
        }
    }

    /// True for a kernel that looks for faults itself.
    pub(crate) fn debug(self) -> bool {
        Self::DEBUG.contains(&self)
    }

    /// True if it can be had without minutes of work.
    pub(crate) fn at_hand(self, ctx: &Ctx) -> bool {
        !self.debug() || built::at_hand(ctx, self.name())
    }

    /// How much longer than on a stock kernel a program may take.
    pub(crate) fn patience(self) -> u32 {
        if self.debug() { 6 } else { 1 }
    }

    /// What a guest needs at least.
    pub(crate) fn mem_mib(self) -> u32 {
        if self.debug() { 1024 } else { 512 }
    }

    /// Words for its command line.
    pub(crate) fn words(self) -> &'static str {
        match self {
            // Each fault is reported, not the first alone.
            Self::Kasan => "kasan_multi_shot",
            _ => "",
        }
    }

    fn series(self) -> &'static str {
        self.name().trim_end_matches("-rt")
    }

    fn suffix(self) -> &'static str {
        if self.name().ends_with("-rt") { "-rt-amd64" } else { "-cloud-amd64" }
    }

    /// Path of the bootable image.
    pub(crate) fn image(self, ctx: &Ctx) -> Result<PathBuf> {
        if self.debug() {
            return Ok(built::get(ctx, self.name())?.image);
        }
        let unpacked = self.fetch(ctx, "image", |release| Ok(vec![format!("linux-image-{release}")]))?;
        Ok(unpacked.dir.join(format!("boot/vmlinuz-{}", unpacked.release)))
    }

    /// Path of the build directory (`KDIR`), usable from where it lies.
    pub(crate) fn headers(self, ctx: &Ctx) -> Result<PathBuf> {
        if self.debug() {
            return Ok(built::get(ctx, self.name())?.headers);
        }
        let unpacked = self.fetch(ctx, "headers", header_packages)?;
        let sources = unpacked.dir.join("usr/src");
        let build = sources.join(format!("linux-headers-{}", unpacked.release));
        // The build tools among the headers want exactly this compiler, and libelf.
        let variables = fs::read_to_string(build.join(".kernelvariables")).unwrap_or_default();
        let compiler = variables
            .split(|c: char| c.is_whitespace() || c == ')')
            .find(|w| w.starts_with("gcc-"))
            .unwrap_or("gcc")
            .to_owned();
        apt::ensure(&["make", "libelf1", &compiler])?;
        Ok(build)
    }

    /// Unpacks one kind of package of the newest release, unless that was done before.
    fn fetch(self, ctx: &Ctx, kind: &str, packages: impl Fn(&str) -> Result<Vec<String>>) -> Result<Unpacked> {
        let base = ctx.cache.join("kernels").join(kind);
        let attempt = || -> Result<Unpacked> {
            let release = self.newest()?;
            let dir = base.join(&release);
            if !dir.is_dir() {
                let partial = base.join(format!("{release}.{}", std::process::id()));
                fs::create_dir_all(&partial)?;
                let done = packages(&release)
                    .and_then(|names| apt::unpack(&names, &partial))
                    .and_then(|()| relocate(&partial, &dir));
                // Another run may have been faster: then its copy is as good.
                if done.is_err() || fs::rename(&partial, &dir).is_err() {
                    fs::remove_dir_all(&partial)?;
                }
                done?;
            }
            Ok(Unpacked { release, dir })
        };
        attempt()
            .or_else(|_| {
                // A mirror keeps only the newest packages: stale lists name files that are gone.
                apt::update();
                attempt()
            })
            .or_else(|error| self.newest_cached(&base).ok_or(error))
            .with_context(|| format!("no {kind} for kernel {}", self.name()))
    }

    /// The newest release for which apt knows both an image and headers.
    fn newest(self) -> Result<String> {
        let packages = apt::kernel_packages()?;
        let releases = |kind: &str| -> Vec<String> {
            let begin = format!("linux-{kind}-");
            // "6.1." keeps 6.12 out; a digit after it keeps the empty meta packages out.
            let series = format!("{}.", self.series());
            let release = |name: &String| -> Option<String> {
                let release = name.strip_prefix(&begin)?;
                let rest = release.strip_prefix(&series)?;
                let fits = rest.starts_with(|c: char| c.is_ascii_digit()) && rest.ends_with(self.suffix());
                fits.then(|| release.to_owned())
            };
            packages.iter().filter_map(release).collect()
        };
        let images = releases("image");
        let mut both = releases("headers");
        both.retain(|release| images.contains(release));
        both.sort_by_key(|release| version_key(release));
        both.pop().with_context(|| {
            format!(
                "apt knows no linux-image-{}.*{} with headers; its lists may be empty",
                self.series(),
                self.suffix()
            )
        })
    }

    fn newest_cached(self, base: &Path) -> Option<Unpacked> {
        let mut releases: Vec<String> = fs::read_dir(base)
            .ok()?
            .filter_map(|e| e.ok()?.file_name().into_string().ok())
            .filter(|r| r.starts_with(&format!("{}.", self.series())) && r.ends_with(self.suffix()))
            .collect();
        releases.sort_by_key(|release| version_key(release));
        let release = releases.pop()?;
        eprintln!("note: apt has nothing newer; using {release} from the cache");
        Some(Unpacked { dir: base.join(&release), release })
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

struct Unpacked {
    release: String,
    dir: PathBuf,
}

/// The headers of a flavour, what they share with the others, and the tools that ran on Debian's builder.
fn header_packages(release: &str) -> Result<Vec<String>> {
    let headers = format!("linux-headers-{release}");
    let mut packages = apt::depends(&headers)?;
    packages.retain(|p| p.starts_with("linux-headers-") || p.starts_with("linux-kbuild-"));
    if packages.len() < 2 {
        bail!("{headers} depends on {packages:?}: expected linux-headers-*-common and linux-kbuild-*");
    }
    packages.insert(0, headers);
    Ok(packages)
}

/// The packages expect to lie in /usr: the flavour's Makefile includes the common one by absolute path.
/// Links among them are relative or, when absolute, are made to point below `final_dir`.
fn relocate(unpacked: &Path, final_dir: &Path) -> Result<()> {
    let Ok(sources) = fs::read_dir(unpacked.join("usr/src")) else {
        return Ok(()); // an image has no sources
    };
    for entry in sources {
        let dir = entry?.path();
        let makefile = dir.join("Makefile");
        if let Ok(text) = fs::read_to_string(&makefile)
            && text.starts_with("include /usr/src/")
        {
            fs::write(&makefile, text.replace("/usr/src/", &format!("{}/usr/src/", final_dir.display())))?;
        }
        for name in ["scripts", "tools"] {
            let link = dir.join(name);
            if let Ok(target) = fs::read_link(&link)
                && let Ok(inside) = target.strip_prefix("/")
            {
                fs::remove_file(&link)?;
                std::os::unix::fs::symlink(final_dir.join(inside), &link)?;
            }
        }
    }
    Ok(())
}

/// The numbers in a release, in order: "6.1.0-56-cloud" sorts after "6.1.0-9-cloud".
fn version_key(release: &str) -> Vec<u64> {
    release.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::version_key;

    #[test]
    fn releases_sort_by_number() {
        assert!(version_key("6.1.0-56-cloud-amd64") > version_key("6.1.0-9-cloud-amd64"));
        assert!(version_key("6.12.117+deb12-rt-amd64") > version_key("6.12.99+deb12-rt-amd64"));
    }
}

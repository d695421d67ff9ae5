// SPDX-License-Identifier: MIT OR Apache-2.0
//! One boot of a guest: jobs in, results out.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::initramfs::Initramfs;
use super::qemu::{self, EXIT_BY_GUEST, Machine, POWER_OFF};
use super::{disk, dmesg, secure, trace};
use crate::apt;
use crate::ctx::Ctx;
use crate::kernel::Kernel;
use crate::process::{spinner, stdout, tail};

/// Boot, sending the results home, and what a job takes beside its own time, on a busy host with a stock kernel.
const OVERHEAD: Duration = Duration::from_secs(180);

/// A shell line that a guest runs in /w, and how long it may take on a stock kernel.
pub(crate) struct Job {
    pub(crate) name: String,
    pub(crate) line: String,
    pub(crate) timeout: Duration,
    /// As uid 1000 instead of root.
    pub(crate) user: bool,
}

impl Job {
    pub(crate) fn new(name: &str, line: String, timeout: Duration) -> Self {
        Self { name: name.to_owned(), line, timeout, user: false }
    }
}

/// What a job left behind.
pub(crate) struct JobResult {
    pub(crate) name: String,
    /// Exit code; 137 is "killed at its timeout".
    pub(crate) code: i32,
    /// How long it took, on the guest's clock.
    pub(crate) seconds: f64,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// Lines of dmesg, written while it ran, that speak of a fault.
    pub(crate) complaints: Vec<String>,
    /// By KCSAN, of the kernel with itself.
    pub(crate) races_of_the_kernel: Vec<String>,
}

impl JobResult {
    /// With nothing to say.
    pub(crate) fn passed(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            code: 0,
            seconds: 0.0,
            stdout: String::new(),
            stderr: String::new(),
            complaints: Vec::new(),
            races_of_the_kernel: Vec::new(),
        }
    }
}

/// All results of one boot; its directory goes when this goes.
pub(crate) struct Results {
    pub(crate) jobs: Vec<JobResult>,
    /// What the reader of their table must know of the boot.
    pub(crate) note: Option<String>,
    dir: PathBuf,
}

impl Results {
    #[cfg(test)]
    pub(crate) fn of(jobs: Vec<JobResult>) -> Self {
        Self { jobs, note: None, dir: PathBuf::new() }
    }

    /// Where the machine's files are.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Copies the files that jobs left in /w/out to `target`.
    pub(crate) fn save_files(&self, target: &Path) -> Result<()> {
        fs::create_dir_all(target)?;
        stdout(Command::new("cp").arg("-r").arg(self.dir.join("out/files/.")).arg(target))?;
        Ok(())
    }
}

impl Drop for Results {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A guest to be booted.
pub(crate) struct Guest {
    pub(super) kernel: Kernel,
    pub(super) image: PathBuf,
    pub(crate) files: Initramfs,
    pub(crate) jobs: Vec<Job>,
    pub(crate) icount: bool,
    pub(crate) cpu: String,
    pub(crate) mem_mib: u32,
    pub(crate) append: String,
    /// The guest may ask for a trace.
    pub(crate) trace: bool,
    /// By [`disk::add`].
    pub(super) disks: bool,
    /// By [`super::Owner::secure`].
    pub(super) variables: Option<PathBuf>,
}

impl Guest {
    pub(crate) fn new(ctx: &Ctx, kernel: Kernel) -> Result<Self> {
        apt::ensure(&["qemu-system-x86"])?;
        Ok(Self {
            kernel,
            image: kernel.image(ctx)?,
            files: Initramfs::new(ctx)?,
            jobs: Vec::new(),
            icount: false,
            cpu: "max".to_owned(),
            mem_mib: kernel.mem_mib(),
            append: kernel.words().to_owned(),
            trace: false,
            disks: false,
            variables: None,
        })
    }

    /// Adds the modules, and one job each that loads it.
    pub(crate) fn load_modules(&mut self, modules: &[PathBuf]) -> Result<()> {
        for module in modules {
            let name = module.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let data = fs::read(module).with_context(|| format!("cannot read {}", module.display()))?;
            self.files.add(&format!("lib/modules/{name}"), data, 0o644);
            let line = format!("insmod /lib/modules/{name}");
            self.jobs.push(Job::new(&format!("insmod {name}"), line, Duration::from_secs(20)));
        }
        Ok(())
    }

    /// Boots, runs the jobs, and returns what they left.
    ///
    /// # Errors
    /// When the guest does not finish: it panicked, hung, or could not boot. The console's end is in the error.
    pub(crate) fn boot(mut self, ctx: &Ctx) -> Result<Results> {
        let dir = scratch(ctx)?;
        let mut results = Results { jobs: Vec::new(), note: None, dir: dir.clone() };
        let machine_files = self.write(&dir)?;
        let patience = self.kernel.patience();
        let limits =
            Limits { overhead: OVERHEAD * patience, jobs: self.jobs.iter().map(|j| j.timeout * patience).collect() };
        let label = format!("guest {}", self.kernel);
        let (mut code, mut console) = watch(&label, self.machine(&machine_files, false).command(), &limits, &dir)?;
        if let Some(place) = stale_translation(&console).filter(|_| qemu::is_before_8_1()) {
            let note = format!("booted twice: QEMU ran a stale translation of patched kernel text at {place}");
            eprintln!("{label}: {note}. The console said:\n{}", tail(&console, 60));
            results.note = Some(note);
            if self.disks {
                disk::make(&dir)?;
            }
            (code, console) = watch(&label, self.machine(&machine_files, false).command(), &limits, &dir)?;
        }
        let out = dir.join("out");
        fs::create_dir_all(&out)?;
        if self.variables.is_some() {
            let results = fs::read(&machine_files.results)?;
            fs::write(&machine_files.results, secure::without_console(&results))?;
        }
        // Without its sentinel the archive proves nothing: panic and power-off look like success to QEMU.
        let unpacked = stdout(Command::new("tar").arg("xf").arg(&machine_files.results).arg("-C").arg(&out));
        if unpacked.is_err() || !out.join("done").is_file() {
            let why = match code {
                None => limits.exceeded(&console),
                Some(EXIT_BY_GUEST) => "finished, but its results are incomplete".to_owned(),
                Some(POWER_OFF) => "panicked or powered off".to_owned(),
                Some(other) => format!("ended with QEMU's status {other}"),
            };
            bail!("the {} guest {why}; its console:\n{}", self.kernel, tail(&console, 60));
        }
        // It sent all, and then did not end as it should. Under Secure Boot a kernel is locked down, and refuses qexit its port.
        let end = if self.variables.is_some() { POWER_OFF } else { EXIT_BY_GUEST };
        if code != Some(end) || console.contains("Kernel panic") {
            let how = code.map_or("by a signal, or too late".to_owned(), |code| format!("with status {code}"));
            bail!("QEMU ended {how}, after the {} guest's last job; its console:\n{}", self.kernel, tail(&console, 60));
        }
        collect(self.jobs, &out, results)
    }

    /// Boots into a shell on this terminal.
    pub(crate) fn shell(mut self, ctx: &Ctx) -> Result<()> {
        let dir = scratch(ctx)?;
        self.files.add("sq/shell", Vec::new(), 0o644);
        let machine_files = self.write(&dir)?;
        let status = self
            .machine(&machine_files, true)
            .command()
            .status()
            .context("cannot run setpriv, or qemu-system-x86_64 by it")?;
        fs::remove_dir_all(&dir)?;
        if status.code() != Some(EXIT_BY_GUEST) {
            bail!("the guest ended by itself ({status})");
        }
        Ok(())
    }

    fn write(&mut self, dir: &Path) -> Result<MachineFiles> {
        for (number, job) in self.jobs.iter().enumerate() {
            let base = format!("sq/jobs/{number:03}");
            self.files.add(&format!("{base}/name"), job.name.clone().into(), 0o644);
            self.files.add(&format!("{base}/run"), format!("{}\n", job.line).into(), 0o644);
            self.files.add(
                &format!("{base}/timeout"),
                (job.timeout * self.kernel.patience()).as_secs().to_string().into(),
                0o644,
            );
            if job.user {
                self.files.add(&format!("{base}/user"), Vec::new(), 0o644);
            }
        }
        let disks = if self.disks { disk::make(dir)? } else { Vec::new() };
        let (initrd, results) = (dir.join("initrd"), dir.join("results.tar"));
        let files = MachineFiles { dir: dir.to_owned(), initrd, results, disks };
        fs::write(&files.initrd, self.files.encode())?;
        Ok(files)
    }

    fn machine<'a>(&'a self, files: &'a MachineFiles, interactive: bool) -> Machine<'a> {
        Machine {
            kernel: &self.image,
            initrd: &files.initrd,
            results: &files.results,
            disks: &files.disks,
            variables: self.variables.as_deref(),
            cpu: &self.cpu,
            mem_mib: self.mem_mib,
            icount: self.icount,
            append: &self.append,
            trace: self.trace.then_some(files.dir.as_path()),
            interactive,
        }
    }
}

struct MachineFiles {
    dir: PathBuf,
    initrd: PathBuf,
    results: PathBuf,
    disks: Vec<PathBuf>,
}

/// A directory for one boot. Those of runs that were ended go now.
fn scratch(ctx: &Ctx) -> Result<PathBuf> {
    // A run may look at one boot's results during the next.
    static BOOTS: AtomicU32 = AtomicU32::new(0);
    let run = ctx.cache.join("run");
    fs::create_dir_all(&run)?;
    for entry in fs::read_dir(&run).with_context(|| format!("cannot list {}", run.display()))? {
        let entry = entry?;
        if owner(&entry.file_name().to_string_lossy()).is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            // Another run may be faster.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    let dir = run.join(format!("{}-{}", std::process::id(), BOOTS.fetch_add(1, Ordering::Relaxed)));
    // An earlier process may have had our number.
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(dir)
}

/// The process whose directory is called so: "PID-BOOT" here, "NAME-PID" of the installation's.
fn owner(name: &str) -> Option<u32> {
    let (first, last) = (name.split('-').next()?, name.rsplit('-').next()?);
    first.parse().or_else(|_| last.parse()).ok()
}

/// Whether the guest died of an emulator's fault that QEMU has before 8.1: a processor that translates code while another one
/// patches it (a static key: perf, tracing) may keep the breakpoint that is there meanwhile, and runs into it later. The
/// breakpoints of modules are no such thing, and a pointer that went astray has no symbol. Returns the place.
fn stale_translation(console: &str) -> Option<&str> {
    let mut lines = console.lines().skip_while(|line| !line.contains("int3: 0000 ["));
    let (_, place) = lines.find_map(|line| line.split_once("RIP: 0010:"))?;
    (place.contains("+0x") && !place.contains('[')).then_some(place)
}

/// How long the host waits for the guest's next sign of life: that it begins a job.
struct Limits {
    overhead: Duration,
    /// What each job may take.
    jobs: Vec<Duration>,
}

impl Limits {
    /// For what comes after `line`, if that begins a job. The guest itself ends a job that takes too long.
    fn after(&self, line: &str) -> Option<Duration> {
        Some(self.overhead + *self.jobs.get(job(line)?)?)
    }

    /// That one of them was, in words.
    fn exceeded(&self, console: &str) -> String {
        match console.lines().rev().find_map(|line| Some((line, self.after(line)?))) {
            Some((line, limit)) => format!("did not end within {} s of its last word, {line:?}", limit.as_secs()),
            None => format!("began no job within {} s", self.overhead.as_secs()),
        }
    }
}

/// The number of the job that the guest's init begins, says this line of the console.
fn job(line: &str) -> Option<usize> {
    line.split("sq-job ").nth(1)?.split(' ').next()?.parse().ok()
}

/// Runs QEMU until it ends (its status) or one of `limits` is over (`None`); returns its console as well.
fn watch(label: &str, mut qemu: Command, limits: &Limits, dir: &Path) -> Result<(Option<i32>, String)> {
    let bar = spinner(label);
    let (reader, writer) = std::io::pipe()?;
    let mut child = qemu
        .stdin(Stdio::piped())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .spawn()
        .context("cannot run setpriv, or qemu-system-x86_64 by it")?;
    let mut stdin = child.stdin.take().context("a pipe was asked for")?;
    drop(qemu); // with it go our copies of the pipe's write end
    let (lines, console) = mpsc::channel();
    let pump = thread::spawn(move || {
        for line in BufReader::new(reader).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if lines.send(line).is_err() {
                break;
            }
        }
    });
    let mut deadline = Instant::now() + limits.overhead;
    let mut text = String::new();
    let finished = loop {
        match console.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                if let Some(job) = line.split("sq-job ").nth(1) {
                    bar.set_message(job.to_owned());
                }
                if let Some(limit) = limits.after(&line) {
                    deadline = Instant::now() + limit;
                }
                if let Err(why) = trace::obey(&line, dir, &mut stdin) {
                    text.push_str(&format!("no trace: {why:#}\n"));
                    break false;
                }
                text.push_str(&line);
                text.push('\n');
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break true,
            Err(mpsc::RecvTimeoutError::Timeout) => break false,
        }
    };
    if !finished {
        child.kill()?;
    }
    let status = child.wait()?;
    bar.finish_and_clear();
    // The reader ends with the pipe, and the pipe with QEMU.
    let _ = pump.join();
    Ok((if finished { status.code() } else { None }, text))
}

fn collect(jobs: Vec<Job>, out: &Path, mut results: Results) -> Result<Results> {
    let log = fs::read(out.join("boot.dmesg")).context("the guest sent no log of its boot")?;
    let complaints = dmesg::complaints(&String::from_utf8_lossy(&log));
    if !complaints.is_empty() {
        results.jobs.push(JobResult { complaints, ..JobResult::passed("boot") });
    }
    for (number, job) in jobs.into_iter().enumerate() {
        let dir = out.join(format!("{number:03}"));
        let read = |name: &str| -> Result<String> {
            let bytes =
                fs::read(dir.join(name)).with_context(|| format!("the guest sent no {name} of {}", job.name))?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let clock = |name: &str| -> Result<f64> {
            let uptime = read(name)?;
            uptime.split(' ').next().and_then(|s| s.parse().ok()).with_context(|| format!("no time in {uptime:?}"))
        };
        let log = read("dmesg")?;
        results.jobs.push(JobResult {
            seconds: clock("ended")? - clock("began")?,
            code: read("code")?.trim().parse().context("an exit code is a number")?,
            stdout: read("stdout")?,
            stderr: read("stderr")?,
            complaints: dmesg::complaints(&log),
            races_of_the_kernel: dmesg::races_of_the_kernel(&log),
            name: job.name,
        });
    }
    Ok(results)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::process::Command;
    use std::time::{Duration, Instant};

    use super::{Limits, scratch, stale_translation, watch};
    use crate::ctx::Ctx;

    /// A "guest" that is a shell script.
    fn watched(script: &str, limits: &Limits) -> (Option<i32>, String) {
        let mut sh = Command::new("sh");
        sh.args(["-c", script]);
        watch("test", sh, limits, Path::new("/nowhere")).unwrap()
    }

    #[test]
    fn a_directory_is_one_boots_and_goes_with_its_process() {
        let cache = std::env::temp_dir().join(format!("sq-scratch-{}", std::process::id()));
        // No process has so high a number.
        let gone =
            ["4294967294-ThreadId-1-", "4294967294-0", "install-4294967294"].map(|name| cache.join("run").join(name));
        let kept = cache.join(format!("run/deb-{}", std::process::id()));
        gone.iter().chain([&kept]).for_each(|dir| fs::create_dir_all(dir).unwrap());
        let ctx = Ctx { root: "/nowhere".into(), cache: cache.clone(), ci: false };
        let [one, other] = [scratch(&ctx).unwrap(), scratch(&ctx).unwrap()];
        assert!(one != other && one.is_dir() && other.is_dir() && kept.is_dir());
        assert!(gone.iter().all(|dir| !dir.exists()));
        fs::remove_dir_all(cache).unwrap();
    }

    #[test]
    fn each_job_has_its_own_time() {
        let [short, long] = [Duration::from_secs(2), Duration::from_secs(300)];
        let limits = Limits { overhead: short, jobs: vec![long, Duration::ZERO] };
        let (code, _) = watched("echo '[ 1.0] sq-job 000 a'; sleep 3; exit 7", &limits);
        assert_eq!(code, Some(7), "it had time");
        let start = Instant::now();
        let (code, console) = watched("echo sq-job 000 a; echo sq-job 001 b; exec sleep 200", &limits);
        assert!(
            code.is_none() && start.elapsed() < Duration::from_secs(100),
            "what the first may take is no matter then"
        );
        assert!(limits.exceeded(&console).contains("within 2 s of its last word, \"sq-job 001 b\""));
        let (code, console) = watched("echo sq-job 9 no such job; exec sleep 200", &limits);
        assert!(code.is_none() && limits.exceeded(&console).contains("began no job within 2 s"));
    }

    #[test]
    fn only_a_breakpoint_in_the_kernels_own_text_is_the_emulators_fault() {
        let console = |what: &str, place: &str| {
            format!(
                "[ 8.7] Oops: {what}: 0000 [#1] PREEMPT SMP NOPTI\n[ 8.7] CPU: 0 Comm: x\n[ 8.7] RIP: 0010:{place}\n"
            )
        };
        let schedule = "__schedule+0x3a5/0xb30";
        assert_eq!(stale_translation(&console("int3", schedule)), Some(schedule));
        assert_eq!(stale_translation(&console("int3", "sq_ring_enter+0x10/0x20 [sq]")), None);
        assert_eq!(stale_translation(&console("int3", "0xffffffffc0123456")), None, "a wild pointer");
        assert_eq!(stale_translation(&console("invalid opcode", schedule)), None);
        assert_eq!(stale_translation(""), None);
    }
}

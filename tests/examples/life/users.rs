// SPDX-License-Identifier: MIT OR Apache-2.0
//! Users beside each other (LIFE-4): one stalls as many kernel workers as he can get, and only he waits for them. Run as root,
//! whose children become the users.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use sq_uapi::consts::{register_op, setup_flags, sqe_flags};

use crate::page::Page;
use crate::proc::{Child, become_user, code, shared_word, sleep_us};
use crate::raw::{NULL, READ, Raw, WRITE, echo, last, register, res, shape, transfer};
use crate::{Check, Outcome, Why, want};

const RAM: &str = "/dev/sqram";
const FILE: &str = "/dev/sqfile";

const STALLER: u32 = 1000;
const OTHERS: [u32; 2] = [1001, 0];

/// More drains than run at a time for one user.
const RINGS: u64 = 300;
/// More jobs than run at a time for one user, or for all on a queue of 512: so many files, and of each as many as a file may have.
const FILES: usize = 70;
const JOBS_OF_A_FILE: u64 = 8;

pub(crate) const CHECKS: &[Check] = &[
    ("LIFE-4: a user with all drains stalled stalls nobody else's", drains),
    ("LIFE-4: a user with all file jobs stalled stalls nobody else's", jobs),
    ("LIFE-4: a ring's user is who enabled it", enabled),
];

/// A child stalls what it can, says so by the word, and keeps it so until it is killed.
fn beside(stall: impl FnOnce(&AtomicU32) -> Outcome, works: impl Fn() -> Outcome) -> Outcome {
    let stalled = shared_word();
    let staller = Child::fork(|| {
        code(become_user(STALLER).and_then(|()| {
            stall(stalled)?;
            Err("it should have been killed".to_owned().into())
        }))
    });
    let end = Instant::now() + Duration::from_secs(60);
    while stalled.load(Ordering::Acquire) == 0 && Instant::now() < end && !staller.ended(Duration::ZERO) {
        sleep_us(1000);
    }
    let outcome = if stalled.load(Ordering::Acquire) == 0 {
        Err("nothing is stalled".to_owned().into())
    } else {
        OTHERS.iter().try_for_each(|user| {
            want!((*user, Child::fork(|| code(become_user(*user).and_then(|()| works()))).wait()), (*user, 0));
            Ok(())
        })
    };
    staller.kill();
    let ended = staller.wait();
    outcome?;
    want!(ended, 128 + libc::SIGKILL);
    Ok(())
}

fn until_killed(stalled: &AtomicU32) {
    stalled.store(1, Ordering::Release);
    loop {
        sleep_us(1_000_000);
    }
}

/// Entries through rings that workers drain.
fn worker_rings_work() -> Outcome {
    let mut null = Raw::new(NULL, shape(8, setup_flags::WORKER))?;
    let mut ram = Raw::new(RAM, shape(8, setup_flags::WORKER))?;
    for lap in 0..20 {
        let (from, mut to) = (u64::to_le_bytes(lap), [0; 8]);
        null.push(echo(1, lap));
        ram.push(transfer(WRITE, 2, from.as_ptr().expose_provenance() as u64, 8));
        ram.push(transfer(READ, 3, to.as_mut_ptr().expose_provenance() as u64, 8));
        null.bell()?;
        ram.bell()?;
        want!((lap, null.wait(1, 10_000), ram.wait(2, 10_000)), (lap, Ok(0), Ok(0)));
        want!((null.reap(), ram.reap(), to), (vec![(1, lap as i32)], vec![(2, 8), (3, 8)], from));
    }
    Ok(())
}

/// Adds rings whose drains wait for the page. It goes first if the check fails: their closes wait for it.
fn stall_rings(rings: &mut Vec<Raw>, page: &Page) -> Outcome {
    for n in 0..RINGS {
        let mut ring = Raw::new(RAM, shape(8, setup_flags::WORKER))?;
        ring.push(transfer(WRITE, n, page.addr(), 16));
        ring.bell()?;
        rings.push(ring);
    }
    want!(page.touched(), true);
    Ok(())
}

/// This user's workers are all taken: nothing of his goes on.
pub(crate) fn nothing_goes_on(mut ring: Raw, entry: [u64; 8]) -> Outcome {
    ring.push(entry);
    ring.bell()?;
    want!(ring.wait(1, 300), Err(libc::ETIME));
    Ok(())
}

fn drains() -> Outcome {
    beside(
        |stalled| {
            let mut rings = Vec::new();
            let page = Page::new()?;
            stall_rings(&mut rings, &page)?;
            nothing_goes_on(Raw::new(NULL, shape(8, setup_flags::WORKER))?, echo(1, 1))?;
            until_killed(stalled);
            Ok(())
        },
        worker_rings_work,
    )
}

/// A file in memory with sixteen bytes in it.
fn file() -> Result<File, Why> {
    // SAFETY: a NUL-terminated name.
    let fd = res(unsafe { libc::memfd_create(c"life".as_ptr(), libc::MFD_CLOEXEC) })?;
    // SAFETY: just made.
    let mut file = unsafe { File::from_raw_fd(fd) };
    file.write_all(&[7; 16]).map_err(|_| last())?;
    Ok(file)
}

/// A read of sixteen bytes by a job, also of what could be read at once.
fn job(file: &File, user_data: u64, to: u64) -> [u64; 8] {
    let mut entry = transfer(READ, user_data, to, 16);
    entry[0] = READ | u64::from(sqe_flags::ASYNC) << 8 | (file.as_raw_fd() as u64) << 32;
    entry
}

fn jobs() -> Outcome {
    let files = (0..FILES).map(|_| file()).collect::<Result<Vec<_>, _>>()?;
    beside(
        |stalled| {
            let mut ring = Raw::new(FILE, shape(1024, 0))?;
            let page = Page::new()?;
            for file in &files {
                for _ in 0..JOBS_OF_A_FILE {
                    ring.push(job(file, 1, page.addr()));
                }
            }
            want!(ring.bell(), Ok(FILES as i32 * JOBS_OF_A_FILE as i32));
            want!(page.touched(), true);
            let (own, mut to) = (file()?, [0u8; 16]);
            let entry = job(&own, 1, to.as_mut_ptr().expose_provenance() as u64);
            nothing_goes_on(Raw::new(FILE, shape(8, 0))?, entry)?;
            until_killed(stalled);
            Ok(())
        },
        || {
            let mut ring = Raw::new(FILE, shape(8, 0))?;
            let own = file()?;
            // The other user's jobs wait on the second, too.
            for file in [&own, &files[0]] {
                let mut to = [0u8; 16];
                ring.push(job(file, 1, to.as_mut_ptr().expose_provenance() as u64));
                ring.bell()?;
                want!(ring.wait(1, 10_000), Ok(0));
                want!((ring.reap(), to), (vec![(1, 16)], [7; 16]));
            }
            worker_rings_work()
        },
    )
}

/// Made by the staller, before he is one, and enabled by another: no stall of the first one's holds it up.
fn enabled() -> Outcome {
    let mut setup = shape(8, setup_flags::WORKER | setup_flags::R_DISABLED);
    let [ours, theirs] = crate::pass::pair()?;
    beside(
        |stalled| {
            let fd = crate::raw::set_up(NULL, &mut setup)?;
            for _ in OTHERS {
                crate::pass::send(&ours, &fd, &setup)?;
            }
            drop(fd);
            let mut rings = Vec::new();
            let page = Page::new()?;
            stall_rings(&mut rings, &page)?;
            until_killed(stalled);
            Ok(())
        },
        || {
            let (fd, setup) = crate::pass::receive(&theirs)?;
            let enabled = register(fd.as_raw_fd(), register_op::ENABLE_RINGS, 0, 0);
            // SAFETY: no pointers.
            if unsafe { libc::getuid() } != OTHERS[0] {
                // The first one has it.
                want!(enabled, Err(libc::EXDEV));
                return Ok(());
            }
            enabled?;
            let mut ring = Raw::over(fd, setup)?;
            ring.push(echo(1, 5));
            ring.bell()?;
            want!(ring.wait(1, 10_000), Ok(0));
            want!(ring.reap(), [(1, 5)]);
            Ok(())
        },
    )
}

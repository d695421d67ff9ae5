// SPDX-License-Identifier: MIT OR Apache-2.0
//! Modules loaded, used and unloaded again and again: `life unload MODULE..`, in the order in which they load. Run as root.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::ExitCode;

use crate::raw::{NULL, Raw, delay, last, never, nop, open, shape};
use crate::{Outcome, times, want};

pub(crate) fn main(modules: &[String]) -> ExitCode {
    match refused(modules).and_then(|()| again_and_again(modules)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            println!("FAILED  {why}");
            ExitCode::FAILURE
        }
    }
}

/// A module that is in use stays.
fn refused(modules: &[String]) -> Outcome {
    let file = open(NULL)?;
    want!(unload("sq_null"), Err(libc::EAGAIN));
    want!(unload("sq"), Err(libc::EAGAIN));
    drop(file);
    // By its mapping alone, with requests in flight.
    let mut ring = Raw::new(NULL, shape(8, 0))?;
    ring.push(never(1));
    ring.bell()?;
    let Raw { user, kernel, fd, .. } = ring;
    drop((fd, user));
    want!(unload("sq_null"), Err(libc::EAGAIN));
    drop(kernel);
    crate::proc::all_given_back()?;
    // At once: nothing is left to wait for.
    unload_all(modules)
}

fn again_and_again(modules: &[String]) -> Outcome {
    for turn in 0..times(100, 1000) {
        for module in modules {
            load(module).map_err(|errno| format!("turn {turn}: loading {module}: error {errno}"))?;
        }
        for module in modules.iter().filter(|module| *module != "sq") {
            want!(Path::new(&format!("/dev/{}", module.replacen('_', "", 1))).exists(), true);
        }
        let mut ring = Raw::new(NULL, shape(8, 0))?;
        ring.push(nop(1));
        ring.push(delay(2, 100_000));
        ring.push(never(3));
        ring.bell()?;
        want!(ring.wait(1, 5000), Ok(0));
        drop(ring);
        // The last worker's reference is soon gone, not at once.
        crate::proc::all_given_back()?;
        unload_all(modules)?;
    }
    Ok(())
}

fn unload_all(modules: &[String]) -> Outcome {
    for module in modules.iter().rev() {
        unload(module).map_err(|errno| format!("unloading {module}: error {errno}"))?;
    }
    Ok(())
}

pub(crate) fn load(name: &str) -> Result<(), i32> {
    let file = File::open(format!("/lib/modules/{name}.ko")).map_err(|_| libc::ENOENT)?;
    // SAFETY: an open file, no parameters.
    let done = unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0) };
    if done < 0 { Err(last()) } else { Ok(()) }
}

pub(crate) fn unload(name: &str) -> Result<(), i32> {
    let name = CString::new(name).map_err(|_| libc::EINVAL)?;
    // SAFETY: a NUL-terminated name.
    let done = unsafe { libc::syscall(libc::SYS_delete_module, name.as_ptr(), libc::O_NONBLOCK) };
    if done < 0 { Err(last()) } else { Ok(()) }
}

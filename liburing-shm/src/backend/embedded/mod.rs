// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel side in this process: the same code that the module is made of.
//!
//! The ring's memory is one memfd, mapped twice: the kernel side's mapping is writable throughout, the user half's is
//! read-only where the kernel writes. So a user half that oversteps faults here as it would with the module.

mod background;
mod caller;
mod host;
mod memory;

use std::any::Any;
use std::fmt;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::Arc;

use kmod_sq::{Doors, Geometry, Host, Mode, Ring, RingRef, call::ring_call, query};
use rustix::process::Pid;
use sq_driver::{Bound, Driver};
use sq_uapi::{Errno, SqQuery, SqQuiesce, SqSetup, ioctl};

use super::{Door, Mappings, Opened};
use crate::Error;
use crate::call::bytes_of_mut;
use caller::{Alone, issue};
use host::ProcessHost;
pub(crate) use memory::Memory;

/// A driver in this process.
pub(super) struct Embedded {
    bound: Bound,
    /// Keeps what `bound` points to.
    driver: Arc<dyn Any + Send + Sync>,
}

impl Embedded {
    pub(super) fn new<D: Driver>(driver: D) -> Result<Self, Error> {
        let driver = Arc::new(driver);
        let data = Arc::as_ptr(&driver).cast();
        // SAFETY: the table is D's own and `data` a D, which is Sync. Every copy of `bound` is in this value or in a ring, whose host
        // keeps a clone of `driver` too.
        let bound = unsafe { Bound::new(sq_driver::table::<D>(), data) }
            .map_err(|errno| Error::Call { what: "driver table", errno })?;
        Ok(Self { bound, driver })
    }

    pub(super) fn name(&self) -> String {
        self.bound.name().to_string_lossy().into_owned()
    }

    pub(super) fn query(&self, ask: &SqQuery) -> Result<SqQuery, Error> {
        query(&self.bound, &ProcessHost::ABILITIES, ask).map_err(|errno| Error::Call { what: "query", errno })
    }

    pub(super) fn open(&self) -> Box<dyn Door> {
        Box::new(Alone::new(self.bound, Arc::clone(&self.driver)))
    }

    pub(super) fn setup(&self, setup: &mut SqSetup) -> Result<Opened, Error> {
        // Through bytes, as a system call would, so that sizes are checked by the same code.
        let mut asked: SqSetup = kmod_sq::call::read(bytes_of_mut(setup)).map_err(setup_error)?;
        let geometry = Geometry::new(&asked).map_err(setup_error)?;
        if geometry.cpu.is_some_and(|cpu| !background::may_run_on(cpu)) {
            return Err(setup_error(Errno::EINVAL));
        }
        let memory = Arc::new(Memory::new(&geometry)?);
        // SAFETY: the memory is mapped while `memory` lives, which the host keeps; the kernel side uses only KernelMem.
        let mem = unsafe { memory.kernel_side(&geometry) };
        let pool = memory.kernel_pool().map_or(0, |start| start.as_ptr().expose_provenance());
        let host = ProcessHost::new(Arc::clone(&memory), Arc::clone(&self.driver));
        // SAFETY: the pool is mapped while the host, and so the ring, keeps `memory`; the ring is put in its place next.
        let ring = unsafe { Ring::new(host, mem, geometry, pool, self.bound) }.map_err(setup_error)?;
        let ring = NonNull::from(Box::leak(Box::new(ring)));
        // SAFETY: boxed, as ProcessHost::free expects, and the first reference.
        let ring = unsafe { RingRef::from_raw(ring) };
        geometry.report(&mut asked, Ring::<ProcessHost>::features(&geometry, &self.bound));
        kmod_sq::call::write(&asked, bytes_of_mut(setup));
        // SAFETY: as above, for the other mapping; the user half uses only UserMem.
        let mem = unsafe { memory.user_side(&geometry) };
        if geometry.mode != Mode::Caller {
            background::start(&ring).map_err(|source| Error::Thread { source })?;
        }
        Ok(Opened {
            bell: None,
            door: Box::new(Inside {
                ring: ManuallyDrop::new(ring),
                doors: Doors::new(self.bound),
                owner: rustix::process::getpid(),
            }),
            mem,
            pool: memory.user_pool(),
            _mappings: Mappings::Embedded(memory),
        })
    }
}

fn setup_error(errno: Errno) -> Error {
    Error::Call { what: "setup", errno }
}

/// The way to a ring in this process: its file, so to say.
struct Inside {
    ring: ManuallyDrop<RingRef<ProcessHost>>,
    /// Of the ring's driver, which the ring keeps.
    doors: Doors,
    /// LIFE-3: the process that set it up. A forked child has neither its memory nor its threads.
    owner: Pid,
}

impl Inside {
    fn is_ours(&self) -> bool {
        rustix::process::getpid() == self.owner
    }
}

impl fmt::Debug for Inside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Inside").finish_non_exhaustive()
    }
}

impl Door for Inside {
    fn call(&self, number: u32, arg: &mut [u8]) -> Result<u32, Errno> {
        // A doorbell is too frequent to ask the kernel who we are, and a child must not push.
        let bare_doorbell = number == ioctl::ENTER && arg.is_empty();
        if !bare_doorbell && !self.is_ours() {
            return Err(Errno::EXDEV);
        }
        match number {
            ioctl::ISSUE => issue(&self.doors, arg, self.ring.allowed()),
            _ => ring_call(&self.ring, number, arg),
        }
    }
}

/// How long a ring that is dropped waits for its requests. What is in flight after that keeps the memory it needs.
const PATIENCE_NS: u64 = 1_000_000_000;

impl Drop for Inside {
    fn drop(&mut self) {
        if !self.is_ours() {
            // Leaked, in a child: its parent's ring is not its to end.
            return;
        }
        let quiesce =
            SqQuiesce { size: size_of::<SqQuiesce>() as u32, timeout_ns: PATIENCE_NS, ..SqQuiesce::default() };
        // What outlives it is an orphan: it keeps the ring's memory by its own reference, and its completion is dropped.
        let _ = self.ring.quiesce(&quiesce);
        self.ring.forget_files();
        self.ring.host().background().stop();
        // SAFETY: dropped once, here, and not used after.
        unsafe { ManuallyDrop::drop(&mut self.ring) };
    }
}

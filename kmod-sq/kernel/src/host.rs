// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel as a ring's surroundings.

use core::ffi::c_void;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use kmod_sq::{Abilities, Event, Host, HostFile, Mode, Notify, Poller, Ring, Waited};
use sq_uapi::consts::{enter_flags, setup_flags};
use sq_uapi::{Errno, Mapped};

use crate::array::Array;
use crate::ffi;
use crate::lock::SpinLock;

/// A ring of this module.
pub(crate) type KernelRing = Ring<KernelHost>;

/// What one ring stands on.
pub(crate) struct KernelHost(NonNull<ffi::Home>);

// SAFETY: every function of the glue that takes a home may be called from any thread.
unsafe impl Send for KernelHost {}
// SAFETY: as above.
unsafe impl Sync for KernelHost {}

impl KernelHost {
    /// # Safety
    ///
    /// The promise **home**, for as long as the value exists.
    pub(crate) const unsafe fn new(home: NonNull<ffi::Home>) -> Self {
        Self(home)
    }

    const fn home(&self) -> *mut ffi::Home {
        self.0.as_ptr()
    }
}

/// The polling thread, as C keeps it, during one turn.
pub(crate) struct Turn(*mut ffi::Turn);

impl Turn {
    /// # Safety
    ///
    /// `turn` is the calling thread's, for as long as the value exists.
    pub(crate) const unsafe fn new(turn: *mut ffi::Turn) -> Self {
        Self(turn)
    }
}

impl Poller for Turn {
    fn busy(&mut self) -> bool {
        // SAFETY: the contract of `new`.
        unsafe { ffi::sq_poll_busy(self.0) }
    }

    fn relax(&mut self) {
        // SAFETY: as above.
        unsafe { ffi::sq_poll_relax(self.0) };
    }

    fn leaves(&mut self) -> bool {
        // SAFETY: as above.
        unsafe { ffi::sq_poll_leaves(self.0) }
    }
}

/// An open file, counted.
pub(crate) struct KernelFile(NonNull<ffi::File>);

impl KernelFile {
    /// The file that `fd` names in the calling process.
    pub(crate) fn of(fd: i32) -> Result<Self, Errno> {
        // SAFETY: no precondition.
        let file = unsafe { ffi::sq_file_get(fd) };
        // The kernel's ERR_PTR: the last page of addresses is error numbers.
        let error = i32::try_from(file.addr().cast_signed()).ok().and_then(i32::checked_neg).and_then(Errno::new);
        match (error, NonNull::new(file)) {
            (None, Some(file)) => Ok(KernelFile(file)),
            (error, _) => Err(error.unwrap_or(Errno::EBADF)),
        }
    }
}

// SAFETY: a `struct file` is counted atomically, and has no thread.
unsafe impl Send for KernelFile {}
// SAFETY: as above.
unsafe impl Sync for KernelFile {}

impl HostFile for KernelFile {
    fn target(&self) -> usize {
        self.0.as_ptr().expose_provenance()
    }
}

impl Clone for KernelFile {
    fn clone(&self) -> Self {
        // SAFETY: this value holds a reference already.
        unsafe { ffi::sq_file_ref(self.0.as_ptr()) };
        Self(self.0)
    }
}

impl Drop for KernelFile {
    fn drop(&mut self) {
        // SAFETY: this value's own reference, which goes with it.
        unsafe { ffi::sq_file_put(self.0.as_ptr()) };
    }
}

impl Host for KernelHost {
    const ABILITIES: Abilities =
        Abilities { features: 0, setup_flags: setup_flags::ALL, enter_flags: enter_flags::ALL };

    type Mem = Mapped;
    type Lock<T: Send> = SpinLock<T>;
    type Array<T: Send> = Array<T>;
    type File = KernelFile;

    fn array<T: Send>(len: usize, make: impl FnMut(usize) -> T) -> Result<Array<T>, Errno> {
        Array::new(len, make)
    }

    unsafe fn copy_from_user(&self, dst: *mut u8, addr: u64, len: usize) -> Result<(), Errno> {
        // SAFETY: **home**; `dst` by contract; the user address is checked by the kernel.
        done(unsafe { ffi::sq_copy_in(self.home(), dst, addr, len) })
    }

    unsafe fn copy_to_user(&self, addr: u64, src: *const u8, len: usize) -> Result<(), Errno> {
        // SAFETY: as above, with `src`.
        done(unsafe { ffi::sq_copy_out(self.home(), addr, src, len) })
    }

    fn enter_user(&self) -> Result<(), Errno> {
        // SAFETY: **home**.
        done(unsafe { ffi::sq_user_enter(self.home()) })
    }

    fn leave_user(&self) {
        // SAFETY: **home**, and `enter_user` succeeded in this thread (the trait's contract).
        unsafe { ffi::sq_user_leave(self.home()) };
    }

    fn file(&self, fd: i32) -> Result<KernelFile, Errno> {
        KernelFile::of(fd)
    }

    fn set_eventfd(&self, fd: Option<i32>) -> Result<(), Errno> {
        if fd.is_some_and(i32::is_negative) {
            return Err(Errno::EBADF);
        }
        // SAFETY: **home**. The caller is a process: REGISTER.
        done(unsafe { ffi::sq_eventfd_set(self.home(), fd.unwrap_or(-1)) })
    }

    fn notify(&self, whom: Notify) {
        // SAFETY: **home**.
        unsafe { ffi::sq_notify(self.home(), whom.waiters, whom.eventfd) };
    }

    fn work(ring: &KernelRing) {
        if ring.geometry().mode == Mode::Poll {
            // SAFETY: **home**, and **poller**: there is no ring in this mode without one.
            unsafe { ffi::sq_poll_wake(ring.host().home()) };
            return;
        }
        let reference = ring.keep();
        // SAFETY: **home**.
        if unsafe { ffi::sq_queue_drain(ring.host().home()) } {
            // The work has it now, and gives it up by sq_ring_put.
            core::mem::forget(reference);
        }
    }

    fn alarm(ring: &KernelRing, at_ns: u64) {
        // SAFETY: **home**.
        unsafe { ffi::sq_set_alarm(ring.host().home(), at_ns) };
    }

    fn now_ns(&self) -> u64 {
        // SAFETY: no precondition.
        unsafe { ffi::sq_now_ns() }
    }

    fn pause(&self) -> Result<(), Errno> {
        // SAFETY: no precondition. No lock is held (the trait's contract), and whoever drains or cancels may sleep.
        done(unsafe { ffi::sq_pause() })
    }

    fn wait(&self, deadline: Option<u64>, mut ready: &mut dyn FnMut() -> bool) -> Waited {
        let context: *mut &mut dyn FnMut() -> bool = &raw mut ready;
        // SAFETY: **home**. `context` is what `call` expects, until this returns.
        match unsafe { ffi::sq_wait(self.home(), deadline.unwrap_or(u64::MAX), call, context.cast()) } {
            ffi::WAIT_READY => Waited::Ready,
            ffi::WAIT_TIMEOUT => Waited::Timeout,
            _ => Waited::Signal,
        }
    }

    #[inline]
    fn traces_completions(&self) -> bool {
        // SAFETY: an `int` that lives as long as the module, and both sides access it as one.
        let traced = unsafe { &ffi::sq_completions_traced };
        traced.load(Ordering::Relaxed) != 0
    }

    #[cold]
    fn trace(&self, event: Event) {
        match event {
            Event::Reject { user_data, opcode, errno } => {
                // SAFETY: **home**.
                unsafe { ffi::sq_trace_reject(self.home(), user_data, opcode, errno.to_res()) };
            }
            Event::Complete { user_data, res } => {
                // SAFETY: **home**.
                unsafe { ffi::sq_trace_complete(self.home(), user_data, res) };
            }
            Event::Stall { slots } => {
                // SAFETY: **home**.
                unsafe { ffi::sq_trace_stall(self.home(), slots) };
            }
        }
    }

    unsafe fn free(ring: NonNull<KernelRing>) {
        // SAFETY: the contract: the ring is still whole, only nobody refers to it.
        let home = unsafe { ring.as_ref() }.host().home();
        // A worker does it, whatever context the last reference went in.
        // SAFETY: **home**; this is called once a ring.
        unsafe { ffi::sq_queue_free(home) };
    }
}

/// # Safety
///
/// `context` is a `&mut &mut dyn FnMut() -> bool` that nobody else uses meanwhile.
unsafe extern "C" fn call(context: *mut c_void) -> bool {
    // SAFETY: the contract.
    let ready = unsafe { &mut *context.cast::<&mut dyn FnMut() -> bool>() };
    ready()
}

/// 0 or a negative error number.
pub(crate) fn done(res: i32) -> Result<(), Errno> {
    Errno::from_res(res).map(|_| ())
}

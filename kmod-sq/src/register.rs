// SPDX-License-Identifier: MIT OR Apache-2.0
//! REGISTER: files, the eventfd, the opcode mask, and enabling a ring.

use sq_uapi::consts::{limit, register_op};
use sq_uapi::{Errno, SqRegister};

use crate::geometry::nospec;
use crate::host::{Host, Lock};
use crate::ix;
use crate::ring::Ring;

/// Every operation that [`Ring::register`] knows, as QUERY reports them.
pub(crate) const OPS: u64 = 1 << register_op::FILES
    | 1 << register_op::UNREGISTER_FILES
    | 1 << register_op::FILES_UPDATE
    | 1 << register_op::EVENTFD
    | 1 << register_op::UNREGISTER_EVENTFD
    | 1 << register_op::ALLOW_OPCODES
    | 1 << register_op::ENABLE_RINGS;

/// The registered files. Requests in flight hold their own reference to what they use.
pub(crate) struct Files<H: Host>(Option<H::Array<Option<H::File>>>);

impl<H: Host> Default for Files<H> {
    fn default() -> Self {
        Self(None)
    }
}

impl<H: Host> Files<H> {
    pub(crate) fn table(&self) -> Option<&[Option<H::File>]> {
        self.0.as_deref()
    }
}

impl<H: Host> Ring<H> {
    /// REGISTER. See [`register_op`]. Returns 0, or for `FILES_UPDATE` how many were replaced.
    ///
    /// # Errors
    ///
    /// `EINVAL` for an unknown operation, a reserved field or a count out of range; `EFAULT` if `arg` cannot be read; `EBADF` for
    /// a descriptor that is no file or may not be one; `EBUSY` if there is one already, `ENXIO` if there is none;
    /// `EOPNOTSUPP` for files with a driver that takes none; `ENOMEM`.
    pub fn register(&self, reg: &SqRegister) -> Result<u32, Errno> {
        if reg.resv != [0; 2] || (reg.op != register_op::FILES_UPDATE && reg.offset != 0) {
            return Err(Errno::EINVAL);
        }
        match reg.op {
            register_op::FILES => self.register_files(reg),
            register_op::FILES_UPDATE => self.update_files(reg),
            register_op::UNREGISTER_FILES => {
                bare(reg)?;
                // Taken out under the lock, closed after it.
                let old = self.files.with(|files| files.0.take());
                old.map(|_| 0).ok_or(Errno::ENXIO)
            }
            register_op::EVENTFD => {
                let fd: i32 = self.one(reg)?;
                // The home has the last word on whether there is one. The flag says "signal": set last and cleared first,
                // it may be set in vain, but is never missing.
                self.host.set_eventfd(Some(fd))?;
                self.cq.with(|cq| cq.signal_eventfd(&self.mem, &self.posted, true));
                Ok(0)
            }
            register_op::UNREGISTER_EVENTFD => {
                bare(reg)?;
                self.cq.with(|cq| cq.signal_eventfd(&self.mem, &self.posted, false));
                self.host.set_eventfd(None)?;
                Ok(0)
            }
            register_op::ALLOW_OPCODES => {
                let allowed: u64 = self.one(reg)?;
                // The table belongs to the drain owner. Whoever drains meanwhile is in the way, and is not told: try again.
                let mut owner = self.own_if_free().ok_or(Errno::EBUSY)?;
                self.allow(allowed);
                owner.restrict(allowed);
                if let Some(back) = owner.release() {
                    back.abandon();
                    H::work(self);
                }
                Ok(0)
            }
            register_op::ENABLE_RINGS => {
                bare(reg)?;
                self.enable()?;
                Ok(0)
            }
            _ => Err(Errno::EINVAL),
        }
    }

    fn register_files(&self, reg: &SqRegister) -> Result<u32, Errno> {
        if !self.driver.files() {
            return Err(Errno::EOPNOTSUPP);
        }
        if reg.nr == 0 || reg.nr > limit::FILES {
            return Err(Errno::EINVAL);
        }
        let mut wrong = None;
        let table = H::array(ix(reg.nr), |i| match self.file_at(reg.arg, i) {
            Ok(file) => file,
            Err(errno) => {
                wrong = wrong.or(Some(errno));
                None
            }
        })?;
        if let Some(errno) = wrong {
            return Err(errno);
        }
        // If there is a table already, this one is closed after the lock.
        let refused = self.files.with(|files| match &files.0 {
            Some(_) => Some(table),
            None => {
                files.0 = Some(table);
                None
            }
        });
        if refused.is_some() { Err(Errno::EBUSY) } else { Ok(0) }
    }

    fn update_files(&self, reg: &SqRegister) -> Result<u32, Errno> {
        let count = self.files.with(|files| files.table().map(<[_]>::len)).ok_or(Errno::ENXIO)?;
        let count = u32::try_from(count).map_err(|_| Errno::EINVAL)?;
        let end = reg.offset.checked_add(reg.nr).ok_or(Errno::EINVAL)?;
        if reg.nr == 0 || end > count {
            return Err(Errno::EINVAL);
        }
        for i in 0..reg.nr {
            let mut file = match self.file_at(reg.arg, ix(i)) {
                Ok(file) => file,
                // As in io_uring: what was replaced stays, and the count says so.
                Err(_) if i > 0 => return Ok(i),
                Err(errno) => return Err(errno),
            };
            // The one that was there, or the new one, is closed after the lock.
            let swapped = self.files.with(|files| {
                // Another thread may have put in a shorter one meanwhile, or none.
                let table = files.0.as_mut()?;
                let at = nospec(reg.offset.saturating_add(i), u32::try_from(table.len()).ok()?)?;
                core::mem::swap(table.get_mut(ix(at))?, &mut file);
                Some(())
            });
            swapped.ok_or(Errno::ENXIO)?;
        }
        Ok(reg.nr)
    }

    /// The `i`th descriptor of an array at user address `arg`; -1 is a hole.
    fn file_at(&self, arg: u64, i: usize) -> Result<Option<H::File>, Errno> {
        let offset = u64::try_from(i.saturating_mul(4)).map_err(|_| Errno::EFAULT)?;
        let mut fd = [0u8; 4];
        let addr = arg.checked_add(offset).ok_or(Errno::EFAULT)?;
        // SAFETY: `fd` is 4 writable bytes.
        unsafe { self.host.copy_from_user(fd.as_mut_ptr(), addr, 4) }?;
        match i32::from_le_bytes(fd) {
            -1 => Ok(None),
            fd => self.host.file(fd).map(Some),
        }
    }

    fn one<T: FromBytes>(&self, reg: &SqRegister) -> Result<T, Errno> {
        if reg.nr != 1 {
            return Err(Errno::EINVAL);
        }
        let mut bytes = [0u8; 8];
        // SAFETY: `bytes` is 8 writable bytes, and SIZE is at most that.
        unsafe { self.host.copy_from_user(bytes.as_mut_ptr(), reg.arg, T::SIZE) }?;
        Ok(T::from_le(bytes))
    }
}

/// Operations without an argument take none.
fn bare(reg: &SqRegister) -> Result<(), Errno> {
    if reg.arg != 0 || reg.nr != 0 { Err(Errno::EINVAL) } else { Ok(()) }
}

trait FromBytes {
    const SIZE: usize;
    fn from_le(bytes: [u8; 8]) -> Self;
}

impl FromBytes for i32 {
    const SIZE: usize = 4;
    fn from_le([a, b, c, d, ..]: [u8; 8]) -> Self {
        Self::from_le_bytes([a, b, c, d])
    }
}

impl FromBytes for u64 {
    const SIZE: usize = 8;
    fn from_le(bytes: [u8; 8]) -> Self {
        Self::from_le_bytes(bytes)
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Error numbers: positive in a newtype, negated in one place, at the edge of a CQE or an ioctl's return value.

use core::fmt;

/// A Linux error number, always positive (1..=4095).
///
/// The set is open: a driver may report any errno. The constants are those that sq itself returns.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Errno(i32);

macro_rules! errnos {
    ($($name:ident = $value:literal, $text:literal;)*) => {
        impl Errno {
            $(#[doc = concat!("`", stringify!($name), "` (", $value, "): ", $text, ".")]
            pub const $name: Self = Self($value);)*

            /// The C name, if it is one of the constants here.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some(stringify!($name)),)*
                    _ => None,
                }
            }

            /// What the number means, in a few lower-case words.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self.0 {
                    $($value => $text,)*
                    _ => "unknown error",
                }
            }
        }
    };
}

errnos! {
    EPERM = 1, "operation not permitted";
    ENOENT = 2, "no such entry";
    EINTR = 4, "interrupted by a signal";
    EIO = 5, "input/output error";
    ENXIO = 6, "no such device or address";
    E2BIG = 7, "argument or chain too long";
    EBADF = 9, "bad file descriptor";
    EAGAIN = 11, "would block";
    ENOMEM = 12, "out of memory";
    EACCES = 13, "permission denied";
    EFAULT = 14, "bad address";
    EBUSY = 16, "busy";
    EEXIST = 17, "already exists";
    EXDEV = 18, "the ring belongs to another process";
    ENODEV = 19, "no such device";
    EINVAL = 22, "invalid argument";
    EMFILE = 24, "too many open files";
    ENOTTY = 25, "not an sq device, or an unknown call";
    EFBIG = 27, "file too large";
    ENOSPC = 28, "no space left";
    ERANGE = 34, "out of range";
    ENOSYS = 38, "not implemented";
    ETIME = 62, "timer expired";
    EOVERFLOW = 75, "value too large";
    EBADFD = 77, "the ring is broken or shut down";
    EOPNOTSUPP = 95, "operation not supported";
    ENOBUFS = 105, "no buffer space";
    ESHUTDOWN = 108, "the ring has been quiesced";
    EALREADY = 114, "already in progress";
    ECANCELED = 125, "canceled";
}

impl Errno {
    /// The largest number that is an error: the kernel's `MAX_ERRNO`.
    pub const MAX: i32 = 4095;

    /// An error number from its positive value, or `None` if it is not in 1..=4095.
    #[must_use]
    pub const fn new(raw: i32) -> Option<Self> {
        if raw >= 1 && raw <= Self::MAX { Some(Self(raw)) } else { None }
    }

    /// The positive number.
    #[must_use]
    pub const fn raw(self) -> i32 {
        self.0
    }

    /// The number as a CQE's `res` or a system call's return value has it: negative.
    ///
    /// This is the one place where the sign changes on the way out; [`Errno::from_res`] is its inverse.
    #[must_use]
    #[allow(clippy::arithmetic_side_effects, reason = "1..=4095 has a negative in i32")]
    pub const fn to_res(self) -> i32 {
        -self.0
    }

    /// Splits a CQE's `res`: a non-negative value is a result, a negative one an error.
    ///
    /// # Errors
    ///
    /// The error that `res` carries. A value below -4095 is no errno at all and is reported as [`Errno::EIO`].
    pub const fn from_res(res: i32) -> Result<u32, Self> {
        if res >= 0 {
            Ok(res.unsigned_abs())
        } else {
            match res.checked_neg() {
                Some(raw) if raw <= Self::MAX => Err(Self(raw)),
                _ => Err(Self::EIO),
            }
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "Errno({})", self.0),
        }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{} ({name}, errno {})", self.text(), self.0),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl core::error::Error for Errno {}

#[cfg(test)]
mod tests {
    use super::Errno;

    #[test]
    fn sign_changes_once() {
        assert_eq!(Errno::EINVAL.to_res(), -22);
        assert_eq!(Errno::from_res(-22), Err(Errno::EINVAL));
        assert_eq!(Errno::from_res(i32::MAX), Ok(0x7fff_ffff));
        assert_eq!(Errno::from_res(-4095).unwrap_err().raw(), 4095);
        assert_eq!(Errno::from_res(-4096), Err(Errno::EIO));
        assert_eq!(Errno::from_res(i32::MIN), Err(Errno::EIO));
        assert_eq!(Errno::new(0), None);
        assert_eq!(Errno::new(4096), None);
    }
}

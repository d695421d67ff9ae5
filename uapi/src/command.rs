// SPDX-License-Identifier: MIT OR Apache-2.0
//! A driver's own commands, as types that both sides know.

/// A driver's own command: its number and its bytes. Usually made by [`command!`](crate::command!).
///
/// Anybody may send one, with any bytes, from safe code. So no driver may take one of them for an address of its user's memory:
/// addresses are what an entry's `addr` and `len` are for.
pub trait Command: Sized {
    /// The driver's number for it: `cmd_op`.
    const CMD_OP: u32;
    /// `[u8; N]`, N at most 16 in an entry of 64 bytes and at most 80 in one of 128.
    type Bytes: Bytes;
    /// The bytes of `cmd`.
    fn to_bytes(&self) -> Self::Bytes;
    /// The command of these bytes. Whoever wrote the entry chose them: any bytes at all must do.
    fn from_bytes(bytes: Self::Bytes) -> Self;
}

/// Arrays of bytes: what a [`Command`] may be made of. Their size is what there is to send.
pub trait Bytes: AsRef<[u8]> + AsMut<[u8]> + sealed::Sealed {
    /// All zeros.
    const ZERO: Self;
}

impl<const N: usize> Bytes for [u8; N] {
    const ZERO: Self = [0; N];
}

mod sealed {
    pub trait Sealed {}

    impl<const N: usize> Sealed for [u8; N] {}
}

/// Defines commands of integers: `struct NAME = CMD_OP { field: integer, .. }`.
///
/// The bytes are the fields one after another, little-endian and without padding: those of a C struct whose larger fields come first.
///
/// ```
/// use sq_uapi::{Command, command};
///
/// command! {
///     /// Blinks.
///     pub struct Blink = 7 {
///         /// How often.
///         pub times: u32,
///         /// Milliseconds in between.
///         pub pause_ms: u16,
///     }
/// }
///
/// let blink = Blink { times: 3, pause_ms: 0x201 };
/// assert_eq!(blink.to_bytes(), [3, 0, 0, 0, 1, 2]);
/// assert_eq!(Blink::from_bytes(blink.to_bytes()), blink);
/// ```
#[macro_export]
macro_rules! command {
    ($($(#[$attr:meta])* $vis:vis struct $name:ident = $cmd_op:literal {
        $($(#[$field_attr:meta])* $field_vis:vis $field:ident: $int:ty),* $(,)?
    })*) => {$(
        $(#[$attr])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis struct $name {
            $($(#[$field_attr])* $field_vis $field: $int,)*
        }

        impl $crate::Command for $name {
            const CMD_OP: u32 = $cmd_op;
            type Bytes = [u8; 0 $(+ ::core::mem::size_of::<$int>())*];

            fn to_bytes(&self) -> Self::Bytes {
                let mut bytes = <Self::Bytes as $crate::Bytes>::ZERO;
                let fields = ::core::iter::empty()$(.chain(self.$field.to_le_bytes()))*;
                bytes.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
                bytes
            }

            fn from_bytes(bytes: Self::Bytes) -> Self {
                let mut bytes = bytes.into_iter();
                Self { $($field: <$int>::from_le_bytes(::core::array::from_fn(|_| bytes.next().unwrap_or(0))),)* }
            }
        }
    )*};
}

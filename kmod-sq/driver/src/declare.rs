// SPDX-License-Identifier: MIT OR Apache-2.0
//! From a driver crate to a module.

/// Says which driver the module made of this crate is: its type, and its value as a constant.
///
/// The module's C half (`include/sq_rust.h`) registers it. In a process the macro only checks both: there a driver is handed to
/// `Backend::embedded`.
///
/// ```
/// use sq_driver::{Driver, Issued, Op, Opcodes, RequestId};
///
/// struct Null;
///
/// impl Driver for Null {
///     const NAME: &'static core::ffi::CStr = c"null";
///     const OPCODES: Opcodes = Opcodes::NONE.with(sq_driver::op::NOP);
///
///     fn issue<'op>(&self, op: Op<'op>) -> Issued<'op> {
///         op.done(0)
///     }
///
///     fn cancel(&self, _: RequestId) {}
/// }
///
/// sq_driver::declare_driver!(Null, Null);
/// ```
#[cfg(not(target_os = "none"))]
#[macro_export]
macro_rules! declare_driver {
    ($type:ty, $value:expr) => {
        const _: fn() = || {
            const fn is_driver<D: $crate::Driver>(_: &D) {}
            static DRIVER: $type = $value;
            is_driver(&DRIVER);
        };
    };
}

/// Says which driver the module made of this crate is: its type, and its value as a constant.
#[cfg(target_os = "none")]
#[macro_export]
macro_rules! declare_driver {
    ($type:ty, $value:expr) => {
        const _: () = {
            static DRIVER: $type = $value;

            #[unsafe(no_mangle)]
            extern "C" fn sq_module_table() -> *const $crate::abi::Table {
                $crate::table::<$type>()
            }

            #[unsafe(no_mangle)]
            extern "C" fn sq_module_data() -> *const ::core::ffi::c_void {
                (&raw const DRIVER).cast()
            }
        };
    };
}

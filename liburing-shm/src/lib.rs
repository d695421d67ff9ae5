// SPDX-License-Identifier: MIT OR Apache-2.0
//! io_uring-style queues of a kernel module, or of a driver in the same process.
//!
//! A [`Ring`] is a submission queue and a completion queue in memory that this process shares with the kernel side. Push
//! entries, [`submit`](Ring::submit) them with one doorbell, reap their completions. The same program runs on a loaded module
//! (`/dev/sq*`) and on the *embedded* backend, where the same kernel-side code runs in this process; the [`Backend`]
//! is chosen at run time.
//!
//! ```
//! use liburing_shm::{Backend, Ring, opcode};
//!
//! # fn main() -> Result<(), liburing_shm::Error> {
//! let mut ring = Ring::builder(64).build(&Backend::embedded(sq_null::Null)?)?;
//! for n in 0..3 {
//!     ring.submission().push(opcode::Nop::new().build().user_data(n))?;
//! }
//! ring.submit_and_wait(3)?;
//! for completion in ring.completion().reap() {
//!     println!("{}: {:?}", completion.user_data(), completion.result());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Two layers stand on this:
//!
//! - the familiar one, here: builder, [`opcode`]s, split halves. An entry that carries a raw address needs `unsafe` to push;
//!   entries with no address, or with a place in the ring's own buffers, do not.
//! - [`safe`]: buffers are owned by the ring; an operation takes its buffer and the completion gives it back.
//!
//! # Who may do what
//!
//! [`Ring::split`] gives one [`SubmissionQueue`] and one [`CompletionQueue`], each `Send`: one thread submits, one reaps.
//! [`SharedSubmissionQueue`] lets many threads submit. [`Submitter`] is what both may do: wait, register, cancel, look at counters.
//!
//! # Threat model
//!
//! The library trusts the kernel side, as every program does, but not its own user: nothing in the safe API leads to undefined
//! behaviour, whatever is leaked, dropped early or moved to another thread.

mod backend;
mod builder;
mod call;
mod device;
mod entry;
mod error;
pub mod opcode;
mod pool;
mod queue;
pub mod ring;
pub mod safe;
mod submitter;

pub use backend::Backend;
pub use builder::Builder;
pub use device::Device;
pub use entry::{Completion, Entry, RawEntry};
pub use error::{Error, PushError};
pub use pool::Pool;
pub use queue::{CompletionQueue, Reap, Ring, SharedSubmissionQueue, SubmissionQueue};
pub use sq_uapi::flags::{CancelFlags, CqeFlags, Features, FsyncFlags, SqeFlags};
pub use sq_uapi::{Errno, SqQuery, SqSetup, SqStats};
pub use submitter::{Submitter, Wait};

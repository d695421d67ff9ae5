// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is compared: each constant and each field of the Rust side, beside its C name.

use core::mem::{offset_of, size_of};

use sq_uapi::consts::*;
use sq_uapi::structs::Argument;
use sq_uapi::*;

/// A constant of both sides.
#[derive(Debug)]
pub(crate) struct Constant {
    /// `module::NAME`.
    pub(crate) rust: String,
    pub(crate) c: String,
    pub(crate) value: u64,
    /// The name that io_uring has for it; `None` if it is sq's own.
    pub(crate) io_uring: Option<String>,
}

/// A field of both sides.
#[derive(Debug)]
pub(crate) struct Field {
    /// `Struct::field`; `None` for a second name that only C has.
    pub(crate) rust: Option<String>,
    /// Without `struct`.
    pub(crate) c_struct: &'static str,
    pub(crate) c: String,
    pub(crate) offset: usize,
    pub(crate) size: usize,
    /// For an integer or an array of them, whether it has a sign.
    pub(crate) signed: Option<bool>,
    /// It is an array.
    pub(crate) array: bool,
}

/// A structure of both sides.
#[derive(Debug)]
pub(crate) struct Struct {
    pub(crate) rust: &'static str,
    pub(crate) c: &'static str,
    pub(crate) size: usize,
    pub(crate) align: usize,
}

/// Everything that is compared.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) constants: Vec<Constant>,
    pub(crate) structs: Vec<Struct>,
    pub(crate) fields: Vec<Field>,
}

/// What a field's type says about its sign.
trait Kind {
    const SIGNED: Option<bool> = None;
    const ARRAY: bool = false;
}

impl Kind for u8 {
    const SIGNED: Option<bool> = Some(false);
}
impl Kind for u16 {
    const SIGNED: Option<bool> = Some(false);
}
impl Kind for u32 {
    const SIGNED: Option<bool> = Some(false);
}
impl Kind for u64 {
    const SIGNED: Option<bool> = Some(false);
}
impl Kind for i32 {
    const SIGNED: Option<bool> = Some(true);
}
impl<T: Kind, const N: usize> Kind for [T; N] {
    const SIGNED: Option<bool> = T::SIGNED;
    const ARRAY: bool = true;
}
impl Kind for Sqe {}
impl Kind for Cqe {}
impl Kind for SqRegion {}
impl Kind for SqOffsets {}

/// Size and sign of the field that `_get` reaches, and whether it is an array.
fn kind_of<S, F: Kind>(_get: impl Fn(&S) -> &F) -> (usize, Option<bool>, bool) {
    (size_of::<F>(), F::SIGNED, F::ARRAY)
}

/// `module, C prefix, io_uring's prefix (or own): names`.
macro_rules! constants {
    ($table:ident, $module:ident, $c:literal, own: $($name:ident)*) => {
        $($table.constant(stringify!($module), stringify!($name), $c, None, u64::from($module::$name));)*
    };
    ($table:ident, $module:ident, $c:literal, $io:literal: $($name:ident)*) => {
        $($table.constant(stringify!($module), stringify!($name), $c, Some($io), u64::from($module::$name));)*
    };
}

/// `Rust name = C name: fields`, which have one name.
macro_rules! layouts {
    ($table:ident, $($rust:ident = $c:literal: $($field:ident)*;)*) => {$(
        $table.structs.push(Struct {
            rust: stringify!($rust), c: $c, size: size_of::<$rust>(), align: align_of::<$rust>(),
        });
        $(
            let (size, signed, array) = kind_of(|s: &$rust| &s.$field);
            $table.fields.push(Field {
                rust: Some(format!("{}::{}", stringify!($rust), stringify!($field))),
                c_struct: $c,
                c: stringify!($field).to_owned(),
                offset: offset_of!($rust, $field),
                size,
                signed,
                array,
            });
        )*
    )*};
}

impl Table {
    /// All of it.
    pub(crate) fn new() -> Self {
        let mut table = Self::default();
        table.add_constants();
        table.add_layouts();
        table
    }

    fn add_constants(&mut self) {
        let version = u64::from(ABI_VERSION);
        self.constants.push(Constant {
            rust: "ABI_VERSION".into(),
            c: "SQ_ABI_VERSION".into(),
            value: version,
            io_uring: None,
        });
        constants!(self, op, "SQ_OP_", "IORING_OP_":
            NOP READV WRITEV FSYNC READ_FIXED WRITE_FIXED ASYNC_CANCEL READ WRITE);
        constants!(self, op, "SQ_OP_", "IORING_OP_URING_": CMD);
        constants!(self, sqe_flags, "SQ_", "IOSQE_":
            FIXED_FILE IO_DRAIN IO_LINK IO_HARDLINK ASYNC CQE_SKIP_SUCCESS);
        constants!(self, cqe_flags, "SQ_CQE_", "IORING_CQE_": F_MORE);
        constants!(self, fsync_flags, "SQ_FSYNC_", "IORING_FSYNC_": DATASYNC);
        constants!(self, cmd_flags, "SQ_CMD_", "IORING_URING_CMD_": FIXED);
        constants!(self, cancel_flags, "SQ_ASYNC_CANCEL_", "IORING_ASYNC_CANCEL_": ALL ANY USERDATA OP);
        constants!(self, setup_flags, "SQ_SETUP_", "IORING_SETUP_": SQPOLL SQ_AFF CLAMP R_DISABLED SQE128 CQE32);
        constants!(self, setup_flags, "SQ_SETUP_", own: WORKER ALL);
        constants!(self, features, "SQ_FEAT_", own: KERNEL_RDONLY BUF_POOL FILES EMBEDDED ISSUE URING_CMD URING_CANCEL);
        constants!(self, enter_flags, "SQ_ENTER_", own: TIMEOUT SIGMASK WAIT_IDLE MIN_WAIT ALL);
        constants!(self, register_op, "SQ_REGISTER_", "IORING_REGISTER_": FILES EVENTFD FILES_UPDATE ENABLE_RINGS);
        constants!(self, register_op, "SQ_", "IORING_": UNREGISTER_FILES UNREGISTER_EVENTFD);
        constants!(self, register_op, "SQ_REGISTER_", own: ALLOW_OPCODES);
        constants!(self, sq_state, "SQ_SQ_", "IORING_SQ_": NEED_WAKEUP);
        constants!(self, sq_state, "SQ_SQ_", own: CQ_BLOCKED DRAIN_WAIT NEED_ENTER);
        constants!(self, cq_flags, "SQ_CQ_", "IORING_CQ_": EVENTFD_DISABLED);
        constants!(self, limit, "SQ_MAX_", own:
            SQ_ENTRIES CQ_ENTRIES INFLIGHT COMMANDS IOV FILES BUFS BUF_BYTES POOL_BYTES TRANSFER_BYTES);
        constants!(self, ioctl, "SQ_IOC_", own: MAGIC QUERY SETUP ENTER REGISTER QUIESCE CANCEL STATS ISSUE);
        self.first_size::<SqQuery>("SqQuery", "SQ_QUERY_SIZE_VER0");
        self.first_size::<SqSetup>("SqSetup", "SQ_SETUP_SIZE_VER0");
        self.first_size::<SqEnter>("SqEnter", "SQ_ENTER_SIZE_VER0");
        self.first_size::<SqRegister>("SqRegister", "SQ_REGISTER_SIZE_VER0");
        self.first_size::<SqQuiesce>("SqQuiesce", "SQ_QUIESCE_SIZE_VER0");
        self.first_size::<SqCancel>("SqCancel", "SQ_CANCEL_SIZE_VER0");
        self.first_size::<SqStats>("SqStats", "SQ_STATS_SIZE_VER0");
    }

    fn add_layouts(&mut self) {
        layouts!(self,
            Sqe = "sq_sqe": opcode flags ioprio fd off addr len op_flags user_data buf_index personality file_index cmd;
            Sqe128 = "sq_sqe128": sqe cmd_tail;
            Cqe = "sq_cqe": user_data res flags;
            Cqe32 = "sq_cqe32": cqe extra;
            SqRegion = "sq_region": offset size;
            SqOffsets = "sq_offsets": sq_tail cq_head cq_flags sqes sq_head sq_state cq_tail broken cqes resv;
            SqSetup = "sq_setup": size flags sq_entries cq_entries max_inflight sq_thread_idle_ms sq_thread_cpu
                buf_count buf_bytes resv0 features user kernel pool offsets resv;
            SqEnter = "sq_enter": size flags min_complete resv timeout_ns min_wait_ns sigmask consumed wait_result resv2;
            SqRegister = "sq_register": size op arg nr offset resv;
            SqQuiesce = "sq_quiesce": size flags timeout_ns resv;
            SqCancel = "sq_cancel": size flags user_data opcode resv0 resv;
            SqQuery = "sq_query": size flags abi_version sqe_flags features setup_flags enter_flags opcodes register_ops
                max_sq_entries max_cq_entries max_inflight max_iov max_chain max_files max_bufs max_buf_bytes
                max_pool_bytes target_bytes driver max_commands resv0 resv;
            SqStats = "sq_stats": size flags entries rejected completions skipped doorbells stalls wakeups inflight
                rejected_invalid rejected_opcode avoided sleeps;
            SqIovec = "sq_iovec": base len;
        );
        // Second names, for opcodes that see a field their own way.
        self.alias("sq_sqe", "cmd_op", offset_of!(Sqe, off), 4);
        self.alias("sq_sqe", "__pad1", offset_of!(Sqe, off) + 4, 4);
        for name in ["fsync_flags", "cancel_flags", "cmd_flags"] {
            self.alias("sq_sqe", name, offset_of!(Sqe, op_flags), 4);
        }
    }

    fn constant(&mut self, module: &str, name: &str, c: &str, io_uring: Option<&str>, value: u64) {
        self.constants.push(Constant {
            rust: format!("{module}::{name}"),
            c: format!("{c}{name}"),
            value,
            io_uring: io_uring.map(|prefix| format!("{prefix}{name}")),
        });
    }

    fn first_size<T: Argument>(&mut self, rust: &str, c: &str) {
        self.constants.push(Constant {
            rust: format!("{rust}::MIN_SIZE"),
            c: c.to_owned(),
            value: T::MIN_SIZE as u64,
            io_uring: None,
        });
    }

    fn alias(&mut self, c_struct: &'static str, c: &str, offset: usize, size: usize) {
        self.fields.push(Field {
            rust: None,
            c_struct,
            c: c.to_owned(),
            offset,
            size,
            signed: Some(false),
            array: false,
        });
    }

    /// Everything, as C that compiles only if the header agrees.
    pub(crate) fn assertions(&self) -> String {
        let mut c = String::new();
        let mut claim =
            |text: String| c.push_str(&format!("_Static_assert({text}, \"{}\");\n", text.replace('"', "'")));
        for Constant { c, value, .. } in &self.constants {
            claim(format!("{c} == {value}ULL"));
        }
        for Struct { c, size, align, .. } in &self.structs {
            claim(format!("sizeof(struct {c}) == {size}"));
            claim(format!("_Alignof(struct {c}) == {align}"));
        }
        for Field { c_struct, c, offset, size, signed, array, .. } in &self.fields {
            let field = format!("((struct {c_struct} *)0)->{c}");
            claim(format!("__builtin_offsetof(struct {c_struct}, {c}) == {offset}"));
            claim(format!("sizeof({field}) == {size}"));
            if let Some(signed) = signed {
                // All ones is above 0 exactly if there is no sign.
                let element = if *array { "[0]" } else { "" };
                claim(format!("((__typeof__({field}{element}))-1 > 0) == {}", u8::from(!signed)));
            }
        }
        c
    }
}

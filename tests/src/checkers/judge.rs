// SPDX-License-Identifier: MIT OR Apache-2.0
//! What must come of entries, worked out from docs/protocol.md and the drivers' documentation, with nothing from kmod-sq.

use std::collections::HashMap;

use sq_uapi::consts::{limit, op, sqe_flags};
use sq_uapi::{Cqe, Errno, Sqe};

use super::hostile::Record;
use super::pairing::Pairing;
use super::probe::{HELD, cmd};

const EBADF: i32 = Errno::EBADF.to_res();
const EBUSY: i32 = Errno::EBUSY.to_res();
const ECANCELED: i32 = Errno::ECANCELED.to_res();
const EFAULT: i32 = Errno::EFAULT.to_res();
const EINVAL: i32 = Errno::EINVAL.to_res();
const EIO: i32 = Errno::EIO.to_res();

/// What may have come between a driver and an entry that is well formed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Circumstances {
    /// Opcodes were given up: `-EOPNOTSUPP`.
    pub restricted: bool,
    /// Whoever called was killed: `-ECANCELED`.
    pub killed: bool,
}

/// Compares completions with entries as they come.
#[derive(Debug)]
pub struct Judge {
    probe: bool,
    pool: bool,
    wide_cqe: bool,
    /// By `user_data`.
    expected: HashMap<u64, Pairing<Expected, (Cqe, [u64; 2])>>,
    last: Option<u64>,
    /// As of now.
    pub circumstances: Circumstances,
}

/// The results that are allowed.
#[derive(Clone, Debug)]
struct Results {
    these: Vec<i32>,
    /// And any from 0 to this.
    most: Option<i32>,
}

impl Results {
    fn of(these: &[i32]) -> Self {
        Self { these: these.to_vec(), most: None }
    }

    fn error(errno: Errno) -> Self {
        Self::of(&[errno.to_res()])
    }

    fn allow(&self, res: i32) -> bool {
        self.these.contains(&res) || self.most.is_some_and(|most| (0..=most).contains(&res))
    }

    fn may_succeed(&self) -> bool {
        self.most.is_some() || self.these.iter().any(|res| *res >= 0)
    }
}

/// What may come of an entry.
#[derive(Clone, Debug)]
struct Expected {
    user_data: u64,
    results: Results,
    extra: [u64; 2],
    skip_success: bool,
    /// It is well formed.
    formed: bool,
    /// It was copied, and not accepted yet.
    unfinished: bool,
}

/// What may come of one entry by itself.
#[derive(Clone, Debug)]
pub struct Alone {
    results: Results,
    formed: bool,
    /// Its opcode was.
    given_up: bool,
}

impl Alone {
    /// Judges its result; `canceled` says that it may have been.
    ///
    /// # Panics
    ///
    /// If it cannot be.
    pub fn judge(&self, res: i32, canceled: bool) {
        let is = |errno: Errno| res == errno.to_res();
        let ends = canceled && self.formed && (is(Errno::ECANCELED) || is(Errno::EINTR));
        // A call that waits for ever ends by a signal; where commands cannot be canceled, none may wait without bound.
        let never = self.formed && (is(Errno::EINTR) || is(Errno::EOPNOTSUPP));
        let restarts = |res: &i32| matches!(res, -514..=-512 | -516) && is(Errno::EINTR);
        let fits = match &self.results {
            _ if self.given_up => is(Errno::EOPNOTSUPP),
            results => results.allow(res) || results.these.iter().any(restarts),
        };
        assert!(fits || (!self.given_up && (ends || never)), "SUB-2: {res} is no result of {self:?}");
    }
}

/// The row of an opcode in docs/protocol.md: what its entries may hold besides `user_data`. `fd` is apart.
struct Row {
    flags: u8,
    off: u64,
    addr: u64,
    len: u32,
    op_flags: u32,
    buf_index: u16,
    cmd: bool,
    target: bool,
}

impl Row {
    fn of(opcode: u8) -> Option<Self> {
        use sqe_flags::{ASYNC, CQE_SKIP_SUCCESS, FIXED_FILE};
        let io = Self {
            flags: FIXED_FILE | ASYNC | CQE_SKIP_SUCCESS,
            off: u64::MAX,
            addr: u64::MAX,
            len: u32::MAX,
            op_flags: 0,
            buf_index: 0,
            cmd: false,
            target: true,
        };
        let nop = Self { flags: ASYNC | CQE_SKIP_SUCCESS, off: 0, addr: 0, len: 0, target: false, ..io };
        Some(match opcode {
            op::NOP => nop,
            op::READ | op::WRITE | op::READV | op::WRITEV => io,
            op::FSYNC => Self { flags: io.flags, op_flags: 1, target: true, ..nop },
            op::READ_FIXED | op::WRITE_FIXED => Self { buf_index: u16::MAX, ..io },
            op::ASYNC_CANCEL => {
                Self { flags: CQE_SKIP_SUCCESS, addr: u64::MAX, len: u32::MAX, op_flags: 1 | 4 | 16 | 32, ..nop }
            }
            op::CMD => Self { off: u64::from(u32::MAX), op_flags: 1, buf_index: u16::MAX, cmd: true, ..io },
            _ => return None,
        })
    }

    fn fits(&self, sqe: &Sqe, tail: &[u64], files: bool) -> bool {
        let flags = if files { self.flags } else { self.flags & !sqe_flags::FIXED_FILE };
        let index = if sqe.opcode == op::CMD && sqe.op_flags & 1 == 0 { 0 } else { self.buf_index };
        (sqe.ioprio, sqe.personality, sqe.file_index) == (0, 0, 0)
            && (sqe.fd == -1 || (files && self.target))
            && sqe.flags & !flags == 0
            && sqe.off & !self.off == 0
            && sqe.addr & !self.addr == 0
            && sqe.len & !self.len == 0
            && sqe.op_flags & !self.op_flags == 0
            && sqe.buf_index & !index == 0
            && (self.cmd || (sqe.cmd == [0; 16] && tail.iter().all(|word| *word == 0)))
    }
}

/// Whether the table lets an entry through; `tail` is its second half, if it has one, and `files` says that the driver takes files.
#[must_use]
pub fn is_formed(sqe: &Sqe, tail: &[u64], files: bool) -> bool {
    Row::of(sqe.opcode).is_some_and(|row| row.fits(sqe, tail, files))
}

/// The results of an ASYNC_CANCEL. With ALL or ANY it counts those it has canceled.
fn cancel(sqe: &Sqe) -> Results {
    let has = |flag: u32| sqe.op_flags & flag != 0;
    let (all, any, by_data, by_opcode) = (has(1), has(4), has(16), has(32));
    let names_data = by_data || !(any || by_opcode);
    let refers = (names_data || sqe.addr == 0) && if by_opcode { sqe.len <= 255 } else { sqe.len == 0 };
    if !refers || (any && (by_data || by_opcode)) {
        return Results::error(Errno::EINVAL);
    }
    let most = if all || any { limit::INFLIGHT as i32 } else { 0 };
    Results { these: vec![Errno::ENOENT.to_res(), Errno::EALREADY.to_res()], most: Some(most) }
}

impl Judge {
    /// Of a ring with such completions; `probe` says with which driver.
    #[must_use]
    pub fn new(probe: bool, pool: bool, wide_cqe: bool) -> Self {
        Self { probe, pool, wide_cqe, expected: HashMap::new(), last: None, circumstances: Circumstances::default() }
    }

    fn expect(&self, words: &[u64; 16]) -> Expected {
        let [a, b, c, d, e, f, g, h, tail @ ..] = *words;
        let sqe = Sqe::from_words([a, b, c, d, e, f, g, h]);
        let formed = is_formed(&sqe, &tail, self.probe);
        let mut extra = [0; 2];
        let results = match sqe.opcode {
            _ if !formed => Results::error(Errno::EINVAL),
            op::NOP => Results::of(&[0]),
            op::CMD => {
                if sqe.off as u32 == 0 {
                    extra = [g, h];
                }
                self.command(&sqe, g, h)
            }
            op::ASYNC_CANCEL => cancel(&sqe),
            _ if self.probe => self.transfer(&sqe),
            _ => Results::error(Errno::EOPNOTSUPP),
        };
        let skip_success = sqe.flags & sqe_flags::CQE_SKIP_SUCCESS != 0;
        Expected { user_data: e, results, extra, skip_success, formed, unfinished: false }
    }

    /// The results that a command may have.
    fn command(&self, sqe: &Sqe, first: u64, second: u64) -> Results {
        let low31 = |word: u64| (word & 0x7fff_ffff) as i32;
        // EBUSY: requests that may wait without bound have most slots already (CQ-4).
        let mut results = match sqe.off as u32 {
            _ if self.astray(sqe).is_some() => return self.transfer(sqe),
            0 => vec![low31(first)],
            1 => vec![if (first as i32) < -4095 { EIO } else { first as i32 }],
            2 => vec![low31(second), ECANCELED, EBUSY],
            3 => vec![Errno::ETIME.to_res(), ECANCELED, EBUSY],
            cmd::HOLD | cmd::HOLD_FOREVER if self.probe => vec![HELD, ECANCELED, EBUSY, EFAULT, EIO],
            cmd::DROP if self.probe => vec![EIO],
            cmd::READ if self.probe => return self.transfer(sqe),
            _ => vec![Errno::EOPNOTSUPP.to_res()],
        };
        if self.probe {
            // Its descriptor may lead to nothing.
            results.push(EBADF);
        }
        Results { these: results, most: None }
    }

    /// The results of what moves bytes, or of FSYNC, which moves none: what the driver does with them is its own [`probe`](super::probe)'s.
    fn transfer(&self, sqe: &Sqe) -> Results {
        let vector = matches!(sqe.opcode, op::READV | op::WRITEV) && sqe.len > 0;
        let none = matches!(sqe.opcode, op::FSYNC) || (sqe.len == 0 && !vector);
        let mut results = if let Some(errno) = self.astray(sqe) {
            Results::error(errno)
        } else if sqe.flags & sqe_flags::ASYNC != 0 {
            Results::of(&[HELD, ECANCELED])
        } else {
            // As much as it reads, and writes, of them.
            Results { these: Vec::new(), most: Some(if none { 0 } else { 48 }) }
        };
        if self.astray(sqe).is_none() && !none {
            results.these.push(EFAULT);
        }
        if vector && sqe.len <= limit::IOV {
            // What it says is not known here.
            results.these.push(EINVAL);
        }
        if self.probe {
            results.these.push(EBADF);
        }
        results
    }

    /// What is wrong with where an entry's bytes are, if that can be told from the entry.
    fn astray(&self, sqe: &Sqe) -> Option<Errno> {
        let end = sqe.addr.checked_add(sqe.len.into());
        let in_pool = match sqe.opcode {
            op::FSYNC => return None,
            op::READV | op::WRITEV => return (sqe.len > limit::IOV).then_some(Errno::EINVAL),
            op::CMD => sqe.op_flags & 1 != 0,
            opcode => matches!(opcode, op::READ_FIXED | op::WRITE_FIXED),
        };
        // The pool has two buffers of 4096 bytes.
        let reachable = end.is_some_and(|end| !in_pool || (self.pool && sqe.buf_index < 2 && end <= 4096));
        match (sqe.len > limit::TRANSFER_BYTES, reachable) {
            (true, _) => Some(Errno::EINVAL),
            (false, false) => Some(Errno::EFAULT),
            (false, true) => None,
        }
    }

    /// What may come of an entry by itself, at a door that is no ring's: docs/protocol.md, "Doors".
    #[must_use]
    pub fn alone(words: &[u64; 16], allowed: u64) -> Alone {
        let judge = Self::new(true, false, false);
        let Expected { results, formed, .. } = judge.expect(words);
        let [a, b, c, d, e, f, g, h, ..] = *words;
        let sqe = Sqe::from_words([a, b, c, d, e, f, g, h]);
        let rings = matches!(sqe.opcode, op::READ_FIXED | op::WRITE_FIXED | op::ASYNC_CANCEL);
        let fixed = sqe.opcode == op::CMD && sqe.op_flags & 1 != 0;
        let well = formed && !rings && !fixed && sqe.flags & !sqe_flags::ASYNC == 0;
        let given_up = allowed >> (sqe.opcode & 63) & 1 == 0;
        let results = match (well, formed && fixed && given_up) {
            (true, _) => results,
            // Refused for two reasons: nothing says which comes first.
            (false, true) => Results::of(&[EINVAL, Errno::EOPNOTSUPP.to_res()]),
            (false, false) => Results::error(Errno::EINVAL),
        };
        Alone { results, formed: well, given_up: well && given_up }
    }

    /// SUB-2: each completion is of one entry that has none yet.
    ///
    /// # Panics
    ///
    /// If it is of none.
    pub fn hear(&mut self, news: &Record) {
        for words in &news.accepted {
            let expected = self.expect(words);
            self.last = Some(expected.user_data);
            self.expected.entry(expected.user_data).or_default().entries.push(expected);
        }
        let (wide, circumstances) = (self.wide_cqe, self.circumstances);
        for words in &news.completed {
            let [a, b, c, d] = *words;
            let cqe = Cqe::from_words([a, b]);
            let pairing = self.expected.entry(cqe.user_data).or_default();
            let found = pairing
                .hear((cqe, [c, d]), &|one: &Expected, done: &(Cqe, [u64; 2])| one.allows(done, wide, circumstances));
            assert!(found, "SUB-2: {cqe:?} {:x?} is no entry's, of {pairing:x?}", [c, d]);
        }
    }

    /// SUB-2: each entry has its completion, but for those that need none. `parked` says that the last was not accepted after all.
    ///
    /// # Panics
    ///
    /// If one is missing.
    pub fn close(mut self, parked: bool) {
        let last = self.last.and_then(|user_data| self.expected.get_mut(&user_data)?.entries.last_mut());
        if let (true, Some(last)) = (parked, last) {
            last.unfinished = true;
        }
        let (wide, circumstances) = (self.wide_cqe, self.circumstances);
        for pairing in self.expected.values_mut() {
            let lacking = pairing.lacking(Expected::may_be_silent, &|one, done| one.allows(done, wide, circumstances));
            assert!(lacking.is_none(), "SUB-2: no completion for {lacking:x?}");
        }
    }
}

impl Expected {
    fn allows(&self, (cqe, extra): &(Cqe, [u64; 2]), wide: bool, circumstances: Circumstances) -> bool {
        let extra_fits = !wide || *extra == if cqe.res >= 0 { self.extra } else { [0; 2] };
        let Circumstances { restricted, killed } = circumstances;
        cqe.flags == 0
            && extra_fits
            && !(self.skip_success && cqe.res >= 0)
            && (self.results.allow(cqe.res)
                || (self.formed && restricted && cqe.res == Errno::EOPNOTSUPP.to_res())
                || (self.formed && killed && cqe.res == Errno::ECANCELED.to_res()))
    }

    fn may_be_silent(&self) -> bool {
        self.unfinished || (self.skip_success && self.results.may_succeed())
    }
}

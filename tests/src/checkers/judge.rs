// SPDX-License-Identifier: MIT OR Apache-2.0
//! What must come of entries, worked out from docs/protocol.md and the drivers' documentation, with nothing from kmod-sq.

use std::collections::HashMap;

use sq_uapi::consts::{limit, op, sqe_flags};
use sq_uapi::{Cqe, Errno, Sqe};

use super::hostile::Record;
use super::pairing::Pairing;
use super::probe::{HELD, cmd};

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

/// What may come of an entry.
#[derive(Clone, Debug)]
struct Expected {
    user_data: u64,
    /// The results that are allowed; `None` if any is.
    results: Option<Vec<i32>>,
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
    results: Option<Vec<i32>>,
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
            None => res >= LEAST,
            Some(results) => results.iter().any(|one| *one == res || restarts(one)),
        };
        assert!(fits || (!self.given_up && (ends || never)), "SUB-2: {res} is no result of {self:?}");
    }
}

/// The least result there is.
const LEAST: i32 = -4095;

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

impl Judge {
    /// Of a ring with such completions; `probe` says with which driver.
    #[must_use]
    pub fn new(probe: bool, pool: bool, wide_cqe: bool) -> Self {
        Self { probe, pool, wide_cqe, expected: HashMap::new(), last: None, circumstances: Circumstances::default() }
    }

    fn expect(&self, words: &[u64; 16]) -> Expected {
        let [a, b, c, d, e, f, g, h, tail @ ..] = *words;
        let sqe = Sqe::from_words([a, b, c, d, e, f, g, h]);
        let formed = Row::of(sqe.opcode).is_some_and(|row| row.fits(&sqe, &tail, self.probe));
        let mut extra = [0; 2];
        let results = match sqe.opcode {
            _ if !formed => Some(vec![Errno::EINVAL.to_res()]),
            op::NOP => Some(vec![0]),
            op::CMD => {
                let (results, own) = self.command(&sqe, g, h);
                extra = own;
                results
            }
            op::ASYNC_CANCEL => None,
            _ if self.probe => None,
            _ => Some(vec![Errno::EOPNOTSUPP.to_res()]),
        };
        let skip_success = sqe.flags & sqe_flags::CQE_SKIP_SUCCESS != 0;
        Expected { user_data: e, results, extra, skip_success, formed, unfinished: false }
    }

    /// The results that a command may have, and the second half of its completion.
    fn command(&self, sqe: &Sqe, first: u64, second: u64) -> (Option<Vec<i32>>, [u64; 2]) {
        const ECANCELED: i32 = Errno::ECANCELED.to_res();
        const EBUSY: i32 = Errno::EBUSY.to_res();
        let low31 = |word: u64| (word & 0x7fff_ffff) as i32;
        let end = sqe.addr.checked_add(sqe.len.into());
        // The pool has two buffers of 4096 bytes.
        let reachable = if sqe.op_flags & 1 == 0 {
            end.is_some()
        } else {
            self.pool && sqe.buf_index < 2 && end.is_some_and(|end| end <= 4096)
        };
        // EBUSY: requests that may wait without bound have most slots already (CQ-4).
        let mut results = match sqe.off as u32 {
            _ if sqe.len > limit::TRANSFER_BYTES => vec![Errno::EINVAL.to_res()],
            _ if !reachable => vec![Errno::EFAULT.to_res()],
            0 => vec![low31(first)],
            1 => vec![if (first as i32) < -4095 { Errno::EIO.to_res() } else { first as i32 }],
            2 => vec![low31(second), ECANCELED, EBUSY],
            3 => vec![Errno::ETIME.to_res(), ECANCELED, EBUSY],
            cmd::HOLD | cmd::HOLD_FOREVER if self.probe => {
                vec![HELD, ECANCELED, EBUSY, Errno::EFAULT.to_res(), Errno::EIO.to_res()]
            }
            cmd::DROP if self.probe => vec![Errno::EIO.to_res()],
            cmd::READ if self.probe => return (None, [0; 2]),
            _ => vec![Errno::EOPNOTSUPP.to_res()],
        };
        if self.probe {
            // Its descriptor may lead to nothing.
            results.push(Errno::EBADF.to_res());
        }
        (Some(results), if sqe.off as u32 == 0 { [first, second] } else { [0; 2] })
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
            (false, true) => Some(vec![Errno::EINVAL.to_res(), Errno::EOPNOTSUPP.to_res()]),
            (false, false) => Some(vec![Errno::EINVAL.to_res()]),
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
            && (self.results.as_ref().is_none_or(|results| results.contains(&cqe.res))
                || (self.formed && restricted && cqe.res == Errno::EOPNOTSUPP.to_res())
                || (self.formed && killed && cqe.res == Errno::ECANCELED.to_res()))
    }

    fn may_be_silent(&self) -> bool {
        let succeeds = self.results.as_ref().is_none_or(|results| results.iter().any(|res| *res >= 0));
        self.unfinished || (self.skip_success && succeeds)
    }
}

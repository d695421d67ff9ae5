// SPDX-License-Identifier: MIT OR Apache-2.0
//! Programs over hostile memory, made from bytes: the same for seeds and for fuzz targets.
//!
//! What must come out is worked out here from docs/protocol.md and the null driver's documentation, with nothing from kmod-sq.

use liburing_shm::ring::{Consumer, Producer};
use sq_uapi::consts::{limit, op, setup_flags, sqe_flags};
use sq_uapi::{Cqe, Errno, SqCancel, SqEnter, SqQuiesce, SqSetup, Sqe, UserWord};

use super::hostile::{Access, Record, UserSide};
use super::hostile_host::{HostileHost, hostile_ring};

/// Bytes that decide. When they have run out, all are 0.
struct Bytes<'a>(std::slice::Iter<'a, u8>);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        self.0.next().copied().unwrap_or(0)
    }

    fn below(&mut self, n: u8) -> u8 {
        self.byte() % n
    }

    fn word(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    fn done(&self) -> bool {
        self.0.len() == 0
    }
}

/// Numbers that look random.
#[derive(Clone, Debug)]
pub struct Mixer(pub u64);

impl Mixer {
    /// The next one.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Flips bits of entries, moves indices; `rate` in 256 loads are preceded by an attack.
fn foe(seed: u64, rate: u8) -> impl FnMut(Access, &mut UserSide) + Send {
    let mut mixer = Mixer(seed);
    move |access, user| {
        let draw = mixer.draw();
        if (draw & 0xff) >= rate.into() {
            return;
        }
        let small = (draw >> 40) as u32 & 3;
        match draw >> 8 & 0x3f {
            0 => user.sq_tail = draw as u32,
            1 => user.cq_head = draw as u32,
            2..=5 => user.sq_tail = user.sq_tail.wrapping_add(small),
            6 | 7 => user.cq_head = user.cq_head.wrapping_add(small),
            8 => user.cq_head = user.cq_head.wrapping_sub(small),
            9 | 10 => user.cq_flags = draw as u32,
            _ => {
                // Preferably the entry that is being read.
                let slot = if let Access::Sqe(index, _) = access { index as usize } else { (draw >> 32) as usize };
                let slot = slot % user.sqes.len();
                user.sqes[slot][(draw >> 16) as usize & 15] ^= 1 << (draw >> 24 & 63);
            }
        }
    }
}

fn entry(bytes: &mut Bytes<'_>, user_data: u64) -> [u64; 8] {
    let mut sqe = Sqe { user_data, ..Sqe::NOP };
    let kind = bytes.below(10);
    if bytes.below(4) == 0 {
        sqe.flags |= sqe_flags::CQE_SKIP_SUCCESS;
    }
    match kind {
        0 | 1 => {}
        2 => sqe.flags |= sqe_flags::ASYNC,
        3..=6 => {
            sqe.opcode = op::CMD;
            sqe.off = u64::from(bytes.below(5));
            sqe.cmd[..8].copy_from_slice(&u64::from(bytes.byte()).to_le_bytes());
            sqe.cmd[8] = bytes.byte();
        }
        7 => {
            sqe.opcode = op::ASYNC_CANCEL;
            sqe.addr = user_data.saturating_sub(u64::from(bytes.below(8)));
        }
        8 => sqe.opcode = bytes.byte(),
        _ => {
            let mut words = sqe.to_words();
            words[usize::from(bytes.below(8))] ^= 1 << bytes.below(64);
            return words;
        }
    }
    sqe.to_words()
}

/// What may come of an entry.
#[derive(Clone, Debug)]
struct Expected {
    user_data: u64,
    /// The results that are allowed; `None` if any is.
    results: Option<Vec<i32>>,
    extra: [u64; 2],
    skip_success: bool,
}

impl Expected {
    fn new(words: &[u64; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, tail @ ..] = *words;
        let sqe = Sqe::from_words([a, b, c, d, e, f, g, h]);
        let wide_zero = tail == [0; 8];
        let mut extra = [0; 2];
        let einval = vec![Errno::EINVAL.to_res()];
        let unused = sqe.ioprio == 0 && sqe.personality == 0 && sqe.file_index == 0 && sqe.fd == -1;
        let flags = |allowed: u8| sqe.flags & !allowed == 0;
        let drivers = sqe_flags::ASYNC | sqe_flags::CQE_SKIP_SUCCESS;
        let bare = sqe.off == 0 && sqe.buf_index == 0 && sqe.cmd == [0; 16] && wide_zero;
        let results = match sqe.opcode {
            op::NOP => {
                let fits = unused && flags(drivers) && bare && sqe.addr == 0 && sqe.len == 0 && sqe.op_flags == 0;
                Some(if fits { vec![0] } else { einval })
            }
            op::CMD => {
                let fixed = sqe.op_flags == 1;
                let fits = unused
                    && flags(drivers)
                    && sqe.off >> 32 == 0
                    && sqe.op_flags <= 1
                    && (fixed || sqe.buf_index == 0)
                    && sqe.len <= limit::TRANSFER_BYTES;
                // There is no pool.
                let reachable = !fixed && sqe.addr.checked_add(sqe.len.into()).is_some();
                let low31 = |word: u64| (word & 0x7fff_ffff) as i32;
                // EBUSY: requests that may wait without bound have most slots already (CQ-4).
                Some(match sqe.off as u32 {
                    _ if !fits => einval,
                    _ if !reachable => vec![Errno::EFAULT.to_res()],
                    0 => {
                        extra = [g, h];
                        vec![low31(g)]
                    }
                    1 => vec![if (g as i32) < -4095 { Errno::EIO.to_res() } else { g as i32 }],
                    2 => vec![low31(h), Errno::ECANCELED.to_res(), Errno::EBUSY.to_res()],
                    3 => vec![Errno::ETIME.to_res(), Errno::ECANCELED.to_res(), Errno::EBUSY.to_res()],
                    _ => vec![Errno::EOPNOTSUPP.to_res()],
                })
            }
            op::ASYNC_CANCEL => {
                let fits = unused && flags(sqe_flags::CQE_SKIP_SUCCESS) && bare;
                if fits { None } else { Some(einval) }
            }
            op::READV..=op::WRITE_FIXED | op::READ | op::WRITE => {
                Some(vec![Errno::EINVAL.to_res(), Errno::EOPNOTSUPP.to_res()])
            }
            _ => Some(einval),
        };
        Self { user_data: e, results, extra, skip_success: sqe.flags & sqe_flags::CQE_SKIP_SUCCESS != 0 }
    }

    fn allows(&self, cqe: Cqe, extra: [u64; 2], wide: bool) -> bool {
        let extra_fits = !wide || extra == if cqe.res >= 0 { self.extra } else { [0; 2] };
        self.user_data == cqe.user_data
            && cqe.flags == 0
            && extra_fits
            && !(self.skip_success && cqe.res >= 0)
            && self.results.as_ref().is_none_or(|results| results.contains(&cqe.res))
    }

    /// No completion is right too.
    fn may_be_silent(&self) -> bool {
        self.skip_success && self.results.as_ref().is_none_or(|results| results.iter().any(|res| *res >= 0))
    }
}

/// SUB-2: each accepted entry has its one completion, and there is no other.
fn judge(record: &Record, wide: bool) {
    let mut expected: Vec<Expected> = record.accepted.iter().map(Expected::new).collect();
    for words in &record.completed {
        let [a, b, c, d] = *words;
        let cqe = Cqe::from_words([a, b]);
        let at = expected.iter().position(|one| one.allows(cqe, [c, d], wide));
        let Some(at) = at else { panic!("SUB-2: {cqe:?} {:x?} is no entry's, of {expected:x?}", [c, d]) };
        expected.remove(at);
    }
    expected.retain(|one| !one.may_be_silent());
    assert!(expected.is_empty(), "SUB-2: no completion for {expected:x?}");
}

/// Runs the program that `bytes` make.
///
/// # Panics
///
/// If a rule is broken.
pub fn run(bytes: &[u8]) {
    let mut bytes = Bytes(bytes.iter());
    let seed = bytes.word();
    let rate = [0, 1, 4, 16, 64][usize::from(bytes.below(5))];
    let flags = [0, setup_flags::WORKER][usize::from(bytes.below(2))]
        | [0, setup_flags::SQE128, setup_flags::CQE32, setup_flags::SQE128 | setup_flags::CQE32]
            [usize::from(bytes.below(4))];
    let sq_entries = 1 << bytes.below(7);
    let cq_entries = sq_entries << bytes.below(2);
    let max_inflight = 1 + u32::from(bytes.byte()) % cq_entries;
    let setup = SqSetup { flags, sq_entries, cq_entries, max_inflight, ..SqSetup::default() };
    let (ring, mem) = hostile_ring(&setup, &sq_null::Null, Box::new(foe(seed, rate))).unwrap();
    let (mut producer, mut consumer) = (Producer::new(sq_entries, false), Consumer::new());
    let mut serial = 1u64;
    while !bytes.done() {
        let accepted = mem.record().accepted.len();
        match bytes.below(16) {
            0..=4 => {
                serial += 1;
                let words = entry(&mut bytes, serial);
                let _ = producer.push(&mem, words);
            }
            5 | 6 => {
                producer.publish(&mem);
                let _ = ring.doorbell();
                let fresh = mem.record().accepted.len() - accepted;
                assert!(fresh <= sq_entries as usize, "BELL-3: {fresh} entries in one call");
            }
            7 => {
                producer.publish(&mem);
                let flags = u32::from(bytes.below(16));
                let mut enter = SqEnter { min_complete: bytes.below(4).into(), flags, ..SqEnter::default() };
                let _ = ring.enter(&mut enter);
            }
            8 | 9 => HostileHost::run_worker(&ring),
            10 | 11 => {
                consumer.ready(&mem);
                for _ in 0..bytes.below(8) {
                    let _ = consumer.pop(&mem);
                }
                if consumer.release(&mem) {
                    let _ = ring.doorbell();
                }
            }
            12 => {
                let user_data = serial.saturating_sub(bytes.below(8).into());
                let _ = ring.cancel(&SqCancel { user_data, flags: bytes.below(2).into(), ..SqCancel::default() });
            }
            13 => HostileHost::sleep(&ring, bytes.byte().into()),
            14 => {
                ring.poll();
            }
            _ if rate > 0 && bytes.below(8) == 0 => {
                let word = [UserWord::SqTail, UserWord::CqHead, UserWord::CqFlags][usize::from(bytes.below(3))];
                let by = u32::from(bytes.byte()).wrapping_sub(4);
                mem.meddle(|user| {
                    let place = match word {
                        UserWord::SqTail => &mut user.sq_tail,
                        UserWord::CqHead => &mut user.cq_head,
                        UserWord::CqFlags => &mut user.cq_flags,
                    };
                    *place = place.wrapping_add(by);
                });
            }
            _ => {}
        }
        assert!(ring.balanced(), "CQ-5");
        let record = mem.record();
        assert!(!record.must_break || ring.is_broken(), "IDX-3: cq_head was out of its window");
        assert!(record.may_break || !ring.is_broken(), "IDX-3: every index was in its window");
    }
    ring.quiesce(&SqQuiesce::default()).unwrap();
    assert_eq!(ring.stats().inflight, 0, "LIFE-1");
    assert!(ring.balanced(), "CQ-5");
    judge(&mem.record(), flags & setup_flags::CQE32 != 0);
}

/// Bytes from a seed.
#[must_use]
pub fn bytes_of(seed: u64, len: usize) -> Vec<u8> {
    let mut mixer = Mixer(seed);
    (0..len).map(|_| mixer.draw() as u8).collect()
}

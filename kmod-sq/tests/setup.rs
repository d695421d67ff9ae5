// SPDX-License-Identifier: MIT OR Apache-2.0
//! SETUP field by field, the shape of a ring, and what the size of an argument means.

use core::mem::{offset_of, size_of};

use kmod_sq::call::{read, write};
use kmod_sq::{Geometry, Mode};
use sq_uapi::consts::{limit, setup_flags};
use sq_uapi::structs::Argument;
use sq_uapi::{Errno, SqCancel, SqEnter, SqOffsets, SqQuery, SqQuiesce, SqRegion, SqRegister, SqSetup, SqStats};

const PAGE: u64 = 4096;

fn plain() -> SqSetup {
    SqSetup { size: size_of::<SqSetup>() as u32, sq_entries: 8, ..SqSetup::default() }
}

fn refused(setup: SqSetup) {
    assert_eq!(Geometry::new(&setup), Err(Errno::EINVAL), "{setup:?}");
}

fn shape(setup: SqSetup) -> Geometry {
    Geometry::new(&setup).unwrap_or_else(|errno| panic!("{errno:?}: {setup:?}"))
}

/// The bytes of a setup, as a caller hands them over.
fn bytes_of(setup: &SqSetup) -> [u8; size_of::<SqSetup>()] {
    let mut bytes = [0; size_of::<SqSetup>()];
    write(setup, &mut bytes);
    bytes
}

#[test]
fn what_is_not_an_input_must_be_zero() {
    // Every bit of every byte that is not one of these: features, the regions, the offsets, and what is reserved.
    const INPUTS: [(usize, usize); 9] = [
        (offset_of!(SqSetup, size), 4),
        (offset_of!(SqSetup, flags), 4),
        (offset_of!(SqSetup, sq_entries), 4),
        (offset_of!(SqSetup, cq_entries), 4),
        (offset_of!(SqSetup, max_inflight), 4),
        (offset_of!(SqSetup, sq_thread_idle_ms), 4),
        (offset_of!(SqSetup, sq_thread_cpu), 4),
        (offset_of!(SqSetup, buf_count), 4),
        (offset_of!(SqSetup, buf_bytes), 4),
    ];
    let mut tried = 0;
    for at in 0..size_of::<SqSetup>() {
        if INPUTS.iter().any(|(start, len)| (*start..start + len).contains(&at)) {
            continue;
        }
        for bit in 0..8 {
            let mut bytes = bytes_of(&plain());
            bytes[at] ^= 1 << bit;
            let setup: SqSetup = read(&bytes).unwrap();
            assert_eq!(Geometry::new(&setup), Err(Errno::EINVAL), "byte {at} bit {bit}");
            tried += 1;
        }
    }
    assert_eq!(tried, (192 - 36) * 8);
}

#[test]
fn each_reserved_field_by_name() {
    refused(SqSetup { resv0: 1, ..plain() });
    refused(SqSetup { features: 1, ..plain() });
    for i in 0..4 {
        let mut setup = plain();
        setup.resv[i] = 1 << 63;
        refused(setup);
    }
    for region in [SqRegion { offset: 1, size: 0 }, SqRegion { offset: 0, size: 1 }] {
        refused(SqSetup { user: region, ..plain() });
        refused(SqSetup { kernel: region, ..plain() });
        refused(SqSetup { pool: region, ..plain() });
    }
    for i in 0..7 {
        let mut setup = plain();
        setup.offsets.resv[i] = 1;
        refused(setup);
    }
    refused(SqSetup { offsets: SqOffsets { cqes: 1, ..SqOffsets::default() }, ..plain() });
}

#[test]
fn each_unknown_flag_is_refused() {
    for bit in 0..32 {
        let flags = 1 << bit;
        if flags & setup_flags::ALL == 0 {
            refused(SqSetup { flags, ..plain() });
            refused(SqSetup { flags: flags | setup_flags::CLAMP | setup_flags::SQE128, ..plain() });
        }
    }
}

#[test]
fn each_flag_does_what_it_says() {
    let flags = |flags| shape(SqSetup { flags, ..plain() });
    let base = shape(plain());
    assert_eq!((base.mode, base.cpu, base.disabled), (Mode::Caller, None, false));
    assert_eq!((base.sqe128, base.cqe32), (false, false));
    assert_eq!(flags(setup_flags::WORKER), Geometry { mode: Mode::Worker, ..base });
    assert_eq!(flags(setup_flags::SQPOLL), Geometry { mode: Mode::Poll, ..base });
    assert_eq!(flags(setup_flags::R_DISABLED), Geometry { disabled: true, ..base });
    assert_eq!(flags(setup_flags::CLAMP), base);
    assert!(flags(setup_flags::SQE128).sqe128);
    assert!(flags(setup_flags::CQE32).cqe32);
    let bound = SqSetup { flags: setup_flags::SQPOLL | setup_flags::SQ_AFF, sq_thread_cpu: 3, ..plain() };
    assert_eq!(shape(bound).cpu, Some(3));
}

#[test]
fn fields_of_the_polling_thread_need_one() {
    refused(SqSetup { flags: setup_flags::SQPOLL | setup_flags::WORKER, ..plain() });
    for other in [0, setup_flags::WORKER] {
        refused(SqSetup { flags: other | setup_flags::SQ_AFF, ..plain() });
        refused(SqSetup { flags: other, sq_thread_idle_ms: 1, ..plain() });
        refused(SqSetup { flags: other, sq_thread_cpu: 1, ..plain() });
    }
    // A CPU without SQ_AFF.
    refused(SqSetup { flags: setup_flags::SQPOLL, sq_thread_cpu: 1, ..plain() });
}

#[test]
fn idle_time_is_milliseconds_and_has_a_default() {
    let idle = |sq_thread_idle_ms| shape(SqSetup { flags: setup_flags::SQPOLL, sq_thread_idle_ms, ..plain() }).idle_ns;
    assert_eq!(idle(1), 1_000_000);
    assert_eq!(idle(0), 1_000_000_000);
    assert_eq!(idle(u32::MAX), 4_294_967_295_000_000);
}

#[test]
fn entries_are_rounded_up_to_a_power_of_two() {
    for (wanted, sq) in [(1, 1), (2, 2), (3, 4), (5, 8), (127, 128), (128, 128), (16_385, 32_768), (32_768, 32_768)] {
        let got = shape(SqSetup { sq_entries: wanted, ..plain() });
        assert_eq!((got.sq_entries, got.cq_entries), (sq, sq * 2), "{wanted}");
    }
    for (wanted, cq) in [(8, 8), (9, 16), (33, 64), (32_769, 65_536), (65_536, 65_536)] {
        let got = shape(SqSetup { cq_entries: wanted, ..plain() });
        assert_eq!((got.sq_entries, got.cq_entries), (8, cq), "{wanted}");
    }
}

#[test]
fn the_completion_queue_is_at_least_as_long() {
    refused(SqSetup { cq_entries: 4, ..plain() });
    refused(SqSetup { cq_entries: 4, flags: setup_flags::CLAMP, ..plain() });
    // Compared after rounding.
    assert_eq!(shape(SqSetup { cq_entries: 5, ..plain() }).cq_entries, 8);
    assert_eq!(shape(SqSetup { sq_entries: 7, cq_entries: 7, ..plain() }).cq_entries, 8);
}

#[test]
fn sizes_out_of_range_are_refused_or_clamped() {
    refused(SqSetup { sq_entries: 0, ..plain() });
    refused(SqSetup { sq_entries: 0, flags: setup_flags::CLAMP, ..plain() });
    for over in [limit::SQ_ENTRIES + 1, 65_536, 1 << 31, u32::MAX] {
        refused(SqSetup { sq_entries: over, ..plain() });
        let got = shape(SqSetup { sq_entries: over, flags: setup_flags::CLAMP, ..plain() });
        assert_eq!((got.sq_entries, got.cq_entries), (limit::SQ_ENTRIES, limit::CQ_ENTRIES), "{over}");
    }
    for over in [limit::CQ_ENTRIES + 1, 1 << 31, u32::MAX] {
        refused(SqSetup { cq_entries: over, ..plain() });
        let got = shape(SqSetup { cq_entries: over, flags: setup_flags::CLAMP, ..plain() });
        assert_eq!((got.sq_entries, got.cq_entries), (8, limit::CQ_ENTRIES), "{over}");
    }
}

#[test]
fn inflight_is_bounded_by_completions_and_by_the_limit() {
    let ask = |max_inflight, flags| Geometry::new(&SqSetup { max_inflight, flags, ..plain() });
    let granted = |max_inflight| ask(max_inflight, 0).map(|shape| shape.max_inflight);
    assert_eq!(granted(0), Ok(8), "half of 16");
    assert_eq!(granted(1), Ok(1));
    assert_eq!(granted(3), Ok(3), "not rounded");
    assert_eq!(granted(16), Ok(16));
    assert_eq!(granted(17), Err(Errno::EINVAL));
    assert_eq!(ask(u32::MAX, setup_flags::CLAMP).map(|shape| shape.max_inflight), Ok(16));
    // A ring of one has one.
    assert_eq!(shape(SqSetup { sq_entries: 1, cq_entries: 1, ..plain() }).max_inflight, 1);
    // The longest completion queue has more slots than there may be requests.
    let long = SqSetup { cq_entries: limit::CQ_ENTRIES, ..plain() };
    assert_eq!(shape(long).max_inflight, limit::INFLIGHT);
    refused(SqSetup { max_inflight: limit::INFLIGHT + 1, ..long });
    let clamped = SqSetup { max_inflight: limit::INFLIGHT + 1, flags: setup_flags::CLAMP, ..long };
    assert_eq!(shape(clamped).max_inflight, limit::INFLIGHT);
}

#[test]
fn the_pool_has_its_rules() {
    let pool = |buf_count, buf_bytes, flags| Geometry::new(&SqSetup { buf_count, buf_bytes, flags, ..plain() });
    assert_eq!(pool(0, 0, 0).unwrap().pool, SqRegion::default(), "none was asked for");
    assert_eq!(pool(3, 8192, 0).unwrap().pool.size, 3 * 8192);
    assert_eq!(pool(4, limit::BUF_BYTES, 0).unwrap().pool.size, limit::POOL_BYTES);
    assert_eq!(pool(limit::BUFS, 4096, 0).unwrap().pool.size, 32_768 * 4096);
    for flags in [0, setup_flags::CLAMP] {
        let wrong = [
            (1, 0),
            (0, 4096),
            // Not pages.
            (1, 1),
            (1, 4095),
            (1, 4097),
            (1, 2048),
            // Too many, too large, too much. CLAMP is about queues only.
            (limit::BUFS + 1, 4096),
            (1, limit::BUF_BYTES + 4096),
            (1, 1 << 31),
            (5, limit::BUF_BYTES),
            (limit::BUFS, 1 << 18),
            (u32::MAX, u32::MAX),
            (u32::MAX, u32::MAX - 4095),
        ];
        for (count, bytes) in wrong {
            assert_eq!(pool(count, bytes, flags), Err(Errno::EINVAL), "{count} x {bytes}");
        }
    }
}

#[test]
fn a_segment_of_the_pool_stays_inside_its_buffer() {
    let shape = shape(SqSetup { buf_count: 3, buf_bytes: 8192, ..plain() });
    assert_eq!(shape.pool_offset(0, 0, 8192), Some(0));
    assert_eq!(shape.pool_offset(2, 8191, 1), Some(2 * 8192 + 8191));
    assert_eq!(shape.pool_offset(2, 8192, 0), Some(3 * 8192), "empty, at the end");
    assert_eq!(shape.pool_offset(3, 0, 0), None);
    assert_eq!(shape.pool_offset(u16::MAX, 0, 0), None);
    assert_eq!(shape.pool_offset(0, 1, 8192), None, "into the next buffer");
    assert_eq!(shape.pool_offset(0, 8193, 0), None);
    assert_eq!(shape.pool_offset(0, u64::MAX, 1), None, "no wrap");
    assert_eq!(shape.pool_offset(0, u64::MAX, 0), None);
    assert_eq!(shape.pool_offset(0, 0, u32::MAX), None);
    let none = Geometry::new(&plain()).unwrap();
    assert_eq!(none.pool_offset(0, 0, 0), None, "no pool, no buffer");
}

/// A word or array of a region: what it is, who writes it, where it is.
type Place = (&'static str, &'static str, u64, u64);

fn user_places(shape: &Geometry) -> Vec<Place> {
    let at = shape.offsets;
    let sqe = if shape.sqe128 { 128 } else { 64 };
    vec![
        ("sq_tail", "submitter", at.sq_tail.into(), 4),
        ("cq_head", "reaper", at.cq_head.into(), 4),
        ("cq_flags", "reaper", at.cq_flags.into(), 4),
        ("sqes", "entries", at.sqes.into(), u64::from(shape.sq_entries) * sqe),
    ]
}

fn kernel_places(shape: &Geometry) -> Vec<Place> {
    let at = shape.offsets;
    let cqe = if shape.cqe32 { 32 } else { 16 };
    vec![
        ("sq_head", "drain owner", at.sq_head.into(), 4),
        ("sq_state", "drain owner", at.sq_state.into(), 4),
        ("cq_tail", "completion lock", at.cq_tail.into(), 4),
        ("broken", "whoever breaks", at.broken.into(), 4),
        ("cqes", "completions", at.cqes.into(), u64::from(shape.cq_entries) * cqe),
    ]
}

/// Shapes from the smallest to the largest, with all strides.
fn shapes() -> Vec<Geometry> {
    let strides = [0, setup_flags::SQE128, setup_flags::CQE32, setup_flags::SQE128 | setup_flags::CQE32];
    let sizes = [(1, 1), (1, 65_536), (8, 0), (63, 64), (64, 0), (4096, 8192), (32_768, 0)];
    let shapes = strides.into_iter().flat_map(|flags| {
        sizes.map(|(sq_entries, cq_entries)| SqSetup {
            flags,
            sq_entries,
            cq_entries,
            buf_count: 2,
            buf_bytes: 4096,
            ..plain()
        })
    });
    shapes.map(shape).collect()
}

#[test]
fn words_are_apart_by_writer_and_inside_their_region() {
    for shape in shapes() {
        for (places, region) in [(user_places(&shape), shape.user), (kernel_places(&shape), shape.kernel)] {
            for (i, (name, writer, start, len)) in places.iter().enumerate() {
                assert!(start + len <= region.size, "{name} leaves its region: {shape:?}");
                let aligned = if *len == 4 { 4 } else { 128 };
                assert!(start.is_multiple_of(aligned), "{name} at {start}");
                for (other, by, from, bytes) in places.iter().skip(i + 1) {
                    assert!(start + len <= *from || from + bytes <= *start, "{name} and {other} overlap");
                    // The last byte of one and the first of the other, in whichever order they stand.
                    let (end, begin) = if start < from { (start + len, *from) } else { (from + bytes, *start) };
                    if writer != by {
                        assert!((end - 1) / 128 < begin / 128, "{name} and {other} share a pair of cache lines");
                    }
                }
            }
        }
        // The drain owner's two words are written together.
        assert_eq!(shape.offsets.sq_head / 128, shape.offsets.sq_state / 128);
        assert_eq!(shape.offsets.resv, [0; 7]);
    }
}

#[test]
fn the_documented_words_are_the_words() {
    let doc = include_str!("../../docs/protocol.md");
    let (_, rest) = doc.split_once("<!-- shared words: begin -->\n").expect("its beginning is marked");
    let (table, _) = rest.split_once("<!-- shared words: end -->").expect("its end is marked");
    let documented: Vec<_> = table.lines().skip(2).map(|row| row.split(" | ").take(3).collect::<Vec<_>>()).collect();
    let shape = shape(plain());
    let words = |region: &'static str, places: Vec<Place>| {
        places.into_iter().map(move |(name, _, at, _)| vec![format!("| `{name}`"), region.to_owned(), at.to_string()])
    };
    let real: Vec<_> = words("user", user_places(&shape)).chain(words("kernel", kernel_places(&shape))).collect();
    assert_eq!(documented, real);
}

#[test]
fn regions_are_pages_and_apart() {
    let largest = SqSetup {
        sq_entries: limit::SQ_ENTRIES,
        cq_entries: limit::CQ_ENTRIES,
        buf_count: 4,
        buf_bytes: limit::BUF_BYTES,
        flags: setup_flags::SQE128 | setup_flags::CQE32,
        ..plain()
    };
    for shape in shapes().into_iter().chain([shape(largest)]) {
        let regions = [shape.user, shape.kernel, shape.pool];
        for (i, region) in regions.iter().enumerate() {
            assert!(region.offset.is_multiple_of(PAGE) && region.size.is_multiple_of(PAGE) && region.size > 0);
            for other in &regions[i + 1..] {
                assert!(region.offset + region.size <= other.offset, "{region:?} and {other:?}");
            }
        }
    }
    let none = shape(plain());
    assert_eq!(none.pool, SqRegion::default());
}

#[test]
fn regions_are_no_larger_than_needed() {
    for shape in shapes() {
        for (places, region) in [(user_places(&shape), shape.user), (kernel_places(&shape), shape.kernel)] {
            let end = places.iter().map(|(_, _, start, len)| start + len).max().unwrap();
            assert!(region.size - end < PAGE, "{region:?} for {end} bytes");
        }
    }
}

#[test]
fn report_says_what_was_made() {
    let mut setup = SqSetup { sq_entries: 5, buf_count: 1, buf_bytes: 4096, ..plain() };
    let shape = shape(setup);
    shape.report(&mut setup, 7);
    assert_eq!((setup.sq_entries, setup.cq_entries, setup.max_inflight, setup.features), (8, 16, 8, 7));
    assert_eq!((setup.user, setup.kernel, setup.pool), (shape.user, shape.kernel, shape.pool));
    assert_eq!((setup.offsets, setup.resv0, setup.resv), (shape.offsets, 0, [0; 4]));
    // What came out is no input: a second SETUP with it is refused.
    refused(setup);
}

/// `len` bytes whose size field says `size`.
fn argument(len: usize, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    bytes[..4].copy_from_slice(&u32::try_from(size).unwrap().to_le_bytes());
    bytes
}

/// The size rules, for one structure.
fn sizes<T: Argument + PartialEq + core::fmt::Debug>() {
    let known = size_of::<T>();
    assert_eq!(T::MIN_SIZE, known, "this is the first version");
    assert_eq!(read::<T>(&argument(known, known)).map(|_| ()), Ok(()));
    // Short, whatever the field says.
    for short in 4..known {
        assert_eq!(read::<T>(&argument(short, short)).err(), Some(Errno::EINVAL), "{short}");
        assert_eq!(read::<T>(&argument(short, known)).err(), Some(Errno::EINVAL), "{short}");
    }
    for tiny in 0..4 {
        assert_eq!(read::<T>(&vec![0; tiny]).err(), Some(Errno::EINVAL), "{tiny}");
    }
    // The field says something else.
    for said in [0, 1, known - 1, known + 1, known + 8, u32::MAX as usize] {
        assert_eq!(read::<T>(&argument(known, said)).err(), Some(Errno::EINVAL), "{said}");
    }
    // Long: a newer caller that does not use what is new.
    for more in [1, 8, 64, 1000] {
        let long = argument(known + more, known + more);
        assert_eq!(read::<T>(&long).map(|_| ()), Ok(()), "{more}");
        assert_eq!(read::<T>(&argument(known + more, known)).err(), Some(Errno::EINVAL), "{more}");
        for at in [known, known + more - 1] {
            let mut used = long.clone();
            used[at] = 0x80;
            assert_eq!(read::<T>(&used).err(), Some(Errno::E2BIG), "byte {at} of {}", used.len());
        }
    }
}

#[test]
fn the_size_of_an_argument() {
    sizes::<SqSetup>();
    sizes::<SqEnter>();
    sizes::<SqRegister>();
    sizes::<SqQuiesce>();
    sizes::<SqCancel>();
    sizes::<SqQuery>();
    sizes::<SqStats>();
}

#[test]
fn an_argument_comes_and_goes_byte_for_byte() {
    let len = size_of::<SqEnter>();
    for more in [0, 24] {
        let mut bytes: Vec<u8> = (0..len).map(|i| i as u8).collect();
        bytes.resize(len + more, 0);
        bytes[..4].copy_from_slice(&u32::try_from(len + more).unwrap().to_le_bytes());
        let enter: SqEnter = read(&bytes).unwrap();
        assert_eq!((enter.min_complete, enter.timeout_ns), (0x0b0a_0908, 0x1716_1514_1312_1110));
        let mut back = vec![0; len + more];
        write(&enter, &mut back);
        assert_eq!(back, bytes);
    }
    // A caller with less room gets less.
    let mut small = [0xff; 12];
    write(&SqEnter { size: 12, flags: 1, min_complete: 2, resv: 3, ..SqEnter::default() }, &mut small);
    assert_eq!(small, [12, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0]);
}

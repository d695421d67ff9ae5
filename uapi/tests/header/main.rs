// SPDX-License-Identifier: MIT OR Apache-2.0
//! `include/sq.h` and this crate are the same ABI: every size, offset and constant is compared, by gcc, in 64 and 32 bits.
//!
//! The Rust side writes a C file of `_Static_assert`s; gcc judges them. What is compared stands in [`table`]; a name in
//! one of the sources that is not in it fails a test of its own.

mod gcc;
mod source;
mod table;

use std::io::Write;
use std::path::Path;

use gcc::{Bits, compile, compile_cpp};
use source::{HEADER, Names, identifiers, without_comments};
use sq_uapi::Errno;
use table::{Constant, Table};

const INCLUDE: &str = "#include <sq.h>\n";

#[test]
fn sizes_offsets_and_constants_agree() {
    let c = format!("{INCLUDE}{}", Table::new().assertions());
    for bits in Bits::ALL {
        compile("agree", &c, *bits).unwrap_or_else(|said| panic!("sq.h and sq-uapi differ ({bits:?}):\n{said}"));
    }
}

#[test]
fn the_header_stands_alone() {
    // Twice, as its guard allows, and with nothing before it.
    for bits in Bits::ALL {
        compile("alone", &format!("{INCLUDE}{INCLUDE}int sq_not_empty;\n"), *bits).unwrap();
    }
}

#[test]
fn the_header_is_cpp_too() {
    for standard in ["c++11", "c++20"] {
        match compile_cpp(standard, &format!("{INCLUDE}sq_sqe sqe = {{}};\n")) {
            Ok(true) => {}
            Ok(false) => return skip("the_header_is_cpp_too", "g++ is missing"),
            Err(said) => panic!("{standard}:\n{said}"),
        }
    }
}

#[test]
fn a_difference_is_seen() {
    let wrong = [
        "SQ_OP_READ == 23ULL",
        "sizeof(struct sq_setup) == 191",
        "_Alignof(struct sq_cqe) == 4",
        "__builtin_offsetof(struct sq_sqe, addr) == 17",
        "((__typeof__(((struct sq_sqe *)0)->fd))-1 > 0) == 1",
    ];
    for bits in Bits::ALL {
        for claim in wrong {
            let said = compile("wrong", &format!("{INCLUDE}_Static_assert({claim}, \"wrong\");\n"), *bits).unwrap_err();
            assert!(said.contains("static assertion failed"), "{said}");
        }
    }
}

#[test]
fn no_constant_is_forgotten() {
    let table = Table::new();
    let compared_c: Names = table.constants.iter().map(|constant| constant.c.clone()).collect();
    assert_eq!(compared_c.len(), table.constants.len(), "each is compared once");
    same("the header's constants", &source::header_constants(), &compared_c);

    let mut rust = source::rust_constants(source::CONSTS, None);
    rust.extend(source::rust_constants(source::IOCTL, Some("ioctl")));
    rust.extend(source::rust_arguments());
    same("consts.rs's, ioctl.rs's and arguments!'s", &rust, &table.constants.iter().map(|c| c.rust.clone()).collect());
}

#[test]
fn no_field_is_forgotten() {
    let table = Table::new();
    let compared: Names = table.fields.iter().map(|field| format!("{}.{}", field.c_struct, field.c)).collect();
    assert_eq!(compared.len(), table.fields.len(), "each is compared once");
    same("the header's fields", &source::header_fields(), &compared);

    let mut rust = source::rust_fields(source::ENTRY);
    rust.extend(source::rust_fields(source::STRUCTS));
    same("entry.rs's and structs.rs's", &rust, &table.fields.iter().filter_map(|field| field.rust.clone()).collect());

    // With every field of a structure in the table, padding is what is left over.
    for each in &table.structs {
        let fields = table.fields.iter().filter(|field| field.c_struct == each.c && field.rust.is_some());
        assert_eq!(fields.map(|field| field.size).sum::<usize>(), each.size, "{} has padding", each.rust);
    }
}

#[test]
fn the_header_keeps_its_own_rules() {
    let code = without_comments(HEADER);
    for line in code.lines().filter_map(|line| line.trim().strip_prefix("#define")) {
        let name = identifiers(line).next().expect("a name");
        let private = name.starts_with("__sq_") || name == "_UAPI_SQ_H";
        assert!(private || name.starts_with("SQ_"), "{name} has no prefix");
    }
    let words: Names = identifiers(&code).map(str::to_owned).collect();
    for plain in ["__u64", "__s64", "enum", "int", "long", "char", "unsigned", "size_t", "uint32_t", "bool"] {
        assert!(!words.contains(plain), "{plain}: fields are __u8, __u16, __u32, __s32 or __aligned_u64");
    }
    let bitfield = code.lines().find(|line| line.contains(':') && !line.contains("#error"));
    assert_eq!(bitfield, None, "no bitfields in an ABI");
    for line in HEADER.lines().filter(|line| line.starts_with('\t') && line.contains(';')) {
        let is_field = line.trim_start().starts_with("__u") || line.trim_start().starts_with("__s32");
        let obvious = line.contains("__sq_");
        assert!(!is_field || obvious || line.contains("/*"), "a field without a comment: {line}");
    }
}

#[test]
fn errno_is_linux_errno() {
    let (_, list) = source::ERRNO.split_once("\nerrnos! {").expect("the list");
    let (list, _) = list.split_once("\n}").expect("its end");
    let mut c = String::from("#include <linux/errno.h>\n");
    let mut count = 0;
    for line in list.lines().filter(|line| !line.is_empty()) {
        let (name, rest) = line.trim().split_once(" = ").expect("a name");
        let value: i32 = rest.split_once(',').expect("a value").0.parse().expect("a number");
        assert_eq!(Errno::new(value).and_then(Errno::name), Some(name));
        c.push_str(&format!("_Static_assert({name} == {value}, \"{name}\");\n"));
        count += 1;
    }
    assert!(count >= 30, "only {count} found");
    compile("errno", &c, Bits::M64).unwrap_or_else(|said| panic!("{said}"));
}

#[test]
fn io_uring_agrees() {
    let header = Path::new("/usr/include/linux/io_uring.h");
    let Ok(text) = std::fs::read_to_string(header) else {
        return skip("io_uring_agrees", &format!("{} is missing: apt-get install linux-libc-dev", header.display()));
    };
    let known: Names = identifiers(&without_comments(&text)).map(str::to_owned).collect();
    let mut c = String::from("#include <linux/io_uring.h>\n#include <sq.h>\n");
    let mut missing = Vec::new();
    let mut borrowed = 0;
    let table = Table::new();
    for Constant { c: name, io_uring, .. } in &table.constants {
        match io_uring {
            Some(theirs) if known.contains(theirs) => {
                c.push_str(&format!("_Static_assert({name} == {theirs}, \"{name} is {theirs}\");\n"));
                borrowed += 1;
            }
            Some(theirs) => missing.push(theirs.as_str()),
            // A number of our own is none of theirs.
            None if name.starts_with("SQ_REGISTER_") && !name.ends_with("_VER0") => {
                c.push_str(&format!("_Static_assert({name} >= IORING_REGISTER_LAST, \"{name} is our own\");\n"));
            }
            None => {}
        }
    }
    for (ours, theirs) in [
        ("opcode", "opcode"),
        ("flags", "flags"),
        ("ioprio", "ioprio"),
        ("fd", "fd"),
        ("off", "off"),
        ("cmd_op", "cmd_op"),
        ("addr", "addr"),
        ("len", "len"),
        ("op_flags", "rw_flags"),
        ("fsync_flags", "fsync_flags"),
        ("cancel_flags", "cancel_flags"),
        ("cmd_flags", "uring_cmd_flags"),
        ("user_data", "user_data"),
        ("buf_index", "buf_index"),
        ("personality", "personality"),
        ("file_index", "file_index"),
        ("cmd", "cmd"),
    ] {
        same_place(&mut c, &known, ("sq_sqe", ours), ("io_uring_sqe", theirs), &mut missing);
    }
    for field in ["user_data", "res", "flags"] {
        same_place(&mut c, &known, ("sq_cqe", field), ("io_uring_cqe", field), &mut missing);
    }
    c.push_str("_Static_assert(sizeof(struct sq_sqe) == sizeof(struct io_uring_sqe), \"size\");\n");
    c.push_str("_Static_assert(sizeof(struct sq_cqe) == sizeof(struct io_uring_cqe), \"size\");\n");
    compile("io_uring", &c, Bits::M64).unwrap_or_else(|said| panic!("io_uring has other values:\n{said}"));
    assert!(borrowed >= 25, "only {borrowed} borrowed constants were compared");
    if !missing.is_empty() {
        skip("io_uring_agrees", &format!("{} is too old to have {}", header.display(), missing.join(", ")));
    }
}

/// Claims that a field of ours is where io_uring has it.
fn same_place<'a>(
    c: &mut String,
    known: &Names,
    ours: (&str, &str),
    theirs: (&str, &'a str),
    missing: &mut Vec<&'a str>,
) {
    if !known.contains(theirs.1) {
        missing.push(theirs.1);
        return;
    }
    let offset = |(of, field): (&str, &str)| format!("__builtin_offsetof(struct {of}, {field})");
    c.push_str(&format!("_Static_assert({} == {}, \"{}\");\n", offset(ours), offset(theirs), ours.1));
}

/// Says so past libtest's capture: a check that did not happen is never silent.
fn skip(test: &str, why: &str) {
    writeln!(std::io::stderr(), "SKIP uapi/tests/header {test}: {why}").expect("stderr");
}

/// Both sets, or what one of them lacks.
fn same(what: &str, source: &Names, compared: &Names) {
    let forgotten: Vec<_> = source.difference(compared).collect();
    let gone: Vec<_> = compared.difference(source).collect();
    assert!(forgotten.is_empty(), "{what}: not compared: {forgotten:?}");
    assert!(gone.is_empty(), "{what}: compared, but not there: {gone:?}");
    assert!(!source.is_empty(), "{what}: none found");
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The names in the two sources, as text: what the table must not have forgotten.

use std::collections::BTreeSet;

pub(crate) const HEADER: &str = include_str!("../../include/sq.h");
pub(crate) const CONSTS: &str = include_str!("../../src/consts.rs");
pub(crate) const IOCTL: &str = include_str!("../../src/ioctl.rs");
pub(crate) const ENTRY: &str = include_str!("../../src/entry.rs");
pub(crate) const STRUCTS: &str = include_str!("../../src/structs.rs");
pub(crate) const ERRNO: &str = include_str!("../../src/errno.rs");

/// A set of names.
pub(crate) type Names = BTreeSet<String>;

/// C without its comments.
pub(crate) fn without_comments(c: &str) -> String {
    let mut out = String::new();
    let mut rest = c;
    while let Some((code, comment)) = rest.split_once("/*") {
        out.push_str(code);
        out.push(' ');
        rest = comment.split_once("*/").expect("a comment ends").1;
    }
    out.push_str(rest);
    assert!(!out.contains("//"), "the header has C90 comments only");
    out
}

/// Every identifier of a C text.
pub(crate) fn identifiers(c: &str) -> impl Iterator<Item = &str> {
    c.split(|ch: char| !(ch.is_ascii_alphanumeric() || ch == '_')).filter(|word| !word.is_empty())
}

/// Whatever the header calls `SQ_...`, defined in whatever way.
pub(crate) fn header_constants() -> Names {
    identifiers(&without_comments(HEADER)).filter(|word| word.starts_with("SQ_")).map(str::to_owned).collect()
}

/// `struct.field` for each field of the header, also inside unions.
pub(crate) fn header_fields() -> Names {
    let code = without_comments(HEADER);
    let mut names = Names::new();
    let mut rest = code.as_str();
    while let Some((_, after)) = rest.split_once("\nstruct ") {
        let (name, body) = after.split_once('{').expect("a definition");
        let (body, after) = body.split_once("\n};").expect("its end");
        for piece in body.split([';', '{', '}']) {
            let declared = piece.split('[').next().unwrap_or_default();
            let words: Vec<_> = identifiers(declared).collect();
            let [types @ .., field] = words.as_slice() else { continue };
            if !types.is_empty() {
                names.insert(format!("{}.{field}", name.trim()));
            } else {
                assert!(matches!(*field, "union" | "struct"), "a field without a type: {field}");
            }
        }
        rest = after;
    }
    names
}

/// `NAME` or `module::NAME` for each `pub const` of `consts.rs`, `default_module::NAME` for other files.
pub(crate) fn rust_constants(source: &str, default_module: Option<&str>) -> Names {
    let mut module = default_module;
    let mut names = Names::new();
    for line in source.lines() {
        if let Some(name) = line.strip_prefix("pub mod ") {
            module = name.strip_suffix(" {");
        } else if line == "}" {
            module = default_module;
        } else if let Some(name) = line.trim_start().strip_prefix("pub const ") {
            let Some((name, _)) = name.split_once(':') else { continue };
            names.insert(module.map_or_else(|| name.to_owned(), |module| format!("{module}::{name}")));
        }
    }
    names
}

/// `Struct::field` for each field of a `pub struct`.
pub(crate) fn rust_fields(source: &str) -> Names {
    let mut current = None;
    let mut names = Names::new();
    for line in source.lines() {
        if let Some(name) = line.strip_prefix("pub struct ") {
            current = name.strip_suffix(" {");
            assert!(current.is_some(), "a struct with named fields: {line}");
        } else if line == "}" {
            current = None;
        } else if let (Some(name), Some(field)) = (current, line.strip_prefix("    pub ")) {
            let (field, _) = field.split_once(':').expect("a field has a type");
            names.insert(format!("{name}::{field}"));
        }
    }
    names
}

/// `Struct::MIN_SIZE` for each structure of `arguments!`.
pub(crate) fn rust_arguments() -> Names {
    let (_, body) = STRUCTS.split_once("\narguments! {").expect("the list of arguments");
    let (body, _) = body.split_once("\n}").expect("its end");
    body.lines().filter_map(|line| Some(format!("{}::MIN_SIZE", line.split_once(" = ")?.0.trim()))).collect()
}

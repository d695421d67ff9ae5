// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tables, numbers, and the marked parts of a document.

use anyhow::{Context, Result, bail};

use super::data::Passes;

/// What stands where nothing was measured.
pub(crate) const NONE: &str = "–";

/// Passes that are further apart than this part of their median say so.
const NOTABLE: f64 = 0.10;

/// A column of text, besides the first.
pub(crate) const CROSSES: &str = "crosses";

/// A table; the first column and [`CROSSES`] are text, the others are numbers.
pub(crate) fn table<S: AsRef<str>>(head: &[S], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let head: Vec<String> = head.iter().map(|cell| cell.as_ref().to_owned()).collect();
    let side = |(n, cell): (usize, &String)| if n == 0 || cell == CROSSES { "---" } else { "---:" };
    let rule: Vec<&str> = head.iter().enumerate().map(side).collect();
    let body: String = rows.iter().map(|row| line(row)).collect();
    format!("{}|{}|\n{body}", line(&head), rule.join("|"))
}

/// As [`table`], of text throughout.
pub(crate) fn text_table(head: &[&str], rows: &[Vec<String>]) -> String {
    table(head, rows).replace("---:", "---")
}

/// Three digits that count.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        v if v < 1.0 => format!("{value:.3}"),
        v if v < 10.0 => format!("{value:.2}"),
        v if v < 100.0 => format!("{value:.1}"),
        _ => grouped(value),
    }
}

/// 12 345.
fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) && digits.len() > 4 {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    if value < 0.0 { format!("-{text}") } else { text }
}

pub(crate) fn times(value: f64) -> String {
    if value < 10.0 { format!("{value:.2} x") } else { format!("{} x", number(value)) }
}

pub(crate) fn or_none(value: Option<String>) -> String {
    value.unwrap_or_else(|| NONE.to_owned())
}

/// A median, and how far the passes are apart if that is far.
pub(crate) fn passes(passes: Passes) -> String {
    let text = number(passes.median);
    if passes.spread > NOTABLE { format!("{text} (±{:.0} %)", passes.spread * 50.0) } else { text }
}

/// Replaces the part of `document` between the marks of `name`.
///
/// # Errors
/// There are no such marks.
pub(crate) fn fill(document: &str, name: &str, part: &str) -> Result<String> {
    let (begin, end) = (format!("<!-- begin {name} -->\n"), format!("<!-- end {name} -->"));
    let (before, rest) = document.split_once(&begin).with_context(|| format!("no line {begin:?}"))?;
    let (_, after) = rest.split_once(&end).with_context(|| format!("no line {end:?}"))?;
    if after.contains(&begin) {
        bail!("{begin:?} is there twice");
    }
    Ok(format!("{before}{begin}{}\n{end}{after}", part.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::{fill, number, table};

    #[test]
    fn a_marked_part_is_replaced_and_nothing_else() {
        let document = "a\n<!-- begin x -->\nold\n<!-- end x -->\nb\n";
        assert_eq!(fill(document, "x", "new\n").unwrap(), "a\n<!-- begin x -->\nnew\n<!-- end x -->\nb\n");
        assert!(fill(document, "y", "").is_err());
    }

    #[test]
    fn numbers_and_tables() {
        let numbers = [0.0, 0.0123, 1.234, 12.34, 1234.5, 12345.6, -12345.6].map(number);
        assert_eq!(numbers, ["0", "0.012", "1.23", "12.3", "1234", "12\u{202f}346", "-12\u{202f}346"]);
        assert_eq!(table(&["a", "b"], &[vec!["x".into(), "1".into()]]), "| a | b |\n|---|---:|\n| x | 1 |\n");
    }
}

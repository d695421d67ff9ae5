// SPDX-License-Identifier: MIT OR Apache-2.0
//! Numbers of bytes, to be read by people and from them.

use std::fmt;

const UNITS: [(char, u32); 4] = [('K', 10), ('M', 20), ('G', 30), ('T', 40)];

/// Parses `4096`, `256K`, `1M`, `2G`, `1T`: powers of 1024, with or without `iB` or `B`.
///
/// # Errors
///
/// What is wrong with it.
///
/// ```
/// assert_eq!(sq_storage::size::parse("256K"), Ok(256 * 1024));
/// assert_eq!(sq_storage::size::parse("2GiB"), Ok(2 << 30));
/// assert!(sq_storage::size::parse("2 potatoes").is_err());
/// ```
pub fn parse(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = text.get(digits.len()..).unwrap_or_default().trim();
    let number: u64 = digits.parse().map_err(|_| format!("`{text}` is no size: write it as 4096, 256K, 1M or 2G"))?;
    let mut letters = unit.chars();
    let shift = match letters.next().map(|c| c.to_ascii_uppercase()) {
        None => 0,
        Some('B') if unit.len() == 1 => 0,
        Some(letter) if matches!(letters.as_str(), "" | "iB" | "B") => UNITS
            .iter()
            .find(|(unit, _)| *unit == letter)
            .map(|(_, shift)| *shift)
            .ok_or_else(|| format!("`{unit}` is no unit: use K, M, G or T"))?,
        Some(_) => return Err(format!("`{unit}` is no unit: use K, M, G or T")),
    };
    number.checked_mul(1 << shift).ok_or_else(|| format!("`{text}` is too large"))
}

/// A number of bytes, printed with a binary unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((unit, shift)) = UNITS.iter().rev().find(|(_, shift)| self.0 >= 1 << shift) else {
            return f.pad(&format!("{} B", self.0));
        };
        let whole = 1u64 << shift;
        if self.0.is_multiple_of(whole) {
            f.pad(&format!("{} {unit}iB", self.0 / whole))
        } else {
            f.pad(&format!("{:.1} {unit}iB", self.0 as f64 / whole as f64))
        }
    }
}

/// Megabytes (10^6 bytes) a second.
#[must_use]
pub fn mb_per_s(bytes: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { bytes as f64 / 1e6 / seconds } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::{Bytes, parse};

    #[test]
    fn sizes_are_read_and_written() {
        for (text, bytes) in
            [("0", 0), ("1", 1), ("4k", 4096), ("7KiB", 7168), ("3MB", 3 << 20), ("1T", 1 << 40), ("9B", 9)]
        {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for text in ["", "K", "1.5M", "-1", "1X", "1Kx", "99999999999999999999", "18446744073709551615K"] {
            assert!(parse(text).is_err(), "{text}");
        }
        for (bytes, text) in [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (1536, "1.5 KiB"), (2 << 30, "2 GiB")] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }
}

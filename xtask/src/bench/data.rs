// SPDX-License-Identifier: MIT OR Apache-2.0
//! What was measured: figures, their file, and how they are looked up.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

const HEAD: &str = "group,row,crosses,parameter,what,pass,value";

/// Nanoseconds an operation, of criterion's rows with elements.
pub(crate) const NS: &str = "ns/op";
/// Gigabytes a second, of criterion's rows with bytes.
pub(crate) const GBS: &str = "GB/s";

/// One figure of one pass.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Figure {
    pub(crate) group: String,
    pub(crate) row: String,
    /// What the row's operations cross: a function call, a thread, a system call.
    pub(crate) crosses: String,
    pub(crate) parameter: String,
    pub(crate) what: String,
    pub(crate) pass: u32,
    pub(crate) value: f64,
}

/// All passes of a figure.
#[derive(Clone, Copy)]
pub(crate) struct Passes {
    pub(crate) median: f64,
    /// From the least to the most, in parts of the median.
    pub(crate) spread: f64,
}

#[derive(Default)]
pub(crate) struct Data(pub(crate) Vec<Figure>);

impl Data {
    /// A file that is not there holds nothing.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        if !path.exists() {
            return Ok(Self::default());
        }
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("in {}", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let figure = |line: &str| {
            let cells: Vec<&str> = line.split(',').collect();
            let [group, row, crosses, parameter, what, pass, value] = cells[..] else { return None };
            let [group, row, crosses, parameter, what] = [group, row, crosses, parameter, what].map(str::to_owned);
            Some(Figure { group, row, crosses, parameter, what, pass: pass.parse().ok()?, value: value.parse().ok()? })
        };
        let lines = text.lines().skip(1);
        lines.map(|line| figure(line).with_context(|| format!("not {HEAD}: {line}"))).collect::<Result<_>>().map(Self)
    }

    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let line = |f: &Figure| {
            let Figure { group, row, crosses, parameter, what, pass, value } = f;
            format!("{group},{row},{crosses},{parameter},{what},{pass},{value:.4}\n")
        };
        let text: String = self.0.iter().map(line).collect();
        fs::write(path, format!("{HEAD}\n{text}")).with_context(|| format!("cannot write {}", path.display()))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn get(&self, group: &str, row: &str, parameter: impl ToString, what: &str) -> Option<Passes> {
        let parameter = parameter.to_string();
        let is = |f: &&Figure| f.group == group && f.row == row && f.parameter == parameter && f.what == what;
        passes(self.0.iter().filter(is).map(|figure| figure.value).collect())
    }

    /// The median, for arithmetic.
    pub(crate) fn value(&self, group: &str, row: &str, parameter: impl ToString, what: &str) -> Option<f64> {
        self.get(group, row, parameter, what).map(|passes| passes.median)
    }

    /// How much more `of` is than `than`: the median of the passes' differences, since both stand next to each other in each.
    pub(crate) fn difference(&self, group: &str, [of, than]: [&str; 2], parameter: u32) -> Option<f64> {
        let parameter = parameter.to_string();
        let all = |row: &str| -> Vec<(u32, f64)> {
            let is = |f: &&Figure| f.group == group && f.row == row && f.parameter == parameter && f.what == NS;
            self.0.iter().filter(is).map(|figure| (figure.pass, figure.value)).collect()
        };
        let others = all(than);
        let apart = |(pass, value): (u32, f64)| Some(value - others.iter().find(|(other, _)| *other == pass)?.1);
        passes(all(of).into_iter().filter_map(apart).collect()).map(|passes| passes.median)
    }

    /// The rows of a group, ours first, with what they cross.
    pub(crate) fn rows(&self, group: &str, what: &str) -> Vec<(String, String)> {
        let mut rows: Vec<(String, String)> = Vec::new();
        for figure in self.0.iter().filter(|figure| figure.group == group && figure.what == what) {
            if !rows.iter().any(|(row, _)| *row == figure.row) {
                rows.push((figure.row.clone(), figure.crosses.clone()));
            }
        }
        rows.sort_by_key(|(row, _)| {
            !["ring ", "ioctl door ", "uring_cmd /dev/sq"].iter().any(|ours| row.starts_with(ours))
        });
        rows
    }

    pub(crate) fn is_repeated(&self) -> bool {
        self.0.iter().any(|figure| figure.pass != self.0[0].pass)
    }

    /// How far the passes of each row are apart, the least first.
    pub(crate) fn spreads(&self) -> Vec<f64> {
        let mut spreads: Vec<f64> = Vec::new();
        let mut seen: Vec<(&str, &str, &str)> = Vec::new();
        for f in self.0.iter().filter(|f| f.what == NS || f.what == GBS) {
            if seen.contains(&(&f.group, &f.row, &f.parameter)) {
                continue;
            }
            seen.push((&f.group, &f.row, &f.parameter));
            spreads.extend(self.get(&f.group, &f.row, &f.parameter, &f.what).map(|passes| passes.spread));
        }
        spreads.sort_by(f64::total_cmp);
        spreads
    }
}

fn passes(mut values: Vec<f64>) -> Option<Passes> {
    values.sort_by(f64::total_cmp);
    let (least, most) = (*values.first()?, *values.last()?);
    let half = values.len() / 2;
    let median = if values.len() % 2 == 1 { values[half] } else { (values[half - 1] + values[half]) / 2.0 };
    Some(Passes { median, spread: if median == 0.0 { 0.0 } else { (most - least) / median } })
}

/// "ring embedded caller (function call)" is a row and what it crosses.
fn split(function: &str) -> (String, String) {
    let parts = function.strip_suffix(')').and_then(|function| function.rsplit_once(" ("));
    let (row, crosses) = parts.unwrap_or((function, ""));
    (row.to_owned(), crosses.to_owned())
}

/// The rows that criterion left in `home`.
pub(crate) fn criterion(home: &Path, pass: u32) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let mut folders = vec![home.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).with_context(|| format!("criterion left no {}", folder.display()))?;
        let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        paths.sort();
        folders.extend(paths.into_iter().filter(|path| path.is_dir()));
        if folder.join("benchmark.json").exists() && folder.ends_with("new") {
            figures.push(one(&folder, pass).with_context(|| format!("in {}", folder.display()))?);
        }
    }
    Ok(figures)
}

fn one(folder: &Path, pass: u32) -> Result<Figure> {
    let read = |name: &str| -> Result<Value> { Ok(serde_json::from_str(&fs::read_to_string(folder.join(name))?)?) };
    let (about, samples) = (read("benchmark.json")?, read("sample.json")?);
    let numbers = |key: &str| -> Option<Vec<f64>> { samples[key].as_array()?.iter().map(Value::as_f64).collect() };
    let (times, iterations) = (numbers("times").context("no times")?, numbers("iters").context("no iterations")?);
    let each = times.iter().zip(&iterations).map(|(time, count)| time / count).collect();
    let ns = passes(each).context("no samples")?.median;
    let (what, value) = match (about["throughput"]["Elements"].as_f64(), about["throughput"]["Bytes"].as_f64()) {
        (Some(elements), _) => (NS, ns / elements),
        (None, Some(bytes)) => (GBS, bytes / ns),
        (None, None) => (NS, ns),
    };
    let text = |key: &str| about[key].as_str().map(str::to_owned);
    let (row, crosses) = split(&text("function_id").context("a row without a name")?);
    Ok(Figure {
        group: text("group_id").context("a row without a group")?,
        row,
        crosses,
        parameter: text("value_str").unwrap_or_default(),
        what: what.to_owned(),
        pass,
        value,
    })
}

/// The lines `figure,GROUP,ROW,PARAMETER,WHAT,VALUE` of a program's output.
pub(crate) fn printed(output: &str, pass: u32) -> Vec<Figure> {
    let figure = |line: &str| {
        let cells: Vec<&str> = line.trim().strip_prefix("figure,")?.split(',').collect();
        let [group, row, parameter, what, value] = cells[..] else { return None };
        let [group, parameter, what] = [group, parameter, what].map(str::to_owned);
        let (row, crosses) = split(row);
        Some(Figure { group, row, crosses, parameter, what, pass, value: value.parse().ok()? })
    };
    output.lines().filter_map(figure).collect()
}

/// What a program says that this machine has not got.
pub(crate) fn skipped(output: &str) -> Vec<String> {
    let mut skipped: Vec<String> =
        output.lines().filter_map(|line| line.trim().strip_prefix("SKIP: ")).map(str::to_owned).collect();
    skipped.sort();
    skipped.dedup();
    skipped
}

#[cfg(test)]
mod tests {
    use super::{Data, NS, printed, skipped};

    const TEXT: &str = "group,row,crosses,parameter,what,pass,value\n\
        null,ring,function call,32,ns/op,1,9.0\nnull,bare,function call,32,ns/op,1,8.0\n\
        null,ring,function call,32,ns/op,2,6.0\nnull,bare,function call,32,ns/op,2,4.0\n\
        null,ring,function call,32,ns/op,3,7.0\nnull,bare,function call,32,ns/op,3,6.0\n";

    #[test]
    fn the_median_of_the_passes_and_of_their_differences() {
        let data = Data::parse(TEXT).unwrap();
        let ring = data.get("null", "ring", 32, NS).unwrap();
        assert_eq!((ring.median, ring.spread), (7.0, 3.0 / 7.0));
        assert_eq!(data.difference("null", ["ring", "bare"], 32), Some(1.0));
        assert!(data.get("null", "ring", 8, NS).is_none());
        assert!(Data::parse("head\na,b").is_err());
    }

    #[test]
    fn a_programs_lines_are_figures_and_skips() {
        let output = "x\nfigure,wake-up,ring worker (thread),1,p50 ns,1200\nSKIP: io_uring: off\nSKIP: io_uring: off\n";
        let figures = printed(output, 2);
        assert_eq!((figures[0].row.as_str(), figures[0].crosses.as_str()), ("ring worker", "thread"));
        assert_eq!((figures.len(), figures[0].value, figures[0].pass), (1, 1200.0, 2));
        assert_eq!(skipped(output), ["io_uring: off"]);
    }
}

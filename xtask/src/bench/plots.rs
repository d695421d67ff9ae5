// SPDX-License-Identifier: MIT OR Apache-2.0
//! The plots: lines over two logarithmic axes, on a white ground of their own, so that they can be read on dark pages too.

use std::ops::Range;

use anyhow::{Result, anyhow};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

const SIZE: (u32, u32) = (860, 460);
/// The legend's share, at the right.
const LEGEND: u32 = 280;
const TEXT: RGBColor = RGBColor(0x24, 0x29, 0x2f);
const FAINT: RGBColor = RGBColor(0xd8, 0xde, 0xe4);
/// Told apart also by those who see few colours (Okabe and Ito).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0x56, 0xb4, 0xe9),
    RGBColor(0x99, 0x70, 0x00),
    RGBColor(0x33, 0x33, 0x33),
];

/// A line, and whether it is ours: those are thicker.
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
    pub(crate) ours: bool,
}

pub(crate) struct Plot {
    /// Without its ending.
    pub(crate) file: &'static str,
    pub(crate) title: String,
    pub(crate) x: &'static str,
    pub(crate) y: &'static str,
    /// Where the x axis has its marks, and what stands there.
    pub(crate) marks: Vec<(f64, String)>,
    pub(crate) lines: Vec<Line>,
}

impl Plot {
    pub(crate) fn svg(&self) -> Result<String> {
        let mut text = String::new();
        self.draw(&mut text).map_err(|why| anyhow!("cannot draw {}: {why}", self.file))?;
        // The first line of code in a file of this project is its licence.
        Ok(text.replacen(
            '>',
            ">\n<!-- SPDX-License-Identifier: MIT OR Apache-2.0; made by cargo xtask bench-report -->",
            1,
        ))
    }

    fn draw(&self, text: &mut String) -> Result<(), Box<dyn std::error::Error + '_>> {
        let root = SVGBackend::with_string(text, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let (left, legend) = root.split_horizontally(SIZE.0 - LEGEND);
        let xs = (self.marks.iter().map(|(x, _)| *x)).fold(f64::MAX..f64::MIN, around);
        let ys = self.lines.iter().flat_map(|line| &line.points).map(|(_, y)| *y).fold(f64::MAX..f64::MIN, around);
        let (low, high) = (ys.start * 0.8, ys.end * 1.25);
        let marks: Vec<f64> = self.marks.iter().map(|(x, _)| *x).collect();
        let mut chart = ChartBuilder::on(&left)
            .margin(14)
            .caption(&self.title, ("sans-serif", 17, &TEXT))
            .x_label_area_size(44)
            .y_label_area_size(62)
            .build_cartesian_2d(
                (xs.start * 0.93..xs.end * 1.07).log_scale().with_key_points(marks),
                (low..high).log_scale().with_key_points(round_numbers(low, high)),
            )?;
        let label = |x: &f64| self.marks.iter().find(|(mark, _)| mark == x).map_or(String::new(), |(_, s)| s.clone());
        chart
            .configure_mesh()
            .x_desc(self.x)
            .y_desc(self.y)
            .x_label_formatter(&label)
            .y_label_formatter(&|y| short(*y))
            .axis_desc_style(("sans-serif", 14, &TEXT))
            .label_style(("sans-serif", 13, &TEXT))
            .axis_style(TEXT)
            .bold_line_style(FAINT)
            .light_line_style(TRANSPARENT)
            .draw()?;
        for (line, colour) in self.lines.iter().zip(COLOURS.iter().cycle()) {
            let width = if line.ours { 3 } else { 2 };
            chart.draw_series(LineSeries::new(line.points.iter().copied(), colour.stroke_width(width)))?;
            chart.draw_series(line.points.iter().map(|at| Circle::new(*at, width + 1, colour.filled())))?;
        }
        self.legend(&legend)
    }

    /// In the order of the lines' right ends, as the eye meets them.
    fn legend(
        &self,
        area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    ) -> Result<(), Box<dyn std::error::Error + '_>> {
        let mut lines: Vec<_> = self.lines.iter().zip(COLOURS.iter().cycle()).collect();
        let end = |line: &Line| line.points.last().map_or(0.0, |(_, y)| *y);
        lines.sort_by(|(a, _), (b, _)| end(b).total_cmp(&end(a)));
        let style =
            TextStyle::from(("sans-serif", 13).into_font()).color(&TEXT).pos(Pos::new(HPos::Left, VPos::Center));
        for (n, (line, colour)) in (0..).zip(lines) {
            let y = 62 + 24 * n;
            let width = if line.ours { 3 } else { 2 };
            area.draw(&PathElement::new([(4, y), (26, y)], colour.stroke_width(width))).map_err(|e| e.to_string())?;
            area.draw(&Circle::new((15, y), width as i32 + 1, colour.filled())).map_err(|e| e.to_string())?;
            area.draw(&Text::new(line.name.as_str(), (33, y), style.clone())).map_err(|e| e.to_string())?;
        }
        Ok(())
    }
}

fn around(range: Range<f64>, value: f64) -> Range<f64> {
    range.start.min(value)..range.end.max(value)
}

/// 1, 2 and 5 of each power of ten between two numbers.
fn round_numbers(low: f64, high: f64) -> Vec<f64> {
    let decades = (low.log10().floor() as i32)..=(high.log10().ceil() as i32);
    let all = decades.flat_map(|decade| [1.0, 2.0, 5.0].map(|n| n * 10f64.powi(decade)));
    all.filter(|n| (low..=high).contains(n)).collect()
}

/// 20, 2k, 2M.
fn short(value: f64) -> String {
    let (value, unit) = match value {
        v if v >= 1e6 => (v / 1e6, "M"),
        v if v >= 1e4 => (v / 1e3, "k"),
        v => (v, ""),
    };
    format!("{}{unit}", (value * 100.0).round() / 100.0)
}

#[cfg(test)]
mod tests {
    use super::{Line, Plot, round_numbers, short};

    #[test]
    fn marks_are_round() {
        assert_eq!(round_numbers(9.0, 120.0), [10.0, 20.0, 50.0, 100.0]);
        assert_eq!([0.05, 20.0, 20_000.0, 2.5e6].map(short), ["0.05", "20", "20k", "2.5M"]);
    }

    #[test]
    fn a_plot_has_its_names_in_it() {
        let line = Line { name: "ring".to_owned(), points: vec![(1.0, 60.0), (32.0, 6.0)], ours: true };
        let marks = vec![(1.0, "1".to_owned()), (32.0, "32".to_owned())];
        let plot = Plot { file: "x", title: "T".to_owned(), x: "batch", y: "ns", marks, lines: vec![line] };
        let svg = plot.svg().unwrap();
        assert!(["ring", "batch", "ns", "SPDX"].iter().all(|word| svg.contains(word)));
        assert_eq!(svg, plot.svg().unwrap());
    }
}

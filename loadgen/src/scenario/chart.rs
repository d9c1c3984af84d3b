//! Pictures of numbers as SVG, for a page that needs no other file. Knows axes and lines; the page
//! gives ink and paper, so that a picture is readable on light and on dark.

use std::ops::Range;

use anyhow::{Result, anyhow};
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, ValueFormatter};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

/// A line: its name and its points.
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// A picture of lines.
pub(crate) struct Chart {
    pub(crate) title: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) lines: Vec<Line>,
}

/// How values lie on an axis.
pub(crate) struct Axis {
    /// Below the axis.
    pub(crate) name: &'static str,
    /// Equal distances are equal factors.
    pub(crate) log: bool,
    /// A value with its unit.
    pub(crate) label: fn(f64) -> String,
}

impl Chart {
    /// The picture with its lines' names, unless there is nothing to see.
    pub(crate) fn figure(&self, escaped: fn(&str) -> String) -> Result<Option<String>> {
        let points = self.lines.iter().flat_map(|line| &line.points);
        if points.count() < 2 {
            return Ok(None);
        }
        let mut svg = String::new();
        self.draw(&mut svg)
            .map_err(|error| anyhow!("draw `{}`: {error}", self.title))?;
        let names = self.lines.iter().enumerate().map(|(number, line)| {
            let RGBColor(r, g, b) = color(number);
            let name = escaped(&line.name);
            format!(" <span style=\"color:rgb({r},{g},{b})\">\u{25cf}</span> {name}")
        });
        let (title, names) = (escaped(&self.title), names.collect::<String>());
        Ok(Some(format!(
            "<figure><figcaption><b>{title}</b>{names}</figcaption>{svg}</figure>"
        )))
    }

    fn draw(&self, svg: &mut String) -> Result<(), DrawingAreaErrorKind<std::io::Error>> {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let across = self.x.scale(points().map(|point| point.0), None);
        let floor = (!self.y.log).then_some(0.0);
        let up = self.y.scale(points().map(|point| point.1), floor);
        let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&root)
            .margin(8)
            .margin_right(28)
            .x_label_area_size(40)
            .y_label_area_size(66)
            .build_cartesian_2d(across, up)?;
        chart
            .configure_mesh()
            .x_desc(self.x.name)
            .x_label_formatter(&|x| self.x.text(*x))
            .y_label_formatter(&|y| self.y.text(*y))
            .label_style(("sans-serif", 14))
            .axis_desc_style(("sans-serif", 14))
            .bold_line_style(GREY.mix(0.3))
            .light_line_style(TRANSPARENT)
            .axis_style(GREY)
            .draw()?;
        for (number, line) in self.lines.iter().enumerate() {
            let points = line.points.iter();
            let points = points.map(|(x, y)| (self.x.place(*x), self.y.place(*y)));
            chart.draw_series(LineSeries::new(points, color(number).stroke_width(2)))?;
        }
        root.present()
    }
}

impl Axis {
    fn place(&self, value: f64) -> f64 {
        if self.log {
            value.max(1.0).log10()
        } else {
            value
        }
    }

    fn text(&self, place: f64) -> String {
        (self.label)(if self.log { 10_f64.powf(place) } else { place })
    }

    /// From the lowest value, or from `floor`, to the highest.
    fn scale(&self, values: impl Iterator<Item = f64>, floor: Option<f64>) -> Scale {
        let places = values.map(|value| self.place(value));
        let (low, high) = places.fold((f64::MAX, f64::MIN), |(low, high), place| {
            (low.min(place), high.max(place))
        });
        let low = floor.unwrap_or(low);
        // Equal ends would be no axis.
        let high = high.max(low + if self.log { 0.3 } else { 1e-9 });
        let ticks = self.ticks(low, high);
        Scale { low, high, ticks }
    }

    /// Where a line and a label are: round values, six or so.
    fn ticks(&self, low: f64, high: f64) -> Vec<f64> {
        let steps: &[f64] = match self.log {
            true if high - low < 2.0 => &[1.0, 2.0, 5.0],
            true => &[1.0],
            false => return linear_ticks(low, high),
        };
        let decades = (0..=12).map(|decade| 10_f64.powi(decade));
        let values = decades.flat_map(|decade| steps.iter().map(move |step| step * decade));
        values
            .map(f64::log10)
            .filter(|place| low <= place + CLOSE && *place <= high + CLOSE)
            .collect()
    }
}

/// An axis with marks of its own choice.
struct Scale {
    low: f64,
    high: f64,
    ticks: Vec<f64>,
}

impl Ranged for Scale {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        RangedCoordf64::from(self.range()).map(value, limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

impl ValueFormatter<f64> for Scale {}

impl From<Scale> for Range<f64> {
    fn from(scale: Scale) -> Self {
        scale.low..scale.high
    }
}

fn linear_ticks(low: f64, high: f64) -> Vec<f64> {
    let rough = (high - low) / 6.0;
    let decade = 10_f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * decade);
    let step = steps.into_iter().find(|step| rough <= *step);
    let step = step.unwrap_or(rough);
    let first = (low / step).ceil() * step;
    let ticks = (0..8_u8).map(|number| first + f64::from(number) * step);
    ticks
        .take_while(|tick| *tick <= high + step * CLOSE)
        .collect()
}

fn color(number: usize) -> RGBColor {
    COLORS[number % COLORS.len()]
}

/// One in so many, as the share of those below: 100 is 99 %.
pub(crate) fn share_below(one_in: f64) -> String {
    let text = format!("{:.4}", 100.0 * (1.0 - 1.0 / one_in));
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

/// Two of them stand beside each other on a page of usual width.
const SIZE: (u32, u32) = (560, 280);
const CLOSE: f64 = 1e-6;
const GREY: RGBColor = RGBColor(128, 128, 128);

/// Seen on white and on black.
const COLORS: [RGBColor; 8] = [
    RGBColor(60, 130, 220),
    RGBColor(220, 60, 60),
    RGBColor(40, 160, 80),
    RGBColor(160, 100, 210),
    RGBColor(230, 130, 20),
    RGBColor(20, 170, 190),
    RGBColor(200, 80, 150),
    RGBColor(140, 140, 40),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_on_an_axis_are_round() {
        assert_eq!(linear_ticks(0.0, 14.0), [0.0, 5.0, 10.0]);
        assert_eq!(linear_ticks(0.0, 4.0), [0.0, 1.0, 2.0, 3.0, 4.0]);
        let log = Axis {
            name: "",
            log: true,
            label: share_below,
        };
        let texts = |low, high| {
            let ticks = log.ticks(low, high).into_iter();
            ticks.map(|tick| log.text(tick)).collect::<Vec<_>>()
        };
        let wide = ["0 %", "90 %", "99 %", "99.9 %", "99.99 %"];
        assert_eq!(texts(0.0, 4.0), wide);
        assert_eq!(texts(0.0, 1.0), ["0 %", "50 %", "80 %", "90 %"]);
    }
}

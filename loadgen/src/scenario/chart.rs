//! Pictures of numbers as SVG, for a page that needs no other file. Knows axes and lines.

use anyhow::{Result, anyhow};
use plotters::prelude::*;

/// A line: its name and its points.
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// A picture of lines.
pub(crate) struct Chart {
    pub(crate) title: &'static str,
    pub(crate) x: &'static str,
    pub(crate) y: &'static str,
    /// Equal distances are equal factors, from left to right.
    pub(crate) log_x: bool,
    pub(crate) lines: Vec<Line>,
}

impl Chart {
    /// The picture, unless there is nothing to see.
    pub(crate) fn svg(&self) -> Result<Option<String>> {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        if points().count() < 2 {
            return Ok(None);
        }
        let x_of = |x: f64| if self.log_x { x.max(1.0).log10() } else { x };
        let fold = |value_of: &dyn Fn(&(f64, f64)) -> f64| {
            points()
                .map(value_of)
                .fold((f64::MAX, 0.0_f64), |(low, high), value| {
                    (low.min(value), high.max(value))
                })
        };
        let (left, right) = fold(&|point| x_of(point.0));
        let (_, top) = fold(&|point| point.1);
        let mut svg = String::new();
        self.draw(
            &mut svg,
            (left, right.max(left + 1e-9)),
            top.max(1e-9),
            &x_of,
        )
        .map_err(|error| anyhow!("draw `{}`: {error}", self.title))?;
        Ok(Some(svg))
    }

    fn draw(
        &self,
        svg: &mut String,
        (left, right): (f64, f64),
        top: f64,
        x_of: &dyn Fn(f64) -> f64,
    ) -> Result<(), DrawingAreaErrorKind<std::io::Error>> {
        let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .caption(self.title, ("sans-serif", 16))
            .margin(10)
            .x_label_area_size(36)
            .y_label_area_size(64)
            .build_cartesian_2d(left..right, 0.0..top * 1.05)?;
        let label = |x: &f64| match self.log_x {
            true => nines(*x),
            false => format!("{x:.0}"),
        };
        chart
            .configure_mesh()
            .x_desc(self.x)
            .y_desc(self.y)
            .x_label_formatter(&label)
            .y_label_formatter(&|y| short(*y))
            .light_line_style(RGBColor(240, 240, 240))
            .draw()?;
        for (number, line) in self.lines.iter().enumerate() {
            let color = COLORS[number % COLORS.len()];
            let points = line.points.iter().map(|(x, y)| (x_of(*x), *y));
            chart
                .draw_series(LineSeries::new(points, color.stroke_width(2)))?
                .label(&line.name)
                .legend(move |(x, y)| {
                    PathElement::new([(x, y), (x + 14, y)], color.stroke_width(2))
                });
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.8))
            .draw()?;
        root.present()
    }
}

/// One in so many, as the share of those below: 2 is 99 %.
fn nines(x: f64) -> String {
    match x {
        x if x < 0.15 => "0 %".to_owned(),
        x => {
            let share = 100.0 * (1.0 - 10_f64.powf(-x));
            let text = format!("{share:.3}");
            format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
        }
    }
}

/// A number as a person reads it.
pub(crate) fn short(value: f64) -> String {
    match value {
        value if 1e9 <= value => format!("{:.1}G", value / 1e9),
        value if 1e6 <= value => format!("{:.1}M", value / 1e6),
        value if 1e4 <= value => format!("{:.0}k", value / 1e3),
        value if 1e3 <= value => format!("{:.1}k", value / 1e3),
        value if 10.0 <= value => format!("{value:.0}"),
        value => format!("{value:.2}"),
    }
}

const SIZE: (u32, u32) = (720, 300);

const COLORS: [RGBColor; 6] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(44, 160, 44),
    RGBColor(148, 103, 189),
    RGBColor(255, 127, 14),
    RGBColor(23, 190, 207),
];

//! The page of a scenario: HTML with pictures and tables inside, and nothing from elsewhere. Knows
//! how things look; numbers come as the loads printed them.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use anyhow::Result;
use serde_json::Value;

use super::chart::{Axis, Chart, Line, share_below};
use super::environment::Environment;
use super::file::Scenario;
use super::ramp::Search;
use super::step::{LoadResult, StepResult};
use super::tables::{self, Table};
use crate::units::{short, time};

/// Everything that is shown.
pub(crate) struct Page<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) environment: &'a Environment,
    pub(crate) results: &'a [StepResult],
}

impl Page<'_> {
    /// The whole page.
    pub(crate) fn html(&self) -> Result<String> {
        let (title, about) = (escaped(&self.scenario.title), escaped(&self.scenario.about));
        let mut html = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width\">\
             <title>{title}</title><style>{STYLE}</style></head><body>\
             <h1>{title}</h1><p>{about}</p>"
        );
        for step in self.results {
            html.push_str(&of_step(step)?);
        }
        html.push_str("<h2>Environment</h2><table>");
        for (name, value) in &self.environment.0 {
            // A string takes every text.
            let _ = write!(html, "<tr><th>{name}</th><td>{}</td></tr>", escaped(value));
        }
        let _ = writeln!(html, "</table><p>{COUNTED}</p></body></html>");
        Ok(html)
    }
}

fn of_step(step: &StepResult) -> Result<String> {
    let mut html = format!("<h2>{}</h2>", escaped(&step.name));
    let faults = step.loads.iter().flat_map(LoadResult::faults);
    let faults = faults.map(|fault| format!("THROW AWAY: {fault}"));
    let failure = step.failure.iter().map(|why| format!("FAILED: {why}"));
    html.push_str(&paragraphs("bad", failure.chain(faults)));
    let notes = |load: &LoadResult| load.report["notes"].as_array().cloned().unwrap_or_default();
    let notes = step.loads.iter().flat_map(notes);
    let notes = notes.filter_map(|note| note.as_str().map(str::to_owned));
    html.push_str(&paragraphs("note", notes));
    if let Some(search) = step.ramp.as_ref().filter(|_| step.failure.is_none()) {
        html.push_str(&paragraphs("found", std::iter::once(search.told())));
    }
    html.extend(tables::rates(step).map(|table| html_of(&table)));
    html.extend(tables::quantiles(step).map(|table| html_of(&table)));
    for load in &step.loads {
        let facts = tables::facts(load, step).into_iter();
        let rows: Vec<_> = facts.map(|(name, value)| vec![name, value]).collect();
        if !rows.is_empty() {
            let heads = vec!["figure", "value"];
            html.push_str(&html_of(&Table { heads, rows }));
        }
    }
    html.push_str(&paragraphs("", tables::memory(step).into_iter()));
    for chart in charts(step) {
        html.extend(chart.figure(escaped)?);
    }
    html.extend(tables::rounds(step).map(|table| html_of(&table)));
    for load in &step.loads {
        let _ = write!(html, "<pre>{}</pre>", escaped(&load.command));
    }
    Ok(html)
}

/// Each text once: loads beside each other often say the same.
fn paragraphs(class: &str, texts: impl Iterator<Item = String>) -> String {
    let texts: BTreeSet<String> = texts.collect();
    let texts = texts.iter().map(|text| escaped(text));
    texts
        .map(|text| format!("<p class=\"{class}\">{text}</p>"))
        .collect()
}

fn charts(step: &StepResult) -> Vec<Chart> {
    let mut all = tables::named_series(step);
    if LINES_MAX < all.len() {
        // Of many loads only what the last one waited for: the last series of each.
        let ends = |load: &LoadResult| tables::series(load).last().map(std::ptr::from_ref);
        let last: Vec<_> = step.loads.iter().filter_map(ends).collect();
        all.retain(|(_, one)| last.contains(&std::ptr::from_ref(*one)));
    }
    let lines = |of: &dyn Fn(&Value) -> Vec<(f64, f64)>| -> Vec<Line> {
        let line = |(name, one): &(String, &Value)| Line {
            name: name.clone(),
            points: of(one),
        };
        all.iter().map(line).collect()
    };
    let mut charts = vec![
        Chart {
            title: "Latency by percentile".into(),
            x: axis("of all that was counted", true, share_below),
            y: axis("", true, time),
            lines: lines(&|one| pairs(&one["percentiles"], "one_in", "us")),
        },
        Chart {
            title: "p99 over time".into(),
            x: axis("second", false, whole),
            y: axis("", false, time),
            lines: lines(&|one| pairs(&one["over_time"], "second", "p99_us")),
        },
        Chart {
            title: "Throughput over time, a second".into(),
            x: axis("second", false, whole),
            y: axis("", false, short),
            lines: throughput(step),
        },
    ];
    charts.extend(step.ramp.as_ref().and_then(by_rate));
    charts
}

/// What came second by second. Of a load's series the one with the most is of single messages.
fn throughput(step: &StepResult) -> Vec<Line> {
    let mut lines = Vec::new();
    for (number, load) in step.loads.iter().enumerate() {
        let count = |one: &&Value| one["count"].as_u64();
        let Some(most) = tables::series(load).max_by_key(count) else {
            continue;
        };
        let mode = load.report["mode"].as_str().unwrap_or("?");
        let name = match step.loads.len() {
            1 => mode.to_owned(),
            _ => format!("{mode} {}", number + 1),
        };
        let points = pairs(&most["over_time"], "second", "count");
        lines.push(Line { name, points });
    }
    lines
}

fn by_rate(search: &Search) -> Option<Chart> {
    let points = search.rounds.iter();
    let points = points.filter_map(|round| Some((round.rate, round.came?.p99_us)));
    let mut points: Vec<_> = points.collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let ends = [points.first()?.0, points.last()?.0];
    let bound = ends.map(|rate| (rate, search.wanted.p99_us_max)).to_vec();
    let line = |name: &str, points| Line {
        name: name.to_owned(),
        points,
    };
    Some(Chart {
        title: "p99 by offered rate".into(),
        x: axis("--rate", true, short),
        y: axis("", true, time),
        lines: vec![line("p99", points), line("may be", bound)],
    })
}

fn whole(value: f64) -> String {
    format!("{value:.0}")
}

fn axis(name: &'static str, log: bool, label: fn(f64) -> String) -> Axis {
    Axis { name, log, label }
}

fn pairs(list: &Value, x: &str, y: &str) -> Vec<(f64, f64)> {
    let rows = list.as_array().into_iter().flatten();
    rows.filter_map(|row| Some((row[x].as_f64()?, row[y].as_f64()?)))
        .collect()
}

fn html_of(table: &Table) -> String {
    let cells = |tag: &str, cells: &mut dyn Iterator<Item = &str>| {
        let cells = cells.map(|cell| format!("<{tag}>{}</{tag}>", escaped(cell)));
        format!("<tr>{}</tr>", cells.collect::<String>())
    };
    let heads = cells("th", &mut table.heads.iter().copied());
    let rows = table.rows.iter();
    let rows = rows.map(|row| cells("td", &mut row.iter().map(String::as_str)));
    format!("<table>{heads}{}</table>", rows.collect::<String>())
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// More in one picture are none that a reader tells apart.
const LINES_MAX: usize = 8;

const COUNTED: &str = "\
With an offered rate every message has a time at which it is due, and its latency counts from there, \
sent late or not: a server that stalls is charged for everything that was due meanwhile. What was due \
and did not come back in time is counted above; more than 1 % of it makes a run worthless. Without a \
rate the next message goes when the last has come, and latencies are those of a server that is never \
asked for more than it gives.";

const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:15px/1.5 system-ui,sans-serif;max-width:76rem;margin:2rem auto;padding:0 1rem}\
table{border-collapse:collapse;margin:1rem 0}\
th,td{border:1px solid #8886;padding:.25rem .6rem;text-align:left;vertical-align:top}\
th,td:not(:last-child){white-space:nowrap}\
td{font-variant-numeric:tabular-nums}\
figure{display:inline-block;vertical-align:bottom;margin:.5rem .5rem .5rem 0;max-width:min(100%,35rem)}\
figure svg{max-width:100%;height:auto}svg text{fill:currentColor}\
pre{overflow-x:auto;background:#8882;padding:.5rem;border-radius:6px}\
.bad{color:light-dark(#c00,#f77);font-weight:600}.note{color:light-dark(#850,#fb5)}\
.found{font-weight:600}";

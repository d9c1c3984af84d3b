//! The page of a scenario: HTML with pictures and tables inside, and nothing from elsewhere. Knows
//! how things look; numbers come as the loads printed them.

use std::fmt::Write as _;

use anyhow::Result;
use serde_json::Value;

use super::chart::{Chart, Line, short};
use super::environment::Environment;
use super::file::Scenario;
use super::step::{LoadResult, StepResult};

/// Everything that is shown.
pub(crate) struct Page<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) environment: &'a Environment,
    pub(crate) results: &'a [StepResult],
}

impl Page<'_> {
    /// A line for each load, for the terminal.
    pub(crate) fn summary(&self) -> String {
        let mut text = self.scenario.title.clone();
        for step in self.results {
            for load in &step.loads {
                let (rate, p99) = (short(load.per_second()), short(load.p99_us()));
                // A string takes every text.
                let _ = write!(text, "\n{:24} {rate:>8}/s, p99 {p99} us", step.name);
                load.faults().for_each(|fault| {
                    let _ = write!(text, "\n{:24} THROW AWAY: {fault}", "");
                });
            }
            if let Some((p99_us_max, _)) = &step.ramp {
                let _ = write!(
                    text,
                    "  <- the highest rate with p99 within {p99_us_max} us"
                );
            }
        }
        text
    }

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
            let _ = write!(html, "<tr><th>{name}</th><td>{}</td></tr>", escaped(value));
        }
        html.push_str("</table></body></html>\n");
        Ok(html)
    }
}

fn of_step(step: &StepResult) -> Result<String> {
    let mut html = format!("<h2>{}</h2>", escaped(&step.name));
    for load in &step.loads {
        for fault in load.faults() {
            let _ = write!(html, "<p class=\"bad\">THROW AWAY: {}</p>", escaped(fault));
        }
        for note in load.report["notes"].as_array().into_iter().flatten() {
            let _ = write!(
                html,
                "<p class=\"note\">{}</p>",
                escaped(note.as_str().unwrap_or(""))
            );
        }
    }
    html.push_str(&numbers(step));
    step.loads
        .iter()
        .for_each(|load| html.push_str(&facts(load)));
    html.push_str(&quantiles(step));
    for chart in charts(step) {
        if let Some(svg) = chart.svg()? {
            let _ = write!(html, "<figure>{svg}</figure>");
        }
    }
    for load in &step.loads {
        let _ = write!(html, "<pre>{}</pre>", escaped(&load.command));
    }
    Ok(html)
}

/// What a load says that measures something else than a rate.
fn facts(load: &LoadResult) -> String {
    let Some(facts) = load.report.as_object() else {
        return String::new();
    };
    if facts.contains_key("per_second") {
        return String::new();
    }
    let plain = facts
        .iter()
        .filter(|(_, value)| value.is_number() || value.is_string());
    let rows: Vec<_> = plain
        .map(|(name, value)| vec![name.replace('_', " "), value.to_string()])
        .collect();
    table(&["fact", "value"], &rows)
}

/// Rates, and what the server paid for them.
fn numbers(step: &StepResult) -> String {
    let mut rows = Vec::new();
    let with_rate = |load: &&LoadResult| load.report["per_second"].is_number();
    for load in step.loads.iter().filter(with_rate) {
        let report = &load.report;
        let unit = report["unit"].as_str().unwrap_or("unit");
        let cost = report["server"]["cpu_ns_per_unit"].as_f64();
        let share = report["server"]["cpu_share"].as_f64();
        rows.push(vec![
            report["mode"].as_str().unwrap_or("?").to_owned(),
            format!("{} {unit}s/s", short(load.per_second())),
            report["offered_per_second"]
                .as_f64()
                .map_or_else(String::new, short),
            cost.map_or_else(String::new, |cost| format!("{cost:.0} ns per {unit}")),
            share.map_or_else(String::new, |share| format!("{:.0} %", share * 100.0)),
            memory(step, report),
        ]);
    }
    let heads = [
        "load",
        "rate",
        "offered",
        "server CPU",
        "of a core",
        "memory per connection",
    ];
    match rows.is_empty() {
        true => String::new(),
        false => table(&heads, &rows),
    }
}

/// What idle connections were measured to take; else what the server grew by.
fn memory(step: &StepResult, report: &Value) -> String {
    if let Some(each) = report["memory_per_connection"]["resident"].as_u64() {
        return format!("{each} B");
    }
    match step.memory {
        Some((before, most)) if 0 < step.connections => {
            let each = most.saturating_sub(before) / step.connections;
            format!("{each} B at most, buffers of all included")
        }
        _ => String::new(),
    }
}

fn series(load: &LoadResult) -> impl Iterator<Item = &Value> {
    let series = load.report["latencies"].as_array().into_iter().flatten();
    series.filter(|series| 0 < series["count"].as_u64().unwrap_or(0))
}

fn quantiles(step: &StepResult) -> String {
    let columns = [
        "p50_us",
        "p90_us",
        "p99_us",
        "p99_9_us",
        "p99_99_us",
        "max_us",
    ];
    let mut rows = Vec::new();
    for one in step.loads.iter().flat_map(series) {
        let mut row = vec![one["name"].as_str().unwrap_or("?").to_owned()];
        row.extend(columns.map(|column| one[column].as_f64().map_or_else(String::new, short)));
        rows.push(row);
    }
    let heads = ["latency, us", "p50", "p90", "p99", "p99.9", "p99.99", "max"];
    match rows.is_empty() {
        true => String::new(),
        false => table(&heads, &rows),
    }
}

fn charts(step: &StepResult) -> Vec<Chart> {
    let lines = |points_of: &dyn Fn(&Value) -> Vec<(f64, f64)>| -> Vec<Line> {
        let all = step.loads.iter().flat_map(series);
        let line = |one: &Value| Line {
            name: one["name"].as_str().unwrap_or("?").to_owned(),
            points: points_of(one),
        };
        all.map(line).collect()
    };
    let column = |name: &'static str| move |one: &Value| pairs(&one["over_time"], "second", name);
    let mut charts = vec![
        Chart {
            title: "Latency by percentile",
            x: "of all messages",
            y: "us",
            log_x: true,
            lines: lines(&|one| pairs(&one["percentiles"], "one_in", "us")),
        },
        Chart {
            title: "p99 over time",
            x: "second",
            y: "us",
            log_x: false,
            lines: lines(&column("p99_us")),
        },
        Chart {
            title: "Throughput over time",
            x: "second",
            y: "a second",
            log_x: false,
            lines: lines(&column("count")),
        },
    ];
    if let Some((p99_us_max, rounds)) = &step.ramp {
        let mut points: Vec<_> = rounds
            .iter()
            .map(|round| (round.rate, round.p99_us))
            .collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let ends = [points[0].0, points[points.len() - 1].0];
        let bound = ends.map(|rate| (rate, *p99_us_max)).to_vec();
        let line = |name: &str, points| Line {
            name: name.to_owned(),
            points,
        };
        charts.push(Chart {
            title: "p99 by offered rate",
            x: "messages a second",
            y: "us",
            log_x: false,
            lines: vec![line("p99", points), line("wanted", bound)],
        });
    }
    charts
}

fn pairs(list: &Value, x: &str, y: &str) -> Vec<(f64, f64)> {
    let rows = list.as_array().into_iter().flatten();
    rows.filter_map(|row| Some((row[x].as_f64()?, row[y].as_f64()?)))
        .collect()
}

fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let cells = |tag: &str, cells: &mut dyn Iterator<Item = &str>| {
        let cells = cells.map(|cell| format!("<{tag}>{}</{tag}>", escaped(cell)));
        format!("<tr>{}</tr>", cells.collect::<String>())
    };
    let mut html = format!("<table>{}", cells("th", &mut heads.iter().copied()));
    for row in rows {
        html.push_str(&cells("td", &mut row.iter().map(String::as_str)));
    }
    html + "</table>"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:15px/1.5 system-ui,sans-serif;max-width:76rem;margin:2rem auto;padding:0 1rem}\
table{border-collapse:collapse;margin:1rem 0}\
th,td{border:1px solid #8886;padding:.25rem .6rem;text-align:left}\
figure{display:inline-block;margin:.5rem;background:#fff;border-radius:6px}\
figure svg{max-width:100%;height:auto}\
pre{overflow-x:auto;background:#8882;padding:.5rem;border-radius:6px}\
.bad{color:#c00;font-weight:600}.note{color:#a60}";

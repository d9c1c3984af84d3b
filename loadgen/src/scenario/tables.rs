//! What a step came to as rows of text, for the terminal and for the page. Knows what loads print,
//! not how it looks.

use serde_json::Value;

use super::step::{LoadResult, StepResult};
use crate::units::{bytes, percent, plural, short, time};

/// Rows under heads.
pub(crate) struct Table {
    pub(crate) heads: Vec<&'static str>,
    pub(crate) rows: Vec<Vec<String>>,
}

/// Some lines for the terminal.
pub(crate) fn summary(step: &StepResult) -> String {
    let of = |load| lines_of(load, step);
    let mut lines: Vec<String> = step.loads.iter().flat_map(of).collect();
    lines.extend(step.ramp.as_ref().map(|search| search.told()));
    let failure = step.failure.as_ref().filter(|_| step.ramp.is_none());
    lines.extend(failure.map(|failure| format!("FAILED: {failure}")));
    let indented = lines.into_iter().map(|line| format!("\n  {line}"));
    format!("{}{}", step.name, indented.collect::<String>())
}

fn lines_of(load: &LoadResult, step: &StepResult) -> Vec<String> {
    let mode = load.mode();
    let mut lines = match rate(load) {
        Some(rate) => {
            let latency = slowest(load).map_or_else(String::new, |(name, p99)| {
                format!(", p99 of `{name}` {}", time(p99))
            });
            let cost = cost(load, step);
            let cost = cost.map_or_else(String::new, |cost| format!(", server CPU {cost}"));
            vec![format!("{mode}: {rate}{latency}{cost}")]
        }
        None => {
            let facts = facts(load, step).into_iter();
            facts
                .map(|(name, value)| format!("{mode}: {name} {value}"))
                .collect()
        }
    };
    lines.extend(load.faults().map(|fault| format!("THROW AWAY: {fault}")));
    lines
}

/// The series whose p99 is the highest.
fn slowest(load: &LoadResult) -> Option<(&str, f64)> {
    let p99 = |one: &Value| one["p99_us"].as_f64().unwrap_or(0.0);
    let slowest = series(load).max_by(|a, b| p99(a).total_cmp(&p99(b)))?;
    Some((slowest["name"].as_str()?, p99(slowest)))
}

/// Loads that count something.
fn rate(load: &LoadResult) -> Option<String> {
    let counted = load.report["count"].as_u64().filter(|count| 0 < *count);
    counted.map(|_| format!("{} {}/s", short(load.per_second()), plural(load.unit())))
}

/// Loads beside each other have one server: what it needs is that of all their messages, and of
/// none where one counts messages and the other connections.
fn cost(load: &LoadResult, step: &StepResult) -> Option<String> {
    let beside = || step.loads.iter().filter(|other| rate(other).is_some());
    if beside().any(|other| other.unit() != load.unit()) {
        return None;
    }
    let share = load.report["server"]["cpu_share"].as_f64()?;
    let cost = share * 1e9 / beside().map(LoadResult::per_second).sum::<f64>();
    Some(format!("{cost:.0} ns per {}", load.unit()))
}

/// Rates, what was missed of them, and what the server paid.
pub(crate) fn rates(step: &StepResult) -> Option<Table> {
    let mut rows = Vec::new();
    for load in step.loads.iter().filter(|load| rate(load).is_some()) {
        let report = &load.report;
        let share = |process: &str| report[process]["cpu_share"].as_f64().map(percent);
        let offered = report["offered_per_second"].as_f64();
        let missed = offered.map(|offered| (1.0 - load.per_second() / offered).max(0.0));
        rows.push(vec![
            load.mode().to_owned(),
            offered.map_or_else(
                || "as fast as it goes".to_owned(),
                |it| format!("{}/s", short(it)),
            ),
            rate(load).unwrap_or_default(),
            missed.map(percent).unwrap_or_default(),
            report["wrong"].as_u64().unwrap_or(0).to_string(),
            cost(load, step).unwrap_or_default(),
            share("server").unwrap_or_default(),
            share("own").unwrap_or_default(),
        ]);
    }
    let heads = vec![
        "load",
        "offered",
        "came back",
        "not in time",
        "failures",
        "server CPU",
        "of the server's core",
        "of the generator's",
    ];
    (!rows.is_empty()).then_some(Table { heads, rows })
}

/// What is said of something else than rates, each with its unit.
pub(crate) fn facts(load: &LoadResult, step: &StepResult) -> Vec<(String, String)> {
    let mut facts = Vec::new();
    for (name, figure) in load.report["figures"].as_object().into_iter().flatten() {
        let value = figure["value"].as_f64().unwrap_or(0.0);
        let digits = if value.abs() < 100.0 { 2 } else { 0 };
        let unit = figure["unit"].as_str().unwrap_or("");
        let gap = if unit.starts_with('/') { "" } else { " " };
        let text = format!("{value:.digits$}{gap}{unit}");
        facts.push((name.clone(), text.trim().to_owned()));
    }
    let memory = &load.report["memory_per_connection"];
    for (key, name) in [
        ("resident", "resident memory of a connection"),
        ("private", "private memory of a connection"),
        ("slab", "kernel slab of a connection, both ends"),
    ] {
        let value = memory[key].as_f64().map(bytes);
        facts.extend(value.map(|value| (name.to_owned(), value)));
    }
    let share = load.report["server"]["cpu_share"].as_f64();
    let connections = load.report["connections"].as_f64();
    // Beside another load its messages are what the server is busy with.
    let is_alone = memory.is_object() && step.loads.len() == 1;
    if let (true, Some(share), Some(connections)) = (is_alone, share, connections) {
        let busy = format!("{:.2} us a second", share * 1e6 / connections.max(1.0));
        facts.push((
            "server CPU of a connection, pings included".to_owned(),
            busy,
        ));
    }
    let disk = &load.report["disk"];
    if let Some(fdatasync) = disk["fdatasync"]["p50_us"].as_f64() {
        let p99 = disk["fdatasync"]["p99_us"].as_f64().unwrap_or(0.0);
        let both = format!("p50 {}, p99 {}", time(fdatasync), time(p99));
        facts.push(("fdatasync of that disk alone".to_owned(), both));
        let ratio = disk["ack_share"].as_f64().unwrap_or(0.0);
        facts.push((
            "p99 of the ack / that of fdatasync".to_owned(),
            short(ratio),
        ));
    }
    facts
}

/// What the server grew by, where no load has measured that itself.
pub(crate) fn memory(step: &StepResult) -> Option<String> {
    let (before, most) = step.memory?;
    let grown = most.saturating_sub(before) as f64;
    let connections = step.connections();
    let each = match connections {
        0 => String::new(),
        count => {
            let each = bytes(grown / count as f64);
            format!(": {each} for each of {count} connections, buffers that all share included")
        }
    };
    let (before, grown) = (bytes(before as f64), bytes(grown));
    Some(format!(
        "Resident memory of the server: {before} before, {grown} more at most{each}"
    ))
}

pub(crate) fn series(load: &LoadResult) -> impl Iterator<Item = &Value> {
    let series = load.report["latencies"].as_array().into_iter().flatten();
    series.filter(|series| 0 < series["count"].as_u64().unwrap_or(0))
}

/// Every series, with its load if there are several.
pub(crate) fn named_series(step: &StepResult) -> Vec<(String, &Value)> {
    let mut all = Vec::new();
    for (number, load) in step.loads.iter().enumerate() {
        for one in series(load) {
            let name = one["name"].as_str().unwrap_or("?");
            let alike = |other: &&LoadResult| {
                series(other).any(|series| series["name"].as_str() == Some(name))
            };
            let name = match step.loads.iter().filter(alike).count() {
                1 => name.to_owned(),
                _ => format!("{name} {}", number + 1),
            };
            all.push((name, one));
        }
    }
    all
}

pub(crate) fn quantiles(step: &StepResult) -> Option<Table> {
    let columns = [
        "p50_us",
        "p90_us",
        "p99_us",
        "p99_9_us",
        "p99_99_us",
        "max_us",
    ];
    let row = |(name, one): (String, &Value)| {
        let cells = columns.map(|column| one[column].as_f64().map_or_else(String::new, time));
        let count = one["count"].as_u64().unwrap_or(0).to_string();
        [vec![name], cells.to_vec(), vec![count]].concat()
    };
    let rows: Vec<_> = named_series(step).into_iter().map(row).collect();
    let heads = vec![
        "latency", "p50", "p90", "p99", "p99.9", "p99.99", "max", "counted",
    ];
    (!rows.is_empty()).then_some(Table { heads, rows })
}

/// Every run of the search in the order in which they were made.
pub(crate) fn rounds(step: &StepResult) -> Option<Table> {
    let search = step.ramp.as_ref()?;
    let rows = search.rounds.iter().map(|round| {
        let came = round.came;
        vec![
            format!("{:.0}", round.rate),
            came.map_or_else(String::new, |came| format!("{:.0}/s", came.per_second)),
            came.map_or_else(String::new, |came| time(came.p99_us)),
            round.fault.clone().unwrap_or_else(|| "holds".to_owned()),
        ]
    });
    let heads = vec!["--rate", "came back", "p99", "verdict"];
    let rows = rows.collect();
    Some(Table { heads, rows })
}

impl LoadResult {
    fn mode(&self) -> &str {
        self.report["mode"].as_str().unwrap_or("?")
    }

    fn unit(&self) -> &str {
        self.report["unit"].as_str().unwrap_or("unit")
    }
}

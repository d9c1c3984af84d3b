//! The files that are shipped, and the page that is made of what loads print.

use clap::Parser;
use serde_json::json;

use super::environment::Environment;
use super::file::Scenario;
use super::page::Page;
use super::ramp::Round;
use super::step::{LoadResult, StepResult};
use crate::options::Options;

fn shipped() -> Vec<(String, Scenario)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios");
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let scenario = Scenario::parse(&text);
        let name = path.display().to_string();
        (
            name.clone(),
            scenario.unwrap_or_else(|error| panic!("{name}: {error:#}")),
        )
    };
    std::fs::read_dir(folder).unwrap().map(read).collect()
}

/// C-27: whatever a shipped scenario asks for is a load that there is.
#[test]
fn every_load_of_a_shipped_scenario_is_understood() {
    let all = shipped();
    assert!(7 <= all.len());
    for (name, scenario) in all {
        assert!(!scenario.about.is_empty(), "{name}");
        for load in scenario.step.iter().flat_map(|step| &step.load) {
            let words = load.arguments(0).unwrap();
            let words = std::iter::once("loadgen".to_owned()).chain(words);
            if let Err(error) = Options::try_parse_from(words) {
                panic!("{name}: {error}");
            }
        }
    }
}

fn result() -> StepResult {
    let slices = [
        json!({"second": 0, "count": 10, "p99_us": 5.0}),
        json!({"second": 1, "count": 12, "p99_us": 6.0}),
    ];
    let percentiles = [
        json!({"one_in": 2.0, "us": 3.0}),
        json!({"one_in": 100.0, "us": 9.0}),
    ];
    let report = json!({
        "mode": "echo", "unit": "message", "per_second": 1234.5, "offered_per_second": 1300.0,
        "latencies": [{"name": "<echo>", "count": 22, "p50_us": 3.0, "p99_us": 9.0, "max_us": 11.0,
            "over_time": slices, "percentiles": percentiles}],
        "server": {"pid": 1, "cpu_ns_per_unit": 7654.0, "cpu_share": 0.5},
        "notes": [], "throw_away": ["steal 3.0 % (> 1 %)"],
    });
    let round = |rate, holds| Round {
        rate,
        per_second: rate,
        p99_us: rate / 100.0,
        holds,
    };
    StepResult {
        name: "one".into(),
        loads: vec![LoadResult {
            command: "loadgen echo --rate 1300".into(),
            report,
        }],
        memory: Some((1_000, 3_000)),
        connections: 10,
        ramp: Some((15.0, vec![round(1_000.0, true), round(2_000.0, false)])),
    }
}

/// C-27: one file, and everything that was measured is in it.
#[test]
fn the_page_needs_no_other_file() {
    let scenario = Scenario::parse(
        "title = \"A <b>\"\nabout = \"x\"\n[[step]]\nname = \"one\"\n[[step.load]]\nmode = \"echo\"\n",
    )
    .unwrap();
    let environment = Environment::look(None);
    let page = Page {
        scenario: &scenario,
        environment: &environment,
        results: &[result()],
    };
    let html = page.html().unwrap();
    for wanted in [
        "A &lt;b&gt;",
        "7654 ns per message",
        "200 B at most",
        "Latency by percentile",
        "p99 over time",
        "Throughput over time",
        "p99 by offered rate",
        "loadgen echo --rate 1300",
        "THROW AWAY: steal 3.0 %",
        "<th>kernel</th>",
        "&lt;echo&gt;",
    ] {
        assert!(html.contains(wanted), "{wanted}");
    }
    // The name of a drawing's language is the one address in it, and nothing fetches it.
    let addresses = html.replace("http://www.w3.org/2000/svg", "");
    for outside in ["http://", "https://", "<script", "<link", " src="] {
        assert!(!addresses.contains(outside), "{outside}");
    }
    assert_eq!(html.matches("<svg").count(), 4);
    assert!(
        page.summary()
            .contains("the highest rate with p99 within 15 us")
    );
}

#[test]
fn a_scenario_that_cannot_be_says_why() {
    for (text, wanted) in [
        (
            "title = \"a\"\nabout = \"b\"\nstep = []\n",
            "it has no [[step]]",
        ),
        (
            "title = \"a\"\nabout = \"b\"\n[[step]]\nname = \"c\"\nload = []\n",
            "has no load",
        ),
        (
            "title = \"a\"\nabout = \"b\"\n[[step]]\nname = \"c\"\n[[step.load]]\nmode = \"echo\"\nx = [1]\n",
            "`x` is no text",
        ),
        ("title = \"a\"\nabuot = \"b\"\n", "unknown field `abuot`"),
    ] {
        let error = format!("{:#}", Scenario::parse(text).unwrap_err());
        assert!(error.contains(wanted), "{error}");
    }
}

//! The files that are shipped, and the page that is made of what loads print.

use clap::Parser;
use serde_json::json;

use super::environment::Environment;
use super::file::{Ramp, Scenario};
use super::page::Page;
use super::ramp::{Came, Round, Search};
use super::step::{LoadResult, StepResult};
use super::tables::summary;
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
        "mode": "echo", "unit": "message", "count": 22, "connections": 10,
        "per_second": 1170.0, "offered_per_second": 1300.0, "wrong": 3,
        "latencies": [{"name": "<echo>", "count": 22, "p50_us": 3.0, "p99_us": 9.0, "max_us": 11.0,
            "over_time": slices, "percentiles": percentiles}],
        "server": {"pid": 1, "cpu_share": 0.00585},
        "notes": [], "throw_away": ["steal 3.0 % (> 1 %)"],
    });
    let round = |rate, fault: Option<&str>| Round {
        rate,
        came: Some(Came {
            per_second: rate,
            p99_us: rate / 100.0,
        }),
        fault: fault.map(str::to_owned),
    };
    let wanted = Ramp {
        from: 1_000.0,
        p99_us_max: 15.0,
        rounds: 2,
    };
    let rounds = vec![
        round(1_000.0, None),
        round(2_000.0, Some("p99 20 us (> 15 us)")),
    ];
    StepResult {
        name: "one".into(),
        loads: vec![LoadResult {
            command: "loadgen echo --rate 1300".into(),
            report,
        }],
        memory: Some((1_000, 3_000)),
        ramp: Some(Search { wanted, rounds }),
        failure: None,
    }
}

/// C-27: one file, and everything that was measured is in it, with what went wrong
#[test]
fn the_page_needs_no_other_file() {
    let scenario = Scenario::parse(
        "title = \"A <b>\"\nabout = \"x\"\n[[step]]\nname = \"one\"\n[[step.load]]\nmode = \"echo\"\n",
    )
    .unwrap();
    let environment = Environment::look(None);
    let idle = json!({"mode": "idle", "count": 0, "connections": 100, "server": {"cpu_share": 0.01},
        "memory_per_connection": {"resident": 415, "private": 400, "slab": 2048}});
    let replay = json!({"mode": "durable replay",
        "figures": {"payload, median round": {"value": 650.0, "unit": "MB/s"}}});
    let loads = [("loadgen idle", idle), ("loadgen durable replay", replay)];
    let [idle, replay] = loads.map(|(command, report)| StepResult {
        name: "facts".into(),
        loads: vec![LoadResult {
            command: command.into(),
            report,
        }],
        ..StepResult::default()
    });
    let failed = StepResult {
        name: "broken".into(),
        failure: Some("no delivery for 3 s".into()),
        ..StepResult::default()
    };
    let results = [result(), idle, replay, failed];
    let page = Page {
        scenario: &scenario,
        environment: &environment,
        results: &results,
    };
    let html = page.html().unwrap();
    for wanted in [
        "A &lt;b&gt;",
        "5000 ns per message",
        "200 B for each of 10 connections",
        "Latency by percentile",
        "p99 over time",
        "Throughput over time",
        "p99 by offered rate",
        "--rate 1000 is the highest with p99 within 15 us, in 2 runs",
        "<td>2000</td><td>2000/s</td><td>20 us</td><td>p99 20 us (&gt; 15 us)</td>",
        "loadgen echo --rate 1300",
        "THROW AWAY: steal 3.0 %",
        "FAILED: no delivery for 3 s",
        "<td>1.2k messages/s</td><td>10.0 %</td><td>3</td>",
        "<td>resident memory of a connection</td><td>415 B</td>",
        "<td>100.00 us a second</td>",
        "<td>650 MB/s</td>",
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
    // Ink and paper are the reader's.
    assert!(!html.contains("fill=\"#FFFFFF\""));
    let lines: Vec<_> = results.iter().map(summary).collect();
    let first =
        "one\n  echo: 1.2k messages/s, p99 of `<echo>` 9 us, server CPU 5000 ns per message";
    assert!(lines[0].starts_with(first), "{}", lines[0]);
    assert!(lines[2].contains("durable replay: payload, median round 650 MB/s"));
    assert_eq!(lines[3], "broken\n  FAILED: no delivery for 3 s");
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

//! What is counted is what is read.

use super::*;

#[test]
fn numbers_are_kept_by_shard_and_added_when_read() {
    let metrics = Metrics::new(2);
    metrics.shard(0).unwrap().add(Counter::MessagesReceived, 3);
    metrics.shard(1).unwrap().add(Counter::MessagesReceived, 4);
    metrics.shard(1).unwrap().set(Gauge::ConnectionsOpen, 9);
    assert_eq!(metrics.total(Counter::MessagesReceived), 7);
    assert_eq!(metrics.sum(Gauge::ConnectionsOpen), 9);
    assert!(metrics.shard(2).is_none());
    let text = metrics.to_text();
    for line in [
        "# HELP tidegate_messages_received Messages received from clients.",
        "# TYPE tidegate_messages_received counter",
        "tidegate_messages_received_total{shard=\"0\"} 3",
        "tidegate_messages_received_total{shard=\"1\"} 4",
        "tidegate_connections_open{shard=\"1\"} 9",
        "# UNIT tidegate_sent_bytes bytes",
        "# EOF",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
}

/// Whoever wants a few numbers each second does not pay for all of them.
#[test]
fn some_families_are_told_without_the_others() {
    let metrics = Metrics::new(1);
    let looked = Arc::new(AtomicU64::new(0));
    let looks = Arc::clone(&looked);
    metrics.look_up(move || {
        looks.fetch_add(1, Ordering::Relaxed);
        vec![
            Sample::one("up_time", "For how long", Measure::Seconds, 3.0),
            Sample::one("idle_time", "For how long not", Measure::Seconds, 4.0),
        ]
    });
    let families_of = |text: &str| -> Vec<String> {
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        types
            .map(|line| line.split(' ').next().unwrap().to_owned())
            .collect()
    };
    let counted = [
        "tidegate_sent_bytes",
        "tidegate_turns",
        "tidegate_turn_duration_seconds",
    ];
    let text = metrics.to_text_of(&counted);
    let mut families = families_of(&text);
    families.sort_unstable();
    assert_eq!(
        families,
        [
            "tidegate_sent_bytes",
            "tidegate_turn_duration_seconds",
            "tidegate_turns"
        ]
    );
    assert!(text.ends_with("# EOF\n"));
    assert_eq!(looked.load(Ordering::Relaxed), 0);
    let text = metrics.to_text_of(&["tidegate_turns", "tidegate_up_time_seconds", "turn"]);
    assert_eq!(
        families_of(&text),
        ["tidegate_turns", "tidegate_up_time_seconds"]
    );
    assert_eq!(looked.load(Ordering::Relaxed), 1);
    assert_eq!(families_of(&metrics.to_text_of(&[])), Vec::<String>::new());
}

/// Labels come from the program: whatever code a peer sends, the number of series is the same.
#[test]
fn labels_are_bounded() {
    let metrics = Metrics::new(1);
    let series = metrics.to_text().lines().count();
    let shard = metrics.shard(0).unwrap();
    (0..=u16::MAX).for_each(|code| shard.closed(code));
    shard.refused(Refusal::Token);
    let text = metrics.to_text();
    assert_eq!(text.lines().count(), series);
    assert!(text.contains("tidegate_connections_closed_total{code=\"1008\"} 1\n"));
    let others = 65_536 - CLOSE_CODES.len();
    assert!(text.contains(&format!("{{code=\"other\"}} {others}\n")));
    assert!(text.contains("tidegate_connections_refused_total{reason=\"token\"} 1\n"));
}

#[test]
fn durations_are_read_after_they_were_handed_over() {
    let metrics = Metrics::new(1);
    let recorder = Recorder::new(Arc::clone(metrics.shard(0).unwrap()));
    for us in [0, 9, 40, 40, 900, 70_000, u64::MAX / 4] {
        recorder.record(Timing::Handler, us);
    }
    let count = "tidegate_handler_duration_seconds_count{shard=\"0\"} ";
    assert!(metrics.to_text().contains(&format!("{count}0\n")));
    recorder.flush();
    recorder.flush();
    let text = metrics.to_text();
    for line in [
        format!("{count}7\n"),
        bucket("0.00001", 2),
        bucket("0.00005", 4),
        bucket("0.001", 5),
        bucket("0.1", 6),
        bucket("10.0", 6),
        bucket("+Inf", 7),
    ] {
        assert!(text.contains(&line), "{line}\n{text}");
    }
}

fn bucket(bound: &str, number: u64) -> String {
    format!("tidegate_handler_duration_seconds_bucket{{le=\"{bound}\",shard=\"0\"}} {number}\n")
}

/// Names are of one style and stand once.
#[test]
fn every_measure_has_its_own_name_and_explanation() {
    let counters = Counter::ALL.iter().map(|one| (one.name(), one.help()));
    let gauges = Gauge::ALL.iter().map(|one| (one.name(), one.help()));
    let timings = Timing::ALL.iter().map(|one| (one.name(), one.help()));
    let all: Vec<_> = counters.chain(gauges).chain(timings).collect();
    let names: std::collections::BTreeSet<_> = all.iter().map(|(name, _)| *name).collect();
    assert_eq!(names.len(), all.len());
    for (name, help) in all {
        assert!(
            name.bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
            "{name}"
        );
        assert!(!help.is_empty() && !help.ends_with('.'), "{help}");
    }
}

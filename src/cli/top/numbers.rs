//! From pages of metrics to what is worth looking at: sums, and rates between two looks. Knows names
//! of metrics; nothing of a terminal.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde_json::Value;

/// The families that are asked for, and no others.
pub(super) const FAMILIES: [&str; 11] = [
    "connections_open",
    "messages_received",
    "messages_sent",
    "sent_bytes",
    "frames_lagged",
    "publishes",
    "turns",
    "turn_duration_seconds",
    "mailbox_depth",
    "outbox_bytes",
    "topics",
];

/// So many looks are kept for the curves.
const LOOKS_MAX: usize = 240;

/// One look: each metric by its shard.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Look(BTreeMap<String, BTreeMap<u16, f64>>);

impl Look {
    /// Reads the page of `/metrics`; what it does not know it passes over.
    pub(super) fn read(page: &str) -> Self {
        let mut look = Self::default();
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let Some((name, shard, value)) = sample(line) else {
                continue;
            };
            let shards = look.0.entry(name.to_owned()).or_default();
            *shards.entry(shard).or_default() += value;
        }
        look
    }

    fn shards(&self) -> Vec<u16> {
        let of = self.0.get("connections_open");
        of.map_or_else(Vec::new, |of| of.keys().copied().collect())
    }

    fn of(&self, name: &str, shard: u16) -> f64 {
        let of = self.0.get(name).and_then(|of| of.get(&shard));
        of.copied().unwrap_or_default()
    }

    fn sum(&self, name: &str) -> f64 {
        self.0.get(name).map_or(0.0, |of| of.values().sum())
    }
}

/// `tidegate_NAME{..,shard="3",..} 7` as its name, its shard and its value. Buckets are left out.
fn sample(line: &str) -> Option<(&str, u16, f64)> {
    let (head, rest) = line.split_once(['{', ' '])?;
    let name = head.strip_prefix("tidegate_")?;
    let (labels, value) = match line.as_bytes().get(head.len())? {
        b'{' => rest.split_once("} ")?,
        _ => ("", rest),
    };
    if labels.contains("le=\"") {
        return None;
    }
    let shard = labels
        .split("shard=\"")
        .nth(1)
        .and_then(|it| it.split('"').next());
    let value = value.split(' ').next()?.parse().ok()?;
    Some((name, shard?.parse().ok()?, value))
}

/// What one shard does.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Shard {
    pub(super) index: u16,
    pub(super) connections: f64,
    /// The part of the time in which its loop had something to do.
    pub(super) busy: f64,
    pub(super) turns_per_s: f64,
    pub(super) mailbox: f64,
    pub(super) outbox_bytes: f64,
}

/// A subscriber that does not keep up.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Slow {
    pub(super) sub: String,
    pub(super) path: String,
    pub(super) missed: u64,
    pub(super) queued_bytes: u64,
    pub(super) stalled_ms: u64,
}

/// Curves that are shown, the newest value last.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    last: Option<Look>,
    pub(super) connections: VecDeque<u64>,
    pub(super) received_per_s: VecDeque<u64>,
    pub(super) sent_per_s: VecDeque<u64>,
    pub(super) publishes_per_s: VecDeque<u64>,
    pub(super) sent_bytes_per_s: f64,
    pub(super) lagged_per_s: f64,
    pub(super) topics: f64,
    pub(super) shards: Vec<Shard>,
    pub(super) slow: Vec<Slow>,
}

impl Numbers {
    /// Takes in a look that was made so long after the one before it.
    pub(super) fn take(&mut self, look: Look, after: Duration) {
        let seconds = after.as_secs_f64().max(0.001);
        push(&mut self.connections, look.sum("connections_open"));
        self.topics = look.sum("topics");
        if let Some(last) = &self.last {
            let rate = |name: &str| (look.sum(name) - last.sum(name)).max(0.0) / seconds;
            push(&mut self.received_per_s, rate("messages_received_total"));
            push(&mut self.sent_per_s, rate("messages_sent_total"));
            push(&mut self.publishes_per_s, rate("publishes_total"));
            self.sent_bytes_per_s = rate("sent_bytes_total");
            self.lagged_per_s = rate("frames_lagged_total");
        }
        let before = self.last.as_ref().unwrap_or(&look);
        self.shards = look
            .shards()
            .into_iter()
            .map(|index| {
                let rate =
                    |name| (look.of(name, index) - before.of(name, index)).max(0.0) / seconds;
                Shard {
                    index,
                    connections: look.of("connections_open", index),
                    busy: rate("turn_duration_seconds_sum").min(1.0),
                    turns_per_s: rate("turns_total"),
                    mailbox: look.of("mailbox_depth", index),
                    outbox_bytes: look.of("outbox_bytes", index),
                }
            })
            .collect();
        self.last = Some(look);
    }

    /// Takes in the answer of `/v1/admin/slow`.
    pub(super) fn take_slow(&mut self, answer: &Value) {
        let all = answer["connections"]
            .as_array()
            .map_or(&[][..], Vec::as_slice);
        let text = |one: &Value, key: &str| one[key].as_str().unwrap_or("-").to_owned();
        let number = |one: &Value, key: &str| one[key].as_u64().unwrap_or_default();
        let slow = |one: &Value| Slow {
            sub: text(one, "sub"),
            path: text(one, "path"),
            missed: number(one, "missed"),
            queued_bytes: number(one, "queued_bytes"),
            stalled_ms: number(one, "stalled_ms"),
        };
        self.slow = all.iter().map(slow).collect();
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rates and counts are whole and not negative once they are rounded"
)]
fn push(curve: &mut VecDeque<u64>, value: f64) {
    if LOOKS_MAX <= curve.len() {
        curve.pop_front();
    }
    curve.push_back(value.round().max(0.0) as u64);
}

/// A number as it is read at a glance.
pub(super) fn scaled(number: f64) -> String {
    for (size, prefix) in [(1e9, "G"), (1e6, "M"), (1e4, "k")] {
        if size <= number {
            let size = if prefix == "k" { 1e3 } else { size };
            return format!("{:.1} {prefix}", number / size);
        }
    }
    format!("{number:.0}")
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    pub(in crate::cli::top) fn page(turn: u64) -> String {
        let mut page = String::from("# TYPE tidegate_turns counter\n");
        for shard in 0..2_u64 {
            let at = turn * (shard + 1);
            page += &format!(
                "tidegate_connections_open{{shard=\"{shard}\"}} {}\n\
                 tidegate_messages_received_total{{shard=\"{shard}\"}} {}\n\
                 tidegate_messages_sent_total{{shard=\"{shard}\"}} {}\n\
                 tidegate_turn_duration_seconds_sum{{shard=\"{shard}\"}} {}\n\
                 tidegate_turn_duration_seconds_bucket{{shard=\"{shard}\",le=\"0.1\"}} 9\n\
                 tidegate_turns_total{{shard=\"{shard}\"}} {}\n",
                100 + shard,
                20_000 * at,
                50_000 * at,
                0.2 * at as f64,
                900 * at,
            );
        }
        page + "tidegate_build_info{version=\"1\"} 1\nnonsense\n"
    }

    #[test]
    fn two_looks_make_rates() {
        let mut numbers = Numbers::default();
        numbers.take(Look::read(&page(1)), Duration::ZERO);
        assert_eq!(
            (numbers.connections.back(), numbers.sent_per_s.back()),
            (Some(&201), None)
        );
        numbers.take(Look::read(&page(3)), Duration::from_secs(2));
        assert_eq!(numbers.received_per_s, [60_000]);
        assert_eq!(numbers.sent_per_s, [150_000]);
        let busy: Vec<f64> = numbers
            .shards
            .iter()
            .map(|shard| (shard.busy * 100.0).round())
            .collect();
        assert_eq!(busy, [20.0, 40.0]);
        assert_eq!(numbers.shards[1].turns_per_s, 1_800.0);
        // A server that was started anew counts from nothing.
        numbers.take(Look::read(&page(1)), Duration::from_secs(1));
        assert_eq!(numbers.sent_per_s.back(), Some(&0));
    }

    #[test]
    fn curves_have_an_end() {
        let mut numbers = Numbers::default();
        for turn in 0..1_000 {
            numbers.take(Look::read(&page(turn)), Duration::from_secs(1));
        }
        assert_eq!(numbers.connections.len(), LOOKS_MAX);
    }

    #[test]
    fn whoever_is_slow_is_named() {
        let mut numbers = Numbers::default();
        numbers.take_slow(&json!({"connections": [{"sub": "ada", "path": "/ws", "missed": 7, "queued_bytes": 9, "stalled_ms": 1}, {}]}));
        assert_eq!(
            (numbers.slow[0].missed, numbers.slow[1].sub.as_str()),
            (7, "-")
        );
        numbers.take_slow(&json!(null));
        assert!(numbers.slow.is_empty());
    }

    #[test]
    fn numbers_are_read_at_a_glance() {
        let shown = [7.0, 9_999.0, 12_345.0, 2.5e6, 3e9].map(scaled);
        assert_eq!(shown, ["7", "9999", "12.3 k", "2.5 M", "3.0 G"]);
    }
}

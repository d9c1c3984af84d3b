//! Latencies of one kind in a histogram of three digits. Knows no clock: it is told nanoseconds.

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::clock::Nanos;

/// Latencies under a name. Those of several threads are merged, never averaged.
#[derive(Debug, Clone)]
pub(crate) struct Latencies {
    name: &'static str,
    histogram: Histogram<u64>,
}

impl Latencies {
    /// An empty series.
    pub(crate) fn new(name: &'static str) -> Result<Self> {
        Ok(Self {
            name,
            histogram: Histogram::new_with_bounds(1, NANOS_MAX, DIGITS)?,
        })
    }

    /// Notes that `count` messages took so long; what exceeds a minute counts as a minute.
    pub(crate) fn record(&mut self, latency: Nanos, count: u64) {
        if 0 < count {
            self.histogram.saturating_record_n(latency, count);
        }
    }

    /// Takes over the latencies of another thread.
    pub(crate) fn merge(&mut self, other: &Self) -> Result<()> {
        Ok(self.histogram.add(&other.histogram)?)
    }

    /// The quantiles that a report shows.
    pub(crate) fn summary(&self) -> Summary {
        let quantile = |q| micros(self.histogram.value_at_quantile(q));
        Summary {
            name: self.name,
            count: self.histogram.len(),
            p50_us: quantile(0.5),
            p90_us: quantile(0.9),
            p99_us: quantile(0.99),
            p99_9_us: quantile(0.999),
            p99_99_us: quantile(0.9999),
            max_us: micros(self.histogram.max()),
        }
    }
}

/// What a series came to, in microseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) name: &'static str,
    pub(crate) count: u64,
    pub(crate) p50_us: f64,
    pub(crate) p90_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p99_9_us: f64,
    pub(crate) p99_99_us: f64,
    pub(crate) max_us: f64,
}

fn micros(nanos: Nanos) -> f64 {
    (nanos as f64 / 100.0).round() / 10.0
}

const NANOS_MAX: Nanos = 60_000_000_000;
const DIGITS: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_series_hold_the_messages_of_both() {
        let (mut one, mut other) = (Latencies::new("a").unwrap(), Latencies::new("a").unwrap());
        one.record(1_000, 99);
        other.record(9_000_000, 1);
        one.merge(&other).unwrap();
        let summary = one.summary();
        assert_eq!((summary.count, summary.p50_us), (100, 1.0));
        assert!((9_000.0..9_010.0).contains(&summary.max_us), "{summary:?}");
    }
}

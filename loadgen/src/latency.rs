//! Latencies of one kind: a histogram of three digits over all, and one of two digits for each
//! second. Knows no clock: it is told nanoseconds, and by the run which second it is.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::clock::Nanos;

/// Latencies under a name. Those of several threads are merged, never averaged.
#[derive(Debug, Clone)]
pub(crate) struct Latencies {
    name: &'static str,
    histogram: Histogram<u64>,
    /// Second by second.
    slices: Vec<Histogram<u64>>,
}

/// The second of the window that runs. The thread that watches a run sets it, so that what
/// records needs no clock for it.
static SECOND: AtomicUsize = AtomicUsize::new(0);

/// Tells in which second of its window a run is.
pub(crate) fn begin_second(second: usize) {
    SECOND.store(second.min(SECONDS_MAX - 1), Ordering::Relaxed);
}

impl Latencies {
    /// An empty series.
    pub(crate) fn new(name: &'static str) -> Result<Self> {
        Ok(Self {
            name,
            histogram: Histogram::new_with_bounds(1, NANOS_MAX, DIGITS)?,
            slices: Vec::new(),
        })
    }

    /// Notes that `count` messages took so long; what exceeds a minute counts as a minute.
    pub(crate) fn record(&mut self, latency: Nanos, count: u64) {
        if 0 < count {
            self.histogram.saturating_record_n(latency, count);
            let second = SECOND.load(Ordering::Relaxed);
            if let Some(slice) = self.slice(second) {
                slice.saturating_record_n(latency, count);
            }
        }
    }

    fn slice(&mut self, second: usize) -> Option<&mut Histogram<u64>> {
        while self.slices.len() <= second {
            let slice = Histogram::new_with_bounds(1, NANOS_MAX, SLICE_DIGITS).ok()?;
            self.slices.push(slice);
        }
        self.slices.get_mut(second)
    }

    /// Takes over the latencies of another thread.
    pub(crate) fn merge(&mut self, other: &Self) -> Result<()> {
        for (second, slice) in other.slices.iter().enumerate() {
            if let Some(own) = self.slice(second) {
                own.add(slice)?;
            }
        }
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
            percentiles: self.percentiles(),
            over_time: self.over_time(),
        }
    }

    /// The latency that one message in so many exceeds, three points from one ten to the next.
    fn percentiles(&self) -> Vec<Point> {
        let steps = (0..=PERCENTILE_STEPS).map(|step| 10_f64.powf(f64::from(step) / 3.0));
        let seen = |one_in: &f64| *one_in <= self.histogram.len().max(1) as f64;
        let point = |one_in: f64| Point {
            one_in,
            us: micros(self.histogram.value_at_quantile(1.0 - 1.0 / one_in)),
        };
        steps.take_while(seen).map(point).collect()
    }

    fn over_time(&self) -> Vec<Second> {
        let second = |(second, slice): (usize, &Histogram<u64>)| Second {
            second,
            count: slice.len(),
            p50_us: micros(slice.value_at_quantile(0.5)),
            p99_us: micros(slice.value_at_quantile(0.99)),
            max_us: micros(slice.max()),
        };
        self.slices.iter().enumerate().map(second).collect()
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
    /// The curve between these quantiles.
    pub(crate) percentiles: Vec<Point>,
    /// Second by second.
    pub(crate) over_time: Vec<Second>,
}

/// A point of the curve: one message in `one_in` took longer than `us`.
#[derive(Debug, Serialize)]
pub(crate) struct Point {
    one_in: f64,
    us: f64,
}

/// What one second of the window came to.
#[derive(Debug, Serialize)]
pub(crate) struct Second {
    second: usize,
    count: u64,
    p50_us: f64,
    p99_us: f64,
    max_us: f64,
}

fn micros(nanos: Nanos) -> f64 {
    (nanos as f64 / 100.0).round() / 10.0
}

const NANOS_MAX: Nanos = 60_000_000_000;
const DIGITS: u8 = 3;
const SLICE_DIGITS: u8 = 2;
/// Longer runs put the rest into their last second; each takes some 50 KiB for each series.
const SECONDS_MAX: usize = 600;
/// Up to one in a million.
const PERCENTILE_STEPS: u8 = 18;

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
        let (curve, seconds) = (&summary.percentiles, &summary.over_time);
        assert_eq!((curve.len(), seconds.len(), seconds[0].count), (7, 1, 100));
        assert!(curve.windows(2).all(|pair| pair[0].us <= pair[1].us));
    }
}

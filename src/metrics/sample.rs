//! Numbers that nobody counts along the way: they are looked up when somebody asks, such as the
//! memory of the process. Knows their form; who looks them up is told from outside.

use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

/// What a number is measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// How many.
    Count,
    /// How many; it only grows.
    Total,
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
    /// Seconds that only grow.
    SecondsTotal,
}

impl Measure {
    /// What follows the name in that of its family.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::Count | Self::Total => "",
            Self::Bytes => "_bytes",
            Self::Seconds | Self::SecondsTotal => "_seconds",
        }
    }
}

/// One number, or one for each value of a label. Labels are bounded by the program.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The name without the prefix and the unit's suffix.
    pub name: &'static str,
    /// What it means, without a full stop.
    pub help: &'static str,
    /// Its unit.
    pub measure: Measure,
    /// The label's name and value, if there is one, and the number.
    pub values: Vec<(Option<(&'static str, String)>, f64)>,
}

impl Sample {
    /// A number without a label.
    pub fn one(name: &'static str, help: &'static str, measure: Measure, value: f64) -> Self {
        Self {
            name,
            help,
            measure,
            values: vec![(None, value)],
        }
    }

    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let (unit, kind) = match self.measure {
            Measure::Count => (None, MetricType::Gauge),
            Measure::Total => (None, MetricType::Counter),
            Measure::Bytes => (Some(Unit::Bytes), MetricType::Gauge),
            Measure::Seconds => (Some(Unit::Seconds), MetricType::Gauge),
            Measure::SecondsTotal => (Some(Unit::Seconds), MetricType::Counter),
        };
        let help = format!("{}.", self.help);
        let mut metric = encoder.encode_descriptor(self.name, &help, unit.as_ref(), kind)?;
        for (label, value) in &self.values {
            let labels: Vec<_> = label.iter().cloned().collect();
            let mut sample = metric.encode_family(&labels)?;
            match kind {
                MetricType::Counter => sample.encode_counter::<NoLabelSet, _, f64>(value, None)?,
                _ => sample.encode_gauge(value)?,
            }
        }
        Ok(())
    }
}

/// Looks the numbers up.
#[derive(Clone)]
pub(super) struct Sampler(pub(super) Arc<dyn Fn() -> Vec<Sample> + Send + Sync>);

impl fmt::Debug for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sampler")
    }
}

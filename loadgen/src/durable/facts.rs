//! What a run with several parts came to: named figures, in order. Knows no load.

use std::fmt;

use serde::{Serialize, Serializer};

use super::disk::Disk;
use crate::latency::Summary;

/// The figures of one run.
#[derive(Debug, Serialize)]
pub(crate) struct Facts {
    mode: &'static str,
    #[serde(serialize_with = "as_map")]
    figures: Vec<Figure>,
    latencies: Vec<Summary>,
}

#[derive(Debug, Serialize)]
struct Figure {
    #[serde(skip)]
    name: &'static str,
    value: f64,
    unit: &'static str,
}

impl Facts {
    /// No figures yet.
    pub(crate) fn new(mode: &'static str) -> Self {
        Self {
            mode,
            figures: Vec::new(),
            latencies: Vec::new(),
        }
    }

    /// Adds a figure.
    pub(crate) fn add(&mut self, name: &'static str, value: f64, unit: &'static str) {
        self.figures.push(Figure { name, value, unit });
    }

    /// Adds what a sync cost meanwhile.
    pub(crate) fn add_disk(&mut self, disk: Option<&Disk>) {
        self.latencies
            .extend(disk.map(|disk| disk.latencies().summary()));
    }
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.mode)?;
        for Figure { name, value, unit } in &self.figures {
            let digits = if value.abs() < 100.0 { 2 } else { 0 };
            write!(f, "\n{name:40} {value:.digits$} {unit}")?;
        }
        for series in &self.latencies {
            let Summary {
                name,
                count,
                p50_us,
                p99_us,
                max_us,
                ..
            } = series;
            write!(
                f,
                "\n{name:40} p50 {p50_us} us, p99 {p99_us} us, max {max_us} us, {count} times"
            )?;
        }
        Ok(())
    }
}

fn as_map<S: Serializer>(figures: &[Figure], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(figures.iter().map(|figure| (figure.name, figure)))
}

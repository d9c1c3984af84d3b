//! The file of a scenario: its steps, each with the options of a load as they stand behind
//! `loadgen MODE`. Knows TOML; not what the options mean.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use toml::{Table, Value};

/// A scenario.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    pub(crate) title: String,
    /// What it is like and what to look at.
    pub(crate) about: String,
    /// Configuration of a server that is started for it, beside that of development.
    #[serde(default)]
    pub(crate) server: Table,
    pub(crate) step: Vec<Step>,
}

/// Loads that run at the same time.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Step {
    pub(crate) name: String,
    pub(crate) load: Vec<Load>,
    /// Repeats the first load with growing rates, the others beside it.
    pub(crate) ramp: Option<Ramp>,
}

/// One load.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Load {
    /// `echo`, or `durable publish`.
    pub(crate) mode: String,
    /// So many of it, `{n}` in a text is the number of each.
    #[serde(default = "one")]
    pub(crate) copies: u32,
    #[serde(flatten)]
    pub(crate) options: Table,
}

/// The search for the highest rate.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ramp {
    /// Messages a second to begin with.
    pub(crate) from: f64,
    /// p99 that must be kept, in microseconds.
    pub(crate) p99_us_max: f64,
    /// Runs at most.
    #[serde(default = "rounds")]
    pub(crate) rounds: u32,
}

fn one() -> u32 {
    1
}

fn rounds() -> u32 {
    10
}

impl Scenario {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let scenario: Self = toml::from_str(text)?;
        ensure!(!scenario.step.is_empty(), "it has no [[step]]");
        for step in &scenario.step {
            ensure!(!step.load.is_empty(), "step `{}` has no load", step.name);
            for load in &step.load {
                load.arguments(0)
                    .with_context(|| format!("step `{}`", step.name))?;
            }
        }
        Ok(scenario)
    }
}

impl Load {
    /// The words behind `loadgen`, for copy `number`.
    pub(crate) fn arguments(&self, number: u32) -> Result<Vec<String>> {
        let mut words: Vec<String> = self.mode.split_whitespace().map(str::to_owned).collect();
        for (key, value) in &self.options {
            let flag = format!("--{}", key.replace('_', "-"));
            match value {
                Value::Boolean(true) => words.push(flag),
                Value::Boolean(false) => {}
                Value::String(text) => {
                    words.extend([flag, text.replace("{n}", &number.to_string())]);
                }
                Value::Integer(_) | Value::Float(_) => words.extend([flag, value.to_string()]),
                _ => anyhow::bail!("`{key}` is no text, number, true or false"),
            }
        }
        Ok(words)
    }

    /// The same load at another rate, or for another time.
    pub(crate) fn with(&self, key: &str, value: f64) -> Self {
        let mut changed = self.clone();
        changed.options.insert(key.to_owned(), Value::Float(value));
        changed
    }
}

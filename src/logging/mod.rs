//! What the program says of itself: lines on stderr, for people or for machines. A leaf: knows
//! nothing of what is said. Standard output is left to the first line that tells the address.

use std::io::{self, IsTerminal};

use tracing_log::log;
use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

mod lines;

pub use self::lines::Bounds;
pub(crate) use self::lines::{end, left_out};

use self::lines::Lines;

/// Why nothing can be logged as asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// A level that is none.
    #[error(
        "log.level = {level}: not one of error, warn, info, debug, trace, nor a filter such as info,tidegate::ws=debug"
    )]
    Level {
        /// What was given.
        level: String,
        /// Why.
        source: ParseError,
    },
    /// The level cannot be changed any more.
    #[error("the level of the log cannot be changed")]
    Gone(#[from] reload::Error),
}

/// The running log, whose level can be changed; or that of the program, which is left alone.
#[derive(Debug, Clone)]
pub struct Logging {
    filter: Option<reload::Handle<EnvFilter, Registry>>,
    /// The records of the crate `log` come to it.
    is_ours: bool,
}

impl Logging {
    /// Starts logging for the whole process, at `level`, as text or as JSON. A program that has
    /// installed a subscriber of its own (OpenTelemetry, tokio-console) keeps it, and it decides
    /// what is logged; `level` must be one all the same.
    pub fn start(level: &str, bounds: Bounds) -> Result<Self, LogError> {
        let parsed = parse_level(level)?;
        let most = most_of(&parsed);
        let (filter, handle) = reload::Layer::new(parsed);
        let writer = Lines::to_stderr(bounds);
        let lines = fmt::layer()
            .with_writer(writer)
            .with_ansi(io::stderr().is_terminal());
        let lines = match bounds.json {
            true => lines.json().flatten_event(true).boxed(),
            false => lines.boxed(),
        };
        let subscriber = tracing_subscriber::registry().with(filter).with(lines);
        if tracing::subscriber::set_global_default(subscriber).is_err() {
            tracing::info!(
                "this program has a tracing subscriber of its own: log.level and log.format have no effect"
            );
            return Ok(Self {
                filter: None,
                is_ours: false,
            });
        }
        // Records of the crate `log` come too, unless the program has a use for them already.
        let is_ours = tracing_log::LogTracer::init().is_ok();
        if is_ours {
            log::set_max_level(most);
        }
        Ok(Self {
            filter: Some(handle),
            is_ours,
        })
    }

    /// From now on logs at `level`, unless the program decides about that.
    pub fn reload(&self, level: &str) -> Result<(), LogError> {
        let level = parse_level(level)?;
        if self.is_ours {
            log::set_max_level(most_of(&level));
        }
        match &self.filter {
            Some(filter) => Ok(filter.reload(level)?),
            None => Ok(()),
        }
    }
}

/// The most that a filter lets through. Records of the crate `log` beyond it cost one comparison where
/// they are made: the parser of frames makes one for every frame.
fn most_of(filter: &EnvFilter) -> log::LevelFilter {
    match filter.max_level_hint() {
        Some(most) => tracing_log::AsLog::as_log(&most),
        None => log::LevelFilter::Trace,
    }
}

/// A level, or a filter with levels for parts of the program.
pub fn parse_level(level: &str) -> Result<EnvFilter, LogError> {
    // A misspelt level alone would be taken for the name of a part, and nothing would be logged.
    let alone = !level.contains(['=', ',', '[']);
    let parsed = match alone {
        true => level
            .parse::<tracing::level_filters::LevelFilter>()
            .map(|level| EnvFilter::default().add_directive(level.into()))
            .map_err(ParseError::from),
        false => EnvFilter::try_new(level),
    };
    parsed.map_err(|source| LogError::Level {
        level: level.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_a_level_or_a_filter() {
        for good in [
            "error",
            "warn",
            "info",
            "debug",
            "trace",
            "off",
            "info,tidegate::ws=debug",
        ] {
            assert!(parse_level(good).is_ok(), "{good}");
        }
        for bad in ["inof", "tidegate::ws=loud"] {
            let text = parse_level(bad).unwrap_err().to_string();
            assert!(
                text.starts_with(&format!("log.level = {bad}: not one of")),
                "{text}"
            );
        }
    }

    /// C-23: the level is a thing that a running server changes.
    #[test]
    fn the_level_changes_while_it_runs() {
        let logging = Logging::start("error", Bounds::default()).unwrap();
        assert!(!tracing::enabled!(tracing::Level::INFO));
        assert_eq!(log::max_level(), log::LevelFilter::Error);
        logging.reload("info").unwrap();
        assert!(tracing::enabled!(tracing::Level::INFO));
        assert_eq!(log::max_level(), log::LevelFilter::Info);
        logging.reload("error,tungstenite=trace").unwrap();
        assert_eq!(log::max_level(), log::LevelFilter::Trace);
        logging.reload("info").unwrap();
        assert!(logging.reload("inof").is_err());
        // A7: who comes second leaves the log to the first.
        let second = Logging::start("debug", Bounds::default()).unwrap();
        assert!(!tracing::enabled!(tracing::Level::DEBUG));
        second.reload("debug").unwrap();
        assert!(!tracing::enabled!(tracing::Level::DEBUG));
        assert!(Logging::start("inof", Bounds::default()).is_err());
    }
}

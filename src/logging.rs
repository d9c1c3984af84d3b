//! What the program says of itself: lines on stderr, for people or for machines. A leaf: knows
//! nothing of what is said. Standard output is left to the first line that tells the address.

use std::io::{self, IsTerminal};

use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, Registry, fmt, reload};

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
    /// Something in this process logs already.
    #[error("this process logs already; leave the logging to the server or start it without")]
    Started(#[from] TryInitError),
    /// The level cannot be changed any more.
    #[error("the level of the log cannot be changed")]
    Gone(#[from] reload::Error),
}

/// The running log, whose level can be changed.
#[derive(Debug, Clone)]
pub struct Logging {
    filter: reload::Handle<EnvFilter, Registry>,
}

impl Logging {
    /// Starts logging for the whole process, at `level`, as text or as JSON.
    pub fn start(level: &str, json: bool) -> Result<Self, LogError> {
        let (filter, handle) = reload::Layer::new(parse_level(level)?);
        let lines = fmt::layer()
            .with_writer(io::stderr)
            .with_ansi(io::stderr().is_terminal());
        let lines = match json {
            true => lines.json().flatten_event(true).boxed(),
            false => lines.boxed(),
        };
        tracing_subscriber::registry()
            .with(filter)
            .with(lines)
            .try_init()?;
        Ok(Self { filter: handle })
    }

    /// From now on logs at `level`.
    pub fn reload(&self, level: &str) -> Result<(), LogError> {
        Ok(self.filter.reload(parse_level(level)?)?)
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
        let logging = Logging::start("error", true).unwrap();
        assert!(!tracing::enabled!(tracing::Level::INFO));
        logging.reload("info").unwrap();
        assert!(tracing::enabled!(tracing::Level::INFO));
        assert!(logging.reload("inof").is_err());
        assert!(matches!(
            Logging::start("info", false),
            Err(LogError::Started(_))
        ));
    }
}

//! Errors on their way to a client: what it is told of them, and what only the log is. Knows values
//! and their types; no frame and no connection.

use std::any::Any;
use std::fmt::{self, Display};

use serde_json::Value;

use crate::gateway::engine::container::StartError;
use crate::proto::event::ErrorData;

/// What kind of error it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExceptionKind {
    /// A handler, or an extractor of its own, answered `Err`.
    Handler,
    /// The payload is of another shape.
    Payload,
    /// The payload breaks a rule of its type.
    Validation,
    /// A guard said no.
    Denied,
    /// A handler panicked.
    Panic,
    /// What a handler returned has no JSON.
    Serialize,
}

/// An error on its way to the client, as exception filters see it.
#[derive(Debug)]
pub struct Exception {
    kind: ExceptionKind,
    message: String,
    /// What the log is told, where the client is not.
    hidden: Option<String>,
    errors: Option<Box<Value>>,
    source: Option<Box<dyn Any>>,
}

impl Exception {
    /// The error of a handler. Its text goes to the client if the program wrote it; the text of an
    /// error that came from elsewhere goes to the log, and the client reads `internal`: see
    /// [`Told::of`].
    pub fn new<E: Display + 'static>(error: E) -> Self {
        let (message, hidden) = match Told::of(&error) {
            Told::Client(text) => (text, None),
            Told::Log(text) => (INTERNAL.to_owned(), Some(text)),
        };
        Self {
            message,
            hidden,
            source: Some(Box::new(error)),
            ..Self::of(ExceptionKind::Handler, String::new())
        }
    }

    pub(crate) fn of(kind: ExceptionKind, message: String) -> Self {
        Self {
            kind,
            message,
            hidden: None,
            errors: None,
            source: None,
        }
    }

    pub(crate) fn payload(event: &str, reason: &dyn Display) -> Self {
        Self::of(
            ExceptionKind::Payload,
            format!("invalid payload for `{event}`: {reason}"),
        )
    }

    pub(crate) fn validation(event: &str, errors: Value) -> Self {
        let message = format!("invalid payload for `{event}`: validation failed");
        Self {
            errors: Some(Box::new(errors)),
            ..Self::of(ExceptionKind::Validation, message)
        }
    }

    pub(crate) fn panic() -> Self {
        Self::internal(ExceptionKind::Panic)
    }

    /// An error of which the client is told nothing.
    pub(crate) fn internal(kind: ExceptionKind) -> Self {
        Self::of(kind, INTERNAL.to_owned())
    }

    /// A service that is missing, or that could not be built: nothing for the client to read.
    pub(crate) fn start(error: StartError) -> Self {
        Self {
            hidden: Some(error.to_string()),
            source: Some(Box::new(error)),
            ..Self::internal(ExceptionKind::Handler)
        }
    }

    /// What the log is told: the whole error, where the client reads `internal`.
    pub(crate) fn log_text(&self) -> &str {
        self.hidden.as_deref().unwrap_or(&self.message)
    }

    /// Writes the text of an internal error to the log.
    pub(crate) fn log_hidden(&self, event: &str) {
        if let Some(error) = &self.hidden {
            tracing::error!(target: "tidegate::ws", event, error, "a handler failed");
        }
    }

    /// What kind of error it is.
    pub fn kind(&self) -> ExceptionKind {
        self.kind
    }

    /// What the client is told.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Which rules the payload breaks, field by field.
    pub fn errors(&self) -> Option<&Value> {
        self.errors.as_deref()
    }

    /// The value that the handler returned as its error.
    pub fn downcast_ref<E: 'static>(&self) -> Option<&E> {
        self.source.as_ref()?.downcast_ref()
    }

    /// `{"error":"<message>"}`, and the fields if there are some.
    pub(crate) fn data(&self) -> ErrorData<'_> {
        ErrorData {
            error: &self.message,
            errors: self.errors.as_deref(),
        }
    }
}

/// Hides an error from the client, who reads `internal`; the log has its text. `?` turns any
/// error into it.
pub struct Opaque(Box<dyn std::error::Error + Send + Sync>);

impl<E: Into<Box<dyn std::error::Error + Send + Sync>>> From<E> for Opaque {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl Display for Opaque {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        tracing::error!(target: "tidegate::ws", error = %self.0, "a handler failed");
        f.write_str(INTERNAL)
    }
}

impl fmt::Debug for Opaque {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Who is told the text of an error.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// The client: the program wrote the text.
    Client(String),
    /// The log: the error came from elsewhere by `?`, and says what only operators may read.
    Log(String),
}

impl Told {
    /// A type of the program's own says what its author wrote, and so do a text and the text that
    /// `anyhow!`, `bail!`, `Error::msg` or `.context(..)` were given. An error of another origin
    /// inside of [`tidegate::Error`](crate::Error) or a box, and an error of input or output, is
    /// internal.
    pub(crate) fn of<E: Display + 'static>(error: &E) -> Self {
        let any: &dyn Any = error;
        if let Some(error) = any.downcast_ref::<anyhow::Error>() {
            return match error.is::<String>() || error.is::<&'static str>() {
                true => Self::Client(error.to_string()),
                false => Self::Log(format!("{error:#}")),
            };
        }
        let boxed = any
            .downcast_ref::<Box<dyn std::error::Error + Send + Sync>>()
            .map(|error| -> &dyn std::error::Error { &**error });
        let boxed = boxed.or_else(|| {
            let sent = any.downcast_ref::<Box<dyn std::error::Error + Send>>();
            sent.map(|error| -> &dyn std::error::Error { &**error })
        });
        let boxed = boxed.or_else(|| {
            let local = any.downcast_ref::<Box<dyn std::error::Error>>();
            local.map(|error| -> &dyn std::error::Error { &**error })
        });
        match boxed {
            Some(error) if !is_text(error) => Self::Log(with_causes(error)),
            None if any.is::<std::io::Error>() => Self::Log(error.to_string()),
            _ => Self::Client(error.to_string()),
        }
    }
}

/// A text in a box has no type that could be asked for, but nothing else is shown in quotes.
fn is_text(error: &dyn std::error::Error) -> bool {
    error.source().is_none() && format!("{error:?}") == format!("{:?}", error.to_string())
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let texts: Vec<_> = causes.map(ToString::to_string).collect();
    texts.join(": ")
}

/// What a client reads in place of the text of an internal error.
pub(crate) const INTERNAL: &str = "internal";

#[cfg(test)]
mod tests {
    use std::error::Error;

    use anyhow::Context as _;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("author `{0}` is not allowed to post")]
    struct NotAllowed(&'static str);

    fn missing() -> std::io::Result<()> {
        Err(std::io::Error::from_raw_os_error(2))
    }

    fn client(text: &str) -> Told {
        Told::Client(text.to_owned())
    }

    fn assert_internal(told: &Told) {
        assert!(
            matches!(told, Told::Log(text) if text.contains("No such file")),
            "{told:?}"
        );
    }

    /// A11: each way in which a program writes a text itself
    #[test]
    fn texts_of_the_program_go_to_the_client() {
        let inline = |name: &str| anyhow::anyhow!("no room {name}");
        assert_eq!(Told::of(&inline("a")), client("no room a"));
        assert_eq!(Told::of(&anyhow::anyhow!("busy")), client("busy"));
        assert_eq!(Told::of(&anyhow::Error::msg("busy")), client("busy"));
        assert_eq!(Told::of(&"busy"), client("busy"));
        assert_eq!(Told::of(&"busy".to_owned()), client("busy"));
        let own = NotAllowed("ada");
        assert_eq!(
            Told::of(&own),
            client("author `ada` is not allowed to post")
        );
        let boxed: Box<dyn Error + Send + Sync> = "say \"busy\"".into();
        assert_eq!(Told::of(&boxed), client("say \"busy\""));
        let boxed: Box<dyn Error> = "busy".into();
        assert_eq!(Told::of(&boxed), client("busy"));
        let told = missing().context("the picture is gone").unwrap_err();
        assert_eq!(Told::of(&told), client("the picture is gone"));
    }

    /// A11: each way in which an error of elsewhere comes
    #[test]
    fn errors_of_elsewhere_stay_in_the_log() {
        let by_question_mark = || -> anyhow::Result<()> { Ok(missing()?) };
        assert_internal(&Told::of(&by_question_mark().unwrap_err()));
        let by_question_mark = || -> Result<(), Box<dyn Error>> { Ok(missing()?) };
        assert_internal(&Told::of(&by_question_mark().unwrap_err()));
        let by_question_mark = || -> Result<(), Box<dyn Error + Send + Sync>> { Ok(missing()?) };
        assert_internal(&Told::of(&by_question_mark().unwrap_err()));
        let by_question_mark = || -> Result<(), Box<dyn Error + Send>> {
            missing().map_err(|error| -> Box<dyn Error + Send> { Box::new(error) })
        };
        assert_internal(&Told::of(&by_question_mark().unwrap_err()));
        assert_internal(&Told::of(&missing().unwrap_err()));
        let number = "x".parse::<u8>().map_err(anyhow::Error::from).unwrap_err();
        assert!(matches!(Told::of(&number), Told::Log(_)));
    }
}

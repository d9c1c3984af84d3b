//! What the log says of connections and events, line by line.

use std::io::{self, Write};
use std::sync::Arc;

use parking_lot::Mutex;
use tidegate_macros::{gateway, messages};
use tracing_subscriber::fmt::MakeWriter;

use super::Rig;
use crate::gateway::module::App;

#[gateway(path = "/logged")]
#[derive(Default)]
struct Logged;

#[messages]
impl Logged {
    #[subscribe_message("fine")]
    async fn fine(&self) -> u8 {
        tokio::task::yield_now().await;
        1
    }

    #[subscribe_message("refused")]
    async fn refused(&self) -> Result<(), &'static str> {
        Err("not today")
    }
}

/// Lines in memory.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// What is logged at `level` and above while somebody comes, asks twice and goes.
fn logged(level: tracing::Level) -> Vec<String> {
    // While there is one subscriber, `tracing` asks that of whichever thread meets a line first
    // whether the line is wanted, and keeps the answer for all: a neighbour test, which has none,
    // would say never. Beside a second one, all that live are asked.
    let _company = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::new());
    let lines = Lines::default();
    let log = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(false);
    let log = log.without_time().with_writer(lines.clone()).finish();
    tracing::subscriber::with_default(log, || {
        let mut app = App::new();
        app.gateway::<Logged>();
        let rig = Rig::new(app);
        let peer = rig.connect("/logged", "demo", &[]);
        peer.ask("fine", "null");
        peer.ask("refused", "null");
        peer.ask("unknown", "null");
        rig.disconnect(&peer);
    });
    let text = String::from_utf8(lines.0.lock().clone()).unwrap();
    text.lines().map(|line| line.trim().to_owned()).collect()
}

/// M-12: each error frame, whoever made it.
#[test]
fn error_frames_are_warned_of() {
    assert_eq!(
        logged(tracing::Level::WARN),
        [
            "WARN tidegate::ws: error frame event=\"refused\" error=\"not today\"",
            "WARN tidegate::ws: error frame event=\"unknown\" error=\"unknown event `unknown`\"",
        ]
    );
}

/// who came and went, and each event with what became of it, its time and its trace.
#[test]
fn events_are_told_to_those_who_debug() {
    let lines = logged(tracing::Level::DEBUG);
    let debugged: Vec<_> = lines
        .iter()
        .filter(|line| line.starts_with("DEBUG"))
        .collect();
    let starts = [
        "DEBUG tidegate::ws: connect gateway=\"Logged\" conn_id=1",
        "DEBUG tidegate::ws: message conn_id=1 event=\"fine\" outcome=\"frame\" us=",
        "DEBUG tidegate::ws: message conn_id=1 event=\"refused\" outcome=\"frame\" us=",
        "DEBUG tidegate::ws: disconnect gateway=\"Logged\" conn_id=1",
    ];
    assert_eq!(debugged.len(), starts.len(), "{debugged:#?}");
    for (line, start) in debugged.into_iter().zip(starts) {
        assert!(line.starts_with(start), "{line}");
        let is_traced = line.ends_with("trace_id=\"0af7651916cd43dd8448eb211c80319c\"");
        assert_eq!(is_traced, start.contains("message"), "{line}");
    }
}

/// Spans are there for those who ask, around messages that wait and such that do not.
#[test]
fn messages_belong_to_the_span_of_their_connection() {
    let lines = logged(tracing::Level::TRACE);
    let within = |text: &str| {
        let line = lines.iter().find(|line| line.contains(text));
        line.unwrap_or_else(|| panic!("{text} is not in {lines:#?}"))
    };
    let connection = "connection{registry=\"Global\" conn_id=1 tenant=\"demo\"";
    let trace = "traceparent=\"00-0af7651916cd43dd8448eb211c80319c-";
    for event in ["fine", "refused"] {
        let line = within(&format!("message conn_id=1 event=\"{event}\""));
        assert!(line.contains(connection) && line.contains(trace), "{line}");
        assert!(
            line.contains(&format!("}}:message{{event=\"{event}\"}}: ")),
            "{line}"
        );
    }
}

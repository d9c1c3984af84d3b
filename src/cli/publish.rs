//! `tidegate pub`: publishes to a durable topic from the shell. Prints what the server
//! acknowledges, so a line on the standard output is a message on the disk.

use std::io::BufRead as _;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};

use clap::Args;
use serde_json::json;
use serde_json::value::RawValue;

use crate::client::{Durable, DurableFrame, Publish};

use super::client::{ClientError, Target, print_frame, told};
use super::{Failure, complain};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  export TIDEGATE_TOKEN=$(tidegate token new --ns demo --sub ada)
  tidegate pub topic-1 '{\"temperature\":42.50}'
  tidegate pub topic-1 hello --key order-17
  tail -f events.ndjson | tidegate pub topic-1
  journalctl -f | tidegate pub topic-1 --text

A line on the standard output is a message that is on the server's disk. Of several lines, each ack
carries the number of its line as `ref`; the exit code is 1 if any was refused.")]
pub(super) struct PubOptions {
    /// The topic's id, or a name that is registered if it is new
    topic: String,
    /// What to publish: JSON, which stays as it is written, or else text. Without it, each line of
    /// the standard input
    payload: Option<String>,
    /// Publish text, even if it looks like JSON
    #[arg(long)]
    text: bool,
    /// The same key again publishes nothing new
    #[arg(long, value_name = "KEY", requires = "payload")]
    key: Option<String>,
    #[command(flatten)]
    target: Target,
}

pub(super) fn run(options: &PubOptions) -> Result<ExitCode, Failure> {
    let done = match &options.payload {
        Some(payload) => publish_one(options, payload)?,
        None => publish_lines(options)?,
    };
    Ok(done)
}

fn publish_one(options: &PubOptions, payload: &str) -> Result<ExitCode, Failure> {
    let payload = payload_of(payload, options.text).map_err(Failure::Payload)?;
    let topic = options.target.topic(&options.topic)?;
    let mut connection = options.target.connect()?;
    let how = Publish {
        reference: None,
        idempotency_key: options.key.as_deref(),
    };
    let sent = connection.publish(&topic, &payload, how);
    sent.map_err(ClientError::from)?;
    let acked = take_answer(&mut connection);
    connection.close();
    done(acked)
}

/// Many are on their way at once, so that one sync serves many lines.
fn publish_lines(options: &PubOptions) -> Result<ExitCode, Failure> {
    let topic = options.target.topic(&options.topic)?;
    let mut connection = options.target.connect()?;
    let lines = lines_of_input();
    let (mut number, mut in_flight, mut all_acked) = (0_u64, 0, true);
    loop {
        let line = match next_line(&lines, in_flight) {
            Next::Line(line) => line?,
            Next::Answer => {
                in_flight -= 1;
                match take_answer(&mut connection) {
                    Ok(acked) => all_acked &= acked,
                    Err(error) => return done(Err(error)),
                }
                continue;
            }
            Next::End => break,
        };
        number += 1;
        if line.trim().is_empty() {
            continue;
        }
        match payload_of(&line, options.text) {
            Ok(payload) => {
                let how = Publish {
                    reference: Some(number),
                    idempotency_key: None,
                };
                let sent = connection.publish(&topic, &payload, how);
                sent.map_err(ClientError::from)?;
                in_flight += 1;
            }
            Err(error) => {
                complain(format_args!("tidegate: line {number}: {error}"));
                all_acked = false;
            }
        }
    }
    connection.close();
    done(Ok(all_acked))
}

fn done(acked: Result<bool, ClientError>) -> Result<ExitCode, Failure> {
    match acked {
        Ok(true) => Ok(ExitCode::SUCCESS),
        Ok(false) => Ok(ExitCode::FAILURE),
        Err(error) => Ok(error.unless_unread()?),
    }
}

type Line = Result<String, Failure>;

/// What to do now.
enum Next {
    Line(Line),
    /// Wait for an answer of the server.
    Answer,
    End,
}

/// Lines go first while there are any and not too many are on their way; an answer is waited for
/// only when no line is there, because whoever writes slowly wants to see each ack at once.
fn next_line(lines: &Receiver<Line>, in_flight: usize) -> Next {
    if IN_FLIGHT_MAX <= in_flight {
        return Next::Answer;
    }
    match lines.try_recv() {
        Ok(line) => Next::Line(line),
        Err(_) if 0 < in_flight => Next::Answer,
        Err(TryRecvError::Empty) => lines.recv().map_or(Next::End, Next::Line),
        Err(TryRecvError::Disconnected) => Next::End,
    }
}

/// Read by a thread: a pipe that is quiet must not keep the acks from being printed.
fn lines_of_input() -> Receiver<Line> {
    let (sender, lines) = sync_channel(IN_FLIGHT_MAX);
    std::thread::spawn(move || {
        let mut marked = Some('\u{feff}');
        for line in std::io::stdin().lock().lines() {
            // Some editors put a mark of byte order before a text.
            let mark = marked.take();
            let line = line.map(|line| match mark.and_then(|mark| line.strip_prefix(mark)) {
                Some(rest) => rest.to_owned(),
                None => line,
            });
            if sender.send(line.map_err(Failure::Input)).is_err() {
                return;
            }
        }
    });
    lines
}

/// JSON stays as it was written, and what begins like JSON must be JSON; anything else is a text.
pub(super) fn payload_of(line: &str, text: bool) -> Result<Box<RawValue>, serde_json::Error> {
    let line = line.strip_suffix('\r').unwrap_or(line);
    match serde_json::from_str::<Box<RawValue>>(line) {
        Ok(raw) if !text => Ok(raw),
        Err(error) if !text && line.trim_start().starts_with(['{', '[', '"']) => Err(error),
        _ => RawValue::from_string(json!(line).to_string()),
    }
}

/// Whether a publish was acknowledged.
fn take_answer(connection: &mut Durable) -> Result<bool, ClientError> {
    let received = connection.receive()?;
    let refusal = match received.frame {
        DurableFrame::Published(_) => {
            print_frame(&received.text)?;
            return Ok(true);
        }
        DurableFrame::Refused(refusal) => refusal,
        _ => {
            complain(format_args!("tidegate: {}", received.text));
            return Ok(false);
        }
    };
    let reference = refusal.reference.as_ref();
    match reference.and_then(serde_json::Value::as_u64) {
        Some(number) => complain(format_args!("tidegate: line {number}: {}", told(&refusal))),
        None => complain(format_args!("tidegate: {}", told(&refusal))),
    }
    Ok(false)
}

/// Publishes on their way at once; a server allows 1024 (`limits.publishes_in_flight_max`).
const IN_FLIGHT_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_stays_and_text_becomes_json() {
        let payload = |line, text| {
            let payload = payload_of(line, text).ok();
            payload.map(|payload| payload.get().to_owned())
        };
        assert_eq!(payload("42.50", false).as_deref(), Some("42.50"));
        assert_eq!(payload("hi", false).as_deref(), Some(r#""hi""#));
        assert_eq!(
            payload(r#"{"a": 1}"#, false).as_deref(),
            Some(r#"{"a": 1}"#)
        );
        assert_eq!(payload(r#"{"a": "#, false), None);
        assert_eq!(payload(r#"{"a": "#, true).as_deref(), Some(r#""{\"a\": ""#));
        assert_eq!(payload("1", true).as_deref(), Some(r#""1""#));
    }
}

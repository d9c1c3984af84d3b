//! `tidegate pub`: publishes to a durable topic from the shell. Prints what the server
//! acknowledges, so a line on the standard output is a message on the disk.

use std::io::BufRead as _;
use std::process::ExitCode;

use clap::Args;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::client::{ClientError, Connection, Target};
use super::{Failure, answer, complain};

#[derive(Debug, Args)]
#[command(after_help = "\
  export TIDEGATE_TOKEN=$(tidegate token new --ns demo --sub ada)
  tidegate pub topic-1 '{\"temperature\":42.50}'
  tail -f events.ndjson | tidegate pub topic-1")]
pub(super) struct PubOptions {
    /// The topic's id, or a name that is registered if it is new
    topic: String,
    /// What to publish: JSON, or else text. Without it, each line of the standard input
    payload: Option<String>,
    /// The same key again publishes nothing new
    #[arg(long, value_name = "KEY", requires = "payload")]
    key: Option<String>,
    #[command(flatten)]
    target: Target,
}

pub(super) fn run(options: &PubOptions) -> Result<ExitCode, Failure> {
    let topic = options.target.topic(&options.topic)?;
    let mut connection = options.target.connect()?;
    let mut refused = false;
    match &options.payload {
        Some(payload) => {
            let publish = frame(&topic, payload, options.key.as_deref());
            refused |= !publish_one(&mut connection, &publish)?;
        }
        None => {
            for line in std::io::stdin().lock().lines() {
                let line = line.map_err(Failure::Input)?;
                if !line.trim().is_empty() {
                    refused |= !publish_one(&mut connection, &frame(&topic, &line, None))?;
                }
            }
        }
    }
    connection.close();
    Ok(if refused {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// JSON stays as it was written; anything else is a text.
fn frame(topic: &str, payload: &str, key: Option<&str>) -> String {
    let payload = match serde_json::from_str::<&RawValue>(payload) {
        Ok(raw) => raw.get().to_owned(),
        Err(_) => json!(payload).to_string(),
    };
    let head = match key {
        Some(key) => json!({ "type": "publish", "topic": topic, "idempotency_key": key }),
        None => json!({ "type": "publish", "topic": topic }),
    };
    format!(
        r#"{},"payload":{payload}}}"#,
        head.to_string().trim_end_matches('}')
    )
}

/// Whether it was acknowledged.
fn publish_one(connection: &mut Connection, frame: &str) -> Result<bool, ClientError> {
    connection.send_text(frame)?;
    let said = connection.receive()?;
    let parsed: Value = serde_json::from_str(&said).unwrap_or_default();
    let acked = parsed["type"] == "pub_ack";
    if acked {
        answer(said);
    } else {
        complain(said);
    }
    Ok(acked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_stays_and_text_becomes_json() {
        let payload = |text| frame("t", text, None);
        assert_eq!(
            payload("42.50"),
            r#"{"type":"publish","topic":"t","payload":42.50}"#
        );
        assert_eq!(
            payload("hi"),
            r#"{"type":"publish","topic":"t","payload":"hi"}"#
        );
        let keyed: Value = serde_json::from_str(&frame("t", "[1]", Some("k"))).unwrap();
        assert_eq!(
            (&keyed["idempotency_key"], &keyed["payload"]),
            (&json!("k"), &json!([1]))
        );
    }
}

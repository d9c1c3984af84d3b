//! `tidegate sub`: prints the messages of a durable topic, one frame a line, and acks each when
//! it is printed, so that the next run goes on behind it.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::client::{ClientError, Target};
use super::{Failure, answer, complain};

#[derive(Debug, Args)]
#[command(after_help = "\
  tidegate sub topic-1 --sub-name A --from 0      everything that is kept, then what comes
  tidegate sub topic-1 --sub-name A               on from the last ack")]
pub(super) struct SubOptions {
    /// The topic's id, or a name that is registered if it is new
    topic: String,
    /// The key of the cursor
    #[arg(long, value_name = "NAME", default_value = "cli")]
    sub_name: String,
    /// Where a new cursor starts: 0 is the earliest kept. Without it, only what comes
    #[arg(long, value_name = "SEQ")]
    from: Option<u64>,
    /// Move the cursor to --from even if there is one
    #[arg(long, requires = "from")]
    seek: bool,
    /// End after so many messages
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Do not ack: the same messages come again the next time
    #[arg(long)]
    no_ack: bool,
    #[command(flatten)]
    target: Target,
}

pub(super) fn run(options: &SubOptions) -> Result<ExitCode, Failure> {
    let topic = options.target.topic(&options.topic)?;
    let mut connection = options.target.connect()?;
    let name = &options.sub_name;
    let mut subscribe = json!({ "type": "subscribe", "topic": topic, "sub_name": name });
    if let Some(from) = options.from {
        subscribe["from_seq"] = from.into();
        subscribe["seek"] = options.seek.into();
    }
    connection.send(&subscribe)?;
    let mut left = options.count.unwrap_or(u64::MAX);
    let mut last = None;
    while 0 < left {
        let said = connection.receive()?;
        let frame: Value =
            serde_json::from_str(&said).map_err(|_| ClientError::Strange(said.clone()))?;
        match frame["type"].as_str() {
            Some("message") => {
                answer(&said);
                left -= 1;
                last = Some(frame["seq"].clone());
                if !options.no_ack {
                    let (seq, kind) = (&frame["seq"], "ack");
                    connection.send(
                        &json!({ "type": kind, "topic": topic, "sub_name": name, "seq": seq }),
                    )?;
                }
            }
            Some("gap") => answer(&said),
            Some("subscribed") => complain(&said),
            _ => {
                complain(&said);
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    if let (Some(seq), false) = (last, options.no_ack) {
        // The last ack with an answer: the next run goes on behind what was printed.
        let ack = json!({ "type": "ack", "topic": topic, "sub_name": name, "seq": seq, "ref": 1 });
        connection.send(&ack)?;
        while !connection.receive()?.contains(r#""type":"acked""#) {}
    }
    connection.close();
    Ok(ExitCode::SUCCESS)
}

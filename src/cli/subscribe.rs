//! `tidegate sub`: prints the messages of a durable topic, one frame a line, and acks each when
//! it is printed, so that the next run goes on behind it.

use std::process::ExitCode;

use clap::Args;

use crate::client::{DurableFrame, Subscribe, Subscribed};

use super::client::{ClientError, Target, print_line, told};
use super::{Failure, complain};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  export TIDEGATE_TOKEN=$(tidegate token new --ns demo --sub ada)
  tidegate sub topic-1 --sub-name A --from 0     all that is kept, then what comes
  tidegate sub topic-1 --sub-name A              on from the last ack of A
  tidegate sub topic-1 --from 0 --seek           all of it once more
  tidegate sub topic-1 --from 0 --no-ack --count 10

The standard output has the `message` and `gap` frames, one a line, and nothing else. A message is
acked when it is written: what a crash keeps from being written comes again. One --sub-name has one
reader: a second one takes it over and the first ends.")]
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
    /// Do not ack: the same messages come again the next time, and no more of them than the window
    #[arg(long)]
    no_ack: bool,
    #[command(flatten)]
    target: Target,
}

pub(super) fn run(options: &SubOptions) -> Result<ExitCode, Failure> {
    let done = subscribe(options).or_else(ClientError::unless_unread);
    Ok(done?)
}

fn subscribe(options: &SubOptions) -> Result<ExitCode, ClientError> {
    let topic = options.target.topic(&options.topic)?;
    let mut connection = options.target.connect()?;
    let name = &options.sub_name;
    let mut subscribe = Subscribe::new(&topic, name);
    if let Some(from) = options.from {
        subscribe = subscribe.from_seq(from);
    }
    if options.seek {
        subscribe = subscribe.seek();
    }
    connection.subscribe(&subscribe)?;
    let mut left = options.count.unwrap_or(u64::MAX);
    let mut last = None;
    while 0 < left {
        let received = connection.receive()?;
        match &received.frame {
            DurableFrame::Message(message) => {
                print_line(&received.text)?;
                left -= 1;
                if !options.no_ack {
                    connection.ack(&topic, name, message.seq)?;
                    last = Some(message.seq);
                }
            }
            DurableFrame::Gap(_) => print_line(&received.text)?,
            DurableFrame::Subscribed(subscribed) => greet(subscribed),
            DurableFrame::Unsubscribed(ended) => {
                let reason = ended.reason.as_deref().unwrap_or("no reason given");
                complain(format_args!("tidegate: the subscription ended: {reason}"));
                return Ok(ExitCode::FAILURE);
            }
            DurableFrame::Refused(refusal) => {
                complain(format_args!("tidegate: {}", told(refusal)));
                return Ok(ExitCode::FAILURE);
            }
            _ => complain(format_args!("tidegate: {}", received.text)),
        }
    }
    if let Some(seq) = last {
        // The last ack with an answer: the next run goes on behind what was printed.
        connection.ack_surely(&topic, name, seq)?;
        while !matches!(connection.receive()?.frame, DurableFrame::Acked(_)) {}
    }
    connection.close();
    Ok(ExitCode::SUCCESS)
}

/// Where it goes on, for the person who looks on.
fn greet(subscribed: &Subscribed) {
    let Subscribed {
        subscription_id: id,
        next_seq: next,
        last_seq: last,
        ..
    } = subscribed;
    complain(format_args!(
        "subscription {id}: on from seq {next}, the last is {last}"
    ));
}

//! `tidegate sub`: prints the messages of a durable topic, one frame a line, and acks each when
//! it is printed, so that the next run goes on behind it.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use crate::client::{Durable, DurableFrame, Reconnect, Subscribe, Subscribed};

use super::client::{ClientError, Target, print_frame, told};
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
reader: a second one takes it over and the first ends.

A connection that is lost comes back, on behind the last ack that the server has: no message is left
out, and those whose acks it has not got are printed again. A token that is refused, or a close that
says not to come again, ends it with 1; one in --token-file is read again for each connection.")]
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
    /// End with 1 when the connection is lost
    #[arg(long)]
    no_reconnect: bool,
    /// Seconds that a wait before another attempt may last; each is chosen at random, the first
    /// below half a second
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 30,
        conflicts_with = "no_reconnect"
    )]
    reconnect_wait_max: u32,
    /// Failed attempts in a row until it gives up; without it, it never does
    #[arg(long, value_name = "N", conflicts_with = "no_reconnect")]
    reconnect_attempts_max: Option<u32>,
    #[command(flatten)]
    target: Target,
}

impl SubOptions {
    fn connect(&self) -> Result<Durable, ClientError> {
        if self.no_reconnect {
            return self.target.connect();
        }
        let wait_max = Duration::from_secs(self.reconnect_wait_max.into());
        self.target.connect_again_and_again(Reconnect {
            wait_max,
            attempts_max: self.reconnect_attempts_max.unwrap_or(u32::MAX),
            ..Reconnect::default()
        })
    }
}

pub(super) fn run(options: &SubOptions) -> Result<ExitCode, Failure> {
    let done = subscribe(options).or_else(ClientError::unless_unread);
    Ok(done?)
}

fn subscribe(options: &SubOptions) -> Result<ExitCode, ClientError> {
    let topic = options.target.topic(&options.topic)?;
    let mut connection = options.connect()?;
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
                print_frame(&received.text)?;
                left -= 1;
                if !options.no_ack {
                    connection.ack(&topic, name, message.seq)?;
                    last = Some(message.seq);
                }
            }
            DurableFrame::Gap(_) => print_frame(&received.text)?,
            frame => {
                if let Some(end) = handle(frame, &received.text) {
                    return Ok(end);
                }
            }
        }
    }
    let end = match last {
        Some(seq) => finish(&mut connection, (&topic, name), seq)?,
        None => ExitCode::SUCCESS,
    };
    connection.close();
    Ok(end)
}

/// What is said of the subscription and of the connection; some of it is the end.
fn handle(frame: &DurableFrame, text: &str) -> Option<ExitCode> {
    match frame {
        DurableFrame::Subscribed(subscribed) => greet(subscribed),
        DurableFrame::Unsubscribed(ended) => {
            let reason = ended.reason.as_deref().unwrap_or("no reason given");
            complain(format_args!("tidegate: the subscription ended: {reason}"));
            return Some(ExitCode::FAILURE);
        }
        DurableFrame::Refused(refusal) => {
            complain(format_args!("tidegate: {}", told(refusal)));
            return Some(ExitCode::FAILURE);
        }
        DurableFrame::Lost(loss) => {
            let reason = &loss.reason;
            complain(format_args!(
                "tidegate: the connection is lost ({reason}); trying again"
            ));
        }
        DurableFrame::Back => complain("tidegate: connected again"),
        _ => complain(format_args!("tidegate: {text}")),
    }
    None
}

/// The last ack with an answer: the next run goes on behind what was printed. After a loss what
/// was printed comes again first.
fn finish(connection: &mut Durable, of: (&str, &str), last: u64) -> Result<ExitCode, ClientError> {
    connection.ack_surely(of.0, of.1, last)?;
    loop {
        let received = connection.receive()?;
        match &received.frame {
            DurableFrame::Acked(acked) if last <= acked.seq => return Ok(ExitCode::SUCCESS),
            DurableFrame::Message(message) if message.seq < last => {
                connection.ack(of.0, of.1, message.seq)?;
            }
            DurableFrame::Message(message) if message.seq == last => {
                connection.ack_surely(of.0, of.1, last)?;
            }
            // The ack had reached the disk before the loss.
            DurableFrame::Subscribed(subscribed) if last <= subscribed.cursor => {
                return Ok(ExitCode::SUCCESS);
            }
            DurableFrame::Message(_) | DurableFrame::Gap(_) | DurableFrame::Subscribed(_) => {}
            frame => {
                if let Some(end) = handle(frame, &received.text) {
                    return Ok(end);
                }
            }
        }
    }
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

//! `tidegate topics`, `subs`, `push`, `connections`, `presence`: what a server holds, from the shell, one
//! JSON object a line, and a push into it. Knows routes and flags; requests are the client's matter.

use std::process::ExitCode;

use clap::Args;
use form_urlencoded::Serializer;
use serde_json::Value;

use super::client::{ClientError, Target};
use super::publish::payload_of;
use super::{Failure, answer};

/// Where the server is; all of one kind is printed.
#[derive(Debug, Args)]
pub(super) struct ListOptions {
    #[command(flatten)]
    target: Target,
}

/// Which subscriptions.
#[derive(Debug, Args)]
pub(super) struct SubsOptions {
    /// Only those of this topic, by id or name
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Only those of this key
    #[arg(long, value_name = "NAME")]
    sub_name: Option<String>,
    #[command(flatten)]
    target: Target,
}

/// What is pushed where.
#[derive(Debug, Args)]
pub(super) struct PushOptions {
    /// The relay topic
    topic: String,
    /// What happened
    event: String,
    /// JSON, which stays as it is written, or else text; null if left out
    payload: Option<String>,
    /// Push text, even if it looks like JSON
    #[arg(long)]
    text: bool,
    #[command(flatten)]
    target: Target,
}

/// Whose members.
#[derive(Debug, Args)]
pub(super) struct PresenceOptions {
    /// The relay topic
    topic: String,
    #[command(flatten)]
    target: Target,
}

pub(super) fn topics(options: &ListOptions) -> Result<ExitCode, Failure> {
    pages(&options.target, "/v1/topics", &[], ("topics", "name"))
}

pub(super) fn subs(options: &SubsOptions) -> Result<ExitCode, Failure> {
    let which = [
        ("topic", options.topic.as_deref()),
        ("sub_name", options.sub_name.as_deref()),
    ];
    let which: Vec<_> = which
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect();
    let shown = ("subscriptions", "id");
    pages(&options.target, "/v1/subscriptions", &which, shown)
}

/// Every object of a list that comes in pages: the next begins behind the `key` of the last.
fn pages(
    target: &Target,
    path: &str,
    which: &[(&str, &str)],
    (list, key): (&str, &str),
) -> Result<ExitCode, Failure> {
    let client = target.client()?;
    let mut after: Option<String> = None;
    loop {
        let mut query = Serializer::new(String::new());
        query.extend_pairs(which).append_pair("limit", PAGE);
        if let Some(after) = &after {
            query.append_pair("after", after);
        }
        let page = client.request("GET", &format!("{path}?{}", query.finish()), None);
        let page = page.map_err(ClientError::from)?;
        let found = page[list].as_array().map_or(&[][..], Vec::as_slice);
        // A page may be shorter than asked for; only an empty one is the last.
        let Some(last) = found.last() else {
            return Ok(ExitCode::SUCCESS);
        };
        lines(found)?;
        let next = last[key].as_str().map(str::to_owned);
        if next.is_none() || next == after {
            return Ok(ExitCode::SUCCESS);
        }
        after = next;
    }
}

pub(super) fn connections(options: &ListOptions) -> Result<ExitCode, Failure> {
    let found = options.target.client()?;
    let found = found.request("GET", "/v1/connections", None);
    let found = found.map_err(ClientError::from)?;
    lines(
        found["connections"]
            .as_array()
            .map_or(&[][..], Vec::as_slice),
    )?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn presence(options: &PresenceOptions) -> Result<ExitCode, Failure> {
    let mut query = Serializer::new(String::new());
    query.append_pair("topic", &options.topic);
    let path = format!("/v1/relay/presence?{}", query.finish());
    let found = options.target.client()?.request("GET", &path, None);
    let found = found.map_err(ClientError::from)?;
    lines(found["members"].as_array().map_or(&[][..], Vec::as_slice))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn push(options: &PushOptions) -> Result<ExitCode, Failure> {
    let payload = options.payload.as_deref().unwrap_or("null");
    let payload = payload_of(payload, options.text && options.payload.is_some());
    let payload = payload.map_err(Failure::Payload)?;
    let client = options.target.client()?;
    let pushed = client.push(&options.topic, &options.event, &payload);
    pushed.map_err(ClientError::from)?;
    Ok(ExitCode::SUCCESS)
}

fn lines(found: &[Value]) -> Result<(), Failure> {
    for one in found {
        answer(one)?;
    }
    Ok(())
}

/// As many as a server shows at once.
const PAGE: &str = "1000";

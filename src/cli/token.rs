//! `tidegate token`: the operator's way to make tokens and to see what one says. The secret comes
//! from the environment or a file, never from an argument, where every user of the machine could
//! read it.

use std::io::Read as _;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Map, Value};

use super::dev_token::{self, DevTokenError};
use super::{Failure, ServeOptions, answer, complain, unix_s};
use crate::auth::Claims;
use crate::config::Error;
use crate::config::secret::{Identity, TOKEN_TTL_S};
use crate::http::Wish;
use crate::id::Tenant;

#[derive(Debug, Subcommand)]
pub(super) enum TokenVerb {
    /// Print a new token
    #[command(after_help = "\
The secret is that of the server: TIDEGATE_JWT_SECRET or auth.jwt_secret_file. With --dev the running
server of --dev is asked, on --listen or server.listen.
  tidegate token new --ns demo --sub ada --ttl 8h
  tidegate token new --ns demo --sub bob --publish 'room:*' --subscribe 'room:*'
  tidegate token new --ns demo --sub ops --role admin --ttl 5m
  tidegate token new --dev --ns demo --sub bob")]
    New(NewOptions),
    /// Print what a token says and whether the server would accept it now
    Check(CheckOptions),
}

#[derive(Debug, Args)]
pub(super) struct NewOptions {
    /// Tenant that its owner belongs to: 1 to 64 characters of A-Z a-z 0-9 . _ -
    #[arg(long, value_name = "NS", value_parser = tenant)]
    ns: Tenant,
    /// Who its owner is
    #[arg(long, value_name = "SUB")]
    sub: String,
    /// A role of its owner, such as admin; as often as needed
    #[arg(long, value_name = "ROLE")]
    role: Vec<String>,
    /// Topics that it may publish, push and send messages to: a name, or a prefix and *; as often
    /// as needed [default: as auth.rights says]
    #[arg(long, value_name = "PATTERN")]
    publish: Vec<String>,
    /// Topics that it may subscribe to, read the history of and see the presence of
    #[arg(long, value_name = "PATTERN")]
    subscribe: Vec<String>,
    /// How long it is valid: 90s, 30m, 8h, 7d [default: 1h]
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    ttl: Option<u64>,
    /// A further claim, its value as JSON or else as text; as often as needed
    #[arg(long, value_name = "NAME=VALUE", value_parser = claim)]
    claim: Vec<(String, Value)>,
    #[command(flatten)]
    serve: ServeOptions,
}

#[derive(Debug, Args)]
pub(super) struct CheckOptions {
    /// The token, or - to read it from the standard input
    token: String,
    #[command(flatten)]
    serve: ServeOptions,
}

pub(super) fn run(verb: &TokenVerb) -> Result<ExitCode, Failure> {
    match verb {
        TokenVerb::New(options) => new(options),
        TokenVerb::Check(options) => check(options),
    }
}

fn new(options: &NewOptions) -> Result<ExitCode, Failure> {
    if options.serve.dev {
        return new_of_dev(options);
    }
    let identity = identity(&options.serve)?;
    let claims = Claims {
        tenant: Some(options.ns.clone()),
        subject: Some(options.sub.clone()),
        roles: options.role.clone(),
        publish: (!options.publish.is_empty()).then(|| options.publish.clone()),
        subscribe: (!options.subscribe.is_empty()).then(|| options.subscribe.clone()),
        others: options.claim.iter().cloned().collect(),
    };
    let issuer = identity.issuer.ok_or(Error::SecretMissing)?;
    let issuer = issuer.ttl_s(options.ttl.unwrap_or(TOKEN_TTL_S));
    answer(issuer.issue(&claims, unix_s())?)?;
    Ok(ExitCode::SUCCESS)
}

/// A server of `--dev` signs whatever it is asked for, so the running one is asked.
fn new_of_dev(options: &NewOptions) -> Result<ExitCode, Failure> {
    if !options.claim.is_empty() {
        return Err(DevTokenError::Claims.into());
    }
    let config = options.serve.sources().load()?.config;
    let some = |patterns: &[String]| (!patterns.is_empty()).then(|| patterns.to_vec());
    let wish = Wish {
        sub: Some(options.sub.clone()),
        ns: Some(options.ns.to_string()),
        roles: some(&options.role),
        publish: some(&options.publish),
        subscribe: some(&options.subscribe),
        ttl_s: options.ttl,
    };
    answer(dev_token::ask(config.server.listen, &wish)?)?;
    Ok(ExitCode::SUCCESS)
}

fn check(options: &CheckOptions) -> Result<ExitCode, Failure> {
    let token = match options.token.as_str() {
        "-" => read_input()?,
        token => token.to_owned(),
    };
    let authenticator = identity(&options.serve)?.authenticator;
    let now = unix_s();
    if let Some(claims) = unverified_claims(&token) {
        answer(format_args!("{:#}", Value::Object(claims)))?;
    }
    match authenticator.examine(&token, now) {
        Ok((caller, key)) => {
            answer(format_args!("signed with the key {key}"))?;
            let left = caller.expires_at.unwrap_or(now).saturating_sub(now);
            answer(format_args!("valid for {left} s, tenant {}", caller.tenant))?;
            answer(format_args!("may publish to {}", caller.rights.publish()))?;
            answer(format_args!(
                "may subscribe to {}",
                caller.rights.subscribe()
            ))?;
            if !caller.has_ns {
                answer("it names no tenant (claim `ns`), which the durable mount requires")?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(fault) => {
            complain(format_args!("not valid: {fault}"));
            Ok(ExitCode::FAILURE)
        }
    }
}

fn identity(serve: &ServeOptions) -> Result<Identity, Failure> {
    let sources = serve.sources();
    Ok(sources.load()?.config.identity(&sources)?)
}

fn read_input() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(Failure::Input)?;
    Ok(text.trim().to_owned())
}

fn tenant(text: &str) -> Result<Tenant, &'static str> {
    Tenant::parse(text).ok_or("a tenant is 1 to 64 characters of A-Z a-z 0-9 . _ -")
}

/// A number of seconds, or one with a unit.
fn seconds(text: &str) -> Result<u64, &'static str> {
    let (digits, factor) = match text.char_indices().next_back() {
        Some((at, 's')) => (&text[..at], 1),
        Some((at, 'm')) => (&text[..at], 60),
        Some((at, 'h')) => (&text[..at], 3_600),
        Some((at, 'd')) => (&text[..at], 86_400),
        _ => (text, 1),
    };
    let number = digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor));
    number
        .filter(|number| 0 < *number)
        .ok_or("a time is a number with s, m, h or d, such as 90s or 8h")
}

fn claim(text: &str) -> Result<(String, Value), &'static str> {
    let (name, value) = text.split_once('=').ok_or("a claim is NAME=VALUE")?;
    let reserved = [
        "ns",
        "sub",
        "roles",
        "publish",
        "subscribe",
        "exp",
        "iat",
        "iss",
        "aud",
    ];
    if reserved.contains(&name) {
        return Err("this claim has a flag of its own");
    }
    let parsed = serde_json::from_str(value);
    Ok((
        name.to_owned(),
        parsed.unwrap_or_else(|_| Value::String(value.to_owned())),
    ))
}

/// Claims to print before anything is known of their truth.
fn unverified_claims(token: &str) -> Option<Map<String, Value>> {
    jsonwebtoken::dangerous::insecure_decode_claims(token).ok()
}

//! `tidegate top`: what a server does, once a second, until somebody has seen enough. Asks the routes
//! that the console asks, with the same token.

mod numbers;
mod view;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use crate::client::{self, Client};

use super::Failure;
use super::client::{ClientError, Target};
use numbers::{FAMILIES, Look, Numbers};
use view::Head;

/// Where the server is, and how often it is asked.
#[derive(Debug, Args)]
#[command(after_help = "\
Keys: q or Esc ends, p pauses. The token needs the role admin, as that of `serve --dev` has:

  export TIDEGATE_TOKEN=$(tidegate token new --dev --role admin)
  tidegate top")]
pub(super) struct TopOptions {
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = seconds)]
    every: f64,
    #[command(flatten)]
    target: Target,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (0.1..=3_600.0).contains(&number) => Ok(number),
        _ => Err("write a number from 0.1 to 3600".to_owned()),
    }
}

pub(super) fn top(options: &TopOptions) -> Result<ExitCode, Failure> {
    let client = options.target.client()?.time_max(ANSWER_MAX);
    // What is wrong from the start is told on a terminal that is as it was.
    let mut numbers = Numbers::default();
    look(&client, &mut numbers, Duration::ZERO).map_err(ClientError::from)?;
    let mut terminal = ratatui::try_init().map_err(ClientError::Terminal)?;
    let ended = run(&mut terminal, options, (&client, numbers));
    ratatui::restore();
    ended.map_err(ClientError::Terminal)?;
    Ok(ExitCode::SUCCESS)
}

fn run(
    terminal: &mut DefaultTerminal,
    options: &TopOptions,
    (client, mut numbers): (&Client, Numbers),
) -> std::io::Result<()> {
    let every = Duration::from_secs_f64(options.every);
    let mut head = Head {
        url: options.target.url().to_owned(),
        ..Head::default()
    };
    let mut looked_at = now();
    loop {
        terminal.draw(|frame| view::draw(frame, &head, &numbers))?;
        match key_within(every.saturating_sub(looked_at.elapsed()))? {
            Some(Wish::End) => return Ok(()),
            Some(Wish::Pause) => head.is_paused = !head.is_paused,
            None => {}
        }
        let after = looked_at.elapsed();
        if head.is_paused || after < every {
            // While nothing is asked the time between two looks grows.
            if head.is_paused && every <= after {
                key_wait()?;
            }
            continue;
        }
        looked_at = now();
        head.complaint = look(client, &mut numbers, after)
            .err()
            .map(|error| error.to_string());
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a person watches, by the clock of this machine"
)]
fn now() -> Instant {
    Instant::now()
}

/// Asks once.
fn look(
    client: &Client,
    numbers: &mut Numbers,
    after: Duration,
) -> Result<(), client::ClientError> {
    let families = FAMILIES.map(|name| format!("tidegate_{name}")).join(",");
    let page = client.text(&format!("/metrics?families={families}"))?;
    let slow = client.request("GET", "/v1/admin/slow?limit=20", None)?;
    numbers.take(Look::read(&page), after);
    numbers.take_slow(&slow);
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    End,
    Pause,
}

/// What is asked for within a time.
fn key_within(wait: Duration) -> std::io::Result<Option<Wish>> {
    if !event::poll(wait)? {
        return Ok(None);
    }
    Ok(match event::read()? {
        Event::Key(key) if key.kind == KeyEventKind::Press => wish_of(key),
        _ => None,
    })
}

/// Lets a moment pass, or a key come.
fn key_wait() -> std::io::Result<()> {
    event::poll(PAUSE).map(|_| ())
}

fn wish_of(key: KeyEvent) -> Option<Wish> {
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => Some(Wish::End),
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Wish::End),
        KeyCode::Char('p' | ' ') => Some(Wish::Pause),
        _ => None,
    }
}

/// What an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_mean_what_people_expect() {
        let of = |code, modifiers| wish_of(KeyEvent::new(code, modifiers));
        let none = KeyModifiers::NONE;
        assert_eq!(of(KeyCode::Char('q'), none), Some(Wish::End));
        assert_eq!(
            of(KeyCode::Char('c'), KeyModifiers::CONTROL),
            Some(Wish::End)
        );
        assert_eq!(of(KeyCode::Char('c'), none), None);
        assert_eq!(of(KeyCode::Char('p'), none), Some(Wish::Pause));
    }

    #[test]
    fn looks_are_neither_too_often_nor_never() {
        assert_eq!(seconds("0.5"), Ok(0.5));
        for text in ["0", "-1", "1e9", "x", "NaN"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}

//! The numbers as a page of a terminal. Knows widgets; asks nobody.

use std::collections::VecDeque;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Row, Sparkline, Table};

use super::numbers::{Numbers, scaled};

/// What stands above the numbers.
#[derive(Debug, Default)]
pub(super) struct Head {
    pub(super) url: String,
    pub(super) is_paused: bool,
    /// Why the numbers are old.
    pub(super) complaint: Option<String>,
}

/// Lines of a curve with its frame.
const CURVE_LINES: u16 = 5;

pub(super) fn draw(frame: &mut Frame<'_>, head: &Head, numbers: &Numbers) {
    let shards = u16::try_from(numbers.shards.len()).unwrap_or(u16::MAX);
    let parts = [
        Constraint::Length(1),
        Constraint::Length(CURVE_LINES),
        Constraint::Length(CURVE_LINES),
        Constraint::Length(shards.saturating_add(3)),
        Constraint::Min(3),
        Constraint::Length(1),
    ];
    let [top, upper, lower, middle, below, keys] = Layout::vertical(parts).areas(frame.area());
    frame.render_widget(title(head, numbers), top);
    let halves = Layout::horizontal([Constraint::Percentage(50); 2]);
    let [left, right] = halves.areas(upper);
    curve(frame, left, "Connections", "", &numbers.connections);
    curve(frame, right, "Messages in", "/s", &numbers.received_per_s);
    let [left, right] = halves.areas(lower);
    curve(frame, left, "Messages out", "/s", &numbers.sent_per_s);
    curve(
        frame,
        right,
        "Durable publishes",
        "/s",
        &numbers.publishes_per_s,
    );
    frame.render_widget(shard_table(numbers), middle);
    frame.render_widget(slow_table(numbers), below);
    let hint = Line::from("q quit   p pause").style(Style::new().add_modifier(Modifier::DIM));
    frame.render_widget(Paragraph::new(hint), keys);
}

fn title(head: &Head, numbers: &Numbers) -> Paragraph<'static> {
    let mut spans = vec![Span::styled(
        format!("tidegate {}", head.url),
        Style::new().add_modifier(Modifier::BOLD),
    )];
    spans.push(Span::raw(format!(
        "   out {}B/s   lagged {}/s   durable topics {}",
        scaled(numbers.sent_bytes_per_s),
        scaled(numbers.lagged_per_s),
        scaled(numbers.topics),
    )));
    if head.is_paused {
        spans.push(Span::styled("   paused", Style::new().fg(Color::Yellow)));
    }
    if let Some(complaint) = &head.complaint {
        let red = Style::new().fg(Color::Red);
        spans.push(Span::styled(format!("   old: {complaint}"), red));
    }
    Paragraph::new(Line::from(spans))
}

fn curve(frame: &mut Frame<'_>, area: Rect, name: &str, unit: &str, values: &VecDeque<u64>) {
    let width = usize::from(area.width.saturating_sub(2));
    let from = values.len().saturating_sub(width);
    let shown: Vec<u64> = values.iter().skip(from).copied().collect();
    let last = values.back().copied().unwrap_or_default();
    let peak = shown.iter().max().copied().unwrap_or_default();
    let block = Block::bordered()
        .title(format!(" {name} {}{unit} ", scaled_whole(last)))
        .title_bottom(Line::from(format!(" peak {}{unit} ", scaled_whole(peak))).right_aligned());
    let line = Sparkline::default()
        .block(block)
        .data(&shown)
        .style(Style::new().fg(Color::Cyan));
    frame.render_widget(line, area);
}

fn shard_table(numbers: &Numbers) -> Table<'static> {
    let rows = numbers.shards.iter().map(|shard| {
        let busy = format!("{:.0} %", 100.0 * shard.busy);
        let row = Row::new([
            shard.index.to_string(),
            scaled(shard.connections),
            busy,
            scaled(shard.turns_per_s),
            scaled(shard.mailbox),
            scaled(shard.outbox_bytes),
        ]);
        match shard.busy < BUSY {
            true => row,
            false => row.style(Style::new().fg(Color::Yellow)),
        }
    });
    let head = [
        "shard",
        "connections",
        "busy",
        "turns/s",
        "mailbox",
        "outbox bytes",
    ];
    Table::new(rows, [Constraint::Ratio(1, 6); 6])
        .header(Row::new(head).style(Style::new().add_modifier(Modifier::DIM)))
        .block(Block::bordered().title(" Shards "))
}

/// A shard that has so little time left is marked.
const BUSY: f64 = 0.9;

fn slow_table(numbers: &Numbers) -> Table<'static> {
    let rows = numbers.slow.iter().map(|one| {
        Row::new([
            one.sub.clone(),
            one.path.clone(),
            one.missed.to_string(),
            one.queued_bytes.to_string(),
            format!("{} ms", one.stalled_ms),
        ])
    });
    let head = ["sub", "path", "missed", "queued bytes", "takes nothing for"];
    let title = match numbers.slow.is_empty() {
        true => " Slow subscribers: everybody keeps up ",
        false => " Slow subscribers ",
    };
    Table::new(rows, [Constraint::Ratio(1, 5); 5])
        .header(Row::new(head).style(Style::new().add_modifier(Modifier::DIM)))
        .block(Block::bordered().title(title))
}

#[expect(clippy::cast_precision_loss, reason = "what is shown has three digits")]
fn scaled_whole(number: u64) -> String {
    scaled(number as f64)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use serde_json::json;

    use super::super::numbers::Look;
    use super::super::numbers::tests::page;
    use super::*;

    fn drawn((width, height): (u16, u16), head: &Head, numbers: &Numbers) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, head, numbers)).unwrap();
        terminal.backend().to_string()
    }

    fn numbers() -> Numbers {
        let mut numbers = Numbers::default();
        for turn in 1..4 {
            numbers.take(Look::read(&page(turn)), Duration::from_secs(1));
        }
        numbers.take_slow(&json!({"connections": [{"sub": "ada", "path": "/ws", "missed": 7}]}));
        numbers
    }

    #[test]
    fn a_page_shows_what_there_is() {
        let head = Head {
            url: "http://a:4000".to_owned(),
            ..Head::default()
        };
        let page = drawn((100, 24), &head, &numbers());
        for part in [
            "tidegate http://a:4000",
            "Connections 201",
            "Messages in 60.0 k/s",
            "40 %",
            "ada",
            "q quit",
        ] {
            assert!(page.contains(part), "{part}:\n{page}");
        }
    }

    #[test]
    fn what_is_old_says_so() {
        let head = Head {
            is_paused: true,
            complaint: Some("cannot reach a:4000".to_owned()),
            ..Head::default()
        };
        let page = drawn((100, 24), &head, &Numbers::default());
        assert!(
            page.contains("paused") && page.contains("old: cannot reach a:4000"),
            "{page}"
        );
        assert!(page.contains("everybody keeps up"), "{page}");
    }

    #[test]
    fn a_window_of_any_size_will_do() {
        let head = Head::default();
        for size in [(1, 1), (10, 3), (300, 80), (20, 100)] {
            drawn(size, &head, &numbers());
        }
    }
}

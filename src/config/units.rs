//! Sizes and times as people write them: `64KiB`, `30s`. The name of a key says what its number counts,
//! so the text is brought to that. Knows names and numbers, not which keys there are.

/// The number that a key means by this text: a number, or one with a unit that fits the key.
pub(super) fn parse(key: &str, text: &str) -> Option<i64> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let unit = text.get(digits.len()..)?.trim();
    let digits = digits.replace('_', "");
    if unit.is_empty() {
        return digits.parse().ok();
    }
    let (_, own) = counted(key)?;
    let factor = own.iter().find(|(name, _)| *name == unit)?.1;
    // In parts of the key's unit, so that what is not a whole number of them is seen.
    let (whole, part) = digits.split_once('.').unwrap_or((&digits, ""));
    let places = u32::try_from(part.len())
        .ok()
        .filter(|places| *places <= 6)?;
    let scale = 10_i128.pow(places);
    let number: i128 = format!("{whole}{part}").parse().ok()?;
    let value = number.checked_mul(factor)?;
    let divisor = scale.checked_mul(base(key)?)?;
    (value % divisor == 0)
        .then(|| i64::try_from(value / divisor).ok())
        .flatten()
}

/// How a value of this key is written, for a message.
pub(super) fn example(key: &str) -> &'static str {
    counted(key).map_or("a number, such as 10", |(example, _)| example)
}

/// A unit and how many of the smallest it has.
type Unit = (&'static str, i128);

fn counted(key: &str) -> Option<(&'static str, &'static [Unit])> {
    let has = |unit: &str| key.split(['_', '.']).any(|word| word == unit);
    match () {
        () if has("bytes") => Some(("a size, such as 65536 or \"64KiB\"", SIZES)),
        () if has("us") => Some((
            "microseconds, or a time such as \"500us\" or \"2ms\"",
            TIMES,
        )),
        () if has("ms") => Some((
            "milliseconds, or a time such as \"500ms\" or \"30s\"",
            TIMES,
        )),
        () if key.ends_with("_per_s") || key.contains("_per_s_") => None,
        () if has("s") => Some(("seconds, or a time such as \"30s\" or \"8h\"", TIMES)),
        () => None,
    }
}

/// How many of the smallest the key's own unit has.
fn base(key: &str) -> Option<i128> {
    let has = |unit: &str| key.split(['_', '.']).any(|word| word == unit);
    let name = ["bytes", "us", "ms", "s"]
        .into_iter()
        .find(|unit| has(unit))?;
    Some(match name {
        "ms" => 1_000,
        "s" => 1_000_000,
        _ => 1,
    })
}

const SIZES: &[Unit] = &[
    ("B", 1),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

const TIMES: &[Unit] = &[
    ("us", 1),
    ("ms", 1_000),
    ("s", 1_000_000),
    ("min", 60_000_000),
    ("m", 60_000_000),
    ("h", 3_600_000_000),
    ("d", 86_400_000_000),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// K6, N7
    #[test]
    fn units_are_brought_to_that_of_the_key() {
        for (key, text, expected) in [
            ("frame_bytes_max", "64KiB", Some(65_536)),
            ("frame_bytes_max", "64 KiB", Some(65_536)),
            ("frame_bytes_max", "1.5MiB", Some(1_572_864)),
            ("frame_bytes_max", "10kB", Some(10_000)),
            ("frame_bytes_max", "65_536", Some(65_536)),
            ("ping_interval_ms", "30s", Some(30_000)),
            ("ping_interval_ms", "2m", Some(120_000)),
            ("ping_interval_ms", "0.5s", Some(500)),
            ("sync_delay_us_max", "2ms", Some(2_000)),
            ("token_leeway_s", "1h", Some(3_600)),
            ("headers_max", "32", Some(32)),
            // Not a whole number, not of this kind, or no number at all.
            ("ping_interval_ms", "100us", None),
            ("token_leeway_s", "500ms", None),
            ("frame_bytes_max", "30s", None),
            ("ping_interval_ms", "64KiB", None),
            ("messages_per_s_max", "30s", None),
            ("headers_max", "32KiB", None),
            ("frame_bytes_max", "KiB", None),
            ("frame_bytes_max", "", None),
            ("frame_bytes_max", "-1KiB", Some(-1_024)),
            ("frame_bytes_max", "1.23456789KiB", None),
            ("frame_bytes_max", "99999999999999999999GiB", None),
        ] {
            assert_eq!(parse(key, text), expected, "{key} = {text}");
        }
    }
}

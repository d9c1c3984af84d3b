//! Numbers as a person reads them: counts, times, bytes, shares, and what is counted. Knows
//! nothing of what they say.

/// A number with as many digits as say something.
pub(crate) fn short(value: f64) -> String {
    match value {
        value if 1e9 <= value => format!("{:.1}G", value / 1e9),
        value if 1e6 <= value => format!("{:.1}M", value / 1e6),
        value if 1e4 <= value => format!("{:.0}k", value / 1e3),
        value if 1e3 <= value => format!("{:.1}k", value / 1e3),
        value if 10.0 <= value => format!("{value:.0}"),
        0.0 => "0".to_owned(),
        value => format!("{value:.2}"),
    }
}

/// Microseconds in the unit that suits them.
pub(crate) fn time(us: f64) -> String {
    match us {
        us if 1e6 <= us => format!("{:.1} s", us / 1e6),
        us if 1e4 <= us => format!("{:.0} ms", us / 1e3),
        us if 1e3 <= us => format!("{:.1} ms", us / 1e3),
        us => format!("{us:.0} us"),
    }
}

/// Bytes in the unit that suits them.
pub(crate) fn bytes(count: f64) -> String {
    match count {
        count if MIB <= count => format!("{:.1} MiB", count / MIB),
        count if 10.0 * KIB <= count => format!("{:.0} KiB", count / KIB),
        count => format!("{count:.0} B"),
    }
}

pub(crate) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// Many of a unit.
pub(crate) fn plural(unit: &str) -> String {
    match unit {
        "delivery" => "deliveries".to_owned(),
        "publish" => "publishes".to_owned(),
        one => format!("{one}s"),
    }
}

const KIB: f64 = 1024.0;
const MIB: f64 = 1024.0 * 1024.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_has_the_unit_that_suits_it() {
        let numbers = [0.0, 0.5, 12.0, 1_234.0, 43_210.0, 2.5e6].map(short);
        assert_eq!(numbers, ["0", "0.50", "12", "1.2k", "43k", "2.5M"]);
        let times = [7.0, 3_600.0, 43_000.0, 1.25e6].map(time);
        assert_eq!(times, ["7 us", "3.6 ms", "43 ms", "1.2 s"]);
        assert_eq!(
            [415.0, 74_096.0, 3.0 * MIB].map(bytes),
            ["415 B", "72 KiB", "3.0 MiB"]
        );
        assert_eq!(plural("publish"), "publishes");
    }
}

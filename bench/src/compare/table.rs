//! Outcomes as a Markdown table: medians, ranges, ratios round by round. Runs that the load
//! generator says to throw away are counted and left out, unless there are no others.

use std::fmt::Write;

use serde_json::Value;

use super::Outcome;
use super::contestant::Contestant;
use super::scenario::Scenario;

const IDLE_HEAD: &str = "| | private bytes per connection | tidegate / this | resident | kernel slab, both ends | server CPU us per s and connection | runs |\n|---|---|---|---|---|---|---|\n";
const MESSAGE_HEAD: &str = "| | server CPU ns per message | of these its own code | tidegate / this | messages/s | p50 us | p99 us | server core | waited for it | runs |\n|---|---|---|---|---|---|---|---|---|---|\n";

/// The table of one scenario.
pub(super) fn markdown(
    scenario: &Scenario,
    contestants: &[Contestant],
    outcomes: &[Outcome],
) -> String {
    let mut text = format!("\n### {}\n\n", scenario.name);
    text.push_str(match scenario.kind.is_idle() {
        true => IDLE_HEAD,
        false => MESSAGE_HEAD,
    });
    let metric = match scenario.kind.is_idle() {
        true => "/memory_per_connection/private",
        false => "/server/cpu_ns_per_unit",
    };
    for (number, contestant) in contestants.iter().enumerate() {
        let runs = Runs::of(number, outcomes);
        let ratio = ratio(metric, outcomes, number);
        let cells = match scenario.kind.is_idle() {
            true => idle_cells(&runs, metric, &ratio),
            false => message_cells(&runs, metric, &ratio),
        };
        // Writing to a string cannot fail.
        let title = contestant.title();
        _ = writeln!(text, "| {title} | {cells} | {} |", runs.count());
    }
    text
}

fn message_cells(runs: &Runs<'_>, metric: &str, ratio: &str) -> String {
    let cost = range(&runs.values(metric), 0);
    let user = median(&runs.values("/server/user_ns_per_unit")).unwrap_or_default();
    let rate = range(&runs.values("/per_second"), 0);
    let [p50, p99] = ["p50_us", "p99_us"].map(|quantile| {
        let values = runs
            .used
            .iter()
            .filter_map(|report| last_latency(report, quantile));
        median(&values.collect::<Vec<_>>())
            .map_or_else(|| "-".into(), |value| format!("{value:.0}"))
    });
    let [core, waited] = ["/server/cpu_share", "/server/wait_share"]
        .map(|share| median(&runs.values(share)).unwrap_or_default() * 100.0);
    format!("{cost} | {user:.0} | {ratio} | {rate} | {p50} | {p99} | {core:.0} % | {waited:.0} %")
}

fn idle_cells(runs: &Runs<'_>, metric: &str, ratio: &str) -> String {
    let private = range(&runs.values(metric), 0);
    let resident = range(&runs.values("/memory_per_connection/resident"), 0);
    let busy: Vec<f64> = runs
        .used
        .iter()
        .filter_map(|report| {
            let share = report.pointer("/server/cpu_share")?.as_f64()?;
            Some(share * 1e6 / report["connections"].as_f64()?)
        })
        .collect();
    let slab = range(&runs.values("/memory_per_connection/slab"), 0);
    let busy = range(&busy, 2);
    format!("{private} | {ratio} | {resident} | {slab} | {busy}")
}

/// The reports of one contestant.
struct Runs<'a> {
    used: Vec<&'a Value>,
    thrown_away: usize,
    all: usize,
}

impl<'a> Runs<'a> {
    fn of(contestant: usize, outcomes: &'a [Outcome]) -> Self {
        let all: Vec<&Value> = outcomes
            .iter()
            .filter(|it| it.contestant == contestant)
            .map(|it| &it.report)
            .collect();
        let good: Vec<&Value> = all
            .iter()
            .copied()
            .filter(|report| is_good(report))
            .collect();
        let (count, thrown_away) = (all.len(), all.len() - good.len());
        Self {
            used: if good.is_empty() { all } else { good },
            thrown_away,
            all: count,
        }
    }

    fn values(&self, pointer: &str) -> Vec<f64> {
        self.used
            .iter()
            .filter_map(|report| report.pointer(pointer)?.as_f64())
            .collect()
    }

    fn count(&self) -> String {
        match self.thrown_away {
            0 => format!("{}", self.all),
            all if all == self.all => format!("{all}, all to be thrown away"),
            some => format!("{}, {some} thrown away", self.all),
        }
    }
}

fn is_good(report: &Value) -> bool {
    report["throw_away"].as_array().is_some_and(Vec::is_empty)
}

/// The first contestant's metric over this one's, round by round: of rounds in which both runs
/// are good, and only if there are none, of all.
fn ratio(metric: &str, outcomes: &[Outcome], contestant: usize) -> String {
    let rounds = outcomes.iter().map(|it| it.round + 1).max().unwrap_or(0);
    let ratios = |wanted: fn(&Value) -> bool| {
        let value = |number: usize, round: usize| {
            let found = outcomes
                .iter()
                .find(|it| it.contestant == number && it.round == round)?;
            wanted(&found.report).then(|| found.report.pointer(metric)?.as_f64())?
        };
        let of_round = |round| Some(value(0, round)? / value(contestant, round)?);
        (0..rounds)
            .filter_map(of_round)
            .filter(|ratio| ratio.is_finite())
            .collect::<Vec<f64>>()
    };
    let good = ratios(is_good);
    match (contestant, good.is_empty()) {
        (0, _) => "1".into(),
        (_, false) => range(&good, 2),
        (_, true) => format!(
            "{}, no round with two good runs",
            range(&ratios(|_| true), 2)
        ),
    }
}

/// The latency that counts: of a fan-out that of the last delivery, else the only one.
fn last_latency(report: &Value, quantile: &str) -> Option<f64> {
    report["latencies"].as_array()?.last()?[quantile].as_f64()
}

fn range(values: &[f64], digits: usize) -> String {
    let Some(middle) = median(values) else {
        return "-".into();
    };
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("**{middle:.digits$}** ({least:.digits$}-{most:.digits$})")
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len().checked_sub(1)? / 2;
    let upper = sorted.len() / 2;
    Some(f64::midpoint(sorted[middle], sorted[upper]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn outcome(contestant: usize, round: usize, cost: f64, faults: &[&str]) -> Outcome {
        let report = json!({"server": {"cpu_ns_per_unit": cost}, "throw_away": faults});
        Outcome {
            contestant,
            round,
            report,
        }
    }

    #[test]
    fn the_middle_of_an_even_number_lies_between_two() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(range(&[4.0, 1.0, 2.0, 9.0], 1), "**3.0** (1.0-9.0)");
    }

    #[test]
    fn runs_to_be_thrown_away_are_left_out_and_counted() {
        let outcomes = [outcome(0, 0, 5.0, &[]), outcome(0, 1, 99.0, &["steal"])];
        let runs = Runs::of(0, &outcomes);
        assert_eq!(runs.values("/server/cpu_ns_per_unit"), [5.0]);
        assert_eq!(runs.count(), "2, 1 thrown away");
    }

    #[test]
    fn ratios_compare_runs_of_the_same_round() {
        let outcomes = [(0, 0, 5.0), (1, 0, 10.0), (1, 1, 20.0), (0, 1, 2.0)]
            .map(|(who, round, cost)| outcome(who, round, cost, &[]));
        assert_eq!(
            ratio("/server/cpu_ns_per_unit", &outcomes, 1),
            "**0.30** (0.10-0.50)"
        );
    }

    #[test]
    fn a_ratio_leaves_out_rounds_with_a_run_to_be_thrown_away() {
        let mut outcomes = vec![outcome(0, 0, 5.0, &[]), outcome(1, 0, 10.0, &[])];
        outcomes.extend([outcome(0, 1, 50.0, &["steal"]), outcome(1, 1, 10.0, &[])]);
        assert_eq!(
            ratio("/server/cpu_ns_per_unit", &outcomes, 1),
            "**0.50** (0.50-0.50)"
        );
        let refused = ratio("/server/cpu_ns_per_unit", &outcomes[2..], 1);
        assert_eq!(refused, "**5.00** (5.00-5.00), no round with two good runs");
    }
}

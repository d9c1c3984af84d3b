//! The highest rate that keeps a latency: doubled while it holds, then halved in between. A rate that
//! does not hold is tried once more, for whatever else a machine does spoils single runs. Knows rates
//! and what a run came to, not how it is run.

use anyhow::Result;

use super::file::Ramp;
use super::step::LoadResult;
use crate::units::time;

/// One run of the search.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Round {
    /// What was asked for.
    pub(crate) rate: f64,
    /// What came back, if the load came to an end.
    pub(crate) came: Option<Came>,
    /// Why the rate does not hold.
    pub(crate) fault: Option<String>,
}

/// What a run brought.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Came {
    pub(crate) per_second: f64,
    pub(crate) p99_us: f64,
}

/// A search and its outcome.
#[derive(Debug)]
pub(crate) struct Search {
    pub(crate) wanted: Ramp,
    pub(crate) rounds: Vec<Round>,
}

impl Search {
    /// The highest rate that held.
    pub(crate) fn found(&self) -> Option<f64> {
        let held = self.rounds.iter().filter(|round| round.fault.is_none());
        held.map(|round| round.rate).max_by(f64::total_cmp)
    }

    /// What was done, in a sentence.
    pub(crate) fn told(&self) -> String {
        let (rounds, bound) = (self.rounds.len(), time(self.wanted.p99_us_max));
        let how = format!(
            "in {rounds} runs: from {:.0} on doubled while it held, then halved in between, \
             each given up when it failed twice",
            self.wanted.from
        );
        match self.found() {
            Some(rate) => format!("--rate {rate:.0} is the highest with p99 within {bound}, {how}"),
            None => format!("no --rate kept p99 within {bound}, {how}"),
        }
    }
}

/// Searches; the loads are those of the highest rate that held.
pub(crate) fn search(
    wanted: Ramp,
    run: &mut impl FnMut(f64) -> Result<Vec<LoadResult>>,
) -> (Vec<LoadResult>, Search) {
    let (mut rounds, mut best) = (Vec::new(), Vec::new());
    let (mut low, mut high): (f64, Option<f64>) = (0.0, None);
    let mut rate = wanted.from;
    while rounds.len() < wanted.rounds as usize {
        let (mut round, mut loads) = judge(wanted, rate, run(rate));
        if round.fault.is_some() {
            rounds.push(round);
            (round, loads) = judge(wanted, rate, run(rate));
        }
        if round.fault.is_none() {
            (low, best) = (rate, loads);
        } else {
            high = Some(rate);
        }
        rounds.push(round);
        rate = match high {
            None => rate * 2.0,
            Some(high) if high - low <= high * CLOSE => break,
            Some(high) => (low + high) / 2.0,
        };
    }
    (best, Search { wanted, rounds })
}

/// Above what a server bears a load may also break off, which only says that the rate is too high.
fn judge(wanted: Ramp, rate: f64, ran: Result<Vec<LoadResult>>) -> (Round, Vec<LoadResult>) {
    let loads = match ran {
        Ok(loads) => loads,
        Err(error) => {
            let (came, fault) = (None, Some(format!("{error:#}")));
            return (Round { rate, came, fault }, Vec::new());
        }
    };
    let first = &loads[0];
    let came = Came {
        per_second: first.per_second(),
        p99_us: first.p99_us(),
    };
    let mut faults: Vec<String> = first.faults().map(str::to_owned).collect();
    if wanted.p99_us_max < came.p99_us {
        let (p99, bound) = (time(came.p99_us), time(wanted.p99_us_max));
        faults.push(format!("p99 {p99} (> {bound})"));
    }
    let fault = (!faults.is_empty()).then(|| faults.join("; "));
    let came = Some(came);
    (Round { rate, came, fault }, loads)
}

/// Nearer than this a further run says nothing that the next one would not take back.
const CLOSE: f64 = 0.1;

#[cfg(test)]
mod tests {
    use anyhow::anyhow;
    use serde_json::json;

    use super::*;

    /// A server whose latency leaps above 12,000 messages a second, and that breaks above 20,000.
    fn at(rate: f64) -> Result<Vec<LoadResult>> {
        if 20_000.0 < rate {
            return Err(anyhow!("no delivery for 3 s"));
        }
        let p99_us = if rate <= 12_000.0 { 300.0 } else { 9_000.0 };
        let report =
            json!({"per_second": rate, "latencies": [{"p99_us": p99_us}], "throw_away": []});
        let command = String::new();
        Ok(vec![LoadResult { command, report }])
    }

    fn ramp(from: f64) -> Ramp {
        Ramp {
            from,
            p99_us_max: 1_000.0,
            rounds: 20,
        }
    }

    #[test]
    fn a_disturbed_run_is_no_verdict() {
        let mut runs = 0;
        let mut disturbed = |rate: f64| {
            runs += 1;
            if runs % 2 == 1 {
                Err(anyhow!("disturbed"))
            } else {
                at(rate)
            }
        };
        let (best, _) = search(ramp(1_000.0), &mut disturbed);
        assert!((10_800.0..=12_000.0).contains(&best[0].per_second()));
    }

    #[test]
    fn the_search_ends_near_the_highest_rate_that_holds() {
        for from in [1_000.0, 1_500.0, 11_000.0] {
            let (best, search) = search(ramp(from), &mut at);
            let found = best[0].per_second();
            assert!((10_800.0..=12_000.0).contains(&found), "{found}");
            assert_eq!(search.found(), Some(found));
            let faults = search
                .rounds
                .iter()
                .filter_map(|round| round.fault.as_deref());
            let faults: Vec<_> = faults.collect();
            assert!(faults.contains(&"p99 9.0 ms (> 1.0 ms)"), "{faults:?}");
            let broke = faults.contains(&"no delivery for 3 s");
            assert_eq!(broke, from != 1_000.0, "{faults:?}");
        }
    }

    #[test]
    fn a_rate_that_never_holds_is_told() {
        let mut slow = |_: f64| at(19_000.0);
        let (best, search) = search(ramp(1e6), &mut slow);
        assert!(best.is_empty() && search.rounds.len() == 20);
        let told = search.told();
        assert!(
            told.starts_with("no --rate kept p99 within 1.0 ms"),
            "{told}"
        );
    }
}

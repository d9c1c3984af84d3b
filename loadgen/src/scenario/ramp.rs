//! The highest rate that keeps a latency: doubled while it holds, then halved in between. Knows
//! rates and what a run came to, not how it is run.

use anyhow::{Result, ensure};

use super::file::Ramp;
use super::step::LoadResult;

/// One run of the search.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Round {
    /// What was asked for.
    pub(crate) rate: f64,
    /// What came back.
    pub(crate) per_second: f64,
    pub(crate) p99_us: f64,
    pub(crate) holds: bool,
}

/// Searches; the loads are those of the highest rate that held.
pub(crate) fn search(
    ramp: Ramp,
    run: &mut impl FnMut(f64) -> Result<Vec<LoadResult>>,
) -> Result<(Vec<LoadResult>, Vec<Round>)> {
    let mut rounds = Vec::new();
    let mut best = None;
    let (mut low, mut high): (f64, Option<f64>) = (0.0, None);
    let mut rate = ramp.from;
    while rounds.len() < ramp.rounds as usize {
        let loads = run(rate)?;
        let first = &loads[0];
        let holds = first.is_good() && first.p99_us() <= ramp.p99_us_max;
        rounds.push(Round {
            rate,
            per_second: first.per_second(),
            p99_us: first.p99_us(),
            holds,
        });
        if holds {
            low = rate;
            best = Some(loads);
        } else {
            high = Some(rate);
        }
        rate = match high {
            None => rate * 2.0,
            Some(high) if high - low <= high * CLOSE => break,
            Some(high) => (low + high) / 2.0,
        };
    }
    ensure!(
        best.is_some(),
        "no rate of {} rounds kept p99 within {} us",
        rounds.len(),
        ramp.p99_us_max
    );
    Ok((best.unwrap_or_default(), rounds))
}

/// Nearer than this a further run says nothing that the next one would not take back.
const CLOSE: f64 = 0.1;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A server whose latency leaps above 12,000 messages a second.
    fn at(rate: f64) -> Result<Vec<LoadResult>> {
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
            rounds: 10,
        }
    }

    #[test]
    fn the_search_ends_near_the_highest_rate_that_holds() {
        let (best, rounds) = search(ramp(1_000.0), &mut at).unwrap();
        let found = best[0].per_second();
        assert!((10_800.0..=12_000.0).contains(&found), "{found}");
        assert!(rounds.len() <= 10 && rounds.iter().any(|round| !round.holds));
    }

    #[test]
    fn a_rate_that_never_holds_is_an_error() {
        let mut slow = |_: f64| at(1e9);
        let error = search(ramp(1e6), &mut slow).unwrap_err().to_string();
        assert!(error.contains("kept p99 within 1000 us"), "{error}");
    }
}

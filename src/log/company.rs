//! How long a batch waits for company. Whoever publishes again as soon as it is answered comes back
//! just after a batch has ended; a next batch that goes with the first of them leaves all others
//! to the one behind it, and each then waits for two syncs in place of one. So the next batch waits
//! until as many appends have come as were under way before, for a part of a commit's time at
//! most. Where they do not come, as with publishers that follow a clock of their own or
//! where the core is the limit and not the disk, it stops waiting.
//! Knows counts and times, no records.

/// What the past says of the next batch.
#[derive(Debug, Default)]
pub(super) struct Company {
    /// Appends under way when the last batch ended: in it or behind it.
    expected: u64,
    /// When that was; told by the first look after it.
    ended_us: Option<u64>,
    began_us: u64,
    /// What a commit takes, smoothed.
    commit_us: u64,
    /// Batches that go at once.
    skips: u32,
    /// How many more go at once after the next wait in vain.
    penalty: u32,
}

impl Company {
    /// A batch goes out, and takes so many appends with it.
    pub(super) fn begin(&mut self, now_us: u64, taken: u64) {
        self.began_us = now_us;
        if 0 < self.skips {
            self.skips -= 1;
        } else if self.expected <= taken {
            self.penalty = 0;
        } else if self.ended_us.is_some() && COMPANY_MIN <= self.expected {
            self.penalty = (2 * self.penalty + 1).min(SKIPS_MAX);
            self.skips = self.penalty;
        }
    }

    /// A batch has become durable while so many appends were under way.
    pub(super) fn end(&mut self, under_way: u64) {
        self.expected = under_way;
        self.ended_us = None;
    }

    /// Until when a batch with so many appends waits; 0 if it does not.
    pub(super) fn wait_us(&self, taken: u64) -> u64 {
        let waits = self.skips == 0 && taken < self.expected && COMPANY_MIN <= self.expected;
        let longest_us = self.commit_us * PERCENT / 100;
        let ended_us = self.ended_us.filter(|_| waits);
        ended_us.map_or(0, |ended_us| ended_us + longest_us)
    }

    /// Tells the time after the end of a batch.
    pub(super) fn look(&mut self, now_us: u64) {
        if self.ended_us.is_none() {
            self.ended_us = Some(now_us);
            let took = now_us.saturating_sub(self.began_us);
            self.commit_us = (self.commit_us * 7 + took.min(COMMIT_US_MAX)) / 8;
        }
    }
}

/// The part of a commit's time that waiting may cost.
const PERCENT: u64 = 25;
/// Fewer than this are not waited for: whether they come again says little.
const COMPANY_MIN: u64 = 4;
const SKIPS_MAX: u32 = 63;
/// A disk that stalls once does not make everybody wait afterwards.
const COMMIT_US_MAX: u64 = 2_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn after_a_batch(company: &mut Company, under_way: u64, now_us: u64) {
        company.begin(now_us, under_way);
        company.end(under_way);
        company.look(now_us + 400);
    }

    #[test]
    fn a_batch_waits_for_those_who_were_there_before() {
        let mut company = Company::default();
        assert_eq!(company.wait_us(1), 0);
        (1..50).for_each(|round| after_a_batch(&mut company, 16, round * 1_000));
        let until_us = company.wait_us(5);
        assert!((49_450..=49_500).contains(&until_us), "{until_us}");
        assert_eq!(company.wait_us(16), 0, "all are there");
    }

    #[test]
    fn waiting_in_vain_is_given_up_and_tried_again() {
        let mut company = Company::default();
        let mut waited = 0;
        for round in 1..=1_000 {
            waited += u32::from(0 < company.wait_us(3));
            company.begin(round * 1_000, 3);
            company.end(16);
            company.look(round * 1_000 + 400);
        }
        assert!((10..40).contains(&waited), "{waited}");
    }
}

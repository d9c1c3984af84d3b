//! Whether a history of calls that overlap could have been made one after the other: the search of
//! Wing and Gong, which remembers what it has tried (as Lowe, and Porcupine, do). Knows no topic.

use std::collections::HashSet;
use std::hash::Hash;

/// What is called, as a state machine.
pub(crate) trait Model {
    type State: Clone + Eq + Hash + Default;
    type Op: std::fmt::Debug;

    /// The states in which the call may leave the model, given what it answered; none if it cannot
    /// have answered that.
    fn step(state: &Self::State, op: &Self::Op) -> Vec<Self::State>;

    /// Whether other calls may still lead from the state to one in which the call can have answered
    /// what it did: what says no here spares the search.
    fn may_come(_state: &Self::State, _op: &Self::Op) -> bool {
        true
    }

    /// Whether the answer needs a call before it that nobody may have heard of: that is asked behind every
    /// choice, since a wrong one is found late otherwise, with all the choices between.
    fn needs_another(_op: &Self::Op) -> bool {
        false
    }

    /// Whether the state has what the answer needs.
    fn has_what_it_needs(_state: &Self::State, _op: &Self::Op) -> bool {
        true
    }

    /// Whether the other call may bring what the answer needs.
    fn may_bring(_other: &Self::Op, _op: &Self::Op) -> bool {
        false
    }

    /// Whether it still may, from this state on.
    fn may_still_bring(_state: &Self::State, _other: &Self::Op, _op: &Self::Op) -> bool {
        true
    }
}

/// A call between two moments. One that nobody heard of again has happened between them or never.
#[derive(Debug, Clone)]
pub(crate) struct Call<Op> {
    pub(crate) op: Op,
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) is_answered: bool,
}

/// What a search has come to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// There is an order that explains all answers.
    Order,
    /// There may be one: the search was given up.
    Nothing,
}

/// Looks for an order that explains all answers. If there is none: the call at which every order ends.
pub(crate) fn check<M: Model>(calls: &[Call<M::Op>]) -> Result<Found, String> {
    Search::<M>::of(calls).run()
}

struct Search<'a, M: Model> {
    calls: &'a [Call<M::Op>],
    line: Line,
    /// The calls that have happened, as bits.
    done: Vec<u64>,
    state: M::State,
    chosen: Vec<Chosen<M::State>>,
    /// Answered calls that need another before them, and those that may be it.
    needing: Vec<(usize, Vec<usize>)>,
    /// Answers that no choice explains yet.
    unexplained: usize,
    tried: HashSet<(Vec<u64>, M::State)>,
    /// The least that was left, and the first of that.
    least: usize,
    stuck_at: Option<usize>,
}

fn needing<M: Model>(calls: &[Call<M::Op>]) -> Vec<(usize, Vec<usize>)> {
    let needs = |at: &usize| calls[*at].is_answered && M::needs_another(&calls[*at].op);
    let others = |at: usize| {
        let may = |other: &usize| *other != at && M::may_bring(&calls[*other].op, &calls[at].op);
        (at, (0..calls.len()).filter(may).collect())
    };
    (0..calls.len()).filter(needs).map(others).collect()
}

struct Chosen<State> {
    at: usize,
    /// Its place among the candidates, and which of its ways was taken.
    rank: usize,
    choice: usize,
    before: State,
    /// When the latest of all chosen calls began: what had ended by then has not happened.
    began: u64,
}

impl<'a, M: Model> Search<'a, M> {
    fn of(calls: &'a [Call<M::Op>]) -> Self {
        Self {
            calls,
            line: Line::of(calls),
            done: vec![0; calls.len().div_ceil(64)],
            state: M::State::default(),
            chosen: Vec::new(),
            needing: needing::<M>(calls),
            unexplained: calls.iter().filter(|call| call.is_answered).count(),
            tried: HashSet::new(),
            least: usize::MAX,
            stuck_at: None,
        }
    }

    fn run(mut self) -> Result<Found, String> {
        let (mut rank, mut choice) = (0, 0);
        while 0 < self.unexplained {
            let candidates = self.candidates();
            let first = &self.calls[self.line.event(candidates[0]).0];
            if !M::may_come(&self.state, &first.op) || self.is_lost_ahead() {
                rank = candidates.len();
            }
            let taken = (rank..candidates.len()).any(|rank| {
                let from = std::mem::take(&mut choice);
                self.take(rank, candidates[rank], from)
            });
            (rank, choice) = match taken {
                true => (0, 0),
                false => match self.back(&candidates) {
                    Some(last) => last,
                    None => return Err(self.failure()),
                },
            };
            if TRIED_MAX < self.tried.len() {
                return Ok(Found::Nothing);
            }
        }
        Ok(Found::Order)
    }

    /// Whether an answer that is to be explained later cannot be any more.
    fn is_lost_ahead(&self) -> bool {
        let began = self.chosen.last().map_or(0, |last| last.began);
        let may_happen = |at: usize| !self.is_done(at) && began <= self.calls[at].to;
        let mut waiting = self.needing.iter().filter(|(at, _)| !self.is_done(*at));
        waiting.any(|(at, others)| {
            let op = &self.calls[*at].op;
            let brings = |other: &usize| {
                may_happen(*other) && M::may_still_bring(&self.state, &self.calls[*other].op, op)
            };
            !M::has_what_it_needs(&self.state, op) && !others.iter().any(brings)
        })
    }

    fn is_done(&self, call: usize) -> bool {
        self.done[call / 64] & 1 << (call % 64) != 0
    }

    /// The calls that may happen next: all that began before the first answer that is not explained
    /// yet. Answered ones stand first, by their end; most of the others have never happened.
    fn candidates(&self) -> Vec<usize> {
        let mut found = Vec::new();
        let mut at = self.line.next[HEAD];
        while at != END {
            match self.line.event(at) {
                (call, true) if self.calls[call].is_answered => break,
                (_, true) => {}
                (_, false) => found.push(at),
            }
            at = self.line.next[at];
        }
        found.sort_by_key(|at| {
            let call = &self.calls[self.line.event(*at).0];
            (!call.is_answered, call.to)
        });
        found
    }

    fn failure(&self) -> String {
        let call = self.stuck_at.map(|call| &self.calls[call]);
        format!("{} answers are left, first {call:?}", self.least)
    }

    /// Lets a call happen next in the first way that was not tried, from `choice` on.
    fn take(&mut self, rank: usize, at: usize, choice: usize) -> bool {
        let (call, _) = self.line.event(at);
        let asked = &self.calls[call];
        let began = self.chosen.last().map_or(0, |last| last.began);
        if asked.to < began {
            return false;
        }
        self.done[call / 64] |= 1 << (call % 64);
        let choices = M::step(&self.state, &asked.op);
        for (choice, next) in choices.into_iter().enumerate().skip(choice) {
            // What changes nothing and was not answered explains nothing.
            let is_idle = !asked.is_answered && next == self.state;
            if !is_idle && self.tried.insert((self.done.clone(), next.clone())) {
                self.line.take_out(at);
                let before = std::mem::replace(&mut self.state, next);
                self.unexplained -= usize::from(asked.is_answered);
                self.chosen.push(Chosen {
                    at,
                    rank,
                    choice,
                    before,
                    began: began.max(asked.from),
                });
                return true;
            }
        }
        self.done[call / 64] &= !(1 << (call % 64));
        false
    }

    /// Some choice before was wrong: takes the last one back, and tells where to go on.
    fn back(&mut self, candidates: &[usize]) -> Option<(usize, usize)> {
        if self.unexplained <= self.least {
            let stuck_at = candidates.first().map(|at| self.line.event(*at).0);
            (self.least, self.stuck_at) = (self.unexplained, stuck_at);
        }
        let last = self.chosen.pop()?;
        let (call, _) = self.line.event(last.at);
        self.done[call / 64] &= !(1 << (call % 64));
        self.unexplained += usize::from(self.calls[call].is_answered);
        self.line.put_back(last.at);
        self.state = last.before;
        Some((last.rank, last.choice + 1))
    }
}

const TRIED_MAX: usize = 30_000;

/// Begins and ends of calls in the order of time, as a list of which calls are taken out.
struct Line {
    events: Vec<(usize, bool)>,
    /// Where the end of the call stands that begins here.
    ends: Vec<usize>,
    next: Vec<usize>,
    before: Vec<usize>,
}

const HEAD: usize = 0;
const END: usize = 1;
/// Events stand behind the two ends of the list.
const FIRST: usize = 2;

impl Line {
    fn of<Op>(calls: &[Call<Op>]) -> Self {
        let mut events: Vec<(u64, bool, usize)> = Vec::new();
        for (at, call) in calls.iter().enumerate() {
            assert!(call.from < call.to, "a call ends after it began");
            events.push((call.from, false, at));
            events.push((call.to, true, at));
        }
        events.sort_unstable();
        let count = events.len();
        let mut ends = vec![0; calls.len()];
        for (place, (_, is_return, call)) in events.iter().enumerate() {
            if *is_return {
                ends[*call] = FIRST + place;
            }
        }
        let events: Vec<(usize, bool)> = events.into_iter().map(|(_, end, at)| (at, end)).collect();
        let mut next = vec![END; FIRST + count];
        let mut before = vec![HEAD; FIRST + count];
        let mut last = HEAD;
        for (place, before) in before.iter_mut().enumerate().skip(FIRST) {
            (next[last], *before) = (place, last);
            last = place;
        }
        (next[last], before[END]) = (END, last);
        Self {
            events,
            ends,
            next,
            before,
        }
    }

    fn event(&self, at: usize) -> (usize, bool) {
        self.events[at - FIRST]
    }

    fn unlink(&mut self, at: usize) {
        let (before, next) = (self.before[at], self.next[at]);
        self.next[before] = next;
        self.before[next] = before;
    }

    fn link(&mut self, at: usize) {
        let (before, next) = (self.before[at], self.next[at]);
        self.next[before] = at;
        self.before[next] = at;
    }

    fn take_out(&mut self, begin: usize) {
        let end = self.ends[self.event(begin).0];
        self.unlink(begin);
        self.unlink(end);
    }

    /// What was taken out last is put back first.
    fn put_back(&mut self, begin: usize) {
        let end = self.ends[self.event(begin).0];
        self.link(end);
        self.link(begin);
    }
}

/// A register, of which papers tell what is linearizable.
struct Register;

#[derive(Debug, Clone, Copy)]
enum Access {
    Write(u32),
    Read(u32),
}

impl Model for Register {
    type State = u32;
    type Op = Access;

    fn step(state: &u32, op: &Access) -> Vec<u32> {
        match op {
            Access::Write(value) => vec![*value],
            Access::Read(value) => (state == value).then_some(*state).into_iter().collect(),
        }
    }
}

fn register(calls: &[(Access, u64, u64, bool)]) -> bool {
    let call = |(op, from, to, is_answered): &(Access, u64, u64, bool)| Call {
        op: *op,
        from: *from,
        to: *to,
        is_answered: *is_answered,
    };
    let calls: Vec<Call<Access>> = calls.iter().map(call).collect();
    match check::<Register>(&calls) {
        Ok(found) => found == Found::Order,
        Err(_) => false,
    }
}

#[test]
fn a_history_is_explained_or_not() {
    use Access::{Read, Write};
    assert!(register(&[]));
    assert!(register(&[(Write(1), 0, 1, true), (Read(1), 2, 3, true)]));
    assert!(
        !register(&[(Write(1), 0, 1, true), (Read(0), 2, 3, true)]),
        "a stale read"
    );
    let overlapping = |second| {
        [
            (Write(1), 0, 9, true),
            (Read(1), 1, 2, true),
            (Read(second), 3, 4, true),
        ]
    };
    assert!(register(&overlapping(1)));
    assert!(!register(&overlapping(0)), "it was seen and is gone again");
    let unheard = |reads: &[u32], later| {
        let mut calls = vec![(Write(7), 0, later, false)];
        for (at, value) in (1..).zip(reads) {
            calls.push((Read(*value), 2 * at, 2 * at + 1, true));
        }
        register(&calls)
    };
    assert!(unheard(&[0, 0, 0], 100) && unheard(&[0, 7, 7], 100));
    assert!(!unheard(&[0, 7, 0], 100), "it has happened, and then not");
    assert!(!unheard(&[0, 7], 1), "it was over before anybody saw it");
}

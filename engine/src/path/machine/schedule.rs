//! When each address is probed, and when the one in use is given up.
//!
//! There are no timers to keep in step: the next probe of an address is due a `gap` after the last, and the
//! gap follows from what is known now.

use std::time::{Duration, Instant};

use rand::Rng;

use super::Paths;
use crate::path::candidate::{Candidate, HintVerdict};
use crate::path::message::{Message, Probe};

/// Probes that must be lost before a path is dead, however long that takes.
const LOST_MIN: usize = 8;
/// Probes that must be lost before data moves to another address that is known to work.
const LOST_BEFORE_FAILOVER: usize = 10;
/// An address not in use that answered before is probed again this often, then only in turn.
const LOST_OF_ALTERNATE: usize = 3;
/// While the path in use is in doubt, the others that answered are probed this many quick intervals apart.
const ALTERNATE_SHARE: u32 = 5;
/// Data counts as flowing for this long after a datagram.
const DATA_FLOWS_FOR: Duration = Duration::from_secs(5);
/// Probes are late by up to this many microseconds, so that those of many peers spread.
const JITTER_MAX_US: u64 = 50_000;

impl Paths {
    /// When [`Self::tick`] is next due; `None` without a session or addresses.
    pub fn deadline(&self) -> Option<Instant> {
        if !self.active {
            return None;
        }
        let of_one = |candidate: &Candidate| {
            let in_use = self.is_in_use(candidate.address);
            let probe = self.probe_at(candidate);
            let lost = candidate.time_out_at(&self.config);
            let dead = if in_use {
                self.dead_at(candidate)
            } else {
                None
            };
            let trial = candidate.pmtu.deadline(candidate.trial_timeout());
            let forgotten = self
                .is_forgettable(candidate)
                .then_some(candidate.keep_until);
            [probe, lost, dead, trial, forgotten]
                .into_iter()
                .flatten()
                .min()
        };
        let turn = self.has_turns().then_some(self.turn_at);
        let race = self.race_due();
        let shared = turn.into_iter().chain(race);
        self.candidates
            .iter()
            .filter_map(of_one)
            .chain(shared)
            .min()
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Instant) {
        // Not in `run`: an answer that waits behind the message that is handled now counts as well.
        self.judge_race(now);
        self.run(now);
    }

    pub(super) fn run(&mut self, now: Instant) {
        let (config, home) = (self.config, self.home);
        self.candidates.retain(|candidate| {
            candidate.listed || home == Some(candidate.address) || now < candidate.keep_until
        });
        if !self.active {
            return;
        }
        for candidate in &mut self.candidates {
            candidate.time_out(&config, now);
            candidate.tell_if_narrower();
        }
        self.judge(now);
        for index in 0..self.candidates.len() {
            let due = self
                .candidates
                .get(index)
                .and_then(|candidate| self.probe_at(candidate));
            if due.is_some_and(|due| due <= now) {
                self.probe(index, now);
            }
        }
        self.take_turn(now);
        self.try_sizes(now);
    }

    /// Is the path in use dead, and is there another?
    fn judge(&mut self, now: Instant) {
        let Some(current) = self.in_use() else { return };
        let hint = current.hint_verdict(&self.config);
        let dead = hint == HintVerdict::Gone || self.dead_at(current).is_some_and(|at| at <= now);
        let doubtful =
            hint == HintVerdict::PreferAnother || current.lost_count() >= LOST_BEFORE_FAILOVER;
        if !dead && !doubtful {
            return;
        }
        let works =
            |candidate: &&Candidate| candidate.is_alive() && candidate.proof_at > current.proof_at;
        let best = self
            .candidates
            .iter()
            .filter(works)
            .min_by_key(|candidate| candidate.rtt.smoothed());
        let best = best.map(|candidate| candidate.address);
        if dead || best.is_some() {
            self.go_down(now);
        }
        if let Some(address) = best {
            self.use_address(address, now);
        }
    }

    fn dead_at(&self, current: &Candidate) -> Option<Instant> {
        let enough = current.lost_count() >= LOST_MIN;
        current
            .proof_at
            .filter(|_| enough)
            .map(|proof_at| proof_at + self.config.dead_after)
    }

    /// When an address is next probed for its own sake; `None`: in turn with others, or never.
    fn probe_at(&self, candidate: &Candidate) -> Option<Instant> {
        let gap = self.gap(candidate)?;
        Some(
            candidate
                .last_sent_at
                .map_or(candidate.created_at, |sent_at| sent_at + gap),
        )
    }

    fn gap(&self, candidate: &Candidate) -> Option<Duration> {
        let (config, opening) = (&self.config, candidate.opening_gap());
        let regular = config.probe_interval + candidate.jitter;
        if candidate.at_once {
            return Some(Duration::ZERO);
        }
        if candidate.urgent {
            return Some(config.quick_interval);
        }
        if !self.up {
            let earning = (candidate.credit > 0).then_some(config.quick_interval);
            let verified = candidate.is_verified(config).then_some(regular);
            let known = (!self.is_forgettable(candidate)).then_some(config.unverified_interval);
            return [earning, opening, verified, known]
                .into_iter()
                .flatten()
                .min();
        }
        if self.is_in_use(candidate.address) {
            let steady = if candidate.is_suspect() || candidate.narrower_left > 0 {
                config.quick_interval
            } else {
                regular
            };
            return Some(opening.map_or(steady, |gap| gap.min(steady)));
        }
        if opening.is_some() || !candidate.is_verified(config) {
            return opening;
        }
        if self.in_use().is_some_and(Candidate::is_suspect) {
            return Some(config.quick_interval * ALTERNATE_SHARE);
        }
        (1..=LOST_OF_ALTERNATE)
            .contains(&candidate.lost_count())
            .then_some(regular)
    }

    /// Probes one address: small, padded to the full size, or both when one must be told from the other.
    fn probe(&mut self, index: usize, now: Instant) {
        let jitter = Duration::from_micros(self.rng.next_u64() % JITTER_MAX_US);
        let ids = [self.fresh_id(), self.fresh_id()];
        let busy = self.data_at.is_some_and(|at| now < at + DATA_FLOWS_FOR);
        let check_every = if busy {
            self.config.mtu_check_busy
        } else {
            self.config.mtu_check_idle
        };
        let (up, home) = (self.up, self.home);
        let Some(candidate) = self.candidates.get_mut(index) else {
            return;
        };
        let in_use = up && home == Some(candidate.address);
        let full = (in_use && candidate.pmtu.check_due(check_every, now))
            .then(|| candidate.pmtu.confirmed());
        let small = full.is_none() || candidate.is_suspect();
        let (to, heard, unanswered, narrower) = (
            candidate.route(),
            candidate.heard_probe,
            candidate.lost_count() > 0,
            candidate.narrower_left > 0,
        );
        let lens = [full.map(Some), small.then_some(None)];
        if full.is_some() {
            candidate.pmtu.check_sent(now);
        }
        for (id, len) in ids.into_iter().zip(lens.into_iter().flatten()) {
            if let Some(candidate) = self.candidates.get_mut(index) {
                candidate.record(id, len, jitter, now);
            }
            self.send(
                to,
                Message::Probe(Probe {
                    id,
                    heard,
                    unanswered,
                    in_use,
                    narrower,
                }),
                len,
            );
        }
    }

    fn has_turns(&self) -> bool {
        self.up && self.candidates.len() > 1
    }

    /// Probes one of the addresses that are not in use and not probed for another reason.
    fn take_turn(&mut self, now: Instant) {
        if !self.has_turns() || now < self.turn_at {
            return;
        }
        self.turn_at = now + self.config.alternate_interval;
        let count = self.candidates.len();
        let waits = |index: &usize| {
            self.candidates.get(*index).is_some_and(|candidate| {
                let known = candidate.listed || candidate.proof_at.is_some();
                known && !self.is_in_use(candidate.address) && self.gap(candidate).is_none()
            })
        };
        if let Some(index) = (0..count)
            .map(|step| (self.turn + step) % count)
            .find(waits)
        {
            self.turn = index + 1;
            self.probe(index, now);
        }
    }

    /// Carries on with the search for the path MTU.
    fn try_sizes(&mut self, now: Instant) {
        let Some(address) = self.in_use().map(|candidate| candidate.address) else {
            return;
        };
        if let Some(candidate) = self.candidate_mut(address) {
            candidate.pmtu.advance(candidate.trial_timeout(), now);
        }
        loop {
            let fresh = self.fresh_id();
            let Some(candidate) = self.candidate_mut(address) else {
                return;
            };
            let to = candidate.route();
            let (heard, unanswered) = (candidate.heard_probe, candidate.lost_count() > 0);
            let Some((id, len)) = candidate.pmtu.next_trial(fresh, now) else {
                return;
            };
            self.send(
                to,
                Message::Probe(Probe {
                    id,
                    heard,
                    unanswered,
                    in_use: true,
                    narrower: false,
                }),
                Some(len),
            );
        }
    }

    /// Never 0, which stands for none.
    fn fresh_id(&mut self) -> u64 {
        self.rng.next_u64().max(1)
    }
}

//! Following a peer whose address changes, and learning addresses that only its datagrams show.
//!
//! ```text
//!   data, or a probe marked "in use",       answered                    Changed; the old address is
//!   from another address ──────► challenge ──────────► data goes there  kept for 10 s
//!                                    └── 3 probes unanswered: none for 3 s; forgotten after 6 s
//!
//!   the same from an address          it answered, the one in use did not within
//!   that answers anyway ──────► race ────────────────────────────────────────────► data goes there
//!                                 └── the one in use answered: nothing; the next race after 500 ms
//! ```
//!
//! An address that already answers is not followed without such a race: the peer has several and may use another
//! than we do, on a path that is as good.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::Paths;
use crate::config::PATHS_LEARNED_MAX;
use crate::path::candidate::{Candidate, Reason, is_probeable};

/// A learned address that never answered is kept this long: for two challenges...
const UNANSWERED_KEEP: Duration = Duration::from_secs(6);
/// ...and cannot be pushed out for the first part of it: the three probes of a challenge.
const UNANSWERED_GUARD: Duration = Duration::from_secs(1);
/// For this long after a move what still arrives from the old address is late, not a move back.
const MOVE_HOLD: Duration = Duration::from_secs(1);
/// That the peer sends from another address that works starts a race once in this time: two probes, and little to
/// wait for where it means that the peer lost the address that we use.
const ELSEWHERE_EVERY: Duration = Duration::from_millis(500);
/// The address in use may take this long to answer in a race: half of what a ping every 20 ms notices, and on a LAN
/// many times the round trip. If it is late all the same, data goes to another address that works, which is no harm.
const RACE_MIN: Duration = Duration::from_millis(10);

/// The address in use against the one that the peer sends from, each with a probe.
#[derive(Debug, Clone, Copy)]
pub(super) struct Race {
    other: SocketAddr,
    started_at: Instant,
    /// When the address in use should have answered.
    until: Instant,
}

impl Paths {
    /// The peer sends what matters from this address; whether there is something to do.
    pub(super) fn peer_uses(&mut self, from: SocketAddr, now: Instant) -> bool {
        let late = self
            .left
            .is_some_and(|(left, until)| left == from && now < until);
        if self.is_in_use(from) || late || !self.active || !is_probeable(from) {
            return false;
        }
        let up = self.up;
        let Some(candidate) = self.learn(from, now) else {
            return false;
        };
        if !candidate.is_alive() {
            return candidate.challenge(Reason::PeerMoved, now);
        }
        if !up {
            candidate.urgent = true;
            return true;
        }
        // It has several addresses and may use another than we do. Or it lost the one that we use.
        if now < self.elsewhere_after {
            return false;
        }
        self.elsewhere_after = now + ELSEWHERE_EVERY;
        self.start_race(from, now)
    }

    fn start_race(&mut self, other: SocketAddr, now: Instant) -> bool {
        let Some(home) = self.home.and_then(|home| self.candidate_mut(home)) else {
            return false;
        };
        home.hint(false, now);
        home.at_once = true;
        let until = now + home.rtt.timeout(RACE_MIN);
        if let Some(candidate) = self.candidate_mut(other) {
            candidate.at_once = true;
        }
        self.race = Some(Race {
            other,
            started_at: now,
            until,
        });
        true
    }

    /// Whether the other address in the race has answered, and the one in use not yet; `None` when it is over.
    fn leads(&self, race: &Race) -> Option<bool> {
        let since = race.started_at;
        let home = self.in_use()?;
        let other = self.candidate(race.other)?;
        (!home.is_proven_since(since)).then(|| other.is_proven_since(since))
    }

    /// When the race is decided, unless the address in use answers before that.
    pub(super) fn race_due(&self) -> Option<Instant> {
        let race = self.race.as_ref()?;
        (self.leads(race)?).then_some(race.until)
    }

    pub(super) fn judge_race(&mut self, now: Instant) {
        let Some(race) = self.race else { return };
        match self.leads(&race) {
            None => self.race = None,
            Some(true) if now >= race.until => self.follow(race.other, now),
            Some(_) => {}
        }
    }

    /// The peer sends from this address, though not, as far as we know, what matters.
    pub(super) fn peer_reaches_us_from(&mut self, from: SocketAddr, now: Instant) {
        if self.is_in_use(from) || !self.active {
            return;
        }
        let reason = if self.up {
            Reason::PeerReachesUs
        } else {
            Reason::PathWanted
        };
        if let Some(candidate) = self
            .learn(from, now)
            .filter(|candidate| !candidate.is_alive())
        {
            candidate.challenge(reason, now);
        }
    }

    /// Finds an address or makes room for it.
    fn learn(&mut self, address: SocketAddr, now: Instant) -> Option<&mut Candidate> {
        if self.candidate(address).is_none() {
            let learned = || {
                self.candidates
                    .iter()
                    .filter(|candidate| self.is_forgettable(candidate))
            };
            if learned().count() >= PATHS_LEARNED_MAX {
                let guarded =
                    |c: &&Candidate| c.proof_at.is_none() && now < c.created_at + UNANSWERED_GUARD;
                let rank = |c: &&Candidate| (c.proof_at, c.created_at);
                let oldest = learned()
                    .filter(|candidate| !guarded(candidate))
                    .min_by_key(rank)?
                    .address;
                self.candidates
                    .retain(|candidate| candidate.address != oldest);
            }
            self.candidates
                .push(Candidate::new(address, &self.config, UNANSWERED_KEEP, now));
        }
        self.candidate_mut(address)
    }

    /// The peer sends from there now: data follows, and the address that it left is in doubt.
    pub(super) fn follow(&mut self, address: SocketAddr, now: Instant) {
        if let Some(old) = self.home {
            self.left = Some((old, now + MOVE_HOLD));
            if let Some(candidate) = self.candidate_mut(old) {
                candidate.stale = true;
            }
        }
        self.use_address(address, now);
    }
}

//! Judges a mesh under a scenario; knows nothing of how the scenario was drawn, nor of how nodes decide.
//!
//! ```text
//!  always        a watched frame is transmitted at most hop-limit times, and never arrives twice but by a doubling line
//!  in trouble    no circle in the routes for longer than CIRCLE_MAX
//!                no pair without a way for longer than HOLE_MAX while the network lets one through
//!  mended        all pairs reachable within CONVERGED_MAX, and all stays so; one link a pair; nothing lost for good
//! ```
//!
//! The truth about the network is computed anew from the underlay: hosts that run, ways that pass in both directions.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::datagrams::HOP_LIMIT;
use super::frames::FrameId;
use super::scenario::{Scenario, Trouble};
use super::{HostId, Sim};

/// How long a circle may stand.
const CIRCLE_MAX: Duration = Duration::from_secs(3);
/// How long a pair may have no way although there is one: a path is given up after 3 s without answers, routes and
/// news take a second.
const HOLE_MAX: Duration = Duration::from_secs(6);
/// How long a mesh may take until all is well after the last trouble.
const CONVERGED_MAX: Duration = Duration::from_secs(15);
/// How often the checker looks.
const PACE: Duration = Duration::from_millis(250);

/// Since when something is wrong with a pair.
#[derive(Debug, Default)]
pub(crate) struct Checker {
    circles: BTreeMap<(HostId, HostId), Instant>,
    holes: BTreeMap<(HostId, HostId), Instant>,
    frames: Vec<FrameId>,
    turn: usize,
}

impl Checker {
    /// Runs a scenario; the error says what went wrong, where and when.
    pub(crate) fn run(scenario: &Scenario) -> Result<(), String> {
        let mut sim = scenario.begin();
        let mut checker = Self::default();
        checker.converges(&mut sim, CONVERGED_MAX * 2, "after the start")?;
        for episode in &scenario.episodes {
            let mut verdict = Ok(());
            // What loss does to probes is chance: in a storm only circles count.
            let holes_count = episode.trouble != Trouble::Storm;
            sim.undergo(*episode, PACE, &mut |sim| {
                if verdict.is_ok() {
                    verdict = checker.look(sim, holes_count);
                }
            });
            verdict.map_err(|error| format!("{episode:?}: {error}"))?;
            checker.converges(&mut sim, CONVERGED_MAX, &format!("after {episode:?}"))?;
        }
        checker.judge_frames(&sim)
    }

    fn converges(&mut self, sim: &mut Sim, limit: Duration, when: &str) -> Result<(), String> {
        if sim.run_until_seen(limit, PACE, Sim::is_reachable).is_none() {
            let reach = sim.reach();
            return Err(format!("not whole {limit:?} {when}: {reach:?}"));
        }
        (self.circles, self.holes) = (BTreeMap::new(), BTreeMap::new());
        // It stays so, and frames pass.
        for _ in 0..8 {
            sim.run_for(PACE);
            self.look(sim, true)?;
        }
        Ok(())
    }

    fn look(&mut self, sim: &mut Sim, holes_count: bool) -> Result<(), String> {
        self.send_a_frame(sim);
        let reach = sim.reach();
        let looping = reach.looping.iter().copied();
        overdue(&mut self.circles, looping, sim.now, CIRCLE_MAX)
            .map_or(Ok(()), |pair| Err(format!("a lasting circle {pair:?}")))?;
        let truth = Truth::of(sim);
        let holes = truth.pairs().filter(|(a, b)| sim.route(*a, *b).is_none());
        let hole = overdue(&mut self.holes, holes, sim.now, HOLE_MAX);
        match hole.filter(|_| holes_count) {
            Some((a, b)) => Err(format!("a lasting black hole between {a} and {b}")),
            None => Ok(()),
        }
    }

    /// One frame of each look is watched, from and to hosts in turn.
    fn send_a_frame(&mut self, sim: &mut Sim) {
        let hosts = sim.hosts.len();
        self.turn += 1;
        let (from, to) = (self.turn % hosts, (self.turn * 7 + 1) % hosts);
        if from != to && sim.node(from).is_some() {
            let frame = sim.send_frame(from, to);
            self.frames.push(frame);
        }
    }

    fn judge_frames(&self, sim: &Sim) -> Result<(), String> {
        for frame in &self.frames {
            let fate = sim.fate(*frame);
            if fate.transmissions > u64::from(HOP_LIMIT) {
                return Err(format!("transmitted {} times", fate.transmissions));
            }
            if fate.arrivals.len() > 1 || fate.arrivals.values().any(|count| *count > 1) {
                return Err(format!("a frame for one arrived at {:?}", fate.arrivals));
            }
        }
        Ok(())
    }
}

/// Remembers since when each is wrong, and says which has been for too long.
fn overdue(
    since: &mut BTreeMap<(HostId, HostId), Instant>,
    wrong: impl Iterator<Item = (HostId, HostId)>,
    now: Instant,
    limit: Duration,
) -> Option<(HostId, HostId)> {
    let fresh: BTreeMap<_, _> = wrong
        .map(|pair| (pair, since.get(&pair).copied().unwrap_or(now)))
        .collect();
    *since = fresh;
    since
        .iter()
        .find(|(_, at)| now - **at >= limit)
        .map(|(pair, _)| *pair)
}

/// Which hosts hang together by the network alone.
struct Truth {
    island: Vec<Option<usize>>,
}

impl Truth {
    fn of(sim: &Sim) -> Self {
        let hosts = sim.hosts.len();
        let mut island = vec![None; hosts];
        for start in 0..hosts {
            if island[start].is_some() || sim.node(start).is_none() {
                continue;
            }
            let mut open = vec![start];
            island[start] = Some(start);
            while let Some(at) = open.pop() {
                for (next, place) in island.iter_mut().enumerate() {
                    let passes = sim.underlay.passes(at, next) && sim.underlay.passes(next, at);
                    if place.is_none() && sim.node(next).is_some() && passes {
                        *place = Some(start);
                        open.push(next);
                    }
                }
            }
        }
        Self { island }
    }

    /// Pairs of running hosts that could reach each other.
    fn pairs(&self) -> impl Iterator<Item = (HostId, HostId)> {
        let count = self.island.len();
        let together = |a: usize, b: usize| {
            a != b && self.island[a].is_some() && self.island[a] == self.island[b]
        };
        (0..count)
            .flat_map(move |a| (0..count).map(move |b| (a, b)))
            .filter(move |(a, b)| together(*a, *b))
    }
}

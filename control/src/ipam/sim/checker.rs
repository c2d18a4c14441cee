//! Judges a run by what can be seen from outside; shares no code with what it judges.
//!
//! | rule | when |
//! |---|---|
//! | no address twice on one host's interfaces, nor from two hosts at anybody who hears both | always |
//! | no address for another container within 30 s of the first one's death | always |
//! | a container that asks again within that time gets what it had | always |
//! | one ring; no disputes; no address of a living host displaced but by a decree | clean runs |
//! | every acknowledged address is still its container's | after quiet |
//! | all hosts say the same of the ring; it covers the range once, and nobody who has left owns of it | after quiet |
//!
//! A run is clean if no old disk was put back, no host copied, and nobody removed by force.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::peer::PeerId;

const GRACE: Duration = Duration::from_secs(30);

/// One host's belief about one run of addresses: first, last, era, owners.
pub(super) type Belief = (u32, u32, u64, Vec<PeerId>);

/// What a host shows when all is quiet.
#[derive(Debug, Clone)]
pub(super) struct Shown {
    pub(super) host: usize,
    pub(super) ring: Option<String>,
    pub(super) beliefs: Vec<Belief>,
    /// Holder and address of all that it says is in use.
    pub(super) in_use: BTreeSet<(String, u32)>,
    pub(super) blocked: BTreeSet<u32>,
}

/// What was seen so far.
#[derive(Debug, Default)]
pub(super) struct Checker {
    /// Host and address to holder, and when the holder died.
    acknowledged: BTreeMap<(usize, u32), (String, Option<Instant>)>,
    /// Hosts whose disk was put back, or that were copied: what they had acknowledged may be gone.
    forgetful: BTreeSet<usize>,
    /// All that was ever acknowledged.
    given: BTreeSet<(usize, u32)>,
    /// Hosts that were told to leave: their ranges may be elsewhere even if they are still there.
    leavers: BTreeSet<usize>,
    left: BTreeSet<PeerId>,
    rings: BTreeSet<String>,
    is_tainted: bool,
    pub(super) violations: Vec<String>,
    /// Answers judged, so that a run that judged nothing is noticed.
    pub(super) judged: u64,
}

impl Checker {
    fn violation(&mut self, text: String) {
        if self.violations.len() < 20 {
            self.violations.push(text);
        }
    }

    /// From here on histories may meet that cannot both be true.
    pub(super) fn taint(&mut self) {
        self.is_tainted = true;
    }

    pub(super) fn forgets(&mut self, host: usize) {
        self.forgetful.insert(host);
        self.is_tainted = true;
    }

    pub(super) fn may_leave(&mut self, host: usize) {
        self.leavers.insert(host);
    }

    pub(super) fn acknowledged(&mut self, host: usize, holder: &str, address: u32, now: Instant) {
        self.judged += 1;
        self.given.insert((host, address));
        let fresh = (holder.to_owned(), None);
        let Some((before, died)) = self.acknowledged.insert((host, address), fresh) else {
            return;
        };
        let is_in_grace = died.is_none_or(|died| now < died + GRACE);
        if before != holder && is_in_grace && !self.forgetful.contains(&host) {
            self.violation(format!(
                "host {host}: {} for {holder} while {before} has it or died within 30 s",
                show(address)
            ));
        }
    }

    /// What a container had on this host when it asked again: it gets one of these. A new one is right only if all
    /// that it had is blocked because another host gave it away, too.
    pub(super) fn asked_again(
        &mut self,
        host: usize,
        holder: &str,
        address: u32,
        blocked: &BTreeSet<u32>,
        now: Instant,
    ) {
        let kept = self.acknowledged.iter().filter(|((at, _), (name, died))| {
            *at == host && name == holder && died.is_none_or(|died| now < died + GRACE)
        });
        let kept: Vec<u32> = kept.map(|((_, kept), _)| *kept).collect();
        if self.is_tainted || kept.contains(&address) {
            return;
        }
        let is_elsewhere = |kept: &u32| {
            blocked.contains(kept)
                && self
                    .given
                    .iter()
                    .any(|(at, given)| *at != host && given == kept)
        };
        if let Some(kept) = kept.iter().find(|kept| !is_elsewhere(kept)) {
            self.violation(format!(
                "host {host}: {holder} had {} and got {}",
                show(*kept),
                show(address)
            ));
        }
    }

    pub(super) fn died(&mut self, host: usize, holder: &str, now: Instant) {
        for ((at, _), (name, died)) in &mut self.acknowledged {
            if *at == host && name == holder {
                died.get_or_insert(now);
            }
        }
    }

    /// The daemon was not there, so that the time of death begins anew when it hears of it.
    pub(super) fn lives(&mut self, host: usize, holder: &str) {
        for ((at, _), (name, died)) in &mut self.acknowledged {
            if *at == host && name == holder {
                *died = None;
            }
        }
    }

    /// The container is there again; after the grace what it had may be gone.
    pub(super) fn returns(&mut self, host: usize, holder: &str, now: Instant) {
        self.acknowledged.retain(|(at, _), (name, died)| {
            *at != host || name != holder || died.is_none_or(|died| now < died + GRACE)
        });
        self.lives(host, holder);
    }

    pub(super) fn released(&mut self, host: usize, holder: &str) {
        self.acknowledged
            .retain(|(at, _), (name, _)| *at != host || name != holder);
    }

    pub(super) fn gone(&mut self, host: usize, peer: PeerId) {
        self.acknowledged.retain(|(at, _), _| *at != host);
        self.left.insert(peer);
    }

    pub(super) fn ring(&mut self, genesis: String) {
        self.rings.insert(genesis);
        if self.rings.len() > 1 && !self.is_tainted {
            self.violation("two rings".to_owned());
        }
    }

    pub(super) fn disputed(&mut self, host: usize, what: &str) {
        if !self.is_tainted {
            self.violation(format!("host {host}: {what} disputed without a cause"));
        }
    }

    pub(super) fn twice_on_one_host(&mut self, host: usize, address: u32) {
        if !self.forgetful.contains(&host) {
            self.violation(format!(
                "host {host}: {} twice on its interfaces",
                show(address)
            ));
        }
    }

    pub(super) fn twice_on_the_wire(&mut self, address: u32, a: usize, b: usize, hearer: usize) {
        self.violation(format!(
            "{} on the wire from hosts {a} and {b}, heard by {hearer}",
            show(address)
        ));
    }

    pub(super) fn not_converged(&mut self, why: String) {
        self.violation(format!("5 s after the network was whole: {why}"));
    }

    /// Whether all say the same; if not, in what they differ.
    pub(super) fn agreement(shown: &[Shown]) -> Result<(), String> {
        let mut known: BTreeMap<&str, &Shown> = BTreeMap::new();
        for one in shown {
            let Some(ring) = &one.ring else {
                continue;
            };
            let first = known.entry(ring).or_insert(one);
            if first.beliefs != one.beliefs {
                return Err(format!(
                    "hosts {} and {} differ: {:?} / {:?}",
                    first.host,
                    one.host,
                    difference(&first.beliefs, &one.beliefs),
                    difference(&one.beliefs, &first.beliefs)
                ));
            }
            if let Some(run) = one
                .beliefs
                .iter()
                .find(|(_, _, _, owners)| owners.len() != 1)
            {
                return Err(format!(
                    "{}-{} is disputed by {:?}",
                    show(run.0),
                    show(run.1),
                    run.3
                ));
            }
        }
        if known.len() == 1 && shown.iter().any(|one| one.ring.is_none()) {
            return Err("a host knows of no ring".to_owned());
        }
        Ok(())
    }

    /// The last judgement, when all is quiet and every host is up.
    pub(super) fn quiet(&mut self, shown: &[Shown], range: (u32, u32), now: Instant) {
        if let Err(why) = Self::agreement(shown) {
            self.not_converged(why);
            return;
        }
        for one in shown.iter().filter(|one| one.ring.is_some()) {
            self.covered_once(one, range);
        }
        let acknowledged = std::mem::take(&mut self.acknowledged);
        for ((host, address), (holder, died)) in &acknowledged {
            let Some(one) = shown.iter().find(|one| one.host == *host) else {
                continue;
            };
            let may_be_freed = died.is_some_and(|died| now >= died + GRACE);
            if may_be_freed || self.forgetful.contains(host) {
                continue;
            }
            self.judged += 1;
            if !one.in_use.contains(&(holder.clone(), *address)) {
                self.violation(format!(
                    "host {host}: {} of {holder} is lost",
                    show(*address)
                ));
            } else if one.blocked.contains(address)
                && !self.is_tainted
                && !self.leavers.contains(host)
            {
                self.displaced(one, *address);
            }
        }
    }

    fn covered_once(&mut self, one: &Shown, range: (u32, u32)) {
        let mut next = u64::from(range.0);
        for (first, last, _, owners) in &one.beliefs {
            if u64::from(*first) != next {
                self.violation(format!(
                    "host {}: nobody or two own from {}",
                    one.host,
                    show(*first)
                ));
                return;
            }
            next = u64::from(*last) + 1;
            if let Some(owner) = owners.iter().find(|owner| self.left.contains(owner))
                && !self.is_tainted
            {
                self.violation(format!(
                    "{}-{} is lost with {owner}",
                    show(*first),
                    show(*last)
                ));
            }
        }
        if next != u64::from(range.1) + 1 {
            self.violation(format!("host {}: the range ends early", one.host));
        }
    }

    /// A living host's address is blocked: only a decree may have given it to somebody else.
    fn displaced(&mut self, one: &Shown, address: u32) {
        let run = one
            .beliefs
            .iter()
            .find(|run| (run.0..=run.1).contains(&address));
        let by_decree = run.is_some_and(|(_, _, era, _)| *era > 0);
        if !by_decree {
            self.violation(format!(
                "host {}: {} was taken from it without a decree ({run:?})",
                one.host,
                show(address)
            ));
        }
    }
}

fn difference(a: &[Belief], b: &[Belief]) -> Vec<Belief> {
    a.iter()
        .filter(|run| !b.contains(run))
        .take(4)
        .cloned()
        .collect()
}

fn show(address: u32) -> String {
    std::net::Ipv4Addr::from(address).to_string()
}

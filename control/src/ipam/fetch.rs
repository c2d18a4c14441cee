//! Addresses that are in use here and owned elsewhere: blocked, and fetched back from their owners.
//!
//! ```text
//!  misplaced, of one owner ─► WANT, all together ─► those given are ours again
//!                                  └─ not given ─► WANT, alone ─► in use there ─► the container needs another
//! ```
//!
//! Each gift changes what giver and taker know of each other, so one question is under way to each owner.
//! Bounds: `message::CHUNK_RUNS_MAX` spans in one question.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use crate::ipam::claim::Claim;
use crate::ipam::exchange::Question;
use crate::ipam::holdings::HOST;
use crate::ipam::message::{CHUNK_RUNS_MAX, Denial};
use crate::ipam::span::Span;
use crate::ipam::{Ipam, IpamNotice};
use crate::peer::PeerId;

/// A misplaced address that its owner uses is asked for again after this time.
const MISPLACED_AGAIN: Duration = Duration::from_secs(10);

/// A misplaced address and its owner's answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Fetch {
    open: Option<Question>,
    /// It was not given with others: its owner is to say why.
    alone: bool,
    /// Its owner has said that it does not give it now.
    answered: bool,
    refused_at: Option<Instant>,
}

impl Fetch {
    pub(super) fn open_mut(&mut self) -> &mut Option<Question> {
        &mut self.open
    }

    fn waits(&self, now: Instant) -> bool {
        let refused = self.refused_at.is_some_and(|at| now < at + MISPLACED_AGAIN);
        refused
            || self
                .open
                .as_ref()
                .is_some_and(|question| question.is_open(now))
    }
}

impl Ipam {
    /// Addresses in use here that may not be on the wire: another peer owns them, or they still rest.
    pub(crate) fn misplaced_addresses(&self) -> BTreeSet<u32> {
        let Some(ring) = &self.ring else {
            return BTreeSet::new();
        };
        let range = ring.range;
        let taken = self.holdings.taken().range(range.first()..=range.last());
        taken
            .map(|(address, _)| *address)
            .filter(|address| self.is_misplaced(*address))
            .collect()
    }

    /// The same without the host's own: it has them by right.
    pub(crate) fn addresses_to_block(&self) -> BTreeSet<u32> {
        let mut blocked = self.misplaced_addresses();
        blocked
            .retain(|address| self.holdings.holder_of(IpAddr::V4((*address).into())) != Some(HOST));
        blocked
    }

    pub(crate) fn is_misplaced(&self, address: u32) -> bool {
        let Some(ring) = self
            .ring
            .as_ref()
            .filter(|ring| ring.range.contains(address))
        else {
            return false;
        };
        self.rests(address)
            || ring
                .at(address)
                .is_none_or(|claim| claim.owner() != self.config.me)
    }

    /// The owner of a misplaced address uses it itself.
    pub(crate) fn is_refused(&self, address: Ipv4Addr) -> bool {
        let fetch = self.exchange.fetches.get(&address.into());
        fetch.is_some_and(|fetch| fetch.refused_at.is_some())
    }

    /// Whether that peer owns addresses in use here and has not answered for them. What it took over rests until we
    /// agree, so it is not told before that we do.
    pub(crate) fn wants_back_from(&self, owner: PeerId) -> bool {
        let is_answered = |address: u32| {
            let fetch = self.exchange.fetches.get(&address);
            fetch.is_some_and(|fetch| fetch.answered)
        };
        self.leaving.is_none()
            && self
                .misplaced_addresses()
                .into_iter()
                .any(|address| self.lender_of(address) == Some(owner) && !is_answered(address))
    }

    /// Who can give a misplaced address back.
    fn lender_of(&self, address: u32) -> Option<PeerId> {
        let claim = self.ring.as_ref()?.at(address)?;
        let owner = Some(claim)
            .filter(|claim| !claim.is_disputed())
            .map(Claim::owner);
        owner.filter(|owner| *owner != self.config.me && self.contacts.contains_key(owner))
    }

    /// Asks for misplaced addresses.
    pub(crate) fn step_misplaced(&mut self, now: Instant) {
        // Who leaves wants nothing back.
        if self.leaving.is_some() {
            return;
        }
        let blocked = self.misplaced_addresses();
        self.exchange
            .fetches
            .retain(|address, _| blocked.contains(address));
        let mut together: BTreeMap<PeerId, Vec<Span>> = BTreeMap::new();
        for address in blocked {
            let Some(owner) = self.lender_of(address) else {
                continue;
            };
            let fetch = self.exchange.fetches.entry(address).or_default();
            if fetch.waits(now) {
                continue;
            }
            let single = Span::single(address.into());
            if fetch.alone {
                let question = self.ask(owner, &[single], true, now);
                self.exchange.fetches.entry(address).or_default().open = Some(question);
                continue;
            }
            let spans = together.entry(owner).or_default();
            let is_full = spans.len() >= CHUNK_RUNS_MAX;
            match spans.last_mut().filter(|last| last.last() + 1 == address) {
                Some(last) => *last = Span::new(last.first(), address).unwrap_or(single),
                None if !is_full => spans.push(single),
                None => {}
            }
        }
        for (owner, spans) in together {
            self.ask_together(owner, &spans, now);
        }
    }

    fn ask_together(&mut self, owner: PeerId, spans: &[Span], now: Instant) {
        let is_to_owner = |fetch: &Fetch| {
            let open = fetch.open.as_ref().filter(|_| !fetch.alone);
            open.is_some_and(|question| question.goes_to(owner) && question.is_open(now))
        };
        if self.exchange.fetches.values().any(is_to_owner) {
            return;
        }
        let question = self.ask(owner, spans, true, now);
        let alone = spans.iter().map(|span| span.count()).sum::<u64>() == 1;
        for span in spans {
            let asked = self.exchange.fetches.range_mut(span.first()..=span.last());
            for (_, fetch) in asked {
                fetch.open = Some(question.clone());
                fetch.alone = alone;
            }
        }
    }

    /// A question for misplaced addresses was answered, with a gift if there is no denial.
    pub(super) fn fetch_answered(
        &mut self,
        from: PeerId,
        number: u64,
        denial: Option<Denial>,
        now: Instant,
    ) {
        let is_no = !matches!(denial, Some(Denial::Stale | Denial::NoRing));
        let (mut is_ours, mut readdress) = (false, None);
        for (address, fetch) in &mut self.exchange.fetches {
            let open = fetch.open.as_ref();
            if !open.is_some_and(|question| question.is(number, from)) {
                continue;
            }
            is_ours = true;
            fetch.open = None;
            if !fetch.alone {
                // What was given with this answer is misplaced no longer.
                fetch.alone = is_no;
                continue;
            }
            fetch.answered |= is_no;
            if denial == Some(Denial::InUse) && fetch.refused_at.replace(now).is_none() {
                readdress = Some(*address);
            }
        }
        if is_ours && !self.wants_back_from(from) {
            self.compare(from, false, now);
        }
        if let Some(address) = readdress
            && let Some(holder) = self.holdings.taken().get(&address).cloned()
            && holder != HOST
        {
            let address = address.into();
            self.notice(IpamNotice::Readdress { holder, address });
        }
    }
}

//! Space from peer to peer: asking and giving.
//!
//! ```text
//!  WANT spans ─► views equal? ─ no ─► DENIED stale, and both compare
//!                 └ yes ─► free? ─ no ─► DENIED
//!                            └ yes ─► owner written: the asker ─► on disk ─► GIVEN
//! ```
//!
//! The asker says what it knows of the giver's and its own ranges: a gift that was lost on the way is told again
//! instead of given twice, and a giver whose store was put back learns so before it gives.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;

use crate::ipam::claim::Claim;
use crate::ipam::fetch::Fetch;
use crate::ipam::message::{CHUNK_RUNS_MAX, Denial, IpamMessage};
use crate::ipam::request::{Failure, IpamRequestId};
use crate::ipam::ring::{Change, Run};
use crate::ipam::space::{donation, free_spans};
use crate::ipam::span::Span;
use crate::ipam::{Contact, Ipam};
use crate::peer::PeerId;

/// An unanswered question goes to somebody else after this time.
const WANT_TIMEOUT: Duration = Duration::from_millis(1500);
/// When all have declined they are asked again after this time: somebody may have freed space.
const WANT_AGAIN: Duration = Duration::from_secs(1);
/// One question for space.
#[derive(Debug, Clone)]
pub(super) struct Question {
    number: u64,
    to: PeerId,
    at: Instant,
}

impl Question {
    /// Whether its answer may still come.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        now < self.at + WANT_TIMEOUT
    }

    pub(super) fn is(&self, number: u64, to: PeerId) -> bool {
        (self.number, self.to) == (number, to)
    }

    pub(super) fn goes_to(&self, peer: PeerId) -> bool {
        self.to == peer
    }
}

/// How far a request has come with its questions.
#[derive(Debug, Clone, Default)]
struct Search {
    open: Option<Question>,
    denied: BTreeMap<PeerId, Denial>,
    again_at: Option<Instant>,
}

/// All questions.
#[derive(Debug, Default)]
pub(crate) struct Exchange {
    numbers: u64,
    searches: BTreeMap<IpamRequestId, Search>,
    /// Misplaced addresses that are asked for.
    pub(super) fetches: BTreeMap<u32, Fetch>,
    /// Peers that went out of reach before they answered: what they gave is perhaps ours, and we do not know of it.
    unanswered: BTreeSet<PeerId>,
}

impl Exchange {
    /// A peer knows of the ring what we know: there is no gift of it that we have not heard of.
    pub(crate) fn is_heard_of(&mut self, peer: PeerId) {
        self.unanswered.remove(&peer);
    }

    /// Questions to peers that are gone are open no longer.
    pub(crate) fn lost(&mut self, contacts: &BTreeMap<PeerId, Contact>) {
        let is_lost = |question: &Option<Question>| {
            question
                .as_ref()
                .is_some_and(|question| !contacts.contains_key(&question.to))
        };
        let searches = self.searches.values_mut().map(|search| &mut search.open);
        let fetches = self.fetches.values_mut().map(Fetch::open_mut);
        for open in searches.chain(fetches) {
            if is_lost(open) {
                let question = open.take();
                self.unanswered.extend(question.map(|question| question.to));
            }
        }
    }
}

impl Ipam {
    /// Owners and voters out of reach that may have given us what we do not know of.
    pub(crate) fn givers_unheard(&self) -> Vec<PeerId> {
        let owners = self.owners();
        let unanswered = self.exchange.unanswered.iter().copied();
        unanswered.filter(|peer| owners.contains(peer)).collect()
    }

    pub(crate) fn give_up(&mut self, request: IpamRequestId) {
        self.exchange.searches.remove(&request);
    }

    /// Asks one peer that may have space, unless a question is open.
    pub(crate) fn ask_for_space(&mut self, request: IpamRequestId, subnet: Ipv4Net, now: Instant) {
        let Some(within) = Span::of(subnet).intersect(self.range()) else {
            return;
        };
        let search = self.exchange.searches.entry(request).or_default();
        if search
            .open
            .as_ref()
            .is_some_and(|question| question.is_open(now))
        {
            return;
        }
        if let Some(question) = search.open.take() {
            search.denied.insert(question.to, Denial::NoRing);
        }
        if search.again_at.is_some_and(|at| now >= at) {
            search.denied.clear();
            search.again_at = None;
        }
        let denied: BTreeSet<PeerId> = search.denied.keys().copied().collect();
        let Some(giver) = self.likely_giver(within, &denied) else {
            let search = self.exchange.searches.entry(request).or_default();
            search.again_at.get_or_insert(now + WANT_AGAIN);
            return;
        };
        let question = self.ask(giver, &[within], false, now);
        self.exchange.searches.entry(request).or_default().open = Some(question);
    }

    /// One of the owners within reach, with chances by what they have.
    fn likely_giver(&mut self, within: Span, denied: &BTreeSet<PeerId>) -> Option<PeerId> {
        let ring = self.ring.as_ref()?;
        let mut weights: BTreeMap<PeerId, u64> = BTreeMap::new();
        for run in ring.runs_in(within) {
            let owner = run.claim.owner();
            let can_ask = owner != self.config.me
                && self.contacts.contains_key(&owner)
                && !denied.contains(&owner);
            if can_ask && let Some(part) = run.span.intersect(within) {
                *weights.entry(owner).or_default() += part.count();
            }
        }
        for (peer, weight) in &mut weights {
            if let Some(free) = self.free.get(peer) {
                *weight = (*weight).min(*free).max(1);
            }
        }
        let total: u64 = weights.values().sum();
        let mut left = self.random.u64().checked_rem(total)?;
        weights.into_iter().find_map(|(peer, weight)| {
            let is_it = left < weight;
            left = left.saturating_sub(weight);
            is_it.then_some(peer)
        })
    }

    /// Asks the owner of an address for it.
    pub(crate) fn ask_for_address(
        &mut self,
        request: IpamRequestId,
        address: Ipv4Addr,
        now: Instant,
    ) {
        let owner = self.ring.as_ref().and_then(|ring| ring.at(address.into()));
        let Some(owner) = owner.map(Claim::owner) else {
            return;
        };
        if owner == self.config.me || !self.contacts.contains_key(&owner) {
            return;
        }
        let search = self.exchange.searches.entry(request).or_default();
        let waits = search
            .open
            .as_ref()
            .is_some_and(|question| now < question.at + WANT_TIMEOUT);
        let pauses = search.again_at.is_some_and(|at| now < at);
        if waits || pauses {
            return;
        }
        search.again_at = None;
        let question = self.ask(owner, &[Span::single(address)], true, now);
        self.exchange.searches.entry(request).or_default().open = Some(question);
    }

    pub(super) fn ask(
        &mut self,
        to: PeerId,
        spans: &[Span],
        exact: bool,
        now: Instant,
    ) -> Question {
        self.exchange.numbers += 1;
        let number = self.exchange.numbers;
        if let Some(ring) = &self.ring {
            let message = IpamMessage::Want {
                number,
                spans: spans.to_vec(),
                exact,
                giver_view: ring.view_of(to),
                taker_view: ring.view_of(self.config.me),
            };
            self.send(to, &message);
        }
        Question {
            number,
            to,
            at: now,
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "`Ipam::message` hands over only the kinds that are read here"
    )]
    pub(crate) fn exchange_message(&mut self, from: PeerId, message: IpamMessage, now: Instant) {
        match message {
            IpamMessage::Want {
                number,
                spans,
                exact,
                giver_view,
                taker_view,
            } => {
                let views = (giver_view, taker_view);
                match self.gift(from, &spans, exact, views) {
                    Ok(gift) => self.give(from, number, &gift, now),
                    Err(denial) => {
                        if denial == Denial::Stale {
                            self.send_ring(from, now);
                        }
                        self.send(from, &IpamMessage::Denied { number, denial });
                    }
                }
            }
            IpamMessage::Given { number, runs } => {
                if self.ring.is_none() {
                    return;
                }
                self.merge_runs(&runs, Some(from), now);
                self.answered(from, number, None, now);
                if number == 0 {
                    self.inherited(from, now);
                }
            }
            IpamMessage::Denied { number, denial } => {
                self.answered(from, number, Some(denial), now);
            }
            _ => {}
        }
    }

    /// What the asker gets.
    fn gift(
        &self,
        asker: PeerId,
        spans: &[Span],
        exact: bool,
        views: ([u8; 16], [u8; 16]),
    ) -> Result<Vec<Span>, Denial> {
        let ring = self.ring.as_ref().ok_or(Denial::NoRing)?;
        if self.cloned || asker == self.config.me {
            return Err(Denial::NoSpace);
        }
        if views != (ring.view_of(self.config.me), ring.view_of(asker)) {
            return Err(Denial::Stale);
        }
        if exact {
            return self.exact_gift(asker, spans);
        }
        let span = *spans.first().ok_or(Denial::NoSpace)?;
        let free = free_spans(&self.usable(), self.holdings.taken(), span);
        // No host can have the first or the last address of a subnet.
        let is_useful = |free: &Span| free.first() < span.last() && free.last() > span.first();
        let gift = donation(&free).filter(|_| free.iter().any(is_useful));
        Ok(vec![gift.ok_or(Denial::NoSpace)?])
    }

    /// As many of these very addresses as are free, and of those that rest what the asker had.
    fn exact_gift(&self, asker: PeerId, spans: &[Span]) -> Result<Vec<Span>, Denial> {
        let mut spendable = self.usable();
        spendable.extend(self.resting_of(asker));
        let taken = self.holdings.taken();
        let is_taken = |span: &Span| taken.range(span.first()..=span.last()).next().is_some();
        let gift: Vec<Span> = spans
            .iter()
            .flat_map(|span| free_spans(&spendable, taken, *span))
            .take(CHUNK_RUNS_MAX)
            .collect();
        match gift.is_empty() {
            false => Ok(gift),
            true if spans.iter().any(is_taken) => Err(Denial::InUse),
            true => Err(Denial::NoSpace),
        }
    }

    /// Makes somebody else the owner; only we may, of what we own.
    pub(crate) fn give(&mut self, to: PeerId, number: u64, gift: &[Span], now: Instant) {
        let Some(ring) = &mut self.ring else {
            return;
        };
        let mut changes: Vec<Change> = Vec::new();
        for gift in gift {
            let own: Vec<Run> = ring.runs_in(*gift).collect();
            for run in own {
                if let Some(part) = run.span.intersect(*gift)
                    && run.claim.owner() == self.config.me
                {
                    let claim = Claim::new(run.claim.version.next_step(), to);
                    changes.extend(ring.join(part, &claim, None));
                }
            }
        }
        let runs: Vec<Run> = changes
            .iter()
            .map(|change| Run {
                span: change.span,
                claim: change.after.clone(),
            })
            .collect();
        self.ring_changes(&changes, None, now);
        self.published.given(&runs);
        self.send(to, &IpamMessage::Given { number, runs });
    }

    /// A question was answered, with a gift if there is no denial.
    fn answered(&mut self, from: PeerId, number: u64, denial: Option<Denial>, now: Instant) {
        let is_it = |search: &&mut Search| {
            let open = search.open.as_ref();
            open.is_some_and(|question| question.is(number, from))
        };
        if let Some(search) = self.exchange.searches.values_mut().find(is_it) {
            search.open = None;
            match denial {
                // The giver compares with us now; the next attempt knows more.
                Some(Denial::Stale) => search.again_at = Some(now + Duration::from_millis(100)),
                Some(denial) => {
                    search.denied.insert(from, denial);
                    search.again_at.get_or_insert(now + WANT_AGAIN);
                }
                None => {}
            }
        }
        self.fetch_answered(from, number, denial, now);
    }

    /// The owner has said that it uses the address itself.
    pub(crate) fn refusal_of(&self, request: IpamRequestId, address: Ipv4Addr) -> Option<Failure> {
        let search = self.exchange.searches.get(&request)?;
        let owner = self.ring.as_ref()?.at(address.into())?.owner();
        (search.denied.get(&owner) == Some(&Denial::InUse)).then(|| self.not_given(address, ""))
    }

    /// What was heard in the search for space.
    pub(crate) fn told_about_space(&self, request: IpamRequestId, subnet: Ipv4Net) -> String {
        let mut lost = BTreeSet::new();
        let mut asked = BTreeSet::new();
        if let Some(ring) = &self.ring {
            for run in ring.runs_in(Span::hosts(subnet)) {
                let owner = run.claim.owner();
                if owner == self.config.me {
                    continue;
                }
                let list = if self.contacts.contains_key(&owner) {
                    &mut asked
                } else {
                    &mut lost
                };
                list.insert(self.label(owner));
            }
        }
        if let Some(search) = self.exchange.searches.get(&request) {
            asked.extend(search.denied.keys().map(|peer| self.label(*peer)));
        }
        let list = |names: BTreeSet<String>| names.into_iter().collect::<Vec<_>>().join(", ");
        let have = if asked.len() == 1 { "has" } else { "have" };
        match (asked.is_empty(), lost.is_empty()) {
            (true, true) => "all addresses are in use".to_owned(),
            (false, true) => format!("{} {have} none to give", list(asked)),
            (true, false) => format!(
                "the rest is owned by {}, out of reach (rmpeer takes over the dead)",
                list(lost)
            ),
            (false, false) => format!(
                "{} {have} none to give; {} cannot be reached (rmpeer takes over the dead)",
                list(asked),
                list(lost)
            ),
        }
    }
}

//! Requests: what can be done at once, what waits for what, and what is said when time is up.
//!
//! ```text
//!  request ─► attempt ─┬─ done ──────────────────────────────► answer (after the write)
//!                      ├─ cannot be ─────────────────────────► failure
//!                      └─ needs a ring, space, votes ─► waits ─► attempt again … deadline: what is missing
//! ```
//!
//! Releasing and looking up never wait. Bound: `PENDING_MAX` requests wait.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::ipam::holdings::ANONYMOUS;
use crate::ipam::removal::RemovalOrder;
use crate::ipam::request::{Failure, IpamRequestId, Reply, Request};
use crate::ipam::six::address_of;
use crate::ipam::space::lowest_free;
use crate::ipam::span::Span;
use crate::ipam::{DEATH_GRACE, Ipam, IpamNotice, IpamOutput, REQUEST_TIMEOUT};
use crate::peer::PeerId;

/// Requests that wait; the API has fewer connections.
const PENDING_MAX: usize = 1024;

/// A request that waits.
#[derive(Debug, Clone)]
pub(crate) struct Pending {
    pub(crate) what: Request,
    deadline: Instant,
    pub(crate) need: Option<Need>,
}

/// What a request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    Ring,
    /// A share of a subnet.
    Space(Ipv4Net),
    /// This address, which another peer owns.
    Address(Ipv4Addr),
    Votes(PeerId),
    Heir,
    /// What we own, which the lost store knew.
    Knowledge,
}

/// What came of an attempt.
enum Attempt {
    Done(Reply),
    Failed(Failure),
    Waits(Need),
}

impl Ipam {
    pub(crate) fn request(
        &mut self,
        request: IpamRequestId,
        what: Request,
        deadline: Option<Instant>,
        now: Instant,
    ) {
        if self.pending.len() >= PENDING_MAX {
            self.answer(request, Err(Failure::Busy));
            return;
        }
        let deadline = deadline.unwrap_or(now + REQUEST_TIMEOUT);
        let need = None;
        self.pending.insert(
            request,
            Pending {
                what,
                deadline,
                need,
            },
        );
        self.advance_request(request, now);
    }

    fn answer(&mut self, request: IpamRequestId, result: Result<Reply, Failure>) {
        self.pending.remove(&request);
        self.gate.stage(IpamOutput::Answer { request, result });
    }

    /// Tries all that waits again.
    pub(crate) fn advance_requests(&mut self, now: Instant) {
        for request in self.pending.keys().copied().collect::<Vec<_>>() {
            self.advance_request(request, now);
        }
    }

    fn advance_request(&mut self, request: IpamRequestId, now: Instant) {
        let Some(pending) = self.pending.get(&request).cloned() else {
            return;
        };
        match self.attempt(request, &pending, now) {
            Attempt::Done(reply) => self.answer(request, Ok(reply)),
            Attempt::Failed(failure) => self.answer(request, Err(failure)),
            Attempt::Waits(need) => {
                if let Some(pending) = self.pending.get_mut(&request) {
                    pending.need = Some(need);
                }
                if now >= pending.deadline {
                    let failure = self.missing_for(request, need);
                    self.give_up(request);
                    self.answer(request, Err(failure));
                    return;
                }
                match need {
                    Need::Ring => self.want_ring(),
                    Need::Space(subnet) => self.ask_for_space(request, subnet, now),
                    Need::Address(address) => self.ask_for_address(request, address, now),
                    Need::Votes(_) | Need::Heir | Need::Knowledge => {}
                }
            }
        }
    }

    fn attempt(&mut self, request: IpamRequestId, pending: &Pending, now: Instant) -> Attempt {
        match &pending.what {
            Request::Allocate { holder, subnet } => {
                let asked = subnet.unwrap_or(self.config.default_subnet);
                let attempt = self.attempt_allocate(request, holder, asked, pending.deadline);
                if subnet.is_none() {
                    self.with_six(holder, attempt)
                } else {
                    attempt
                }
            }
            Request::Claim { holder, address } => self.attempt_claim(request, holder, *address),
            Request::Lookup { holder, subnet } => {
                let found = self.lookup(holder, *subnet);
                Attempt::Done(Reply::Addresses(found))
            }
            Request::Release { holder, address } => {
                self.free(holder, *address);
                Attempt::Done(Reply::Freed { written: true })
            }
            Request::ReleaseAll { holder } => {
                self.free_all(holder);
                Attempt::Done(Reply::Freed { written: true })
            }
            Request::Withdraw { holder } => {
                self.end_waits(holder, &Failure::Withdrawn(holder.clone()));
                Attempt::Done(Reply::Done)
            }
            Request::Present(sight) => {
                self.present(sight, now);
                self.sight = Some(sight.clone());
                Attempt::Done(Reply::Done)
            }
            Request::Prime => match &self.ring {
                Some(_) => Attempt::Done(Reply::Done),
                None => Attempt::Waits(Need::Ring),
            },
            Request::Remove {
                victim,
                force,
                dry_run,
            } => {
                let order = RemovalOrder {
                    victim: *victim,
                    force: *force,
                    dry_run: *dry_run,
                    waited: pending.need.is_some(),
                };
                match self.try_removal(order, now) {
                    Some(Ok(reply)) => Attempt::Done(reply),
                    Some(Err(failure)) => Attempt::Failed(failure),
                    None => Attempt::Waits(Need::Votes(*victim)),
                }
            }
            // The other process lives on what is ours.
            Request::Leave if self.cloned => Attempt::Done(Reply::Left {
                heir: None,
                count: 0,
            }),
            Request::Leave if self.is_relearning() => Attempt::Waits(Need::Knowledge),
            Request::Leave => match self.try_leave(now) {
                Some(reply) => Attempt::Done(reply),
                None => Attempt::Waits(Need::Heir),
            },
        }
    }

    /// Why this host may give no addresses at all now.
    fn barred(&self) -> Option<Failure> {
        if self.cloned {
            Some(Failure::Cloned)
        } else if self.leaving.is_some() {
            Some(Failure::Leaving)
        } else {
            None
        }
    }

    /// What must be there before any address is given.
    fn lacks(&self) -> Option<Need> {
        if self.ring.is_none() {
            Some(Need::Ring)
        } else {
            self.is_relearning().then_some(Need::Knowledge)
        }
    }

    fn attempt_allocate(
        &mut self,
        request: IpamRequestId,
        holder: &str,
        subnet: Ipv4Net,
        deadline: Instant,
    ) -> Attempt {
        let Some(within) = Span::hosts(subnet).intersect(self.range()) else {
            let range = self.config.range;
            return Attempt::Failed(Failure::OutOfBounds { subnet, range });
        };
        self.holdings.lives(holder);
        let held = self.held_in(holder, subnet);
        if let Some(address) = held.iter().find(|ip| !self.is_misplaced(ip.addr().into())) {
            return Attempt::Done(Reply::Addresses(vec![IpNet::V4(*address)]));
        }
        // Also before an address is fetched back: whoever leaves has just handed it over.
        if let Some(failure) = self.barred() {
            return Attempt::Failed(failure);
        }
        // What another peer uses stays blocked until it is off the interface; the holder gets one more.
        if let Some(address) = held.iter().find(|ip| !self.is_refused(ip.addr())) {
            return Attempt::Waits(Need::Address(address.addr()));
        }
        if let Some(need) = self.lacks() {
            return Attempt::Waits(need);
        }
        if !self.holdings.has_room_for(holder) {
            let holder = holder.to_owned();
            return Attempt::Failed(Failure::TooMany { holder });
        }
        let usable = self.usable();
        let Some(address) = lowest_free(&usable, self.holdings.taken(), within) else {
            if self.may_get_space(within, deadline) {
                return Attempt::Waits(Need::Space(subnet));
            }
            let detail = self.told_about_space(request, subnet);
            return Attempt::Failed(Failure::NoSpace { subnet, detail });
        };
        let address = with_prefix(address.into(), subnet);
        if held.is_empty() {
            self.holdings.add(holder, address);
        } else {
            // Whoever asks again gets it, also when what was blocked has come back.
            self.holdings.add_first(holder, address);
        }
        self.give_up(request);
        Attempt::Done(Reply::Addresses(vec![address]))
    }

    /// Whether an address may come of a wait, where none is free here: from another peer, from what rests, or from a
    /// container that is dead.
    fn may_get_space(&self, within: Span, deadline: Instant) -> bool {
        let ours = self.usable().into_iter();
        let ours: u64 = ours
            .filter_map(|span| span.intersect(within))
            .map(Span::count)
            .sum();
        let is_freed = |then| self.holdings.is_any_dead_since(within, then);
        ours < within.count() || deadline.checked_sub(DEATH_GRACE).is_some_and(is_freed)
    }

    /// An address of the default subnet has one of IPv6 beside it, if there is a prefix for that.
    fn with_six(&mut self, holder: &str, attempt: Attempt) -> Attempt {
        match (attempt, self.config.range6) {
            (Attempt::Done(Reply::Addresses(mut addresses)), Some(prefix)) => {
                let six = IpNet::V6(address_of(prefix, self.config.me, holder));
                if self.holdings.has_room_for(holder) {
                    self.holdings.add(holder, six);
                    addresses.push(six);
                }
                Attempt::Done(Reply::Addresses(addresses))
            }
            (attempt, _) => attempt,
        }
    }

    fn attempt_claim(&mut self, request: IpamRequestId, holder: &str, address: IpNet) -> Attempt {
        self.holdings.lives(holder);
        let inside = match address.addr() {
            IpAddr::V4(ip) if self.range().contains(u32::from(ip)) => Some(ip),
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        };
        if let Some(other) = self.holdings.holder_of(address.addr()).map(str::to_owned) {
            let is_ours = other == holder;
            let may_take = other == ANONYMOUS || inside.is_none() && self.holdings.is_dying(&other);
            if !is_ours && !may_take {
                let address = address.addr();
                return Attempt::Failed(Failure::Held {
                    address,
                    holder: other,
                });
            }
            let is_blocked = inside.is_some_and(|ip| self.is_misplaced(ip.into()));
            if !is_blocked {
                self.holdings.add(holder, address);
                return Attempt::Done(Reply::Addresses(vec![address]));
            }
        }
        if !self.holdings.has_room_for(holder) {
            let holder = holder.to_owned();
            return Attempt::Failed(Failure::TooMany { holder });
        }
        if let Some(ip) = inside {
            if let Some(failure) = self.barred() {
                return Attempt::Failed(failure);
            }
            if let Some(need) = self.lacks() {
                return Attempt::Waits(need);
            }
            if !self.usable().iter().any(|span| span.contains(ip.into())) {
                if let Some(failure) = self.refusal_of(request, ip) {
                    self.give_up(request);
                    return Attempt::Failed(failure);
                }
                return Attempt::Waits(Need::Address(ip));
            }
        }
        self.holdings.add(holder, address);
        self.give_up(request);
        Attempt::Done(Reply::Addresses(vec![address]))
    }

    /// What we own, without what rests; nothing before it is known what that is.
    pub(crate) fn usable(&self) -> Vec<Span> {
        if self.is_relearning() {
            return Vec::new();
        }
        let mut usable = self.owned.clone();
        for (rests, _) in &self.settling.spans {
            usable = usable
                .into_iter()
                .flat_map(|span| without(span, *rests))
                .flatten()
                .collect();
        }
        usable
    }

    /// The holder's addresses of a subnet: their own prefixes say of which. Subnets may lie inside each other, and an
    /// address of one is none of the other.
    fn held_in(&self, holder: &str, subnet: Ipv4Net) -> Vec<Ipv4Net> {
        let held = self.holdings.of(holder).iter();
        held.filter_map(|address| match address {
            IpNet::V4(address) if address.trunc() == subnet.trunc() => Some(*address),
            IpNet::V4(_) | IpNet::V6(_) => None,
        })
        .collect()
    }

    /// Whether an address goes with those of the default subnet. One that was given under another prefix than today's
    /// is known by its hash.
    fn is_six_of(&self, holder: &str, address: Ipv6Net) -> bool {
        let prefix = address.trunc();
        self.config.range6 == Some(prefix) || address_of(prefix, self.config.me, holder) == address
    }

    pub(crate) fn lookup(&self, holder: &str, subnet: Option<Ipv4Net>) -> Vec<IpNet> {
        match subnet {
            None => self.holdings.of(holder).to_vec(),
            Some(subnet) => {
                let is_default = subnet == self.config.default_subnet;
                let is_six = |address: &&IpNet| match address {
                    IpNet::V6(address) => is_default && self.is_six_of(holder, *address),
                    IpNet::V4(_) => false,
                };
                let six = self.holdings.of(holder).iter().filter(is_six).copied();
                let held = self.held_in(holder, subnet).into_iter();
                held.map(IpNet::V4).chain(six).collect()
            }
        }
    }

    pub(crate) fn died(&mut self, holder: &str, now: Instant) {
        if self.config.faults.reuse_in_grace {
            self.holdings.remove(holder);
        } else {
            self.holdings.died(holder, now);
        }
        self.end_waits(holder, &Failure::Died(holder.to_owned()));
    }

    /// Answers all that waits for addresses of this holder.
    fn end_waits(&mut self, holder: &str, failure: &Failure) {
        let waiting: Vec<IpamRequestId> =
            self.pending
                .iter()
                .filter(|(_, pending)| match &pending.what {
                    Request::Allocate { holder: other, .. }
                    | Request::Claim { holder: other, .. } => other == holder,
                    Request::Lookup { .. }
                    | Request::Release { .. }
                    | Request::ReleaseAll { .. }
                    | Request::Withdraw { .. }
                    | Request::Present(_)
                    | Request::Prime
                    | Request::Remove { .. }
                    | Request::Leave => false,
                })
                .map(|(request, _)| *request)
                .collect();
        for request in waiting {
            self.give_up(request);
            self.answer(request, Err(failure.clone()));
        }
    }

    pub(crate) fn free_the_dead(&mut self, now: Instant) {
        let Some(then) = now.checked_sub(DEATH_GRACE) else {
            return;
        };
        for holder in self.holdings.dead_since(then) {
            self.holdings.remove(&holder);
            self.notice(IpamNotice::Freed { holder });
        }
        for (holder, address) in self.holdings.unused_since(then) {
            self.holdings.remove_address(address);
            self.notice(IpamNotice::Freed { holder });
        }
    }

    /// Why a request got nothing in its time.
    fn missing_for(&mut self, request: IpamRequestId, need: Need) -> Failure {
        match need {
            Need::Knowledge => self.still_relearning(),
            Need::Ring if self.is_relearning() => self.still_relearning(),
            Need::Ring => self.no_ring(),
            Need::Space(subnet) => Failure::NoSpace {
                subnet,
                detail: self.told_about_space(request, subnet),
            },
            Need::Address(address) => self.not_given(address, ", which cannot be reached"),
            Need::Votes(victim) => self.no_majority(victim),
            Need::Heir => self.no_heir(),
        }
    }

    pub(crate) fn not_given(&self, address: Ipv4Addr, why: &'static str) -> Failure {
        let owner = self.ring.as_ref().and_then(|ring| ring.at(address.into()));
        Failure::OwnedElsewhere {
            address: IpAddr::V4(address),
            owner: owner.map_or_else(String::new, |claim| self.label(claim.owner())),
            why,
        }
    }

    /// The first removal that waits for votes.
    pub(crate) fn wanted_removal(&self) -> Option<PeerId> {
        self.pending
            .values()
            .find_map(|pending| match pending.need {
                Some(Need::Votes(victim)) => Some(victim),
                _ => None,
            })
    }
}

fn with_prefix(address: Ipv4Addr, subnet: Ipv4Net) -> IpNet {
    Ipv4Net::new(address, subnet.prefix_len())
        .unwrap_or(Ipv4Net::from(address))
        .into()
}

/// What is left of a span beside a hole.
pub(crate) fn without(span: Span, hole: Span) -> [Option<Span>; 2] {
    if span.intersect(hole).is_none() {
        return [Some(span), None];
    }
    let before = hole
        .first()
        .checked_sub(1)
        .and_then(|last| Span::new(span.first(), last));
    let after = hole
        .last()
        .checked_add(1)
        .and_then(|first| Span::new(first, span.last()));
    [before, after]
}

//! While the store does not work: nothing is decided or given, and whoever asks is answered at once.
//!
//! ```text
//!  what is on disk already ─► found, and given to its holder again
//!  release ─► off in memory ─► once more when the store works
//!  all else ─► refused
//! ```
//!
//! What is freed stays taken on disk. A crash leaves it with an owner that does not have it on its interface, so that
//! it is freed after [`crate::ipam::DEATH_GRACE`].

use std::net::IpAddr;
use std::time::Instant;

use ipnet::IpNet;

use crate::ipam::request::{Failure, Reply, Request};
use crate::ipam::{Ipam, IpamInput, IpamOutput};

impl Ipam {
    /// The store takes no writes when we start: it is asked for again.
    pub(crate) fn begin_without_store(&mut self) {
        self.store_failed = true;
        self.gate.failed();
    }

    pub(crate) fn handle_without_store(&mut self, input: IpamInput, now: Instant) {
        self.stepped_at = now;
        match input {
            IpamInput::Reloaded(content) => self.reloaded(content, now),
            IpamInput::Reachable(contacts) => {
                // Nothing can be agreed on: who comes now is let through as one that says nothing.
                self.meet(contacts, now);
            }
            IpamInput::Targets(count) => self.election.targets = count,
            IpamInput::Cloned(cloned) => self.cloned = cloned,
            IpamInput::Request { request, what, .. } => {
                let result = self.answer_without_store(what);
                self.gate.at_once(IpamOutput::Answer { request, result });
            }
            IpamInput::Tick
            | IpamInput::Record { .. }
            | IpamInput::Message { .. }
            | IpamInput::Persisted { .. }
            | IpamInput::Cancel(_) => {}
            IpamInput::Died(holder) => self.holdings.died(&holder, now),
            IpamInput::Lives(holder) => self.holdings.lives(&holder),
        }
        self.tell_flows(now);
    }

    fn answer_without_store(&mut self, what: Request) -> Result<Reply, Failure> {
        match what {
            Request::Lookup { holder, subnet } => {
                Ok(Reply::Addresses(self.lookup(&holder, subnet)))
            }
            Request::Allocate { holder, subnet } => {
                let within = subnet.unwrap_or(self.config.default_subnet);
                let held = self.lookup(&holder, Some(within));
                let (mut four, six): (Vec<_>, Vec<_>) = held
                    .into_iter()
                    .partition(|address| address.addr().is_ipv4());
                four.truncate(1);
                let is_held = !four.is_empty();
                let of_today = |six: &IpNet| {
                    let range = self.config.range6.filter(|_| subnet.is_none());
                    range.is_some_and(|range| IpNet::V6(range).contains(six))
                };
                let six = six.into_iter().filter(of_today);
                let held = four.into_iter().chain(six).collect();
                self.given_before(&holder, held, is_held)
            }
            Request::Claim { holder, address } => {
                let is_held = self.holdings.holder_of(address.addr()) == Some(&*holder);
                self.given_before(&holder, vec![address], is_held)
            }
            Request::Release { holder, address } => {
                self.free(&holder, address);
                Ok(Reply::Freed { written: false })
            }
            Request::ReleaseAll { holder } => {
                self.free_all(&holder);
                Ok(Reply::Freed { written: false })
            }
            // Nothing waits.
            Request::Withdraw { .. } => Ok(Reply::Done),
            Request::Present(sight) => {
                self.sight = Some(sight);
                Ok(Reply::Done)
            }
            Request::Prime if self.ring.is_some() => Ok(Reply::Done),
            Request::Prime | Request::Remove { .. } | Request::Leave => Err(Failure::Store),
        }
    }

    /// What a holder has on disk it gets again; what may not be there, or must not be on the wire, it does not.
    fn given_before(
        &self,
        holder: &str,
        held: Vec<IpNet>,
        is_held: bool,
    ) -> Result<Reply, Failure> {
        let is_blocked = held.iter().any(|address| match address.addr() {
            IpAddr::V4(ip) => self.is_misplaced(ip.into()),
            IpAddr::V6(_) => false,
        });
        if is_held && !is_blocked && self.gate.is_written(holder) {
            Ok(Reply::Addresses(held))
        } else {
            Err(Failure::Store)
        }
    }

    /// The store works again: what was freed meanwhile is freed there.
    pub(crate) fn free_again(&mut self) {
        for (holder, address) in self.gate.unwritten_frees() {
            self.free(&holder, address);
        }
    }

    /// Frees an address if this holder has it.
    pub(crate) fn free(&mut self, holder: &str, address: IpAddr) {
        if self.holdings.holder_of(address) == Some(holder) {
            self.holdings.remove_address(address);
            self.gate.frees(holder, address);
        }
    }

    pub(crate) fn free_all(&mut self, holder: &str) {
        for address in self.holdings.of(holder).to_vec() {
            self.free(holder, address.addr());
        }
    }
}

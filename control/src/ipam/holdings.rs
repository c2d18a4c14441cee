//! Which addresses are in use on this host, by whom, and since when their owner is dead.
//!
//! Each owner (a container's id, `weave:expose`) has a list of addresses in the order in which it got them; an
//! address has one owner. Bounds: `HOLDERS_MAX` owners, `ADDRESSES_PER_HOLDER_MAX` addresses each, names of at most
//! `HOLDER_LEN_MAX` bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use ipnet::IpNet;

use crate::ipam::span::Span;

/// Owners on one host: far above the containers that one machine runs.
pub(crate) const HOLDERS_MAX: usize = 65_536;
/// Addresses of one owner, as of one interface.
pub(crate) const ADDRESSES_PER_HOLDER_MAX: usize = 64;
/// Bytes of an owner's name: Docker's ids have 64, paths of namespaces may be long.
pub(crate) const HOLDER_LEN_MAX: usize = 512;
/// The owner of addresses that were found in use without a name.
pub const ANONYMOUS: &str = "_";
/// The owner of the host's own addresses outside the network that lie in its range: they are given to nobody, and never
/// blocked.
pub const HOST: &str = "weave:host";

/// What one owner has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Holding {
    pub(crate) addresses: Vec<IpNet>,
    /// Set when its container died; its addresses are free some time after.
    pub(crate) died_at: Option<Instant>,
    /// Addresses that are not on its interface, and since when; as of dead containers.
    unused: BTreeMap<IpAddr, Instant>,
}

/// All owners.
#[derive(Debug, Clone, Default)]
pub(crate) struct Holdings {
    holders: BTreeMap<String, Holding>,
    taken: BTreeMap<u32, String>,
    /// Owners whose lists are to be written.
    changed: BTreeSet<String>,
}

impl Holdings {
    /// The IPv4 addresses in use.
    pub(crate) fn taken(&self) -> &BTreeMap<u32, String> {
        &self.taken
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, &Holding)> {
        self.holders
            .iter()
            .map(|(holder, holding)| (holder.as_str(), holding))
    }

    pub(crate) fn of(&self, holder: &str) -> &[IpNet] {
        self.holders
            .get(holder)
            .map_or(&[], |holding| holding.addresses.as_slice())
    }

    pub(crate) fn is_dying(&self, holder: &str) -> bool {
        self.holders
            .get(holder)
            .is_some_and(|holding| holding.died_at.is_some())
    }

    /// The owner of an address.
    pub(crate) fn holder_of(&self, address: IpAddr) -> Option<&str> {
        match address {
            IpAddr::V4(address) => self.taken.get(&u32::from(address)).map(String::as_str),
            IpAddr::V6(_) => self
                .holders
                .iter()
                .find(|(_, holding)| holding.addresses.iter().any(|held| held.addr() == address))
                .map(|(holder, _)| holder.as_str()),
        }
    }

    /// Addresses in use inside a span.
    pub(crate) fn count_in(&self, span: Span) -> u64 {
        self.taken.range(span.first()..=span.last()).count() as u64
    }

    /// Whether one more address fits.
    pub(crate) fn has_room_for(&self, holder: &str) -> bool {
        match self.holders.get(holder) {
            Some(holding) => holding.addresses.len() < ADDRESSES_PER_HOLDER_MAX,
            None => self.holders.len() < HOLDERS_MAX && holder.len() <= HOLDER_LEN_MAX,
        }
    }

    /// Notes an address; one that somebody else has is taken from it.
    pub(crate) fn add(&mut self, holder: &str, address: IpNet) {
        if self.holder_of(address.addr()) == Some(holder) {
            return;
        }
        self.remove_address(address.addr());
        let holding = self.holders.entry(holder.to_owned()).or_default();
        holding.addresses.push(address);
        if let IpAddr::V4(ip) = address.addr() {
            self.taken.insert(u32::from(ip), holder.to_owned());
        }
        self.changed.insert(holder.to_owned());
    }

    /// The same, before those that the holder has.
    pub(crate) fn add_first(&mut self, holder: &str, address: IpNet) {
        self.add(holder, address);
        if let Some(holding) = self.holders.get_mut(holder) {
            holding.addresses.retain(|held| *held != address);
            holding.addresses.insert(0, address);
        }
    }

    /// Frees one address, whoever has it; says whether there was one.
    pub(crate) fn remove_address(&mut self, address: IpAddr) -> bool {
        let Some(holder) = self.holder_of(address).map(str::to_owned) else {
            return false;
        };
        if let Some(holding) = self.holders.get_mut(&holder) {
            holding.addresses.retain(|held| held.addr() != address);
            holding.unused.remove(&address);
            if holding.addresses.is_empty() {
                self.holders.remove(&holder);
            }
        }
        if let IpAddr::V4(ip) = address {
            self.taken.remove(&u32::from(ip));
        }
        self.changed.insert(holder);
        true
    }

    /// Frees all that an owner has.
    pub(crate) fn remove(&mut self, holder: &str) {
        for address in self.of(holder).to_vec() {
            self.remove_address(address.addr());
        }
    }

    /// The owner's container died.
    pub(crate) fn died(&mut self, holder: &str, now: Instant) {
        if let Some(holding) = self.holders.get_mut(holder) {
            holding.died_at.get_or_insert(now);
        }
    }

    /// The owner's container lives, and asks for addresses: what it has it may be about to use.
    pub(crate) fn lives(&mut self, holder: &str) {
        if let Some(holding) = self.holders.get_mut(holder) {
            holding.died_at = None;
            holding.unused.clear();
        }
    }

    /// The owner's interface was looked at and has these addresses, with these prefixes.
    pub(crate) fn seen(&mut self, holder: &str, addresses: &[IpNet], now: Instant) {
        if let Some(holding) = self.holders.get_mut(holder) {
            holding.died_at = None;
            for held in &mut holding.addresses {
                let found = addresses.iter().find(|seen| seen.addr() == held.addr());
                if let Some(found) = found.filter(|_| !addresses.contains(held)) {
                    *held = *found;
                    self.changed.insert(holder.to_owned());
                }
            }
            let held = holding.addresses.iter().map(IpNet::addr);
            let unused = held.filter(|held| !addresses.iter().any(|seen| seen.addr() == *held));
            holding.unused = unused
                .map(|address| {
                    (
                        address,
                        holding.unused.get(&address).copied().unwrap_or(now),
                    )
                })
                .collect();
        }
    }

    /// Addresses that were not on their owners' interfaces since before `then`.
    pub(crate) fn unused_since(&self, then: Instant) -> Vec<(String, IpAddr)> {
        let unused = self.holders.iter().flat_map(|(holder, holding)| {
            let unused = holding.unused.iter().map(|(ip, since)| (*ip, *since));
            unused.map(move |(ip, since)| (holder, ip, since))
        });
        unused
            .filter(|(_, _, since)| *since <= then)
            .map(|(holder, ip, _)| (holder.clone(), ip))
            .collect()
    }

    /// The dead owners and when they died; the store does not know of it.
    pub(crate) fn deaths(&self) -> Vec<(String, Instant)> {
        let dead = self.holders.iter();
        dead.filter_map(|(holder, holding)| Some((holder.clone(), holding.died_at?)))
            .collect()
    }

    /// The owners dead since before `then`.
    pub(crate) fn dead_since(&self, then: Instant) -> Vec<String> {
        self.holders
            .iter()
            .filter(|(_, holding)| holding.died_at.is_some_and(|died| died <= then))
            .map(|(holder, _)| holder.clone())
            .collect()
    }

    /// Whether an address in a span is one whose owner is dead, or that was not on its owner's interface, since before
    /// `then`.
    pub(crate) fn is_any_dead_since(&self, span: Span, then: Instant) -> bool {
        self.in_span(span).any(|(address, holder)| {
            self.holders.get(holder).is_some_and(|holding| {
                let unused = holding.unused.get(&IpAddr::V4(address));
                holding.died_at.iter().chain(unused).any(|at| *at <= then)
            })
        })
    }

    /// When the one that died first did, or the first address fell out of use.
    pub(crate) fn first_death(&self) -> Option<Instant> {
        self.holders
            .values()
            .flat_map(|holding| {
                holding
                    .died_at
                    .into_iter()
                    .chain(holding.unused.values().copied())
            })
            .min()
    }

    /// IPv4 addresses of the range in use, with their owners.
    pub(crate) fn in_span(&self, span: Span) -> impl Iterator<Item = (Ipv4Addr, &str)> {
        self.taken
            .range(span.first()..=span.last())
            .map(|(address, holder)| (Ipv4Addr::from(*address), holder.as_str()))
    }

    /// All lists are to be written.
    pub(crate) fn all_changed(&mut self) {
        self.changed.extend(self.holders.keys().cloned());
    }

    /// Hands out the owners whose lists changed since the last call.
    pub(crate) fn drain_changed(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_one_owner_and_owners_keep_their_order() {
        let mut holdings = Holdings::default();
        holdings.add("a", net("10.2.1.9/24"));
        holdings.add("a", net("10.2.1.3/24"));
        holdings.add("a", net("fd00::1/64"));
        holdings.add("b", net("10.2.1.9/24"));

        assert_eq!(holdings.of("a"), [net("10.2.1.3/24"), net("fd00::1/64")]);
        assert_eq!(holdings.holder_of("10.2.1.9".parse().unwrap()), Some("b"));
        assert_eq!(holdings.holder_of("fd00::1".parse().unwrap()), Some("a"));
        assert!(holdings.remove_address("10.2.1.9".parse().unwrap()));
        assert!(!holdings.remove_address("10.2.1.9".parse().unwrap()));
        holdings.remove("a");
        assert_eq!(holdings.all().count() + holdings.taken().len(), 0);
        assert_eq!(holdings.drain_changed().len(), 2);
        assert!(holdings.drain_changed().is_empty());
    }

    #[test]
    fn the_interface_says_of_which_subnet_an_address_is() {
        let mut holdings = Holdings::default();
        holdings.add("a", net("10.2.1.9/24"));
        holdings.add("a", net("10.2.1.3/24"));
        holdings.drain_changed();
        let now = crate::ipam::sim::first_instant();

        let both = [net("10.2.1.9/16"), net("10.2.1.9/24")];
        holdings.seen("a", &both, now);
        assert!(holdings.drain_changed().is_empty());
        holdings.seen("a", &both[..1], now);
        assert_eq!(holdings.of("a"), [net("10.2.1.9/16"), net("10.2.1.3/24")]);
        assert_eq!(holdings.drain_changed().len(), 1);
    }

    #[test]
    fn nobody_has_more_addresses_than_an_interface() {
        let mut holdings = Holdings::default();
        for n in 0..ADDRESSES_PER_HOLDER_MAX {
            assert!(holdings.has_room_for("a"));
            holdings.add("a", net(&format!("10.2.1.{n}/24")));
        }
        assert!(!holdings.has_room_for("a"));
        assert!(!holdings.has_room_for(&"x".repeat(HOLDER_LEN_MAX + 1)));
    }
}

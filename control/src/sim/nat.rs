//! A NAT: one public address, mappings for the hosts behind it, and whom it lets in.
//!
//! ```text
//!  kind             a mapping for                 lets in
//!  FullCone         each address inside           everybody
//!  PortRestricted   each address inside           whom that address has sent to
//!  Symmetric        each pair of addresses        whom the mapping was made for
//!  Remembering      each address inside, but      whom the mapping was used for
//!                   another for strangers whose
//!                   datagrams it remembers
//! ```
//!
//! RFC 4787 calls them endpoint-independent and address-and-port-dependent mapping and filtering. `Remembering` is
//! Linux whose own firewall lets strangers in: to each it keeps the address free at which the stranger has spoken to it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::HostId;

/// A mapping that nothing used for so long is gone: what many home routers do, and RFC 4787 forbids.
const MAPPING_LIFE: Duration = Duration::from_secs(30);
/// The first port given out.
const FIRST_PORT: u16 = 20_000;

/// How a NAT maps and filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NatKind {
    FullCone,
    PortRestricted,
    Symmetric,
    Remembering,
}

struct Mapping {
    inside: SocketAddr,
    host: HostId,
    /// Whom the address inside has sent to through this mapping.
    contacts: BTreeSet<SocketAddr>,
    used_at: Instant,
}

/// One NAT.
pub(super) struct Nat {
    kind: NatKind,
    pub(super) public: IpAddr,
    /// By the address inside and, if symmetric, the one outside.
    ports: BTreeMap<(SocketAddr, Option<SocketAddr>), u16>,
    mappings: BTreeMap<u16, Mapping>,
    /// When strangers last spoke to a port.
    strangers: BTreeMap<(u16, SocketAddr), Instant>,
    next_port: u16,
}

impl Nat {
    pub(super) fn new(kind: NatKind, public: IpAddr) -> Self {
        Self {
            kind,
            public,
            ports: BTreeMap::new(),
            mappings: BTreeMap::new(),
            strangers: BTreeMap::new(),
            next_port: FIRST_PORT,
        }
    }

    /// The source address of what a host inside sends to `to`, as the outside sees it.
    pub(super) fn outbound(
        &mut self,
        host: HostId,
        inside: SocketAddr,
        to: SocketAddr,
        now: Instant,
    ) -> SocketAddr {
        let apart = self.kind == NatKind::Symmetric || self.is_taken(inside, to, now);
        let key = (inside, apart.then_some(to));
        let known = self.living(key, now);
        let port = known.unwrap_or_else(|| self.map(key, host, now));
        if let Some(mapping) = self.mappings.get_mut(&port) {
            mapping.used_at = now;
            mapping.contacts.insert(to);
        }
        SocketAddr::new(self.public, port)
    }

    fn living(&self, key: (SocketAddr, Option<SocketAddr>), now: Instant) -> Option<u16> {
        let port = self.ports.get(&key).copied();
        port.filter(|port| {
            self.mappings
                .get(port)
                .is_some_and(|mapping| now < mapping.used_at + MAPPING_LIFE)
        })
    }

    /// Whether the address inside needs a mapping of its own to speak to a stranger, or has one.
    fn is_taken(&self, inside: SocketAddr, to: SocketAddr, now: Instant) -> bool {
        let remembered = |port| {
            let spoke = self.strangers.get(&(port, to));
            spoke.is_some_and(|at| now < *at + MAPPING_LIFE)
        };
        self.kind == NatKind::Remembering
            && (self.living((inside, None), now).is_some_and(remembered)
                || self.living((inside, Some(to)), now).is_some())
    }

    fn map(&mut self, key: (SocketAddr, Option<SocketAddr>), host: HostId, now: Instant) -> u16 {
        let port = self.next_port;
        self.next_port = self.next_port.checked_add(1).unwrap_or(FIRST_PORT);
        if let Some(old) = self.ports.insert(key, port) {
            self.mappings.remove(&old);
        }
        self.mappings.insert(
            port,
            Mapping {
                inside: key.0,
                host,
                contacts: BTreeSet::new(),
                used_at: now,
            },
        );
        port
    }

    /// The host inside that a datagram from `from` to `port` reaches, and its address there.
    pub(super) fn inbound(
        &mut self,
        port: u16,
        from: SocketAddr,
        now: Instant,
    ) -> Option<(HostId, SocketAddr)> {
        let mapping = self
            .mappings
            .get_mut(&port)
            .filter(|mapping| now < mapping.used_at + MAPPING_LIFE)?;
        let admitted = self.kind == NatKind::FullCone || mapping.contacts.contains(&from);
        if !admitted {
            self.strangers.insert((port, from), now);
            return None;
        }
        mapping.used_at = now;
        Some((mapping.host, mapping.inside))
    }

    /// The host inside that has this port.
    pub(super) fn whose(&self, port: u16) -> Option<HostId> {
        self.mappings.get(&port).map(|mapping| mapping.host)
    }

    /// Forgets every mapping, as after a restart; new ones have other ports.
    pub(super) fn forget(&mut self) {
        self.ports.clear();
        self.strangers.clear();
        self.mappings.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::first_instant;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn nat(kind: NatKind) -> Nat {
        Nat::new(kind, "198.51.100.1".parse().unwrap())
    }

    #[test]
    fn a_cone_maps_one_address_once_and_a_symmetric_one_for_each_destination() {
        let now = first_instant();
        for (kind, same) in [
            (NatKind::FullCone, true),
            (NatKind::PortRestricted, true),
            (NatKind::Symmetric, false),
        ] {
            let mut nat = nat(kind);
            let first = nat.outbound(0, at("10.0.0.2:6783"), at("192.0.2.1:6783"), now);
            let again = nat.outbound(0, at("10.0.0.2:6783"), at("192.0.2.1:6783"), now);
            let other = nat.outbound(0, at("10.0.0.2:6783"), at("192.0.2.2:6783"), now);
            assert_eq!(first, again);
            assert_eq!(first == other, same, "{kind:?}");
        }
    }

    #[test]
    fn only_a_full_cone_lets_strangers_in() {
        let now = first_instant();
        for (kind, admitted) in [
            (NatKind::FullCone, true),
            (NatKind::PortRestricted, false),
            (NatKind::Symmetric, false),
        ] {
            let mut nat = nat(kind);
            let outside = nat.outbound(3, at("10.0.0.2:6783"), at("192.0.2.1:6783"), now);
            let friend = nat.inbound(outside.port(), at("192.0.2.1:6783"), now);
            let stranger = nat.inbound(outside.port(), at("192.0.2.2:6783"), now);
            assert_eq!(friend, Some((3, at("10.0.0.2:6783"))));
            assert_eq!(stranger.is_some(), admitted, "{kind:?}");
        }
    }

    #[test]
    fn one_that_remembers_strangers_speaks_to_them_from_elsewhere() {
        let now = first_instant();
        let mut nat = nat(NatKind::Remembering);
        let (inside, stranger) = (at("10.0.0.2:6783"), at("192.0.2.2:6783"));
        let known = nat.outbound(0, inside, at("192.0.2.1:6783"), now);
        assert_eq!(nat.inbound(known.port(), stranger, now), None);
        let answer = nat.outbound(0, inside, stranger, now);
        assert_ne!(answer, known);
        assert_eq!(nat.inbound(known.port(), stranger, now), None);

        let later = now + MAPPING_LIFE;
        let known = nat.outbound(0, inside, at("192.0.2.1:6783"), later);
        assert_eq!(
            nat.outbound(0, inside, stranger, later + MAPPING_LIFE / 2),
            known
        );
    }

    #[test]
    fn an_unused_mapping_dies_and_the_next_has_another_port() {
        let now = first_instant();
        let mut nat = nat(NatKind::FullCone);
        let first = nat.outbound(0, at("10.0.0.2:6783"), at("192.0.2.1:6783"), now);
        let later = now + MAPPING_LIFE;

        assert_eq!(nat.inbound(first.port(), at("192.0.2.1:6783"), later), None);
        let second = nat.outbound(0, at("10.0.0.2:6783"), at("192.0.2.1:6783"), later);
        assert_ne!(first, second);
    }
}

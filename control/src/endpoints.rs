//! Where a peer may be found: its addresses, as it and others see them, and whether its NAT plays along.
//!
//! ```text
//!  field 1   addresses of the UDP port, best first, 18 bytes each: IPv6 (or mapped IPv4), port
//!  field 2   flags: 1 each destination sees another port (symmetric NAT)
//! ```
//!
//! The same bytes are the body of an ENDPOINTS record and of a PUNCH message. [`OwnEndpoints`] gathers what we say
//! of ourselves: interface addresses, and what peers on living paths observe. Two of them that see one address of
//! ours with two ports have found a symmetric NAT. Bounds: `config::ENDPOINTS_MAX`, `OBSERVERS_MAX`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::config::{ENDPOINTS_MAX, OBSERVERS_MAX};
use crate::fields::{FieldError, FieldWriter, Fields};
use crate::peer::PeerId;

mod field {
    pub(super) const ADDRESSES: u8 = 1;
    pub(super) const FLAGS: u8 = 2;
}

const SYMMETRIC: u8 = 1;
const ADDRESS_LEN: usize = 18;

/// Where a peer says it may be found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Endpoints {
    /// Best first.
    pub(crate) addresses: Vec<SocketAddr>,
    /// No address that another host saw is of use to us.
    pub(crate) symmetric: bool,
}

impl Endpoints {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut addresses = Vec::with_capacity(self.addresses.len() * ADDRESS_LEN);
        for address in &self.addresses {
            let ip = match address.ip() {
                IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                IpAddr::V6(ip) => ip,
            };
            addresses.extend_from_slice(&ip.octets());
            addresses.extend_from_slice(&address.port().to_be_bytes());
        }
        let flags = if self.symmetric { SYMMETRIC } else { 0 };
        FieldWriter::default()
            .put(field::ADDRESSES, &addresses)
            .put(field::FLAGS, &[flags])
            .finish()
    }

    pub(crate) fn parse(body: &[u8]) -> Result<Self, FieldError> {
        let fields = Fields::parse(body)?;
        let bytes = fields.find(field::ADDRESSES).unwrap_or_default();
        let entries = bytes.as_chunks::<ADDRESS_LEN>().0;
        let flags = fields.find(field::FLAGS).and_then(<[u8]>::first);
        Ok(Self {
            addresses: entries
                .iter()
                .filter_map(parse_address)
                .filter(|address| is_plausible(*address))
                .take(ENDPOINTS_MAX)
                .collect(),
            symmetric: flags.is_some_and(|flags| flags & SYMMETRIC != 0),
        })
    }
}

fn parse_address(entry: &[u8; ADDRESS_LEN]) -> Option<SocketAddr> {
    let (ip, port) = entry.split_first_chunk::<16>()?;
    let port = u16::from_be_bytes(port.try_into().ok()?);
    Some(SocketAddr::new(Ipv6Addr::from(*ip).to_canonical(), port))
}

/// Whether another host may be told to look there: no address that means this very host, or everybody.
fn is_plausible(address: SocketAddr) -> bool {
    let ip = address.ip();
    let special = match ip {
        IpAddr::V4(ip) => ip.is_broadcast() || ip.is_link_local(),
        // A link-local address says nothing without the interface, which is another one at the other end.
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    address.port() != 0
        && !ip.is_unspecified()
        && !ip.is_multicast()
        && !ip.is_loopback()
        && !special
}

/// What we know of our own addresses.
#[derive(Debug, Default)]
pub(crate) struct OwnEndpoints {
    port: u16,
    local: Vec<IpAddr>,
    observed: BTreeMap<PeerId, SocketAddr>,
}

impl OwnEndpoints {
    pub(crate) fn new(port: u16) -> Self {
        Self {
            port,
            ..Self::default()
        }
    }

    /// The addresses of the host's underlay interfaces; true if that is news.
    pub(crate) fn set_local(&mut self, addresses: &[IpAddr]) -> bool {
        let before = self.endpoints();
        let distinct: BTreeSet<_> = addresses.iter().map(IpAddr::to_canonical).collect();
        self.local = distinct.into_iter().collect();
        before != self.endpoints()
    }

    /// Where a peer sees our datagrams come from; true if that is news.
    pub(crate) fn observed_by(&mut self, peer: PeerId, address: SocketAddr) -> bool {
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        let before = self.endpoints();
        if self.observed.contains_key(&peer) || self.observed.len() < OBSERVERS_MAX {
            self.observed.insert(peer, address);
        }
        before != self.endpoints()
    }

    /// Where a peer last saw them come from.
    pub(crate) fn seen_by(&self, peer: PeerId) -> Option<SocketAddr> {
        self.observed.get(&peer).copied()
    }

    /// The path to the peer is gone: what it saw may no longer be so. True if that is news.
    pub(crate) fn unobserved_by(&mut self, peer: PeerId) -> bool {
        let before = self.endpoints();
        self.observed.remove(&peer).is_some() && before != self.endpoints()
    }

    /// Whether somebody sees us at an address that we do not have ourselves.
    pub(crate) fn is_behind_nat(&self) -> bool {
        self.translated().next().is_some()
    }

    fn translated(&self) -> impl Iterator<Item = SocketAddr> {
        self.observed
            .values()
            .copied()
            .filter(|seen| !self.local.contains(&seen.ip()) && is_plausible(*seen))
    }

    /// What we tell others: what peers observe first, as it works from anywhere.
    pub(crate) fn endpoints(&self) -> Endpoints {
        let seen: BTreeSet<_> = self.translated().collect();
        let mut ports: BTreeMap<IpAddr, BTreeSet<u16>> = BTreeMap::new();
        for address in &seen {
            ports
                .entry(address.ip())
                .or_default()
                .insert(address.port());
        }
        let local = self
            .local
            .iter()
            .map(|ip| SocketAddr::new(*ip, self.port))
            .filter(|address| is_plausible(*address));
        let mut addresses: Vec<_> = seen.iter().copied().take(ENDPOINTS_MAX / 2).collect();
        addresses.extend(local);
        addresses.truncate(ENDPOINTS_MAX);
        Endpoints {
            addresses,
            symmetric: ports.values().any(|ports| ports.len() > 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn peer(n: u8) -> PeerId {
        PeerId([n; 16])
    }

    #[test]
    fn the_bytes_are_these_for_ever() {
        let endpoints = Endpoints {
            addresses: vec![at("192.0.2.1:6783"), at("[2001:db8::1]:7000")],
            symmetric: true,
        };
        let bytes = endpoints.encode();
        assert_eq!(&bytes[..3], b"\x01\x00\x24");
        assert_eq!(&bytes[13..21], b"\xff\xff\xc0\x00\x02\x01\x1a\x7f");
        assert_eq!(&bytes[39..], b"\x02\x00\x01\x01");
        assert_eq!(Endpoints::parse(&bytes), Ok(endpoints));
    }

    #[test]
    fn nobody_is_sent_to_impossible_addresses() {
        let endpoints = Endpoints {
            addresses: [
                "127.0.0.1:1",
                "0.0.0.0:1",
                "224.0.0.1:1",
                "192.0.2.1:0",
                "[fe80::1]:1",
                "255.255.255.255:1",
                "192.0.2.1:1",
            ]
            .map(at)
            .to_vec(),
            symmetric: false,
        };
        let heard = Endpoints::parse(&endpoints.encode()).unwrap();
        assert_eq!(heard.addresses, [at("192.0.2.1:1")]);
    }

    #[test]
    fn a_nat_shows_by_what_others_see() {
        let mut own = OwnEndpoints::new(6783);
        assert!(own.set_local(&["10.0.0.5".parse().unwrap()]));
        assert!(
            !own.observed_by(peer(1), at("10.0.0.5:6783")),
            "nothing new"
        );
        assert!(!own.is_behind_nat());

        assert!(own.observed_by(peer(2), at("198.51.100.1:4000")));
        assert!(own.is_behind_nat() && !own.endpoints().symmetric);
        assert_eq!(
            own.endpoints().addresses,
            [at("198.51.100.1:4000"), at("10.0.0.5:6783")]
        );

        assert!(own.observed_by(peer(3), at("198.51.100.1:4001")));
        assert!(own.endpoints().symmetric);
        assert!(own.unobserved_by(peer(2)));
        assert!(!own.endpoints().symmetric);
    }

    #[test]
    fn observers_are_bounded() {
        let mut own = OwnEndpoints::new(6783);
        for n in 0..2 * OBSERVERS_MAX {
            let port = u16::try_from(n + 1).unwrap();
            let mut id = [0; 16];
            id[..8].copy_from_slice(&n.to_be_bytes());
            own.observed_by(PeerId(id), SocketAddr::new(at("192.0.2.1:1").ip(), port));
        }
        assert_eq!(own.observed.len(), OBSERVERS_MAX);
        assert!(own.endpoints().addresses.len() <= ENDPOINTS_MAX);
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(bytes: Vec<u8>) {
            if let Ok(endpoints) = Endpoints::parse(&bytes) {
                prop_assert_eq!(Endpoints::parse(&endpoints.encode()), Ok(endpoints));
            }
        }
    }
}

//! The network below: who has which address, how long a way takes, what is lost, cut or translated.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::HostId;
use super::nat::{Nat, NatKind};
use crate::config::LINK_RESENT_WITHIN;
use crate::random::Randomness;

/// Where addresses mean something: 0 is the public network, n + 1 what lies behind NAT n.
pub(super) type Realm = usize;
/// One NAT.
pub(crate) type NatId = usize;

/// The first wait of TCP before it sends again, beyond the round trip (Linux, `TCP_RTO_MIN`).
const RETRANSMIT_MIN: Duration = Duration::from_millis(200);
/// TCP sends no segment again for longer.
const RETRANSMIT_TOTAL_MAX: Duration = Duration::from_secs(120);
/// Bytes of one TCP segment.
const SEGMENT_LEN: usize = 1448;

#[derive(Clone, Copy)]
enum Place {
    Host(HostId),
    Nat(NatId),
}

/// How the network treats what is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weather {
    /// Share of datagrams and TCP segments that are lost, 0 to 1.
    pub(crate) loss: f64,
    /// Share of datagrams that arrive twice.
    pub(crate) duplication: f64,
    /// Share of datagrams that arrive much later than the rest.
    pub(crate) reordering: f64,
    /// By how much a latency may be off, in percent.
    pub(crate) jitter_percent: u32,
}

impl Default for Weather {
    fn default() -> Self {
        Self {
            loss: 0.0,
            duplication: 0.0,
            reordering: 0.0,
            jitter_percent: 50,
        }
    }
}

/// The network below the simulated hosts.
#[derive(Default)]
pub(crate) struct Underlay {
    places: HashMap<(Realm, IpAddr), Place>,
    nats: Vec<Nat>,
    realms: Vec<Realm>,
    latencies: BTreeMap<(HostId, HostId), Duration>,
    cuts: BTreeSet<(HostId, HostId)>,
    sides: Vec<u8>,
    pub(crate) weather: Weather,
}

/// The address of the n-th host: 192.0.2.(n + 1), and beyond 254 of them out of 198.18.0.0/15.
pub(crate) fn address_of(host: HostId) -> Ipv4Addr {
    match u8::try_from(host + 1) {
        Ok(last) if last < 255 => Ipv4Addr::new(192, 0, 2, last),
        _ => {
            let bits = u32::try_from(host).expect("fewer hosts than addresses");
            Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(198, 18, 0, 0)) + bits)
        }
    }
}

impl Underlay {
    /// Gives a host a place and says its address.
    pub(super) fn settle(&mut self, host: HostId, behind: Option<NatId>) -> IpAddr {
        let realm = behind.map_or(0, |nat| nat + 1);
        let address = match behind {
            None => address_of(host),
            Some(_) => {
                let public = address_of(host).octets();
                Ipv4Addr::new(10, public[1], public[2], public[3])
            }
        };
        self.realms.push(realm);
        self.places
            .insert((realm, address.into()), Place::Host(host));
        address.into()
    }

    pub(super) fn add_nat(&mut self, kind: NatKind) -> NatId {
        let nat = self.nats.len();
        let last = u8::try_from(nat + 1).expect("fewer NATs than addresses");
        let public = Ipv4Addr::new(198, 51, 100, last).into();
        self.nats.push(Nat::new(kind, public));
        self.places.insert((0, public), Place::Nat(nat));
        nat
    }

    pub(super) fn nat_mut(&mut self, nat: NatId) -> &mut Nat {
        &mut self.nats[nat]
    }

    pub(super) fn is_behind(&self, host: HostId, nat: NatId) -> bool {
        self.realms[host] == nat + 1
    }

    /// What a host sends to `to`: the realm in which that is looked up, and the source as seen there.
    pub(super) fn outbound(
        &mut self,
        host: HostId,
        from: SocketAddr,
        to: SocketAddr,
        now: Instant,
    ) -> (Realm, SocketAddr) {
        let realm = self.realms[host];
        match realm.checked_sub(1) {
            Some(nat) if !self.places.contains_key(&(realm, to.ip())) => {
                (0, self.nats[nat].outbound(host, from, to, now))
            }
            _ => (realm, from),
        }
    }

    /// The host that a datagram reaches, and its own address.
    pub(super) fn inbound(
        &mut self,
        realm: Realm,
        from: SocketAddr,
        to: SocketAddr,
        now: Instant,
    ) -> Option<(HostId, SocketAddr)> {
        match *self.places.get(&(realm, to.ip()))? {
            Place::Host(host) => Some((host, to)),
            Place::Nat(nat) => self.nats[nat].inbound(to.port(), from, now),
        }
    }

    /// The host that answers a TCP connection to that address; a NAT lets none in.
    pub(super) fn listener(&self, realm: Realm, to: SocketAddr) -> Option<HostId> {
        match *self.places.get(&(realm, to.ip()))? {
            Place::Host(host) => Some(host),
            Place::Nat(_) => None,
        }
    }

    /// The host that a datagram to that address would reach, if it is let in.
    pub(super) fn whose(&self, realm: Realm, to: SocketAddr) -> Option<HostId> {
        match *self.places.get(&(realm, to.ip()))? {
            Place::Host(host) => Some(host),
            Place::Nat(nat) => self.nats[nat].whose(to.port()),
        }
    }

    /// Sets how long it takes between two hosts, each way.
    pub(crate) fn set_latency(&mut self, a: HostId, b: HostId, latency: Duration) {
        self.latencies.insert((a.min(b), a.max(b)), latency);
    }

    pub(super) fn latency_between(&self, a: HostId, b: HostId) -> Option<Duration> {
        self.latencies.get(&(a.min(b), a.max(b))).copied()
    }

    pub(super) fn cut(&mut self, from: HostId, to: HostId) {
        self.cuts.insert((from, to));
    }

    pub(super) fn mend(&mut self, from: HostId, to: HostId) {
        self.cuts.remove(&(from, to));
    }

    /// Puts each host on a side; between sides nothing passes. An empty list joins all.
    pub(super) fn set_sides(&mut self, sides: Vec<u8>) {
        self.sides = sides;
    }

    /// Whether what `from` sends can reach `to`.
    pub(crate) fn passes(&self, from: HostId, to: HostId) -> bool {
        self.sides.get(from) == self.sides.get(to)
            && (self.cuts.is_empty() || !self.cuts.contains(&(from, to)))
    }

    /// What TCP loses by sending those of `len` bytes' segments again that are lost, until the last one has passed.
    pub(super) fn retransmission(
        &self,
        latency: Duration,
        len: usize,
        random: &mut Randomness,
    ) -> Duration {
        if self.weather.loss <= 0.0 {
            return Duration::ZERO;
        }
        let mut last = Duration::ZERO;
        for _ in 0..len.div_ceil(SEGMENT_LEN).max(1) {
            let mut pause = RETRANSMIT_MIN + 2 * latency;
            let mut total = Duration::ZERO;
            while happens(self.weather.loss, random) && total < RETRANSMIT_TOTAL_MAX {
                total += pause;
                pause = (pause * 2).min(LINK_RESENT_WITHIN);
            }
            last = last.max(total);
        }
        last
    }
}

/// When TCP sends again what it could not deliver since `since`, seen from `now`.
pub(super) fn next_retransmission(since: Instant, now: Instant, latency: Duration) -> Duration {
    let mut pause = RETRANSMIT_MIN + 2 * latency;
    let mut at = since + pause;
    while at < now {
        pause = (pause * 2).min(LINK_RESENT_WITHIN);
        at += pause;
    }
    at - now
}

/// Whether something of that probability happens now.
pub(super) fn happens(probability: f64, random: &mut Randomness) -> bool {
    probability > 0.0 && f64::from(random.u32()) < probability * f64::from(u32::MAX)
}

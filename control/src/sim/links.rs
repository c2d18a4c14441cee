//! The links: dials, bytes in order; loss delays them, a cut holds them, as with TCP.
//!
//! ```text
//!  Send ─► in flight, in order ─► arrives, together with what is close behind
//!     └─► held while the way is cut ─► sent again when TCP's timer says so, after it is mended
//! ```

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::underlay::{NatId, happens, next_retransmission};
use super::{HostId, Sim, SimEvent};
use crate::config::DIAL_TIMEOUT;
use crate::link::dialer::{TargetAddress, TargetHost};
use crate::node::exchange::{CloseCause, DialFailure, DialId, Input, LinkId};

/// IP and TCP headers with time stamps, and half an acknowledgement.
const TCP_OVERHEAD: usize = 52 + 26;
/// The first wait of TCP for an answer to its first packet.
const SYN_RETRANSMIT: Duration = Duration::from_secs(1);

/// One direction of a TCP connection.
struct Way {
    last_arrival: Instant,
    /// `None` ends the connection.
    in_flight: VecDeque<(Instant, Option<Bytes>)>,
    held: Vec<Option<Bytes>>,
    held_since: Instant,
}

/// Why nothing passes any more, without anybody being told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dead {
    /// A NAT lost its mapping.
    Unmapped,
    /// This host lost its power; once it is back it resets what it does not know.
    PowerLost(HostId),
}

/// One TCP connection.
pub(super) struct Wire {
    pub(super) ends: [(HostId, LinkId); 2],
    pub(super) open: bool,
    dead: Option<Dead>,
    /// To the end of that number.
    ways: [Way; 2],
}

/// Where connections come from, as NATs know it: not from where datagrams do.
fn connection_of(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), 0)
}

/// An attempt to connect.
pub(super) struct Open {
    from: HostId,
    life: u64,
    dial: DialId,
    to: SocketAddr,
}

impl Sim {
    pub(super) fn dial(&mut self, host: HostId, dial: DialId, address: &TargetAddress) {
        let TargetHost::Ip(ip) = address.host else {
            let failure = DialFailure::Unresolved;
            return self.later(host, Duration::ZERO, Input::DialFailed { dial, failure });
        };
        let to = SocketAddr::new(ip, address.port);
        let life = self.hosts[host].life;
        let from = connection_of(self.hosts[host].address);
        let realm = self.underlay.outbound(host, from, to, self.now).0;
        let latency = match self.underlay.listener(realm, to) {
            Some(target) => self.latency_between(host, target) * 2,
            None => self.latency * 2,
        };
        let mut lost = Duration::ZERO;
        while happens(self.underlay.weather.loss, &mut self.random) && lost < DIAL_TIMEOUT {
            lost = lost * 2 + SYN_RETRANSMIT;
        }
        if lost >= DIAL_TIMEOUT {
            let failure = DialFailure::TimedOut;
            return self.later(host, DIAL_TIMEOUT, Input::DialFailed { dial, failure });
        }
        let open = Open {
            from: host,
            life,
            dial,
            to,
        };
        self.at(self.now + latency + lost, SimEvent::Open(Box::new(open)));
    }

    pub(super) fn open(&mut self, open: &Open) {
        let Open {
            from,
            life,
            dial,
            to,
        } = *open;
        if self.hosts[from].life != life {
            return;
        }
        let now = self.now;
        let inside = connection_of(self.hosts[from].address);
        let (realm, source) = self.underlay.outbound(from, inside, to, now);
        let target = self.underlay.listener(realm, to).filter(|target| {
            self.underlay.passes(from, *target) && self.underlay.passes(*target, from)
        });
        let Some(target) = target else {
            let failure = DialFailure::TimedOut;
            return self.later(from, DIAL_TIMEOUT, Input::DialFailed { dial, failure });
        };
        if self.hosts[target].node.is_none() || to.port() != self.hosts[target].address.port() {
            let failure = DialFailure::Refused;
            return self.later(from, Duration::ZERO, Input::DialFailed { dial, failure });
        }
        self.links += 2;
        let (ours, theirs) = (LinkId(self.links), LinkId(self.links + 1));
        let way = || Way {
            last_arrival: now,
            in_flight: VecDeque::new(),
            held: Vec::new(),
            held_since: now,
        };
        let wire = self.wires.len();
        self.wires.push(Wire {
            ends: [(from, ours), (target, theirs)],
            open: true,
            dead: None,
            ways: [way(), way()],
        });
        self.hosts[from].wires.insert(wire);
        self.hosts[target].wires.insert(wire);
        let remote = SocketAddr::new(source.ip(), 40_000);
        let local = SocketAddr::new(inside.ip(), 40_000);
        self.input(
            target,
            Input::LinkOpened {
                link: theirs,
                dial: None,
                remote,
                local: to,
            },
        );
        self.input(
            from,
            Input::LinkOpened {
                link: ours,
                dial: Some(dial),
                remote: to,
                local,
            },
        );
    }

    /// Links are numbered from 2 in the order of their wires, two for each.
    fn wire_of(&self, host: HostId, link: LinkId) -> Option<usize> {
        let wire = usize::try_from(link.0 / 2).ok()?.checked_sub(1)?;
        let known = self.wires.get(wire)?.ends.contains(&(host, link));
        known.then_some(wire)
    }

    pub(super) fn send(&mut self, host: HostId, link: LinkId, data: Option<Bytes>) {
        let Some(wire) = self.wire_of(host, link) else {
            return;
        };
        let len = data.as_ref().map_or(0, Bytes::len);
        let sent = &mut self.hosts[host].sent;
        sent.link_messages += 1;
        sent.link_bytes += (len + TCP_OVERHEAD) as u64;
        let to = usize::from(self.wires[wire].ends[0] == (host, link));
        self.transmit(wire, to, data);
    }

    pub(super) fn transmit(&mut self, wire: usize, to: usize, data: Option<Bytes>) {
        if !self.wires[wire].open {
            return;
        }
        let (sender, receiver) = (self.wires[wire].ends[1 - to].0, self.wires[wire].ends[to].0);
        let mut data = data;
        if let (Some(tamper), Some(bytes)) = (&mut self.tamper, &data) {
            let mut bytes = bytes.to_vec();
            if !tamper(&mut bytes) {
                return;
            }
            data = Some(bytes.into());
        }
        let dead = self.wires[wire].dead;
        if dead.is_some() || !self.underlay.passes(sender, receiver) {
            if dead == Some(Dead::PowerLost(receiver)) && self.hosts[receiver].node.is_some() {
                let there_and_back = 2 * self.latency_between(sender, receiver);
                return self.transmit_after(wire, 1 - to, None, there_and_back);
            }
            let way = &mut self.wires[wire].ways[to];
            if way.held.is_empty() {
                way.held_since = self.now;
            }
            way.held.push(data);
            return;
        }
        let latency = self.latency_between(sender, receiver);
        let len = data.as_ref().map_or(0, Bytes::len);
        let again = self.underlay.retransmission(latency, len, &mut self.random);
        self.transmit_after(wire, to, data, latency + again);
    }

    fn transmit_after(&mut self, wire: usize, to: usize, data: Option<Bytes>, after: Duration) {
        let way = &mut self.wires[wire].ways[to];
        way.last_arrival = (self.now + after).max(way.last_arrival);
        let at = way.last_arrival;
        way.in_flight.push_back((at, data));
        self.at(at, SimEvent::Arrive { wire, to });
    }

    /// Sends again what a cut has held back, where the way is good now.
    pub(super) fn release(&mut self, wire: usize) {
        for to in [0, 1] {
            let entry = &self.wires[wire];
            let (sender, receiver) = (entry.ends[1 - to].0, entry.ends[to].0);
            if entry.dead.is_some()
                || entry.ways[to].held.is_empty()
                || !self.underlay.passes(sender, receiver)
            {
                continue;
            }
            let latency = self.latency_between(sender, receiver);
            let way = &mut self.wires[wire].ways[to];
            let after = next_retransmission(way.held_since, self.now, latency) + latency;
            for data in std::mem::take(&mut way.held) {
                self.transmit_after(wire, to, data, after);
            }
        }
    }

    pub(super) fn arrive(&mut self, wire: usize, to: usize) {
        let entry = &mut self.wires[wire];
        let (host, link) = entry.ends[to];
        let way = &mut entry.ways[to];
        if !entry.open || way.in_flight.front().is_none_or(|(at, _)| *at > self.now) {
            return;
        }
        match way.in_flight.pop_front().and_then(|(_, data)| data) {
            Some(data) => {
                // TCP keeps no borders: what is close behind is read with what came.
                let close = self.now + self.latency / 4;
                let mut all = None;
                while let Some((at, Some(more))) = way.in_flight.front()
                    && *at < close
                {
                    all.get_or_insert_with(|| data.to_vec())
                        .extend_from_slice(more);
                    way.in_flight.pop_front();
                }
                let data = all.map_or(data, Bytes::from);
                self.input(host, Input::LinkData { link, data });
            }
            None => {
                self.shut(wire);
                let cause = CloseCause::Broken;
                self.input(host, Input::LinkClosed { link, cause });
            }
        }
    }

    fn shut(&mut self, wire: usize) {
        let entry = &mut self.wires[wire];
        entry.open = false;
        for way in &mut entry.ways {
            (way.in_flight, way.held) = (VecDeque::new(), Vec::new());
        }
        for (host, _) in entry.ends {
            self.hosts[host].wires.remove(&wire);
        }
    }

    /// The kernel of a host whose process ended resets what was open.
    pub(super) fn reset_links(&mut self, host: HostId) {
        for wire in self.hosts[host].wires.clone() {
            let to = usize::from(self.wires[wire].ends[0].0 == host);
            self.transmit(wire, to, None);
        }
    }

    /// The connections of a host are dead, and nobody is told.
    pub(super) fn lose_power_on_links(&mut self, host: HostId) {
        for wire in self.hosts[host].wires.clone() {
            self.wires[wire].dead = Some(Dead::PowerLost(host));
        }
    }

    /// A host is back after it lost its power: who still sends to its old connections is told that they are gone.
    pub(super) fn reset_after_power_loss(&mut self, host: HostId) {
        for wire in self.hosts[host].wires.clone() {
            let entry = &self.wires[wire];
            let to = usize::from(entry.ends[1].0 == host);
            if entry.dead != Some(Dead::PowerLost(host)) || entry.ways[to].held.is_empty() {
                continue;
            }
            let (since, other) = (entry.ways[to].held_since, entry.ends[1 - to].0);
            let latency = self.latency_between(host, other);
            let after = next_retransmission(since, self.now, latency) + 2 * latency;
            self.transmit_after(wire, 1 - to, None, after);
        }
    }

    /// A NAT forgets its mappings: datagrams get others, connections are dead.
    pub(crate) fn restart_nat(&mut self, nat: NatId) {
        self.underlay.nat_mut(nat).forget();
        for host in 0..self.hosts.len() {
            if self.underlay.is_behind(host, nat) {
                for wire in self.hosts[host].wires.clone() {
                    self.wires[wire].dead = Some(Dead::Unmapped);
                }
            }
        }
    }
}

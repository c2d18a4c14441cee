//! Datagrams on their way: on a path, or through relays hop by hop; lost, doubled, late, translated.
//!
//! ```text
//!  direct   A ─────────────────────────► C      sealed for C
//!  relayed  A ─► hop tag ─► B ─► hop tag ─► C    the same bytes inside; B looks up C by its label
//! ```

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use weft_engine::command::{Event, PeerSlot, SessionKeys};
use weft_engine::path::PathMessage;

use super::frames::FrameId;
use super::underlay::{Realm, happens};
use super::{HostId, Sim, SimEvent};

/// IP and UDP headers.
const UDP_OVERHEAD: usize = 28;
/// Header, kind and meta, tag.
const DATA_OVERHEAD: usize = 34;
/// What a relay route adds.
const RELAY_OVERHEAD: usize = 48;
/// UDP payload that the network carries.
const DATAGRAM_MAX: usize = 1472;
/// A frame of no special length.
const FRAME_LEN: usize = 1000;
/// Relays that one datagram may pass.
pub(crate) const HOP_LIMIT: u8 = 8;

/// What a datagram holds.
#[derive(Debug, Clone)]
pub(super) enum Payload {
    Path(PathMessage),
    Message(Bytes),
    /// An overlay frame for one peer.
    Frame(FrameId),
    /// A copy of a flooded frame on its way along the source's tree, under the hop's keys.
    Group(GroupCopy),
}

/// The header of a GROUP datagram and what it holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct GroupCopy {
    pub(super) source: [u8; 8],
    pub(super) epoch: u32,
    pub(super) hops_left: u8,
    pub(super) frame: FrameId,
}

impl Payload {
    fn len(&self) -> usize {
        match self {
            Self::Path(message) => message.as_bytes().len(),
            Self::Message(message) => message.len(),
            Self::Frame(_) | Self::Group(_) => FRAME_LEN,
        }
    }
}

/// The header of a relay's datagram, and the session of the hop that it is on.
#[derive(Debug, Clone)]
struct Relay {
    to: [u8; 8],
    hops_left: u8,
    hop: Arc<SessionKeys>,
}

/// One datagram.
#[derive(Debug, Clone)]
pub(super) struct Datagram {
    sender: HostId,
    realm: Realm,
    from: SocketAddr,
    to: SocketAddr,
    relay: Option<Relay>,
    /// The sender's half of the end-to-end session.
    keys: Arc<SessionKeys>,
    payload: Payload,
    /// UDP payload in bytes.
    len: usize,
}

impl Datagram {
    /// For the trace: what it is, and how long.
    pub(super) fn summary(&self) -> [u64; 2] {
        [u64::from(self.keys.remote_index), self.len as u64]
    }
}

impl Sim {
    /// A path machine's message goes to the address that it names.
    pub(super) fn send_probe(
        &mut self,
        host: HostId,
        slot: PeerSlot,
        to: SocketAddr,
        message: PathMessage,
        datagram_len: Option<u16>,
    ) {
        let Some(keys) = self.hosts[host].engine.active_keys(slot).cloned() else {
            return;
        };
        let least = message.as_bytes().len() + DATA_OVERHEAD;
        let len = least.max(datagram_len.map_or(0, usize::from));
        let sent = &mut self.hosts[host].sent;
        sent.probes += 1;
        sent.probe_bytes += (len + UDP_OVERHEAD) as u64;
        self.emit(host, to, None, keys, Payload::Path(message), len);
    }

    /// Sends to a peer by the route that the FIB has; false if there is no way or no session.
    pub(super) fn send_datagram(&mut self, host: HostId, slot: PeerSlot, payload: Payload) -> bool {
        let engine = &self.hosts[host].engine;
        let Some(keys) = engine.active_keys(slot).cloned() else {
            return false;
        };
        let Some(neighbour) = engine.next_hop(slot, HOP_LIMIT) else {
            return false;
        };
        let Some(path) = engine.path(neighbour) else {
            return false;
        };
        let relay = if neighbour == slot {
            None
        } else {
            let (Some(hop), Some(peer)) = (engine.active_keys(neighbour), engine.peers.get(&slot))
            else {
                return false;
            };
            Some(Relay {
                to: peer.label,
                hops_left: HOP_LIMIT,
                hop: hop.clone(),
            })
        };
        let overhead = DATA_OVERHEAD + relay.as_ref().map_or(0, |_| RELAY_OVERHEAD);
        let len = payload.len() + overhead;
        if matches!(payload, Payload::Message(_)) {
            let sent = &mut self.hosts[host].sent;
            sent.session_messages += 1;
            sent.session_bytes += (len + UDP_OVERHEAD) as u64;
        }
        self.count_transmission(&payload);
        self.count_frame(host, slot, &payload);
        self.emit(host, path.address, relay, keys, payload, len);
        true
    }

    fn count_frame(&mut self, host: HostId, slot: PeerSlot, payload: &Payload) {
        if let (Payload::Frame(_), Some(peer)) =
            (payload, self.hosts[host].engine.peers.get_mut(&slot))
        {
            peer.frames += 1;
        }
    }

    /// Sends to a neighbour on the path to it, whatever the FIB says.
    pub(super) fn send_direct(&mut self, host: HostId, slot: PeerSlot, payload: Payload) {
        let engine = &self.hosts[host].engine;
        if let (Some(keys), Some(path)) = (engine.active_keys(slot).cloned(), engine.path(slot)) {
            let len = payload.len() + DATA_OVERHEAD;
            self.count_transmission(&payload);
            self.emit(host, path.address, None, keys, payload, len);
        }
    }

    fn emit(
        &mut self,
        host: HostId,
        to: SocketAddr,
        relay: Option<Relay>,
        keys: Arc<SessionKeys>,
        payload: Payload,
        len: usize,
    ) {
        let from = self.hosts[host].address;
        let (realm, from) = self.underlay.outbound(host, from, to, self.now);
        let datagram = Datagram {
            sender: host,
            realm,
            from,
            to,
            relay,
            keys,
            payload,
            len,
        };
        let weather = self.underlay.weather;
        if len > DATAGRAM_MAX || happens(weather.loss, &mut self.random) {
            return;
        }
        let receiver = self.underlay.whose(realm, to);
        let base = receiver.map_or(self.latency, |receiver| {
            self.base_latency_between(host, receiver)
        });
        let mut copies = 1;
        if happens(weather.duplication, &mut self.random) {
            copies = 2;
        }
        for _ in 0..copies {
            let mut latency = self.random.around(base, weather.jitter_percent);
            if happens(weather.reordering, &mut self.random) {
                latency *= 3;
            }
            let event = SimEvent::Datagram(Box::new(datagram.clone()));
            self.at(self.now + latency, event);
        }
    }

    pub(super) fn datagram(&mut self, datagram: Datagram) {
        let Datagram {
            sender,
            realm,
            from,
            to,
            ..
        } = datagram;
        let Some((host, local)) = self.underlay.inbound(realm, from, to, self.now) else {
            return;
        };
        let there = &self.hosts[host];
        if !self.underlay.passes(sender, host) || there.node.is_none() || there.address != local {
            return;
        }
        match &datagram.relay {
            Some(relay) => match self.hosts[host].engine.opens(&relay.hop) {
                Some((ingress, first)) => {
                    self.confirm(host, ingress, first, relay.hop.remote_index);
                    if relay.to == self.hosts[host].engine.label {
                        self.deliver(host, &datagram);
                    } else {
                        self.pass_on(host, ingress, datagram);
                    }
                }
                None => self.lost += 1,
            },
            None => self.deliver(host, &datagram),
        }
    }

    fn confirm(&mut self, host: HostId, slot: PeerSlot, first: bool, local_index: u32) {
        if first {
            self.event(host, Event::SessionConfirmed { slot, local_index });
        }
    }

    /// A relay looks the destination up and sends the same bytes on; never back to where they came from.
    fn pass_on(&mut self, host: HostId, ingress: PeerSlot, datagram: Datagram) {
        let engine = &self.hosts[host].engine;
        let Some(mut relay) = datagram.relay else {
            return;
        };
        relay.hops_left = relay.hops_left.saturating_sub(1);
        if !engine.limits.relay || relay.hops_left == 0 {
            self.unrelayed += 1;
            return;
        }
        let next = engine
            .slots
            .get(&relay.to)
            .and_then(|slot| engine.next_hop(*slot, relay.hops_left))
            .filter(|next| *next != ingress);
        let way = next.and_then(|next| Some((engine.path(next)?, engine.active_keys(next)?)));
        let Some((path, hop)) = way else {
            self.unrelayed += 1;
            return;
        };
        relay.hop = hop.clone();
        let (address, len) = (path.address, datagram.len);
        self.hosts[host].sent.relayed += 1;
        self.count_transmission(&datagram.payload);
        self.emit(
            host,
            address,
            Some(relay),
            datagram.keys,
            datagram.payload,
            len,
        );
    }

    /// The end of the way: the session opens it, or nothing does.
    fn deliver(&mut self, host: HostId, datagram: &Datagram) {
        let Some((slot, first)) = self.hosts[host].engine.opens(&datagram.keys) else {
            self.lost += 1;
            return;
        };
        self.delivered += 1;
        self.confirm(host, slot, first, datagram.keys.remote_index);
        let (from, direct) = (datagram.from, datagram.relay.is_none());
        match &datagram.payload {
            Payload::Path(message) if direct => {
                let len = u16::try_from(datagram.len).unwrap_or(u16::MAX);
                self.with_paths(host, slot, |paths, now| {
                    // An answer to nothing: a copy, or one that came too late.
                    let _unexpected = paths.handle_message(from, len, message.as_bytes(), now);
                });
            }
            Payload::Group(copy) if direct => self.group_arrived(host, slot, *copy),
            Payload::Path(_) | Payload::Group(_) => {}
            Payload::Message(message) => {
                let message = message.clone();
                self.event(host, Event::Message { slot, message });
            }
            Payload::Frame(frame) => {
                self.count_frame(host, slot, &datagram.payload);
                if direct {
                    self.with_paths(host, slot, |paths, now| paths.heard(from, now));
                }
                self.frame_arrived(host, *frame);
            }
        }
    }
}

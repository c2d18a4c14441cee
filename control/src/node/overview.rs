//! What is known of the others: peers and their links, the topology, and the way to each with its reason.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use weft_engine::bridge::NextHop;

use crate::api::{
    ApiError, HopReport, PeerLink, PeerReport, RouteReport, TopologyLink, TopologyPeer,
    TopologyReport,
};
use crate::config::HOPS_MAX;
use crate::node::Node;
use crate::node::peers::Peer;
use crate::node::status::{DATAGRAM_OVERHEAD, RELAY_OVERHEAD, named_peer};
use crate::peer::{PeerId, PeerName};
use crate::routes::Way;
use crate::session::keys::suite_name;
use crate::topology::{DataReport, LinkReport};

impl Node {
    /// The one peer of this PeerId, name, nickname or underlay address, or on which a container has this address.
    pub(super) fn resolve_peer(&self, text: &str) -> Result<PeerId, ApiError> {
        let by_id = text.parse::<PeerId>().ok();
        let name = text.parse().ok();
        // As `weft status connections` shows it, a port may follow.
        let socket = text.parse::<SocketAddr>().ok().map(|socket| socket.ip());
        let ip = text.parse().ok().or(socket);
        let matches = |id: PeerId, peer: &Peer| {
            let address = peer.path.map(|path| path.address.ip());
            let link = peer.link.and_then(|link| self.links.get(&link));
            by_id == Some(id)
                || Some(peer.hello.name) == name
                || peer.hello.nickname.as_str() == text
                || (ip.is_some() && (address == ip || link.map(|link| link.remote.ip()) == ip))
        };
        let found = self.peers.all().filter(|(id, peer)| matches(*id, peer));
        let mut found: Vec<_> = found.map(|(id, _)| id).collect();
        if found.len() > 1 && found.iter().any(|id| self.is_reachable(*id)) {
            // One that nothing leads to does not block the name of one that is there.
            found.retain(|id| self.is_reachable(*id));
        }
        let error = match found[..] {
            [id] => return Ok(id),
            [] => {
                if let Some(found) = ip.and_then(|ip| self.host_of_address(ip)) {
                    return found;
                }
                if self.is_ours(text, by_id, name, ip) {
                    format!("{text} is this host itself: name another one")
                } else {
                    format!(
                        "{text}: no such peer; accepted are the name or nickname that `weft status peers` shows, the PeerId, and the address of a host or of a container"
                    )
                }
            }
            [one, other, ..] => {
                format!("{text}: more than one peer; say which by its PeerId: {one}, {other}")
            }
        };
        Err(ApiError { error })
    }

    fn is_ours(
        &self,
        text: &str,
        id: Option<PeerId>,
        name: Option<PeerName>,
        ip: Option<IpAddr>,
    ) -> bool {
        let ours = self.identity.peer_id();
        let endpoints = self.own_endpoints.endpoints();
        id == Some(ours)
            || name == Some(self.shown_name(ours))
            || text == self.config.nickname.as_str()
            || ip.is_some_and(|ip| endpoints.addresses.iter().any(|own| own.ip() == ip))
    }

    /// Everybody known, us first.
    #[must_use]
    pub fn peer_reports(&self) -> Vec<PeerReport> {
        let ours = self.identity.peer_id();
        let us = PeerReport {
            name: self.name_of(ours),
            nickname: self.nickname_of(ours),
            peer_id: ours.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            relay: self.config.relay,
            links: self.links_of(ours),
        };
        let others = self.peers.all().map(|(id, peer)| PeerReport {
            name: peer.hello.name.to_string(),
            nickname: peer.hello.nickname.to_string(),
            peer_id: id.to_string(),
            version: peer.hello.version.clone(),
            relay: !self.routing.network.is_no_relay(id),
            links: self.links_of(id),
        });
        std::iter::once(us).chain(others).collect()
    }

    fn links_of(&self, id: PeerId) -> Vec<PeerLink> {
        let network = &self.routing.network;
        let show = |(other, report): (PeerId, LinkReport)| {
            let back = network.said(other, id);
            let both = report.data.is_some() && back.is_some_and(|back| back.data.is_some());
            let own = self
                .peers
                .find(other)
                .filter(|_| id == self.identity.peer_id());
            let link = own.and_then(|peer| self.links.get(&peer.link?));
            PeerLink {
                name: self.name_of(other),
                nickname: self.nickname_of(other),
                outbound: link.map(|entry| entry.link.is_outbound()),
                address: link
                    .map(|entry| entry.remote.to_string())
                    .unwrap_or_default(),
                state: if both { "established" } else { "pending" }.to_owned(),
            }
        };
        network.links_of(id).map(show).collect()
    }

    /// The network as it is known here.
    #[must_use]
    pub fn topology_report(&self) -> TopologyReport {
        let network = &self.routing.network;
        let peers = network.peers().map(|id| TopologyPeer {
            peer_id: id.to_string(),
            name: self.name_of(id),
            nickname: self.nickname_of(id),
            relay: !network.is_no_relay(id),
        });
        let mut links = BTreeMap::new();
        for id in network.peers() {
            for (other, report) in network.links_of(id) {
                let back = network.said(other, id);
                links
                    .entry((id.min(other), id.max(other)))
                    .or_insert_with(|| show_link([id, other], report, back));
            }
        }
        TopologyReport {
            peers: peers.collect(),
            links: links.into_values().collect(),
        }
    }

    /// The way to every other peer.
    #[must_use]
    pub fn route_reports(&self) -> Vec<RouteReport> {
        self.peers
            .all()
            .map(|(id, peer)| self.route_report(id, peer))
            .collect()
    }

    /// The way to one peer, each link of it, and why.
    ///
    /// # Errors
    /// When no peer, or more than one, is called so.
    pub fn path_report(&self, text: &str) -> Result<RouteReport, ApiError> {
        let id = self.resolve_peer(text)?;
        let gone = || ApiError {
            error: format!("{text}: gone"),
        };
        let peer = self.peers.find(id).ok_or_else(gone)?;
        Ok(self.route_report(id, peer))
    }

    fn route_report(&self, id: PeerId, peer: &Peer) -> RouteReport {
        let hops = match peer.reach.route {
            Some(NextHop::Direct) if peer.is_data_up() => vec![self.own_hop(peer)],
            Some(NextHop::Via(_)) => self.relayed_hops(id),
            Some(NextHop::Direct) | None => Vec::new(),
        };
        RouteReport {
            name: peer.hello.name.to_string(),
            nickname: peer.hello.nickname.to_string(),
            peer_id: id.to_string(),
            kind: self.way_of(peer),
            why: self.why(id, peer),
            cipher: peer
                .session
                .suite()
                .map(|suite| suite_name(suite).to_owned()),
            hops,
        }
    }

    fn own_hop(&self, peer: &Peer) -> HopReport {
        let path = peer.path;
        HopReport {
            name: peer.hello.name.to_string(),
            nickname: peer.hello.nickname.to_string(),
            address: path
                .map(|path| path.address.to_string())
                .unwrap_or_default(),
            rtt_ms: path.map_or(0.0, |path| milliseconds(path.rtt)),
            loss: path.map_or(0.0, |path| f64::from(path.loss)),
            mtu: path.map_or(0, |path| {
                path.datagram_max.saturating_sub(DATAGRAM_OVERHEAD)
            }),
        }
    }

    /// Each link as the records say it is, our own as we measure it.
    fn relayed_hops(&self, to: PeerId) -> Vec<HopReport> {
        let mut from = self.identity.peer_id();
        let mut hops = Vec::new();
        for hop in self.routing.data_hops(to) {
            let own = self.peers.find(hop).filter(|_| hops.is_empty());
            let said = self
                .routing
                .network
                .said(from, hop)
                .and_then(|said| said.data);
            hops.push(match (own, said) {
                (Some(peer), _) => self.own_hop(peer),
                (None, said) => self.hop_as_said(hop, said),
            });
            from = hop;
        }
        for hop in &mut hops {
            hop.mtu = hop.mtu.saturating_sub(RELAY_OVERHEAD);
        }
        hops
    }

    fn hop_as_said(&self, id: PeerId, said: Option<DataReport>) -> HopReport {
        HopReport {
            name: self.name_of(id),
            nickname: self.nickname_of(id),
            address: String::new(),
            rtt_ms: said.map_or(0.0, |said| milliseconds(said.rtt)),
            loss: said.map_or(0.0, |said| f64::from(said.loss_percent) / 100.0),
            mtu: said.map_or(0, |said| {
                said.datagram_max.saturating_sub(DATAGRAM_OVERHEAD)
            }),
        }
    }

    /// `direct`, `via NAME` or `none`.
    pub(super) fn way_of(&self, peer: &Peer) -> String {
        match peer.reach.route {
            Some(NextHop::Via(slot)) => {
                let relay = self.peers.at(slot).and_then(|id| self.peers.find(id));
                format!("via {}", relay.map(named_peer).unwrap_or_default())
            }
            Some(NextHop::Direct) if peer.is_data_up() => "direct".to_owned(),
            Some(NextHop::Direct) | None => "none".to_owned(),
        }
    }

    /// Why frames go that way.
    pub(super) fn why(&self, id: PeerId, peer: &Peer) -> String {
        let relay = self.routing.data_way(id).filter(|way| way.hops > 1);
        let direct = peer
            .path
            .filter(|_| peer.is_data_up())
            .map(|path| path.rtt_least);
        let relayed = matches!(peer.reach.route, Some(NextHop::Via(_)));
        match (direct, relay) {
            (Some(direct), Some(way)) if relayed => format!(
                "relay route takes {}, the direct path {}",
                in_words(round_trip(way)),
                in_words(direct)
            ),
            (Some(direct), Some(way)) => format!(
                "direct path takes {}, a relay route {}",
                in_words(direct),
                in_words(round_trip(way))
            ),
            (Some(_), None) => "direct path works, and no relay route is faster".to_owned(),
            (None, Some(_)) => self.why_not_direct(peer),
            (None, None) => self.why_not_at_all(id, peer),
        }
    }

    fn why_not_direct(&self, peer: &Peer) -> String {
        let told = peer.reach.told.as_ref();
        let both_symmetric =
            self.own_endpoints.endpoints().symmetric && told.is_some_and(|told| told.symmetric);
        if !self.config.discovery && !peer.is_adjacent() {
            "not tried directly: no target of ours (--no-discovery)".to_owned()
        } else if peer.session.suite().is_none() {
            "no session yet: one is made with the first frame".to_owned()
        } else if both_symmetric {
            "no direct path: both hosts are behind symmetric NATs".to_owned()
        } else if !peer.may_be_direct() {
            "no direct path: the peer names no address".to_owned()
        } else if self.own_endpoints.is_behind_nat() {
            "no direct path answers; we are behind a NAT".to_owned()
        } else {
            "no direct path answers".to_owned()
        }
    }

    fn why_not_at_all(&self, id: PeerId, peer: &Peer) -> String {
        if peer.session.suite().is_none() && !self.is_routable(id) {
            return "no links lead there".to_owned();
        }
        if peer.session.suite().is_none() {
            let failure = peer.session.failure();
            return failure.map_or_else(
                || "no session yet".to_owned(),
                |failure| failure.to_string(),
            );
        }
        format!("no direct path answers, and no relays lead there in {HOPS_MAX} hops")
    }

    fn name_of(&self, id: PeerId) -> String {
        self.shown_name(id).to_string()
    }

    fn nickname_of(&self, id: PeerId) -> String {
        if id == self.identity.peer_id() {
            return self.config.nickname.to_string();
        }
        let peer = self.peers.find(id);
        peer.map(|peer| peer.hello.nickname.to_string())
            .unwrap_or_default()
    }
}

fn show_link(ends: [PeerId; 2], report: LinkReport, back: Option<LinkReport>) -> TopologyLink {
    let data = report.data.zip(back.and_then(|back| back.data));
    TopologyLink {
        ends: ends.map(|id| id.to_string()),
        control: report.control && back.is_some_and(|back| back.control),
        data: data.is_some(),
        rtt_ms: data.map_or(0.0, |(one, other)| milliseconds(one.rtt.max(other.rtt))),
        mtu: data.map_or(0, |(one, other)| {
            one.datagram_max
                .min(other.datagram_max)
                .saturating_sub(DATAGRAM_OVERHEAD)
        }),
        loss: data.map_or(0.0, |(one, other)| {
            f64::from(one.loss_percent.max(other.loss_percent)) / 100.0
        }),
    }
}

/// The round trip alone, without what is added for each link.
pub(super) fn round_trip(way: Way) -> Duration {
    way.cost
        .saturating_sub(crate::config::HOP_COST * u32::from(way.hops))
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn in_words(duration: Duration) -> String {
    format!("{:.1} ms", milliseconds(duration))
}

//! Keeps links to a few of all peers: feeds the mesh, and does what it chooses.

use std::net::SocketAddr;
use std::time::Instant;

use crate::config::MESH_LINKS_KEPT;
use crate::endpoints::Endpoints;
use crate::link::handshake::CAPABILITY_APART;
use crate::link::message::ByeReason;
use crate::mesh::{Candidate, Choice};
use crate::node::Node;
use crate::node::peers::Peer;
use crate::peer::PeerId;
use crate::record::RecordKind;

impl Node {
    /// Somebody came or went, or says something new of where it is.
    pub(super) fn touch_mesh(&mut self, now: Instant) {
        if self.config.discovery {
            self.mesh.touch(&mut self.random, now);
            self.wake(self.mesh.deadline());
        }
    }

    /// An attempt came to nothing: perhaps it is time to look for somebody else.
    pub(super) fn mesh_attempt_failed(&mut self, now: Instant) {
        let discovered = self.dialer.discovered();
        if self.mesh.note_failures(discovered, &mut self.random, now) {
            self.touch_mesh(now);
        }
    }

    /// Chooses anew and ends links, if that is due.
    pub(super) fn do_mesh(&mut self, now: Instant) {
        if self.config.discovery && self.mesh.is_due(now) {
            let candidates = self.candidates();
            let discovered: Vec<_> = self.dialer.discovered().collect();
            let choices = self
                .mesh
                .choose(&candidates, &discovered, &mut self.random, now);
            for choice in choices {
                match choice {
                    Choice::Dial(peer, at) => {
                        let addresses = self.dialable(peer);
                        self.dialer.discover(peer, &addresses, at);
                    }
                    Choice::Seek(peer, since) => {
                        let addresses = self.dialable(peer);
                        self.dialer.seek(peer, &addresses, since, now);
                    }
                    Choice::Keep(peer) => {
                        let addresses = self.dialable(peer);
                        self.dialer.discover_connected(peer, &addresses, now);
                    }
                    Choice::Leave(peer) => self.dialer.undiscover(peer),
                }
            }
        }
        self.trim_links(now);
        self.wake(self.mesh.deadline());
    }

    /// Ends links that nobody needs, where there are far too many.
    fn trim_links(&mut self, now: Instant) {
        if self.links.len() <= MESH_LINKS_KEPT {
            return self.mesh.need_not_trim();
        }
        if !self.mesh.may_trim(now) {
            return;
        }
        let candidates = self.candidates();
        let is_named = |peer| self.dialer.is_named(peer);
        let trimmed = self.mesh.trim(&candidates, is_named, &mut self.random, now);
        for peer in trimmed {
            if let Some(link) = self.peers.find(peer).and_then(|peer| peer.link) {
                self.counters.links_trimmed += 1;
                self.close_link(link, ByeReason::Enough, now);
            }
        }
    }

    fn candidates(&self) -> Vec<Candidate> {
        let up_at = |peer: &Peer| {
            let entry = self.links.get(&peer.link?)?;
            entry.link.up_at().filter(|_| !entry.suspect)
        };
        let candidate = |(id, peer): (PeerId, &Peer)| Candidate {
            peer: id,
            linked_at: up_at(peer),
            has_address: self.is_dialable(id, peer),
            is_routed: self.is_routable(id),
            is_apart: peer.hello.capabilities & CAPABILITY_APART != 0,
        };
        self.peers.all().map(candidate).collect()
    }

    fn is_dialable(&self, id: PeerId, peer: &Peer) -> bool {
        !peer.candidates.is_empty() || self.gossip.body(id, RecordKind::Endpoints, 0).is_some()
    }

    /// Where the peer may take our call: from where a link went before, and where it says it is; not where we are, as
    /// a host that was reset is where it was.
    pub(super) fn dialable(&self, id: PeerId) -> Vec<SocketAddr> {
        let of_link = self.peers.find(id).map(|peer| peer.candidates.clone());
        let body = self.gossip.body(id, RecordKind::Endpoints, 0);
        let said = body.and_then(|body| Endpoints::parse(body).ok());
        let mut addresses = of_link.unwrap_or_default();
        for address in said.into_iter().flat_map(|said| said.addresses) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        let ours = self.own_endpoints.endpoints();
        addresses.retain(|address| !ours.addresses.contains(address));
        addresses
    }
}

#[cfg(test)]
mod tests;

//! What happens to records: in from links and out on them, and each change handed to whom it concerns.
//!
//! ```text
//!  link ── Message::Gossip ──► gossip ──► record_changed ─┬─ PEER: a peer of the node, with a slot and without a link
//!                                                         └─ one arm for each kind
//! ```
//!
//! What a peer said on its live link goes before what a record says of it: a record of another process makes us ask
//! the link for a sign of life, no more.

use std::time::Instant;

use crate::config::{NodeConfig, ORIGIN_CHECK_EVERY, ORIGIN_FORGOTTEN_AFTER};
use crate::gossip::{Gossip, GossipOutput};
use crate::link::handshake::Hello;
use crate::link::message::Message;
use crate::node::Node;
use crate::node::exchange::{Output, PersistToken, Record};
use crate::peer::{Identity, PeerId};
use crate::random::Randomness;
use crate::record::{RecordKey, RecordKind};

/// Gossip as a node begins it.
pub(super) fn begin(
    config: &NodeConfig,
    identity: &Identity,
    random: Randomness,
    now: Instant,
) -> Gossip {
    Gossip::new(
        identity.clone(),
        config.network_id,
        config.incarnation,
        Hello::encode_record(config, identity),
        random,
        now,
    )
}

#[cfg(any(test, feature = "sim"))]
impl Node {
    /// The records that we hold, for a simulation's questions.
    pub(crate) fn gossip(&self) -> &Gossip {
        &self.gossip
    }
}

impl Node {
    /// Carries out what gossip wants.
    pub(super) fn do_gossip(&mut self, now: Instant) {
        while let Some(output) = self.gossip.poll_output() {
            match output {
                GossipOutput::Send { link, message } => {
                    let message = Message::Gossip(message);
                    self.with_link(link, now, |link, _, _| link.send(&message));
                }
                GossipOutput::Changed(key) => self.record_changed(key, now),
                GossipOutput::Jumped(incarnation) => self.jumped(incarnation),
                GossipOutput::Cloned { origin } => self.clone_noticed(origin, now),
            }
        }
        self.wake(self.gossip.deadline());
    }

    /// A record of another peer is new, withdrawn or gone: `gossip.body` says which. The one place where records
    /// meet those whom they concern.
    pub(super) fn record_changed(&mut self, key: RecordKey, now: Instant) {
        match RecordKind::from_byte(key.kind) {
            Some(RecordKind::Peer) => {
                self.mesh.is_alive(key.origin);
                self.peer_record_changed(key.origin, now);
                self.touch_mesh(now);
            }
            Some(RecordKind::Topology) => self.topology_record_changed(key, now),
            Some(RecordKind::Endpoints) => {
                self.mesh.is_alive(key.origin);
                self.endpoints_record_changed(key.origin, now);
                self.touch_mesh(now);
            }
            Some(RecordKind::Names) => self.names_record_changed(key.origin),
            Some(RecordKind::Attachments) => self.attachments_changed(now),
            Some(RecordKind::Ring) => self.ring_record_changed(key, now),
            None => {}
        }
    }

    /// Makes a peer of whoever says that it is there, or notes that it has restarted.
    pub(super) fn peer_record_changed(&mut self, origin: PeerId, now: Instant) {
        let Some(hello) = self.hello_of_record(origin) else {
            return;
        };
        if self.peers.with_label_of(origin) {
            self.counters.labels_colliding += 1;
            return;
        }
        match self.peers.find_mut(origin) {
            Some(peer) if peer.hello.boot_id == hello.boot_id => {
                peer.hello.incarnation = peer.hello.incarnation.max(hello.incarnation);
            }
            Some(peer) => {
                if let Some(link) = peer.link {
                    self.with_link(link, now, |link, context, _| link.ping(context));
                } else if hello.incarnation > peer.hello.incarnation {
                    self.take_in(hello, now);
                }
            }
            None => {
                self.take_in(hello, now);
            }
        }
    }

    fn hello_of_record(&self, origin: PeerId) -> Option<Hello> {
        let body = self.gossip.body(origin, RecordKind::Peer, 0)?;
        Hello::parse_record(body, self.gossip.incarnation(origin)?).ok()
    }

    /// Our incarnation is another one now: the next HELLOs say so, and the next process shall begin above it.
    fn jumped(&mut self, incarnation: u64) {
        self.config.incarnation = incarnation;
        self.hello = Hello::encode_ours(&self.config, &self.identity);
        self.tokens += 1;
        self.outputs.push_back(Output::Persist {
            token: PersistToken(self.tokens),
            record: Record::Incarnation(incarnation),
        });
    }

    /// Forgets origins that nothing has led to for long, so that their peers can be forgotten. Those whose records
    /// hold address ranges stay: that is for a person to end.
    pub(super) fn forget_lost_origins(&mut self, now: Instant) {
        if now < self.origins_at {
            return self.wake(Some(self.origins_at));
        }
        self.origins_at = now + ORIGIN_CHECK_EVERY;
        self.wake(Some(self.origins_at));
        for id in self.peers.ids() {
            let is_kept = self.is_reachable(id) || self.gossip.speaks_of(id, RecordKind::Ring);
            let Some(peer) = self.peers.find_mut(id) else {
                continue;
            };
            match &mut peer.gone_since {
                Some(since) if is_kept => *since = now,
                Some(since) if now.duration_since(*since) >= ORIGIN_FORGOTTEN_AFTER => {
                    self.gossip.forget(id, now);
                    self.look_for_lost_peers(now);
                }
                _ => {}
            }
        }
    }

    /// Whether anything may lead to the peer: its link, its session, or the links of others.
    pub(super) fn is_reachable(&self, id: PeerId) -> bool {
        let peer = self.peers.find(id);
        peer.is_some_and(|peer| peer.link.is_some() || peer.is_data_up()) || self.is_routable(id)
    }
}

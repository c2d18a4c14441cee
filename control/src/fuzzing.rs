//! The little of the inside that the fuzz targets need: parsers, a peer that says whatever it is told, gossip, and both
//! ways of a DNS question.

use std::time::Instant;

use bytes::Bytes;

use crate::config::{MESSAGE_LEN_MAX, NodeConfig};
use crate::dns::names::Names;
use crate::driver::dns::ways::Ways;
use crate::gossip::{Gossip, GossipOutput};
use crate::link::handshake::Hello;
use crate::link::message::Message;
use crate::link::preamble::Preamble;
use crate::link::{Link, LinkAction, LinkContext};
use crate::node::exchange::LinkId;
use crate::peer::Identity;
use crate::random::Randomness;
use crate::record::{Record, RecordKind, RecordView, Version};

/// Reads a preamble: its bytes again and the version that a host with or without a secret would speak;
/// `None` if it is none or not whole.
#[must_use]
pub fn preamble(bytes: &[u8], closed: bool) -> Option<([u8; 8], Option<u8>)> {
    let theirs = Preamble::parse(bytes).ok()??;
    let version = Preamble::ours(closed).agree(&theirs).ok();
    Some((*theirs.as_bytes(), version))
}

/// Reads a control message and writes it again; `None` if it is malformed.
#[must_use]
pub fn message(bytes: &[u8]) -> Option<Vec<u8>> {
    Message::decode(bytes).ok().map(|message| message.encode())
}

/// Dials, proves the secret and its identity, and then says anything.
pub struct HostilePeer {
    link: Link,
    config: NodeConfig,
    identity: Identity,
    random: Randomness,
    hello: Vec<u8>,
    /// Whether the other end has proved itself.
    pub is_up: bool,
}

impl HostilePeer {
    /// A peer, and the first bytes it sends. `before` stands in front of its HELLO, where it counts first.
    #[must_use]
    pub fn dial(
        config: NodeConfig,
        identity: Identity,
        seed: u64,
        before: &[u8],
        now: Instant,
    ) -> (Self, Vec<u8>) {
        let closed = config.secrets.is_closed();
        let mut link = Link::dialled(config.secrets.offered(0).clone(), closed, now);
        let first = link.take_outbox().concat();
        let hello = [before, &Hello::encode_ours(&config, &identity)].concat();
        let peer = Self {
            link,
            config,
            identity,
            random: Randomness::seeded(seed),
            hello,
            is_up: false,
        };
        (peer, first)
    }

    /// Takes in what the other end sent; what it sends back.
    pub fn receive(&mut self, data: &[u8], now: Instant) -> Vec<u8> {
        let mut actions = Vec::new();
        let mut context = LinkContext {
            identity: &self.identity,
            network: &self.config.network_id,
            secrets: &self.config.secrets,
            hello: &self.hello,
            random: &mut self.random,
            now,
        };
        self.link.receive(data, &mut context, &mut actions);
        self.is_up |= actions
            .iter()
            .any(|action| matches!(action, LinkAction::Up(_)));
        self.link.take_outbox().concat()
    }

    /// Seals any bytes as a message; nothing while the link is not up.
    pub fn say(&mut self, message: &[u8]) -> Vec<u8> {
        let message = message.get(..MESSAGE_LEN_MAX).unwrap_or(message);
        self.link.send_encoded(message);
        self.link.take_outbox().concat()
    }
}

/// A DNS server's two ways to an answer.
pub struct DnsWays(Ways);

impl DnsWays {
    /// A server of these names.
    #[must_use]
    pub fn new(names: Names) -> Self {
        Self(Ways::new(names, 1))
    }

    /// True if a datagram gets the short answer.
    ///
    /// # Panics
    /// If the long way answers otherwise.
    #[must_use]
    pub fn agree(&self, datagram: &[u8]) -> bool {
        self.0.agree(datagram)
    }
}

/// Takes a record from the front: its length and the length of its body; `None` if there is none.
#[must_use]
pub fn record(bytes: &[u8]) -> Option<(usize, usize)> {
    let (record, _) = RecordView::split(bytes).ok()?;
    Some((record.bytes().len(), record.body().len()))
}

/// A gossip machine that hears anything, from a member that signs anything.
pub struct GossipEar {
    gossip: Gossip,
    config: NodeConfig,
    member: Identity,
}

impl GossipEar {
    /// A machine with that many links, the first to the member.
    #[must_use]
    pub fn new(
        config: NodeConfig,
        ours: Identity,
        member: Identity,
        links: u64,
        now: Instant,
    ) -> Self {
        let body = Hello::encode_record(&config, &ours);
        let mut random = Randomness::seeded(1);
        let mut gossip = Gossip::new(ours, config.network_id, 3, body, random.fork(), now);
        gossip.link_up(LinkId(0), member.peer_id(), now);
        for link in 1..links {
            let peer = Identity::generate(&mut random).peer_id();
            gossip.link_up(LinkId(link), peer, now);
        }
        Self {
            gossip,
            config,
            member,
        }
    }

    /// The PEER record of the member, signed.
    #[must_use]
    pub fn introduction(&self, incarnation: u64) -> Bytes {
        let body = Hello::encode_record(&self.config, &self.member);
        self.signed(RecordKind::Peer.byte(), 0, [incarnation, 1], &body)
    }

    /// A record that the member signs, whatever it says; its version is incarnation and sequence.
    #[must_use]
    pub fn signed(&self, kind: u8, part: u16, version: [u64; 2], body: &[u8]) -> Bytes {
        let [incarnation, sequence] = version;
        let version = Version {
            incarnation,
            sequence,
        };
        let network = &self.config.network_id;
        Record::sign(&self.member, network, (kind, part), version, body)
            .bytes()
            .clone()
    }

    /// Hears a message; returns what is sent, by link.
    pub fn hear(&mut self, link: u64, message: &[u8], now: Instant) -> Vec<(u64, Bytes)> {
        self.gossip.receive(LinkId(link), message, now);
        self.said()
    }

    /// Does what is due; returns what is sent, by link.
    pub fn tick(&mut self, now: Instant) -> Vec<(u64, Bytes)> {
        self.gossip.tick(now);
        self.said()
    }

    /// When [`GossipEar::tick`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.gossip.deadline()
    }

    /// Records held, and the bytes they take.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        self.gossip.size()
    }

    fn said(&mut self) -> Vec<(u64, Bytes)> {
        let mut said = Vec::new();
        while let Some(output) = self.gossip.poll_output() {
            if let GossipOutput::Send { link, message } = output {
                said.push((link.0, message));
            }
        }
        said
    }
}

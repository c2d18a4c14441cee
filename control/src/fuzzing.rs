//! The little of the inside that the fuzz targets need: two parsers, and a peer that says whatever it is told.

use std::time::Instant;

use crate::config::{MESSAGE_LEN_MAX, NodeConfig};
use crate::link::handshake::Hello;
use crate::link::message::Message;
use crate::link::preamble::Preamble;
use crate::link::{Link, LinkAction, LinkContext};
use crate::peer::Identity;
use crate::random::Randomness;

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

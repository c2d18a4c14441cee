//! Messages about addresses on their way: in private, or signed where others pass them on.
//!
//! ```text
//!  link of the peer's own, live session   IPAM          who sent it is proved by the keys of the way
//!  ROUTED, through others                 SIGNED_IPAM   0-7 number, 8-71 signature, 72.. the same body
//! ```
//!
//! Whoever passes a message on could else give away what others own. The signature binds both ends, the network and
//! a number that rises through restarts, so nothing can be repeated either; what overtakes another is lost and asked
//! for again. A host that gives no addresses answers with an empty body, so that nobody waits for its agreement.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::link::message::Message;
use crate::node::Node;
use crate::peer::{Identity, PeerId, PublicKeys};
use crate::secret::NetworkId;

const CONTEXT: &[u8] = b"weft routed ipam 1";
const NUMBER_LEN: usize = 8;
const SIGNATURE_LEN: usize = 64;

/// The numbers of signed messages.
#[derive(Debug, Default)]
pub(super) struct AddressMail {
    sent: u32,
    /// The highest of each peer that we know.
    heard: BTreeMap<PeerId, u64>,
}

/// Signs a message from us.
fn seal(identity: &Identity, network: &NetworkId, to: PeerId, number: u64, body: &[u8]) -> Vec<u8> {
    let number = number.to_be_bytes();
    let text = signed_text(network, identity.peer_id(), to, &number, body);
    [number.as_slice(), &identity.sign(&text), body].concat()
}

/// Reads a message to us: its number and its body, if its sender has signed it.
fn open<'a>(
    (from, keys): (PeerId, &PublicKeys),
    network: &NetworkId,
    to: PeerId,
    signed: &'a [u8],
) -> Option<(u64, &'a [u8])> {
    let (number, rest) = signed.split_first_chunk::<NUMBER_LEN>()?;
    let (signature, body) = rest.split_first_chunk::<SIGNATURE_LEN>()?;
    let text = signed_text(network, from, to, number, body);
    let is_genuine = keys.has_signed(&text, signature);
    is_genuine.then(|| (u64::from_be_bytes(*number), body))
}

fn signed_text(
    network: &NetworkId,
    from: PeerId,
    to: PeerId,
    number: &[u8; NUMBER_LEN],
    body: &[u8],
) -> Vec<u8> {
    [CONTEXT, network.as_bytes(), &from.0, &to.0, number, body].concat()
}

impl Node {
    /// Sends to a peer; what finds no way is asked for again.
    pub(super) fn send_ipam(&mut self, to: PeerId, body: Vec<u8>, now: Instant) {
        let private = Message::Ipam(body);
        if self.send_in_private(to, &private, now) {
            return;
        }
        let Message::Ipam(body) = private else {
            return;
        };
        self.mail.sent = self.mail.sent.wrapping_add(1);
        let number = (self.config.incarnation << 32) | u64::from(self.mail.sent);
        let signed = seal(&self.identity, &self.config.network_id, to, number, &body);
        self.send_routed(to, &Message::SignedIpam(signed), now);
    }

    /// A signed message came, by whatever way.
    pub(super) fn signed_ipam(&mut self, from: PeerId, signed: &[u8], now: Instant) {
        let Some(peer) = self.peers.find(from) else {
            return;
        };
        let ours = self.identity.peer_id();
        let sender = (from, &peer.hello.keys);
        let Some((number, body)) = open(sender, &self.config.network_id, ours, signed) else {
            self.counters.messages_malformed += 1;
            return;
        };
        if self
            .mail
            .heard
            .get(&from)
            .is_some_and(|heard| *heard >= number)
        {
            return;
        }
        let peers = &self.peers;
        if self.mail.heard.len() > peers.count() {
            self.mail
                .heard
                .retain(|peer, _| peers.find(*peer).is_some());
        }
        self.mail.heard.insert(from, number);
        self.ipam_message(from, body.to_vec(), now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Randomness;

    #[test]
    fn only_what_its_sender_signed_for_us_is_read() {
        let random = &mut Randomness::seeded(1);
        let [a, b, c] = [(); 3].map(|()| Identity::generate(random));
        let network = NetworkId::of("weft");
        let to = b.peer_id();
        let signed = seal(&a, &network, to, 7, b"all yours");
        let sender = (a.peer_id(), a.keys());

        assert_eq!(
            open(sender, &network, to, &signed),
            Some((7, b"all yours".as_slice()))
        );
        assert_eq!(
            open(sender, &network, c.peer_id(), &signed),
            None,
            "for another"
        );
        assert_eq!(open(sender, &NetworkId::of("other"), to, &signed), None);
        let foreign = (c.peer_id(), c.keys());
        assert_eq!(open(foreign, &network, to, &signed), None, "by another");
        for at in 0..signed.len() {
            let mut changed = signed.clone();
            changed[at] ^= 1;
            assert_eq!(open(sender, &network, to, &changed), None, "byte {at}");
            assert_eq!(open(sender, &network, to, &signed[..at]), None, "cut");
        }
    }
}

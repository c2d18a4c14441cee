//! Who a peer is: keys, `PeerId`, label, shown name, nickname.
//!
//! ```text
//!  Ed25519 key ─┐
//!               ├─ BLAKE2s ─► PeerId (16 bytes) ─┬─ first 8: label in RELAY and GROUP headers
//!  X25519 key ──┘                                └─ first 6: shown name, as a locally administered MAC
//! ```

use std::fmt;
use std::str::FromStr;

use blake2::digest::consts::U16;
use blake2::{Blake2s, Digest as _};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::random::Randomness;
use crate::secret::NetworkId;

/// Bytes of [`Identity::to_bytes`].
pub const IDENTITY_LEN: usize = 64;
/// Bytes of a nickname: a host name is at most 64.
pub const NICKNAME_LEN_MAX: usize = 64;

/// Why a name, nickname or id is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PeerParseError {
    /// Not six groups of a MAC, nor a short form with one `::`.
    #[error("not a peer name; accepted is a MAC such as 0a:00:27:00:00:01, or ::1")]
    Name,
    /// All zero.
    #[error("peer name 00:00:00:00:00:00 is reserved")]
    ZeroName,
    /// All ones.
    #[error("peer name ff:ff:ff:ff:ff:ff is reserved: it is everybody's address")]
    BroadcastName,
    /// Not 32 hex digits.
    #[error("not a PeerId; accepted are 32 hexadecimal digits")]
    Id,
    /// Empty, too long, or with blanks or control characters.
    #[error("not a nickname; accepted are 1 to 64 bytes without blanks")]
    Nickname,
}

/// A peer's identity: a hash over both its public keys.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub [u8; 16]);

impl PeerId {
    /// The id that belongs to these keys.
    #[must_use]
    pub fn of(keys: &PublicKeys) -> Self {
        let mut hash = Blake2s::<U16>::new();
        hash.update(b"weft peer id 1");
        hash.update(keys.signing);
        hash.update(keys.exchange);
        Self(hash.finalize().into())
    }

    /// The 8 bytes that stand for the peer in RELAY and GROUP headers.
    #[must_use]
    pub fn label(&self) -> [u8; 8] {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        [a, b, c, d, e, f, g, h]
    }

    /// The name shown unless another was given: locally administered, unicast, never zero.
    #[must_use]
    pub fn name(&self) -> PeerName {
        let [a, b, c, d, e, f, ..] = self.0;
        PeerName([(a & 0xfc) | 0x02, b, c, d, e, f])
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PeerId {
    type Err = PeerParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(PeerParseError::Id);
        }
        let mut id = [0; 16];
        for (i, byte) in id.iter_mut().enumerate() {
            let digits = text.get(2 * i..2 * i + 2).ok_or(PeerParseError::Id)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| PeerParseError::Id)?;
        }
        Ok(Self(id))
    }
}

/// 48 bits for people and scripts, shown as a MAC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerName(pub [u8; 6]);

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PeerName {
    type Err = PeerParseError;

    /// Takes a MAC, or one `::` for a run of zero bytes as in an IPv6 address: `::1`, `1::1`, `ab::`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 6];
        let groups = |part: &str| -> Result<Vec<u8>, PeerParseError> {
            if part.is_empty() {
                return Ok(Vec::new());
            }
            part.split(':').map(parse_group).collect()
        };
        if let Some((head, tail)) = text.split_once("::") {
            let (head, tail) = (groups(head)?, groups(tail)?);
            if head.len() + tail.len() > 5 {
                return Err(PeerParseError::Name);
            }
            bytes[..head.len()].copy_from_slice(&head);
            bytes[6 - tail.len()..].copy_from_slice(&tail);
        } else {
            bytes = groups(text)?.try_into().map_err(|_| PeerParseError::Name)?;
        }
        match bytes {
            [0, 0, 0, 0, 0, 0] => Err(PeerParseError::ZeroName),
            [0xff, 0xff, 0xff, 0xff, 0xff, 0xff] => Err(PeerParseError::BroadcastName),
            _ => Ok(Self(bytes)),
        }
    }
}

fn parse_group(group: &str) -> Result<u8, PeerParseError> {
    if !(1..=2).contains(&group.len()) || !group.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(PeerParseError::Name);
    }
    u8::from_str_radix(group, 16).map_err(|_| PeerParseError::Name)
}

/// What people call the peer; not unique.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nickname(String);

impl Nickname {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Nickname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Nickname {
    type Err = PeerParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = |c: char| c.is_whitespace() || c.is_control();
        if text.is_empty() || text.len() > NICKNAME_LEN_MAX || text.contains(bad) {
            return Err(PeerParseError::Nickname);
        }
        Ok(Self(text.to_owned()))
    }
}

/// A peer's public keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKeys {
    /// Ed25519, signs records.
    pub signing: [u8; 32],
    /// X25519, the static key of handshakes.
    pub exchange: [u8; 32],
}

impl PublicKeys {
    /// Whether `signature` is the signing key's word that the exchange key is its own, in this network.
    #[must_use]
    pub fn is_bound_by(&self, network: &NetworkId, signature: &[u8; 64]) -> bool {
        self.has_signed(&binding(network, &self.exchange), signature)
    }

    /// Whether the signing key has signed this text.
    pub(crate) fn has_signed(&self, text: &[u8], signature: &[u8; 64]) -> bool {
        VerifyingKey::from_bytes(&self.signing).is_ok_and(|key| {
            key.verify_strict(text, &Signature::from_bytes(signature))
                .is_ok()
        })
    }
}

fn binding(network: &NetworkId, exchange: &[u8; 32]) -> Vec<u8> {
    [b"weft identity 1".as_slice(), network.as_bytes(), exchange].concat()
}

/// Our own keys.
#[derive(Clone)]
pub struct Identity {
    signing: SigningKey,
    exchange: StaticSecret,
    keys: PublicKeys,
    peer_id: PeerId,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("peer_id", &self.peer_id)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// Makes a new identity.
    #[must_use]
    pub fn generate(random: &mut Randomness) -> Self {
        Self::from_bytes(&Zeroizing::new(random.bytes()))
    }

    /// Takes up an identity from the bytes that [`Identity::to_bytes`] gave.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; IDENTITY_LEN]) -> Self {
        let (mut signing, mut exchange) = (Zeroizing::new([0; 32]), Zeroizing::new([0; 32]));
        signing.copy_from_slice(&bytes[..32]);
        exchange.copy_from_slice(&bytes[32..]);
        let signing = SigningKey::from_bytes(&signing);
        let exchange = StaticSecret::from(*exchange);
        let keys = PublicKeys {
            signing: signing.verifying_key().to_bytes(),
            exchange: PublicKey::from(&exchange).to_bytes(),
        };
        Self {
            signing,
            exchange,
            keys,
            peer_id: PeerId::of(&keys),
        }
    }

    /// The secret bytes, for the store.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; IDENTITY_LEN]> {
        let mut bytes = Zeroizing::new([0; IDENTITY_LEN]);
        bytes[..32].copy_from_slice(self.signing.as_bytes());
        bytes[32..].copy_from_slice(self.exchange.as_bytes());
        bytes
    }

    /// Our PeerId.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        self.peer_id
    }

    /// Our public keys.
    #[must_use]
    pub fn keys(&self) -> &PublicKeys {
        &self.keys
    }

    /// The secret half of the static key of handshakes.
    pub(crate) fn exchange_secret(&self) -> &[u8; 32] {
        self.exchange.as_bytes()
    }

    /// The signing key's word that the exchange key is its own, in this network.
    pub(crate) fn bind(&self, network: &NetworkId) -> [u8; 64] {
        self.sign(&binding(network, &self.keys.exchange))
    }

    /// Signs a text, which begins with what it is for.
    pub(crate) fn sign(&self, text: &[u8]) -> [u8; 64] {
        self.signing.sign(text).to_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(seed: u64) -> Identity {
        Identity::generate(&mut Randomness::seeded(seed))
    }

    #[test]
    fn an_identity_survives_being_written_and_read() {
        let made = identity(1);

        let read = Identity::from_bytes(&made.to_bytes());

        assert_eq!(read.peer_id(), made.peer_id());
        assert_eq!(read.keys(), made.keys());
        assert_ne!(read.peer_id(), identity(2).peer_id());
    }

    #[test]
    fn a_derived_name_is_a_locally_administered_unicast_mac() {
        for seed in 0..64 {
            let name = identity(seed).peer_id().name();
            assert_eq!(name.0[0] & 0x03, 0x02, "{name}");
        }
    }

    #[test]
    fn the_binding_holds_for_these_keys_and_this_network_only() {
        let (a, b) = (identity(1), identity(2));
        let (net, other) = (NetworkId::of("weft"), NetworkId::of("other"));
        let signature = a.bind(&net);

        assert!(a.keys().is_bound_by(&net, &signature));
        assert!(!a.keys().is_bound_by(&other, &signature));
        let stolen = PublicKeys {
            signing: a.keys().signing,
            exchange: b.keys().exchange,
        };
        assert!(!stolen.is_bound_by(&net, &signature));
        let mut flipped = signature;
        flipped[7] ^= 1;
        assert!(!a.keys().is_bound_by(&net, &flipped));
    }

    #[test]
    fn names_are_read_as_weave_read_them() {
        for (text, shown) in [
            ("::1", "00:00:00:00:00:01"),
            ("1::1", "01:00:00:00:00:01"),
            ("ab::", "ab:00:00:00:00:00"),
            ("1:2::3", "01:02:00:00:00:03"),
            ("DA:FA:EB:DC:28:27", "da:fa:eb:dc:28:27"),
        ] {
            assert_eq!(text.parse::<PeerName>().unwrap().to_string(), shown);
        }
        for text in [
            "",
            ":",
            ":::",
            "1:2:3:4:5",
            "1:2:3:4:5:6:7",
            "1:2:3:4:5::6",
            "::1::",
            "123::",
            "g::",
            "+1::",
            "1: 2::",
        ] {
            assert_eq!(
                text.parse::<PeerName>(),
                Err(PeerParseError::Name),
                "{text:?}"
            );
        }
        assert_eq!("::".parse::<PeerName>(), Err(PeerParseError::ZeroName));
    }

    #[test]
    fn ids_and_nicknames_are_checked() {
        let id = identity(3).peer_id();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("0123".parse::<PeerId>().is_err());
        assert!("é".repeat(16).parse::<PeerId>().is_err());
        assert_eq!("host-1".parse::<Nickname>().unwrap().as_str(), "host-1");
        for bad in ["", "a b", "a\n", "\u{1b}[31m", &"x".repeat(65)] {
            assert!(bad.parse::<Nickname>().is_err(), "{bad:?}");
        }
    }
}

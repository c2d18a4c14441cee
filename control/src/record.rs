//! One signed record: what a peer says of itself to everybody, kept and forwarded as the bytes received.
//!
//! ```text
//!  0      format, 1
//!  1      kind
//!  2-3    part
//!  4-19   PeerId of the origin
//!  20-27  incarnation
//!  28-35  sequence
//!  36-37  length of the body
//!  38..   body: fields (fields.rs), opaque here; empty = withdrawn
//!  ..     Ed25519 signature, 64 bytes, over "weft record 1", the network id and everything before it
//! ```
//!
//! Numbers are big-endian. A record is (origin, kind, part); of two versions the one with the larger (incarnation,
//! sequence) holds. Who reads a record need not know its kind. The parser is total; bound: `config::RECORD_BODY_MAX`.

use std::fmt;

use bytes::Bytes;

use crate::config::RECORD_BODY_MAX;
use crate::peer::{Identity, PeerId, PublicKeys};
use crate::secret::NetworkId;

const FORMAT: u8 = 1;
const HEADER_LEN: usize = 38;
const SIGNATURE_LEN: usize = 64;
/// Bytes of a record that are not its body.
pub(crate) const RECORD_OVERHEAD: usize = HEADER_LEN + SIGNATURE_LEN;
const CONTEXT: &[u8] = b"weft record 1";

/// The kinds that this release knows; others are kept and forwarded all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RecordKind {
    /// What a HELLO says, and both keys. The others of an origin count only once this one is known.
    Peer,
    /// Underlay addresses.
    Endpoints,
    /// Links and their quality.
    Topology,
    /// MAC and addresses of local containers.
    Attachments,
    /// DNS names.
    Names,
    /// Address ranges.
    Ring,
}

impl RecordKind {
    pub(crate) const fn byte(self) -> u8 {
        match self {
            Self::Peer => 1,
            Self::Endpoints => 2,
            Self::Topology => 3,
            Self::Attachments => 4,
            Self::Names => 5,
            Self::Ring => 6,
        }
    }

    pub(crate) const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Peer,
            2 => Self::Endpoints,
            3 => Self::Topology,
            4 => Self::Attachments,
            5 => Self::Names,
            6 => Self::Ring,
            _ => return None,
        })
    }
}

/// Which record; at most one version of each is kept.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RecordKey {
    pub(crate) origin: PeerId,
    pub(crate) kind: u8,
    pub(crate) part: u16,
}

impl fmt::Debug for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.origin.name(), self.kind, self.part)
    }
}

/// Which version of a record; no wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Version {
    pub(crate) incarnation: u64,
    pub(crate) sequence: u64,
}

/// Why bytes are no record, or one that is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("malformed record")]
    Malformed,
    #[error("record with a wrong signature")]
    Forged,
}

/// A whole record; cheap to clone, never changed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) key: RecordKey,
    pub(crate) version: Version,
    bytes: Bytes,
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("key", &self.key)
            .field("version", &self.version)
            .field("len", &self.bytes.len())
            .finish()
    }
}

/// A record that still lies in the message it came in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RecordView<'a> {
    pub(crate) key: RecordKey,
    pub(crate) version: Version,
    bytes: &'a [u8],
}

impl Record {
    /// Makes a record of ours. `body` is at most `RECORD_BODY_MAX`; callers use several parts for more.
    pub(crate) fn sign(
        identity: &Identity,
        network: &NetworkId,
        (kind, part): (u8, u16),
        version: Version,
        body: &[u8],
    ) -> Self {
        let body = body.get(..RECORD_BODY_MAX).unwrap_or(body);
        let len = u16::try_from(body.len()).expect("RECORD_BODY_MAX fits into 16 bits");
        let mut bytes = Vec::with_capacity(RECORD_OVERHEAD + body.len());
        bytes.extend_from_slice(&[FORMAT, kind]);
        bytes.extend_from_slice(&part.to_be_bytes());
        bytes.extend_from_slice(&identity.peer_id().0);
        bytes.extend_from_slice(&version.incarnation.to_be_bytes());
        bytes.extend_from_slice(&version.sequence.to_be_bytes());
        bytes.extend_from_slice(&len.to_be_bytes());
        bytes.extend_from_slice(body);
        let signature = identity.sign(&signed_text(network, &bytes));
        bytes.extend_from_slice(&signature);
        Self {
            key: RecordKey {
                origin: identity.peer_id(),
                kind,
                part,
            },
            version,
            bytes: bytes.into(),
        }
    }

    /// What travels.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// What the origin says; empty if it was withdrawn.
    pub(crate) fn body(&self) -> &[u8] {
        body_of(&self.bytes)
    }

    /// Eight bytes that name this version of this record, and no other: the first of its signature.
    pub(crate) fn id(&self) -> u64 {
        id_of(&self.bytes)
    }
}

impl<'a> RecordView<'a> {
    /// Takes one record from the front; the rest comes back.
    pub(crate) fn split(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), RecordError> {
        let (header, _) = bytes
            .split_first_chunk::<HEADER_LEN>()
            .ok_or(RecordError::Malformed)?;
        let body_len = usize::from(u16::from_be_bytes([header[36], header[37]]));
        if header[0] != FORMAT || body_len > RECORD_BODY_MAX {
            return Err(RecordError::Malformed);
        }
        let (bytes, rest) = bytes
            .split_at_checked(RECORD_OVERHEAD + body_len)
            .ok_or(RecordError::Malformed)?;
        let mut origin = [0; 16];
        origin.copy_from_slice(&header[4..20]);
        let view = Self {
            key: RecordKey {
                origin: PeerId(origin),
                kind: header[1],
                part: u16::from_be_bytes([header[2], header[3]]),
            },
            version: Version {
                incarnation: number(&header[20..28]),
                sequence: number(&header[28..36]),
            },
            bytes,
        };
        Ok((view, rest))
    }

    /// Whether the origin, whose keys these are, has signed it for this network; a copy to keep.
    pub(crate) fn verify(
        &self,
        keys: &PublicKeys,
        network: &NetworkId,
    ) -> Result<Record, RecordError> {
        let (said, signature) = self
            .bytes
            .split_last_chunk::<SIGNATURE_LEN>()
            .ok_or(RecordError::Malformed)?;
        if PeerId::of(keys) != self.key.origin {
            return Err(RecordError::Forged);
        }
        #[cfg(test)]
        if let Some(bytes) = pool::find(self.bytes, network) {
            return Ok(self.keep(bytes));
        }
        if !keys.has_signed(&signed_text(network, said), signature) {
            return Err(RecordError::Forged);
        }
        let bytes = Bytes::copy_from_slice(self.bytes);
        #[cfg(test)]
        pool::keep(&bytes, network);
        Ok(self.keep(bytes))
    }

    fn keep(&self, bytes: Bytes) -> Record {
        Record {
            key: self.key,
            version: self.version,
            bytes,
        }
    }

    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    pub(crate) fn body(&self) -> &'a [u8] {
        body_of(self.bytes)
    }

    pub(crate) fn id(&self) -> u64 {
        id_of(self.bytes)
    }
}

fn body_of(bytes: &[u8]) -> &[u8] {
    bytes
        .get(HEADER_LEN..bytes.len().saturating_sub(SIGNATURE_LEN))
        .unwrap_or_default()
}

fn id_of(bytes: &[u8]) -> u64 {
    let signature = bytes.len().saturating_sub(SIGNATURE_LEN);
    number(bytes.get(signature..signature + 8).unwrap_or_default())
}

/// The number that eight bytes hold.
fn number(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

fn signed_text(network: &NetworkId, said: &[u8]) -> Vec<u8> {
    [CONTEXT, network.as_bytes(), said].concat()
}

/// In simulations a thousand nodes keep the same bytes: one copy, verified once.
#[cfg(test)]
mod pool {
    use std::cell::RefCell;
    use std::collections::HashMap;

    use super::{Bytes, NetworkId, id_of};

    thread_local! {
        static VERIFIED: RefCell<HashMap<(u64, [u8; 32]), Bytes>> = RefCell::default();
    }

    pub(super) fn find(bytes: &[u8], network: &NetworkId) -> Option<Bytes> {
        VERIFIED.with_borrow(|pool| {
            pool.get(&(id_of(bytes), *network.as_bytes()))
                .filter(|found| found.as_ref() == bytes)
                .cloned()
        })
    }

    pub(super) fn keep(bytes: &Bytes, network: &NetworkId) {
        VERIFIED.with_borrow_mut(|pool| {
            pool.insert((id_of(bytes), *network.as_bytes()), bytes.clone());
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::random::Randomness;

    fn identity() -> Identity {
        Identity::generate(&mut Randomness::seeded(1))
    }

    fn network() -> NetworkId {
        NetworkId::of("weft")
    }

    fn record(body: &[u8]) -> Record {
        let version = Version {
            incarnation: 3,
            sequence: 0x0102_0304_0506_0708,
        };
        Record::sign(&identity(), &network(), (3, 0x0a0b), version, body)
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_bytes_are_these_for_ever() {
        let record = record(b"links");

        assert_eq!(
            hex(&record.bytes()[..HEADER_LEN + 5]),
            format!(
                "01030a0b{}000000000000000301020304050607080005{}",
                identity().peer_id(),
                hex(b"links")
            )
        );
        assert_eq!(
            hex(&record.bytes()[HEADER_LEN + 5..]),
            GOLDEN_SIGNATURE,
            "Ed25519 signs the same text alike"
        );
        for byte in 0..=255 {
            if let Some(kind) = RecordKind::from_byte(byte) {
                assert_eq!(kind.byte(), byte);
            }
        }
    }

    const GOLDEN_SIGNATURE: &str = "041ba27944522b6bc5a9afef5a0513d178c17647eca9c5e01fdcdd82f6988a7d\
        64a94b92c90edbc50fd4308f0c21e97f89603f381f6291ed68c23871a9913603";

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let made = record(b"links");
        let two = [made.bytes().as_ref(), b"rest"].concat();

        let (view, rest) = RecordView::split(&two).unwrap();
        let read = view.verify(identity().keys(), &network()).unwrap();

        assert_eq!(rest, b"rest");
        assert_eq!(read, made);
        assert_eq!(
            (view.body(), read.body()),
            (b"links".as_slice(), b"links".as_slice())
        );
        assert_eq!((view.id(), view.bytes()), (made.id(), &made.bytes()[..]));
        assert_ne!(made.id(), record(b"other").id());
    }

    #[test]
    fn only_the_origins_signature_for_this_network_counts() {
        let made = record(b"links");
        let (view, _) = RecordView::split(made.bytes()).unwrap();
        let other = Identity::generate(&mut Randomness::seeded(2));

        assert_eq!(
            view.verify(other.keys(), &network()),
            Err(RecordError::Forged)
        );
        assert_eq!(
            view.verify(identity().keys(), &NetworkId::of("other")),
            Err(RecordError::Forged)
        );
    }

    #[test]
    fn versions_are_ordered_by_incarnation_first() {
        let version = |incarnation, sequence| Version {
            incarnation,
            sequence,
        };
        assert!(version(2, 0) > version(1, u64::MAX));
        assert!(version(2, 1) > version(2, 0));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_record_or_refused(bytes: Vec<u8>) {
            if let Ok((view, rest)) = RecordView::split(&bytes) {
                prop_assert_eq!(view.bytes().len() + rest.len(), bytes.len());
                prop_assert!(view.verify(identity().keys(), &network()).is_err());
            }
        }

        #[test]
        fn a_changed_bit_is_noticed(at in any::<prop::sample::Index>(), bit in 0_u8..8, body: Vec<u8>) {
            let made = record(&body);
            let mut bytes = made.bytes().to_vec();
            bytes[at.index(made.bytes().len())] ^= 1 << bit;

            let read = RecordView::split(&bytes)
                .and_then(|(view, _)| view.verify(identity().keys(), &network()));
            prop_assert!(read.is_err());
        }
    }
}

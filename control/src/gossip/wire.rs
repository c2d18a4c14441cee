//! What the two ends of a link say to each other about records.
//!
//! ```text
//!  0   kind
//!  RANGES    1   prefix: depth in nibbles, then the bytes that hold them; 8 hash of all versions of all origins there;
//!                repeated
//!  ORIGINS   2   prefix, then for every origin that we know there: PeerId 16, hash 8
//!  VERSIONS  3   1 is this an answer?, 16 PeerId, then for every record: kind 1, part 2, incarnation 8, sequence 8, id 8
//!  RECORDS   4   1 why, then records, one after the other; answered by ACK
//!  ACK       5
//!  HAVE      6   ids of records that just came to us, 8 each
//!  WANT      7   ids of records to be sent
//!  PRUNE     8   what you push comes to us by another way first: do not push
//!  PUSH      9   push to us what is new
//! ```
//!
//! Numbers are big-endian. RANGES narrow down where two stores differ, ORIGINS and VERSIONS say in what, and whoever
//! is ahead sends RECORDS. Parsers are total; what is too long is cut at `config::GOSSIP_ENTRIES_MAX`.

use crate::config::GOSSIP_ENTRIES_MAX;
use crate::peer::PeerId;
use crate::record::Version;

/// All origins whose PeerId begins like this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Prefix {
    /// Nibbles that count, at most 32.
    depth: u8,
    /// The others are zero.
    id: PeerId,
}

impl Prefix {
    /// Everybody.
    pub(super) const ROOT: Self = Self {
        depth: 0,
        id: PeerId([0; 16]),
    };
    const DEPTH_MAX: u8 = 32;

    /// The sixteen parts of it; none if it is one single origin.
    pub(super) fn children(self) -> impl Iterator<Item = Self> {
        let count = if self.depth < Self::DEPTH_MAX { 16 } else { 0 };
        (0..count).map(move |nibble: u8| {
            let mut id = self.id;
            let shift = if self.depth.is_multiple_of(2) { 4 } else { 0 };
            id.0[usize::from(self.depth / 2)] |= nibble << shift;
            Self {
                depth: self.depth + 1,
                id,
            }
        })
    }

    pub(super) fn first(self) -> PeerId {
        self.id
    }

    pub(super) fn last(self) -> PeerId {
        let mut id = self.id;
        let half = usize::from(self.depth / 2);
        if let Some(byte) = id.0.get_mut(half) {
            *byte |= if self.depth.is_multiple_of(2) {
                0xff
            } else {
                0x0f
            };
        }
        id.0.iter_mut().skip(half + 1).for_each(|byte| *byte = 0xff);
        id
    }

    fn put(self, bytes: &mut Vec<u8>) {
        bytes.push(self.depth);
        bytes.extend_from_slice(&self.id.0[..usize::from(self.depth.div_ceil(2))]);
    }

    fn take<'a>(bytes: &mut &'a [u8]) -> Option<Self> {
        let (depth, rest) = bytes.split_first()?;
        if *depth > Self::DEPTH_MAX {
            return None;
        }
        let (said, rest): (&'a [u8], _) = rest.split_at_checked(usize::from(depth.div_ceil(2)))?;
        let mut id = [0; 16];
        id[..said.len()].copy_from_slice(said);
        if !depth.is_multiple_of(2) {
            id[usize::from(depth / 2)] &= 0xf0;
        }
        *bytes = rest;
        Some(Self {
            depth: *depth,
            id: PeerId(id),
        })
    }
}

/// Which version of which record of an origin somebody has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) kind: u8,
    pub(super) part: u16,
    pub(super) version: Version,
    pub(super) id: u64,
}

/// Why records are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// They are new; a receiver that has them already says PRUNE.
    Fresh,
    /// The receiver lacks them.
    Lacking,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum GossipMessage<'a> {
    Ranges(Vec<(Prefix, u64)>),
    Origins(Prefix, Vec<(PeerId, u64)>),
    Versions {
        is_answer: bool,
        origin: PeerId,
        held: Vec<Held>,
    },
    Records(Why, &'a [u8]),
    Ack,
    Have(Vec<u64>),
    Want(Vec<u64>),
    Prune,
    Push,
}

/// Bytes that are none of these messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed gossip")]
pub(super) struct GossipError;

impl<'a> GossipMessage<'a> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self {
            Self::Ranges(ranges) => {
                bytes.push(1);
                for (prefix, hash) in ranges {
                    prefix.put(&mut bytes);
                    bytes.extend_from_slice(&hash.to_be_bytes());
                }
            }
            Self::Origins(prefix, origins) => {
                bytes.push(2);
                prefix.put(&mut bytes);
                for (origin, hash) in origins {
                    bytes.extend_from_slice(&origin.0);
                    bytes.extend_from_slice(&hash.to_be_bytes());
                }
            }
            Self::Versions {
                is_answer,
                origin,
                held,
            } => {
                bytes.extend_from_slice(&[3, u8::from(*is_answer)]);
                bytes.extend_from_slice(&origin.0);
                for held in held {
                    bytes.push(held.kind);
                    bytes.extend_from_slice(&held.part.to_be_bytes());
                    bytes.extend_from_slice(&held.version.incarnation.to_be_bytes());
                    bytes.extend_from_slice(&held.version.sequence.to_be_bytes());
                    bytes.extend_from_slice(&held.id.to_be_bytes());
                }
            }
            Self::Records(why, records) => {
                bytes.extend_from_slice(&[4, u8::from(*why == Why::Lacking)]);
                bytes.extend_from_slice(records);
            }
            Self::Ack => bytes.push(5),
            Self::Have(ids) | Self::Want(ids) => {
                bytes.push(if matches!(self, Self::Have(_)) { 6 } else { 7 });
                ids.iter()
                    .for_each(|id| bytes.extend_from_slice(&id.to_be_bytes()));
            }
            Self::Prune => bytes.push(8),
            Self::Push => bytes.push(9),
        }
        bytes
    }

    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, GossipError> {
        let (kind, body) = bytes.split_first().ok_or(GossipError)?;
        Self::decode_body(*kind, body).ok_or(GossipError)
    }

    fn decode_body(kind: u8, mut rest: &'a [u8]) -> Option<Self> {
        let message = match kind {
            1 => Self::Ranges(many(&mut rest, |rest| {
                Some((Prefix::take(rest)?, take_u64(rest)?))
            })?),
            2 => Self::Origins(
                Prefix::take(&mut rest)?,
                many(&mut rest, |rest| {
                    Some((PeerId(*take(rest)?), take_u64(rest)?))
                })?,
            ),
            3 => {
                let [is_answer] = take(&mut rest)?;
                Self::Versions {
                    is_answer: *is_answer != 0,
                    origin: PeerId(*take(&mut rest)?),
                    held: many(&mut rest, take_held)?,
                }
            }
            4 => {
                let [why] = take(&mut rest)?;
                let why = if *why == 0 { Why::Fresh } else { Why::Lacking };
                return Some(Self::Records(why, rest));
            }
            5 => Self::Ack,
            6 => Self::Have(many(&mut rest, take_u64)?),
            7 => Self::Want(many(&mut rest, take_u64)?),
            8 => Self::Prune,
            9 => Self::Push,
            _ => return None,
        };
        Some(message)
    }
}

/// Takes entries up to the end, and no more than the limit.
fn many<'a, T>(
    rest: &mut &'a [u8],
    mut take_one: impl FnMut(&mut &'a [u8]) -> Option<T>,
) -> Option<Vec<T>> {
    let mut entries = Vec::new();
    while !rest.is_empty() && entries.len() < GOSSIP_ENTRIES_MAX {
        entries.push(take_one(rest)?);
    }
    Some(entries)
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (taken, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(taken)
}

fn take_u64(rest: &mut &[u8]) -> Option<u64> {
    take(rest).map(|bytes| u64::from_be_bytes(*bytes))
}

fn take_held(rest: &mut &[u8]) -> Option<Held> {
    let [kind] = *take(rest)?;
    Some(Held {
        kind,
        part: u16::from_be_bytes(*take(rest)?),
        version: Version {
            incarnation: take_u64(rest)?,
            sequence: take_u64(rest)?,
        },
        id: take_u64(rest)?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn child(prefix: Prefix, nibble: usize) -> Prefix {
        prefix.children().nth(nibble).unwrap()
    }

    #[test]
    fn the_bytes_are_these_for_ever() {
        let prefix = child(child(child(Prefix::ROOT, 0xa), 0xb), 0xc);
        let version = Version {
            incarnation: 1,
            sequence: 2,
        };
        let held = Held {
            kind: 3,
            part: 4,
            version,
            id: 5,
        };
        let id = PeerId([0xee; 16]);
        for (message, bytes) in [
            (
                GossipMessage::Ranges(vec![(Prefix::ROOT, 1), (prefix, 2)]),
                b"\x01\x00\0\0\0\0\0\0\0\x01\x03\xab\xc0\0\0\0\0\0\0\0\x02".to_vec(),
            ),
            (
                GossipMessage::Origins(prefix, vec![(id, 7)]),
                [
                    b"\x02\x03\xab\xc0".as_slice(),
                    &[0xee; 16],
                    b"\0\0\0\0\0\0\0\x07",
                ]
                .concat(),
            ),
            (
                GossipMessage::Versions {
                    is_answer: true,
                    origin: id,
                    held: vec![held],
                },
                [
                    b"\x03\x01".as_slice(),
                    &[0xee; 16],
                    b"\x03\0\x04\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x05",
                ]
                .concat(),
            ),
            (
                GossipMessage::Records(Why::Fresh, b"r"),
                b"\x04\x00r".to_vec(),
            ),
            (
                GossipMessage::Records(Why::Lacking, b"r"),
                b"\x04\x01r".to_vec(),
            ),
            (GossipMessage::Ack, b"\x05".to_vec()),
            (
                GossipMessage::Have(vec![1]),
                b"\x06\0\0\0\0\0\0\0\x01".to_vec(),
            ),
            (
                GossipMessage::Want(vec![1]),
                b"\x07\0\0\0\0\0\0\0\x01".to_vec(),
            ),
            (GossipMessage::Prune, b"\x08".to_vec()),
            (GossipMessage::Push, b"\x09".to_vec()),
        ] {
            assert_eq!(message.encode(), bytes);
            assert_eq!(GossipMessage::decode(&bytes), Ok(message));
        }
    }

    #[test]
    fn a_prefix_covers_what_begins_like_it() {
        assert_eq!(Prefix::ROOT.last(), PeerId([0xff; 16]));
        let odd = child(Prefix::ROOT, 0xa);
        assert_eq!((odd.first().0[0], odd.last().0[0]), (0xa0, 0xaf));
        let even = child(odd, 0xb);
        assert_eq!((even.first().0[0], even.last().0[0]), (0xab, 0xab));
        assert_eq!((even.first().0[1], even.last().0[1]), (0x00, 0xff));
        let mut leaf = Prefix::ROOT;
        for _ in 0..32 {
            leaf = child(leaf, 0xf);
        }
        assert_eq!(
            (leaf.first(), leaf.last()),
            (PeerId([0xff; 16]), PeerId([0xff; 16]))
        );
        assert_eq!(leaf.children().count(), 0);
    }

    #[test]
    fn malformed_gossip_is_refused_and_too_much_of_it_cut() {
        for bad in [
            b"".as_slice(),
            b"\x00",
            b"\x0a",
            b"\x01\x21",
            b"\x01\x02\xab\0",
            b"\x02",
            b"\x03\x00short",
            b"\x04",
            b"\x06\0",
        ] {
            assert_eq!(GossipMessage::decode(bad), Err(GossipError), "{bad:?}");
        }
        let many = GossipMessage::Have(vec![7; GOSSIP_ENTRIES_MAX + 1]).encode();
        assert_eq!(
            GossipMessage::decode(&many),
            Ok(GossipMessage::Have(vec![7; GOSSIP_ENTRIES_MAX]))
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(bytes: Vec<u8>) {
            if let Ok(message) = GossipMessage::decode(&bytes) {
                let again = message.encode();
                prop_assert_eq!(GossipMessage::decode(&again), Ok(message));
            }
        }
    }
}

//! What two peers say on a link once it is up, and how it is framed.
//!
//! ```text
//!  frame    0     kind: 1 handshake, 2 record, 3 refusal
//!           1-3   length of the body, big-endian
//!           4..   body; of a record: AEAD(message), the four bytes before it are associated data
//!
//!  message  0     type
//!           1..   body
//!  PING, PONG     8 bytes that come back
//!  BYE            1 byte: why
//!  HELLO          fields (link/handshake.rs)
//!  GOSSIP         whatever gossip/wire.rs says
//!  SESSION        0 step, 1-8 handshake id, 9.. body (session.rs)
//!  ROUTED         0-15 to, 16-31 from, 32 links it may still cross, 33.. a message for the one at the end
//!  PUNCH          fields (endpoints.rs): look for me there, now
//!  ECHO           0 is this an answer?, 1-8 id; inside sessions only
//!  IPAM           ipam/message.rs
//!  SIGNED_IPAM    node/mail.rs
//!  GROUP_KEY      0-3 number, 4 cipher, 5 lanes, 6-37 key; never routed, as those on the way could read it
//!  GROUP_TAKEN    0-3 number of the key that was taken
//! ```
//!
//! A message of an unknown type is skipped and counted; so is a known one that does not parse. Inside a session
//! messages travel in the same form, unframed. Bounds: `config::MESSAGE_LEN_MAX`, `config::HANDSHAKE_LEN_MAX`.

use bytes::Bytes;
use weft_engine::command::SecretKey;
use weft_engine::config::LANES_MAX;

use crate::config::{HANDSHAKE_LEN_MAX, MESSAGE_LEN_MAX, ROUTED_BODY_MAX};
use crate::link::noise::TAG_LEN;
use crate::peer::PeerId;

const IPAM: u8 = 10;
const SIGNED_IPAM: u8 = 11;
const GROUP_KEY: u8 = 16;
const GROUP_KEY_TAKEN: u8 = 17;
/// Bytes before a frame's body.
pub(crate) const FRAME_HEADER_LEN: usize = 4;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameKind {
    Handshake,
    Record,
    Refusal,
}

impl FrameKind {
    fn byte(self) -> u8 {
        match self {
            Self::Handshake => 1,
            Self::Record => 2,
            Self::Refusal => 3,
        }
    }

    fn len_max(self) -> usize {
        match self {
            Self::Handshake => HANDSHAKE_LEN_MAX,
            Self::Record => MESSAGE_LEN_MAX + TAG_LEN,
            Self::Refusal => 1,
        }
    }
}

/// An unknown kind, or a body longer than its kind may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed frame")]
pub(crate) struct FrameError;

/// The header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) kind: FrameKind,
    pub(crate) len: usize,
}

impl FrameHeader {
    pub(crate) fn encode(self) -> [u8; FRAME_HEADER_LEN] {
        debug_assert!(
            self.len <= self.kind.len_max(),
            "callers keep to the limits"
        );
        let [high, middle, low] = u32::try_from(self.len).map_or([0xff; 3], |len| {
            let [_, high, middle, low] = len.to_be_bytes();
            [high, middle, low]
        });
        [self.kind.byte(), high, middle, low]
    }

    /// Reads the header at the front of `bytes`; `None` while it is not whole.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Self>, FrameError> {
        let Some([kind, high, middle, low]) = bytes.first_chunk() else {
            return Ok(None);
        };
        let kind = match kind {
            1 => FrameKind::Handshake,
            2 => FrameKind::Record,
            3 => FrameKind::Refusal,
            _ => return Err(FrameError),
        };
        let len = u32::from_be_bytes([0, *high, *middle, *low]) as usize;
        if len > kind.len_max() {
            return Err(FrameError);
        }
        Ok(Some(Self { kind, len }))
    }
}

/// Frames a body that is not sealed.
pub(crate) fn frame(kind: FrameKind, body: &[u8]) -> Vec<u8> {
    let header = FrameHeader {
        kind,
        len: body.len(),
    }
    .encode();
    [header.as_slice(), body].concat()
}

/// Why a handshake was not gone on with; clear on the wire, so only a hint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    OtherNetwork,
    WrongSecret,
    Busy,
    TooManyFailures,
    Malformed,
    Unknown(u8),
}

impl Refusal {
    pub(crate) fn byte(self) -> u8 {
        match self {
            Self::OtherNetwork => 1,
            Self::WrongSecret => 2,
            Self::Busy => 3,
            Self::TooManyFailures => 4,
            Self::Malformed => 5,
            Self::Unknown(byte) => byte,
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Self::OtherNetwork,
            2 => Self::WrongSecret,
            3 => Self::Busy,
            4 => Self::TooManyFailures,
            5 => Self::Malformed,
            _ => Self::Unknown(byte),
        }
    }
}

/// Why a peer ends a link that was up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ByeReason {
    Stopping,
    Duplicate,
    SelfConnection,
    ClonedIdentity,
    PeersMax,
    SecretRemoved,
    LabelCollision,
    Enough,
    /// The two give addresses by rings that were begun apart, or of other ranges.
    OtherRing,
    Unknown(u8),
}

impl ByeReason {
    pub(crate) fn byte(self) -> u8 {
        match self {
            Self::Stopping => 1,
            Self::Duplicate => 2,
            Self::SelfConnection => 3,
            Self::ClonedIdentity => 4,
            Self::PeersMax => 5,
            Self::SecretRemoved => 6,
            Self::LabelCollision => 7,
            Self::Enough => 8,
            Self::OtherRing => 9,
            Self::Unknown(byte) => byte,
        }
    }

    fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Self::Stopping,
            2 => Self::Duplicate,
            3 => Self::SelfConnection,
            4 => Self::ClonedIdentity,
            5 => Self::PeersMax,
            6 => Self::SecretRemoved,
            7 => Self::LabelCollision,
            8 => Self::Enough,
            9 => Self::OtherRing,
            _ => Self::Unknown(byte),
        }
    }
}

/// One step of a session handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SessionMessage {
    pub(crate) step: SessionStep,
    /// Chosen at random by the initiator.
    pub(crate) id: u64,
    pub(crate) body: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionStep {
    First,
    Second,
    Third,
    /// The responder accepts datagrams; the body proves that it knows the keys.
    Installed,
    /// The responder does not go on; the body is one byte.
    Refused,
}

impl SessionStep {
    fn byte(self) -> u8 {
        match self {
            Self::First => 1,
            Self::Second => 2,
            Self::Third => 3,
            Self::Installed => 4,
            Self::Refused => 5,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::First,
            2 => Self::Second,
            3 => Self::Third,
            4 => Self::Installed,
            5 => Self::Refused,
            _ => return None,
        })
    }
}

/// A message for a peer that is not at the other end of this link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Routed {
    pub(crate) to: PeerId,
    pub(crate) from: PeerId,
    /// Links that it may still cross.
    pub(crate) hop_limit: u8,
    /// One message, encoded; not routed again.
    pub(crate) body: Bytes,
}

/// One control message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    Hello(Vec<u8>),
    Ping([u8; 8]),
    Pong([u8; 8]),
    Bye(ByeReason),
    Session(SessionMessage),
    Gossip(Bytes),
    Routed(Routed),
    /// Where the sender may be found.
    Punch(Vec<u8>),
    /// Asks how long a datagram takes.
    Echo {
        id: u64,
        is_answer: bool,
    },
    /// The key under which the sender seals what it floods.
    GroupKey(GroupKeyMessage),
    /// The sender took our key of this number.
    GroupKeyTaken(u32),
    /// About addresses; its body is read by `ipam`.
    Ipam(Vec<u8>),
    /// The same, signed, as others pass it on.
    SignedIpam(Vec<u8>),
    /// Of a type that we do not know; skipped.
    Unknown(u8),
}

/// A key for floods, as its source gives it to one member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupKeyMessage {
    pub(crate) epoch: u32,
    /// The number of the cipher; the receiver may not know it.
    pub(crate) suite: u8,
    pub(crate) lanes: u8,
    pub(crate) key: SecretKey,
}

/// A message of a known type whose body is not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed message")]
pub(crate) struct MessageError;

impl Message {
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Hello(body) => [[1].as_slice(), body].concat(),
            Self::Ping(nonce) => [[2].as_slice(), nonce].concat(),
            Self::Pong(nonce) => [[3].as_slice(), nonce].concat(),
            Self::Bye(reason) => vec![4, reason.byte()],
            Self::Session(message) => [
                [5, message.step.byte()].as_slice(),
                &message.id.to_be_bytes(),
                &message.body,
            ]
            .concat(),
            Self::Gossip(body) => [[6].as_slice(), body].concat(),
            Self::Routed(routed) => [
                [7].as_slice(),
                &routed.to.0,
                &routed.from.0,
                &[routed.hop_limit],
                &routed.body,
            ]
            .concat(),
            Self::Punch(body) => [[8].as_slice(), body].concat(),
            Self::Echo { id, is_answer } => {
                [[9, u8::from(*is_answer)].as_slice(), &id.to_be_bytes()].concat()
            }
            Self::GroupKey(message) => [
                [GROUP_KEY].as_slice(),
                &message.epoch.to_be_bytes(),
                &[message.suite, message.lanes],
                &message.key.0,
            ]
            .concat(),
            Self::GroupKeyTaken(epoch) => {
                [[GROUP_KEY_TAKEN].as_slice(), &epoch.to_be_bytes()].concat()
            }
            Self::Ipam(body) => [[IPAM].as_slice(), body].concat(),
            Self::SignedIpam(body) => [[SIGNED_IPAM].as_slice(), body].concat(),
            Self::Unknown(kind) => vec![*kind],
        }
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let (kind, body) = bytes.split_first().ok_or(MessageError)?;
        let nonce = || body.try_into().map_err(|_| MessageError);
        Ok(match *kind {
            1 => Self::Hello(body.to_vec()),
            2 => Self::Ping(nonce()?),
            3 => Self::Pong(nonce()?),
            4 => Self::Bye(ByeReason::from_byte(*body.first().ok_or(MessageError)?)),
            5 => {
                let (step, rest) = body.split_first().ok_or(MessageError)?;
                let (id, body) = rest.split_first_chunk().ok_or(MessageError)?;
                let step = SessionStep::from_byte(*step).ok_or(MessageError)?;
                Self::Session(SessionMessage {
                    step,
                    id: u64::from_be_bytes(*id),
                    body: body.to_vec(),
                })
            }
            6 => Self::Gossip(Bytes::copy_from_slice(body)),
            7 => Self::Routed(decode_routed(body)?),
            8 => Self::Punch(body.to_vec()),
            9 => {
                let (answer, id) = body.split_first().ok_or(MessageError)?;
                let id = u64::from_be_bytes(id.try_into().map_err(|_| MessageError)?);
                if *answer > 1 {
                    return Err(MessageError);
                }
                Self::Echo {
                    id,
                    is_answer: *answer == 1,
                }
            }
            IPAM => Self::Ipam(body.to_vec()),
            SIGNED_IPAM => Self::SignedIpam(body.to_vec()),
            GROUP_KEY => Self::GroupKey(decode_group_key(body)?),
            GROUP_KEY_TAKEN => {
                let epoch = body.try_into().map_err(|_| MessageError)?;
                Self::GroupKeyTaken(u32::from_be_bytes(epoch))
            }
            _ => Self::Unknown(*kind),
        })
    }
}

fn decode_group_key(body: &[u8]) -> Result<GroupKeyMessage, MessageError> {
    let (epoch, rest) = body.split_first_chunk().ok_or(MessageError)?;
    let ([suite, lanes], key) = rest.split_first_chunk().ok_or(MessageError)?;
    if !(1..=LANES_MAX).contains(&usize::from(*lanes)) {
        return Err(MessageError);
    }
    Ok(GroupKeyMessage {
        epoch: u32::from_be_bytes(*epoch),
        suite: *suite,
        lanes: *lanes,
        key: SecretKey(key.try_into().map_err(|_| MessageError)?),
    })
}

fn decode_routed(body: &[u8]) -> Result<Routed, MessageError> {
    let (to, rest) = body.split_first_chunk().ok_or(MessageError)?;
    let (from, rest) = rest.split_first_chunk().ok_or(MessageError)?;
    let (hop_limit, body) = rest.split_first().ok_or(MessageError)?;
    if body.len() > ROUTED_BODY_MAX {
        return Err(MessageError);
    }
    Ok(Routed {
        to: PeerId(*to),
        from: PeerId(*from),
        hop_limit: *hop_limit,
        body: Bytes::copy_from_slice(body),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_bytes_are_these_for_ever() {
        assert_eq!(frame(FrameKind::Handshake, b"abc"), b"\x01\x00\x00\x03abc");
        assert_eq!(
            frame(FrameKind::Refusal, &[Refusal::WrongSecret.byte()]),
            b"\x03\x00\x00\x01\x02"
        );
        assert_eq!(
            FrameHeader {
                kind: FrameKind::Record,
                len: 65536
            }
            .encode(),
            *b"\x02\x01\x00\x00"
        );
        let session = SessionMessage {
            step: SessionStep::Second,
            id: 0x0102_0304_0506_0708,
            body: b"xy".to_vec(),
        };
        let routed = Routed {
            to: PeerId(*b"tototototototoTO"),
            from: PeerId(*b"fromfromfromFROM"),
            hop_limit: 7,
            body: Bytes::from_static(b"\x08p"),
        };
        for (message, bytes) in [
            (
                Message::Routed(routed),
                b"\x07tototototototoTOfromfromfromFROM\x07\x08p".as_slice(),
            ),
            (Message::Punch(b"e".to_vec()), b"\x08e"),
            (
                Message::GroupKey(GroupKeyMessage {
                    epoch: 7,
                    suite: 1,
                    lanes: 2,
                    key: SecretKey(*b"a key of thirty-two bytes, whole"),
                }),
                b"\x10\0\0\0\x07\x01\x02a key of thirty-two bytes, whole",
            ),
            (Message::GroupKeyTaken(7), b"\x11\0\0\0\x07"),
            (
                Message::Echo {
                    id: 2,
                    is_answer: true,
                },
                b"\x09\x01\0\0\0\0\0\0\0\x02",
            ),
            (Message::Hello(b"f".to_vec()), b"\x01f"),
            (Message::Ping(*b"12345678"), b"\x0212345678"),
            (Message::Pong(*b"12345678"), b"\x0312345678"),
            (Message::Bye(ByeReason::Duplicate), b"\x04\x02"),
            (Message::Gossip(Bytes::from_static(b"g")), b"\x06g"),
            (
                Message::Session(session),
                b"\x05\x02\x01\x02\x03\x04\x05\x06\x07\x08xy",
            ),
        ] {
            assert_eq!(message.encode(), bytes);
            assert_eq!(Message::decode(bytes), Ok(message));
        }
    }

    #[test]
    fn unknown_types_are_told_from_malformed_ones() {
        assert_eq!(Message::decode(b"\x63whatever"), Ok(Message::Unknown(0x63)));
        for bad in [
            b"".as_slice(),
            b"\x02short",
            b"\x04",
            b"\x05\x01\x00",
            b"\x05\x0900000000",
            b"\x07tototototototoTOfromfromfromFROM",
            b"\x09\x0200000000",
            b"\x09\x010000000",
        ] {
            assert_eq!(Message::decode(bad), Err(MessageError), "{bad:?}");
        }
    }

    #[test]
    fn frames_have_a_kind_and_a_limit() {
        assert_eq!(FrameHeader::parse(b"\x01\x00\x00"), Ok(None));
        assert_eq!(FrameHeader::parse(b"\x00\x00\x00\x00"), Err(FrameError));
        assert_eq!(FrameHeader::parse(b"\x01\x00\x04\x01"), Err(FrameError));
        assert_eq!(FrameHeader::parse(b"\x02\x01\x00\x11"), Err(FrameError));
        assert!(FrameHeader::parse(b"\x02\x01\x00\x10").is_ok());
        assert_eq!(FrameHeader::parse(b"\x03\x00\x00\x02"), Err(FrameError));
    }

    #[test]
    fn reasons_keep_their_numbers() {
        for byte in 0..=255 {
            assert_eq!(Refusal::from_byte(byte).byte(), byte);
            assert_eq!(ByeReason::from_byte(byte).byte(), byte);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(bytes: Vec<u8>) {
            let _header = FrameHeader::parse(&bytes);
            if let Ok(message) = Message::decode(&bytes) && !matches!(message, Message::Unknown(_) | Message::Bye(_)) {
                prop_assert_eq!(message.encode(), bytes);
            }
        }
    }
}

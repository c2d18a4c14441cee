//! Path messages: what two ends of a path say to each other, as bytes.
//!
//! They travel sealed, in datagrams of the live session. Numbers are big endian. Bytes after a message are
//! padding (a probe measures with it what size crosses) and are ignored, as are unknown flags.
//!
//! ```text
//!  PROBE                                        PROBE_REPLY
//!  0      1                                     0      2
//!  1      flags: 1 unanswered, 2 in use,        1      0
//!         4 narrower
//!  2-9    id, random                            2-9    id of the probe
//!  10-17  id of the receiver's latest probe     10-11  bytes of the datagram that held the probe
//!         that came from there, else 0          12-13  port, and
//!                                               14-29  IPv6 (or mapped IPv4) address it came from
//! ```

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::PathError;

/// First byte of a probe.
pub const PROBE: u8 = 1;
/// First byte of the answer to a probe.
pub const PROBE_REPLY: u8 = 2;

/// Longest path message in bytes, without padding.
pub const PATH_MESSAGE_LEN_MAX: usize = REPLY_LEN;
const REPLY_LEN: usize = 30;

const UNANSWERED: u8 = 1;
const IN_USE: u8 = 2;
const NARROWER: u8 = 4;

/// An encoded path message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathMessage {
    bytes: [u8; PATH_MESSAGE_LEN_MAX],
    len: usize,
}

impl PathMessage {
    /// The bytes to seal, before padding.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&self.bytes)
    }

    fn of<const N: usize>(parts: [&[u8]; N]) -> Self {
        let mut message = Self {
            bytes: [0; PATH_MESSAGE_LEN_MAX],
            len: 0,
        };
        for (slot, byte) in message.bytes.iter_mut().zip(parts.into_iter().flatten()) {
            *slot = *byte;
            message.len += 1;
        }
        message
    }
}

/// Asks for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Probe {
    pub(super) id: u64,
    /// The latest probe of the receiver's that came from where this one goes; 0 = none.
    pub(super) heard: u64,
    /// The sender's probes to this address get no answers.
    pub(super) unanswered: bool,
    /// The sender's data goes to this address.
    pub(super) in_use: bool,
    /// Less crosses to this address than did; what comes from there may have to be smaller, too.
    pub(super) narrower: bool,
}

/// Answers a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) id: u64,
    /// UDP payload bytes of the datagram that held the probe.
    pub(super) datagram_len: u16,
    /// Where it came from, as the sender of this answer saw it.
    pub(super) observed: SocketAddr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Message {
    Probe(Probe),
    Reply(Reply),
}

impl Message {
    pub(super) fn encode(&self) -> PathMessage {
        match self {
            Self::Probe(probe) => {
                let flags = if probe.unanswered { UNANSWERED } else { 0 }
                    | if probe.in_use { IN_USE } else { 0 }
                    | if probe.narrower { NARROWER } else { 0 };
                PathMessage::of([
                    &[PROBE, flags],
                    &probe.id.to_be_bytes(),
                    &probe.heard.to_be_bytes(),
                ])
            }
            Self::Reply(reply) => {
                let ip = match reply.observed.ip() {
                    IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                    IpAddr::V6(ip) => ip,
                };
                PathMessage::of([
                    &[PROBE_REPLY, 0],
                    &reply.id.to_be_bytes(),
                    &reply.datagram_len.to_be_bytes(),
                    &reply.observed.port().to_be_bytes(),
                    &ip.octets(),
                ])
            }
        }
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, PathError> {
        let mut rest = bytes;
        let [kind, flags] = take(&mut rest)?;
        match kind {
            PROBE => Ok(Self::Probe(Probe {
                id: u64::from_be_bytes(take(&mut rest)?),
                heard: u64::from_be_bytes(take(&mut rest)?),
                unanswered: flags & UNANSWERED != 0,
                in_use: flags & IN_USE != 0,
                narrower: flags & NARROWER != 0,
            })),
            PROBE_REPLY => {
                let id = u64::from_be_bytes(take(&mut rest)?);
                let datagram_len = u16::from_be_bytes(take(&mut rest)?);
                let port = u16::from_be_bytes(take(&mut rest)?);
                let ip = Ipv6Addr::from(take::<16>(&mut rest)?).to_canonical();
                Ok(Self::Reply(Reply {
                    id,
                    datagram_len,
                    observed: SocketAddr::new(ip, port),
                }))
            }
            unknown => Err(PathError::UnknownKind(unknown)),
        }
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], PathError> {
    let (head, tail) = rest.split_first_chunk().ok_or(PathError::Truncated)?;
    *rest = tail;
    Ok(*head)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOLDEN_PROBE: &[u8] =
        b"\x01\x03\x01\x02\x03\x04\x05\x06\x07\x08\x11\x12\x13\x14\x15\x16\x17\x18";
    const GOLDEN_REPLY: &[u8] = b"\x02\x00\x01\x02\x03\x04\x05\x06\x07\x08\x05\xc0\x1a\x7f\
        \x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xc0\x00\x02\x07";

    fn probe() -> Message {
        Message::Probe(Probe {
            id: 0x0102_0304_0506_0708,
            heard: 0x1112_1314_1516_1718,
            unanswered: true,
            in_use: true,
            narrower: false,
        })
    }

    fn reply() -> Message {
        let observed = "192.0.2.7:6783".parse().expect("an address");
        Message::Reply(Reply {
            id: 0x0102_0304_0506_0708,
            datagram_len: 1472,
            observed,
        })
    }

    #[test]
    fn the_bytes_on_the_wire_do_not_change() {
        assert_eq!(probe().encode().as_bytes(), GOLDEN_PROBE);
        assert_eq!(reply().encode().as_bytes(), GOLDEN_REPLY);
        assert_eq!(Message::decode(GOLDEN_PROBE), Ok(probe()));
        assert_eq!(Message::decode(GOLDEN_REPLY), Ok(reply()));
        let Message::Probe(probe) = probe() else {
            unreachable!("made above")
        };
        let narrower = Message::Probe(Probe {
            narrower: true,
            ..probe
        });
        assert_eq!(narrower.encode().as_bytes()[..2], *b"\x01\x07");
    }

    #[test]
    fn every_cut_is_truncated_and_padding_is_ignored() {
        for golden in [GOLDEN_PROBE, GOLDEN_REPLY] {
            for len in 0..golden.len() {
                assert_eq!(
                    Message::decode(&golden[..len]),
                    Err(PathError::Truncated),
                    "{len} bytes"
                );
            }
            let padded = [golden, &[0xaa; 900]].concat();
            assert_eq!(Message::decode(&padded), Message::decode(golden));
        }
    }

    #[test]
    fn another_kind_is_refused_by_its_number() {
        assert_eq!(Message::decode(&[9; 40]), Err(PathError::UnknownKind(9)));
    }

    fn address() -> impl Strategy<Value = SocketAddr> {
        let ip = prop_oneof![
            any::<[u8; 4]>().prop_map(IpAddr::from),
            any::<[u8; 16]>().prop_map(IpAddr::from)
        ];
        (ip, any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip.to_canonical(), port))
    }

    fn message() -> impl Strategy<Value = Message> {
        prop_oneof![
            (any::<u64>(), any::<u64>(), any::<[bool; 3]>()).prop_map(
                |(id, heard, [unanswered, in_use, narrower])| {
                    Message::Probe(Probe {
                        id,
                        heard,
                        unanswered,
                        in_use,
                        narrower,
                    })
                }
            ),
            (any::<u64>(), any::<u16>(), address()).prop_map(|(id, datagram_len, observed)| {
                Message::Reply(Reply {
                    id,
                    datagram_len,
                    observed,
                })
            }),
        ]
    }

    proptest! {
        #[test]
        fn what_was_encoded_decodes_to_the_same(message in message()) {
            prop_assert_eq!(Message::decode(message.encode().as_bytes()), Ok(message));
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Message::decode(&bytes);
        }
    }
}

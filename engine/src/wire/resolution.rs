//! Who has this address? ARP (RFC 826) and neighbour discovery (RFC 4861): questions, announcements, answers.
//!
//! ```text
//!  ARP   0 hardware 1 | 2 protocol 0800 | 4 lengths 6, 4 | 6 operation | 8 sender MAC, IP | 18 target MAC, IP
//!  ND    IPv6, hop limit 255, next header 58 | type 135 or 136, code 0, checksum, flags | target | options
//! ```
//!
//! Only what is plain is understood: no VLAN tag, no extension header, no fragment, no probe for duplicates
//! (a sender without an address must be heard by whoever has it). All else is a frame like any other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::wire::ethernet::{EtherType, EthernetView, HEADER_LEN, MacAddr};

const ARP_LEN: usize = 28;
const IPV6_LEN: usize = 40;
const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// Fixed part of a solicitation or advertisement.
const ND_LEN: usize = 24;
/// A link-layer address option.
const OPTION_LEN: usize = 8;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;
/// Bytes of the longest answer.
pub const ANSWER_LEN_MAX: usize = HEADER_LEN + IPV6_LEN + ND_LEN + OPTION_LEN;

/// What a frame says about addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    /// The sender asks who has an address.
    Question(Question),
    /// The sender says, unasked, that it has an address: it is new, or has moved.
    Announcement(IpAddr),
    /// Something else of the kind: a probe for duplicates, an answer.
    Other,
}

/// A question that can be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// Who asks.
    pub asker: MacAddr,
    /// Its address, of the same family as the target's.
    pub asker_address: IpAddr,
    /// The address that it looks for.
    pub target: IpAddr,
}

impl Resolution {
    /// Reads a frame; `None` if it is neither ARP nor neighbour discovery, or not a plain one.
    pub fn parse(view: &EthernetView<'_>) -> Option<Self> {
        if view.vlan_tag_count() > 0 {
            return None;
        }
        match view.ether_type() {
            EtherType::ARP => parse_arp(view),
            EtherType::IPV6 => parse_nd(view),
            _ => None,
        }
    }
}

fn parse_arp(view: &EthernetView<'_>) -> Option<Resolution> {
    let bytes: &[u8; ARP_LEN] = view.payload().first_chunk()?;
    let (head, rest) = bytes.split_first_chunk::<6>()?;
    let [op_high, op_low, rest @ ..] = rest else {
        return None;
    };
    if *head != [0, 1, 8, 0, 6, 4] {
        return None;
    }
    let (sender, rest) = rest.split_first_chunk::<6>()?;
    let (sender_ip, rest) = rest.split_first_chunk::<4>()?;
    let (_, target_ip) = rest.split_first_chunk::<6>()?;
    let asker = MacAddr(*sender);
    let (from, target) = (
        Ipv4Addr::from(*sender_ip),
        Ipv4Addr::from(*target_ip.first_chunk::<4>()?),
    );
    // Who speaks for another is not believed.
    if asker != view.source() || from.is_unspecified() {
        return Some(Resolution::Other);
    }
    Some(match u16::from_be_bytes([*op_high, *op_low]) {
        1 | 2 if from == target => Resolution::Announcement(from.into()),
        1 => Resolution::Question(Question {
            asker,
            asker_address: from.into(),
            target: target.into(),
        }),
        _ => Resolution::Other,
    })
}

fn parse_nd(view: &EthernetView<'_>) -> Option<Resolution> {
    let (ip, message) = view.payload().split_first_chunk::<IPV6_LEN>()?;
    let [
        _,
        _,
        _,
        _,
        len_high,
        len_low,
        next,
        hop_limit,
        addresses @ ..,
    ] = ip;
    let len = usize::from(u16::from_be_bytes([*len_high, *len_low]));
    let message = message.get(..len)?;
    let (fixed, options) = message.split_first_chunk::<ND_LEN>()?;
    let [kind, 0, _, _, flags, _, _, _, target @ ..] = fixed else {
        return None;
    };
    if *next != ICMPV6 || *hop_limit != 255 || !matches!(*kind, SOLICITATION | ADVERTISEMENT) {
        return None;
    }
    let from = Ipv6Addr::from(*addresses.first_chunk::<16>()?);
    let target = Ipv6Addr::from(*target);
    let own_option = |kind: u8| match options.first_chunk::<OPTION_LEN>() {
        Some([option, 1, mac @ ..]) if *option == kind => MacAddr(*mac) == view.source(),
        Some(_) => false,
        None => options.is_empty(),
    };
    if from.is_unspecified() || target.is_multicast() {
        return Some(Resolution::Other);
    }
    Some(match *kind {
        SOLICITATION if own_option(1) => Resolution::Question(Question {
            asker: view.source(),
            asker_address: from.into(),
            target: target.into(),
        }),
        ADVERTISEMENT if flags & SOLICITED == 0 && own_option(2) => {
            Resolution::Announcement(target.into())
        }
        _ => Resolution::Other,
    })
}

/// Writes the answer of `mac`, which has the target's address, into `frame`; returns its length. `None` if the
/// question mixes families or `frame` is shorter than [`ANSWER_LEN_MAX`].
pub fn answer(question: &Question, mac: MacAddr, frame: &mut [u8]) -> Option<usize> {
    let frame = frame.first_chunk_mut::<ANSWER_LEN_MAX>()?;
    let (header, payload) = frame.split_first_chunk_mut::<HEADER_LEN>()?;
    header[..6].copy_from_slice(&question.asker.0);
    header[6..12].copy_from_slice(&mac.0);
    match (question.asker_address, question.target) {
        (IpAddr::V4(asker), IpAddr::V4(target)) => {
            header[12..].copy_from_slice(&EtherType::ARP.0.to_be_bytes());
            payload[..8].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 2]);
            payload[8..14].copy_from_slice(&mac.0);
            payload[14..18].copy_from_slice(&target.octets());
            payload[18..24].copy_from_slice(&question.asker.0);
            payload[24..28].copy_from_slice(&asker.octets());
            Some(HEADER_LEN + ARP_LEN)
        }
        (IpAddr::V6(asker), IpAddr::V6(target)) => {
            header[12..].copy_from_slice(&EtherType::IPV6.0.to_be_bytes());
            let (ip, message) = payload.split_first_chunk_mut::<IPV6_LEN>()?;
            ip[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 32, ICMPV6, 255]);
            ip[8..24].copy_from_slice(&target.octets());
            ip[24..].copy_from_slice(&asker.octets());
            message[..8].copy_from_slice(&[ADVERTISEMENT, 0, 0, 0, SOLICITED | OVERRIDE, 0, 0, 0]);
            message[8..24].copy_from_slice(&target.octets());
            message[24..26].copy_from_slice(&[2, 1]);
            message[26..].copy_from_slice(&mac.0);
            let sum = checksum(&ip[8..], message);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
            Some(ANSWER_LEN_MAX)
        }
        _ => None,
    }
}

/// The checksum of an ICMPv6 message between these addresses (RFC 8200 §8.1).
fn checksum(addresses: &[u8], message: &[u8]) -> u16 {
    let words = addresses.chunks(2).chain(message.chunks(2));
    let mut sum: u32 = words
        .map(|word| match *word {
            [high, low] => u32::from(u16::from_be_bytes([high, low])),
            [high] => u32::from(high) << 8,
            _ => 0,
        })
        .sum();
    sum += u32::try_from(message.len()).unwrap_or(0) + u32::from(ICMPV6);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ASKER: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const OWNER: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

    fn arp(operation: u8, from: [u8; 4], target: [u8; 4]) -> Vec<u8> {
        let mut frame = vec![0xff; 6];
        frame.extend(ASKER.0);
        frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, operation]);
        frame.extend(ASKER.0);
        frame.extend(from);
        frame.extend([0; 6]);
        frame.extend(target);
        frame.resize(60, 0);
        frame
    }

    fn nd(kind: u8, flags: u8, from: &str, target: &str, option: u8) -> Vec<u8> {
        let address = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets();
        let mut frame = vec![0x33, 0x33, 0xff, 0, 0, 2];
        frame.extend(ASKER.0);
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255]);
        frame.extend(address(from));
        frame.extend(address("ff02::1:ff00:2"));
        frame.extend([kind, 0, 0, 0, flags, 0, 0, 0]);
        frame.extend(address(target));
        frame.extend([option, 1]);
        frame.extend(ASKER.0);
        frame
    }

    fn parse(frame: &[u8]) -> Option<Resolution> {
        Resolution::parse(&EthernetView::parse(frame)?)
    }

    #[test]
    fn questions_announcements_and_probes_are_told_apart() {
        let mut tagged = arp(1, [10, 0, 0, 1], [10, 0, 0, 2]);
        tagged.splice(12..12, [0x81, 0, 0, 5]);
        let mut foreign = arp(1, [10, 0, 0, 1], [10, 0, 0, 2]);
        foreign[22] ^= 4;
        let cases = [
            (
                arp(1, [10, 0, 0, 1], [10, 0, 0, 2]),
                Some(Resolution::Question(Question {
                    asker: ASKER,
                    asker_address: [10, 0, 0, 1].into(),
                    target: [10, 0, 0, 2].into(),
                })),
            ),
            (
                arp(1, [10, 0, 0, 1], [10, 0, 0, 1]),
                Some(Resolution::Announcement([10, 0, 0, 1].into())),
            ),
            (
                arp(2, [10, 0, 0, 1], [10, 0, 0, 1]),
                Some(Resolution::Announcement([10, 0, 0, 1].into())),
            ),
            (arp(1, [0; 4], [10, 0, 0, 1]), Some(Resolution::Other)),
            (foreign, Some(Resolution::Other)),
            (tagged, None),
            (
                nd(135, 0, "fd00::1", "fd00::2", 1),
                Some(Resolution::Question(Question {
                    asker: ASKER,
                    asker_address: "fd00::1".parse().unwrap(),
                    target: "fd00::2".parse().unwrap(),
                })),
            ),
            (nd(135, 0, "::", "fd00::2", 1), Some(Resolution::Other)),
            (
                nd(136, 0x20, "fd00::1", "fd00::1", 2),
                Some(Resolution::Announcement("fd00::1".parse().unwrap())),
            ),
            (
                nd(136, 0x60, "fd00::1", "fd00::1", 2),
                Some(Resolution::Other),
            ),
            (nd(134, 0, "fe80::1", "fd00::2", 1), None),
        ];
        for (frame, expected) in cases {
            assert_eq!(parse(&frame), expected, "{frame:02x?}");
        }
    }

    #[test]
    fn an_answer_over_arp_names_the_owner() {
        let Some(Resolution::Question(question)) = parse(&arp(1, [10, 0, 0, 1], [10, 0, 0, 2]))
        else {
            panic!("a question");
        };
        let mut frame = [0xee; ANSWER_LEN_MAX];
        let len = answer(&question, OWNER, &mut frame).unwrap();
        let expected = [
            2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 6, 0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 2, 10,
            0, 0, 2, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1,
        ];
        assert_eq!(frame[..len], expected);
    }

    #[test]
    fn an_answer_over_nd_is_solicited_and_its_checksum_holds() {
        let Some(Resolution::Question(question)) = parse(&nd(135, 0, "fd00::1", "fd00::2", 1))
        else {
            panic!("a question");
        };
        let mut frame = [0xee; ANSWER_LEN_MAX];
        let len = answer(&question, OWNER, &mut frame).unwrap();
        assert_eq!(len, 86);
        assert_eq!(frame[..6], ASKER.0);
        assert_eq!(frame[54..56], [136, 0]);
        assert_eq!(frame[58] & 0xe0, SOLICITED | OVERRIDE);
        assert_eq!(frame[80..86], OWNER.0);
        // Summed with its own checksum, a right message gives zero.
        let mut message = frame[54..86].to_vec();
        let claimed = [message[2], message[3]];
        message[2..4].fill(0);
        assert_eq!(checksum(&frame[22..54], &message).to_be_bytes(), claimed);
        assert_ne!(claimed, [0, 0]);
    }

    proptest! {
        #[test]
        fn no_bytes_upset_it(mut frame in prop::collection::vec(any::<u8>(), 0..120), nd: bool) {
            if frame.len() > 14 {
                frame[12..14].copy_from_slice(if nd { &[0x86, 0xdd] } else { &[8, 6] });
            }
            if let Some(Resolution::Question(question)) = parse(&frame) {
                let mut to = [0; ANSWER_LEN_MAX];
                prop_assert!(answer(&question, OWNER, &mut to).is_some());
            }
        }
    }
}

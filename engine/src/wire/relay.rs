//! The outside of RELAY and GROUP: who it is for, whom it is from, and what one hop vouches for.
//!
//! ```text
//!  0     type(4) | version(4)
//!  1     hop lane                      the sending worker of this hop, where every type has its lane
//!  2     hop limit                     8 at the source; at 1 the datagram is passed on no further
//!  3     flags                         zero, or the datagram is refused
//!  4-7   hop receiver index            the session of the two ends of this hop
//!  8-15  hop counter                   nonce and replay mark of the hop lane
//!  16-23 destination label             zero in GROUP, which is for everybody
//!  24-31 source label
//!  32..  a whole DATA datagram, as its source sealed it; in GROUP its receiver index is the source's group epoch
//!  last  hop tag(16)                   AEAD of the hop lane over nothing; associated data as below
//!
//!  associated data = bytes 0-31 | inner header (16) | inner tag (16) | length of the whole (2)
//! ```
//!
//! A hop tag costs the same whatever the datagram carries: the inside is vouched for by its own tag, which
//! the hop tag covers. A relay rewrites bytes 0 to 15 and the tag, and touches nothing else.

use crate::wire::{DatagramType, FRAME_OVERHEAD, HEADER_LEN, TAG_LEN, VERSION};

/// Bytes before the inner datagram.
pub const RELAY_FRONT_LEN: usize = 32;
/// What RELAY adds to a DATA datagram.
pub const RELAY_OVERHEAD: usize = RELAY_FRONT_LEN + TAG_LEN;
/// Transmissions of one datagram on its whole way.
pub const HOP_LIMIT_MAX: u8 = 8;
/// Bytes that a hop tag covers.
pub const HOP_DATA_LEN: usize = RELAY_FRONT_LEN + HEADER_LEN + TAG_LEN + 2;

/// What is wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrapping {
    /// A datagram for one peer.
    Relay,
    /// One for all members, along the source's tree.
    Group,
}

impl Wrapping {
    const fn first_byte(self) -> u8 {
        let kind = match self {
            Self::Relay => DatagramType::Relay,
            Self::Group => DatagramType::Group,
        };
        ((kind as u8) << 4) | VERSION
    }
}

/// What one hop says of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayHeader {
    /// RELAY or GROUP.
    pub wrapping: Wrapping,
    /// The sending worker of this hop.
    pub lane: u8,
    /// Transmissions left, this one included.
    pub hop_limit: u8,
    /// The receiver's name for the epoch of the hop's session.
    pub receiver: u32,
    /// Nonce and replay mark of the hop lane.
    pub counter: u64,
    /// Who opens the inner datagram; zero in GROUP.
    pub destination: u64,
    /// Who sealed it.
    pub source: u64,
}

impl RelayHeader {
    /// Reads the header of a datagram; `None` unless it can hold a DATA datagram, is of type RELAY or GROUP
    /// and our version, has no flag set and a hop limit that a source may have given it.
    #[inline]
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        if datagram.len() < RELAY_OVERHEAD + FRAME_OVERHEAD {
            return None;
        }
        let bytes: &[u8; RELAY_FRONT_LEN] = datagram.first_chunk()?;
        let [first, lane, hop_limit, flags, r0, r1, r2, r3, rest @ ..] = *bytes;
        let wrapping = if first == Wrapping::Relay.first_byte() {
            Wrapping::Relay
        } else if first == Wrapping::Group.first_byte() {
            Wrapping::Group
        } else {
            return None;
        };
        if flags != 0 || !(1..=HOP_LIMIT_MAX).contains(&hop_limit) {
            return None;
        }
        let (counter, labels) = rest.split_first_chunk()?;
        let (destination, source) = labels.split_first_chunk()?;
        if wrapping == Wrapping::Group && *destination != [0; 8] {
            return None;
        }
        Some(Self {
            wrapping,
            lane,
            hop_limit,
            receiver: u32::from_be_bytes([r0, r1, r2, r3]),
            counter: u64::from_be_bytes(*counter),
            destination: u64::from_be_bytes(*destination),
            source: u64::from_be_bytes(*source.first_chunk()?),
        })
    }

    /// The header's bytes.
    #[inline]
    pub fn encode(self) -> [u8; RELAY_FRONT_LEN] {
        let mut bytes = [0; RELAY_FRONT_LEN];
        bytes[0] = self.wrapping.first_byte();
        bytes[1] = self.lane;
        bytes[2] = self.hop_limit;
        bytes[4..8].copy_from_slice(&self.receiver.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.counter.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.destination.to_be_bytes());
        bytes[24..].copy_from_slice(&self.source.to_be_bytes());
        bytes
    }
}

/// What the hop tag of a datagram covers; `None` if it is too short to have one.
#[inline]
pub fn hop_data(datagram: &[u8]) -> Option<[u8; HOP_DATA_LEN]> {
    let mut data = [0; HOP_DATA_LEN];
    let (front, rest) = data.split_first_chunk_mut::<{ RELAY_FRONT_LEN + HEADER_LEN }>()?;
    let (tag, len) = rest.split_first_chunk_mut::<TAG_LEN>()?;
    *front = *datagram.first_chunk()?;
    let inner = datagram.get(..datagram.len().checked_sub(TAG_LEN)?)?;
    *tag = *inner.last_chunk()?;
    len.copy_from_slice(&u16::try_from(datagram.len()).ok()?.to_be_bytes());
    Some(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: RelayHeader = RelayHeader {
        wrapping: Wrapping::Relay,
        lane: 3,
        hop_limit: 8,
        receiver: 0x0102_0304,
        counter: 0x0506_0708_090a_0b0c,
        destination: 0x1011_1213_1415_1617,
        source: 0x2021_2223_2425_2627,
    };

    #[test]
    fn the_header_has_these_bytes_for_ever() {
        let golden = [
            0x21, 3, 8, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0x10, 0x11, 0x12, 0x13, 0x14,
            0x15, 0x16, 0x17, 0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27,
        ];
        assert_eq!(HEADER.encode(), golden);
        let mut datagram = golden.to_vec();
        datagram.resize(RELAY_OVERHEAD + FRAME_OVERHEAD, 0);
        assert_eq!(RelayHeader::parse(&datagram), Some(HEADER));
    }

    #[test]
    fn a_group_datagram_is_for_nobody_in_particular() {
        let group = RelayHeader {
            wrapping: Wrapping::Group,
            destination: 0,
            ..HEADER
        };
        let mut datagram = group.encode().to_vec();
        assert_eq!(datagram[0], 0x31);
        datagram.resize(RELAY_OVERHEAD + FRAME_OVERHEAD, 0);
        assert_eq!(RelayHeader::parse(&datagram), Some(group));
        datagram[20] = 1;
        assert_eq!(RelayHeader::parse(&datagram), None);
    }

    #[test]
    fn a_short_foreign_flagged_or_unlimited_datagram_is_refused() {
        let mut datagram = HEADER.encode().to_vec();
        datagram.resize(RELAY_OVERHEAD + FRAME_OVERHEAD - 1, 0);
        assert_eq!(RelayHeader::parse(&datagram), None, "one byte short");
        datagram.push(0);
        for (at, byte) in [(0, 0x11), (0, 0x22), (2, 0), (2, 9), (3, 1)] {
            let mut bad = datagram.clone();
            bad[at] = byte;
            assert_eq!(RelayHeader::parse(&bad), None, "byte {at} = {byte:#x}");
        }
        assert!(RelayHeader::parse(&datagram).is_some());
    }

    #[test]
    fn the_hop_tag_covers_both_headers_the_inner_tag_and_the_length() {
        let datagram: Vec<u8> = (0..=255).collect();
        let data = hop_data(&datagram).unwrap();
        assert_eq!(data[..48], datagram[..48]);
        assert_eq!(data[48..64], datagram[224..240]);
        assert_eq!(data[64..], [1, 0]);
        assert_eq!(hop_data(&datagram[..40]), None);
    }
}

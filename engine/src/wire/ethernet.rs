//! The header of an overlay Ethernet frame: addresses, up to two VLAN tags, type.
//!
//! ```text
//!  0            6        12          14           (18)         (22)
//!  | destination | source | 8100/88a8 | tag control | type ... | payload
//!                         └── up to two such tags ──┘
//! ```
//!
//! Every function is total: a frame that ends too soon yields `None`.

use std::fmt;
use std::str::FromStr;

/// Bytes of an untagged Ethernet header.
pub const HEADER_LEN: usize = 14;
/// Bytes of one VLAN tag.
pub const VLAN_TAG_LEN: usize = 4;
/// VLAN tags that are looked through: one of the provider, one of the customer (802.1ad).
pub const VLAN_TAGS_MAX: usize = 2;

/// A 48-bit Ethernet address; shown as `aa:bb:cc:dd:ee:ff`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// `ff:ff:ff:ff:ff:ff`, everybody.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Says whether the address names a group; the broadcast address does too.
    #[must_use]
    pub const fn is_multicast(self) -> bool {
        let [first, ..] = self.0;
        first & 1 != 0
    }

    /// Says whether the address is the broadcast address.
    #[must_use]
    pub fn is_broadcast(self) -> bool {
        self == Self::BROADCAST
    }

    /// Says whether the address is all zero, which no station may use.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self == Self([0; 6])
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The text is not six two-digit hexadecimal numbers with colons between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an Ethernet address of the form aa:bb:cc:dd:ee:ff")]
pub struct ParseMacError;

impl FromStr for MacAddr {
    type Err = ParseMacError;

    fn from_str(text: &str) -> Result<Self, ParseMacError> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().ok_or(ParseMacError)?;
            if part.len() != 2 || !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(ParseMacError);
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| ParseMacError)?;
        }
        match parts.next() {
            None => Ok(Self(bytes)),
            Some(_) => Err(ParseMacError),
        }
    }
}

/// What follows the Ethernet header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EtherType(pub u16);

impl EtherType {
    /// Internet protocol, version 4.
    pub const IPV4: Self = Self(0x0800);
    /// Address resolution protocol.
    pub const ARP: Self = Self(0x0806);
    /// A customer's VLAN tag (802.1Q).
    pub const VLAN: Self = Self(0x8100);
    /// Internet protocol, version 6.
    pub const IPV6: Self = Self(0x86dd);
    /// A provider's VLAN tag (802.1ad).
    pub const PROVIDER_VLAN: Self = Self(0x88a8);

    const fn is_vlan_tag(self) -> bool {
        matches!(self, Self::VLAN | Self::PROVIDER_VLAN)
    }
}

/// A frame whose Ethernet header is complete.
#[derive(Debug, Clone, Copy)]
pub struct EthernetView<'a> {
    frame: &'a [u8],
    fixed: &'a [u8; HEADER_LEN],
    ether_type: EtherType,
    l3_offset: usize,
}

impl<'a> EthernetView<'a> {
    /// Walks the header; `None` if the frame ends inside it.
    ///
    /// A third VLAN tag is not looked through: the type is then that of a tag.
    #[must_use]
    #[inline]
    pub fn parse(frame: &'a [u8]) -> Option<Self> {
        let fixed = frame.first_chunk::<HEADER_LEN>()?;
        let [.., high, low] = *fixed;
        let mut ether_type = EtherType(u16::from_be_bytes([high, low]));
        let mut l3_offset = HEADER_LEN;
        for _ in 0..VLAN_TAGS_MAX {
            if !ether_type.is_vlan_tag() {
                break;
            }
            let [_, _, high, low] = *frame.get(l3_offset..)?.first_chunk::<VLAN_TAG_LEN>()?;
            ether_type = EtherType(u16::from_be_bytes([high, low]));
            l3_offset += VLAN_TAG_LEN;
        }
        Some(Self {
            frame,
            fixed,
            ether_type,
            l3_offset,
        })
    }

    /// Returns the address the frame is for.
    #[must_use]
    pub fn destination(&self) -> MacAddr {
        let [a, b, c, d, e, f, ..] = *self.fixed;
        MacAddr([a, b, c, d, e, f])
    }

    /// Returns the address the frame is from.
    #[must_use]
    pub fn source(&self) -> MacAddr {
        let [_, _, _, _, _, _, a, b, c, d, e, f, ..] = *self.fixed;
        MacAddr([a, b, c, d, e, f])
    }

    /// Returns the type behind the VLAN tags.
    #[must_use]
    pub const fn ether_type(&self) -> EtherType {
        self.ether_type
    }

    /// Returns the number of VLAN tags that were looked through.
    #[must_use]
    pub const fn vlan_tag_count(&self) -> usize {
        (self.l3_offset - HEADER_LEN) / VLAN_TAG_LEN
    }

    /// Returns where the network header begins, in bytes from the start of the frame.
    #[must_use]
    pub const fn l3_offset(&self) -> usize {
        self.l3_offset
    }

    /// Says whether this is IPv4 or ARP from, for or about an address.
    #[must_use]
    #[inline]
    pub fn speaks_of(&self, address: [u8; 4]) -> bool {
        // Source and destination; sender's and target's protocol address.
        let offsets = match self.ether_type {
            EtherType::IPV4 => [12, 16],
            EtherType::ARP => [14, 24],
            _ => return false,
        };
        let payload = self.payload();
        offsets
            .iter()
            .any(|at| payload.get(*at..at + 4) == Some(&address[..]))
    }

    /// Returns the IPv4 address that sends this, in a packet or in ARP.
    #[must_use]
    pub fn ipv4_source(&self) -> Option<[u8; 4]> {
        let at = match self.ether_type {
            EtherType::IPV4 => 12,
            EtherType::ARP => 14,
            _ => return None,
        };
        self.payload().get(at..)?.first_chunk().copied()
    }

    /// Returns what follows the Ethernet header; it may be empty.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.frame.get(self.l3_offset..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(middle: &[u8]) -> Vec<u8> {
        [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2], middle].concat()
    }

    #[test]
    fn a_frame_speaks_of_the_addresses_in_its_ipv4_or_arp_header() {
        let (one, other) = ([169, 254, 53, 1], [10, 2, 1, 1]);
        let fill = [9; 12];
        let packet = [&[8, 0], &fill[..], &one, &other].concat();
        let arp = [&[8, 6], &fill[..], &[9; 2], &other, &[9; 6], &one].concat();
        let ipv6 = [&[0x86, 0xdd], &fill[..], &one, &other].concat();
        for (bytes, first, second) in [
            (&packet, true, true),
            (&arp, true, true),
            (&ipv6, false, false),
            (&packet[..17].to_vec(), false, false),
        ] {
            let frame = frame(bytes);
            let view = EthernetView::parse(&frame).unwrap();
            assert_eq!(
                (view.speaks_of(one), view.speaks_of(other)),
                (first, second)
            );
            assert!(!view.speaks_of([10, 2, 1, 2]));
        }
    }

    #[test]
    fn tags_are_looked_through_up_to_the_second() {
        let cases: [(&[u8], EtherType, usize); 5] = [
            (&[0x08, 0x00, 9], EtherType::IPV4, 0),
            (&[0x81, 0, 0, 7, 0x86, 0xdd, 9], EtherType::IPV6, 1),
            (
                &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 8, 0x08, 0x06, 9],
                EtherType::ARP,
                2,
            ),
            (
                &[0x81, 0, 0, 7, 0x81, 0, 0, 8, 0x08, 0x00, 9],
                EtherType::IPV4,
                2,
            ),
            (
                &[0x81, 0, 0, 7, 0x81, 0, 0, 8, 0x81, 0x00, 9],
                EtherType::VLAN,
                2,
            ),
        ];
        for (middle, ether_type, tags) in cases {
            let frame = frame(middle);
            let view = EthernetView::parse(&frame).expect("the header is complete");

            assert_eq!(view.ether_type(), ether_type);
            assert_eq!(view.vlan_tag_count(), tags);
            assert_eq!(view.l3_offset(), HEADER_LEN + tags * VLAN_TAG_LEN);
            assert_eq!(view.payload(), [9]);
            assert_eq!(view.destination(), MacAddr([2, 0, 0, 0, 0, 1]));
            assert_eq!(view.source(), MacAddr([2, 0, 0, 0, 0, 2]));
        }
    }

    #[test]
    fn a_header_that_ends_too_soon_is_refused() {
        let complete = frame(&[0x88, 0xa8, 0, 7, 0x81, 0, 0, 8, 0x08, 0x00]);

        assert!((0..complete.len()).all(|len| EthernetView::parse(&complete[..len]).is_none()));
        assert!(EthernetView::parse(&complete).is_some_and(|view| view.payload().is_empty()));
    }

    #[test]
    fn groups_broadcast_and_zero_are_told_apart() {
        let tell = |mac: [u8; 6]| {
            let mac = MacAddr(mac);
            (mac.is_multicast(), mac.is_broadcast(), mac.is_zero())
        };

        assert_eq!(tell([0xff; 6]), (true, true, false));
        assert_eq!(tell([0x33, 0x33, 0, 0, 0, 1]), (true, false, false));
        assert_eq!(tell([0x02, 0x33, 0, 0, 0, 1]), (false, false, false));
        assert_eq!(tell([0; 6]), (false, false, true));
    }

    #[test]
    fn text_that_is_no_address_is_refused() {
        for text in [
            "",
            "aa:bb:cc:dd:ee",
            "aa:bb:cc:dd:ee:ff:00",
            "aa:bb:cc:dd:ee:f",
            "aa:bb:cc:dd:ee:0ff",
            "aa:bb:cc:dd:ee:+f",
            "aa-bb-cc-dd-ee-ff",
            "aa:bb:cc:dd:ee:ff:",
        ] {
            assert_eq!(text.parse::<MacAddr>(), Err(ParseMacError), "{text}");
        }
        assert_eq!(
            "AA:bb:0C:dd:ee:ff".parse(),
            Ok(MacAddr([0xaa, 0xbb, 0x0c, 0xdd, 0xee, 0xff]))
        );
    }

    proptest! {
        #[test]
        fn an_address_survives_its_text(bytes: [u8; 6]) {
            prop_assert_eq!(MacAddr(bytes).to_string().parse(), Ok(MacAddr(bytes)));
        }

        #[test]
        fn no_bytes_make_the_walk_run_over(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Some(view) = EthernetView::parse(&bytes) {
                prop_assert!(view.l3_offset() <= bytes.len());
                prop_assert_eq!(view.payload().len(), bytes.len() - view.l3_offset());
            }
        }
    }
}

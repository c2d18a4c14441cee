//! Makes frames and looks into them.
//!
//! ```text
//!  Ethernet: destination(6) source(6) [0x8100 tag(2)] ethertype(2) payload…
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A MAC address.
pub type Mac = [u8; 6];

/// Address resolution.
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;

const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERNET_HEADER_LEN: usize = 14;
const IPV6_HEADER_LEN: usize = 40;
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
/// Where the checksum lies in each header.
const CHECKSUM_AT: [(u8, usize); 4] = [(ICMP, 2), (TCP, 16), (UDP, 6), (ICMPV6, 2)];

/// An untagged frame.
#[must_use]
pub fn ethernet(destination: Mac, source: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&destination[..], &source, &ethertype.to_be_bytes(), payload].concat()
}

/// The frame with an 802.1Q tag.
///
/// # Panics
///
/// If the frame has no Ethernet header.
#[must_use]
pub fn vlan(frame: &[u8], id: u16) -> Vec<u8> {
    [
        &frame[..12],
        &ETHERTYPE_VLAN.to_be_bytes(),
        &id.to_be_bytes(),
        &frame[12..],
    ]
    .concat()
}

/// An IPv4 packet; `fragment` is the header's field of flags and offset.
///
/// # Panics
///
/// If the packet would be longer than 65 535 bytes.
#[must_use]
pub fn ipv4(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    fragment: u16,
    payload: &[u8],
) -> Vec<u8> {
    let len = u16::try_from(20 + payload.len()).expect("an IPv4 packet has a 16-bit length");
    let mut header = vec![0x45, 0];
    header.extend(len.to_be_bytes());
    header.extend([0x77, 0x66]);
    header.extend(fragment.to_be_bytes());
    header.extend([64, protocol, 0, 0]);
    header.extend(source.octets());
    header.extend(destination.octets());
    let sum = !ones_complement_sum(&header, 0);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header.extend(payload);
    header
}

/// A UDP datagram seen in a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UdpDatagram {
    /// Who sent it.
    pub source: SocketAddr,
    /// To whom.
    pub destination: SocketAddr,
    /// What it carries.
    pub payload: Vec<u8>,
}

/// The UDP datagram in an untagged frame, if it holds a whole one.
#[must_use]
pub fn udp_datagram(frame: &[u8]) -> Option<UdpDatagram> {
    let packet = Packet::parse(frame)?;
    if packet.protocol != UDP || packet.is_fragment {
        return None;
    }
    let port = |at: usize| {
        Some(u16::from_be_bytes([
            *packet.payload.get(at)?,
            *packet.payload.get(at + 1)?,
        ]))
    };
    Some(UdpDatagram {
        source: SocketAddr::new(packet.source, port(0)?),
        destination: SocketAddr::new(packet.destination, port(2)?),
        payload: packet.payload.get(8..)?.to_vec(),
    })
}

/// A frame like this one, which holds a UDP datagram over IPv4, with another payload and perhaps another source.
///
/// The datagram has no checksum, so that a receiver's kernel lets every change through.
///
/// # Panics
///
/// If `like` holds no such datagram, or the payload is too long for one.
#[must_use]
pub fn udp_frame_like(like: &[u8], source: Option<SocketAddr>, payload: &[u8]) -> Vec<u8> {
    let datagram = udp_datagram(like).expect("the frame holds a UDP datagram");
    let source = source.unwrap_or(datagram.source);
    let (IpAddr::V4(from), IpAddr::V4(to)) = (source.ip(), datagram.destination.ip()) else {
        panic!("only IPv4 is made up here");
    };
    let len = u16::try_from(payload.len() + 8).expect("a UDP datagram has a 16-bit length");
    let ports = [
        source.port().to_be_bytes(),
        datagram.destination.port().to_be_bytes(),
    ]
    .concat();
    let udp = [&ports[..], &len.to_be_bytes(), &[0, 0], payload].concat();
    [&like[..ETHERNET_HEADER_LEN], &ipv4(from, to, UDP, 0, &udp)].concat()
}

/// What is wrong with the checksums of an untagged frame: IPv4 header, TCP, UDP, ICMP, ICMPv6.
///
/// `None` if all there are hold, or there are none. A frame whose checksums the kernel has still to compute is at
/// fault: capture where no offload can have put that off.
#[must_use]
pub fn checksum_faults(frame: &[u8]) -> Option<String> {
    let packet = Packet::parse(frame)?;
    if let (ETHERTYPE_IPV4, Some(header)) = (packet.ethertype, packet.ipv4_header)
        && ones_complement_sum(header, 0) != 0xffff
    {
        return Some("the IPv4 header's checksum is wrong".to_owned());
    }
    let (_, at) = CHECKSUM_AT
        .into_iter()
        .find(|(protocol, _)| *protocol == packet.protocol)?;
    let field = packet.payload.get(at..at + 2)?;
    let is_optional = packet.protocol == UDP && packet.ethertype == ETHERTYPE_IPV4;
    if packet.is_fragment || (is_optional && field == [0, 0]) {
        return None;
    }
    let start = if packet.protocol == ICMP {
        0
    } else {
        packet.pseudo_header_sum()?
    };
    let holds = ones_complement_sum(packet.payload, start) == 0xffff;
    (!holds).then(|| {
        format!(
            "protocol {}: the checksum of {} bytes is wrong",
            packet.protocol,
            packet.payload.len()
        )
    })
}

/// An IP packet in a frame.
struct Packet<'a> {
    ethertype: u16,
    ipv4_header: Option<&'a [u8]>,
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    is_fragment: bool,
    payload: &'a [u8],
}

impl<'a> Packet<'a> {
    fn parse(frame: &'a [u8]) -> Option<Self> {
        let ethertype = u16::from_be_bytes([*frame.get(12)?, *frame.get(13)?]);
        let bytes = frame.get(ETHERNET_HEADER_LEN..)?;
        match ethertype {
            ETHERTYPE_IPV4 => Self::parse_v4(bytes),
            ETHERTYPE_IPV6 => Self::parse_v6(bytes),
            _ => None,
        }
    }

    fn parse_v4(bytes: &'a [u8]) -> Option<Self> {
        let header_len = usize::from(bytes.first()? & 0x0f) * 4;
        let header = bytes.get(..header_len.max(20))?;
        let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let address =
            |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]);
        Some(Self {
            ethertype: ETHERTYPE_IPV4,
            ipv4_header: Some(header),
            source: address(12).into(),
            destination: address(16).into(),
            protocol: header[9],
            is_fragment: u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0,
            payload: bytes.get(header_len..len)?,
        })
    }

    fn parse_v6(bytes: &'a [u8]) -> Option<Self> {
        let header = bytes.get(..IPV6_HEADER_LEN)?;
        let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
        let address = |at: usize| {
            let mut octets = [0; 16];
            octets.copy_from_slice(&header[at..at + 16]);
            Ipv6Addr::from(octets)
        };
        Some(Self {
            ethertype: ETHERTYPE_IPV6,
            ipv4_header: None,
            source: address(8).into(),
            destination: address(24).into(),
            protocol: header[6],
            is_fragment: false,
            payload: bytes.get(IPV6_HEADER_LEN..IPV6_HEADER_LEN + len)?,
        })
    }

    fn pseudo_header_sum(&self) -> Option<u16> {
        let mut pseudo = Vec::new();
        for address in [self.source, self.destination] {
            match address {
                IpAddr::V4(address) => pseudo.extend(address.octets()),
                IpAddr::V6(address) => pseudo.extend(address.octets()),
            }
        }
        pseudo.extend([0, self.protocol]);
        pseudo.extend(u16::try_from(self.payload.len()).ok()?.to_be_bytes());
        Some(ones_complement_sum(&pseudo, 0))
    }
}

/// RFC 1071, over 16-bit words, an odd last byte filled up with zero.
fn ones_complement_sum(bytes: &[u8], start: u16) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| [pair[0], pair.get(1).copied().unwrap_or(0)]);
    words.map(u16::from_be_bytes).fold(start, |sum, word| {
        let (sum, carry) = sum.overflowing_add(word);
        sum + u16::from(carry)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = [2, 0, 0, 0, 0, 1];

    #[test]
    fn a_packet_that_was_made_here_has_no_fault_and_one_flipped_bit_shows() {
        let echo_request = [8, 0, 0xf7, 0xfd, 0, 1, 0, 1];
        let packet = ipv4(
            Ipv4Addr::new(10, 2, 1, 1),
            Ipv4Addr::new(10, 2, 1, 2),
            ICMP,
            0,
            &echo_request,
        );
        let frame = ethernet(MAC, MAC, ETHERTYPE_IPV4, &packet);
        assert_eq!(checksum_faults(&frame), None);

        for byte in [ETHERNET_HEADER_LEN + 8, frame.len() - 1] {
            let mut broken = frame.clone();
            broken[byte] ^= 1;
            assert!(checksum_faults(&broken).is_some(), "byte {byte}");
        }
    }

    #[test]
    fn a_changed_datagram_is_whole_and_has_no_fault() {
        let udp = [&[0, 5, 0, 6, 0, 10, 0, 0][..], b"hi"].concat();
        let packet = ipv4(
            Ipv4Addr::new(192, 0, 2, 1),
            Ipv4Addr::new(192, 0, 2, 2),
            UDP,
            0,
            &udp,
        );
        let frame = ethernet(MAC, MAC, ETHERTYPE_IPV4, &packet);
        let source: SocketAddr = ([192, 0, 2, 9], 7).into();

        let changed = udp_frame_like(&frame, Some(source), b"other");

        assert_eq!(checksum_faults(&changed), None);
        let datagram = udp_datagram(&changed).unwrap();
        assert_eq!(
            (datagram.source, datagram.payload.as_slice()),
            (source, &b"other"[..])
        );
        assert_eq!(datagram.destination, ([192, 0, 2, 2], 6).into());
    }

    #[test]
    fn the_checksum_of_a_known_udp_datagram_over_ipv6_holds() {
        // fe80::1 to fe80::2, port 1 to 2, payload "hi"; the sum is that of RFC 8200 section 8.1.
        let mut packet = vec![0x60, 0, 0, 0, 0, 10, UDP, 64];
        for last in [1, 2] {
            packet.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
        }
        packet.extend([0, 1, 0, 2, 0, 10]);
        let sum = 0xfe80_u32 + 1 + 0xfe80 + 2 + 10 + 17 + 1 + 2 + 10 + 0x6869;
        let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
        packet.extend(sum.to_be_bytes());
        packet.extend(b"hi");
        let frame = ethernet(MAC, MAC, ETHERTYPE_IPV6, &packet);

        assert_eq!(checksum_faults(&frame), None);
        assert_eq!(udp_datagram(&frame).unwrap().payload, b"hi");
    }
}

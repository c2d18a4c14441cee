//! Where the network and transport headers of a frame lie.
//!
//! ```text
//!  0          l3                  l4             payload                end        frame length
//!  | Ethernet | IP and extensions | TCP or UDP   | transport payload    | padding  |
//! ```
//!
//! The parser believes nothing: every length is checked against the one around it. IPv6 extension headers are walked
//! (the kernel's own segmentation offload may hand them over); what is a fragment, or neither TCP nor UDP, is said.

use super::field::{array, be16, be32};
use crate::config::IPV6_EXTENSIONS_MAX;
use crate::wire::ethernet::{EtherType, EthernetView};

/// The transport protocols that have offloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Transmission control protocol.
    Tcp,
    /// User datagram protocol.
    Udp,
}

impl Transport {
    /// Returns where the checksum lies, in bytes from the start of the transport header.
    #[must_use]
    pub const fn checksum_offset(self) -> usize {
        match self {
            Self::Tcp => 16,
            Self::Udp => 6,
        }
    }

    pub(super) const fn protocol(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

/// Why a frame has no [`Headers`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotTransport {
    /// Another protocol.
    Other,
    /// A fragment of an IP packet, from and to the addresses at this place.
    Fragment {
        /// Where the source address starts; the destination follows it.
        addresses: usize,
        /// Bytes of both addresses: 8 or 32.
        addresses_len: usize,
    },
    /// A header ends too soon or contradicts another.
    Malformed,
}

/// The places of a TCP segment or UDP datagram inside its frame, in bytes from the frame's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headers {
    /// Start of the IP header.
    pub l3: usize,
    /// Start of the TCP or UDP header.
    pub l4: usize,
    /// Start of the transport payload.
    pub payload: usize,
    /// End of the IP packet; what follows is padding.
    pub end: usize,
    /// IPv6, else IPv4.
    pub ipv6: bool,
    /// IPv6 extension headers lie between the IP and the transport header.
    pub extended: bool,
    /// What is at `l4`.
    pub transport: Transport,
}

/// The IP layer of a frame: what the transport parser needs of it.
struct Internet {
    l4: usize,
    end: usize,
    ipv6: bool,
    extended: bool,
    protocol: u8,
}

const TCP_HEADER_LEN_MIN: usize = 20;
pub(super) const UDP_HEADER_LEN: usize = 8;
pub(super) const IPV4_HEADER_LEN_MIN: usize = 20;
pub(super) const IPV6_HEADER_LEN: usize = 40;

impl Headers {
    /// Finds the headers.
    ///
    /// # Errors
    /// [`NotTransport`] says what the frame is instead.
    #[inline]
    pub fn parse(frame: &[u8]) -> Result<Self, NotTransport> {
        let view = EthernetView::parse(frame).ok_or(NotTransport::Malformed)?;
        let l3 = view.l3_offset();
        let internet = match view.ether_type() {
            EtherType::IPV4 => ipv4(frame, l3)?,
            EtherType::IPV6 => ipv6(frame, l3)?,
            EtherType(_) => return Err(NotTransport::Other),
        };
        let Internet {
            l4,
            end,
            ipv6,
            extended,
            protocol,
        } = internet;
        let (transport, payload) = match protocol {
            6 => (Transport::Tcp, tcp_payload(frame, l4)?),
            17 => (Transport::Udp, udp_payload(frame, l4, end)?),
            _ => return Err(NotTransport::Other),
        };
        if payload > end {
            return Err(NotTransport::Malformed);
        }
        Ok(Self {
            l3,
            l4,
            payload,
            end,
            ipv6,
            extended,
            transport,
        })
    }

    /// Returns where the transport checksum lies.
    #[must_use]
    pub const fn checksum_at(&self) -> usize {
        self.l4 + self.transport.checksum_offset()
    }

    /// Returns the place and length of both IP addresses, the source first.
    pub(super) const fn addresses(&self) -> (usize, usize) {
        if self.ipv6 {
            (self.l3 + 8, 32)
        } else {
            (self.l3 + 12, 8)
        }
    }

    /// Maps the five-tuple to a number; frames of one flow agree, others differ most likely.
    #[inline]
    pub(super) fn flow_hash(&self, frame: &[u8]) -> u32 {
        const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
        let (addresses, addresses_len) = self.addresses();
        let word = |at| array(frame, at).map_or(0, u64::from_ne_bytes);
        let ports = be32(frame, self.l4).unwrap_or(0);

        let mut hash = u64::from(ports) ^ (u64::from(self.transport.protocol()) << 32);
        hash = (hash.wrapping_mul(ODD) ^ word(addresses)).wrapping_mul(ODD);
        if addresses_len == 32 {
            for at in [addresses + 8, addresses + 16, addresses + 24] {
                hash = (hash.rotate_left(29) ^ word(at)).wrapping_mul(ODD);
            }
        }
        (hash >> 32) as u32
    }
}

#[inline]
fn ipv4(frame: &[u8], l3: usize) -> Result<Internet, NotTransport> {
    let header: [u8; IPV4_HEADER_LEN_MIN] = array(frame, l3).ok_or(NotTransport::Malformed)?;
    let [version_ihl, _, t0, t1, _, _, f0, f1, _, protocol, ..] = header;
    let header_len = usize::from(version_ihl & 0xf) * 4;
    let end = l3 + usize::from(u16::from_be_bytes([t0, t1]));
    if version_ihl >> 4 != 4
        || header_len < IPV4_HEADER_LEN_MIN
        || l3 + header_len > end
        || end > frame.len()
    {
        return Err(NotTransport::Malformed);
    }
    let more_or_offset = u16::from_be_bytes([f0, f1]) & 0x3fff;
    if more_or_offset != 0 {
        return Err(NotTransport::Fragment {
            addresses: l3 + 12,
            addresses_len: 8,
        });
    }
    Ok(Internet {
        l4: l3 + header_len,
        end,
        ipv6: false,
        extended: false,
        protocol,
    })
}

#[inline]
fn ipv6(frame: &[u8], l3: usize) -> Result<Internet, NotTransport> {
    let [version, _, _, _, p0, p1, mut next, _]: [u8; 8] =
        array(frame, l3).ok_or(NotTransport::Malformed)?;
    let mut l4 = l3 + IPV6_HEADER_LEN;
    let end = l4 + usize::from(u16::from_be_bytes([p0, p1]));
    if version >> 4 != 6 || end > frame.len() {
        return Err(NotTransport::Malformed);
    }
    for walked in 0..=IPV6_EXTENSIONS_MAX {
        match next {
            // Hop-by-hop options, routing, destination options: next header, length in 8 bytes less one.
            0 | 43 | 60 => {
                let [following, len] = array(frame, l4).ok_or(NotTransport::Malformed)?;
                next = following;
                l4 += (usize::from(len) + 1) * 8;
                if l4 > end {
                    return Err(NotTransport::Malformed);
                }
            }
            44 => {
                return Err(NotTransport::Fragment {
                    addresses: l3 + 8,
                    addresses_len: 32,
                });
            }
            protocol => {
                return Ok(Internet {
                    l4,
                    end,
                    ipv6: true,
                    extended: walked > 0,
                    protocol,
                });
            }
        }
    }
    Err(NotTransport::Other)
}

#[inline]
fn tcp_payload(frame: &[u8], l4: usize) -> Result<usize, NotTransport> {
    let [data_offset] = array(frame, l4 + 12).ok_or(NotTransport::Malformed)?;
    let header_len = usize::from(data_offset >> 4) * 4;
    if header_len < TCP_HEADER_LEN_MIN {
        return Err(NotTransport::Malformed);
    }
    Ok(l4 + header_len)
}

#[inline]
fn udp_payload(frame: &[u8], l4: usize, end: usize) -> Result<usize, NotTransport> {
    let datagram_len = usize::from(be16(frame, l4 + 4).ok_or(NotTransport::Malformed)?);
    if l4 + datagram_len != end {
        return Err(NotTransport::Malformed);
    }
    Ok(l4 + UDP_HEADER_LEN)
}

//! One open run: the header its segments share, and the row of them so far.

use super::ready::Chain;
use super::span::{Span, Terms};
use super::{CoalesceConfig, low16};
use crate::config::COALESCE_HEADER_LEN_MAX;
use crate::io::offload::checksum::{fold, pseudo_header, sum};
use crate::io::offload::field::{array, be16, be32, put};
use crate::io::offload::headers::{Headers, IPV6_HEADER_LEN, Transport, UDP_HEADER_LEN};
use crate::io::offload::split::{CWR, FIN, PSH, TCP_FLAGS_OFFSET};
use crate::io::offload::vnet::VnetHeader;

const ACK: u8 = 0x10;
const ECE: u8 = 0x40;
/// Payload and headers of one IP packet.
const IP_LEN_MAX: usize = 65_535;

/// A frame that may share a super-frame with others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    pub span: Span,
    pub terms: Terms,
}

impl Segment {
    /// Looks at a frame whose transport checksum is partial; `None` if it has to travel alone.
    #[inline]
    pub(super) fn new(config: CoalesceConfig, headers: &Headers, frame: &[u8]) -> Option<Self> {
        let enabled = match (headers.transport, headers.ipv6) {
            (Transport::Tcp, false) => config.tcp4,
            (Transport::Tcp, true) => config.tcp6,
            (Transport::Udp, _) => config.udp,
        };
        let bytes = headers.end - headers.payload;
        if !enabled || headers.extended || headers.payload > COALESCE_HEADER_LEN_MAX || bytes == 0 {
            return None;
        }
        let (mut id, mut counted) = (0, false);
        if !headers.ipv6 {
            // A wrong header checksum must stay wrong, so such a packet is not rewritten.
            if fold(sum(frame.get(headers.l3..headers.l4)?)) != 0xffff {
                return None;
            }
            id = be16(frame, headers.l3 + 4)?;
            counted = be16(frame, headers.l3 + 6)? & 0x4000 == 0;
        }
        let (sequence, flags) = match headers.transport {
            Transport::Tcp => (
                Some(be32(frame, headers.l4 + 4)?),
                *frame.get(headers.l4 + TCP_FLAGS_OFFSET)?,
            ),
            Transport::Udp => (None, 0),
        };
        if headers.transport == Transport::Tcp && flags & !(FIN | PSH | ECE | CWR) != ACK {
            return None;
        }
        let room = IP_LEN_MAX - (headers.payload - headers.l3);
        Some(Self {
            span: Span::one(sequence, bytes, id, flags),
            terms: Terms { room, counted },
        })
    }
}

/// Segments of one flow with one header, still open.
#[derive(Debug)]
pub(super) struct Run {
    /// The header of one of the segments; what differs between them is written by [`Run::finish`].
    header: [u8; COALESCE_HEADER_LEN_MAX],
    headers: Headers,
    terms: Terms,
    pub span: Span,
    /// The payloads, in order.
    pub chain: Chain,
    /// When the run was opened, counted in pushes.
    pub opened: u64,
    /// When it last grew.
    pub touched: u64,
}

impl Run {
    /// Returns a run that is not in use.
    pub(super) const fn vacant() -> Self {
        Self {
            header: [0; COALESCE_HEADER_LEN_MAX],
            headers: Headers {
                l3: 0,
                l4: 0,
                payload: 0,
                end: 0,
                ipv6: false,
                extended: false,
                transport: Transport::Udp,
            },
            terms: Terms {
                room: 0,
                counted: false,
            },
            span: Span {
                start: 0,
                end: 0,
                bytes: 0,
                size: 0,
                count: 0,
                id: 0,
                flags: 0,
                sealed: true,
            },
            chain: Chain::EMPTY,
            opened: 0,
            touched: 0,
        }
    }

    /// Starts anew with one segment.
    #[inline]
    pub(super) fn open(
        &mut self,
        headers: &Headers,
        frame: &[u8],
        segment: &Segment,
        chain: Chain,
        now: u64,
    ) {
        if let Some((slot, header)) = self
            .header
            .get_mut(..headers.payload)
            .zip(frame.get(..headers.payload))
        {
            slot.copy_from_slice(header);
        }
        self.headers = *headers;
        self.terms = segment.terms;
        self.span = segment.span;
        self.chain = chain;
        self.opened = now;
        self.touched = now;
    }

    /// Returns what joining two spans of this run has to keep to.
    pub(super) const fn terms(&self) -> Terms {
        self.terms
    }

    /// Says whether the frame's header differs from the run's in nothing but what segments may differ in: lengths,
    /// identification, checksums, sequence number, PSH, FIN and CWR.
    #[inline]
    pub(super) fn matches(&self, headers: &Headers, frame: &[u8]) -> bool {
        let Headers {
            l3,
            l4,
            payload,
            ipv6,
            transport,
            ..
        } = *headers;
        let ours = &self.header;
        if (self.headers.l3, self.headers.l4, self.headers.payload) != (l3, l4, payload)
            || (self.headers.ipv6, self.headers.transport) != (ipv6, transport)
        {
            return false;
        }
        let ethernet =
            array::<14>(ours, 0) == array(frame, 0) && ours.get(14..l3) == frame.get(14..l3);
        let internet = if ipv6 {
            // Version, class and label; next header and hop limit, addresses.
            array::<4>(ours, l3) == array(frame, l3)
                && array::<34>(ours, l3 + 6) == array(frame, l3 + 6)
        } else {
            // Version, length, TOS; DF, TTL, protocol; addresses; options.
            array::<2>(ours, l3) == array(frame, l3)
                && array::<4>(ours, l3 + 6) == array(frame, l3 + 6)
                && array::<8>(ours, l3 + 12) == array(frame, l3 + 12)
                && (l4 == l3 + 20 || ours.get(l3 + 20..l4) == frame.get(l3 + 20..l4))
        };
        ethernet
            && internet
            && array::<4>(ours, l4) == array(frame, l4)
            && match transport {
                Transport::Tcp => self.tcp_matches(frame, l4, payload),
                Transport::Udp => true,
            }
    }

    #[inline]
    fn tcp_matches(&self, frame: &[u8], l4: usize, payload: usize) -> bool {
        const SAME: u16 = !((FIN | PSH | CWR) as u16);
        let ours = &self.header;
        let flags = |bytes| be16(bytes, l4 + 12).map(|word| word & SAME);
        // Acknowledgement; length and flags; window; urgent pointer and options.
        array::<4>(ours, l4 + 8) == array(frame, l4 + 8)
            && flags(ours) == flags(frame)
            && array::<2>(ours, l4 + 14) == array(frame, l4 + 14)
            && array::<2>(ours, l4 + 18) == array(frame, l4 + 18)
            && (payload == l4 + 20 || ours.get(l4 + 20..payload) == frame.get(l4 + 20..payload))
    }

    /// Says whether the run goes between these IP addresses.
    pub(super) fn is_between(&self, addresses: &[u8]) -> bool {
        let (at, len) = self.headers.addresses();
        self.header.get(at..at + len) == Some(addresses)
    }

    /// Returns the header of the whole row and the virtio header that goes before it.
    #[inline]
    pub(super) fn finish(&mut self) -> (VnetHeader, &[u8]) {
        let Headers {
            l3,
            l4,
            payload,
            ipv6,
            transport,
            ..
        } = self.headers;
        let span = self.span;
        let end = payload + span.bytes;
        let header = self.header.get_mut(..payload).unwrap_or_default();
        if ipv6 {
            put(
                header,
                l3 + 4,
                low16(end - l3 - IPV6_HEADER_LEN).to_be_bytes(),
            );
        } else {
            put(header, l3 + 2, low16(end - l3).to_be_bytes());
            put(header, l3 + 4, span.id.to_be_bytes());
            put(header, l3 + 10, [0, 0]);
            let checksum = !fold(sum(header.get(l3..l4).unwrap_or_default()));
            put(header, l3 + 10, checksum.to_be_bytes());
        }
        let mut gso_type = match (transport, ipv6) {
            (Transport::Tcp, false) => VnetHeader::GSO_TCPV4,
            (Transport::Tcp, true) => VnetHeader::GSO_TCPV6,
            (Transport::Udp, _) => VnetHeader::GSO_UDP_L4,
        };
        match transport {
            Transport::Tcp => {
                let [flags] = array(header, l4 + TCP_FLAGS_OFFSET).unwrap_or_default();
                put(header, l4 + 4, span.start.to_be_bytes());
                put(
                    header,
                    l4 + TCP_FLAGS_OFFSET,
                    [flags & !(CWR | FIN | PSH) | span.flags],
                );
                if span.flags & CWR != 0 {
                    gso_type |= VnetHeader::GSO_ECN;
                }
            }
            Transport::Udp => put(
                header,
                l4 + 4,
                low16(UDP_HEADER_LEN + span.bytes).to_be_bytes(),
            ),
        }
        let mut vnet = leave_partial(&self.headers, end, header);
        if span.count > 1 {
            vnet.gso_type = gso_type;
            vnet.gso_size = low16(span.size);
        }
        (vnet, header)
    }
}

/// Writes what a kernel expects in the field of a partial checksum, the sum of the pseudo header, and returns the
/// virtio header that asks it to do the rest. The packet ends at `end`; `header` reaches past the checksum.
#[inline]
pub(super) fn leave_partial(headers: &Headers, end: usize, header: &mut [u8]) -> VnetHeader {
    let pseudo = fold(pseudo_header(header, headers, end - headers.l4));
    put(header, headers.checksum_at(), pseudo.to_be_bytes());
    VnetHeader {
        flags: VnetHeader::NEEDS_CSUM,
        gso_type: VnetHeader::GSO_NONE,
        hdr_len: low16(headers.payload),
        gso_size: 0,
        csum_start: low16(headers.l4),
        csum_offset: low16(headers.transport.checksum_offset()),
    }
}

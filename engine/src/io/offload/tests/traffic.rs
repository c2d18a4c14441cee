//! Frames as a sending kernel makes them, and strategies for many of them.

use proptest::collection::vec;
use proptest::prelude::*;

use super::kernel;
use crate::io::offload::{Transport, VnetHeader};

pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const RST: u8 = 0x04;
pub(super) const PSH: u8 = 0x08;
pub(super) const ACK: u8 = 0x10;
pub(super) const URG: u8 = 0x20;
pub(super) const CWR: u8 = 0x80;

/// Everything about a frame but its payload.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    /// VLAN tag controls, the outermost first.
    pub tags: Vec<u16>,
    pub ipv6: bool,
    pub transport: Transport,
    pub source_port: u16,
    /// Four-byte words of IPv4 options.
    pub ip_options: u8,
    /// IPv6 extension headers, each by its type.
    pub extensions: Vec<u8>,
    /// Four-byte words of TCP options, filled with `option`.
    pub tcp_options: u8,
    pub option: u8,
    pub dont_fragment: bool,
    pub id: u16,
    pub ttl: u8,
    pub tos: u8,
    pub sequence: u32,
    pub acknowledgement: u32,
    pub window: u16,
    pub flags: u8,
    /// Low byte of both Ethernet addresses.
    pub station: u8,
}

impl Shape {
    pub(super) fn tcp4() -> Self {
        Self {
            tags: vec![],
            ipv6: false,
            transport: Transport::Tcp,
            source_port: 40_000,
            ip_options: 0,
            extensions: vec![],
            tcp_options: 3,
            option: 1,
            dont_fragment: true,
            id: 7,
            ttl: 64,
            tos: 0,
            sequence: 1000,
            acknowledgement: 5,
            window: 500,
            flags: ACK,
            station: 1,
        }
    }

    pub(super) fn udp4() -> Self {
        Self {
            transport: Transport::Udp,
            flags: 0,
            tcp_options: 0,
            ..Self::tcp4()
        }
    }

    /// Returns the virtio header and the frame that carries `payload`, with `size` payload bytes to a segment; zero
    /// for a single frame. The transport checksum is partial.
    pub(super) fn frame(&self, payload: &[u8], size: u16) -> (VnetHeader, Vec<u8>) {
        let mut frame = vec![2, 0, 0, 0, 1, self.station, 2, 0, 0, 0, 2, self.station];
        for (index, tag) in self.tags.iter().enumerate() {
            let ether_type: u16 = if index + 1 < self.tags.len() {
                0x88a8
            } else {
                0x8100
            };
            frame.extend(ether_type.to_be_bytes());
            frame.extend(tag.to_be_bytes());
        }
        frame.extend(if self.ipv6 {
            [0x86, 0xdd]
        } else {
            [0x08, 0x00]
        });

        let transport = self.transport_bytes(payload);
        let l4 = if self.ipv6 {
            self.push_ipv6(&mut frame, transport.len())
        } else {
            self.push_ipv4(&mut frame, transport.len())
        };
        frame.extend(&transport);

        let tcp = self.transport == Transport::Tcp;
        let mut vnet = VnetHeader {
            flags: VnetHeader::NEEDS_CSUM,
            gso_type: VnetHeader::GSO_NONE,
            hdr_len: u16::try_from(frame.len() - payload.len()).unwrap(),
            gso_size: 0,
            csum_start: u16::try_from(l4).unwrap(),
            csum_offset: if tcp { 16 } else { 6 },
        };
        if size > 0 && payload.len() > usize::from(size) {
            vnet.gso_size = size;
            vnet.gso_type = match (tcp, self.ipv6) {
                (true, false) => VnetHeader::GSO_TCPV4,
                (true, true) => VnetHeader::GSO_TCPV6,
                (false, _) => VnetHeader::GSO_UDP_L4,
            };
            if tcp && self.flags & CWR != 0 {
                vnet.gso_type |= VnetHeader::GSO_ECN;
            }
        }
        let pseudo = kernel::pseudo(&frame, if tcp { 6 } else { 17 }, frame.len() - l4);
        let at = l4 + usize::from(vnet.csum_offset);
        frame[at..at + 2].copy_from_slice(&pseudo.to_be_bytes());
        (vnet, frame)
    }

    /// A single frame without its virtio header.
    pub(super) fn single(&self, payload: &[u8]) -> Vec<u8> {
        self.frame(payload, 0).1
    }

    fn push_ipv4(&self, frame: &mut Vec<u8>, transport_len: usize) -> usize {
        let l3 = frame.len();
        let header_len = 20 + usize::from(self.ip_options) * 4;
        let total = u16::try_from(header_len + transport_len).unwrap();
        frame.extend([0x45 + self.ip_options, self.tos]);
        frame.extend(total.to_be_bytes());
        frame.extend(self.id.to_be_bytes());
        frame.extend([
            if self.dont_fragment { 0x40 } else { 0 },
            0,
            self.ttl,
            self.protocol(),
            0,
            0,
        ]);
        frame.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend(vec![1; usize::from(self.ip_options) * 4]);
        let checksum = !kernel::sum(&[&frame[l3..]]);
        frame[l3 + 10..l3 + 12].copy_from_slice(&checksum.to_be_bytes());
        frame.len()
    }

    fn push_ipv6(&self, frame: &mut Vec<u8>, transport_len: usize) -> usize {
        let mut extensions = Vec::new();
        let mut chain = self.extensions.clone();
        chain.push(self.protocol());
        for next in &chain[1..] {
            extensions.extend([*next, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        }
        frame.extend([0x60, self.tos, 0, 9]);
        frame.extend(
            u16::try_from(extensions.len() + transport_len)
                .unwrap()
                .to_be_bytes(),
        );
        frame.extend([chain[0], self.ttl]);
        frame.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        frame.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        frame.extend(extensions);
        frame.len()
    }

    fn transport_bytes(&self, payload: &[u8]) -> Vec<u8> {
        let mut bytes = self.source_port.to_be_bytes().to_vec();
        bytes.extend([0x14, 0x51]);
        match self.transport {
            Transport::Tcp => {
                bytes.extend(self.sequence.to_be_bytes());
                bytes.extend(self.acknowledgement.to_be_bytes());
                bytes.extend([(5 + self.tcp_options) << 4, self.flags]);
                bytes.extend(self.window.to_be_bytes());
                bytes.extend([0; 4]);
                bytes.extend(vec![self.option; usize::from(self.tcp_options) * 4]);
            }
            Transport::Udp => {
                bytes.extend(u16::try_from(8 + payload.len()).unwrap().to_be_bytes());
                bytes.extend([0; 2]);
            }
        }
        bytes.extend(payload);
        bytes
    }

    fn protocol(&self) -> u8 {
        match self.transport {
            Transport::Tcp => 6,
            Transport::Udp => 17,
        }
    }
}

/// Payload that tells every place from every other.
pub(super) fn payload(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state.to_be_bytes()[0]
        })
        .collect()
}

/// Any shape of a data-carrying frame.
pub(super) fn shapes() -> impl Strategy<Value = Shape> {
    let layout = (
        vec(any::<u16>(), 0..3),
        any::<bool>(),
        any::<bool>(),
        0_u8..=10,
        0_u8..=10,
        any::<bool>(),
    );
    let values = (
        any::<u16>(),
        any::<u32>(),
        any::<u32>(),
        any::<u16>(),
        0_u8..4,
        any::<u8>(),
    );
    let extensions =
        prop_oneof![4 => Just(vec![]), 1 => vec(prop_oneof![Just(0_u8), Just(43), Just(60)], 1..4)];
    let flags = prop_oneof![4 => Just(ACK), 2 => Just(ACK | PSH), 1 => Just(ACK | FIN | PSH), 1 => Just(ACK | CWR)];
    (layout, values, extensions, flags).prop_map(|(layout, values, extensions, flags)| {
        let (tags, ipv6, tcp, ip_options, tcp_options, dont_fragment) = layout;
        let (id, sequence, acknowledgement, window, station, option) = values;
        Shape {
            tags,
            ipv6,
            transport: if tcp { Transport::Tcp } else { Transport::Udp },
            source_port: 1000 + u16::from(station),
            ip_options,
            extensions,
            tcp_options,
            option,
            dont_fragment,
            id,
            ttl: 64,
            tos: 0,
            sequence,
            acknowledgement,
            window,
            flags,
            station,
        }
    })
}

/// A payload length and a segment size that make 1 to some 100 segments.
pub(super) fn sizes() -> impl Strategy<Value = (usize, u16)> {
    prop_oneof![
        (1_usize..4000, 36_u16..1500),
        (20_000_usize..60_000, 536_u16..1449),
        (1_usize..60, 1_u16..20),
        (1_u16..1449, 1_usize..20).prop_map(|(size, count)| (usize::from(size) * count, size)),
    ]
}

//! The virtio header that a TAP queue puts before every frame.
//!
//! ```text
//!  0       1          2         4          6            8             10
//!  | flags | gso type | hdr_len | gso_size | csum_start | csum_offset |   little endian
//! ```

/// The header's fields; offsets and lengths in bytes from the start of the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VnetHeader {
    /// `NEEDS_CSUM`, `DATA_VALID`.
    pub flags: u8,
    /// `GSO_*`, perhaps with `GSO_ECN`.
    pub gso_type: u8,
    /// Bytes before the payload of the first segment; a hint only.
    pub hdr_len: u16,
    /// Payload bytes of every segment but the last.
    pub gso_size: u16,
    /// Where the checksum's coverage starts.
    pub csum_start: u16,
    /// Where the checksum goes, from `csum_start`.
    pub csum_offset: u16,
}

impl VnetHeader {
    /// Encoded length; `TUNSETVNETHDRSZ` must say the same.
    pub const LEN: usize = 10;

    /// The transport checksum is not filled in.
    pub const NEEDS_CSUM: u8 = 1;
    /// The kernel has found the transport checksum right.
    pub const DATA_VALID: u8 = 2;

    /// One frame.
    pub const GSO_NONE: u8 = 0;
    /// TCP over IPv4.
    pub const GSO_TCPV4: u8 = 1;
    /// One fragmented UDP datagram; never asked for, never accepted.
    pub const GSO_UDP_FRAGMENTS: u8 = 3;
    /// TCP over IPv6.
    pub const GSO_TCPV6: u8 = 4;
    /// UDP datagrams of one size, over either IP.
    pub const GSO_UDP_L4: u8 = 5;
    /// Added to a TCP type: the first segment carries CWR, the others must not.
    pub const GSO_ECN: u8 = 0x80;

    /// Takes the header off the front of what a TAP queue yields; `None` if it is not complete.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (header, frame) = bytes.split_first_chunk::<{ Self::LEN }>()?;
        let [flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1] = *header;
        let header = Self {
            flags,
            gso_type,
            hdr_len: u16::from_le_bytes([h0, h1]),
            gso_size: u16::from_le_bytes([g0, g1]),
            csum_start: u16::from_le_bytes([s0, s1]),
            csum_offset: u16::from_le_bytes([o0, o1]),
        };
        Some((header, frame))
    }

    /// Returns the bytes that go before a frame.
    #[must_use]
    pub const fn encode(&self) -> [u8; Self::LEN] {
        let [h0, h1] = self.hdr_len.to_le_bytes();
        let [g0, g1] = self.gso_size.to_le_bytes();
        let [s0, s1] = self.csum_start.to_le_bytes();
        let [o0, o1] = self.csum_offset.to_le_bytes();
        [self.flags, self.gso_type, h0, h1, g0, g1, s0, s1, o0, o1]
    }

    /// Says whether the transport checksum is not filled in.
    #[must_use]
    pub const fn needs_checksum(&self) -> bool {
        self.flags & Self::NEEDS_CSUM != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_little_endian_and_in_virtio_order() {
        let bytes = [1, 0x81, 0x42, 0, 0xa8, 0x05, 0x22, 0, 0x10, 0, 0xee];
        let header = VnetHeader {
            flags: 1,
            gso_type: 0x81,
            hdr_len: 66,
            gso_size: 1448,
            csum_start: 34,
            csum_offset: 16,
        };

        assert_eq!(VnetHeader::parse(&bytes), Some((header, &[0xee][..])));
        assert_eq!(header.encode(), bytes[..10]);
    }

    #[test]
    fn a_short_header_is_refused() {
        assert_eq!(VnetHeader::parse(&[0; 9]), None);
        assert_eq!(
            VnetHeader::parse(&[0; 10]),
            Some((VnetHeader::default(), &[][..]))
        );
    }
}

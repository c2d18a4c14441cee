//! The outer datagram: layout, kinds, encode and parse.
//!
//! ```text
//!  0     type(4) | version(4)          the high and the low half of one byte
//!  1     lane                          the sending worker
//!  2-3   flags                         zero, or the datagram is refused
//!  4-7   receiver index                big endian, like every number here
//!  8-15  counter                       nonce and replay mark of the lane
//!  16..  AEAD( kind(1) | meta(1) | body )      the header is the associated data
//!  last  tag(16)
//!
//!  kind 0 CONTROL  meta = class; u16 body length, body, padding
//!  kind 1 FRAME    meta (see `wire::meta`); one Ethernet frame
//!  kind 2 FRAMES   meta, the same for all; u16 length and frame, repeated to the end
//!  kind 3 PIECE    meta; part (0 or 1), u16 frame length, this part's bytes
//!  kind 4 BENCH    meta = class; see `bench`
//! ```
//!
//! The two halves of a PIECE carry consecutive counters of one lane.

pub mod ethernet;
pub mod meta;
pub mod relay;
pub mod resolution;

/// Bytes of the outer header.
pub const HEADER_LEN: usize = 16;
/// Bytes of the AEAD tag.
pub const TAG_LEN: usize = 16;
/// Bytes of kind and meta.
pub const INNER_LEN: usize = 2;
/// What FRAME adds to an Ethernet frame.
pub const FRAME_OVERHEAD: usize = HEADER_LEN + INNER_LEN + TAG_LEN;
/// Length prefix of each frame in FRAMES and of a CONTROL body.
pub const LENGTH_LEN: usize = 2;
/// Part number and frame length in a PIECE.
pub const PIECE_LEN: usize = 3;
/// The one version there is.
pub const VERSION: u8 = 1;

/// The type of a datagram, the high half of its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum DatagramType {
    /// Sealed for the receiver by a peer that it has a session with.
    Data = 1,
    /// A sealed datagram for somebody else, to be passed on.
    Relay = 2,
    /// Sealed once by the source for all members.
    Group = 3,
    /// In clear, on a path that both ends declared trusted.
    Clear = 4,
}

/// What is inside a DATA datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Probes, handshakes, anything that is not a frame.
    Control = 0,
    /// One frame.
    Frame = 1,
    /// Several small frames.
    Frames = 2,
    /// Half of a frame.
    Piece = 3,
    /// A measurement.
    Bench = 4,
}

impl Kind {
    /// Reads the kind byte.
    pub const fn parse(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Control),
            1 => Some(Self::Frame),
            2 => Some(Self::Frames),
            3 => Some(Self::Piece),
            4 => Some(Self::Bench),
            _ => None,
        }
    }
}

/// Who a CONTROL body is for; the byte where frames have their meta.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ControlClass {
    /// The path machine.
    Path = 0,
    /// Control, by [`crate::command::Event::Message`].
    Message = 1,
    /// Nobody: that it opens says that the sender has the keys. Sent where no probe says so.
    Confirm = 2,
}

impl ControlClass {
    /// Reads the class byte.
    pub const fn parse(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Path),
            1 => Some(Self::Message),
            2 => Some(Self::Confirm),
            _ => None,
        }
    }
}

/// The outer header of a DATA datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The sending worker.
    pub lane: u8,
    /// The receiver's name for the epoch.
    pub receiver: u32,
    /// Nonce and replay mark.
    pub counter: u64,
}

impl Header {
    /// Reads the header of a datagram.
    ///
    /// `None` unless the datagram is long enough for the header, kind, meta and tag, is of type DATA and
    /// our version, and has no flag set.
    #[inline]
    pub fn parse(datagram: &[u8]) -> Option<(Self, &[u8; HEADER_LEN])> {
        if datagram.len() < FRAME_OVERHEAD {
            return None;
        }
        let bytes: &[u8; HEADER_LEN] = datagram.first_chunk()?;
        let [
            first,
            lane,
            flags_high,
            flags_low,
            r0,
            r1,
            r2,
            r3,
            counter @ ..,
        ] = *bytes;
        let expected = ((DatagramType::Data as u8) << 4) | VERSION;
        if first != expected || flags_high != 0 || flags_low != 0 {
            return None;
        }
        let header = Self {
            lane,
            receiver: u32::from_be_bytes([r0, r1, r2, r3]),
            counter: u64::from_be_bytes(counter),
        };
        Some((header, bytes))
    }

    /// The header's bytes.
    #[inline]
    pub fn encode(self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[0] = ((DatagramType::Data as u8) << 4) | VERSION;
        bytes[1] = self.lane;
        bytes[4..8].copy_from_slice(&self.receiver.to_be_bytes());
        bytes[8..].copy_from_slice(&self.counter.to_be_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_has_these_bytes_for_ever() {
        let header = Header {
            lane: 3,
            receiver: 0x0102_0304,
            counter: 0x0506_0708_090a_0b0c,
        };
        let golden = [0x11, 3, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
        assert_eq!(header.encode(), golden);
        let mut datagram = golden.to_vec();
        datagram.resize(FRAME_OVERHEAD, 0);
        assert_eq!(
            Header::parse(&datagram).map(|(header, _)| header),
            Some(header)
        );
    }

    #[test]
    fn a_short_foreign_or_flagged_datagram_is_refused() {
        let good = Header {
            lane: 0,
            receiver: 1,
            counter: 2,
        }
        .encode();
        let mut datagram = good.to_vec();
        datagram.resize(FRAME_OVERHEAD - 1, 0);
        assert_eq!(Header::parse(&datagram), None, "one byte short");
        datagram.push(0);
        for (at, byte) in [(0, 0x21), (0, 0x12), (0, 0), (2, 1), (3, 0x80)] {
            let mut bad = datagram.clone();
            bad[at] = byte;
            assert_eq!(Header::parse(&bad), None, "byte {at} = {byte:#x}");
        }
        assert!(Header::parse(&datagram).is_some());
    }
}

//! One byte beside every frame: what the sender's kernel left undone.
//!
//! It is sealed together with the frame, so only the peer itself can lie about it, and the receiver
//! still checks it against the frame before it believes it.
//!
//! ```text
//!   7   6   5   4   3   2   1   0
//! +---+---+---+---+---+---+---+---+
//! | 0   0   0   0   0 | kind  | P |
//! +---+---+---+---+---+---+---+---+
//!
//!  P     checksum partial: the TCP or UDP checksum field holds nothing of meaning, the
//!        receiver's kernel fills it in (or nobody, where the frame never leaves a machine)
//!  kind  0 the frame came alone        1 cut from a TCP super-frame
//!        2 cut from a UDP super-frame  3 reserved
//! ```
//!
//! A frame cut from a super-frame always has P set, for the kernel makes no other super-frames; a sender
//! that has to fill the checksum in itself says kind 0. So four values are valid: 0, 1, 3 and 5.

/// Which kind of super-frame a frame was cut from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segmentation {
    /// None: the frame came alone.
    None,
    /// A TCP super-frame (TSO).
    Tcp,
    /// A UDP super-frame (USO).
    Udp,
}

/// A valid meta byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta(u8);

const PARTIAL: u8 = 0b001;
const TCP: u8 = 0b010;
const UDP: u8 = 0b100;

impl Meta {
    /// A whole frame: nothing is left to do.
    pub const COMPLETE: Self = Self(0);
    /// A frame that came alone, its transport checksum not filled in.
    pub const PARTIAL: Self = Self(PARTIAL);
    /// One segment of a TCP super-frame, its checksum not filled in.
    pub const TCP_SEGMENT: Self = Self(PARTIAL | TCP);
    /// One datagram of a UDP super-frame, its checksum not filled in.
    pub const UDP_SEGMENT: Self = Self(PARTIAL | UDP);

    /// Takes a byte from the wire; `None` unless it is one of the four valid values.
    #[must_use]
    pub const fn from_wire(byte: u8) -> Option<Self> {
        match Self(byte) {
            meta @ (Self::COMPLETE | Self::PARTIAL | Self::TCP_SEGMENT | Self::UDP_SEGMENT) => {
                Some(meta)
            }
            Self(_) => None,
        }
    }

    /// Returns the byte for the wire.
    #[must_use]
    pub const fn to_wire(self) -> u8 {
        self.0
    }

    /// Says whether the transport checksum is left to the receiver.
    #[must_use]
    pub const fn is_partial(self) -> bool {
        self.0 & PARTIAL != 0
    }

    /// Says what the frame was cut from.
    #[must_use]
    pub const fn segmentation(self) -> Segmentation {
        match self {
            Self::TCP_SEGMENT => Segmentation::Tcp,
            Self::UDP_SEGMENT => Segmentation::Udp,
            Self(_) => Segmentation::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_four_documented_bytes_are_valid() {
        let valid: Vec<u8> = (0..=u8::MAX)
            .filter(|&byte| Meta::from_wire(byte).is_some())
            .collect();

        assert_eq!(valid, [0, 1, 3, 5]);
    }

    #[test]
    fn a_byte_comes_back_as_it_was_with_its_meaning() {
        let meaning =
            |byte| Meta::from_wire(byte).map(|m| (m.to_wire(), m.is_partial(), m.segmentation()));

        assert_eq!(meaning(0), Some((0, false, Segmentation::None)));
        assert_eq!(meaning(1), Some((1, true, Segmentation::None)));
        assert_eq!(meaning(3), Some((3, true, Segmentation::Tcp)));
        assert_eq!(meaning(5), Some((5, true, Segmentation::Udp)));
    }
}

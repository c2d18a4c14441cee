//! The clear first bytes of a link, the same in both directions.
//!
//! ```text
//!  0-3  "weft"
//!  4    lowest protocol version spoken
//!  5    highest protocol version spoken
//!  6    flags: bit 0 = a secret is needed; others zero, ignored when read
//!  7    zero, ignored when read
//! ```
//!
//! Nothing in it depends on the secret. Both preambles are part of the handshake's prologue, so that nobody can
//! change one on the way. Every version of weft keeps this layout.

use crate::secret::NetworkId;

/// The lowest protocol version that we speak.
pub(crate) const VERSION_LOWEST: u8 = 1;
/// The highest protocol version that we speak.
pub(crate) const VERSION_HIGHEST: u8 = 1;
/// Length in bytes.
pub(crate) const PREAMBLE_LEN: usize = 8;

const MAGIC: [u8; 4] = *b"weft";
const FLAG_SECRET: u8 = 1;

/// One side's preamble, as sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Preamble([u8; PREAMBLE_LEN]);

/// Why two preambles do not go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PreambleError {
    #[error("does not speak weft's protocol")]
    NotWeft,
    #[error(
        "speaks protocol versions {lowest} to {highest}, we speak {VERSION_LOWEST} to {VERSION_HIGHEST}"
    )]
    Version { lowest: u8, highest: u8 },
    #[error("requires a password, and we have none")]
    TheyAreClosed,
    #[error("has no password, and we require one")]
    TheyAreOpen,
}

impl Preamble {
    /// Ours.
    pub(crate) fn ours(closed: bool) -> Self {
        let [a, b, c, d] = MAGIC;
        Self([
            a,
            b,
            c,
            d,
            VERSION_LOWEST,
            VERSION_HIGHEST,
            u8::from(closed) * FLAG_SECRET,
            0,
        ])
    }

    /// The bytes to send.
    pub(crate) fn as_bytes(&self) -> &[u8; PREAMBLE_LEN] {
        &self.0
    }

    /// Reads the peer's from the front of what has come in; `None` while it is not whole.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Self>, PreambleError> {
        if bytes.iter().zip(MAGIC).any(|(byte, magic)| *byte != magic) {
            return Err(PreambleError::NotWeft);
        }
        Ok(bytes.first_chunk().copied().map(Self))
    }

    fn is_closed(&self) -> bool {
        self.0[6] & FLAG_SECRET != 0
    }

    /// The protocol version to speak with the peer.
    pub(crate) fn agree(&self, theirs: &Self) -> Result<u8, PreambleError> {
        let (lowest, highest) = (theirs.0[4], theirs.0[5]);
        if lowest > highest || lowest > VERSION_HIGHEST || highest < VERSION_LOWEST {
            return Err(PreambleError::Version { lowest, highest });
        }
        match (self.is_closed(), theirs.is_closed()) {
            (false, true) => Err(PreambleError::TheyAreClosed),
            (true, false) => Err(PreambleError::TheyAreOpen),
            (true, true) | (false, false) => Ok(highest.min(VERSION_HIGHEST)),
        }
    }

    /// What both ends mix into the handshake before its first message.
    pub(crate) fn prologue(initiator: &Self, responder: &Self, network: &NetworkId) -> Vec<u8> {
        [
            b"weft link 1".as_slice(),
            &initiator.0,
            &responder.0,
            network.as_bytes(),
        ]
        .concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_these_for_ever() {
        assert_eq!(Preamble::ours(true).as_bytes(), b"weft\x01\x01\x01\x00");
        assert_eq!(Preamble::ours(false).as_bytes(), b"weft\x01\x01\x00\x00");
    }

    #[test]
    fn garbage_is_refused_at_its_first_byte() {
        assert_eq!(Preamble::parse(b""), Ok(None));
        assert_eq!(Preamble::parse(b"weft\x01\x01\x01"), Ok(None));
        assert_eq!(Preamble::parse(b"G"), Err(PreambleError::NotWeft));
        assert_eq!(Preamble::parse(b"weaG"), Err(PreambleError::NotWeft));
        assert_eq!(
            Preamble::parse(b"weft\x01\x01\x01\x00more"),
            Ok(Some(Preamble::ours(true)))
        );
    }

    #[test]
    fn open_and_closed_peers_refuse_each_other() {
        let (open, closed) = (Preamble::ours(false), Preamble::ours(true));
        assert_eq!(open.agree(&closed), Err(PreambleError::TheyAreClosed));
        assert_eq!(closed.agree(&open), Err(PreambleError::TheyAreOpen));
        assert_eq!(closed.agree(&closed), Ok(1));
        assert_eq!(open.agree(&open), Ok(1));
    }

    #[test]
    fn versions_must_overlap() {
        let ours = Preamble::ours(true);
        let theirs =
            |lowest, highest| Preamble(*b"weft\x00\x00\x01\x00").with_versions(lowest, highest);
        assert_eq!(ours.agree(&theirs(1, 9)), Ok(1));
        assert_eq!(
            ours.agree(&theirs(2, 9)),
            Err(PreambleError::Version {
                lowest: 2,
                highest: 9
            })
        );
        assert_eq!(
            ours.agree(&theirs(9, 1)),
            Err(PreambleError::Version {
                lowest: 9,
                highest: 1
            })
        );
        assert_eq!(
            ours.agree(&theirs(0, 0)),
            Err(PreambleError::Version {
                lowest: 0,
                highest: 0
            })
        );
    }

    impl Preamble {
        fn with_versions(mut self, lowest: u8, highest: u8) -> Self {
            (self.0[4], self.0[5]) = (lowest, highest);
            self
        }
    }
}

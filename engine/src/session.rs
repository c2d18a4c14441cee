//! Sessions: keys and replay windows by receiver index, one set per worker.
//!
//! ```text
//!  InstallSession ──► accepted (opens datagrams) ── ActivateSession ──► active (seals) ──► draining ──► removed
//! ```
//!
//! Each worker seals on one lane, its own, and opens the lanes that it owns, so no key, counter or
//! window is ever shared. Sans-IO.

mod aead;
mod hop;
mod lanes;
mod replay;
mod selftest;

pub use aead::{Aead, Forged, Implementation, LaneCipher};
pub use hop::{HopOpen, HopSeal};
pub use lanes::{EpochShared, OpenEpoch, OpenError, OpenLane, SealLane};
pub use replay::ReplayWindow;
pub use selftest::{CipherSpeed, fastest, measure};

/// A data cipher. There is no null cipher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CipherSuite {
    /// RFC 8439.
    ChaCha20Poly1305,
    /// NIST SP 800-38D, 256-bit key.
    Aes256Gcm,
}

impl CipherSuite {
    /// Every suite.
    pub const ALL: [Self; 2] = [Self::ChaCha20Poly1305, Self::Aes256Gcm];

    /// Its name in flags, status, handshakes and key derivation.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ChaCha20Poly1305 => "chacha20-poly1305",
            Self::Aes256Gcm => "aes-256-gcm",
        }
    }
}

//! Sessions: keys and windows by receiver index.

/// A data cipher. There is no null cipher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CipherSuite {
    /// RFC 8439.
    ChaCha20Poly1305,
    /// NIST SP 800-38D, 256-bit key.
    Aes256Gcm,
}

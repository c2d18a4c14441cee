//! Seal and open in place, behind one trait; key and nonce layout of a lane.
//!
//! ```text
//!  lane key ‖ lane IV = HKDF-BLAKE2s( direction key, "weft lane" ‖ suite ‖ lane )   32 + 12 bytes
//!  hop lanes           likewise, with "weft hop lane"
//!  nonce              = lane IV ⊕ ( 0³² ‖ counter⁶⁴ )                               RFC 8446 §5.3
//! ```

use blake2::Blake2s256;
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use hkdf::SimpleHkdf;
use zeroize::Zeroize;

use crate::command::SecretKey;
use crate::session::CipherSuite;
use crate::wire::TAG_LEN;

/// A datagram that does not authenticate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forged;

/// One implementation of a cipher under one key.
pub trait Aead: Send {
    /// Encrypts `text` in place and returns the tag.
    fn seal(&self, nonce: &[u8; 12], header: &[u8], text: &mut [u8]) -> [u8; TAG_LEN];
    /// Decrypts `text` (ciphertext, then tag) in place; the plaintext is all but the last [`TAG_LEN`] bytes.
    fn open(&self, nonce: &[u8; 12], header: &[u8], text: &mut [u8]) -> Result<(), Forged>;
}

/// Which code does the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Implementation {
    /// The `chacha20poly1305` crate: the reference, always there, ChaCha20-Poly1305 only.
    RustCrypto,
    /// The `ring` crate: both suites.
    #[cfg(feature = "ring")]
    Ring,
}

impl Implementation {
    /// Its name in status and benches.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RustCrypto => "chacha20poly1305",
            #[cfg(feature = "ring")]
            Self::Ring => "ring",
        }
    }

    /// Every implementation of a suite that is built in.
    pub fn of(suite: CipherSuite) -> &'static [Self] {
        match suite {
            CipherSuite::ChaCha20Poly1305 => &[
                #[cfg(feature = "ring")]
                Self::Ring,
                Self::RustCrypto,
            ],
            CipherSuite::Aes256Gcm => &[
                #[cfg(feature = "ring")]
                Self::Ring,
            ],
        }
    }

    /// A cipher of this implementation; `None` if it does not have the suite.
    pub fn cipher(self, suite: CipherSuite, key: &[u8; 32]) -> Option<Box<dyn Aead>> {
        match (self, suite) {
            (Self::RustCrypto, CipherSuite::ChaCha20Poly1305) => Some(Box::new(RustCrypto(
                chacha20poly1305::ChaCha20Poly1305::new(key.into()),
            ))),
            (Self::RustCrypto, CipherSuite::Aes256Gcm) => None,
            #[cfg(feature = "ring")]
            (Self::Ring, suite) => fast::cipher(suite, key),
        }
    }
}

struct RustCrypto(chacha20poly1305::ChaCha20Poly1305);

impl Aead for RustCrypto {
    fn seal(&self, nonce: &[u8; 12], header: &[u8], text: &mut [u8]) -> [u8; TAG_LEN] {
        self.0
            .encrypt_inout_detached(nonce.into(), header, text.into())
            .expect("a datagram is far below the cipher's 256 GB")
            .into()
    }

    fn open(&self, nonce: &[u8; 12], header: &[u8], text: &mut [u8]) -> Result<(), Forged> {
        let at = text.len().checked_sub(TAG_LEN).ok_or(Forged)?;
        let (text, tag) = text.split_at_mut(at);
        let tag: &[u8; TAG_LEN] = (&*tag).try_into().map_err(|_| Forged)?;
        self.0
            .decrypt_inout_detached(nonce.into(), header, text.into(), tag.into())
            .map_err(|_| Forged)
    }
}

#[cfg(feature = "ring")]
mod fast {
    use ring::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

    use super::{Aead, CipherSuite, Forged, TAG_LEN};

    pub(super) fn cipher(suite: CipherSuite, key: &[u8; 32]) -> Option<Box<dyn Aead>> {
        let algorithm = match suite {
            CipherSuite::ChaCha20Poly1305 => &CHACHA20_POLY1305,
            CipherSuite::Aes256Gcm => &AES_256_GCM,
        };
        let key = UnboundKey::new(algorithm, key).ok()?;
        Some(Box::new(Ring(LessSafeKey::new(key))))
    }

    struct Ring(LessSafeKey);

    impl Aead for Ring {
        fn seal(&self, nonce: &[u8; 12], header: &[u8], text: &mut [u8]) -> [u8; TAG_LEN] {
            let mut tag = [0; TAG_LEN];
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let sealed = self
                .0
                .seal_in_place_separate_tag(nonce, Aad::from(header), text)
                .expect("a datagram is far below the cipher's limit");
            tag.copy_from_slice(sealed.as_ref());
            tag
        }

        fn open(&self, nonce: &[u8; 12], header: &[u8], text: &mut [u8]) -> Result<(), Forged> {
            let nonce = Nonce::assume_unique_for_key(*nonce);
            self.0
                .open_in_place(nonce, Aad::from(header), text)
                .map(|_| ())
                .map_err(|_| Forged)
        }
    }
}

/// Key and nonces of one lane in one direction.
pub struct LaneCipher {
    cipher: Box<dyn Aead>,
    iv: [u8; 12],
}

impl std::fmt::Debug for LaneCipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LaneCipher(..)")
    }
}

impl LaneCipher {
    /// Derives the lane's key from the direction's.
    ///
    /// `None` if this build has no implementation of the suite.
    pub fn derive(
        suite: CipherSuite,
        implementation: Implementation,
        key: &SecretKey,
        lane: u8,
    ) -> Option<Self> {
        Self::derive_labelled(b"weft lane", suite, implementation, key, lane)
    }

    /// Derives the key for the lane's hop tags from the direction's.
    ///
    /// `None` if this build has no implementation of the suite.
    pub fn derive_hop(
        suite: CipherSuite,
        implementation: Implementation,
        key: &SecretKey,
        lane: u8,
    ) -> Option<Self> {
        Self::derive_labelled(b"weft hop lane", suite, implementation, key, lane)
    }

    fn derive_labelled(
        label: &[u8],
        suite: CipherSuite,
        implementation: Implementation,
        key: &SecretKey,
        lane: u8,
    ) -> Option<Self> {
        let mut material = [0; 44];
        let kdf = SimpleHkdf::<Blake2s256>::from_prk(&key.0).ok()?;
        kdf.expand_multi_info(&[label, suite.name().as_bytes(), &[lane]], &mut material)
            .ok()?;
        let (lane_key, iv) = material.split_at(32);
        let lane_key: &[u8; 32] = lane_key.try_into().ok()?;
        let lane = Self {
            cipher: implementation.cipher(suite, lane_key)?,
            iv: iv.try_into().ok()?,
        };
        material.zeroize();
        Some(lane)
    }

    #[inline]
    fn nonce(&self, counter: u64) -> [u8; 12] {
        let mut nonce = self.iv;
        for (byte, mask) in nonce.iter_mut().skip(4).zip(counter.to_be_bytes()) {
            *byte ^= mask;
        }
        nonce
    }

    /// Encrypts `text` in place and returns the tag; each counter once.
    #[inline]
    pub fn seal(&self, counter: u64, header: &[u8], text: &mut [u8]) -> [u8; TAG_LEN] {
        self.cipher.seal(&self.nonce(counter), header, text)
    }

    /// Decrypts `text`, which ends in its tag, in place.
    #[inline]
    pub fn open(&self, counter: u64, header: &[u8], text: &mut [u8]) -> Result<(), Forged> {
        self.cipher.open(&self.nonce(counter), header, text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SUITES: [CipherSuite; 2] = [CipherSuite::ChaCha20Poly1305, CipherSuite::Aes256Gcm];

    fn lane(suite: CipherSuite, implementation: Implementation, lane: u8) -> LaneCipher {
        LaneCipher::derive(suite, implementation, &SecretKey([7; 32]), lane).expect("built in")
    }

    /// RFC 8439 §2.8.2, by every implementation.
    #[test]
    fn the_published_chacha_vector_holds() {
        let key: [u8; 32] = std::array::from_fn(|i| 0x80 + u8::try_from(i).unwrap());
        let nonce = [7, 0, 0, 0, 0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47];
        let header = [
            0x50, 0x51, 0x52, 0x53, 0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7,
        ];
        let plain = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.";
        let tag = [
            0x1a, 0xe1, 0x0b, 0x59, 0x4f, 0x09, 0xe2, 0x6a, 0x7e, 0x90, 0x2e, 0xcb, 0xd0, 0x60,
            0x06, 0x91,
        ];
        for implementation in Implementation::of(CipherSuite::ChaCha20Poly1305) {
            let cipher = implementation
                .cipher(CipherSuite::ChaCha20Poly1305, &key)
                .unwrap();
            let mut text = plain.to_vec();
            assert_eq!(
                cipher.seal(&nonce, &header, &mut text),
                tag,
                "{}",
                implementation.name()
            );
            assert_eq!(text[..8], [0xd3, 0x1a, 0x8d, 0x34, 0x64, 0x8e, 0x60, 0xdb]);
            text.extend(tag);
            cipher.open(&nonce, &header, &mut text).unwrap();
            assert_eq!(&text[..plain.len()], plain);
        }
    }

    /// GCM specification (McGrew, Viega), test case 16 without its additional data is 15; here 14: one zero block.
    #[cfg(feature = "ring")]
    #[test]
    fn the_published_gcm_vector_holds() {
        let cipher = Implementation::Ring
            .cipher(CipherSuite::Aes256Gcm, &[0; 32])
            .unwrap();
        let mut text = [0; 16];
        let tag = cipher.seal(&[0; 12], &[], &mut text);
        assert_eq!(
            text,
            [
                0xce, 0xa7, 0x40, 0x3d, 0x4d, 0x60, 0x6b, 0x6e, 0x07, 0x4e, 0xc5, 0xd3, 0xba, 0xf3,
                0x9d, 0x18
            ]
        );
        assert_eq!(
            tag,
            [
                0xd0, 0xd1, 0xc8, 0xa7, 0x99, 0x99, 0x6b, 0xf0, 0x26, 0x5b, 0x98, 0xb5, 0xd4, 0x8a,
                0xb9, 0x19
            ]
        );
    }

    #[test]
    fn lanes_and_suites_have_keys_of_their_own() {
        let mut texts = Vec::new();
        for suite in SUITES {
            for number in 0..3 {
                let mut text = [0; 32];
                lane(suite, Implementation::of(suite)[0], number).seal(1, b"", &mut text);
                texts.push(text);
            }
        }
        let count = texts.len();
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(texts.len(), count);
    }

    proptest! {
        #[test]
        fn implementations_open_each_others_datagrams(
            text in prop::collection::vec(any::<u8>(), 0..3000), counter: u64, header: [u8; 16]
        ) {
            let suite = CipherSuite::ChaCha20Poly1305;
            for seals in Implementation::of(suite) {
                for opens in Implementation::of(suite) {
                    let mut sealed = text.clone();
                    let tag = lane(suite, *seals, 1).seal(counter, &header, &mut sealed);
                    sealed.extend(tag);
                    prop_assert_eq!(lane(suite, *opens, 1).open(counter, &header, &mut sealed), Ok(()));
                    prop_assert_eq!(&sealed[..text.len()], &text[..]);
                }
            }
        }

        #[test]
        fn any_flipped_bit_is_a_forgery(
            len in 0_usize..200, at: prop::sample::Index, bit in 0..8_u8, in_header: bool
        ) {
            for suite in SUITES {
                for implementation in Implementation::of(suite) {
                    let lane = lane(suite, *implementation, 0);
                    let mut header = [9; 16];
                    let mut sealed = vec![5; len];
                    let tag = lane.seal(3, &header, &mut sealed);
                    sealed.extend(tag);
                    if in_header { header[at.index(16)] ^= 1 << bit } else {
                        let at = at.index(sealed.len());
                        sealed[at] ^= 1 << bit;
                    }
                    prop_assert_eq!(lane.open(3, &header, &mut sealed), Err(Forged));
                }
            }
        }
    }
}

//! From a finished handshake to the keys of one epoch: suite choice and derivation.
//!
//! ```text
//!  split key of a direction ── HKDF-BLAKE2s(salt = transcript hash) ─┬─ "weft data" + suite ──► that direction's key
//!  both split keys ────────────────────────────────────────────────┴─ "weft installed" ─────► proof that it stands
//! ```
//!
//! The suite's name goes into the derivation: two ends that were led to different suites have different keys, not a
//! weaker cipher.

use blake2::Blake2s256;
use hkdf::SimpleHkdf;
use weft_engine::command::SecretKey;
use weft_engine::session::CipherSuite;

use crate::config::CipherCost;
use crate::link::noise::Split;

/// Length of the proof that the responder accepts datagrams.
pub(crate) const PROOF_LEN: usize = 16;

/// The data keys of one epoch.
pub(crate) struct EpochKeys {
    pub(crate) initiator: SecretKey,
    pub(crate) responder: SecretKey,
    pub(crate) proof: [u8; PROOF_LEN],
}

/// The name of a suite, as in `--cipher` and in key derivation.
#[must_use]
pub fn suite_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::ChaCha20Poly1305 => "chacha20-poly1305",
        CipherSuite::Aes256Gcm => "aes-256-gcm",
    }
}

/// The suite that costs both ends together least; `None` if they share none. Symmetric.
pub(crate) fn choose_suite(ours: &[CipherCost], theirs: &[CipherCost]) -> Option<CipherSuite> {
    let cost = |list: &[CipherCost], suite| {
        list.iter()
            .find(|c| c.suite == suite)
            .map(|c| u64::from(c.ns_per_kib))
    };
    [CipherSuite::ChaCha20Poly1305, CipherSuite::Aes256Gcm]
        .into_iter()
        .filter_map(|suite| Some((cost(ours, suite)? + cost(theirs, suite)?, suite)))
        .min()
        .map(|(_, suite)| suite)
}

/// Derives the keys of an epoch.
pub(crate) fn derive(split: &Split, suite: CipherSuite) -> EpochKeys {
    let expand = |secret: &[u8], info: &[&[u8]], out: &mut [u8]| {
        SimpleHkdf::<Blake2s256>::new(Some(&split.hash), secret)
            .expand_multi_info(info, out)
            .expect("the outputs are shorter than HKDF's limit of 255 hashes");
    };
    let data_key = |direction: &SecretKey| {
        let mut key = SecretKey([0; 32]);
        expand(
            &direction.0,
            &[b"weft data ", suite_name(suite).as_bytes()],
            &mut key.0,
        );
        key
    };
    let mut proof = [0; PROOF_LEN];
    let both = zeroize::Zeroizing::new([split.initiator.0, split.responder.0].concat());
    expand(&both, &[b"weft installed"], &mut proof);
    EpochKeys {
        initiator: data_key(&split.initiator),
        responder: data_key(&split.responder),
        proof,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split() -> Split {
        Split {
            initiator: SecretKey([1; 32]),
            responder: SecretKey([2; 32]),
            hash: [3; 32],
        }
    }

    fn cost(suite: CipherSuite, ns_per_kib: u32) -> CipherCost {
        CipherCost { suite, ns_per_kib }
    }

    #[test]
    fn directions_and_suites_have_keys_of_their_own() {
        let chacha = derive(&split(), CipherSuite::ChaCha20Poly1305);
        let aes = derive(&split(), CipherSuite::Aes256Gcm);
        assert_ne!(chacha.initiator, chacha.responder);
        assert_ne!(chacha.initiator, aes.initiator);
        assert_ne!(chacha.responder, aes.responder);
    }

    /// What a later release must still derive, or it does not talk to this one.
    #[test]
    fn the_derivation_stays_as_it_is() {
        let keys = derive(&split(), CipherSuite::ChaCha20Poly1305);
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        assert_eq!(
            hex(&keys.initiator.0),
            "ad69a90dd4b167d1bec20bf61d7e1c9d7a824b4332c9e4705f08fe43e8d772cb"
        );
        assert_eq!(hex(&keys.proof), "984d6cd58522fa746af021c4b2efbaf5");
    }

    #[test]
    fn the_pair_with_the_smallest_sum_wins() {
        use CipherSuite::{Aes256Gcm, ChaCha20Poly1305};
        let desktop = [cost(ChaCha20Poly1305, 700), cost(Aes256Gcm, 300)];
        let board = [cost(ChaCha20Poly1305, 900), cost(Aes256Gcm, 9000)];
        let pinned = [cost(Aes256Gcm, 300)];

        assert_eq!(choose_suite(&desktop, &desktop), Some(Aes256Gcm));
        assert_eq!(choose_suite(&desktop, &board), Some(ChaCha20Poly1305));
        assert_eq!(choose_suite(&board, &desktop), Some(ChaCha20Poly1305));
        assert_eq!(choose_suite(&pinned, &board), Some(Aes256Gcm));
        assert_eq!(choose_suite(&pinned, &[cost(ChaCha20Poly1305, 1)]), None);
        assert_eq!(
            choose_suite(&[cost(Aes256Gcm, u32::MAX)], &[cost(Aes256Gcm, u32::MAX)]),
            Some(Aes256Gcm)
        );
    }
}

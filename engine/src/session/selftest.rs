//! Measures the ciphers at start and picks the fastest implementation of each suite.

use std::time::{Duration, Instant};

use crate::session::{CipherSuite, Implementation};
use crate::wire::HEADER_LEN;

/// How fast one implementation seals full-size datagrams on this host.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CipherSpeed {
    /// The suite.
    pub suite: CipherSuite,
    /// The code.
    pub implementation: Implementation,
    /// Nanoseconds for one 1400-byte datagram.
    pub nanos: u32,
}

impl CipherSpeed {
    /// Megabytes a second.
    pub fn megabytes_per_second(&self) -> f64 {
        DATAGRAM_LEN as f64 * 1000.0 / f64::from(self.nanos.max(1))
    }
}

const DATAGRAM_LEN: usize = 1400;
/// Datagrams in one timed run, and runs; the best run counts, since the others met something else.
const RUN_LEN: u32 = 64;
const RUNS: u32 = 24;

/// Measures every implementation, fastest first; takes about ten milliseconds.
pub fn measure(clock: impl Fn() -> Instant) -> Vec<CipherSpeed> {
    let mut speeds = Vec::new();
    for suite in CipherSuite::ALL {
        for &implementation in Implementation::of(suite) {
            let Some(cipher) = implementation.cipher(suite, &[3; 32]) else {
                continue;
            };
            let mut text = [0; DATAGRAM_LEN];
            let mut best = Duration::MAX;
            for run in 0..RUNS {
                let start = clock();
                for count in 0..RUN_LEN {
                    let mut nonce = [0; 12];
                    nonce[..4].copy_from_slice(&(run * RUN_LEN + count).to_le_bytes());
                    cipher.seal(&nonce, &[0; HEADER_LEN], &mut text);
                }
                best = best.min(clock().saturating_duration_since(start));
            }
            let nanos = u32::try_from((best / RUN_LEN).as_nanos()).unwrap_or(u32::MAX);
            speeds.push(CipherSpeed {
                suite,
                implementation,
                nanos,
            });
        }
    }
    speeds.sort_by_key(|speed| speed.nanos);
    speeds
}

/// The fastest implementation of a suite among those measured.
pub fn fastest(speeds: &[CipherSpeed], suite: CipherSuite) -> Option<Implementation> {
    speeds
        .iter()
        .filter(|speed| speed.suite == suite)
        .min_by_key(|speed| speed.nanos)
        .map(|speed| speed.implementation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fastest_of_a_suite_wins() {
        let slow = CipherSpeed {
            suite: CipherSuite::ChaCha20Poly1305,
            implementation: Implementation::RustCrypto,
            nanos: 900,
        };
        let other = CipherSpeed {
            suite: CipherSuite::Aes256Gcm,
            implementation: Implementation::RustCrypto,
            nanos: 1,
        };
        assert_eq!(
            fastest(&[other, slow], CipherSuite::ChaCha20Poly1305),
            Some(Implementation::RustCrypto)
        );
        assert_eq!(fastest(&[slow], CipherSuite::Aes256Gcm), None);
        assert!((slow.megabytes_per_second() - 1555.5).abs() < 1.0);
    }
}

//! Echoes: a flooded frame that comes in again on another side shows that two hosts are joined by a LAN, too.
//!
//! ```text
//!   container ─ bridge ─ TAP ═ weft ═ TAP ─ bridge ─┐        what left by the TAP comes back by a peer,
//!                  └──────────── LAN ───────────────┘        or what a peer brought comes back by the TAP
//! ```
//!
//! For each flooded frame a hash and the side that it came from are remembered for a moment, one word each in
//! a table for all workers. Beside it stand the few MACs that must not be learned on a side for a while.
//! Bounds: `config::ECHOES_MAX`, `ECHO_WINDOW`, `HOLDS_MAX`, `HOLD_TIME`.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::bridge::Port;
use crate::config::{ECHO_WINDOW, ECHOES_MAX, HOLD_TIME, HOLDS_MAX};
use crate::wire::ethernet::MacAddr;

/// Bytes of a frame that are compared: headers and more; what follows differs with them.
const HASHED_LEN: usize = 128;

/// The memory.
#[derive(Debug)]
pub struct Echoes {
    /// Hash (24 bits) | side (16) | milliseconds since the start, cut off (24).
    words: Box<[AtomicU64]>,
    holds: [Hold; HOLDS_MAX],
    next_hold: AtomicUsize,
    seed: u64,
}

/// A MAC that must not be learned on a side.
#[derive(Debug, Default)]
struct Hold {
    /// As in the FDB: MAC | side.
    word: AtomicU64,
    until_ms: AtomicU64,
}

impl Echoes {
    /// An empty memory; `seed` is random, so that nobody can make two frames look alike.
    pub fn new(seed: u64) -> Self {
        Self {
            words: (0..ECHOES_MAX).map(|_| AtomicU64::new(0)).collect(),
            holds: Default::default(),
            next_hold: AtomicUsize::new(0),
            seed: seed | 1,
        }
    }

    /// Remembers that `frame` came in on `port`; returns the side on which the same came in a moment ago, if
    /// that was another.
    pub fn note(&self, frame: &[u8], port: Port, now: Duration) -> Option<Port> {
        let hash = self.hash(frame);
        let place = self.words.get((hash >> 40) as usize % ECHOES_MAX)?;
        let tag = hash & 0xff_ffff;
        let now = millis(now) & 0xff_ffff;
        let before = place.load(Ordering::Relaxed);
        let age = now.wrapping_sub(before) & 0xff_ffff;
        let earlier = Port::from_code(((before >> 24) & 0xffff) as u16)
            .filter(|_| before >> 40 == tag && Duration::from_millis(age) <= ECHO_WINDOW);
        match earlier {
            // The side that came first stays, so that each further echo is one, too.
            Some(earlier) if earlier != port => Some(earlier),
            _ => {
                let word = tag << 40 | u64::from(port.code()) << 24 | now;
                place.store(word, Ordering::Relaxed);
                None
            }
        }
    }

    /// For [`HOLD_TIME`] `mac` is not to be learned on `port`.
    pub fn hold(&self, mac: MacAddr, port: Port, now: Duration) {
        let word = word(mac, port);
        let known = self
            .holds
            .iter()
            .find(|hold| hold.word.load(Ordering::Relaxed) == word);
        let hold = known.or_else(|| {
            let at = self.next_hold.fetch_add(1, Ordering::Relaxed) % HOLDS_MAX;
            self.holds.get(at)
        });
        if let Some(hold) = hold {
            hold.word.store(word, Ordering::Relaxed);
            hold.until_ms
                .store(millis(now + HOLD_TIME), Ordering::Relaxed);
        }
    }

    /// Whether `mac` must not be learned on `port`.
    pub fn is_held(&self, mac: MacAddr, port: Port, now: Duration) -> bool {
        let word = word(mac, port);
        self.holds.iter().any(|hold| {
            hold.word.load(Ordering::Relaxed) == word
                && hold.until_ms.load(Ordering::Relaxed) > millis(now)
        })
    }

    /// The MAC has moved: it may be learned anywhere.
    pub fn release(&self, mac: MacAddr) {
        for hold in &self.holds {
            if hold.word.load(Ordering::Relaxed) >> 16 == word(mac, Port::Local) >> 16 {
                hold.until_ms.store(0, Ordering::Relaxed);
            }
        }
    }

    fn hash(&self, frame: &[u8]) -> u64 {
        hash(self.seed, frame.get(..HASHED_LEN).unwrap_or(frame))
    }
}

/// A hash that nobody can steer who does not know the seed, which is odd.
pub(super) fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let mut hash = seed ^ bytes.len() as u64;
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        for (to, from) in word.iter_mut().zip(chunk) {
            *to = *from;
        }
        hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(seed);
        hash ^= hash >> 29;
    }
    hash.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn word(mac: MacAddr, port: Port) -> u64 {
    let [a, b, c, d, e, f] = mac.0;
    u64::from_be_bytes([0, 0, a, b, c, d, e, f]) << 16 | u64::from(port.code())
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::PeerSlot;

    const PEER: Port = Port::Peer(PeerSlot(3));
    const NOW: Duration = Duration::from_secs(70_000);

    fn frame(fill: u8) -> Vec<u8> {
        vec![fill; 60]
    }

    #[test]
    fn the_same_frame_on_another_side_is_an_echo_as_often_as_it_comes() {
        let echoes = Echoes::new(77);
        assert_eq!(echoes.note(&frame(1), Port::Local, NOW), None);
        for late in [0, 10, 200] {
            let now = NOW + Duration::from_millis(late);
            assert_eq!(echoes.note(&frame(1), PEER, now), Some(Port::Local));
        }
        assert_eq!(echoes.note(&frame(2), PEER, NOW), None);
        assert_eq!(echoes.note(&frame(2), Port::Local, NOW), Some(PEER));
    }

    #[test]
    fn repetition_on_one_side_and_after_a_while_is_none() {
        let echoes = Echoes::new(77);
        for _ in 0..5 {
            assert_eq!(echoes.note(&frame(1), PEER, NOW), None);
        }
        let later = NOW + ECHO_WINDOW + Duration::from_millis(1);
        assert_eq!(echoes.note(&frame(1), Port::Local, later), None);
    }

    #[test]
    fn different_frames_are_hardly_ever_taken_for_echoes() {
        let echoes = Echoes::new(0x1234_5678_9abc_def1);
        let mut wrong = 0;
        for number in 0..20_000_u32 {
            let mut one = frame(0);
            one[40..44].copy_from_slice(&number.to_be_bytes());
            let port = if number % 2 == 0 { PEER } else { Port::Local };
            wrong += u32::from(echoes.note(&one, port, NOW).is_some());
        }
        assert!(wrong <= 2, "{wrong}");
    }

    #[test]
    fn a_hold_keeps_one_mac_off_one_side_until_it_ends_or_is_released() {
        let echoes = Echoes::new(77);
        let mac = MacAddr([2, 0, 0, 0, 0, 1]);
        echoes.hold(mac, PEER, NOW);
        assert!(echoes.is_held(mac, PEER, NOW));
        assert!(!echoes.is_held(mac, Port::Local, NOW));
        assert!(!echoes.is_held(mac, PEER, NOW + HOLD_TIME));
        echoes.hold(mac, PEER, NOW);
        echoes.release(mac);
        assert!(!echoes.is_held(mac, PEER, NOW));
    }

    #[test]
    fn holds_are_bounded_and_the_oldest_goes() {
        let echoes = Echoes::new(77);
        let mac = |last| MacAddr([2, 0, 0, 0, 0, last]);
        for last in 0..=u8::try_from(HOLDS_MAX).unwrap() {
            echoes.hold(mac(last), PEER, NOW);
        }
        assert!(!echoes.is_held(mac(0), PEER, NOW));
        assert!(echoes.is_held(mac(1), PEER, NOW));
    }
}

//! Announced addresses: what containers said of themselves a moment ago, and control may not have heard yet.
//!
//! ```text
//!  announcement "A is at N" ─► note        question "who has A?", control has it at M
//!                                             └─► contradicts(A, M)? ─► flooded: N answers for itself
//! ```
//!
//! A word for each of the addresses, in a table for all workers. Two addresses in one place, or the clock of a
//! word come round, cost a flood or an answer from control's table; never more.
//! Bounds: `config::ANNOUNCED_MAX`, `ANNOUNCED_TIME`.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::bridge::echo::{hash, millis};
use crate::config::{ANNOUNCED_MAX, ANNOUNCED_TIME};
use crate::wire::ethernet::MacAddr;

/// The memory.
#[derive(Debug)]
pub struct Announced {
    /// Hash of the address (20 bits) | of its MAC (20) | milliseconds since the start, cut off (24).
    words: Box<[AtomicU64]>,
    seed: u64,
}

impl Announced {
    /// An empty memory; `seed` is random, so that nobody can choose whose place to take.
    pub fn new(seed: u64) -> Self {
        Self {
            words: (0..ANNOUNCED_MAX).map(|_| AtomicU64::new(0)).collect(),
            seed: seed | 1,
        }
    }

    /// `mac` has said that it has `address`.
    pub fn note(&self, address: IpAddr, mac: MacAddr, now: Duration) {
        let (place, tags) = self.find(address, mac);
        if let Some(word) = self.words.get(place) {
            word.store(tags | millis(now) & 0xff_ffff, Ordering::Relaxed);
        }
    }

    /// Whether another MAC than `mac` has said within [`ANNOUNCED_TIME`] that it has `address`.
    pub fn contradicts(&self, address: IpAddr, mac: MacAddr, now: Duration) -> bool {
        let (place, tags) = self.find(address, mac);
        let said = self
            .words
            .get(place)
            .map_or(0, |word| word.load(Ordering::Relaxed));
        let age = millis(now).wrapping_sub(said) & 0xff_ffff;
        said != 0
            && said >> 44 == tags >> 44
            && said >> 24 != tags >> 24
            && Duration::from_millis(age) <= ANNOUNCED_TIME
    }

    /// Where the word of an address is, and the word without its time.
    fn find(&self, address: IpAddr, mac: MacAddr) -> (usize, u64) {
        let whose = match address {
            IpAddr::V4(address) => hash(self.seed, &address.octets()),
            IpAddr::V6(address) => hash(self.seed, &address.octets()),
        };
        let who = hash(self.seed, &mac.0) >> 44;
        let place = (whose >> 24 & 0xffff) as usize % ANNOUNCED_MAX;
        (place, whose >> 44 << 44 | who << 24)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const NEW: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
    const SEED: u64 = 0x9c6f_3d21_b58e_4a77;
    const NOW: Duration = Duration::from_secs(70_000);

    #[test]
    fn what_was_announced_last_contradicts_every_other_mac_for_a_while() {
        for address in ["10.32.0.1", "fd00::1"].map(|text| text.parse().unwrap()) {
            let announced = Announced::new(SEED);
            assert!(!announced.contradicts(address, OLD, NOW));
            announced.note(address, OLD, NOW);
            announced.note(address, NEW, NOW);
            assert!(announced.contradicts(address, OLD, NOW + ANNOUNCED_TIME));
            assert!(!announced.contradicts(address, NEW, NOW));
            let late = NOW + ANNOUNCED_TIME + Duration::from_millis(1);
            assert!(!announced.contradicts(address, OLD, late));
        }
    }

    #[test]
    fn of_many_addresses_hardly_one_is_taken_for_another() {
        let announced = Announced::new(SEED);
        let address = |number: u32| IpAddr::from((0x0a20_0000 + number).to_be_bytes());
        for number in 0..10_000 {
            announced.note(address(number), NEW, NOW);
        }
        let wrong = (10_000..20_000)
            .filter(|number| announced.contradicts(address(*number), OLD, NOW))
            .count();
        assert!(wrong <= 2, "{wrong}");
        let kept = (9_000..10_000)
            .filter(|number| announced.contradicts(address(*number), OLD, NOW))
            .count();
        assert!(kept >= 600, "{kept}");
    }
}

//! Storm limits: how many frames a second may be flooded, for each source MAC and for the whole TAP.
//!
//! ```text
//!              question or answer about addresses ─► 200/s a MAC ─┐
//!  flooded ─┤                                                     ├─► all of the host's known MACs: 10 000/s
//!              anything else ─────────────────────► 2500/s a MAC ─┘   all others:               10 000/s
//! ```
//!
//! A container that invents MACs uses up the share of unknown ones and not that of its neighbours. Each limit
//! lets two seconds' worth pass at once (GCRA, ITU-T I.371: one time stamp a bucket). One worker's own; a
//! storm of one MAC comes by one queue. Bounds: `config::STORM_MACS_MAX`, `FLOOD_*_MAX`, `ADDRESS_*_MAX`.

use std::time::Duration;

use crate::config::{ADDRESS_ANSWERS_MAX, ADDRESS_FLOODS_MAX, STORM_MACS_MAX};
use crate::verdict::DropReason;
use crate::wire::ethernet::MacAddr;

const WAYS: usize = 4;
const BUCKETS: usize = STORM_MACS_MAX / WAYS;
/// What may pass at once, in seconds of the limit.
const BURST: Duration = Duration::from_secs(2);

/// What is to be done with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Flood a question or announcement about addresses.
    FloodAddress,
    /// Flood anything else.
    Flood,
    /// Answer a question.
    Answer,
}

/// When a bucket would be empty again; full when that is [`BURST`] away.
#[derive(Debug, Clone, Copy, Default)]
struct Bucket(Duration);

impl Bucket {
    fn is_full(self, now: Duration) -> bool {
        self.0 > now + BURST
    }

    fn add(&mut self, rate: u32, now: Duration) {
        let step = Duration::from_secs(1) / rate.max(1);
        self.0 = self.0.max(now) + step;
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Source {
    mac: MacAddr,
    address: Bucket,
    other: Bucket,
    answers: Bucket,
}

impl Source {
    fn busy_until(&self) -> Duration {
        self.address.0.max(self.other.0).max(self.answers.0)
    }
}

/// The buckets.
#[derive(Debug)]
pub struct Storm {
    sources: Box<[[Source; WAYS]]>,
    known: Bucket,
    unknown: Bucket,
    per_mac: u32,
    per_tap: u32,
}

impl Storm {
    /// Limits for one of so many workers, which share the TAP's.
    pub fn new(per_mac: u32, per_tap: u32, workers: usize) -> Self {
        let workers = u32::try_from(workers).unwrap_or(1).max(1);
        Self {
            sources: vec![[Source::default(); WAYS]; BUCKETS].into_boxed_slice(),
            known: Bucket::default(),
            unknown: Bucket::default(),
            per_mac,
            per_tap: per_tap / workers,
        }
    }

    /// Whether a frame of `mac` may pass at `now`; `is_known` says that it is an attachment of this host.
    ///
    /// # Errors
    ///
    /// The reason, if not.
    pub fn admit(
        &mut self,
        mac: MacAddr,
        wish: Wish,
        is_known: bool,
        now: Duration,
    ) -> Result<(), DropReason> {
        let (per_mac, per_tap) = (self.per_mac, self.per_tap);
        let (known, unknown) = (self.known, self.unknown);
        let Some(source) = self.source(mac) else {
            return Err(DropReason::FloodMac);
        };
        let (bucket, rate) = match wish {
            Wish::FloodAddress => (&mut source.address, ADDRESS_FLOODS_MAX.min(per_mac)),
            Wish::Flood => (&mut source.other, per_mac),
            Wish::Answer => (&mut source.answers, ADDRESS_ANSWERS_MAX),
        };
        if rate == 0 || bucket.is_full(now) {
            return Err(DropReason::FloodMac);
        }
        if wish != Wish::Answer {
            let mut all = if is_known { known } else { unknown };
            if per_tap == 0 || all.is_full(now) {
                return Err(DropReason::FloodTap);
            }
            all.add(per_tap, now);
            bucket.add(rate, now);
            if is_known {
                self.known = all;
            } else {
                self.unknown = all;
            }
            return Ok(());
        }
        bucket.add(rate, now);
        Ok(())
    }

    /// The MAC's buckets; a new MAC takes the place of the one that was quiet for longest.
    fn source(&mut self, mac: MacAddr) -> Option<&mut Source> {
        let [a, b, c, d, e, f] = mac.0;
        let key = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
        let mixed = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let set = self.sources.get_mut((mixed >> 40) as usize % BUCKETS)?;
        let at = set
            .iter()
            .position(|source| source.mac == mac)
            .or_else(|| {
                let places = set.iter().enumerate();
                let quiet = places.min_by_key(|(_, source)| source.busy_until());
                quiet.map(|(at, _)| at)
            })?;
        let source = set.get_mut(at)?;
        if source.mac != mac {
            *source = Source {
                mac,
                ..Source::default()
            };
        }
        Some(source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{FLOOD_PER_MAC_MAX, FLOOD_PER_TAP_MAX};

    fn mac(number: u32) -> MacAddr {
        let [a, b, c, d] = number.to_be_bytes();
        MacAddr([2, 0, a, b, c, d])
    }

    fn storm() -> Storm {
        Storm::new(FLOOD_PER_MAC_MAX, FLOOD_PER_TAP_MAX, 1)
    }

    /// How many of `rate` frames a second pass in ten seconds after a first one.
    fn passed(
        storm: &mut Storm,
        rate: u32,
        wish: Wish,
        known: bool,
        mac_of: impl Fn(u32) -> MacAddr,
    ) -> u32 {
        let start = Duration::from_secs(100);
        let frames = (0..rate * 10).filter(|number| {
            let now = start + Duration::from_secs(1) * *number / rate;
            storm.admit(mac_of(*number), wish, known, now).is_ok()
        });
        u32::try_from(frames.count()).unwrap()
    }

    #[test]
    fn an_arp_storm_hardly_leaves_and_ordinary_use_is_not_touched() {
        let out = passed(&mut storm(), 50_000, Wish::FloodAddress, true, |_| mac(1));
        assert!(out <= ADDRESS_FLOODS_MAX * 12 + 1, "{out} of 500 000");
        let usual = passed(&mut storm(), 100, Wish::FloodAddress, true, |_| mac(1));
        assert_eq!(usual, 1000);
        let media = passed(&mut storm(), 2400, Wish::Flood, true, |_| mac(1));
        assert_eq!(media, 24_000);
    }

    #[test]
    fn one_macs_storm_leaves_another_macs_floods_alone() {
        let mut storm = storm();
        passed(&mut storm, 50_000, Wish::Flood, true, |_| mac(1));
        let now = Duration::from_secs(110);
        // One more may just have become due.
        let _ = storm.admit(mac(1), Wish::Flood, true, now);
        assert_eq!(
            storm.admit(mac(1), Wish::Flood, true, now),
            Err(DropReason::FloodMac)
        );
        for number in 0..1000 {
            let now = now + Duration::from_millis(number);
            assert_eq!(storm.admit(mac(2), Wish::Flood, true, now), Ok(()));
        }
    }

    #[test]
    fn invented_macs_use_up_their_own_share_and_not_that_of_known_ones() {
        let mut storm = storm();
        let out = passed(&mut storm, 50_000, Wish::Flood, false, mac);
        assert!(out <= FLOOD_PER_TAP_MAX * 12 + 1, "{out}");
        let now = Duration::from_secs(110);
        let _ = storm.admit(mac(6), Wish::Flood, false, now);
        assert_eq!(
            storm.admit(mac(7), Wish::Flood, false, now),
            Err(DropReason::FloodTap)
        );
        assert_eq!(storm.admit(mac(8), Wish::Flood, true, now), Ok(()));
    }

    #[test]
    fn answers_have_a_limit_of_their_own() {
        let mut storm = storm();
        let answers = passed(&mut storm, 50_000, Wish::Answer, true, |_| mac(1));
        assert!(answers <= ADDRESS_ANSWERS_MAX * 12 + 1, "{answers}");
        let now = Duration::from_secs(110);
        assert_eq!(storm.admit(mac(1), Wish::Flood, true, now), Ok(()));
    }

    #[test]
    fn a_limit_of_zero_lets_nothing_out() {
        let mut storm = Storm::new(0, 0, 4);
        for wish in [Wish::Flood, Wish::FloodAddress] {
            assert!(
                storm
                    .admit(mac(1), wish, true, Duration::from_secs(9))
                    .is_err()
            );
        }
    }
}

//! FDB: MAC → port; learn, look up, age, move.
//!
//! One table for all workers without a lock: an entry is one 64-bit word, the MAC beside the
//! port, so it is read and written whole.
//!
//! ```text
//!  bucket = 8 words + 8 times          word  0..48 MAC | 48..64 port (0: the entry is empty)
//!  ────────────────────────────        port  1 local side, 2.. peer slot + 2
//! ```
//!
//! A MAC lives in the bucket that its hash names. A full bucket gives up its oldest entry, so a
//! flood of invented MACs costs others nothing but learning anew. Two workers that learn one new
//! MAC at once may both write it; the lookup takes the first and the other ages.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::command::PeerSlot;
use crate::config::{FDB_AGE_MAX, FDB_ENTRIES_MAX};
use crate::wire::ethernet::MacAddr;

const WAYS: usize = 8;
const BUCKETS: usize = FDB_ENTRIES_MAX / WAYS;

/// A side of the bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// The TAP: containers of this host.
    Local,
    /// A peer.
    Peer(PeerSlot),
}

impl Port {
    pub(super) const fn code(self) -> u16 {
        match self {
            Self::Local => 1,
            Self::Peer(PeerSlot(slot)) => slot + 2,
        }
    }

    pub(super) const fn from_code(code: u16) -> Option<Self> {
        match code {
            0 => None,
            1 => Some(Self::Local),
            slot => Some(Self::Peer(PeerSlot(slot - 2))),
        }
    }
}

#[derive(Debug)]
struct Bucket {
    words: [AtomicU64; WAYS],
    /// Seconds since the table was made, when the entry was last heard.
    heard: [AtomicU32; WAYS],
}

/// The table.
#[derive(Debug)]
pub struct Fdb {
    buckets: Box<[Bucket]>,
    /// Unknown to senders, so that nobody can aim at one bucket.
    seed: u64,
}

impl Fdb {
    /// An empty table; `seed` is random.
    pub fn new(seed: u64) -> Self {
        let buckets = (0..BUCKETS)
            .map(|_| Bucket {
                words: std::array::from_fn(|_| AtomicU64::new(0)),
                heard: std::array::from_fn(|_| AtomicU32::new(0)),
            })
            .collect();
        Self {
            buckets,
            seed: seed | 1,
        }
    }
    fn bucket(&self, mac: u64) -> Option<&Bucket> {
        let mixed =
            (mac ^ (mac >> 23)).wrapping_mul(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        self.buckets.get((mixed >> 40) as usize % BUCKETS)
    }

    /// Whether `mac` is known on `port`; if so, it is known to have been heard there at `now`.
    #[inline]
    pub fn refresh(&self, mac: MacAddr, port: Port, now: Duration) -> bool {
        let key = key(mac);
        let word = key | (u64::from(port.code()) << 48);
        let now = seconds(now);
        let Some(bucket) = self.bucket(key) else {
            return false;
        };
        for (place, heard) in bucket.words.iter().zip(&bucket.heard) {
            if place.load(Ordering::Relaxed) == word {
                if heard.load(Ordering::Relaxed) != now {
                    heard.store(now, Ordering::Relaxed);
                }
                return true;
            }
        }
        false
    }

    /// Moves `mac` to `port` if it is known anywhere.
    pub fn relocate(&self, mac: MacAddr, port: Port, now: Duration) {
        if self.lookup(mac, now).is_some_and(|known| known != port) {
            self.learn(mac, port, now);
        }
    }

    /// Remembers that `mac` was heard on `port` at `now` (since the table was made); true if it is new or moved.
    pub fn learn(&self, mac: MacAddr, port: Port, now: Duration) -> bool {
        let key = key(mac);
        let word = key | (u64::from(port.code()) << 48);
        let now = seconds(now);
        let Some(bucket) = self.bucket(key) else {
            return false;
        };
        let mut oldest = (0, u32::MAX);
        for (way, (place, heard)) in bucket.words.iter().zip(&bucket.heard).enumerate() {
            let held = place.load(Ordering::Relaxed);
            if held << 16 == key << 16 && held != 0 {
                if heard.load(Ordering::Relaxed) != now {
                    heard.store(now, Ordering::Relaxed);
                }
                if held == word {
                    return false;
                }
                place.store(word, Ordering::Relaxed);
                return true;
            }
            let time = if held == 0 {
                0
            } else {
                heard.load(Ordering::Relaxed) + 1
            };
            if time < oldest.1 {
                oldest = (way, time);
            }
        }
        if let (Some(place), Some(heard)) = (bucket.words.get(oldest.0), bucket.heard.get(oldest.0))
        {
            heard.store(now, Ordering::Relaxed);
            place.store(word, Ordering::Relaxed);
        }
        true
    }

    /// Where `mac` was last heard, unless that is too long ago.
    pub fn lookup(&self, mac: MacAddr, now: Duration) -> Option<Port> {
        let key = key(mac);
        let bucket = self.bucket(key)?;
        for (place, heard) in bucket.words.iter().zip(&bucket.heard) {
            let held = place.load(Ordering::Relaxed);
            if held << 16 == key << 16 && held != 0 {
                let age = seconds(now).saturating_sub(heard.load(Ordering::Relaxed));
                return if Duration::from_secs(age.into()) > FDB_AGE_MAX {
                    None
                } else {
                    from_word(held)
                };
            }
        }
        None
    }

    /// Forgets every MAC of a peer that is gone.
    pub fn flush(&self, slot: PeerSlot) {
        let code = Port::Peer(slot).code();
        for place in self.buckets.iter().flat_map(|bucket| &bucket.words) {
            let held = place.load(Ordering::Relaxed);
            if held >> 48 == u64::from(code) {
                // A worker that moves the MAC meanwhile wins.
                let _ = place.compare_exchange(held, 0, Ordering::Relaxed, Ordering::Relaxed);
            }
        }
    }
}

fn key(mac: MacAddr) -> u64 {
    let [a, b, c, d, e, f] = mac.0;
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

fn from_word(word: u64) -> Option<Port> {
    Port::from_code((word >> 48) as u16)
}

#[expect(clippy::cast_possible_truncation, reason = "136 years of uptime")]
fn seconds(now: Duration) -> u32 {
    now.as_secs() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn mac(last: u32) -> MacAddr {
        let [a, b, c, d] = last.to_be_bytes();
        MacAddr([2, 0, a, b, c, d])
    }

    #[test]
    fn a_mac_is_learned_moves_and_ages() {
        let fdb = Fdb::new(7);
        let (here, there) = (Port::Local, Port::Peer(PeerSlot(4)));
        assert_eq!(fdb.lookup(mac(1), NOW), None);
        assert!(fdb.learn(mac(1), here, NOW));
        assert!(!fdb.learn(mac(1), here, NOW));
        assert_eq!(fdb.lookup(mac(1), NOW), Some(here));
        assert!(fdb.learn(mac(1), there, NOW));
        assert_eq!(fdb.lookup(mac(1), NOW + FDB_AGE_MAX), Some(there));
        assert_eq!(
            fdb.lookup(mac(1), NOW + FDB_AGE_MAX + Duration::from_secs(1)),
            None
        );
    }

    #[test]
    fn a_known_mac_is_kept_fresh_and_only_a_known_one_is_moved() {
        let fdb = Fdb::new(7);
        let (here, there) = (Port::Local, Port::Peer(PeerSlot(4)));
        fdb.relocate(mac(1), there, NOW);
        assert_eq!(fdb.lookup(mac(1), NOW), None);
        fdb.learn(mac(1), here, NOW);
        let later = NOW + FDB_AGE_MAX;
        assert!(!fdb.refresh(mac(1), there, later), "not its side");
        assert!(fdb.refresh(mac(1), here, later));
        assert_eq!(fdb.lookup(mac(1), later + FDB_AGE_MAX), Some(here));
        fdb.relocate(mac(1), there, later);
        assert_eq!(fdb.lookup(mac(1), later), Some(there));
    }

    #[test]
    fn a_lost_peer_takes_its_macs_along_and_no_others() {
        let fdb = Fdb::new(7);
        for last in 0..1000 {
            fdb.learn(
                mac(last),
                Port::Peer(PeerSlot(u16::try_from(last % 2).unwrap())),
                NOW,
            );
        }
        fdb.flush(PeerSlot(1));
        for last in 0..1000 {
            let expected = (last % 2 == 0).then_some(Port::Peer(PeerSlot(0)));
            assert_eq!(fdb.lookup(mac(last), NOW), expected, "{last}");
        }
    }

    #[test]
    fn a_flood_of_macs_stays_in_bounds_and_spares_who_keeps_talking() {
        let fdb = Fdb::new(7);
        let talker = MacAddr([2, 9, 9, 9, 9, 9]);
        for last in 0..1_000_000 {
            let now = NOW + Duration::from_secs(u64::from(last) / 1000);
            fdb.learn(mac(last), Port::Peer(PeerSlot(1)), now);
            if last % 1000 == 0 {
                fdb.learn(talker, Port::Local, now);
                assert_eq!(fdb.lookup(talker, now), Some(Port::Local));
            }
        }
        let held = fdb
            .buckets
            .iter()
            .flat_map(|bucket| &bucket.words)
            .filter(|w| w.load(Ordering::Relaxed) != 0);
        assert!(held.count() <= FDB_ENTRIES_MAX);
    }

    #[test]
    fn the_largest_slot_fits() {
        let port = Port::Peer(PeerSlot(
            u16::try_from(crate::config::PEERS_MAX - 1).unwrap(),
        ));
        assert_eq!(Port::from_code(port.code()), Some(port));
    }
}

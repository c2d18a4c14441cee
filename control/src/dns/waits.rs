//! Who may wait for an upstream: when all places are taken, whoever has many gives way to whoever has few.
//!
//! ```text
//!  take ─┬─ a place is free ──────────────────────────────────────────► place
//!        ├─ somebody else has more than we would, and many ───────────► place, and its oldest has to leave
//!        ├─ we would have many ───────────────────────────────────────► none
//!        └─ all have few ─┬─ the oldest of all has waited for long ───► place, and that one has to leave
//!                         └─ not yet ─────────────────────────────────► none
//! ```
//!
//! Whoever has the most gets nothing more, which costs nothing: a client that floods us does not make us begin and end a
//! question to an upstream for each of its own. Few are all alike (`config::DNS_FORWARDS_FEW`): a program asks for two
//! kinds of address at once, while somebody with a thousand addresses has one wait with each. Called by
//! `driver::dns::upstreams`. Bounds: `config::DNS_FORWARDS_MAX`, `config::DNS_FORWARD_PATIENCE`.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use super::ranks::Ranks;
use crate::config::{DNS_FORWARD_PATIENCE, DNS_FORWARDS_FEW, DNS_FORWARDS_MAX};

/// One wait; no two ever have the same, and an older one has a lower number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaitId(u64);

/// All waits.
#[derive(Debug)]
pub struct Waits {
    waiting: BTreeMap<WaitId, (IpAddr, Instant)>,
    ranks: Ranks<WaitId>,
    next: u64,
}

impl Default for Waits {
    fn default() -> Self {
        Self {
            waiting: BTreeMap::new(),
            ranks: Ranks::new(DNS_FORWARDS_FEW),
            next: 0,
        }
    }
}

impl Waits {
    /// Gives a client a place, perhaps that of another wait, which is to end now and has none any more. `None` if it has
    /// to do without.
    pub fn take(&mut self, client: IpAddr, now: Instant) -> Option<(WaitId, Option<WaitId>)> {
        let mut evicted = None;
        if self.waiting.len() >= DNS_FORWARDS_MAX {
            let own = self.ranks.count(client) + 1;
            let oldest = self.to_leave(own.max(DNS_FORWARDS_FEW), now)?;
            self.leave(oldest);
            evicted = Some(oldest);
        }
        let id = WaitId(self.next);
        self.next += 1;
        self.waiting.insert(id, (client, now));
        self.ranks.insert(client, id);
        Some((id, evicted))
    }

    /// The wait has ended.
    pub fn leave(&mut self, id: WaitId) {
        if let Some((client, _)) = self.waiting.remove(&id) {
            self.ranks.remove(client, id);
        }
    }

    /// Whose place somebody gets who would have `own`, at least few.
    fn to_leave(&self, own: usize, now: Instant) -> Option<WaitId> {
        let (most, Reverse(oldest)) = self.ranks.last()?;
        if most > own {
            return Some(oldest);
        }
        let (_, since) = self.waiting.get(&oldest)?;
        let has_patience = own <= DNS_FORWARDS_FEW && now >= *since + DNS_FORWARD_PATIENCE;
        has_patience.then_some(oldest)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const HONEST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 32, 0, 9));

    #[expect(clippy::disallowed_methods, reason = "the first instant of a test")]
    fn start() -> Instant {
        Instant::now()
    }

    fn hostile(number: usize) -> IpAddr {
        let [high, low] = u16::try_from(number).unwrap().to_be_bytes();
        IpAddr::from([10, 33, high, low])
    }

    /// All places, taken by so many addresses in turn.
    fn full(addresses: usize, now: Instant) -> Waits {
        let mut waits = Waits::default();
        for number in 0..DNS_FORWARDS_MAX {
            let taken = waits.take(hostile(number % addresses), now);
            assert!(taken.is_some_and(|(_, evicted)| evicted.is_none()));
        }
        waits
    }

    #[test]
    fn whoever_has_many_gets_no_more_and_gives_way() {
        let now = start();
        for addresses in [1, 40, 100] {
            let mut waits = full(addresses, now);
            let later = now + Duration::from_secs(4);
            assert_eq!(waits.take(hostile(0), later), None);
            for _ in 0..DNS_FORWARDS_FEW {
                let (_, evicted) = waits.take(HONEST, now).unwrap();
                assert!(evicted.is_some());
            }
            assert_eq!(waits.waiting.len(), DNS_FORWARDS_MAX);
        }
    }

    #[test]
    fn where_all_have_few_whoever_has_waited_long_gives_way() {
        let now = start();
        let mut waits = full(DNS_FORWARDS_MAX, now);
        assert_eq!(waits.take(HONEST, now), None);
        let later = now + DNS_FORWARD_PATIENCE;
        let (first, evicted) = waits.take(HONEST, later).unwrap();
        assert_eq!(evicted, Some(WaitId(0)), "the oldest");
        let (second, _) = waits.take(HONEST, later).unwrap();
        // Others that have as few do not take it away again, however many they are.
        for number in 0..2000 {
            waits.take(hostile(2000 + number), later);
        }
        assert!(
            [first, second]
                .iter()
                .all(|id| waits.waiting.contains_key(id))
        );
        waits.leave(first);
        assert!(waits.take(hostile(9999), later).is_some());
    }

    proptest! {
        /// What a client with few waits for is not taken away before its time, whatever others do.
        #[test]
        fn few_waits_are_left_alone(
            addresses in 1..2000_usize,
            steps in proptest::collection::vec((0..5000_usize, any::<bool>()), 0..3000),
        ) {
            let now = start();
            let mut waits = full(addresses, now);
            let own = waits.take(HONEST, now + DNS_FORWARD_PATIENCE);
            let (own, _) = own.expect("there is a place for it");
            let later = now + DNS_FORWARD_PATIENCE + DNS_FORWARD_PATIENCE / 2;
            for (number, leaves) in steps {
                if leaves {
                    waits.leave(WaitId(number as u64));
                } else {
                    waits.take(hostile(number), later);
                }
                if number as u64 == own.0 && leaves {
                    break;
                }
                prop_assert!(waits.waiting.contains_key(&own));
                prop_assert!(waits.waiting.len() <= DNS_FORWARDS_MAX);
                let counted = waits.waiting.values().filter(|(client, _)| *client == HONEST);
                prop_assert_eq!(counted.count(), waits.ranks.count(HONEST));
            }
        }
    }
}

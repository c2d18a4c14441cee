//! Who may have a TCP connection: when all seats are taken, whoever has the most gives one up.
//!
//! ```text
//!  take ─┬─ its client has its own limit ────────────────► none
//!        ├─ a seat is free ──────────────────────────────► seat
//!        └─ all are taken ─► of the client with the most: ► seat, and who has to leave
//!                            the one idle longest, else the one busy longest
//! ```
//!
//! The newcomer counts as one of its client's, so whoever has few gets in and whoever has many takes from itself,
//! however many addresses it has. Called by `driver::dns::tcp`. Bounds: `config::DNS_CONNECTIONS_MAX`,
//! `config::DNS_CONNECTIONS_PER_CLIENT_MAX`.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::config::{DNS_CONNECTIONS_MAX, DNS_CONNECTIONS_PER_CLIENT_MAX};

/// One connection's seat; no two ever have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SeatId(u64);

/// The seats that are taken.
#[derive(Debug, Default)]
pub struct Seats {
    taken: BTreeMap<SeatId, Seat>,
    /// Rises with all that happens: what is older has less.
    turn: u64,
}

#[derive(Debug)]
struct Seat {
    client: IpAddr,
    /// A question was heard in full, and its answer is not written yet.
    is_busy: bool,
    /// When that began or ended.
    since: u64,
}

impl Seats {
    /// Gives a client a seat, perhaps that of another connection, which is to end now and has none any more. `None` if
    /// the client has as many as one may.
    pub fn take(&mut self, client: IpAddr) -> Option<(SeatId, Option<SeatId>)> {
        let mut counts = BTreeMap::<IpAddr, usize>::from([(client, 1)]);
        for seat in self.taken.values() {
            *counts.entry(seat.client).or_default() += 1;
        }
        if counts
            .get(&client)
            .is_some_and(|own| *own > DNS_CONNECTIONS_PER_CLIENT_MAX)
        {
            return None;
        }
        let evicted = (self.taken.len() >= DNS_CONNECTIONS_MAX)
            .then(|| self.least_deserved(&counts))
            .flatten();
        if let Some(evicted) = evicted {
            self.taken.remove(&evicted);
        }
        let since = self.next_turn();
        let id = SeatId(since);
        let seat = Seat {
            client,
            is_busy: false,
            since,
        };
        self.taken.insert(id, seat);
        Some((id, evicted))
    }

    /// A question is being answered, or the next one waited for.
    pub fn set_busy(&mut self, id: SeatId, is_busy: bool) {
        let turn = self.next_turn();
        if let Some(seat) = self.taken.get_mut(&id) {
            seat.is_busy = is_busy;
            seat.since = turn;
        }
    }

    /// The connection has ended.
    pub fn leave(&mut self, id: SeatId) {
        self.taken.remove(&id);
    }

    fn least_deserved(&self, counts: &BTreeMap<IpAddr, usize>) -> Option<SeatId> {
        let rank = |(_, seat): &(&SeatId, &Seat)| {
            let count = counts.get(&seat.client).copied().unwrap_or_default();
            (Reverse(count), seat.is_busy, seat.since)
        };
        self.taken.iter().min_by_key(rank).map(|(id, _)| *id)
    }

    fn next_turn(&mut self) -> u64 {
        self.turn += 1;
        self.turn
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn client(number: u8) -> IpAddr {
        IpAddr::from([10, 32, 0, number])
    }

    /// So many connections of each of these clients in turn.
    fn full(seats: &mut Seats, clients: std::ops::Range<u8>) -> Vec<SeatId> {
        let clients = clients.cycle().take(DNS_CONNECTIONS_MAX);
        let taken = clients.map(|number| seats.take(client(number)));
        taken.map(|taken| taken.unwrap().0).collect()
    }

    #[test]
    fn a_client_has_its_limit_while_seats_are_free() {
        let mut seats = Seats::default();
        let mut own = Vec::new();
        while let Some((id, evicted)) = seats.take(client(1)) {
            assert_eq!(evicted, None);
            own.push(id);
        }
        assert_eq!(own.len(), DNS_CONNECTIONS_PER_CLIENT_MAX);
        assert!(seats.take(client(2)).is_some());
        seats.leave(own[3]);
        assert!(seats.take(client(1)).is_some());
        assert!(seats.take(client(1)).is_none());
    }

    #[test]
    fn the_client_with_the_most_gives_up_what_is_idle_longest() {
        let mut seats = Seats::default();
        // Eight have the limit each.
        let ids = full(&mut seats, 1..9);
        seats.set_busy(ids[0], true);
        seats.set_busy(ids[1], true);
        seats.set_busy(ids[1], false);

        let (first, evicted) = seats.take(client(99)).unwrap();
        assert_eq!(evicted, Some(ids[2]));
        let evictions = (0..5).map(|_| seats.take(client(99)).unwrap().1.unwrap());
        let evictions = evictions.collect::<Vec<_>>();
        // The third has given: the others are asked first.
        assert_eq!(evictions, [ids[3], ids[4], ids[5], ids[6], ids[7]]);
        seats.leave(first);
        assert_eq!(seats.take(client(99)).unwrap().1, None);
    }

    #[test]
    fn whoever_has_the_most_takes_from_itself() {
        let mut seats = Seats::default();
        // One each, and the oldest wants a second.
        let ids = full(&mut seats, 0..128);
        let (_, evicted) = seats.take(client(0)).unwrap();
        assert_eq!(evicted, Some(ids[0]));
    }

    #[test]
    fn where_all_are_busy_the_longest_gives_way() {
        let mut seats = Seats::default();
        let ids = full(&mut seats, 1..9);
        for id in ids.iter().rev() {
            seats.set_busy(*id, true);
        }
        assert_eq!(seats.take(client(99)).unwrap().1, ids.last().copied());
    }

    proptest! {
        /// One container with many addresses against one client with a few connections, whatever either does.
        #[test]
        fn a_client_with_few_gets_in_and_stays(
            addresses in 2..60u8,
            steps in proptest::collection::vec((0..4u8, any::<u8>(), any::<bool>()), 0..600),
        ) {
            let mut seats = Seats::default();
            let honest = client(200);
            let mut hostile = full(&mut seats, 0..addresses.max(8));
            let (own, _) = seats.take(honest).expect("there is a seat for it");
            for (step, number, is_busy) in steps {
                match step {
                    0 => hostile.extend(seats.take(client(number % addresses)).map(|(id, _)| id)),
                    1 => seats.set_busy(hostile[usize::from(number) % hostile.len()], is_busy),
                    2 => seats.leave(hostile[usize::from(number) % hostile.len()]),
                    _ => seats.set_busy(own, is_busy),
                }
                prop_assert!(seats.taken.contains_key(&own), "others have two at least");
                prop_assert!(seats.taken.len() <= DNS_CONNECTIONS_MAX);
            }
        }
    }
}

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
use std::collections::HashMap;
use std::net::IpAddr;

use super::ranks::Ranks;
use crate::config::{DNS_CONNECTIONS_MAX, DNS_CONNECTIONS_PER_CLIENT_MAX};

/// One connection's seat; no two ever have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeatId(u64);

/// The seats that are taken.
#[derive(Debug)]
pub struct Seats {
    taken: HashMap<SeatId, Seat>,
    ranks: Ranks<Place>,
    /// Rises with all that happens: what is older has less.
    turn: u64,
}

impl Default for Seats {
    fn default() -> Self {
        Self {
            taken: HashMap::new(),
            // Even one counts.
            ranks: Ranks::new(0),
            turn: 0,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Seat {
    client: IpAddr,
    place: Place,
}

/// Where a seat stands among those of its client: the first is given up first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// A question was heard in full, and its answer is not written yet.
    is_busy: bool,
    /// When that began or ended.
    since: u64,
    id: SeatId,
}

impl Seats {
    /// Gives a client a seat, perhaps that of another, which is to end now and has none any more. `None` if the client
    /// has as many as one may.
    pub fn take(&mut self, client: IpAddr) -> Option<(SeatId, Option<SeatId>)> {
        if self.ranks.count(client) >= DNS_CONNECTIONS_PER_CLIENT_MAX {
            return None;
        }
        let evicted = (self.taken.len() >= DNS_CONNECTIONS_MAX)
            .then(|| self.least_deserved(client))
            .flatten();
        if let Some(evicted) = evicted {
            self.leave(evicted);
        }
        let since = self.next_turn();
        let id = SeatId(since);
        let place = Place {
            is_busy: false,
            since,
            id,
        };
        self.taken.insert(id, Seat { client, place });
        self.ranks.insert(client, place);
        Some((id, evicted))
    }

    /// A question is being answered, or the next one waited for.
    pub fn set_busy(&mut self, id: SeatId, is_busy: bool) {
        let since = self.next_turn();
        let Some(seat) = self.taken.get_mut(&id) else {
            return;
        };
        let (client, before) = (seat.client, seat.place);
        let place = Place { is_busy, since, id };
        seat.place = place;
        self.ranks.remove(client, before);
        self.ranks.insert(client, place);
    }

    /// The seat is free again.
    pub fn leave(&mut self, id: SeatId) {
        if let Some(Seat { client, place }) = self.taken.remove(&id) {
            self.ranks.remove(client, place);
        }
    }

    /// The newcomer counts as one more of its client's, and is not asked to leave itself.
    fn least_deserved(&self, newcomer: IpAddr) -> Option<SeatId> {
        let own = self.ranks.of(newcomer);
        let own = own.map(|(count, first)| (count + 1, first));
        let (_, Reverse(place)) = own.into_iter().chain(self.ranks.last()).max()?;
        Some(place.id)
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

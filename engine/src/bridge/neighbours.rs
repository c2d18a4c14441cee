//! Known attachments: which MAC has an address, and on which host a MAC lives.
//!
//! Published whole by control, read by every worker; a snapshot never changes. Two sorted lists, so that a
//! thousand hosts' attachments lie in a few pages and a look-up is a binary search; it happens for flooded
//! frames and for MACs that are new or moved, never for a frame of a known flow.
//!
//! Bounds: `config::NEIGHBOURS_MAX`; more are left out, which costs floods.

use std::net::IpAddr;

use crate::bridge::Port;
use crate::command::PeerSlot;
use crate::config::NEIGHBOURS_MAX;
use crate::wire::ethernet::MacAddr;

/// One attachment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// Its MAC.
    pub mac: MacAddr,
    /// The host that it is on; `None` is this one.
    pub slot: Option<PeerSlot>,
    /// How often it moved: where two hosts claim a MAC, the larger number wins.
    pub moves: u64,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// Where control says that a MAC lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Home {
    /// The side of the bridge.
    pub port: Port,
    /// How often it moved there.
    pub moves: u64,
}

/// One snapshot of the attachments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NeighbourTable {
    macs: Vec<(MacAddr, Home)>,
    addresses: Vec<(IpAddr, MacAddr)>,
}

impl NeighbourTable {
    /// A table of these attachments. Of two with one MAC the one that moved more often counts, the first one
    /// given if neither did; of two with one address likewise.
    pub fn new(neighbours: impl IntoIterator<Item = Neighbour>) -> Self {
        let mut neighbours: Vec<_> = neighbours.into_iter().take(NEIGHBOURS_MAX).collect();
        // Stable: those given first stay first.
        neighbours.sort_by_key(|neighbour| std::cmp::Reverse(neighbour.moves));
        let mut macs: Vec<_> = neighbours
            .iter()
            .map(|neighbour| {
                let port = neighbour.slot.map_or(Port::Local, Port::Peer);
                let moves = neighbour.moves;
                (neighbour.mac, Home { port, moves })
            })
            .collect();
        macs.sort_by_key(|(mac, _)| *mac);
        macs.dedup_by_key(|(mac, _)| *mac);
        let mut addresses: Vec<_> = neighbours
            .iter()
            .flat_map(|neighbour| {
                let mac = neighbour.mac;
                neighbour.addresses.iter().map(move |ip| (*ip, mac))
            })
            .take(NEIGHBOURS_MAX)
            .collect();
        addresses.sort_by_key(|(address, _)| *address);
        addresses.dedup_by_key(|(address, _)| *address);
        Self { macs, addresses }
    }

    /// The MAC that has an address.
    pub fn mac_of(&self, address: IpAddr) -> Option<MacAddr> {
        let at = self
            .addresses
            .binary_search_by_key(&address, |(address, _)| *address)
            .ok()?;
        self.addresses.get(at).map(|(_, mac)| *mac)
    }

    /// Where a MAC lives.
    pub fn home_of(&self, mac: MacAddr) -> Option<Home> {
        let at = self.macs.binary_search_by_key(&mac, |(mac, _)| *mac).ok()?;
        self.macs.get(at).map(|(_, home)| *home)
    }

    /// The MACs that this table has somewhere else than `before` had them, or that are new in it.
    pub fn moved_since<'a>(
        &'a self,
        before: &'a Self,
    ) -> impl Iterator<Item = (MacAddr, Port)> + 'a {
        self.macs.iter().filter_map(|(mac, home)| {
            let was = before.home_of(*mac).map(|home| home.port);
            (was != Some(home.port)).then_some((*mac, home.port))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn neighbour(last: u8, slot: Option<u16>, moves: u64) -> Neighbour {
        Neighbour {
            mac: MacAddr([2, 0, 0, 0, 0, last]),
            slot: slot.map(PeerSlot),
            moves,
            addresses: vec![IpAddr::from([10, 32, 0, last])],
        }
    }

    #[test]
    fn addresses_lead_to_macs_and_macs_to_hosts() {
        let table = NeighbourTable::new([neighbour(9, None, 0), neighbour(1, Some(4), 7)]);
        let mac = table.mac_of(IpAddr::from([10, 32, 0, 1])).unwrap();
        let port = Port::Peer(PeerSlot(4));
        assert_eq!(table.home_of(mac), Some(Home { port, moves: 7 }));
        assert_eq!(
            table
                .home_of(MacAddr([2, 0, 0, 0, 0, 9]))
                .map(|home| home.port),
            Some(Port::Local)
        );
        assert_eq!(table.mac_of(IpAddr::from([10, 32, 0, 2])), None);
        assert_eq!(table.home_of(MacAddr([2, 0, 0, 0, 0, 2])), None);
    }

    #[test]
    fn of_two_claims_the_one_that_moved_more_often_counts() {
        for order in [false, true] {
            let mut claims = vec![neighbour(1, Some(4), 1), neighbour(1, None, 2)];
            if order {
                claims.reverse();
            }
            let table = NeighbourTable::new(claims);
            assert_eq!(
                table.home_of(MacAddr([2, 0, 0, 0, 0, 1])),
                Some(Home {
                    port: Port::Local,
                    moves: 2
                })
            );
        }
    }

    #[test]
    fn only_what_moved_is_named() {
        let before = NeighbourTable::new([neighbour(1, Some(4), 0), neighbour(2, Some(4), 0)]);
        let after = NeighbourTable::new([
            neighbour(1, Some(4), 3),
            neighbour(2, None, 1),
            neighbour(3, Some(5), 0),
        ]);
        let moved: Vec<_> = after.moved_since(&before).collect();
        assert_eq!(
            moved,
            [
                (MacAddr([2, 0, 0, 0, 0, 2]), Port::Local),
                (MacAddr([2, 0, 0, 0, 0, 3]), Port::Peer(PeerSlot(5))),
            ]
        );
    }

    #[test]
    fn the_table_is_bounded() {
        let many = (0..=u32::try_from(NEIGHBOURS_MAX).unwrap()).map(|number| {
            let [_, a, b, c] = number.to_be_bytes();
            Neighbour {
                mac: MacAddr([2, 0, 0, a, b, c]),
                ..neighbour(0, None, 0)
            }
        });
        assert_eq!(NeighbourTable::new(many).macs.len(), NEIGHBOURS_MAX);
    }
}

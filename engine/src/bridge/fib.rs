//! FIB: which way leads to each peer, who takes part in a flood, and who copies it for whom.
//!
//! Published whole by control, read by every worker; a snapshot never changes.
//!
//! ```text
//!  routes   peer ─► Direct | Via(neighbour)        also for RELAY datagrams of others, by label
//!  short    for those of others that have come too far for the way in `routes`
//!  flood    ≤ 64 members: one sealed copy for each
//!  group    beyond: our children, and for each other source whom its copies come from and go on to
//! ```

use std::collections::BTreeMap;

use crate::command::PeerSlot;

/// How to reach a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextHop {
    /// On a path of our own.
    Direct,
    /// Through another peer, with which we have a session and a direct path.
    Via(PeerSlot),
}

/// One snapshot of the routes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fib {
    /// Rises with each snapshot.
    pub generation: u64,
    /// The way to each known peer.
    pub routes: BTreeMap<PeerSlot, NextHop>,
    /// Ways that cross fewer links than the relay route of a peer: each is dearer and shorter than the one before.
    pub short: BTreeMap<PeerSlot, Vec<ShortWay>>,
    /// Largest datagram that crosses every link of a relay route, where control knows it; our own link's
    /// limit is minded in any case.
    pub route_max: BTreeMap<PeerSlot, u16>,
    /// Who gets a sealed copy of a frame that a local container floods; not used while `group` is set and
    /// we have a group key.
    pub flood: Vec<PeerSlot>,
    /// The trees, when there are more than [`crate::config::FLOOD_COPIES_MAX`] members.
    pub group: Option<GroupFib>,
}

impl Fib {
    /// The way that a datagram of others takes which may be sent `left` times more, if `way` is the usual one.
    pub fn way_within(
        &self,
        destination: PeerSlot,
        left: u8,
        way: Option<NextHop>,
    ) -> Option<NextHop> {
        let short = self.short.get(&destination).map_or(&[][..], Vec::as_slice);
        let fits = short.iter().rev().find(|short| left < short.below);
        fits.map(|short| short.next).or(way)
    }
}

/// A way for datagrams of others that have few transmissions left; the last one that applies is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShortWay {
    /// It applies to those with fewer transmissions left than this.
    pub below: u8,
    /// Where they go.
    pub next: NextHop,
}

/// The trees along which GROUP datagrams are copied; every arrow of them is a direct path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupFib {
    /// To whom we send what our own containers flood.
    pub children: Vec<PeerSlot>,
    /// Largest datagram that crosses every arrow of our own tree, where control knows it; else 0.
    pub datagram_max: u16,
    /// Our place in the tree of each other source.
    pub sources: BTreeMap<PeerSlot, Branch>,
}

/// Our place in one source's tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branch {
    /// The only peer that its datagrams are taken from.
    pub parent: PeerSlot,
    /// To whom they are passed on.
    pub children: Vec<PeerSlot>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_far_takes_a_way_that_it_can_still_go() {
        let via = |slot| Some(NextHop::Via(PeerSlot(slot)));
        let [usual, shorter, shortest] = [1, 2, 3].map(via);
        let ways = [(8, shorter), (5, shortest)].map(|(below, next)| ShortWay {
            below,
            next: next.expect("a relay"),
        });
        let fib = Fib {
            short: BTreeMap::from([(PeerSlot(9), ways.to_vec())]),
            ..Fib::default()
        };
        let taken = |left| fib.way_within(PeerSlot(9), left, usual);
        assert_eq!(
            [8, 7, 5, 4, 1].map(taken),
            [usual, shorter, shorter, shortest, shortest]
        );
        assert_eq!(
            fib.way_within(PeerSlot(8), 1, usual),
            usual,
            "others have one way"
        );
        assert_eq!(fib.way_within(PeerSlot(8), 1, None), None);
    }
}

//! FIB: which way leads to each peer, who takes part in a flood, and who copies it for whom.
//!
//! Published whole by control, read by every worker; a snapshot never changes.
//!
//! ```text
//!  routes   peer ─► Direct | Via(neighbour)        also for RELAY datagrams of others, by label
//!  flood    ≤ 64 members: one sealed copy for each
//!  group    beyond: our children, and for each other source whom its copies come from and go on to
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

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
    /// Largest datagram that crosses every link of a relay route, where control knows it; our own link's
    /// limit is minded in any case.
    pub route_max: BTreeMap<PeerSlot, u16>,
    /// Who gets a sealed copy of a frame that a local container floods; not used while `group` is set and
    /// we have a group key.
    pub flood: Vec<PeerSlot>,
    /// The trees, when there are more than [`crate::config::FLOOD_COPIES_MAX`] members; shared with other snapshots.
    pub group: Option<Arc<GroupFib>>,
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

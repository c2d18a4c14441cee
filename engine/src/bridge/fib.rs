//! FIB: which way leads to each peer, and who takes part in a flood.
//!
//! Published whole by control, read by every worker; a snapshot never changes.

use std::collections::BTreeMap;

use crate::command::PeerSlot;

/// How to reach a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextHop {
    /// On a path of our own.
    Direct,
    /// Through another peer, that has a session with us.
    Via(PeerSlot),
}

/// One snapshot of the routes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fib {
    /// Rises with each snapshot.
    pub generation: u64,
    /// The way to each known peer.
    pub routes: BTreeMap<PeerSlot, NextHop>,
    /// Who gets a copy of a frame that a local container floods.
    pub flood: Vec<PeerSlot>,
}

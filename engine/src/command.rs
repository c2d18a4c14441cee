//! What control tells the engine, and what the engine reports.
//!
//! ```text
//!  control ── Command ──► every worker (applied between two batches, in order)
//!  control ◄── Event ──── any worker
//! ```
//!
//! The engine knows a peer only by its [`PeerSlot`], a small number that control assigns.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::bridge::Fib;
use crate::path::PathStatus;
use crate::session::CipherSuite;

/// A peer's place in the engine's tables; below [`crate::config::PEERS_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerSlot(pub u16);

/// 32 secret bytes, wiped when dropped and never shown.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct SecretKey(pub [u8; 32]);

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

/// One epoch of a session, as the handshake yields it.
#[derive(Debug, Clone)]
pub struct SessionKeys {
    /// The peer at the other end.
    pub slot: PeerSlot,
    /// What the peer writes into its datagrams to us; random, unique among our live epochs.
    pub local_index: u32,
    /// What we write into our datagrams to the peer.
    pub remote_index: u32,
    /// The data cipher that the handshake agreed on.
    pub suite: CipherSuite,
    /// Key of our direction; each lane derives its own from it.
    pub send_key: SecretKey,
    /// Key of the peer's direction.
    pub recv_key: SecretKey,
    /// How many lanes the peer sends on, 1 to [`crate::config::LANES_MAX`].
    pub peer_lanes: u8,
}

/// An order from control; each worker applies each command once, in the order given.
#[derive(Debug, Clone)]
pub enum Command {
    /// A peer exists from now on; frames for it are staged until a session is active.
    AddPeer {
        /// The peer's slot, free until now.
        slot: PeerSlot,
    },
    /// Forget the peer, its sessions, paths and FDB entries.
    RemovePeer {
        /// The peer's slot.
        slot: PeerSlot,
    },
    /// Accept datagrams under these keys. Answered by [`Event::SessionInstalled`] once all workers do.
    InstallSession(Arc<SessionKeys>),
    /// Seal under this epoch from now on; the one before stays open for late datagrams.
    ActivateSession {
        /// The peer's slot.
        slot: PeerSlot,
        /// The epoch, by its local index.
        local_index: u32,
    },
    /// Drop one epoch.
    RemoveSession {
        /// The peer's slot.
        slot: PeerSlot,
        /// The epoch, by its local index.
        local_index: u32,
    },
    /// The underlay addresses at which the peer may be found, best guess first.
    SetCandidates {
        /// The peer's slot.
        slot: PeerSlot,
        /// At most [`crate::config::CANDIDATES_MAX`]; more are cut off.
        addresses: Arc<[SocketAddr]>,
    },
    /// Where frames for each peer go, and who takes part in a flood.
    SetFib(Arc<Fib>),
    /// Carry an opaque message to the peer inside its live session (best effort, at most
    /// [`crate::config::MESSAGE_LEN_MAX`] bytes).
    SendMessage {
        /// The peer's slot.
        slot: PeerSlot,
        /// The message.
        message: Bytes,
    },
    /// Start or stop measuring towards a peer.
    Bench {
        /// The peer's slot.
        slot: PeerSlot,
        /// What to send; `None` stops.
        load: Option<BenchLoad>,
    },
}

/// A synthetic load from memory: through `stage`, `seal`, `udp_tx`, the peer's `udp_rx` and `open`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BenchLoad {
    /// As many frames of this many bytes as the engine can send.
    Flood {
        /// Ethernet frame length in bytes.
        frame_len: u16,
    },
    /// One frame at a time, the next when the echo of the last is back.
    PingPong,
    /// Nothing but the question how much of the last load arrived.
    Count,
}

/// A report from the engine.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Every worker accepts datagrams of this epoch.
    SessionInstalled {
        /// The peer's slot.
        slot: PeerSlot,
        /// The epoch.
        local_index: u32,
    },
    /// The first datagram of this epoch opened: the peer has the keys.
    SessionConfirmed {
        /// The peer's slot.
        slot: PeerSlot,
        /// The epoch.
        local_index: u32,
    },
    /// The active epoch reached a soft limit of bytes, packets or failed opens (time is control's).
    RekeyDue {
        /// The peer's slot.
        slot: PeerSlot,
        /// The epoch.
        local_index: u32,
    },
    /// Frames wait for a session with this peer; at most once a second per peer.
    SessionWanted {
        /// The peer's slot.
        slot: PeerSlot,
    },
    /// The peer's path came up, moved, or its figures changed notably.
    PathUp {
        /// The peer's slot.
        slot: PeerSlot,
        /// The path now in use.
        path: PathStatus,
    },
    /// No path to the peer answers any more.
    PathDown {
        /// The peer's slot.
        slot: PeerSlot,
    },
    /// A message that the peer sent with [`Command::SendMessage`].
    Message {
        /// The peer's slot.
        slot: PeerSlot,
        /// The message.
        message: Bytes,
    },
}

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

use crate::bridge::{Fib, NeighbourTable};
use crate::config::{FLOOD_PER_MAC_MAX, FLOOD_PER_TAP_MAX};
use crate::path::PathStatus;
use crate::session::CipherSuite;
use crate::wire::ethernet::MacAddr;

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

/// The key under which one source's floods are sealed once for all members.
#[derive(Debug, Clone)]
pub struct GroupKey {
    /// The source; `None` is this host.
    pub slot: Option<PeerSlot>,
    /// The source's number for the key; larger is newer.
    pub epoch: u32,
    /// The data cipher, one that every member has.
    pub suite: CipherSuite,
    /// Random, the source's own; each lane derives its own from it.
    pub key: SecretKey,
    /// How many lanes the source sends on, 1 to [`crate::config::LANES_MAX`].
    pub lanes: u8,
}

/// What frames may do between us and one peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Flow {
    /// Its frames are dropped, and those for it wait.
    Shut,
    /// Its frames are taken; those for it wait.
    Heard,
    /// Both ways.
    #[default]
    Open,
}

/// What the engine may do for others, and how much of a storm it lets out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Whether we pass on datagrams of others; false with `--no-relay`.
    pub relay: bool,
    /// Frames a second that one MAC may have flooded.
    pub flood_per_mac: u32,
    /// Frames a second that may be flooded in all.
    pub flood_per_tap: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            relay: true,
            flood_per_mac: FLOOD_PER_MAC_MAX,
            flood_per_tap: FLOOD_PER_TAP_MAX,
        }
    }
}

/// An order from control; each worker applies each command once, in the order given.
#[derive(Debug, Clone)]
pub enum Command {
    /// Our own name in RELAY and GROUP headers; given once, before the first peer.
    SetLabel([u8; 8]),
    /// A peer exists from now on; frames for it are staged until a session is active.
    AddPeer {
        /// The peer's slot, free until now.
        slot: PeerSlot,
        /// Its name in RELAY and GROUP headers: the first 8 bytes of its PeerId. Unique.
        label: [u8; 8],
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
    /// The attachments that are known, ours and others': their addresses are answered for, their MACs stay
    /// where they belong.
    SetNeighbours(Arc<NeighbourTable>),
    /// IPv4 addresses, sorted, from which nothing leaves: they are in use here and belong to another host.
    SetDisputed(Arc<[[u8; 4]]>),
    /// What frames may do between us and a peer; both ways unless this says otherwise. A flood that is sealed once
    /// for all leaves all the same: each of its receivers judges for itself.
    SetFlow {
        /// The peer's slot.
        slot: PeerSlot,
        /// From now on.
        flow: Flow,
    },
    /// What we do for others, and how much of a storm we let out.
    SetLimits(Limits),
    /// Accept floods under this key, or seal our own under it from now on. A source's key before this one is
    /// kept for late datagrams, older ones go.
    SetGroupKey(Arc<GroupKey>),
    /// Drop one group key.
    RemoveGroupKey {
        /// The source; `None` is this host.
        slot: Option<PeerSlot>,
        /// The source's number for the key.
        epoch: u32,
    },
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
    /// Our side floods to more members than we seal for one by one, and we have no group key; at most once in
    /// [`crate::config::GROUP_KEY_WANTED_INTERVAL`] and worker.
    GroupKeyWanted,
    /// Our group key is used up to a soft limit: hand out a new one.
    GroupKeyDue {
        /// The key's number.
        epoch: u32,
    },
    /// What our own side sends comes back by this peer, or the other way round: two hosts are joined by some
    /// LAN, too. Its MAC is not learned and floods towards the peer rest; at most once in
    /// [`crate::config::LOOP_NOTICE_INTERVAL`].
    LoopSuspected {
        /// The peer at the other side.
        slot: PeerSlot,
        /// Whose frame it was.
        mac: MacAddr,
    },
    /// The peer sees our datagrams come from this address.
    Observed {
        /// The peer's slot.
        slot: PeerSlot,
        /// Our address, as the peer sees it.
        address: SocketAddr,
    },
    /// A message that the peer sent with [`Command::SendMessage`].
    Message {
        /// The peer's slot.
        slot: PeerSlot,
        /// The message.
        message: Bytes,
    },
}

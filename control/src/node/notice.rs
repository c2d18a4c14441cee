//! What the node says to the log, typed; the driver writes it down.

use std::net::SocketAddr;

use weft_engine::wire::ethernet::MacAddr;

use crate::peer::{Nickname, PeerId, PeerName};

/// One line for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A peer has its first link.
    LinkUp {
        /// Its shown name.
        name: PeerName,
        /// Its nickname.
        nickname: Nickname,
        /// Where it is.
        address: SocketAddr,
        /// True if we dialled.
        outbound: bool,
    },
    /// A peer has lost its last link.
    LinkDown {
        /// Its shown name.
        name: PeerName,
        /// Its nickname.
        nickname: Nickname,
        /// Why.
        reason: String,
    },
    /// A connection did not become a link.
    LinkFailed {
        /// Where to or from.
        address: SocketAddr,
        /// True if we dialled.
        outbound: bool,
        /// Why.
        reason: String,
    },
    /// So many more connections to us did not become links, and were not said one by one.
    LinksFailedUnsaid {
        /// How many.
        count: u64,
    },
    /// A target is this host.
    SelfConnection {
        /// Its address.
        address: SocketAddr,
    },
    /// Two hosts run with one identity key.
    ClonedIdentity {
        /// The identity.
        peer_id: PeerId,
        /// Where the second one is.
        address: SocketAddr,
        /// True if it is ours.
        ours: bool,
    },
    /// Two hosts run with one identity key, as their records say.
    CloneHeard {
        /// The identity.
        peer_id: PeerId,
        /// Its shown name.
        name: PeerName,
        /// Its nickname; of one of the two.
        nickname: Nickname,
        /// True if it is ours.
        ours: bool,
    },
    /// A newcomer has the name or the nickname of another peer.
    Namesakes {
        /// The shown name, if that is the same.
        name: Option<PeerName>,
        /// The newcomer's nickname.
        nickname: Nickname,
        /// The newcomer and the other.
        peers: [PeerId; 2],
    },
    /// A newcomer's containers have another MTU than ours.
    OtherMtu {
        /// Its shown name.
        name: PeerName,
        /// Its nickname.
        nickname: Nickname,
        /// Its MTU in bytes.
        theirs: u16,
        /// Ours.
        ours: u16,
    },
    /// A peer's session is active for the first time.
    SessionUp {
        /// The peer's shown name.
        name: PeerName,
        /// Its data cipher.
        cipher: &'static str,
    },
    /// A peer's last epoch is gone.
    SessionDown {
        /// The peer's shown name.
        name: PeerName,
    },
    /// A peer came back as a new process.
    PeerRestarted {
        /// The peer's shown name.
        name: PeerName,
    },
    /// Frames of ours come back by a peer, or the other way round: a LAN joins the two hosts, too.
    LoopSuspected {
        /// The peer's shown name.
        name: PeerName,
        /// Whose frame it was.
        mac: MacAddr,
    },
    /// A target at start is none.
    BadTarget {
        /// As given.
        target: String,
        /// What is accepted.
        reason: String,
    },
    /// The list of targets could not be written.
    StoreFailed,
}

//! What goes into the node and what comes out of it.
//!
//! ```text
//!  driver ── Input, now ──► Node::handle
//!  driver ◄── Output ────── Node::poll_output (until None, before the next input)
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use weft_engine::command::{Command, Event, PeerSlot};
use weft_engine::wire::ethernet::MacAddr;

use crate::api::{ApiError, PingReply};
use crate::dns::names::Entry;
use crate::ipam::{IpamInput, IpamOutput};
use crate::link::dialer::TargetAddress;
use crate::node::notice::Notice;
use crate::peer::PeerId;
use crate::secret::Secrets;

/// One TCP connection; the driver numbers them and never uses a number twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// One attempt to connect; the node numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DialId(pub u64);

/// One request of the local API; the driver numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// One write that something waits for; the node numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PersistToken(pub u64);

/// Why a connection is gone that we did not close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseCause {
    /// The peer closed it in order.
    Ended,
    /// It was reset, or a read or write failed.
    Broken,
    /// More than `config::LINK_QUEUE_MAX` bytes waited to be sent.
    QueueFull,
}

/// Why a dial came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DialFailure {
    /// The name has no address, or the resolver failed.
    Unresolved,
    /// Nobody listens there.
    Refused,
    /// No answer within `config::DIAL_TIMEOUT`.
    TimedOut,
    /// No way there, or another error of the host.
    Unreachable,
}

impl fmt::Display for DialFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unresolved => "name does not resolve",
            Self::Refused => "connection refused",
            Self::TimedOut => "no answer",
            Self::Unreachable => "host unreachable",
        })
    }
}

/// Something that happened outside.
#[derive(Debug, Clone)]
pub enum Input {
    /// `deadline()` has come.
    Tick,
    /// A TCP connection is open.
    LinkOpened {
        /// Its number from now on.
        link: LinkId,
        /// The dial that it answers; `None` if the peer dialled.
        dial: Option<DialId>,
        /// The other end.
        remote: SocketAddr,
        /// Our end.
        local: SocketAddr,
    },
    /// Bytes came in, in order, cut anywhere.
    LinkData {
        /// The connection.
        link: LinkId,
        /// The bytes.
        data: Bytes,
    },
    /// A connection that we did not close is gone.
    LinkClosed {
        /// The connection.
        link: LinkId,
        /// Why.
        cause: CloseCause,
    },
    /// A dial came to nothing.
    DialFailed {
        /// The attempt.
        dial: DialId,
        /// Why.
        failure: DialFailure,
    },
    /// The engine reports.
    Engine(Event),
    /// Add targets and dial them at once.
    Connect {
        /// Answered with [`Output::Answer`].
        request: RequestId,
        /// The targets as typed.
        peers: Vec<String>,
        /// Empty the list first.
        replace: bool,
    },
    /// Remove targets.
    Forget {
        /// Answered with [`Output::Answer`].
        request: RequestId,
        /// The targets as they were given.
        peers: Vec<String>,
    },
    /// These secrets are valid from now on.
    Reload(Secrets),
    /// A write is durable, or failed.
    Persisted {
        /// The write.
        token: PersistToken,
        /// False if it failed.
        durable: bool,
    },
    /// Measure the way to a peer.
    Ping {
        /// Answered with [`Output::Pong`].
        request: RequestId,
        /// Name, nickname, PeerId or address.
        peer: String,
    },
    /// Frame bytes to and from peers since each is known; answers [`Output::CountTraffic`].
    Traffic(Vec<(PeerSlot, u64)>),
    /// The addresses of the host's underlay interfaces; given again when they change.
    LocalAddresses(Vec<IpAddr>),
    /// What this host says in DNS from now on: bodies of NAMES records, by part.
    Names(BTreeMap<u16, Vec<u8>>),
    /// What is attached to this host, all of it.
    Attached(Vec<LocalAttachment>),
    /// For the machine that gives addresses.
    Ipam(IpamInput),
    /// Say goodbye to everybody.
    Stop,
}

/// A container, or the host itself, on our bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalAttachment {
    /// Its MAC.
    pub mac: MacAddr,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// What the store is to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// The targets, as typed.
    Targets(Vec<String>),
    /// The incarnation, if it is larger than the one kept: the next process begins above it.
    Incarnation(u64),
}

/// Something that the driver is to do.
#[derive(Debug, Clone)]
pub enum Output {
    /// Connect to a target, its name looked up anew.
    Dial {
        /// Comes back with the outcome.
        dial: DialId,
        /// Where to.
        address: TargetAddress,
    },
    /// Send bytes on a connection.
    Send {
        /// The connection.
        link: LinkId,
        /// The bytes.
        data: Bytes,
    },
    /// Send what waits, then close; no [`Input::LinkClosed`] follows.
    Close {
        /// The connection.
        link: LinkId,
    },
    /// Hand this to the engine.
    Engine(Command),
    /// Write this and say when it is durable.
    Persist {
        /// Comes back with [`Input::Persisted`].
        token: PersistToken,
        /// What to write.
        record: Record,
    },
    /// A request is done.
    Answer {
        /// The request.
        request: RequestId,
        /// Its result.
        result: Result<(), ApiError>,
    },
    /// A ping is answered, or given up.
    Pong {
        /// The request.
        request: RequestId,
        /// What it measured.
        result: Result<PingReply, ApiError>,
    },
    /// Count the frame bytes of all peers and say so with [`Input::Traffic`].
    CountTraffic,
    /// Answer for these names of an origin, and for no others of it.
    Names {
        /// Who says so.
        origin: PeerId,
        /// All that it says; none if it is gone.
        entries: Arc<[Entry]>,
    },
    /// What the machine that gives addresses wants of the driver.
    Ipam(IpamOutput),
    /// Something for the log.
    Notice(Notice),
}

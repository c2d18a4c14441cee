//! Underlay paths to one peer: probing, up or down; RTT, loss, path MTU (RFC 8899).
//!
//! [`Paths`] is a sans-IO machine, driven by worker 0 and by the simulation in its tests. Its probes travel
//! sealed inside the live session, so every message it sees is authentic and fresh, but an attacker on the
//! way may have held it back or sent it on from an address of their own.
//!
//! ```text
//!   control: candidates ──┐           ┌──► Send: seal, pad, to the address given
//!   session: ready, lost ─┤           │
//!   worker:  messages, ───┼─► Paths ──┼──► Up, Changed, Down: what data uses now
//!            heard, sent, │           │
//!            refused      │           └──► Observed: where the peer sees us
//!   clock:   tick ────────┘
//! ```
//!
//! The machine as a whole, and each address of the peer:
//!
//! ```text
//!            session_ready          an address answered (3 times if it went down lately)
//!   Waiting ───────────────► Down ─────────────────────────────────────────────────────► Up
//!      ▲                      ▲                                                          │ │
//!      └── session_lost ──────┼──────────────────────────────────────────────────────────┤ │ Changed: better,
//!                             └─── dead_after without an answer and LOST_MIN probes ─────┘ │ or followed the
//!                                  lost, or a hint and its probes lost; no other address   │ peer, or other
//!                                  is alive                                                └─ address took over
//!
//!   address:  new ── burst, then every 5 s ──► alive ── a probe lost ──► suspect (10 a second)
//!                                               ▲ │                         │
//!                                  an answer ───┘ └── not in use: one in    └──► given up: every second
//!                                                     turn every 5 s             for 5 min, then every 5 s
//! ```
//!
//! * Only an answer to a probe of ours proves that a path carries both ways. What is merely heard proves nothing.
//! * Only an answered challenge moves the path to where the peer sends from; data alone never does.
//! * What goes to an address leaves from where the peer's last word from there hit us (a host may have several
//!   addresses, and a NAT lets only that one pass), until answers fail: then the kernel chooses anew.
//! * What the kernel or ICMP reports only brings probes forward, but for "message too long" of our own host.
//! * A path carries 1200-byte datagrams until larger ones were seen to cross.
//!
//! Bounds: `CANDIDATES_MAX`, `PATHS_LEARNED_MAX`, `PATH_PROBES_MAX`, `MTU_TRIALS_MAX` and `PATH_SENDS_MAX` in
//! [`crate::config`].
#![warn(clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod candidate;
mod machine;
mod message;
mod pmtu;
mod rtt;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

pub use machine::Paths;
pub use message::{PATH_MESSAGE_LEN_MAX, PROBE, PROBE_REPLY, PathMessage};

/// Both ends of what arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// The sender's underlay address.
    pub address: SocketAddr,
    /// Our address that it hit, if that is known.
    pub local: Option<IpAddr>,
}

impl From<SocketAddr> for Arrival {
    fn from(address: SocketAddr) -> Self {
        Self {
            address,
            local: None,
        }
    }
}

/// What is known of the path in use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PathStatus {
    /// The peer's underlay address.
    pub address: SocketAddr,
    /// Smoothed round trip (RFC 6298).
    pub rtt: Duration,
    /// Least round trip of the last half minute or more: what the path takes when nothing waits on it. Ways are chosen
    /// by this one, or they would flee from the load that they carry.
    pub rtt_least: Duration,
    /// Largest UDP payload that crosses, in bytes.
    pub datagram_max: u16,
    /// Share of the recent probes that got no answer, 0 to 1.
    pub loss: f32,
}

/// The pace of one peer's paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathConfig {
    /// Between two probes of the path in use.
    pub probe_interval: Duration,
    /// Between two probes of a path in doubt.
    pub quick_interval: Duration,
    /// Between two probes of an address that never answered.
    pub unverified_interval: Duration,
    /// Between two probes of addresses that are not in use, taken in turn.
    pub alternate_interval: Duration,
    /// Without an answer for this long the path is dead, if enough probes were lost.
    pub dead_after: Duration,
    /// Shortest wait for an answer before its probe counts as lost.
    pub timeout_min: Duration,
    /// Probes that must be lost after a hint that the peer is gone; twice as many on a lossy path.
    pub hint_probes: usize,
    /// For how long a dead address is still probed each [`Self::probe_interval`].
    pub verified_keep: Duration,
    /// For how long the address is kept that the peer, or we, moved away from.
    pub old_address_keep: Duration,
    /// Between two full-size probes while data flows.
    pub mtu_check_busy: Duration,
    /// Between two full-size probes while none does.
    pub mtu_check_idle: Duration,
    /// MTU of the local underlay interface (the largest, if there are several), with IP header, in bytes.
    pub underlay_mtu: u16,
}

impl Default for PathConfig {
    fn default() -> Self {
        Self {
            // With `dead_after`: a black hole is left within 3 s, and one probe a second costs nothing.
            probe_interval: Duration::from_secs(1),
            // Eighteen probes fit between the first loss and `dead_after`: at 30 % loss each way the peer
            // has heard one, and we that it did, but for once in years.
            quick_interval: Duration::from_millis(100),
            // Anyone in the gossip can name an address: it must not become a target.
            unverified_interval: Duration::from_secs(5),
            alternate_interval: Duration::from_secs(5),
            dead_after: Duration::from_secs(3),
            // Above a scheduler's or a radio's hiccup; RFC 6298's second would use up a third of `dead_after`.
            timeout_min: Duration::from_millis(200),
            hint_probes: 3,
            // An outage that a person waits for to end.
            verified_keep: Duration::from_secs(300),
            old_address_keep: Duration::from_secs(10),
            // A path that shrinks is noticed within 3 s and a second more of probes.
            mtu_check_busy: Duration::from_secs(3),
            // The first second of data brings the check in any case; this is most of what an idle path costs.
            mtu_check_idle: Duration::from_secs(30),
            underlay_mtu: 1500,
        }
    }
}

/// What the worker has to do or tell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PathOutput {
    /// Seal a message (kind CONTROL) and send it to an address, which need not be the one in use.
    Send {
        /// Where to.
        to: SocketAddr,
        /// Our address to send it from; the kernel chooses unless given.
        local: Option<IpAddr>,
        /// What.
        message: PathMessage,
        /// Pad with zeros, inside the seal, until the UDP payload has this many bytes, and forbid
        /// fragmentation; `None`: no padding.
        datagram_len: Option<u16>,
    },
    /// Data can flow.
    Up(PathStatus),
    /// Data goes elsewhere, or the figures changed notably.
    Changed(PathStatus),
    /// No address of the peer answers any more.
    Down,
    /// The peer sees our datagrams come from this address.
    Observed(SocketAddr),
}

/// Why the kernel did not send a datagram, or what ICMP said of an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendFailure {
    /// `EMSGSIZE`.
    TooBig,
    /// `ECONNREFUSED`, `EHOSTUNREACH`, `ENETUNREACH` and the like.
    Unreachable,
}

/// Why a message was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It ends too early.
    #[error("path message is cut short")]
    Truncated,
    /// Not a message of ours.
    #[error("path message of unknown kind {0}")]
    UnknownKind(u8),
    /// No peer can be where it came from.
    #[error("path message from an impossible address")]
    ImpossibleSource,
    /// It answers no probe that is remembered for the address it came from.
    #[error("path message answers no probe")]
    UnexpectedReply,
}

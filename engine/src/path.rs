//! Underlay paths to one peer: probing, up or down; RTT, loss, path MTU (RFC 8899).

use std::net::SocketAddr;
use std::time::Duration;

/// What is known of the path in use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PathStatus {
    /// The peer's underlay address.
    pub address: SocketAddr,
    /// Smoothed round trip (RFC 6298).
    pub rtt: Duration,
    /// Largest UDP payload that crosses, in bytes.
    pub datagram_max: u16,
    /// Share of the recent probes that got no answer, 0 to 1.
    pub loss: f32,
}

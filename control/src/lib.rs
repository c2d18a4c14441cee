//! Decides for weft: peers, links, sessions, containers.
//!
//! ```text
//!  cli ──► driver ── Input ──► node ─┬─► link      one TCP connection: preamble, Noise, messages, liveness
//!            ▲                      ├─► link::dialer  targets and back-off
//!            └─────── Output ───────┴─► session   data keys of one peer: handshakes, epochs, rekeys
//! ```
//!
//! `driver` holds every socket, file and clock; the rest is pure and is run in tests by `sim`.

pub mod api;
pub mod config;
pub mod dns;
pub mod driver;
mod endpoints;
pub mod error;
mod fields;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod gossip;
mod group;
pub mod ipam;
mod link;
#[cfg(test)]
mod measured;
mod mesh;
pub mod node;
pub mod peer;
pub mod plugin;
pub mod proxy;
pub mod random;
mod record;
mod routes;
pub mod secret;
mod session;
#[cfg(any(test, feature = "sim"))]
#[allow(
    dead_code,
    reason = "a box of tools: tests and experiments each use some of them"
)]
pub mod sim;
mod topology;

pub use link::dialer::{TargetAddress, TargetError, TargetHost};
pub use session::keys::suite_name;

//! Decides for weft: peers, links, sessions, containers.

pub mod api;
pub mod config;
pub mod driver;
mod fields;
mod link;
pub mod node;
pub mod peer;
pub mod random;
pub mod secret;
mod session;
#[cfg(test)]
mod sim;

pub use link::dialer::{TargetAddress, TargetError, TargetHost};
pub use session::keys::suite_name;

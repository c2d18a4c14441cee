//! Names of containers: who has which, what a question about one is answered with, and how hosts tell each other.
//!
//! ```text
//!  attach, dns-add ─► registry ─► record (NAMES bodies) ─► gossip ─► record ─┐
//!                        │                                                   ▼
//!                        └──────────────────────────────────────────► names (snapshot) ─► answer ─► plain
//! ```
//!
//! Pure: sockets and upstreams are in `driver::dns`. Nothing here knows the time of day; an entry lives as long as its
//! origin says so and can be reached.

pub mod answer;
pub mod name;
pub mod names;
mod parts;
pub mod plain;
mod ranks;
pub mod rate;
pub mod record;
pub mod registry;
pub mod seats;
pub mod waits;

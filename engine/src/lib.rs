//! Moves weft's frames: TAP queues, sealing, UDP trains.
//!
//! ```text
//!   TAP ─► tap_rx ─► bridge ─► stage ─► seal ─► udp_tx ═► underlay ═► udp_rx ─► open ─► deliver ─► TAP
//! ```
//!
//! The engine knows no peer by name and no topology. Control hands it tables and keys
//! ([`command::Command`]) and takes its reports ([`command::Event`]). N workers each own a TAP queue,
//! a socket on the shared port, a lane of every session and a pool of buffers; what they share is
//! in [`shared`]. Read [`datapath`] first.
//!
//! | module | job |
//! |---|---|
//! | [`engine`] | starts and stops the workers |
//! | [`worker`] | the one loop |
//! | [`datapath`] | the stations in order |
//! | [`bridge`] | FDB and FIB |
//! | [`session`] | keys, lanes, replay windows |
//! | [`path`] | underlay paths: probes, RTT, MTU |
//! | [`wire`] | the datagram's layout |
//! | [`io`] | the kernel, behind one seam; super-frames |
//! | [`verdict`] | drop reasons and counters |

pub mod bridge;
pub mod command;
pub mod config;
pub mod datapath;
pub mod engine;
pub mod error;
pub mod io;
pub mod packet;
pub mod path;
pub mod session;
pub mod shared;
pub mod verdict;
pub mod wire;
pub mod worker;

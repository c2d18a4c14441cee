//! Moves weft's frames: TAP queues, sealing, UDP trains.

pub mod bridge;
pub mod command;
pub mod config;
pub mod io;
pub mod path;
pub mod session;
pub mod wire;

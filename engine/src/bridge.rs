//! The bridge decides where one overlay frame goes: what it has learned, and the ways that control published.
//!
//! Station 2 of 8 (crate docs). The lookup itself stands in `datapath/transmit.rs`, floods in
//! `datapath/flood.rs`; here are their tables.

mod announced;
mod echo;
mod fdb;
mod fib;
mod neighbours;
mod storm;

pub use announced::Announced;
pub use echo::Echoes;
pub use fdb::{Fdb, Port};
pub use fib::{Branch, Fib, GroupFib, NextHop};
pub use neighbours::{Home, Neighbour, NeighbourTable};
pub use storm::{Storm, Wish};

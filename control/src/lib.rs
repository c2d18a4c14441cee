//! Decides for weft: peers, links, sessions, containers.

pub mod api;
pub mod driver;

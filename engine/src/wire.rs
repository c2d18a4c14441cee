//! What crosses the underlay, and the headers of the frames inside it.

pub mod ethernet;
pub mod meta;

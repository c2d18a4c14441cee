//! What the fuzz targets of the engine share: a host to attack, ways to compare frames, a reader of inputs.

pub mod compare;
pub mod host;
pub mod input;

//! What the fuzz targets of control share: a node that is watched, a reader of inputs.

pub mod input;
pub mod watched;

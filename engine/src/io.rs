//! Everything that touches a device or a socket, and the bytes' shape on either side of it.

pub mod offload;

//! Segmentation offload in user space: super-frames to frames that fit a datagram, and back.
//!
//! Part of stations 1 (`tap_rx`) and 8 (`deliver`). Pure: no device, no clock, no allocation per frame.
//!
//! ```text
//!  TAP read                                                            TAP write (one writev)
//!  [vnet header][super-frame]                                          [vnet header][header][payload]…
//!        │                                                                   ▲
//!   Splitter ──► (Meta, frame) ─ seal ⇒ underlay ⇒ open ─► (Meta, frame) ─► Coalescer
//! ```
//!
//! * A frame is useful without its neighbours: [`Splitter`] writes complete frames, each with its own Ethernet, IP and
//!   transport header. Only the transport checksum may be left to the receiver (`Meta`, `wire/meta.rs`).
//! * No virtio header crosses the wire. [`Coalescer`] parses each frame and computes its own; the meta byte is refused
//!   when the frame does not bear it out.
//! * Both sides share one parser ([`Headers`]), so the sender leaves no checksum open that the receiver could not close.
//!
//! Bounds: `config::SPLIT_SEGMENTS_MAX`, `config::COALESCE_*`. Sources: virtio 1.2 section 5.1.6 (header), RFC 6864
//! (IPv4 identification), RFC 1624 (checksums), RFC 3168 (CWR).

mod checksum;
mod coalesce;
mod field;
mod headers;
mod split;
#[cfg(test)]
mod tests;
mod vnet;

pub use checksum::finish_checksum;
pub use coalesce::{CoalesceConfig, CoalesceError, Coalescer, Piece, Pieces, Ready};
pub use headers::{Headers, NotTransport, Transport};
pub use split::{SplitError, Splitter};
pub use vnet::VnetHeader;

//! Every limit of the engine, with its reason.

/// Peers in the tables; a slot is a `u16` and the FDB packs it beside a MAC.
pub const PEERS_MAX: usize = 4096;
/// Lanes of one sender, which are its workers; more than 16 workers share one UDP port badly.
pub const LANES_MAX: usize = 16;
/// Addresses tried for one peer: both families of a few interfaces, and what others observed.
pub const CANDIDATES_MAX: usize = 8;
/// A message inside a session: what fits in one datagram of the smallest path (1200 bytes).
pub const MESSAGE_LEN_MAX: usize = 1150;

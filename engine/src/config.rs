//! Every limit of the engine, with its reason.

/// Peers in the tables; a slot is a `u16` and the FDB packs it beside a MAC.
pub const PEERS_MAX: usize = 4096;
/// Lanes of one sender, which are its workers; more than 16 workers share one UDP port badly.
pub const LANES_MAX: usize = 16;
/// Addresses tried for one peer: both families of a few interfaces, and what others observed.
pub const CANDIDATES_MAX: usize = 8;
/// A message inside a session: what fits in one datagram of the smallest path (1200 bytes).
pub const MESSAGE_LEN_MAX: usize = 1150;
/// Addresses of one peer known only because it sent from them: the one left behind by a move, the one
/// moved to, and two more, so that re-injected packets cannot make us remember (or probe) many.
pub const PATHS_LEARNED_MAX: usize = 4;
/// Probes remembered for one address: 3 s of quick probes, ten a second, the longest a verdict looks back.
pub const PATH_PROBES_MAX: usize = 32;
/// Path MTU sizes tried at one time: the seven well-known ones, the interface's own, and one that was too
/// big before.
pub const MTU_TRIALS_MAX: usize = 9;
/// Path messages waiting for the worker, which takes them after each call: one for each address and each
/// size tried, twice over.
pub const PATH_SENDS_MAX: usize = 2 * (CANDIDATES_MAX + PATHS_LEARNED_MAX + MTU_TRIALS_MAX);

//! Every limit of the engine, with its reason.

/// Peers in the tables; a slot is a `u16` and the FDB packs it beside a MAC.
pub const PEERS_MAX: usize = 4096;
/// Lanes of one sender, which are its workers; more than 16 workers share one UDP port badly.
pub const LANES_MAX: usize = 16;
/// Addresses tried for one peer: both families of a few interfaces, and what others observed.
pub const CANDIDATES_MAX: usize = 8;
/// A message inside a session: what fits in one datagram of the smallest path (1200 bytes).
pub const MESSAGE_LEN_MAX: usize = 1150;

/// Pieces a super-frame may be cut into: 64 KiB of the smallest segments that the kernel's TCP makes (36 bytes).
pub const SPLIT_SEGMENTS_MAX: usize = 2048;
/// IPv6 extension headers that are walked to find TCP or UDP; more is an attack or a laboratory.
pub const IPV6_EXTENSIONS_MAX: usize = 8;
/// Header bytes that a coalesced run may own: two VLAN tags, IPv6 and the longest TCP header are 122.
pub const COALESCE_HEADER_LEN_MAX: usize = 128;
/// Runs open at once; a bit each in a `u32`. Receive offload hands over a few flows at a time.
pub const COALESCE_RUNS_MAX: usize = 32;
/// Segments of one run: what the kernels since 5.15 take as one UDP super-frame, and 64 KiB of TCP at 1 KiB.
pub const COALESCE_SEGMENTS_MAX: usize = 64;
/// Frames held between two flushes: a batch of 64 receives with 64 datagrams each, twice.
pub const COALESCE_FRAMES_MAX: usize = 8192;

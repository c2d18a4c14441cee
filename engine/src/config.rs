//! Every limit of the engine, each with its reason; and what control sets at start.

use std::net::IpAddr;
use std::time::Duration;

use crate::wire::FRAME_OVERHEAD;
use crate::wire::relay::RELAY_OVERHEAD;

/// Peers in the tables; a slot is a `u16` and the FDB packs it beside a MAC.
pub const PEERS_MAX: usize = 4096;
/// Lanes of one sender, which are its workers; more than 16 workers share one UDP port badly.
pub const LANES_MAX: usize = 16;
/// Addresses tried for one peer: both families of a few interfaces, and what others observed.
pub const CANDIDATES_MAX: usize = 8;
/// A message inside a session: what fits in one datagram of the smallest path (1200 bytes), relayed or not.
pub const MESSAGE_LEN_MAX: usize = 1100;
/// UDP payload of the largest datagram: a 9000-byte underlay. Larger ones gain nothing, the train is the batch.
pub const DATAGRAM_LEN_MAX: usize = 8972;
/// UDP payload that every path must carry before its MTU is known (RFC 8899 §5.1.2, BASE_PLPMTU).
pub const DATAGRAM_LEN_BASE: usize = 1200;
/// One UDP send with `UDP_SEGMENT`: a device's default `gso_max_size` of 65536 is compared with the whole
/// packet, Ethernet with a VLAN tag (18), IPv6 (40) and UDP (8) included, and must be larger. One byte
/// more and the kernel cuts the train in software, at five times the price.
pub const TRAIN_LEN_MAX: usize = 65_535 - 18 - 40 - 8;
/// Datagrams of one train: `UDP_MAX_SEGMENTS` is 64 on kernels before 6.9.
pub const TRAIN_DATAGRAMS_MAX: usize = 64;
/// A packet buffer: a whole train, or a virtio header with a 64 KB super-frame, and the receive
/// header that io_uring writes before a datagram.
pub const PACKET_LEN: usize = 66 * 1024;
/// Packet buffers of one worker: two receive batches in flight, trains being filled and sent.
pub const PACKETS_MAX: usize = 192;
/// Trains taken from the socket before they are delivered: enough to put single datagrams
/// together again, little enough to stay in the second-level cache.
pub const RECEIVE_BATCH_MAX: usize = 64;
/// Frames read from a TAP queue before the worker looks at the socket again.
pub const TAP_BATCH_MAX: usize = 64;
/// Entries of the FDB; beyond them the one unused for longest in its bucket goes.
pub const FDB_ENTRIES_MAX: usize = 65_536;
/// A MAC that was not heard for so long is forgotten (Weave's and the kernel bridge's habit: minutes).
pub const FDB_AGE_MAX: Duration = Duration::from_secs(600);
/// Members of a flood that each get a copy sealed for them; beyond, sources seal once and relays copy.
pub const FLOOD_COPIES_MAX: usize = 64;
/// Relayed trains that wait for their turn, a quarter of the packets: what a peer sends beyond its share.
pub const RELAY_TRAINS_MAX: usize = 48;
/// Bytes passed on for others, and sent for our own containers while others wait, in one turn of a worker.
pub const RELAY_TURN_LEN: usize = 256 << 10;
/// A relayed run that is no longer is put behind the one before it, so that datagrams that came singly
/// leave as a train; for a longer one the copy would cost more than the send.
pub const RELAY_COPY_LEN_MAX: usize = 16 << 10;
/// Group keys of one source that are accepted: the newest, and the one before for what is under way.
pub const GROUP_EPOCHS_MAX: usize = 2;
/// How often we say that we flood without a group key; until there is one, each member gets its own copy.
pub const GROUP_KEY_WANTED_INTERVAL: Duration = Duration::from_secs(1);
/// Known attachments: sixteen containers on each of 4096 hosts. The rest is flooded for, as in any bridge.
pub const NEIGHBOURS_MAX: usize = 65_536;
/// Frames a second that one MAC may have flooded: 30 Mbit/s of full-size multicast, a fortieth of an ARP storm.
pub const FLOOD_PER_MAC_MAX: u32 = 2500;
/// Frames a second that a host may have flooded, for a few such sources; each may become 64 datagrams.
pub const FLOOD_PER_TAP_MAX: u32 = 10_000;
/// Questions about addresses that one MAC may have flooded in a second: a container that looks for many
/// others; known ones are answered at home.
pub const ADDRESS_FLOODS_MAX: u32 = 200;
/// Questions of one MAC that are answered at home in a second.
pub const ADDRESS_ANSWERS_MAX: u32 = 1000;
/// MACs whose floods are counted singly; beyond them the one quiet for longest begins anew.
pub const STORM_MACS_MAX: usize = 1024;
/// Answers that wait for the TAP: one for each frame of a batch.
pub const ANSWERS_MAX: usize = TAP_BATCH_MAX;
/// Flooded frames remembered: what both sides may flood in the time that an echo takes.
pub const ECHOES_MAX: usize = 8192;
/// For how long a flooded frame's echo is known for one: a LAN brings it in milliseconds, a container
/// that moves takes longer to say the same again elsewhere.
pub const ECHO_WINDOW: Duration = Duration::from_millis(250);
/// Addresses whose last announcement is remembered: two thousand containers that start or move at once.
pub const ANNOUNCED_MAX: usize = 2048;
/// For how long: control looks every 10 seconds which MACs its containers have, and tells the others.
pub const ANNOUNCED_TIME: Duration = Duration::from_secs(30);
/// MACs kept from being learned on a side where echoes of theirs came.
pub const HOLDS_MAX: usize = 16;
/// For how long, and for how long floods to and from the peer rest that the echo came round by.
pub const HOLD_TIME: Duration = Duration::from_secs(10);
/// Between two reports of a loop.
pub const LOOP_NOTICE_INTERVAL: Duration = Duration::from_secs(10);
/// Frames staged for one peer while its session is made; covers one handshake of a busy sender.
pub const STAGED_FRAMES_MAX: usize = 128;
/// Bytes staged for all peers together.
pub const STAGED_BYTES_MAX: usize = 4 << 20;
/// Epochs of one peer that a worker accepts at once: next, current, and those still draining.
pub const EPOCHS_MAX: usize = 4;
/// Commands waiting for a worker; control blocks beyond them, which it reaches only if a worker is stuck.
pub const COMMANDS_MAX: usize = 4096;
/// Events waiting for control; beyond them they are dropped and counted, and control asks again.
pub const EVENTS_MAX: usize = 4096;
/// Datagrams on their way to the worker that owns their lane.
pub const HANDOFFS_MAX: usize = 256;
/// Round trips measured that wait for control: a tenth of a second's at the best.
pub const BENCH_SAMPLES_MAX: usize = 16_384;
/// Sends that failed, reported to the worker that probes: the first one of a path is enough.
pub const SEND_FAILURES_MAX: usize = 64;
/// Unverified senders reported to the worker that probes.
pub const STRANGERS_MAX: usize = 256;
/// A replay window: a path switch leaves tens of thousands of datagrams in flight (RFC 6479).
pub const REPLAY_WINDOW: u64 = 32_768;
/// Seals under one lane key after which a rekey is asked for (RFC 9001 §6.6 leaves a wide margin at our sizes).
pub const SEALS_SOFT_MAX: u64 = 1 << 32;
/// Seals under one lane key after which sealing stops.
pub const SEALS_HARD_MAX: u64 = 1 << 33;
/// Bytes under one lane key after which a rekey is asked for (AES-GCM's bound at an advantage of 2^-60).
pub const BYTES_SOFT_MAX: u64 = 1 << 37;
/// Bytes under one lane key after which sealing stops.
pub const BYTES_HARD_MAX: u64 = 1 << 38;
/// Failed opens of one epoch after which a rekey is asked for.
pub const FORGED_SOFT_MAX: u64 = 1 << 30;
/// Receive buffer asked of the kernel for each socket: what arrives while the worker is not on a core.
pub const SOCKET_BUFFER_LEN: usize = 16 << 20;

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

/// Addresses of one peer known only because it sent from them: the one left behind by a move, the one
/// moved to, and two more, so that re-injected packets cannot make us remember (or probe) many.
pub const PATHS_LEARNED_MAX: usize = 4;
/// Probes remembered for one address, ten a second where it matters: those of the longest timeout (3 s), which have no
/// verdict yet, and as many of which it is known what became of them.
pub const PATH_PROBES_MAX: usize = 64;
/// Path MTU sizes tried at one time: the seven well-known ones, the interface's own, and one that was too
/// big before.
pub const MTU_TRIALS_MAX: usize = 9;
/// Path messages waiting for the worker, which takes them after each call: one for each address and each
/// size tried, twice over.
pub const PATH_SENDS_MAX: usize = 2 * (CANDIDATES_MAX + PATHS_LEARNED_MAX + MTU_TRIALS_MAX);

/// Which I/O backend to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IoChoice {
    /// The faster one that this kernel allows.
    #[default]
    Auto,
    /// io_uring, or fail.
    Uring,
    /// `epoll` with `recvmmsg`.
    Epoll,
}

/// What control decides before the engine starts.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// TAP device name; opened, or made and left behind.
    pub tap_name: String,
    /// UDP port.
    pub port: u16,
    /// Local address to bind; `None` is every address of both families.
    pub host: Option<IpAddr>,
    /// Worker threads, 1 to [`LANES_MAX`].
    pub workers: u16,
    /// I/O backend.
    pub io: IoChoice,
    /// MTU of the overlay, which decides how long a super-frame may be.
    pub mtu: u16,
    /// Largest MTU of the host's underlay interfaces: no path is searched beyond it.
    pub underlay_mtu: u16,
}

/// What TCP keeps back of `gso_max_size` for headers: `MAX_TCP_HEADER` and one.
const TCP_HEADROOM: usize = 321;

/// The `gso_max_size` with which a container's TCP makes super-frames that fill one train and no more, also one
/// towards a relay, whose datagrams are longer.
///
/// A longer one costs a second send for a few datagrams, at each host on the way.
pub fn gso_size_max(mtu: u16) -> u32 {
    let mtu = usize::from(mtu);
    let datagrams = (TRAIN_LEN_MAX / (mtu + 14 + FRAME_OVERHEAD + RELAY_OVERHEAD))
        .clamp(1, TRAIN_DATAGRAMS_MAX);
    // The payload of a segment with time stamps over IPv4; over IPv6 it is less and one segment more may fit.
    let size = datagrams * mtu.saturating_sub(52) + TCP_HEADROOM;
    u32::try_from(size.min(65_536)).unwrap_or(65_536)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_super_frame_of_the_size_for_containers_fills_one_train() {
        for mtu in [576, 1376, 1424, 8900] {
            let payload = gso_size_max(mtu) as usize - TCP_HEADROOM;
            let segment = usize::from(mtu) - 52;
            let count = payload / segment;
            let datagram = usize::from(mtu) + 14 + FRAME_OVERHEAD + RELAY_OVERHEAD;
            assert!(
                count <= TRAIN_DATAGRAMS_MAX && count * datagram <= TRAIN_LEN_MAX,
                "{mtu}"
            );
            assert!(
                count == TRAIN_DATAGRAMS_MAX || (count + 1) * datagram > TRAIN_LEN_MAX,
                "{mtu}: one more would fit"
            );
        }
    }
}

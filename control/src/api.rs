//! The local HTTP API's words: what the daemon answers and the command line asks.
//!
//! JSON over a unix socket (`<run-dir>/weft.sock`, mode 0660). Keys are snake_case and only ever added to.
//!
//! | method and path | body | answer |
//! |---|---|---|
//! | `GET /status` | – | [`Status`] |
//! | `GET /report` | – | [`Report`] |
//! | `GET /ps` | – | `[`[`Attachment`]`]` |
//! | `GET /peers` | – | `[`[`PeerReport`]`]` |
//! | `GET /topology` | – | [`TopologyReport`] |
//! | `POST /path` | [`PeerRequest`] | [`RouteReport`] |
//! | `POST /ping` | [`PeerRequest`] | [`PingReply`] |
//! | `POST /connect` | [`ConnectRequest`] | `{}` |
//! | `POST /forget` | [`ForgetRequest`] | `{}` |
//! | `POST /attach`, `POST /detach` | [`AttachRequest`] | [`AttachReply`] |
//! | `GET /dns` | – | [`DnsStatus`], or `null` without DNS |
//! | `POST /dns/add`, `POST /dns/remove` | [`DnsRequest`] | [`DnsReply`] |
//! | `POST /dns/lookup` | [`DnsLookup`] | [`DnsFound`] |
//! | `POST /find` | [`FindRequest`] | [`AttachReply`] |
//! | `POST /expose`, `POST /hide` | [`ExposeRequest`] | [`AttachReply`] |
//! | `POST /prime` | `{}` | `{}` once there is a ring |
//! | `POST /rmpeer` | [`RemoveRequest`] | [`RemoveReply`] |
//! | `POST /bench` | [`BenchRequest`] | one [`BenchProgress`] per line until the end |
//! | `POST /reset` | [`ResetRequest`] | `{}` once the addresses are another peer's, before the daemon goes |
//! | `GET /ipam/check` | – | [`IpamFinding`]s |
//! | `POST /stop` | – | `{}` before the daemon goes |
//!
//! A failure is 4xx (the request's fault) or 5xx (ours) with an [`ApiError`].

mod addresses;
mod containers;

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use addresses::{
    ExposeRequest, IpamElection, IpamFinding, IpamGauges, IpamOwner, IpamReport, PendingAddress,
    RemoveReply, RemoveRequest, ResetRequest,
};
pub use containers::{AttachReply, AttachRequest, ContainerFiles, FindRequest, ProxyStatus};

/// The line with which requests fail while the daemon ends.
pub const STOPPING: &str = "the daemon is stopping";

/// Why a request failed: one line that names the culprit and what is accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// The line.
    pub error: String,
}

/// Add peers to the targets and dial them at once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectRequest {
    /// `host[:port]`, `[v6]:port` or a DNS name.
    pub peers: Vec<String>,
    /// Empty the target list first.
    #[serde(default)]
    pub replace: bool,
}

/// Remove peers from the targets, spelt as they were given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgetRequest {
    /// The targets.
    pub peers: Vec<String>,
}

fn yes() -> bool {
    true
}

/// Give addresses a name in DNS, or take it away.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsRequest {
    /// Whose name it is; nobody's, for addresses outside the network.
    #[serde(default)]
    pub container: Option<String>,
    /// None means all that the container has.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// None means the container's own; when removing, all.
    #[serde(default)]
    pub name: Option<String>,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsReply {
    /// Why nothing was done, if nothing was: the name lies outside the domain.
    #[serde(default)]
    pub ignored: Option<String>,
}

/// Look a name up among ours.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsLookup {
    /// Whole, or without the domain.
    pub name: String,
}

/// What it means now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsFound {
    /// None if nobody has the name.
    pub addresses: Vec<IpAddr>,
}

/// The DNS server's part of the status.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsStatus {
    /// With its final dot.
    pub domain: String,
    /// The address on our bridge.
    pub address: IpAddrText,
    /// What `weft dns-args` gives Docker's containers.
    pub docker_address: IpAddrText,
    /// Seconds for which an answer holds.
    pub ttl: u32,
    /// Whom it asks what it does not know.
    pub upstreams: Vec<String>,
    /// Where it can be asked.
    pub listening: Vec<String>,
    /// Where not, and why.
    #[serde(default)]
    pub trouble: Vec<String>,
    /// What is to be known besides: names that are not answered for.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Number of entries, of all hosts.
    pub entry_count: usize,
    /// What was counted since the daemon was started, by the names that the report has for it.
    #[serde(default)]
    pub counters: BTreeMap<String, u64>,
    /// The entries; left out of `/status`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entries: Vec<DnsEntry>,
}

/// An address as text; empty if there is none.
pub type IpAddrText = String;

/// One address under one name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsEntry {
    /// The whole name, without the final dot.
    pub hostname: String,
    /// What it means.
    pub address: IpAddr,
    /// The container, `weave:extern` or `weave:expose`.
    pub container: String,
    /// The host that says so: full PeerId.
    pub origin: String,
    /// The same host's 48-bit name.
    pub origin_name: String,
}

/// One container interface, a line of `weft ps`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Docker's id cut to 12, or the container as it was named; `weave:expose` for the host.
    pub id: String,
    /// MAC of `ethwe`.
    pub mac: String,
    /// Addresses with prefix length.
    pub addresses: Vec<IpNet>,
}

/// Measure towards a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BenchRequest {
    /// Peer name, nickname or PeerId.
    pub peer: String,
    /// Seconds for each of the three parts (throughput, packets, latency).
    pub seconds: u32,
}

/// A step of a running `weft bench`; the last has `done`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BenchProgress {
    /// `throughput`, `packets` or `latency`.
    pub phase: String,
    /// Seconds into this phase, and its length.
    pub elapsed_s: f64,
    /// Length of the phase in seconds.
    pub phase_s: f64,
    /// Set on the last line.
    #[serde(default)]
    pub done: Option<BenchResult>,
}

/// What `weft bench` measured, by the receiver's count.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BenchResult {
    /// Gbit/s of frame bytes with MTU-size frames.
    pub throughput_gbps: f64,
    /// Share of those frames that did not arrive, 0 to 1.
    pub throughput_loss: f64,
    /// 64-byte frames a second.
    pub packets_per_s: f64,
    /// Share of those frames that did not arrive, 0 to 1.
    pub packets_loss: f64,
    /// Round trips in microseconds at percentiles 50, 90, 99, 99.9 and the maximum.
    pub latency_us: [f64; 5],
    /// Round trips measured.
    pub latency_count: u64,
}

/// What `weft status` shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// weft's version.
    pub version: String,
    /// 48-bit name, as a MAC.
    pub name: String,
    /// Host name unless given.
    pub nickname: String,
    /// Full PeerId, 32 hex digits.
    pub peer_id: String,
    /// The network's name.
    pub network: String,
    /// TCP and UDP port.
    pub port: u16,
    /// `password`, `token` or `open`.
    pub membership: String,
    /// True when unknown peers may be dialled.
    pub discovery: bool,
    /// Overlay MTU in bytes.
    pub mtu: u16,
    /// Seconds since start.
    pub uptime_s: u64,
    /// Targets, as given.
    pub targets: Vec<Target>,
    /// One per peer or attempt.
    pub connections: Vec<Connection>,
    /// The DNS server's part, if it runs; without the entries.
    #[serde(default)]
    pub dns: Option<DnsStatus>,
    /// Addresses; absent if they are not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipam: Option<IpamReport>,
    /// The Docker API proxy, if it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<ProxyStatus>,
    /// Docker's network plugin, if it serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugin: Option<PluginStatus>,
    /// The engine's part.
    pub engine: EngineStatus,
}

/// Docker's network plugin.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginStatus {
    /// What `docker network create --driver` is told.
    pub drivers: Vec<String>,
    /// The network that is made in Docker; absent if no addresses are given.
    #[serde(default)]
    pub network: Option<String>,
    /// Why Docker does not have it as it is to be.
    #[serde(default)]
    pub network_fault: Option<String>,
    /// Docker's own address.
    pub docker: String,
    /// Why Docker does not answer.
    #[serde(default)]
    pub trouble: Option<String>,
}

/// A peer that somebody named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// As typed.
    pub address: String,
    /// `connected`, `connecting`, `waiting`, `refused` or `self`.
    pub state: String,
    /// Why, and when the next attempt is.
    #[serde(default)]
    pub detail: String,
}

/// One link or attempt, a line of `weft status connections`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Connection {
    /// True if we dialled.
    pub outbound: bool,
    /// Remote address of the link.
    pub address: String,
    /// `connecting`, `pending`, `established`, `failed`, `retrying`.
    pub state: String,
    /// Peer's 48-bit name, empty until known.
    pub name: String,
    /// Peer's nickname, empty until known.
    pub nickname: String,
    /// Full PeerId, empty until known.
    pub peer_id: String,
    /// Data cipher once a session is active.
    #[serde(default)]
    pub cipher: Option<String>,
    /// Data path, if up.
    #[serde(default)]
    pub path: Option<PathReport>,
    /// Extra words: why it failed, when it retries.
    #[serde(default)]
    pub detail: String,
    /// Rekeys completed since the peer is known.
    #[serde(default)]
    pub rekeys: u64,
}

/// The data path to a peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PathReport {
    /// Underlay address in use.
    pub address: String,
    /// `direct`, or `via NAME`.
    pub kind: String,
    /// Smoothed round trip, milliseconds.
    pub rtt_ms: f64,
    /// Largest inner frame payload (overlay MTU) that crosses in one datagram, bytes.
    pub mtu: u16,
    /// Share of probes lost, 0 to 1.
    pub loss: f64,
}

/// The engine's part of the status.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EngineStatus {
    /// `io_uring` or `epoll`.
    pub backend: String,
    /// Why that backend, when it is not the best one.
    #[serde(default)]
    pub backend_reason: String,
    /// Worker threads.
    pub workers: u16,
    /// Offloads in use, e.g. `vnet_hdr`, `tso4`, `uso4`, `udp_segment`, `udp_gro`.
    pub offloads: Vec<String>,
    /// For anything not at its best: what, and why.
    pub notes: Vec<String>,
    /// Cipher implementations measured at start, fastest first: name and MB/s.
    pub ciphers: Vec<(String, f64)>,
    /// Frames, bytes, datagrams and drops since start, by name.
    pub counters: BTreeMap<String, u64>,
}

/// Everything, as `weft report` prints it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The status.
    #[serde(flatten)]
    pub status: Status,
    /// Attached containers.
    pub attachments: Vec<Attachment>,
    /// Every name that is answered for; none without DNS.
    #[serde(default)]
    pub dns_entries: Vec<DnsEntry>,
    /// Control's counters by name.
    pub control_counters: BTreeMap<String, u64>,
    /// Everybody known, us among them.
    #[serde(default)]
    pub peers: Vec<PeerReport>,
    /// The way to each other peer.
    #[serde(default)]
    pub routes: Vec<RouteReport>,
}

/// A question about one peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerRequest {
    /// Peer name, nickname, PeerId or underlay address.
    pub peer: String,
}

/// What one ping measured: inside the session, on the way that frames take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PingReply {
    /// Peer's 48-bit name.
    pub name: String,
    /// Peer's nickname.
    pub nickname: String,
    /// Milliseconds there and back.
    pub rtt_ms: f64,
    /// `direct` or `via NAME`.
    pub kind: String,
}

/// A peer, as everybody hears of it: a block of `weft status peers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerReport {
    /// 48-bit name.
    pub name: String,
    /// Nickname.
    pub nickname: String,
    /// Full PeerId.
    pub peer_id: String,
    /// weft's version there.
    pub version: String,
    /// True if it passes on datagrams of others.
    pub relay: bool,
    /// Its links, as it says itself.
    pub links: Vec<PeerLink>,
}

/// One end's word on a link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerLink {
    /// Name of the peer at the other end; its PeerId if it is not known otherwise.
    pub name: String,
    /// Its nickname, empty if not known.
    pub nickname: String,
    /// True if we dialled; only of our own links.
    #[serde(default)]
    pub outbound: Option<bool>,
    /// Remote address; only of our own links.
    #[serde(default)]
    pub address: String,
    /// `established` if both ends say that it carries data, else `pending`.
    pub state: String,
}

/// The network as it is known here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TopologyReport {
    /// Everybody who says anything.
    pub peers: Vec<TopologyPeer>,
    /// Links, each once.
    pub links: Vec<TopologyLink>,
}

/// A node of the graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopologyPeer {
    /// Full PeerId.
    pub peer_id: String,
    /// 48-bit name.
    pub name: String,
    /// Nickname, empty if not known.
    pub nickname: String,
    /// True if it passes on datagrams of others.
    pub relay: bool,
}

/// An edge of the graph.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TopologyLink {
    /// PeerIds of both ends.
    pub ends: [String; 2],
    /// Both say that messages cross.
    pub control: bool,
    /// Both say that datagrams cross.
    pub data: bool,
    /// Round trip of the data path in milliseconds, the larger word of both.
    pub rtt_ms: f64,
    /// Largest inner packet in bytes, the smaller word of both.
    pub mtu: u16,
    /// Share lost, 0 to 1, the larger word of both.
    pub loss: f64,
}

/// The way to a peer, and why it is that one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouteReport {
    /// Peer's 48-bit name.
    pub name: String,
    /// Peer's nickname.
    pub nickname: String,
    /// Full PeerId.
    pub peer_id: String,
    /// `direct`, `via NAME` or `none`.
    pub kind: String,
    /// Why this way and no other, in words.
    pub why: String,
    /// Data cipher between the two ends; relays see sealed datagrams only.
    #[serde(default)]
    pub cipher: Option<String>,
    /// Each peer on the way, the destination last.
    pub hops: Vec<HopReport>,
}

/// One link of a way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HopReport {
    /// Name of the peer at its end.
    pub name: String,
    /// Its nickname.
    pub nickname: String,
    /// Underlay address; of our own path only.
    #[serde(default)]
    pub address: String,
    /// Round trip of this link in milliseconds.
    pub rtt_ms: f64,
    /// Share lost, 0 to 1.
    pub loss: f64,
    /// Largest inner packet that crosses in one datagram, bytes.
    pub mtu: u16,
}

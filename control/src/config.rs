//! Every limit and period of control, with its reason; and what a node is started with.

use std::time::Duration;

use weft_engine::session::CipherSuite;

use crate::gossip::budget::Allowance;
use crate::peer::{Nickname, PeerName};
use crate::secret::{NetworkId, Secrets};

mod gossip;

pub use gossip::*;

/// TCP and UDP port unless given: Weave's, so that firewall rules keep working.
pub const PORT_DEFAULT: u16 = 6783;

/// Peers we keep a state for; the engine's table of slots has as many places.
pub const PEERS_MAX: usize = 4096;
/// Targets that may be named; each is dialled for ever, and a list by hand is never longer.
pub const TARGETS_MAX: usize = 1024;
/// Length of one target as typed: a DNS name is at most 253 bytes, and a port follows.
pub const TARGET_LEN_MAX: usize = 260;

/// Entries (one address under one name) that one host may say: a large host has hundreds of containers with a few
/// names each, and what a hostile one can make us keep stays at about 1 MiB.
pub const DNS_NAMES_PER_ORIGIN_MAX: usize = 4096;
/// Bytes of all entries of one host: 4096 of 48 bytes, and room for its other records below [`ORIGIN_BYTES_MAX`].
pub const DNS_BYTES_PER_ORIGIN_MAX: usize = 192 * 1024;
/// Bytes that one NAMES record is to have on average: a change sends so much to every peer.
pub const DNS_RECORD_LEN_AIM: usize = 2 * 1024;
/// NAMES records of one origin, a power of two: half of [`ORIGIN_RECORDS_MAX`], and 512 KiB at the most.
pub const DNS_RECORDS_MAX: usize = 32;
/// How long links alone are not believed after the data of a host was lost: a dead one is found so
/// [`LINK_LONE_AFTER`] later, and that is heard of everywhere in a second.
pub const NAMES_DOUBT: Duration = Duration::from_secs(5);
/// Forwarded questions a second of one client, unless `--dns-client-rate` says otherwise; a busy web browser stays below.
pub const DNS_CLIENT_RATE: u32 = 200;
/// How many times as many questions about our own names one client may ask: they cost microseconds and leave nothing
/// behind, and with a TTL of a second a busy program asks before every connection.
pub const DNS_LOCAL_RATE_FACTOR: u32 = 50;
/// Places in the table of clients; two that fall into one place share its rate.
pub const DNS_CLIENTS_MAX: usize = 4096;
/// Waits for forwarded answers, each of some 30 KiB for at most [`DNS_FORWARD_TIMEOUT`], and each with an open socket;
/// above it, whoever waits for many makes room for others.
pub const DNS_FORWARDS_MAX: usize = 1024;
/// So many waits of one client are few: it asks for both kinds of address of a few names at once.
pub const DNS_FORWARDS_FEW: usize = 8;
/// What a wait has at least, where all clients have few: nearly every answer takes less.
pub const DNS_FORWARD_PATIENCE: Duration = Duration::from_millis(400);
/// The longest a client waits for a forwarded answer: below the five seconds after which resolvers ask again.
pub const DNS_FORWARD_TIMEOUT: Duration = Duration::from_millis(4700);
/// The wait for one upstream: a slow one may use all the time that the client has. It is asked again meanwhile, up to
/// three times, should a datagram be lost.
pub const DNS_UPSTREAM_TIMEOUT: Duration = DNS_FORWARD_TIMEOUT;
/// The wait for one upstream before the next one is asked too: longer than nearly every answer takes, and all have
/// their turn within [`DNS_FORWARD_TIMEOUT`].
pub const DNS_UPSTREAM_LATE: Duration = Duration::from_millis(400);
/// How long an upstream that was late is asked last.
pub const DNS_UPSTREAM_DISTRUST: Duration = Duration::from_secs(10);
/// Upstreams that are asked; resolvers take three from resolv.conf.
pub const DNS_UPSTREAMS_MAX: usize = 8;
/// Answers of one upstream that are kept as long as their TTL allows.
pub const DNS_CACHE_MAX: u64 = 1024;
/// Largest UDP answer: what crosses any path in one piece, whatever the asker takes.
pub const DNS_UDP_LEN_MAX: u16 = 1232;
/// Questions taken from a socket in one call, whose cost they share; the buffers of a socket are 52 KiB.
pub const DNS_BATCH_MAX: usize = 16;
/// TCP connections of clients at one socket; one asks a question or two, and who has the most makes room for others.
pub const DNS_CONNECTIONS_MAX: usize = 128;
/// Of these, from one client.
pub const DNS_CONNECTIONS_PER_CLIENT_MAX: usize = 16;
/// Longest wait for the next question on a TCP connection.
pub const DNS_TCP_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections that have not proved to be a peer yet: what a cluster that restarts at once needs, times their
/// 64 KiB of buffers, stays small.
pub const PENDING_INBOUND_MAX: usize = 64;
/// Of these, from one address (IPv6: one /64); several peers may share a NAT.
pub const PENDING_INBOUND_PER_SOURCE_MAX: usize = 16;
/// From TCP connect to the end of the handshake: three round trips of a bad line, and no more for a slow loris.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// From TCP connect to a whole preamble: it is eight bytes and leaves with the connection.
pub const PREAMBLE_TIMEOUT: Duration = Duration::from_secs(4);
/// Failed handshakes that one source may have in [`FAILURE_WINDOW`]; bounds the guessing of passwords.
pub const FAILURES_MAX: u32 = 5;
/// The window of [`FAILURES_MAX`].
pub const FAILURE_WINDOW: Duration = Duration::from_secs(60);
/// Sources whose failures are counted; at 40 bytes each, and the oldest gives way.
pub const FAILURE_SOURCES_MAX: usize = 4096;
/// Failed inbound connections that get a line in the log of their own...
pub const FAILURES_SAID_MAX: u32 = 20;
/// ...within this time; of the others the number is said.
pub const FAILURES_SAID_IN: Duration = Duration::from_secs(60);
/// Handshakes that may start in one second, all sources together: with four curve operations of 50 µs each this
/// is about 5 % of a core.
pub const HANDSHAKES_PER_SECOND_MAX: u32 = 256;

/// One control message: room for a gossip delta, and a garbage length costs no more than this.
pub const MESSAGE_LEN_MAX: usize = 64 * 1024;
/// One handshake message: the largest payload is below 400 bytes.
pub const HANDSHAKE_LEN_MAX: usize = 1024;
/// Bytes that wait for one slow TCP connection before it is given up.
pub const LINK_QUEUE_MAX: usize = 4 * 1024 * 1024;
/// A link that heard nothing for this long is asked for a sign of life.
pub const LINK_PING_AFTER: Duration = Duration::from_secs(5);
/// An unanswered ping this old makes a link suspect: its target is dialled beside it.
pub const LINK_SUSPECT_AFTER: Duration = Duration::from_secs(3);
/// ...or this old, when there is reason to think so: datagrams reach the peer again that did not before, or our NAT
/// has forgotten us.
pub const LINK_SILENT_AFTER: Duration = Duration::from_millis(500);
/// ...or this old, when the peer's data path has gone silent, too: TCP has said again twice what one loss swallowed.
pub const LINK_LONE_AFTER: Duration = Duration::from_millis(1500);
/// A link silent for this long is dead. Data does not depend on it.
pub const LINK_DEAD_AFTER: Duration = Duration::from_secs(20);
/// Longest pause before the kernel sends again what a link lost, and the shortest that it takes for one (Linux 6.15). With
/// its own two minutes a link stood still for tens of seconds on a line that loses a fifth.
pub const LINK_RESENT_WITHIN: Duration = Duration::from_secs(1);
/// Two links to one peer made within this time, longer than any handshake takes, were dialled from both ends at once,
/// and the rule by PeerId decides; later ones replace the older, which may be dead without our knowing.
pub const LINK_SIMULTANEOUS: Duration = Duration::from_secs(2);
/// Superseded boot ids remembered for each peer, to notice a clone that comes back.
pub const BOOT_IDS_MAX: usize = 4;
/// Sealed records on one link before it is replaced; far below 2^64 nonces, and above any real life.
pub const LINK_RECORDS_MAX: u64 = 1 << 48;

/// TCP connect, name looked up, before the attempt counts as failed: two transmissions of the first packet.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(2);
/// An attempt under way for so long is made anew at a sign of life: its first packet was lost, and the second comes
/// only a second after it.
pub const DIAL_STALE_AFTER: Duration = Duration::from_millis(300);
/// The first pause between the starts of two attempts.
pub const BACKOFF_MIN: Duration = Duration::from_millis(300);
/// The longest pause while the outage is young: a peer that restarts, or a network that heals, is back in two seconds.
pub const BACKOFF_YOUNG_MAX: Duration = Duration::from_millis(1000);
/// Later the longest pause is one in so many of the outage: after two minutes a healed network still is back in two
/// seconds...
pub const BACKOFF_SHARE: u32 = 60;
/// ...up to this.
pub const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// The same for peers that nobody named: most that are gone for long never come back, and who does come dials us.
pub const BACKOFF_FOUND_SHARE: u32 = 20;
/// The longest pause for them.
pub const BACKOFF_FOUND_MAX: Duration = Duration::from_secs(60);
/// The pause after a peer refused us (password, version, network): only a person changes that.
pub const BACKOFF_REFUSED: Duration = Duration::from_secs(15);
/// Connections being opened at once; more would be a burst of SYNs and of DNS queries.
pub const DIALS_MAX: usize = 64;

/// Age at which an epoch is replaced.
pub const REKEY_AFTER: Duration = Duration::from_secs(120);
/// How much later the peer with the larger PeerId starts, if the other did not.
pub const REKEY_OTHER_SIDE_AFTER: Duration = Duration::from_secs(5);
/// Age at which an epoch is dropped, replaced or not.
pub const EPOCH_LIFE_MAX: Duration = Duration::from_secs(180);
/// How long the epoch before stays open for late datagrams once both ends use the new one.
pub const EPOCH_LINGER: Duration = Duration::from_secs(5);
/// Live epochs of one peer: the active one, its predecessor, one being installed by each end.
pub const EPOCHS_MAX: usize = 4;
/// Session handshakes of one peer that wait for their next message.
pub const SESSIONS_PENDING_MAX: usize = 4;
/// Session handshakes that one peer may begin in a second.
pub const SESSION_STARTS_PER_SECOND_MAX: u32 = 5;
/// First pause before a session message is repeated; it doubles up to [`SESSION_RETRY_MAX`].
pub const SESSION_RETRY_MIN: Duration = Duration::from_millis(500);
/// The longest pause before a session message is repeated.
pub const SESSION_RETRY_MAX: Duration = Duration::from_secs(2);
/// Life of a session handshake without an end.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(10);
/// Secrets tried on the last message of a handshake; a rotation needs two.
pub const SECRETS_MAX: usize = 4;
/// A peer without link and session is forgotten after this time, and its slot is free.
pub const PEER_FORGOTTEN_AFTER: Duration = Duration::from_secs(300);

/// Records of a peer that nothing has led to for this long are forgotten: a partition of an hour costs nothing.
pub const ORIGIN_FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);
/// How often we look whom nothing leads to.
pub const ORIGIN_CHECK_EVERY: Duration = Duration::from_secs(300);
/// How long the records of a forgotten peer are not taken back from somebody who forgets a little later.
pub const FORGOTTEN_KEPT: Duration = Duration::from_secs(120);
/// How often the same clone is named in the log.
pub const CLONE_NOTICE_EVERY: Duration = Duration::from_secs(600);
/// Lines about hosts with another MTU in one status, one for each MTU.
pub const OTHER_MTUS_SHOWN: usize = 4;
/// Lines about hosts kept out in one status.
pub const REFUSALS_SHOWN: usize = 8;
/// Lines about shared names and keys in one status.
pub const NAMESAKES_SHOWN: usize = 16;
/// Clones that are remembered for that.
pub const CLONES_MAX: usize = 64;
/// Lines about addresses and MACs that are there twice, in one status.
pub const DUPLICATES_SHOWN: usize = 16;
/// Parts of the record of attachments: 350 of them in each, which is more than one host's bridge takes.
pub const ATTACHMENT_PARTS_MAX: u16 = 8;
/// Between two tables of attachments for the engine: a start of a thousand hosts is a few, not a thousand.
pub const NEIGHBOURS_PAUSE: Duration = Duration::from_millis(100);
/// How often the host is looked at for containers even if nothing was heard of them.
pub const ATTACHMENTS_LISTED_EVERY: Duration = Duration::from_secs(10);
/// Between two such looks when much is heard: each enters every container.
pub const ATTACHMENTS_PAUSE: Duration = Duration::from_millis(100);
/// From news of who is there to a new choice of links, ±50 %: news comes in swarms.
pub const MESH_CHOOSE_AFTER: Duration = Duration::from_millis(400);
/// A choice without news, ±50 %: those who did not answer have their turn again.
pub const MESH_CHOOSE_EVERY: Duration = Duration::from_secs(30);
/// Over how long the dials of one choice are spread.
pub const MESH_DIAL_SPREAD: Duration = Duration::from_millis(500);
/// How long the peer with the larger PeerId leaves it to the other to dial, if both want the link.
pub const MESH_OTHER_SIDE_AFTER: Duration = Duration::from_millis(1500);
/// Attempts in a row that fail before somebody else is chosen.
pub const MESH_FAILURES_MAX: u32 = 4;
/// The same for one that nobody leads to: there are more of these, and one of them may be near.
pub const MESH_LOST_FAILURES_MAX: u32 = 1;
/// How long a peer that did not answer comes last, ±50 %.
pub const MESH_SHUN: Duration = Duration::from_secs(60);
/// Peers that nobody leads to and are dialled all the same: two halves of a network find each other by them.
pub const MESH_LOST_DIALED: usize = 2;
/// As many if we have no link at all.
pub const MESH_ALONE_DIALED: usize = 8;
/// As many by all together of whom we reach: the fewer they are, the more each tries, up to [`MESH_ALONE_DIALED`]. An
/// island of three among a thousand peers is whole in seconds, and a large half does not knock at every door.
pub const MESH_ISLAND_DIALED: usize = 24;
/// Links that nobody minds having; beyond these, and four times log2(N), a peer ends some.
pub const MESH_LINKS_KEPT: usize = 24;
/// How old a link must be to be ended for that: whoever came by it has found others.
pub const TRIM_AFTER: Duration = Duration::from_secs(30);
/// How often links are ended, ±50 %...
pub const TRIM_EVERY: Duration = Duration::from_secs(5);
/// ...and how many at once, at least, or this share of those too many: each time is news for everybody, so a hub that
/// a thousand peers named is done in half a minute.
pub const TRIM_AT_ONCE: usize = 16;
/// The share: one in so many.
pub const TRIM_SHARE: usize = 3;
/// How long a target that has links enough is left alone, ±40 %, unless our last link ends.
pub const ENOUGH_PAUSE: Duration = Duration::from_secs(600);
/// Body of one record: a message carries three of that size, and larger sets use several parts.
pub const RECORD_BODY_MAX: usize = 16 * 1024;
/// Peers whose records are kept; each has a slot.
pub const ORIGINS_MAX: usize = PEERS_MAX;
/// Records of one origin: one of each kind, and many parts of names.
pub const ORIGIN_RECORDS_MAX: usize = 64;
/// Bytes of the records of one origin: 4096 names of 60 bytes, and no room for a flood.
pub const ORIGIN_BYTES_MAX: usize = 256 * 1024;
/// Bytes of all records: a thousand peers need 2 MiB, and a daemon shall stay below 256 MiB.
pub const STORE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// What keeping one record costs beyond its bytes, rounded up; makes many small ones count.
pub const RECORD_KEPT_COST: usize = 256;
/// News of one origin that we take, each for what [`PUBLISH_BYTES`] says that it costs: what a host says at once
/// ([`PUBLISH_ALL_RATE`]) on top of all its records, as after a cut, and then what a lively host says. A second of the
/// latter is 64 KiB and 2 ms of signatures.
pub(crate) const ORIGIN_RATE: Allowance = Allowance {
    burst: 336,
    per_second: 32,
};
/// Signatures that we check: 50 µs each, so 20 % of a core; the burst is a join to a thousand peers.
pub(crate) const SIGNATURE_RATE: Allowance = Allowance {
    burst: 16_384,
    per_second: 4000,
};
/// A version of a record costs as much as one for each so many peers that hear it: what everybody says together must
/// fit through everybody's links, so a host of a thousand that changes all the time says it every four seconds...
pub const PUBLISH_PEERS: usize = 128;
/// ...and as much as one for each so many bytes of it: a hub's links are half a MTU for each twenty peers.
pub const PUBLISH_BYTES: usize = 2048;
/// Versions of one record of ours that we send out; later changes wait and go together.
pub(crate) const PUBLISH_RATE: Allowance = Allowance {
    burst: 5,
    per_second: 2,
};
/// All of them together: what others take of us ([`ORIGIN_RATE`]), and a little less. What they refused would wait
/// until stores are compared. Sixteen records that change all the time are heard of twice a second.
pub(crate) const PUBLISH_ALL_RATE: Allowance = Allowance {
    burst: 128,
    per_second: 30,
};
/// The pause after we jumped past a record of our own key; it doubles while another process answers.
pub const JUMP_PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest such pause: how often two clones trouble the network, and how long each does not hear of the other.
pub const JUMP_PAUSE_MAX: Duration = Duration::from_secs(15);
/// A clone is gone if nothing was heard of it for two of [`JUMP_PAUSE_MAX`], or two of [`BACKOFF_REFUSED`], and a bit.
pub const CLONE_SHOWN: Duration = Duration::from_secs(40);
/// How often two ends of a link compare their stores; what floods missed is found then.
pub const DIGEST_EVERY: Duration = Duration::from_secs(10);
/// Ranges with no more origins than this are listed, larger ones are halved further.
pub const RANGE_ORIGINS_MAX: usize = 32;
/// Ranges in one message.
pub const RANGES_MAX: usize = 1024;
/// Ranges and lists that one link may have us look at: a join, and then a walk down a few times a second.
pub(crate) const COMPARE_RATE: Allowance = Allowance {
    burst: 8192,
    per_second: 512,
};

/// Links in one part of a TOPOLOGY record: 12 KiB of 16.
pub const LINKS_PER_PART_MAX: usize = 512;
/// Parts of what one peer says of its links: a hub of all peers that there can be.
pub const TOPOLOGY_PARTS_MAX: usize = PEERS_MAX / LINKS_PER_PART_MAX;
/// How long a link that came back must last before it is said to be up...
pub const LINK_UP_HOLD: Duration = Duration::from_millis(1000);
/// ...if it had come back before within this time: one outage is no flapping, and ends for all at once.
pub const LINK_FLAP_MEMORY: Duration = Duration::from_secs(10);
/// Between two changes of a link's figures in the gossip: a thousand peers with twenty links each, whose round
/// trips all drift, stay below the budget of idle traffic.
pub const LINK_FIGURES_EVERY: Duration = Duration::from_secs(10);
/// The same for loss, which chooses no way: on a bad line a few dozen probes say something else each time.
pub const LINK_LOSS_EVERY: Duration = Duration::from_secs(60);
/// Loss is told within this time after a host's own second of each minute, or at the next: long enough that a look at
/// the links falls into it while figures change.
pub const LINK_LOSS_WITHIN: Duration = Duration::from_secs(12);
/// ...but a size that grew, as it does once on every new path: until it is known, relays' frames are cut in two.
pub const LINK_GROWTH_AFTER: Duration = Duration::from_millis(1000);

/// How long what is new of our links is gathered after we said something of them...
pub const LINKS_SAID_AFTER: Duration = Duration::from_millis(50);
/// ...and how often that doubles while it goes on, to 0.8 s: a host that starts makes its twenty links in two seconds...
pub const LINKS_PACE_MAX: u32 = 4;
/// ...until there was nothing to say for this long, after which it is said at once.
pub const LINKS_QUIET_AFTER: Duration = Duration::from_secs(2);

/// When the size that a way carries is no longer expected to grow: a few rounds of three tries with a second's wait
/// each on a slow path, and the word of others.
pub const SIZE_SETTLES_IN: Duration = Duration::from_secs(10);

/// Datagrams and routed messages cross at most this many links; sparse meshes of a thousand peers need four.
pub const HOPS_MAX: u8 = 8;
/// What each link costs a route beside its round trip: between equal ways the one with fewer relays is taken.
pub const HOP_COST: Duration = Duration::from_micros(200);
/// A relay route must beat the direct path by this much, and by a quarter: relaying costs others...
pub const RELAY_GAIN_MIN: Duration = Duration::from_millis(2);
/// ...and whichever is better must stay so for this long; a way that is dead is left at once.
pub const BETTER_WAY_HOLD: Duration = Duration::from_millis(1000);

/// Addresses that a peer names itself: as many as the engine tries for one peer.
pub const ENDPOINTS_MAX: usize = weft_engine::config::CANDIDATES_MAX;
/// Peers whose word on our address is kept; a few tell a NAT.
pub const OBSERVERS_MAX: usize = 64;
/// Body of a routed message: an address range with all its parts, and no bulk.
pub const ROUTED_BODY_MAX: usize = 16 * 1024;
/// Origins whose routed messages are counted, one entry of 60 bytes for each and each neighbour that it comes by.
pub const ROUTED_ORIGINS_MAX: usize = 8192;

/// Routed messages that one origin may send through one neighbour: a session needs five, a range of addresses a few.
pub(crate) const ROUTED_RATE: Allowance = Allowance {
    burst: 400,
    per_second: 100,
};
/// Sessions that one origin may begin through one neighbour; a burst for its repeats.
pub(crate) const SESSION_RELAY_RATE: Allowance = Allowance {
    burst: 20,
    per_second: SESSION_STARTS_PER_SECOND_MAX,
};
/// Sessions that we begin through one neighbour: below what it lets pass.
pub(crate) const SESSION_BEGIN_RATE: Allowance = Allowance {
    burst: 8,
    per_second: SESSION_STARTS_PER_SECOND_MAX - 1,
};
/// How long others' news of their links are gathered before routes are computed: a search over a thousand peers
/// takes a quarter of a millisecond.
pub const ROUTES_AFTER: Duration = Duration::from_millis(50);
/// How long new peers, and addresses at which they may be, are gathered before the engine gets routes to them.
pub const FIB_AFTER: Duration = Duration::from_millis(50);
/// How long after a FIB the next one waits, for each peer: making one takes some half a microsecond a peer, and while
/// a mesh of a thousand starts, every session that is made asks for one.
pub const FIB_PACE_A_PEER: Duration = Duration::from_micros(20);
/// The same for the trees of floods, which take a search for each neighbour.
pub const GROUP_ROUTES_AFTER: Duration = Duration::from_millis(250);
/// How often both double while news go on, as in a cold start: to 0.4 s and 2 s...
pub const ROUTES_PACE_MAX: u32 = 3;
/// ...until there were none for this long.
pub const ROUTES_QUIET_AFTER: Duration = Duration::from_secs(1);
/// Changes of links that are remembered, so that what they do not touch is not computed anew: a cold start of a
/// thousand peers brings a few thousand in the longest of these times.
pub const EDGE_CHANGES_MAX: usize = 8192;
/// Members to whom our group key is given at once: what session handshakes by a few neighbours keep busy.
pub const GROUP_HANDOUTS_MAX: usize = 64;
/// First pause before a member that does not answer is given the key again; it doubles...
pub const GROUP_RETRY_MIN: Duration = Duration::from_secs(1);
/// ...up to this.
pub const GROUP_RETRY_MAX: Duration = Duration::from_secs(30);
/// A new key is used after this though some have not taken it: sessions with a thousand peers take 13 s.
pub const GROUP_HANDOUT_MAX: Duration = Duration::from_secs(30);
/// How often we look who came and went, while nothing else is to be done.
pub const GROUP_LOOK_EVERY: Duration = Duration::from_secs(10);
/// A member that nothing leads to for this long has departed; shorter outages are those of a network.
pub const GROUP_DEPARTED_AFTER: Duration = Duration::from_secs(60);
/// Between two keys that departures call for: at a thousand peers each costs a thousand session handshakes.
pub const GROUP_RENEW_PAUSE: Duration = Duration::from_secs(300);
/// A key is replaced after this time in any case.
pub const GROUP_KEY_LIFE: Duration = Duration::from_secs(3600);
/// A peer that we have a session and no path with is told where we are again after this, then ever later...
pub const PUNCH_PAUSE_MIN: Duration = Duration::from_secs(2);
/// ...up to this...
pub const PUNCH_QUICK_MAX: Duration = Duration::from_secs(8);
/// ...and then each time after this: somebody may have opened a firewall. Less a fifth, a second of probes and some
/// more it is longer than the 30 s that NATs remember a datagram which nobody answered.
pub const PUNCH_PAUSE_MAX: Duration = Duration::from_secs(45);
/// How long a peer is probed after both ends were told to: four probes in the first second, and an answer.
pub const MEETING_LENGTH: Duration = Duration::from_secs(2);
/// How long after a path it is looked for all the time, as networks that fail heal.
pub const PATH_PATIENCE: Duration = Duration::from_secs(60);
/// Shortest time between two tries to meet.
pub const PUNCH_SOON: Duration = Duration::from_millis(500);
/// A session without frames for this long is not renewed, unless the peer has a link; it ends with its last epoch.
pub const SESSION_IDLE_AFTER: Duration = Duration::from_secs(100);
/// How often frames are counted to know that, and how long a renewal may be late when they start again.
pub const TRAFFIC_EVERY: Duration = Duration::from_secs(10);
/// Pings under way at once; people start a few.
pub const PINGS_MAX: usize = 64;
/// How long a ping may take, a session that is made for it included.
pub const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// Requests of the local API that wait for the loop; the API has at most 64 connections.
pub const REQUESTS_MAX: usize = 64;

/// What a node is started with.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// The hash of the network's name.
    pub network_id: NetworkId,
    /// The network's name, for status.
    pub network: String,
    /// The secrets that prove membership, best first.
    pub secrets: Secrets,
    /// Shown name; derived from the identity unless given.
    pub name: Option<PeerName>,
    /// For people; the host's name unless given.
    pub nickname: Nickname,
    /// Our TCP and UDP port.
    pub port: u16,
    /// Sending workers of our engine, 1 to 16.
    pub workers: u8,
    /// The data ciphers we offer, each with its measured cost in nanoseconds per KiB.
    pub ciphers: Vec<CipherCost>,
    /// Overlay MTU in bytes, for status and for others to compare with theirs.
    pub mtu: u16,
    /// True when peers that nobody named may be dialled and tried directly.
    pub discovery: bool,
    /// True when we pass on datagrams for others.
    pub relay: bool,
    /// Random for this process.
    pub boot_id: BootId,
    /// Rises with each start, durable before the first message.
    pub incarnation: u64,
    /// Peers to dial, as typed.
    pub targets: Vec<String>,
    /// When epochs are replaced.
    pub rekey: RekeyConfig,
}

/// One data cipher and what it costs us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CipherCost {
    /// The cipher.
    pub suite: CipherSuite,
    /// Nanoseconds per KiB sealed, measured at start.
    pub ns_per_kib: u32,
}

/// Random for each process; two of one key at once prove a clone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BootId(pub [u8; 8]);

/// When epochs are replaced; tests shorten it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RekeyConfig {
    /// Age at which an epoch is replaced, ±10 %.
    pub after: Duration,
    /// Session handshakes that one peer may begin in a second.
    pub starts_per_second_max: u32,
}

impl Default for RekeyConfig {
    fn default() -> Self {
        Self {
            after: REKEY_AFTER,
            starts_per_second_max: SESSION_STARTS_PER_SECOND_MAX,
        }
    }
}

impl RekeyConfig {
    /// Replaces epochs every `interval`, for tests that want years of rekeys in a minute.
    #[must_use]
    pub fn accelerated(interval: Duration) -> Self {
        Self {
            after: interval,
            starts_per_second_max: u32::MAX,
        }
    }
}

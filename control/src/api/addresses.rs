//! The words about addresses: the host's own place, who owns what, who goes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::yes;

/// Put the host itself on the network, or take it off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExposeRequest {
    /// Address arguments as typed; none means `net:default`.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Names in DNS for these addresses; those of an earlier call stay.
    #[serde(default)]
    pub names: Vec<String>,
    /// Translate addresses, so that hosts outside need no route back.
    #[serde(default = "yes")]
    pub masquerade: bool,
}

/// End the daemon and remove its state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetRequest {
    /// Also if nobody takes over the addresses.
    #[serde(default)]
    pub force: bool,
}

/// Take over what a dead peer owned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveRequest {
    /// Name, nickname or PeerId.
    pub peer: String,
    /// Without a majority, and of a peer within reach.
    #[serde(default)]
    pub force: bool,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// What a removal brought.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveReply {
    /// Addresses taken over by this host.
    pub addresses: u64,
    /// Those that the same removal brought to other hosts, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub others: BTreeMap<String, u64>,
    /// Voters within reach.
    pub votes: usize,
    /// Votes that decide.
    pub majority: usize,
}

/// One thing that `weft ipam check` found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpamFinding {
    /// What does not fit together.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

/// What `weft status ipam` shows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct IpamReport {
    /// Weave's words: `ready`, `idle`, `awaiting consensus (quorum: q, known: k)`, …
    pub state: String,
    /// Where addresses come from.
    pub range: String,
    /// What `net:default` means.
    pub default_subnet: String,
    /// Prefix of the IPv6 addresses that go with those of the default subnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range6: Option<String>,
    /// The first bytes of the ring's number.
    pub ring: Option<String>,
    /// Addresses in use on this host.
    pub active: u64,
    /// Who owns what, this host first.
    pub owners: Vec<IpamOwner>,
    /// Ranges that two peers claim.
    pub disputed: Vec<String>,
    /// Addresses in use here that belong to other peers, with their containers.
    pub misplaced: Vec<(IpAddr, String)>,
    /// Peers with another ring or range, by PeerId.
    pub strangers: Vec<String>,
    /// Requests of every kind that wait: for addresses, for a first ring, for votes.
    pub waiting: usize,
    /// Of these, who waits for an address, and in which subnet.
    #[serde(default)]
    pub pending_allocates: Vec<PendingAddress>,
    /// Of these, who waits for this very address.
    #[serde(default)]
    pub pending_claims: Vec<PendingAddress>,
    /// What is known of the vote on a first ring, while one is awaited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub election: Option<IpamElection>,
    /// Who votes on removals, by PeerId.
    pub voters: Vec<String>,
    /// The numbers of all this.
    #[serde(default)]
    pub gauges: IpamGauges,
}

/// A request for an address that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingAddress {
    /// The container or other owner.
    pub holder: String,
    /// Subnet, or address with its prefix length.
    pub cidr: String,
}

/// A vote on a first ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpamElection {
    /// False for an observer.
    pub votes: bool,
    /// Voters within reach, this host among them.
    pub known: usize,
    /// Votes that decide.
    pub quorum: usize,
}

/// What can be drawn over time. But for `owned_ips`, Weave's metrics are called so, with `weave_` before it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct IpamGauges {
    /// Addresses in use on this host; Weave's label is `state="local-used"`.
    pub ips: u64,
    /// Addresses that this host owns.
    pub owned_ips: u64,
    /// Size of the range.
    pub max_ips: u64,
    /// Peers out of reach that own ranges.
    pub ipam_unreachable_count: u64,
    /// Their share of the range.
    pub ipam_unreachable_percentage: f64,
    /// Requests for some address that wait.
    pub ipam_pending_allocates: u64,
    /// Requests for a certain address that wait.
    pub ipam_pending_claims: u64,
}

/// One owner of ranges.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IpamOwner {
    /// PeerId.
    pub peer_id: String,
    /// Shown name.
    pub name: String,
    /// Nickname; empty if it is not known.
    pub nickname: String,
    /// Addresses owned.
    pub addresses: u64,
    /// Of the range, in percent.
    pub share: f64,
    /// False if it is out of reach.
    pub reachable: bool,
    /// True for a seed of which no peer has been heard.
    #[serde(default)]
    pub unheard: bool,
}

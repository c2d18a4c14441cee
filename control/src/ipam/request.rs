//! What can be asked of IPAM, and what it answers.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::config::{CLONE_SHOWN, LINK_DEAD_AFTER};
use crate::ipam::sight::Sight;
use crate::peer::{PeerId, PeerName};

/// One request; whoever asks numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpamRequestId(pub u64);

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// An address in a subnet; the one that the holder has there already, if it has one. In the default subnet
    /// one of IPv6 follows, if there is a prefix for that.
    Allocate {
        /// The container or other owner.
        holder: String,
        /// `None` means the default subnet.
        subnet: Option<Ipv4Net>,
    },
    /// This very address.
    Claim {
        /// The container or other owner.
        holder: String,
        /// Address and prefix length.
        address: IpNet,
    },
    /// The holder's addresses in a subnet, without giving one.
    Lookup {
        /// The container or other owner.
        holder: String,
        /// `None` means all that it has.
        subnet: Option<Ipv4Net>,
    },
    /// Frees one address.
    Release {
        /// Its owner.
        holder: String,
        /// The address.
        address: IpAddr,
    },
    /// Frees all addresses of a holder.
    ReleaseAll {
        /// The owner.
        holder: String,
    },
    /// Ends the wait of all requests for addresses of a holder: it leaves.
    Withdraw {
        /// The owner.
        holder: String,
    },
    /// All owners that exist, with the addresses on their interfaces: these are noted, and all other owners, and what
    /// is not on its owner's interface, are dead. What other peers own of them is fetched in the background.
    Present(Sight),
    /// Waits until there is a ring, and brings it about.
    Prime,
    /// Takes over what a dead peer owned.
    Remove {
        /// The peer.
        victim: PeerId,
        /// Without a majority, and of a peer that can be reached.
        force: bool,
        /// Only tell what would be done.
        dry_run: bool,
    },
    /// Gives all of our ranges away, for `reset`.
    Leave,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Addresses, in order.
    Addresses(Vec<IpNet>),
    /// Done.
    Done,
    /// Free.
    Freed {
        /// On disk, too; else once the store takes writes again.
        written: bool,
    },
    /// A removal, or what it would be.
    Removed {
        /// Addresses taken over by us.
        count: u64,
        /// Those that the same removal brought to others.
        others: Vec<(PeerId, u64)>,
        /// Voters that take part.
        votes: usize,
        /// Votes that decide.
        majority: usize,
    },
    /// Our ranges are with another peer.
    Left {
        /// The heir; `None` if there was nothing to give.
        heir: Option<PeerId>,
        /// Addresses given.
        count: u64,
    },
}

/// Why it was not done; the text is for the user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The subnet lies outside the range.
    #[error(
        "range {subnet} out of bounds: {range}; take a part of that, or launch all hosts with another --ipalloc-range"
    )]
    OutOfBounds {
        /// As asked.
        subnet: Ipv4Net,
        /// Where addresses come from.
        range: Ipv4Net,
    },
    /// Somebody else has the address on this host.
    #[error("address {address} is already owned by {holder}")]
    Held {
        /// The address.
        address: IpAddr,
        /// Who has it.
        holder: String,
    },
    /// The peer that owns the address does not give it.
    #[error("address {address} is owned by other peer {owner}{why}")]
    OwnedElsewhere {
        /// The address.
        address: IpAddr,
        /// The peer.
        owner: String,
        /// What is known about it.
        why: &'static str,
    },
    /// There is no ring yet.
    #[error("no ring yet: awaiting consensus (quorum: {quorum}, known: {known}){why}")]
    NoRing {
        /// Votes that decide.
        quorum: usize,
        /// Voters within reach.
        known: usize,
        /// What keeps peers within reach from it, with a semicolon before it; empty if nothing does.
        why: String,
    },
    /// An observer waits for others.
    #[error("no ring yet: this peer only observes, and {voters}")]
    Observing {
        /// What is known of those that vote.
        voters: String,
    },
    /// The store was lost, and what it knew is not known again.
    #[error(
        "the store was lost: nothing is given before peers have said what this host owns{missing}; \
         if there are none, `weft reset --force` begins anew"
    )]
    Relearning {
        /// Who has not said it, with a comma before it.
        missing: Missing,
    },
    /// No address is free within reach.
    #[error("no free address in {subnet}: {detail}")]
    NoSpace {
        /// Where.
        subnet: Ipv4Net,
        /// Who was asked and who is missing.
        detail: String,
    },
    /// The owner has too many addresses, or there are too many owners.
    #[error("{holder} has as many addresses as an interface may have")]
    TooMany {
        /// The owner.
        holder: String,
    },
    /// Too few voters are within reach.
    #[error(
        "removal of {victim} needs {majority} of {voters} votes, {votes} within reach{missing}; --force does without"
    )]
    NoMajority {
        /// Who was to be removed.
        victim: String,
        /// Votes that decide.
        majority: usize,
        /// All voters.
        voters: usize,
        /// Votes within reach.
        votes: usize,
        /// Who is missing.
        missing: Missing,
    },
    /// The peer lives.
    #[error("{victim} is within reach: run reset there, or use --force")]
    Alive {
        /// The peer.
        peer: PeerId,
        /// Its name.
        victim: String,
    },
    /// The peer was there a moment ago and may be still.
    #[error(
        "{victim} does not answer at the moment: wait until it counts as gone, {} s at most, and run this again; \
         not all of its containers need have stopped",
        LINK_DEAD_AFTER.as_secs()
    )]
    Silent {
        /// Its name.
        victim: String,
    },
    /// Nobody takes our ranges.
    #[error(
        "no peer within reach takes over {count} addresses: the others can use rmpeer, or use reset --force"
    )]
    NoHeir {
        /// Addresses that stay with us.
        count: u64,
    },
    /// Those that could take our ranges do not at the moment.
    #[error(
        "the peers within reach do not take over {count} addresses now, for they leave, too, or cannot write: \
         run reset again, one host after the other, or use reset --force"
    )]
    HeirsDecline {
        /// Addresses that stay with us.
        count: u64,
    },
    /// Leaving has failed when the ranges were with an heir already.
    #[error(
        "{why}; {count} addresses are with another peer already: containers that use them are blocked until they are \
         fetched back"
    )]
    HalfLeft {
        /// Why it has failed.
        why: Box<Self>,
        /// Addresses given.
        count: u64,
    },
    /// We own nothing, and nobody within reach has said that it knows what we gave away.
    #[error(
        "no peer within reach has heard what this host gave away: wait for one, or use reset --force"
    )]
    Unheard,
    /// We own nothing that we know of, and were perhaps given more.
    #[error(
        "{givers} cannot be reached, and may have given this host addresses that nobody else knows of: connect it and \
         run this again, or use reset --force"
    )]
    GiftsUnheard {
        /// Their names.
        givers: String,
    },
    /// We have a vote that would be missed.
    #[error(
        "leaving needs {majority} of {voters} votes, {votes} within reach{missing}; reset --force goes without"
    )]
    NoVotesToLeave {
        /// Votes that decide.
        majority: usize,
        /// All voters.
        voters: usize,
        /// Votes within reach.
        votes: usize,
        /// Who is missing.
        missing: Missing,
    },
    /// We voted on the first ring and may own a part of it.
    #[error(
        "this host voted on the network's first ranges and has not heard what came of it: wait for the others, or use reset --force"
    )]
    FirstRingUnknown,
    /// The store does not take writes.
    #[error("addresses cannot be written to the store: see the log; nothing was changed")]
    Store,
    /// The same, with what the disk said.
    #[error("addresses cannot be written to the store: {cause}; nothing was changed")]
    Disk {
        /// The disk's own words.
        cause: String,
    },
    /// The container died while it waited.
    #[error("container {0} died")]
    Died(String),
    /// Whoever asked went away while it waited.
    #[error("nobody waits for the address of {0} any more")]
    Abandoned(String),
    /// Its container was detached while it waited.
    #[error("{0} was taken off the network before it had its address")]
    Withdrawn(String),
    /// This peer runs twice, so that it may not give addresses.
    #[error(
        "another host runs with this host's identity: addresses are not given until one of them is reset, and for {} s more (as long after a store was put back from a backup)",
        CLONE_SHOWN.as_secs()
    )]
    Cloned,
    /// Too many requests wait.
    #[error("too many requests for addresses wait already")]
    Busy,
    /// Addresses are not given here.
    #[error("allocation is off on this host (--ipalloc-range '')")]
    Off,
    /// This peer is leaving.
    #[error("this peer is leaving the network")]
    Leaving,
}

impl Failure {
    /// The owner of addresses that it names, for whoever knows a better name.
    pub(crate) fn holder_mut(&mut self) -> Option<&mut String> {
        if let Self::Held { holder, .. }
        | Self::TooMany { holder }
        | Self::Died(holder)
        | Self::Abandoned(holder)
        | Self::Withdrawn(holder) = self
        {
            Some(holder)
        } else {
            None
        }
    }
}

/// The names of peers that are missed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Missing(pub Vec<String>);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        write!(f, ", missing: {}", self.0.join(", "))
    }
}

/// What `status ipam` shows.
#[derive(Debug, Clone, PartialEq)]
pub struct IpamStatus {
    /// One of Weave's words.
    pub state: String,
    /// Where addresses come from.
    pub range: Ipv4Net,
    /// What `net:default` means.
    pub default_subnet: Ipv4Net,
    /// Prefix of the IPv6 addresses that go with those of the default subnet.
    pub range6: Option<Ipv6Net>,
    /// The ring, if there is one.
    pub genesis: Option<String>,
    /// By owner, we first.
    pub owners: Vec<OwnerStatus>,
    /// Addresses in use on this host.
    pub active: u64,
    /// Spans that two histories claim.
    pub disputed: Vec<String>,
    /// Addresses in use here that another peer owns, with their holders.
    pub misplaced: Vec<(Ipv4Addr, String)>,
    /// Peers with another ring or another range.
    pub strangers: Vec<PeerId>,
    /// Requests of every kind that wait.
    pub waiting: usize,
    /// Of these, who waits for an address, and in which subnet.
    pub pending_allocates: Vec<(String, IpNet)>,
    /// Of these, who waits for this very address.
    pub pending_claims: Vec<(String, IpNet)>,
    /// What is known of the vote on a first ring, while one is awaited.
    pub election: Option<ElectionStatus>,
    /// The voters.
    pub members: Vec<PeerId>,
}

/// A vote on a first ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ElectionStatus {
    /// False for an observer.
    pub votes: bool,
    /// Voters within reach, we among them.
    pub known: usize,
    /// Votes that decide.
    pub quorum: usize,
}

/// One owner.
#[derive(Debug, Clone, PartialEq)]
pub struct OwnerStatus {
    /// The peer.
    pub peer: PeerId,
    /// Addresses it owns.
    pub count: u64,
    /// Of the range, in percent.
    pub share: f64,
    /// False if it cannot be reached.
    pub reachable: bool,
    /// The seed that stands for it: no peer of that name has been heard of.
    pub seed: Option<PeerName>,
}

//! Addresses for containers, unique in the whole network, without a store in the middle.
//!
//! ```text
//!             ┌───────────────────────── Ipam ─────────────────────────┐
//!  requests ─►│ allocate ─► holdings                      what is used   │─► answers
//!  messages ─►│ exchange ─► ring ◄─ compare   who owns what, everywhere  │─► messages, records
//!  records  ─►│ elect ────► paxos ─► council  first ring, removals       │─► writes
//!  written  ─►│ gate: nothing leaves before what it rests on is on disk  │
//!             └──────────────────────────────────────────────────────────┘
//! ```
//!
//! Sans-IO, one machine for each node. A peer owns ranges and gives addresses of them without asking anybody; only
//! the owner gives a range away; only a decree of the council takes one away. What peers know is merged by a join
//! (`claim`), so that the order in which they hear of it does not matter. Peers that meet compare first and send
//! frames after: an address that is no longer ours is blocked by then.

mod agreement;
mod allocate;
mod awaited;
mod called;
pub mod check;
mod claim;
mod codec;
mod compare;
mod council;
mod dispute;
mod durable;
mod elect;
mod exchange;
mod faults;
mod fetch;
mod flow;
mod gate;
mod holdings;
mod leave;
mod message;
mod paxos;
mod publish;
mod record;
mod relearn;
mod removal;
pub mod request;
mod ring;
mod seats;
pub mod sight;
pub mod six;
mod space;
pub mod span;
mod start;
mod status;
mod unwritten;
mod vote;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use ipnet::{Ipv4Net, Ipv6Net};
use weft_engine::command::Flow;

pub use durable::{StoreChange, StoreContent, StoreDamage, check_content, range_of};
pub use faults::Faults;
pub use holdings::{ANONYMOUS, HOST};
pub use relearn::lost_store;
pub use ring::GenesisId;

use crate::ipam::allocate::Pending;
use crate::ipam::claim::FreeCounts;
use crate::ipam::compare::Settling;
use crate::ipam::dispute::Testimony;
use crate::ipam::elect::Election;
use crate::ipam::exchange::Exchange;
use crate::ipam::flow::Meeting;
use crate::ipam::gate::Gate;
use crate::ipam::holdings::Holdings;
use crate::ipam::leave::Leaving;
use crate::ipam::message::IpamMessage;
use crate::ipam::paxos::Acceptor;
use crate::ipam::publish::Published;
use crate::ipam::relearn::Relearning;
use crate::ipam::request::{Failure, IpamRequestId, Reply, Request};
use crate::ipam::ring::Ring;
use crate::ipam::seats::Bearers;
use crate::ipam::sight::Sight;
use crate::ipam::span::Span;
use crate::peer::{PeerId, PeerName};
use crate::random::Randomness;

/// How often unfinished business is looked at.
const STEP: Duration = Duration::from_millis(100);
/// How long an address stays with a container that died.
pub const DEATH_GRACE: Duration = Duration::from_secs(30);
/// How long a request waits unless it says otherwise.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How the first ring comes about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IpamInit {
    /// The voters agree on it.
    Consensus {
        /// How many voters there are, if it was said.
        electors: Option<usize>,
    },
    /// It is made of these names, everywhere the same.
    Seed(Vec<PeerName>),
    /// Others make it.
    Observer,
}

/// What the machine is started with.
#[derive(Debug, Clone)]
pub struct IpamConfig {
    /// Our identity.
    pub me: PeerId,
    /// Our shown name.
    pub name: PeerName,
    /// Rises with each start, durable before the first message.
    pub incarnation: u64,
    /// Where addresses come from.
    pub range: Ipv4Net,
    /// What `net:default` means.
    pub default_subnet: Ipv4Net,
    /// Prefix of IPv6 addresses that go with those of the default subnet.
    pub range6: Option<Ipv6Net>,
    /// How the first ring comes about.
    pub init: IpamInit,
    faults: Faults,
}

/// A peer within reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// Its name and nickname, for people.
    pub label: String,
    /// Its shown name; a seed may stand for it.
    pub name: PeerName,
    /// Its nickname.
    pub nickname: String,
    /// The latest start of it that is known.
    pub incarnation: u64,
    /// Frames are, or will be, exchanged with it.
    pub meets: bool,
}

/// Something that happened outside.
#[derive(Debug, Clone)]
pub enum IpamInput {
    /// `deadline()` has come.
    Tick,
    /// A peer's record of the ring kind.
    Record {
        /// Who signed it.
        origin: PeerId,
        /// Its body.
        body: Vec<u8>,
    },
    /// A peer's message.
    Message {
        /// Who sent it.
        from: PeerId,
        /// Its body.
        body: Vec<u8>,
    },
    /// A write, and all before it, is durable, or failed.
    Persisted {
        /// The write.
        token: u64,
        /// False if it failed.
        durable: bool,
    },
    /// The store works again and holds this.
    Reloaded(StoreContent),
    /// All peers within reach.
    Reachable(BTreeMap<PeerId, Contact>),
    /// How many other hosts were named as targets; whoever was only discovered does not count.
    Targets(usize),
    /// Something is asked for.
    Request {
        /// Answered with [`IpamOutput::Answer`].
        request: IpamRequestId,
        /// What.
        what: Request,
        /// Until when.
        deadline: Option<Instant>,
    },
    /// Whoever asked has gone.
    Cancel(IpamRequestId),
    /// A container died; its addresses stay with it for [`DEATH_GRACE`].
    Died(String),
    /// A container lives.
    Lives(String),
    /// Another process runs with our identity, or no longer does.
    Cloned(bool),
}

/// Something to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum IpamOutput {
    /// Publish a record of the ring kind; an empty body withdraws it.
    Publish {
        /// Its number.
        part: u16,
        /// Its body.
        body: Vec<u8>,
    },
    /// Send a message.
    Send {
        /// To whom.
        to: PeerId,
        /// Its body.
        body: Vec<u8>,
    },
    /// Write all of this or nothing, in the order of the tokens.
    Persist {
        /// Comes back with [`IpamInput::Persisted`].
        token: u64,
        /// What.
        changes: Vec<StoreChange>,
    },
    /// A write failed: open the store again and say what it holds, with [`IpamInput::Reloaded`].
    Reload,
    /// A request is done.
    Answer {
        /// The request.
        request: IpamRequestId,
        /// Its result.
        result: Result<Reply, Failure>,
    },
    /// What frames may do between us and a peer. Until the first of these: nothing.
    Flow {
        /// The peer.
        peer: PeerId,
        /// From now on.
        flow: Flow,
    },
    /// All addresses in use here that must not be on the wire.
    Blocked(BTreeSet<u32>),
    /// For the log.
    Notice(IpamNotice),
}

/// One line for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IpamNotice {
    /// There is a ring.
    RingKnown {
        /// Which.
        genesis: GenesisId,
    },
    /// A peer belongs to another ring, or has another range.
    Stranger {
        /// The peer.
        peer: PeerId,
        /// Why.
        why: String,
    },
    /// We were removed while we were away.
    Removed {
        /// The decree.
        index: u64,
    },
    /// These containers need new addresses: another peer owns theirs and does not give them back.
    Readdress {
        /// The container.
        holder: String,
        /// Its address.
        address: std::net::Ipv4Addr,
    },
    /// A range is claimed by two histories.
    Disputed {
        /// The range.
        span: Span,
    },
    /// A dispute is settled.
    Settled {
        /// The range.
        span: Span,
    },
    /// The addresses of a dead container are free.
    Freed {
        /// The container.
        holder: String,
    },
    /// The store was lost, and it is known again what we own.
    Relearned {
        /// Addresses.
        count: u64,
    },
}

/// The machine.
#[derive(Debug)]
pub struct Ipam {
    config: IpamConfig,
    random: Randomness,
    ring: Option<Ring>,
    /// What we own without dispute; follows the ring.
    owned: Vec<Span>,
    acceptor: Acceptor,
    holdings: Holdings,
    gate: Gate,
    contacts: BTreeMap<PeerId, Contact>,
    /// Peers out of reach that own ranges or vote, as they were last: people go by their names.
    gone: BTreeMap<PeerId, Contact>,
    /// Who is in reach has changed: perhaps also what somebody is called.
    called_changed: bool,
    /// Follows the contacts.
    bearers: Bearers,
    meetings: BTreeMap<PeerId, Meeting>,
    strangers: BTreeSet<PeerId>,
    /// Whether a peer votes on a first ring, as it says.
    voting: BTreeMap<PeerId, bool>,
    free: FreeCounts,
    settling: Settling,
    testimony: Testimony,
    exchange: Exchange,
    election: Election,
    published: Published,
    pending: BTreeMap<IpamRequestId, Pending>,
    leaving: Option<Leaving>,
    /// What was seen in containers and may not be on disk: it is true all the same, whatever a store holds that failed.
    sight: Option<Sight>,
    inheriting: BTreeMap<PeerId, Instant>,
    cloned: bool,
    store_failed: bool,
    relearning: Relearning,
    removal_told: u64,
    blocked: BTreeSet<u32>,
    stepped_at: Instant,
}

impl Ipam {
    /// Feeds one event in; drain [`Ipam::poll_output`] before the next.
    pub fn handle(&mut self, input: IpamInput, now: Instant) {
        if self.store_failed {
            self.handle_without_store(input, now);
            return;
        }
        match input {
            IpamInput::Tick => {}
            IpamInput::Record { origin, body } => self.record(origin, &body, now),
            IpamInput::Message { from, body } => self.message(from, &body, now),
            IpamInput::Persisted { token, durable } => self.persisted(token, durable),
            IpamInput::Reloaded(_) => {}
            IpamInput::Reachable(contacts) => self.reachable(contacts, now),
            IpamInput::Targets(count) => self.election.targets = count,
            IpamInput::Request {
                request,
                what,
                deadline,
            } => self.request(request, what, deadline, now),
            IpamInput::Cancel(request) => {
                self.pending.remove(&request);
            }
            IpamInput::Died(holder) => self.died(&holder, now),
            IpamInput::Lives(holder) => self.holdings.lives(&holder),
            IpamInput::Cloned(cloned) => self.cloned = cloned,
        }
        if now >= self.stepped_at + STEP {
            self.stepped_at = now;
            self.step(now);
        }
        self.advance_requests(now);
        self.finish(now);
    }

    /// Returns the next thing to be done.
    pub fn poll_output(&mut self) -> Option<IpamOutput> {
        self.gate.poll()
    }

    /// Returns when [`IpamInput::Tick`] is next due.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let is_busy = !self.pending.is_empty()
            || self.has_unfinished_meetings()
            || self.has_unfinished_decrees()
            || self.leaving.is_some()
            || self.has_unfinished_relearning()
            || !self.blocked.is_empty()
            || self
                .ring
                .as_ref()
                .is_some_and(|ring| self.has_disputes(ring));
        if is_busy || self.store_failed {
            return Some(self.stepped_at + STEP);
        }
        let freed = self.holdings.first_death().map(|died| died + DEATH_GRACE);
        let compare = (!self.contacts.is_empty()).then(|| self.compare_due());
        [freed, compare].into_iter().flatten().min()
    }

    /// What is looked at again and again until it is done.
    fn step(&mut self, now: Instant) {
        self.free_the_dead(now);
        self.step_meetings(now);
        self.step_relearning(now);
        self.step_election(now);
        self.step_disputes(now);
        self.step_misplaced(now);
        self.step_leaving(now);
    }

    fn message(&mut self, from: PeerId, body: &[u8], now: Instant) {
        if body.is_empty() {
            // It gives no addresses, so there is nothing to agree on, nor to learn from it.
            self.relearning.has_no_say(from);
            self.agreed(from, now);
            self.hears_us(from);
            return;
        }
        let Ok(message) = IpamMessage::decode(body) else {
            return;
        };
        match message {
            IpamMessage::Digest { .. } | IpamMessage::Ring { .. } | IpamMessage::RingWanted => {
                self.compare_message(from, message, now);
            }
            IpamMessage::Want { .. } | IpamMessage::Given { .. } | IpamMessage::Denied { .. } => {
                self.exchange_message(from, message, now);
            }
            IpamMessage::Prepare { .. }
            | IpamMessage::Promise { .. }
            | IpamMessage::Refused { .. }
            | IpamMessage::Accept { .. }
            | IpamMessage::Voted { .. } => self.election_message(from, message, now),
            IpamMessage::Disputed { .. } | IpamMessage::InUse { .. } => {
                self.dispute_message(from, message, now);
            }
            IpamMessage::Inherit { .. } | IpamMessage::Inherits { .. } => {
                self.leave_message(from, &message, now);
            }
        }
    }

    fn send(&mut self, to: PeerId, message: &IpamMessage) {
        self.gate.stage(IpamOutput::Send {
            to,
            body: message.encode(),
        });
    }

    fn notice(&mut self, notice: IpamNotice) {
        self.gate.stage(IpamOutput::Notice(notice));
    }

    fn range(&self) -> Span {
        Span::of(self.config.range)
    }

    /// A peer's name for people.
    fn label(&self, peer: PeerId) -> String {
        let gone = || self.gone.get(&peer);
        if let Some(contact) = self.contacts.get(&peer).or_else(gone) {
            return contact.label.clone();
        }
        let name = self.seed_of(peer).unwrap_or_else(|| peer.name());
        name.to_string()
    }

    /// Ends an input: what is blocked, published, written, and only then the rest.
    fn finish(&mut self, now: Instant) {
        let blocked = self.addresses_to_block();
        if blocked != self.blocked {
            self.gate.at_once(IpamOutput::Blocked(blocked.clone()));
            self.blocked = blocked;
        }
        self.tell_flows(now);
        self.publish(now);
        let called_changed =
            std::mem::take(&mut self.called_changed) || self.gate.is_ring_changed();
        let called = called_changed.then(|| self.called());
        self.gate.write(
            self.ring.as_ref(),
            &self.acceptor,
            &mut self.holdings,
            self.relearning.lost,
            called,
            self.config.faults,
        );
    }
}

#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;

//! With whom frames may flow: two that meet first agree who owns what, and each says so to the other.
//!
//! ```text
//!  Shut ─► our knowledge is the same ─► Heard ─► the peer says that it agrees ─► Open
//!    ▲                                                                            │
//!    └── out of reach, or it does not know of a removal or a dispute that we know ─┘
//! ```
//!
//! The peer drops our frames until it agrees, so ours wait until it has said that. What is blocked was told by then.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use weft_engine::command::Flow;

use crate::ipam::agreement::is_due;
use crate::ipam::ring::Run;
use crate::ipam::seats::Bearers;
use crate::ipam::{Contact, Ipam, IpamOutput};
use crate::peer::PeerId;

/// A peer with which we do not come to agree is heard and spoken to after this time all the same: its store is broken
/// or it is not of our kind, and its containers have done no harm. Whoever works agrees within a few round trips, and
/// what is in dispute is blocked by then, whoever says it.
const MUTE_MAX: Duration = Duration::from_secs(10);

/// What stands between us and one peer.
#[derive(Debug, Default)]
pub(crate) struct Meeting {
    pub(crate) agreed: bool,
    /// The peer has agreed, too.
    pub(crate) hears: bool,
    flow: Option<Flow>,
    /// When we met, or began to doubt.
    since: Option<Instant>,
    /// Who lost by what this peer has told us, and has not said yet that it knows: it is heard now, this peer after.
    passed_over: BTreeSet<PeerId>,
    pub(crate) compared_at: Option<Instant>,
    pub(crate) sent_at: Option<Instant>,
    /// Parts of a ring that is not whole yet.
    pub(crate) parts: Option<(u64, BTreeMap<u16, Vec<Run>>)>,
}

impl Meeting {
    pub(crate) fn begun(now: Instant) -> Self {
        Self {
            since: Some(now),
            ..Self::default()
        }
    }
}

impl Ipam {
    /// Notes who is within reach; returns those that are met from now on.
    pub(crate) fn meet(
        &mut self,
        contacts: BTreeMap<PeerId, Contact>,
        now: Instant,
    ) -> Vec<PeerId> {
        let is_met = |peer: &PeerId| contacts.get(peer).is_some_and(|contact| contact.meets);
        let known = self.meetings.keys().copied();
        for peer in known.filter(|peer| !is_met(peer)).collect::<Vec<_>>() {
            self.meetings.remove(&peer);
            let flow = Flow::Shut;
            self.gate.at_once(IpamOutput::Flow { peer, flow });
        }
        self.settling
            .waits_for
            .retain(|peer| contacts.contains_key(peer));
        self.exchange.lost(&contacts);
        self.strangers.retain(|peer| contacts.contains_key(peer));
        let new: Vec<PeerId> = contacts
            .iter()
            .filter(|(peer, contact)| contact.meets && !self.meetings.contains_key(peer))
            .map(|(peer, _)| *peer)
            .collect();
        for peer in &new {
            self.meetings.insert(*peer, Meeting::begun(now));
        }
        for meeting in self.meetings.values_mut() {
            meeting
                .passed_over
                .retain(|peer| contacts.contains_key(peer));
        }
        self.election
            .other_counts
            .retain(|peer, _| contacts.contains_key(peer));
        self.bearers = Bearers::of(&contacts);
        let known = std::mem::replace(&mut self.contacts, contacts);
        self.note_gone(known);
        self.called_changed = true;
        new
    }

    /// Keeps what people call those of them that are gone and matter still.
    fn note_gone(&mut self, known: BTreeMap<PeerId, Contact>) {
        let matter = self.owners();
        self.gone.extend(known);
        let contacts = &self.contacts;
        self.gone
            .retain(|peer, _| matter.contains(peer) && !contacts.contains_key(peer));
    }

    pub(crate) fn agreed(&mut self, peer: PeerId, now: Instant) {
        if let Some(meeting) = self.meetings.get_mut(&peer) {
            meeting.agreed = meeting.passed_over.is_empty();
        }
        self.knows_what_we_know(peer);
        self.has_heard(peer, now);
    }

    /// A peer that we do not hear yet says that somebody had given away what we thought its own. If its store is old,
    /// or a copy gave it, it does not know that, and it is heard: it is to know before the other is heard as well.
    pub(crate) fn passes_over(
        &mut self,
        told_by: Option<PeerId>,
        losers: BTreeSet<PeerId>,
        now: Instant,
    ) {
        for loser in losers {
            let is_heard = self.meetings.get(&loser).is_some_and(|with| with.agreed);
            let teller = told_by.and_then(|peer| self.meetings.get_mut(&peer));
            if let Some(teller) = teller.filter(|with| is_heard && !with.agreed)
                && teller.passed_over.insert(loser)
            {
                self.compare(loser, true, now);
            }
        }
    }

    fn has_heard(&mut self, loser: PeerId, now: Instant) {
        let mut freed = Vec::new();
        for (peer, meeting) in &mut self.meetings {
            if meeting.passed_over.remove(&loser) && meeting.passed_over.is_empty() {
                freed.push(*peer);
            }
        }
        for peer in freed {
            self.compare(peer, true, now);
        }
    }

    /// The peer has heard the same of us, and wants nothing back of what we took over.
    pub(crate) fn hears_us(&mut self, peer: PeerId) {
        if let Some(meeting) = self.meetings.get_mut(&peer) {
            meeting.hears = meeting.agreed;
        }
        self.settling.waits_for.remove(&peer);
        self.settle();
    }

    pub(crate) fn close(&mut self, peer: PeerId, now: Instant) {
        if let Some(meeting) = self.meetings.get_mut(&peer) {
            (meeting.agreed, meeting.hears) = (false, false);
            meeting.since = Some(now);
        }
    }

    /// Says with whom frames may flow; after it was said what is blocked.
    pub(crate) fn tell_flows(&mut self, now: Instant) {
        for (peer, meeting) in &mut self.meetings {
            let is_mute = is_due(meeting.since, MUTE_MAX, now) && !self.strangers.contains(peer);
            let flow = match (meeting.agreed, meeting.hears) {
                (true, true) => Flow::Open,
                _ if is_mute => Flow::Open,
                (true, false) => Flow::Heard,
                (false, _) => Flow::Shut,
            };
            if meeting.flow != Some(flow) {
                meeting.flow = Some(flow);
                let peer = *peer;
                self.gate.at_once(IpamOutput::Flow { peer, flow });
            }
        }
    }
}

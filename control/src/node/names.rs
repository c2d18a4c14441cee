//! The node's part in DNS: says this host's names in records, and tells the driver what others say.
//!
//! ```text
//!  driver ── Input::Names: bodies by part ──► publish, withdraw
//!  record_changed, a peer lost or found ──► entries of an origin ──► Output::Names ──► driver
//! ```
//!
//! What an origin says counts while something leads to it: of a host that is cut off no name is answered for, and all
//! are again as soon as it is back, from the records that were kept.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::config::DNS_NAMES_PER_ORIGIN_MAX;
use crate::dns::names::Entry;
use crate::dns::record;
use crate::node::Node;
use crate::node::exchange::Output;
use crate::peer::{PeerId, PeerName};
use crate::record::RecordKind;

/// What the node remembers of names.
#[derive(Debug, Default)]
pub(super) struct Namings {
    /// The parts that we say.
    said: BTreeSet<u16>,
    /// Origins that have names, and whether they are answered for.
    origins: BTreeMap<PeerId, bool>,
    /// Somebody may have become reachable, or no longer be.
    pub(super) look: bool,
}

impl Node {
    /// Says these names and no others.
    pub(super) fn say_names(&mut self, bodies: BTreeMap<u16, Vec<u8>>, now: Instant) {
        let parts = bodies.keys().copied().collect::<BTreeSet<_>>();
        for gone in self.namings.said.difference(&parts) {
            self.gossip.withdraw(RecordKind::Names, *gone, now);
        }
        for (part, body) in bodies {
            self.gossip.publish(RecordKind::Names, part, body, now);
        }
        self.namings.said = parts;
    }

    /// An origin says something else.
    pub(super) fn names_record_changed(&mut self, origin: PeerId) {
        let entries = self.names_of(origin);
        if entries.is_empty() {
            if self.namings.origins.remove(&origin).is_some() {
                self.tell_names(origin, Vec::new());
            }
            return;
        }
        let is_shown = self.is_answered_for(origin);
        let was_shown = self.namings.origins.insert(origin, is_shown);
        if is_shown {
            self.tell_names(origin, entries);
        } else if was_shown == Some(true) {
            self.tell_names(origin, Vec::new());
        }
    }

    /// Shows the names of those that have come, and hides those of the lost.
    pub(super) fn names_follow_reach(&mut self) {
        self.namings.look = false;
        let changed = self
            .namings
            .origins
            .iter()
            .filter(|(origin, is_shown)| self.is_answered_for(**origin) != **is_shown)
            .map(|(origin, _)| *origin)
            .collect::<Vec<_>>();
        for origin in changed {
            self.names_record_changed(origin);
        }
    }

    /// Whether something leads to the host, so that an answer is of use.
    fn is_answered_for(&self, id: PeerId) -> bool {
        let peer = self.peers.find(id);
        peer.is_some_and(|peer| peer.link.is_some() || peer.is_data_up())
    }

    fn tell_names(&mut self, origin: PeerId, entries: Vec<Entry>) {
        let entries = entries.into();
        self.outputs.push_back(Output::Names { origin, entries });
    }

    /// All that an origin says, part after part.
    fn names_of(&self, origin: PeerId) -> Vec<Entry> {
        let bodies = self.gossip.bodies_of(origin, RecordKind::Names);
        let parsed = bodies.filter_map(record::parse);
        let mut entries = parsed.flat_map(|(entries, _)| entries).collect::<Vec<_>>();
        entries.truncate(DNS_NAMES_PER_ORIGIN_MAX);
        entries
    }

    /// The name by which a peer is shown.
    #[must_use]
    pub(crate) fn shown_name(&self, id: PeerId) -> PeerName {
        if id == self.identity.peer_id() {
            return self.config.name.unwrap_or_else(|| id.name());
        }
        let known = self.peers.find(id).map(|peer| peer.hello.name);
        known.unwrap_or_else(|| id.name())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::dns::names::tests::entry;
    use crate::dns::record;
    use crate::node::exchange::Input;
    use crate::sim::Sim;
    use crate::sim::host::HostSpec;

    /// Two hosts know each other's names; a cut takes them away within the time in which a link is given up, and
    /// they are back two seconds after it has healed.
    #[test]
    fn names_come_with_their_host_and_go_with_it() {
        let mut sim = Sim::new(3);
        let a = sim.add(HostSpec::new("a"));
        let to_a = sim.hosts[a].address.to_string();
        let b = sim.add(HostSpec {
            targets: vec![to_a],
            ..HostSpec::new("b")
        });
        let said = [entry("web.weave.local", "10.32.0.1", "c1")];
        sim.input(a, Input::Names(record::encode(&said)));

        let id = sim.hosts[a].identity.peer_id();
        let shows = |sim: &Sim, count: usize| {
            let shown = sim.hosts[b].names.get(&id);
            shown.map_or(0, |entries| entries.len()) == count
        };
        sim.run_until(Duration::from_secs(5), "the name", |sim| shows(sim, 1));
        sim.cut(a, b);
        sim.run_until(Duration::from_secs(30), "no name", |sim| shows(sim, 0));
        sim.heal(a, b);
        sim.run_until(Duration::from_secs(12), "the name again", |sim| {
            shows(sim, 1)
        });
        sim.input(a, Input::Names(record::encode(&[])));
        sim.run_until(Duration::from_secs(2), "no name any more", |sim| {
            shows(sim, 0)
        });
    }
}

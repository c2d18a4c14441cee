//! The node's part in DNS: says this host's names in records, and tells the driver what others say.
//!
//! ```text
//!  driver ── Input::Names: bodies by part ──► publish, withdraw
//!  NAMES records, routes ──► changed origins ──► Output::Names ──► driver
//! ```
//!
//! What an origin says counts while something leads to it: of a host that is cut off no name is answered for, and all
//! are again as soon as it is back, from the records that were kept. Data is lost sooner than links are found dead: in
//! between, links are not believed ([`NAMES_DOUBT`]).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::config::{DNS_NAMES_PER_ORIGIN_MAX, NAMES_DOUBT};
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
    /// Origins that have names.
    origins: BTreeMap<PeerId, Shown>,
    /// Those of whom something is new.
    changed: BTreeSet<PeerId>,
    /// Somebody may have become reachable, or no longer be.
    look: bool,
    /// When the next doubt ends.
    doubt_ends: Option<Instant>,
}

impl Namings {
    /// The ways to others have changed.
    pub(super) fn ways_changed(&mut self) {
        self.look = true;
    }
}

/// Whether an origin is answered for, and why.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Shown {
    is_shown: bool,
    /// There was a way for frames that needed no first frame.
    had_way: bool,
    /// That way is gone, and until then links are not believed.
    doubted_until: Option<Instant>,
}

/// What leads to a host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Leads {
    /// Frames reach it.
    data: bool,
    /// They do over links that are always there.
    way: bool,
    /// Messages reach it, as far as is known.
    control: bool,
}

impl Shown {
    fn then(self, leads: Leads, now: Instant) -> Self {
        if leads.data {
            return Self {
                is_shown: true,
                had_way: leads.way,
                doubted_until: None,
            };
        }
        if !leads.control {
            return Self::default();
        }
        let fresh = self.had_way.then_some(now + NAMES_DOUBT);
        let doubted_until = fresh.or(self.doubted_until).filter(|until| now < *until);
        Self {
            is_shown: doubted_until.is_none(),
            had_way: false,
            doubted_until,
        }
    }
}

impl Node {
    /// Says these names and no others.
    pub(super) fn say_names(&mut self, bodies: BTreeMap<u16, Vec<u8>>, now: Instant) {
        let parts = bodies.keys().copied().collect::<BTreeSet<_>>();
        for (part, body) in bodies {
            self.gossip.publish(RecordKind::Names, part, body, now);
        }
        for gone in self.namings.said.difference(&parts) {
            self.gossip.withdraw(RecordKind::Names, *gone, now);
        }
        self.namings.said = parts;
    }

    /// An origin says something else.
    pub(super) fn names_record_changed(&mut self, origin: PeerId) {
        self.namings.changed.insert(origin);
    }

    /// Tells the driver what to answer for, if that has changed.
    pub(super) fn do_names(&mut self, now: Instant) {
        let is_over = self.namings.doubt_ends.is_some_and(|end| end <= now);
        if std::mem::take(&mut self.namings.look) || is_over {
            self.names_follow_reach(now);
        }
        for origin in std::mem::take(&mut self.namings.changed) {
            self.tell_of(origin, now);
        }
        self.wake(self.namings.doubt_ends);
    }

    /// Marks those whose names are to appear or to vanish.
    fn names_follow_reach(&mut self, now: Instant) {
        let mut origins = std::mem::take(&mut self.namings.origins);
        for (origin, shown) in &mut origins {
            let then = shown.then(self.leads_to(*origin), now);
            if then.is_shown != shown.is_shown {
                self.namings.changed.insert(*origin);
            }
            *shown = then;
        }
        let doubts = origins.values().filter_map(|shown| shown.doubted_until);
        self.namings.doubt_ends = doubts.min();
        self.namings.origins = origins;
    }

    fn tell_of(&mut self, origin: PeerId, now: Instant) {
        let entries = self.names_of(origin);
        if entries.is_empty() {
            if self.namings.origins.remove(&origin).is_some() {
                self.tell_names(origin, Vec::new());
            }
            return;
        }
        let before = self.namings.origins.get(&origin).copied();
        let shown = match before {
            Some(shown) => shown,
            None => Shown::default().then(self.leads_to(origin), now),
        };
        self.namings.origins.insert(origin, shown);
        if shown.is_shown {
            self.tell_names(origin, entries);
        } else if before.is_some() {
            self.tell_names(origin, Vec::new());
        }
    }

    fn leads_to(&self, id: PeerId) -> Leads {
        let way = self.routing.data_way(id).is_some();
        let Some(peer) = self.peers.find(id) else {
            return Leads::default();
        };
        let link = peer.link.and_then(|link| self.links.get(&link));
        let is_alive = link.is_some_and(|entry| !entry.suspect);
        Leads {
            data: way || peer.is_data_up(),
            way: way || peer.is_data_up() && peer.is_adjacent(),
            control: is_alive || self.routing.control_way(id).is_some(),
        }
    }

    fn tell_names(&mut self, origin: PeerId, entries: Vec<Entry>) {
        let entries = entries.into();
        self.outputs.push_back(Output::Names { origin, entries });
    }

    /// All that an origin says, part after part.
    fn names_of(&mut self, origin: PeerId) -> Vec<Entry> {
        let mut entries = Vec::new();
        for body in self.gossip.bodies_of(origin, RecordKind::Names) {
            let (said, senseless) = record::parse(body).unwrap_or((Vec::new(), 1));
            self.counters.names_senseless += senseless as u64;
            entries.extend(said);
        }
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

    use super::*;
    use crate::dns::name::DnsName;
    use crate::dns::names::tests::entry;
    use crate::dns::registry::{Filter, Giver, Registry};
    use crate::node::exchange::Input;
    use crate::random::Randomness;
    use crate::sim::host::HostSpec;
    use crate::sim::{HostId, Sim, first_instant};

    const JOINED: Duration = Duration::from_secs(10);
    /// Until a silent path is down, and two seconds.
    const LOST: Duration = Duration::from_millis(5500);
    const HEALED: Duration = Duration::from_secs(2);
    const CHANGED: Duration = Duration::from_secs(1);
    const MOMENT: Duration = Duration::from_millis(10);

    fn say(sim: &mut Sim, host: HostId, names: &[&str]) {
        let said = names.iter().map(|name| entry(name, "10.32.0.1", "c1"));
        let said = said.collect::<Vec<_>>();
        sim.input(
            host,
            Input::Names(
                Registry::new(said.into_iter().map(|entry| (entry, Giver::Container)))
                    .bodies_of(|_| true),
            ),
        );
    }

    /// A container as Docker names them comes to a host, or goes.
    fn change(registry: &mut Registry, number: usize, comes: bool) {
        let container = format!("{number:064x}");
        let name = DnsName::parse(&format!("c{number}.weave.local")).unwrap();
        let address = (0x0a20_0000 + u32::try_from(number).unwrap())
            .to_be_bytes()
            .into();
        if comes {
            registry
                .add(&container, &[name], &[address], Giver::Container)
                .unwrap();
        } else {
            let container = Some(container);
            registry.remove(&Filter {
                container,
                ..Filter::default()
            });
        }
    }

    fn shown_of(sim: &Sim, at: HostId, of: HostId) -> BTreeSet<Entry> {
        let shown = sim.hosts[at].names.get(&sim.identity(of).peer_id());
        shown
            .into_iter()
            .flat_map(|entries| entries.iter().cloned())
            .collect()
    }

    fn shows(sim: &Sim, at: HostId, of: HostId, count: usize) -> bool {
        let shown = sim.hosts[at].names.get(&sim.identity(of).peer_id());
        shown.map_or(0, |entries| entries.len()) == count
    }

    /// Each names the one before.
    fn line(count: usize, discovery: bool) -> Sim {
        let mut sim = Sim::new(3);
        for host in 0..count {
            let before = host.checked_sub(1);
            let before = before.map(|before| sim.hosts[before].address.to_string());
            let targets: Vec<_> = before.iter().map(String::as_str).collect();
            let spec = HostSpec::new(format!("h{host}")).dialling(&targets);
            sim.add(HostSpec { discovery, ..spec });
        }
        sim
    }

    /// On neighbours, and on those who know the host by a relay alone.
    #[test]
    fn names_come_with_their_host_and_go_with_it() {
        for discovery in [true, false] {
            let mut sim = line(4, discovery);
            say(&mut sim, 3, &["web.weave.local"]);
            let all = |sim: &Sim, count| (0..3).all(|at| shows(sim, at, 3, count));

            sim.run_until(JOINED, "the name", |sim| all(sim, 1));
            sim.run_for(Duration::from_secs(30));
            sim.split(|host| u8::from(host == 3));
            sim.run_until(LOST, "no name", |sim| all(sim, 0));
            sim.run_for(Duration::from_secs(60));
            assert!(all(&sim, 0), "a name of a host that is cut off");
            sim.join();
            sim.run_until(HEALED, "the name again", |sim| all(sim, 1));
            // Links are back a little later than the data that goes beside them.
            sim.run_for(Duration::from_secs(10));
            say(&mut sim, 3, &[]);
            sim.run_until(CHANGED, "no name any more", |sim| all(sim, 0));
        }
    }

    #[test]
    fn a_change_is_everywhere_within_a_second() {
        let mut sim = line(4, true);
        say(&mut sim, 0, &["a.weave.local"]);
        sim.run_until(JOINED, "the name", |sim| shows(sim, 3, 0, 1));
        sim.run_for(Duration::from_secs(10));
        for round in 0..50 {
            let count = 1 + round % 7;
            let names: Vec<_> = (0..count).map(|n| format!("n{n}.weave.local")).collect();
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            say(&mut sim, 0, &names);
            sim.run_until(CHANGED, "the change", |sim| {
                (1..4).all(|at| shows(sim, at, 0, count))
            });
        }
    }

    /// While a host's names grow from one record to many, shrink again and one of them flaps at each size.
    #[test]
    fn a_name_that_stays_is_never_missed() {
        let mut sim = line(3, true);
        let mut registry = Registry::default();
        for number in 0..40 {
            change(&mut registry, number, true);
        }
        let stays = registry.entries().cloned().collect::<BTreeSet<_>>();
        sim.input(0, Input::Names(registry.bodies_of(|_| true)));
        sim.run_until(JOINED, "the names", |sim| {
            (1..3).all(|at| shown_of(sim, at, 0) == stays)
        });

        let tell = |sim: &mut Sim, registry: &Registry| {
            sim.input(0, Input::Names(registry.bodies_of(|_| true)));
            let ever = sim.run_until_seen(20 * MOMENT, MOMENT, |sim| {
                (1..3).any(|at| !stays.is_subset(&shown_of(sim, at, 0)))
            });
            assert_eq!(ever, None, "missed with {}", registry.entries().count());
        };
        let (grows, shrinks) = (40..240, (40..240).rev());
        let steps = grows.map(|n| (n, true)).chain(shrinks.map(|n| (n, false)));
        for (number, comes) in steps {
            change(&mut registry, number, comes);
            tell(&mut sim, &registry);
            if number % 20 == 0 {
                for flap in 0..12 {
                    change(&mut registry, 1000, flap % 2 == 0);
                    tell(&mut sim, &registry);
                }
            }
        }
        let left = registry.entries().cloned().collect::<BTreeSet<_>>();
        assert_eq!(left, stays);
        assert!(stays.len() < registry.bodies_of(|_| true).len() * 40);
    }

    /// Two hundred containers come to three hosts, go and come, forty a second on each; what is heard is the truth a
    /// second after that.
    #[test]
    fn a_second_after_a_burst_all_is_known() {
        let mut sim = line(3, true);
        sim.run_for(JOINED);
        let mut registries = vec![Registry::default(); 3];
        let mut random = Randomness::seeded(5);
        let mut present = vec![BTreeSet::new(); 3];
        for _ in 0..4 {
            for _ in 0..400 {
                for host in 0..3 {
                    let number = random.u32() as usize % 200;
                    let comes = present[host].insert(number);
                    if !comes {
                        present[host].remove(&number);
                    }
                    change(&mut registries[host], number, comes);
                    sim.input(host, Input::Names(registries[host].bodies_of(|_| true)));
                }
                sim.run_for(Duration::from_millis(25));
            }
            sim.run_until(CHANGED, "what all say", |sim| {
                (0..9).all(|pair| {
                    let (at, of) = (pair / 3, pair % 3);
                    let said = || registries[of].entries().cloned();
                    at == of || shown_of(sim, at, of) == said().collect()
                })
            });
        }
        for host in 0..3 {
            assert_eq!(sim.counters(host)["records_over_rate"], 0);
        }
    }

    #[test]
    fn links_are_not_believed_at_once_when_data_is_lost() {
        let data = Leads {
            data: true,
            way: true,
            control: true,
        };
        let control = Leads {
            control: true,
            ..Leads::default()
        };
        let now = first_instant();
        let later = now + NAMES_DOUBT;
        let shown = Shown::default().then(data, now);
        assert!(shown.is_shown);
        let doubted = shown.then(control, now);
        assert!(!doubted.is_shown);
        assert!(!doubted.then(control, now + NAMES_DOUBT / 2).is_shown);
        assert!(doubted.then(control, later).is_shown);
        assert!(doubted.then(control, later).then(control, later).is_shown);
        assert!(doubted.then(data, now).is_shown);
        // A link that came after nothing led there is believed.
        let nothing = doubted.then(Leads::default(), now);
        assert!(!nothing.is_shown);
        assert!(nothing.then(control, now).is_shown);
        // So is one where data was only ever a session of its own: the next frame makes another.
        let session = Leads { way: false, ..data };
        assert!(
            Shown::default()
                .then(session, now)
                .then(control, now)
                .is_shown
        );
    }
}

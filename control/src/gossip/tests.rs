//! Gossip machines joined by links with a delay: what one says, all come to know, and at what cost.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::link::handshake::tests::config;
use crate::node::tests::first_instant;

mod pushes;

const SECOND: Duration = Duration::from_secs(1);

/// Machines and links; a message takes `delay`, unless it is lost with its link.
struct Net {
    now: Instant,
    delay: Duration,
    nodes: Vec<Gossip>,
    queue: BTreeMap<(Instant, u64), (usize, LinkId, Bytes)>,
    /// The other end of a link's end.
    ends: BTreeMap<(usize, LinkId), (usize, LinkId)>,
    sequence: u64,
    bytes: u64,
    changes: Vec<BTreeMap<RecordKey, Instant>>,
    clones: Vec<PeerId>,
}

fn identity(n: usize) -> Identity {
    Identity::generate(&mut Randomness::seeded(n as u64))
}

fn begin(n: usize, incarnation: u64, boot: u8, now: Instant) -> Gossip {
    let (identity, mut config) = (identity(n), config("host"));
    config.boot_id = crate::config::BootId([boot; 8]);
    Gossip::new(
        identity.clone(),
        config.network_id,
        incarnation,
        Hello::encode_record(&config, &identity),
        Randomness::seeded(1000 + n as u64),
        now,
    )
}

impl Net {
    fn new(count: usize) -> Self {
        let now = first_instant();
        Self {
            now,
            delay: Duration::from_millis(25),
            nodes: (0..count).map(|n| begin(n, 1, 1, now)).collect(),
            queue: BTreeMap::new(),
            ends: BTreeMap::new(),
            sequence: 0,
            bytes: 0,
            changes: vec![BTreeMap::new(); count],
            clones: Vec::new(),
        }
    }

    /// A ring, and `degree` more links from each machine to others at random.
    fn random_graph(count: usize, degree: usize) -> Self {
        let mut net = Self::new(count);
        let mut random = Randomness::seeded(7);
        for a in 0..count {
            net.join(a, (a + 1) % count);
            for _ in 0..degree {
                let b = random.u32() as usize % count;
                if a != b {
                    net.join(a, b);
                }
            }
        }
        net
    }

    fn id(&self, n: usize) -> PeerId {
        self.nodes[n].identity.peer_id()
    }

    fn join(&mut self, a: usize, b: usize) {
        self.sequence += 2;
        let (one, two) = (LinkId(self.sequence), LinkId(self.sequence + 1));
        self.ends.insert((a, one), (b, two));
        self.ends.insert((b, two), (a, one));
        let (id_a, id_b) = (self.id(a), self.id(b));
        self.nodes[a].link_up(one, id_b, self.now);
        self.nodes[b].link_up(two, id_a, self.now);
        self.carry_out(a);
        self.carry_out(b);
    }

    /// Takes every link between two machines away; what is under way is lost.
    fn part(&mut self, a: usize, b: usize) {
        let between = |(from, to): (&(usize, LinkId), &(usize, LinkId))| {
            (from.0 == a && to.0 == b || from.0 == b && to.0 == a).then_some(*from)
        };
        let ends: Vec<_> = self.ends.iter().filter_map(between).collect();
        for end in ends {
            self.ends.remove(&end);
            self.nodes[end.0].link_down(end.1);
        }
    }

    fn publish(&mut self, n: usize, kind: RecordKind, body: &[u8]) {
        self.nodes[n].publish(kind, 0, body.to_vec(), self.now);
        self.carry_out(n);
    }

    fn carry_out(&mut self, n: usize) {
        while let Some(output) = self.nodes[n].poll_output() {
            match output {
                GossipOutput::Send { link, message } => {
                    assert!(message.len() < crate::config::MESSAGE_LEN_MAX);
                    self.bytes += message.len() as u64;
                    if let Some((to, link)) = self.ends.get(&(n, link)) {
                        self.sequence += 1;
                        let key = (self.now + self.delay, self.sequence);
                        self.queue.insert(key, (*to, *link, message));
                    }
                }
                GossipOutput::Changed(key) => {
                    self.changes[n].insert(key, self.now);
                }
                GossipOutput::Jumped(_) => {}
                GossipOutput::Cloned { origin } => self.clones.push(origin),
            }
        }
    }

    fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let arrival = self.queue.first_key_value().map(|((at, _), _)| *at);
            let due = (0..self.nodes.len())
                .filter_map(|n| Some((self.nodes[n].deadline()?, n)))
                .min();
            match (arrival, due) {
                (Some(at), due) if at <= end && due.is_none_or(|(due, _)| at <= due) => {
                    self.now = at;
                    let Some((_, (n, link, message))) = self.queue.pop_first() else {
                        return;
                    };
                    if self.ends.contains_key(&(n, link)) {
                        self.nodes[n].receive(link, &message, at);
                        self.carry_out(n);
                    }
                }
                (_, Some((due, n))) if due <= end => {
                    self.now = self.now.max(due);
                    self.nodes[n].tick(self.now);
                    self.carry_out(n);
                }
                _ => break,
            }
        }
        self.now = end;
    }

    fn knows(&self, n: usize, of: usize, kind: RecordKind, body: &[u8]) -> bool {
        self.nodes[n].body(self.id(of), kind, 0) == Some(body)
    }

    fn all_know(&self, of: usize, kind: RecordKind, body: &[u8]) -> bool {
        (0..self.nodes.len()).all(|n| self.knows(n, of, kind, body))
    }

    fn hashes(&mut self) -> Vec<u64> {
        let hashes = self.nodes.iter_mut();
        hashes.map(|node| node.store.hash(Prefix::ROOT)).collect()
    }

    fn agree(&mut self) -> bool {
        let hashes = self.hashes();
        hashes.iter().all(|hash| *hash == hashes[0])
    }
}

#[test]
fn what_one_says_all_come_to_know() {
    let mut net = Net::new(4);
    for n in 0..3 {
        net.join(n, n + 1);
    }
    net.publish(0, RecordKind::Topology, b"links");
    net.run_for(SECOND);

    assert!(net.all_know(0, RecordKind::Topology, b"links"));
    assert!(net.agree());
    let bodies: Vec<_> = net.nodes[3].bodies(RecordKind::Topology).collect();
    assert_eq!(bodies, [(net.id(0), 0, b"links".as_slice())]);
    assert_eq!(net.nodes[3].bodies(RecordKind::Peer).count(), 4);

    net.nodes[0].withdraw(RecordKind::Topology, 0, net.now);
    net.carry_out(0);
    net.run_for(SECOND);
    assert_eq!(net.nodes[3].body(net.id(0), RecordKind::Topology, 0), None);
    assert_eq!(net.nodes[3].bodies(RecordKind::Topology).count(), 0);
}

#[test]
fn saying_the_same_again_costs_nothing() {
    let mut net = Net::new(2);
    net.join(0, 1);
    net.publish(0, RecordKind::Endpoints, b"here");
    net.run_for(SECOND);
    let before = net.bytes;

    net.publish(0, RecordKind::Endpoints, b"here");
    net.run_for(Duration::from_millis(100));

    assert_eq!(net.bytes, before);
}

#[test]
fn a_lively_record_is_told_at_once_and_then_in_steps() {
    let mut net = Net::new(2);
    net.join(0, 1);
    net.run_for(SECOND);
    for n in 0..100_u8 {
        net.publish(0, RecordKind::Topology, &[n]);
        net.run_for(Duration::from_millis(10));
    }
    let taken = net.nodes[1].counters.records_taken;
    net.run_for(SECOND);

    assert!(taken <= 10, "{taken} versions in a second");
    assert!(net.all_know(0, RecordKind::Topology, &[99]));
}

#[test]
fn two_halves_that_meet_learn_all_of_each_other() {
    let mut net = Net::new(80);
    for n in 0..79 {
        if n != 39 {
            net.join(n, n + 1);
        }
    }
    for n in 0..80 {
        net.publish(n, RecordKind::Topology, format!("links of {n}").as_bytes());
    }
    net.run_for(20 * SECOND);
    assert!(!net.agree());

    net.join(39, 40);
    net.run_for(5 * SECOND);

    assert!(net.agree());
    assert!(net.all_know(79, RecordKind::Topology, b"links of 79"));
}

/// A record that a link lost is found by the next comparison.
#[test]
fn what_was_lost_on_the_way_is_found_by_comparison() {
    let mut net = Net::new(2);
    net.join(0, 1);
    net.run_for(SECOND);
    net.publish(0, RecordKind::Names, b"lost");
    net.queue.clear();
    net.run_for(SECOND);
    assert!(!net.knows(1, 0, RecordKind::Names, b"lost"));

    net.run_for(2 * DIGEST_EVERY);

    assert!(net.all_know(0, RecordKind::Names, b"lost"));
}

#[test]
fn records_of_the_process_before_go_with_it() {
    let mut net = Net::new(3);
    net.join(0, 1);
    net.join(1, 2);
    net.publish(0, RecordKind::Names, b"old");
    net.publish(0, RecordKind::Topology, b"old");
    net.run_for(SECOND);
    net.part(0, 1);

    net.nodes[0] = begin(0, 2, 2, net.now);
    net.join(0, 1);
    net.publish(0, RecordKind::Topology, b"new");
    net.run_for(SECOND);

    assert!(net.all_know(0, RecordKind::Topology, b"new"));
    assert_eq!(net.nodes[2].body(net.id(0), RecordKind::Names, 0), None);
    assert_eq!(net.nodes[2].incarnation(net.id(0)), Some(2));
    assert!(net.agree() && net.clones.is_empty());
}

/// The store of a restored backup counts from where it was; the network knows better.
#[test]
fn a_restored_backup_jumps_past_what_it_said_before() {
    let mut net = Net::new(3);
    net.nodes[0] = begin(0, 9, 1, net.now);
    net.join(0, 1);
    net.join(1, 2);
    net.publish(0, RecordKind::Topology, b"before");
    net.run_for(SECOND);
    net.part(0, 1);

    net.nodes[0] = begin(0, 4, 2, net.now);
    net.publish(0, RecordKind::Topology, b"after");
    net.join(0, 1);
    net.run_for(SECOND);

    assert!(net.all_know(0, RecordKind::Topology, b"after"));
    assert_eq!(net.nodes[2].incarnation(net.id(0)), Some(10));
    assert!(net.agree() && net.clones.is_empty());
}

/// A cloned disk: both count one further, and each sees the other's records.
#[test]
fn a_living_clone_is_proved_and_stays_cheap() {
    for (ours, theirs) in [(5, 6), (6, 6)] {
        let mut net = Net::new(4);
        net.nodes[0] = begin(0, ours, 1, net.now);
        net.nodes[3] = begin(0, theirs, 2, net.now);
        net.join(0, 1);
        net.join(1, 2);
        net.join(2, 3);
        net.run_for(10 * SECOND);

        let origin = net.id(0);
        assert!(net.clones.contains(&origin));
        let before = net.bytes;
        net.run_for(600 * SECOND);
        let rate = (net.bytes - before) / 600;
        assert!(rate < 500, "{rate} bytes a second for two clones");
        let version = net.nodes[1].incarnation(origin).unwrap();
        assert!(version < 100, "incarnation {version}");
    }
}

#[test]
fn bad_records_are_dropped_and_counted() {
    let mut net = Net::new(2);
    net.join(0, 1);
    net.run_for(SECOND);
    let link = net.nodes[1].neighbours.iter().next().unwrap().0;
    let other = identity(9);
    let network = NetworkId::of("weft");
    let version = Version {
        incarnation: 1,
        sequence: 50,
    };
    let orphan = Record::sign(&other, &network, (3, 0), version, b"x");
    let good = Record::sign(&net.nodes[0].identity, &network, (77, 5), version, b"x");
    let mut forged = good.bytes().to_vec();
    forged[40] ^= 1;
    let odd = Record::sign(&other, &network, (1, 0), version, b"no fields");
    let message = [
        b"\x04\x00".as_slice(),
        orphan.bytes(),
        &forged,
        odd.bytes(),
        good.bytes(),
        b"rest",
    ]
    .concat();

    let now = net.now;
    net.nodes[1].receive(link, &message, now);
    net.nodes[1].receive(link, b"\x63", now);

    let counters = *net.nodes[1].counters();
    assert_eq!(counters.records_orphaned, 1);
    assert_eq!(counters.records_forged, 1);
    assert_eq!(counters.records_malformed, 2);
    assert_eq!(counters.messages_malformed, 1);
    assert!(
        net.nodes[1].store.find(good.key).is_some(),
        "an unknown kind is kept"
    );
}

#[test]
fn an_origin_that_says_too_much_hurts_itself_alone() {
    let mut net = Net::new(3);
    net.join(0, 1);
    net.join(1, 2);
    net.run_for(SECOND);
    let link = net.nodes[1].neighbours.iter().next().unwrap().0;
    let network = NetworkId::of("weft");
    for n in 0..2000_u16 {
        let version = Version {
            incarnation: 1,
            sequence: u64::from(n) + 2,
        };
        let name = (9, n % 100);
        let body = [n.to_be_bytes().as_slice(), &[7; 9000]].concat();
        let record = Record::sign(&net.nodes[0].identity, &network, name, version, &body);
        let message = [b"\x04\x00".as_slice(), record.bytes()].concat();
        let now = net.now;
        net.nodes[1].receive(link, &message, now);
    }
    let counters = *net.nodes[1].counters();
    assert!(counters.records_over_rate > 100, "{counters:?}");
    assert!(counters.records_without_room > 10, "{counters:?}");
    let (_, bytes) = net.nodes[1].size();
    assert!(bytes < crate::config::ORIGIN_BYTES_MAX + 4096, "{bytes}");
    net.carry_out(1);

    net.publish(2, RecordKind::Names, b"mine");
    net.run_for(2 * SECOND);
    assert!(net.knows(0, 2, RecordKind::Names, b"mine"));
    assert!(net.knows(1, 2, RecordKind::Names, b"mine"));
}

#[test]
fn a_forgotten_origin_stays_forgotten_until_it_is_back() {
    let mut net = Net::new(3);
    net.join(0, 1);
    net.join(1, 2);
    net.run_for(SECOND);
    let gone = net.id(2);
    net.part(1, 2);
    let now = net.now;
    net.nodes[0].forget(gone, now);
    net.run_for(2 * DIGEST_EVERY);
    assert_eq!(
        net.nodes[0].incarnation(gone),
        None,
        "not taken back from one who forgets later"
    );
    let now = net.now;
    net.nodes[1].forget(gone, now);
    net.run_for(2 * FORGOTTEN_KEPT);
    assert_eq!(net.nodes[0].incarnation(gone), None);

    net.join(2, 0);
    net.run_for(DIGEST_EVERY);
    assert_eq!(net.nodes[0].incarnation(gone), Some(1));
    net.run_for(2 * DIGEST_EVERY);
    assert_eq!(net.nodes[1].incarnation(gone), Some(1));
}

/// 100 machines with 14 links each, 50 ms round trips: one change is known everywhere in a second, arrives about
/// twice everywhere, and silence is cheap.
#[test]
fn a_change_is_known_everywhere_soon_and_silence_is_cheap() {
    let mut net = Net::random_graph(100, 6);
    for n in 0..100 {
        net.publish(n, RecordKind::Endpoints, &[7; 60]);
        net.publish(n, RecordKind::Topology, &[7; 300]);
    }
    net.run_for(30 * SECOND);
    assert!(net.agree());

    let mut copies = 0;
    for n in 0..10_u8 {
        let (start, before) = (net.now, net.bytes);
        let origin = usize::from(n) * 9;
        net.publish(origin, RecordKind::Topology, &[n; 300]);
        net.run_for(SECOND);
        assert!(net.all_know(origin, RecordKind::Topology, &[n; 300]));
        let key = RecordKey {
            origin: net.id(origin),
            kind: 3,
            part: 0,
        };
        let last = net
            .changes
            .iter()
            .filter_map(|changes| changes.get(&key))
            .max();
        assert!(*last.unwrap() - start < SECOND);
        copies = (net.bytes - before) / (100 * 400);
    }
    assert!(
        copies <= 3,
        "{copies} copies for each peer once the ways have settled"
    );

    let before = net.bytes;
    net.run_for(60 * SECOND);
    let bits = (net.bytes - before) * 8 / 60 / 100;
    assert!(bits < 200, "{bits} bit/s for each node in silence");
}

//! Which links records are pushed on: both ends agree, few suffice, and a bad line changes little.

use std::time::Duration;

use super::*;
use crate::config::{MISSING_AFTER, OWN_PUSHED_MIN, PUSH_EVERY, PUSHES_MIN};
use crate::gossip::neighbour::Push;

/// Each end of a link knows whether it pushes and is pushed to, and nobody is pushed to by fewer links than it means.
#[test]
fn both_ends_of_a_link_agree_who_pushes() {
    let mut net = Net::random_graph(40, 6);
    for round in 0..20_u8 {
        for n in 0..40 {
            net.publish(n, RecordKind::Topology, &[round; 300]);
        }
        net.run_for(2 * SECOND);
    }

    for ((from, ours), (to, theirs)) in &net.ends {
        let (_, sender) = link_of(&net.nodes[*from], *ours);
        let (_, receiver) = link_of(&net.nodes[*to], *theirs);
        assert_eq!(sender.is_eager, receiver.push == Push::Comes);
    }
    for node in &net.nodes {
        let pushing = node.neighbours.pushing();
        assert!((PUSHES_MIN..=PUSHES_MIN + 1).contains(&pushing));
    }
}

fn link_of(node: &Gossip, link: LinkId) -> (LinkId, &Neighbour) {
    let mut links = node.neighbours.iter();
    links.find(|(id, _)| *id == link).unwrap()
}

#[test]
fn what_was_under_way_when_a_link_was_pruned_changes_nothing() {
    let mut net = star(5);
    let (links, now) = (links(&net.nodes[0]), net.now);
    let record = |n: u8| {
        let version = Version {
            incarnation: 1,
            sequence: 50 + u64::from(n),
        };
        let network = NetworkId::of("weft");
        let record = Record::sign(&identity(1), &network, (77, 0), version, &[n]);
        [b"\x04\x00".as_slice(), record.bytes()].concat()
    };
    for link in &links[..=PUSHES_MIN] {
        net.nodes[0].receive(*link, &record(1), now);
    }
    let last = links[PUSHES_MIN];
    assert_eq!(link_of(&net.nodes[0], last).1.push, Push::Pruned);

    net.nodes[0].receive(last, &record(2), now);

    assert_eq!(link_of(&net.nodes[0], last).1.push, Push::Pruned);
    assert_eq!(net.nodes[0].neighbours.pushing(), PUSHES_MIN);
}

/// The first machine has a link with each other one.
fn star(count: usize) -> Net {
    let mut net = Net::new(count);
    for n in 1..count {
        net.join(0, n);
    }
    net.run_for(SECOND);
    net
}

fn links(node: &Gossip) -> Vec<LinkId> {
    node.neighbours.iter().map(|(link, _)| link).collect()
}

#[test]
fn who_is_pruned_by_all_is_heard_at_once_all_the_same() {
    let others = OWN_PUSHED_MIN;
    let mut net = star(others + 3);
    for link in links(&net.nodes[0]) {
        let now = net.now;
        net.nodes[0].receive(link, b"\x08", now);
    }
    net.publish(0, RecordKind::Topology, b"mine");
    net.run_for(net.delay + Duration::from_millis(1));

    let know = (1..net.nodes.len()).filter(|n| net.knows(*n, 0, RecordKind::Topology, b"mine"));
    assert_eq!(know.count(), others);
    net.run_for(2 * SECOND);
    assert!(net.all_know(0, RecordKind::Topology, b"mine"));
}

/// A link that had to be asked for a record is to push as well if too few do, and then rarely: a lost segment holds
/// up any link now and then.
#[test]
fn asking_for_records_seldom_changes_who_pushes() {
    let mut net = star(12);
    let all = links(&net.nodes[0]);
    for link in &all {
        net.nodes[0].neighbours.set_push(*link, Push::Pruned);
    }
    let mut asked = Vec::new();
    for round in 0..100_u64 {
        let link = all[usize::try_from(round).unwrap() % all.len()];
        let have = [b"\x06".as_slice(), &(900_000 + round).to_be_bytes()].concat();
        let now = net.now;
        net.nodes[0].receive(link, &have, now);
        net.now += MISSING_AFTER;
        let now = net.now;
        net.nodes[0].tick(now);
        while let Some(output) = net.nodes[0].poll_output() {
            if matches!(&output, GossipOutput::Send { message, .. } if message.as_ref() == b"\x09")
            {
                asked.push(now);
            }
        }
    }

    assert!(asked.len() > PUSHES_MIN, "{} were asked", asked.len());
    let more = &asked[PUSHES_MIN..];
    assert!(more.windows(2).all(|two| two[1] - two[0] >= PUSH_EVERY));
    assert!(asked[PUSHES_MIN - 1] - asked[0] < 2 * MISSING_AFTER);
}

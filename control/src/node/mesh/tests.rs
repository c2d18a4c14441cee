//! Networks that find themselves: everybody names one host, or the one before, and that is all that anybody does.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::config::{ENOUGH_PAUSE, MESH_LINKS_KEPT, TRIM_AFTER};
use crate::node::exchange::Input;
use crate::node::notice::Notice;
use crate::record::RecordKind;
use crate::sim::host::HostSpec;
use crate::sim::underlay::address_of;
use crate::sim::{HostId, Sim};

const SECOND: Duration = Duration::from_secs(1);
/// Half of a round trip of 50 ms.
const LATENCY: Duration = Duration::from_millis(25);

fn network(seed: u64, count: usize, target: impl Fn(HostId) -> Option<HostId>) -> Sim {
    let mut sim = Sim::new(seed);
    sim.latency = LATENCY;
    for host in 0..count {
        let target = target(host).map(|target| address_of(target).to_string());
        let targets: Vec<_> = target.iter().map(String::as_str).collect();
        sim.add(HostSpec::new(format!("h{host}")).dialling(&targets));
    }
    sim
}

/// Everybody names the first.
fn star(seed: u64, count: usize) -> Sim {
    network(seed, count, |host| (host > 0).then_some(0))
}

fn running(sim: &Sim) -> Vec<HostId> {
    let all = 0..sim.hosts.len();
    all.filter(|host| sim.node(*host).is_some()).collect()
}

fn links(sim: &Sim, host: HostId) -> usize {
    let node = sim.node(host).unwrap();
    node.peers
        .all()
        .filter(|(_, peer)| peer.link.is_some())
        .count()
}

fn links_max(sim: &Sim) -> usize {
    let links = running(sim).into_iter().map(|host| links(sim, host));
    links.max().unwrap_or(0)
}

fn records(sim: &Sim, host: HostId) -> usize {
    let node = sim.node(host).unwrap();
    node.gossip.bodies(RecordKind::Peer).count()
}

/// Everybody has everybody's PEER record.
fn all_known(sim: &Sim) -> bool {
    let all = running(sim);
    all.iter().all(|host| records(sim, *host) >= all.len())
}

/// Every running host leads to every other over links.
fn is_connected(sim: &Sim) -> bool {
    let all = running(sim);
    let (mut seen, mut front) = (BTreeSet::from([all[0]]), vec![all[0]]);
    while let Some(host) = front.pop() {
        let node = sim.node(host).unwrap();
        for (id, _) in node.peers.all().filter(|(_, peer)| peer.link.is_some()) {
            let other = all
                .iter()
                .find(|other| sim.identity(**other).peer_id() == id);
            if let Some(other) = other
                && seen.insert(*other)
            {
                front.push(*other);
            }
        }
    }
    seen.len() == all.len()
}

#[test]
fn thirty_hosts_that_name_one_come_to_know_and_link_each_other() {
    let mut sim = star(1, 30);

    let took = sim.run_until_seen(10 * SECOND, SECOND / 5, all_known);
    assert!(took.is_some_and(|took| took <= 5 * SECOND), "{took:?}");
    sim.run_for(20 * SECOND);

    for host in 1..30 {
        let links = links(&sim, host);
        assert!((4..=20).contains(&links), "{links} links of host {host}");
    }
    sim.kill(0);
    sim.run_for(5 * SECOND);
    assert!(is_connected(&sim), "without the one that all named");
}

#[test]
fn a_chain_of_launches_goes_on_without_its_middle() {
    let mut sim = network(2, 3, |host| host.checked_sub(1));
    sim.run_until_seen(5 * SECOND, SECOND / 10, |sim| sim.established(0, "h2"))
        .unwrap();

    sim.kill(1);
    sim.run_for(30 * SECOND);

    assert!(sim.established(0, "h2") && sim.established(2, "h0"));
    assert_eq!(sim.links_to(0, "h2"), 1);
}

#[test]
fn without_discovery_hosts_link_to_their_targets_alone() {
    let mut sim = Sim::new(3);
    for host in 0..4_usize {
        let target = host
            .checked_sub(1)
            .map(|before| address_of(before).to_string());
        let targets: Vec<_> = target.iter().map(String::as_str).collect();
        sim.add(
            HostSpec::new(format!("h{host}"))
                .dialling(&targets)
                .without_discovery(),
        );
    }
    sim.run_for(60 * SECOND);

    let links: Vec<_> = (0..4).map(|host| links(&sim, host)).collect();
    assert_eq!(links, [1, 2, 2, 1]);
    assert!(all_known(&sim), "records go everywhere all the same");
}

/// The host that all name is not to carry all for ever; who is sent away does not come back at once, and nobody is lost.
#[test]
fn a_host_that_all_name_ends_up_with_a_few_links() {
    let mut sim = star(4, 60);
    sim.run_until_seen(20 * SECOND, SECOND, |sim| links(sim, 0) == 59)
        .unwrap();

    let trimmed = sim.run_until_seen(TRIM_AFTER + 60 * SECOND, SECOND, |sim| {
        links(sim, 0) <= MESH_LINKS_KEPT
    });
    assert!(trimmed.is_some(), "{} links", links(&sim, 0));
    let dials = sim.counters(0)["links_accepted"];
    sim.run_for(ENOUGH_PAUSE / 20);

    assert!(is_connected(&sim));
    assert!(links_max(&sim) <= MESH_LINKS_KEPT);
    let again = sim.counters(0)["links_accepted"] - dials;
    assert!(again <= 3, "{again} came back");
}

#[test]
fn two_halves_find_each_other_again() {
    for (seed, outage) in [(5, 40), (6, 400)] {
        let mut sim = star(seed, 20);
        sim.run_for(15 * SECOND);
        sim.split(|host| u8::from(host >= 10));
        sim.run_for(outage * SECOND);
        assert!(!is_connected(&sim), "parted");

        sim.join();
        let took = sim.run_until_seen(30 * SECOND, SECOND / 5, is_connected);
        assert!(
            took.is_some_and(|took| took <= 3 * SECOND),
            "{took:?} after {outage} s"
        );
        sim.run_for(5 * SECOND);
        assert!(all_known(&sim));
    }
}

#[test]
fn hosts_that_come_and_go_leave_one_network() {
    let mut sim = star(7, 20);
    sim.run_for(10 * SECOND);
    for round in 0..5 {
        let host = 1 + 3 * round;
        sim.kill(host);
        sim.run_for(3 * SECOND);
        sim.start(host);
        sim.run_for(3 * SECOND);
    }
    sim.run_for(20 * SECOND);

    assert!(is_connected(&sim) && all_known(&sim));
    assert!(links_max(&sim) <= MESH_LINKS_KEPT, "{}", links_max(&sim));
}

/// A cloned disk: both are told, others hear of it, and the rest goes on.
#[test]
fn a_clone_far_away_is_named_and_hurts_nobody_else() {
    let mut sim = star(8, 12);
    sim.run_for(10 * SECOND);
    let identity = sim.identity(5);
    let clone = sim.add_with_identity(
        HostSpec::new("clone").dialling(&[&address_of(9).to_string()]),
        identity.clone(),
        2,
    );
    sim.run_for(60 * SECOND);

    let names_it = |notice: &Notice| {
        matches!(notice, Notice::CloneHeard { peer_id, .. } | Notice::ClonedIdentity { peer_id, .. }
            if *peer_id == identity.peer_id())
    };
    for host in [5, clone] {
        let notices = &sim.hosts[host].notices;
        assert!(notices.iter().any(names_it), "host {host}: {notices:?}");
    }
    assert!(sim.hosts[2].notices.iter().any(names_it));
    for host in (0..12).filter(|host| *host != 5) {
        let lost = |notice: &&Notice| {
            matches!(notice, Notice::LinkDown { nickname, .. }
                if !["h5", "clone"].contains(&nickname.as_str()))
        };
        let lost = sim.hosts[host].notices.iter().filter(lost).count();
        assert_eq!(lost, 0, "host {host} lost links to others");
    }
}

/// Whoever was sent away by its only link comes back when nobody leads to the others any more.
#[test]
fn a_forgotten_target_is_found_by_discovery() {
    let mut sim = star(9, 5);
    sim.run_for(10 * SECOND);
    let target = address_of(0).to_string();
    sim.input(
        3,
        Input::Forget {
            request: crate::node::exchange::RequestId(7),
            peers: vec![target],
        },
    );
    sim.run_for(SECOND);
    assert_eq!(sim.hosts[3].answers.last(), Some(&Ok(())));
    assert!(sim.status(3).unwrap().targets.is_empty());

    sim.kill(3);
    sim.start(3);
    sim.run_for(30 * SECOND);
    assert!(is_connected(&sim), "others look for it");
}

#[test]
fn peers_that_share_a_nickname_are_named_and_both_reached() {
    let mut sim = star(10, 4);
    let twin = sim.add(HostSpec::new("h2").dialling(&[&address_of(0).to_string()]));
    sim.run_for(10 * SECOND);

    let said = |notice: &Notice| matches!(notice, Notice::Namesakes { name: None, nickname, .. } if nickname.as_str() == "h2");
    assert!(sim.hosts[1].notices.iter().any(said));
    let notes = sim.status(1).unwrap().engine.notes;
    let ids = [2, twin].map(|host| sim.identity(host).peer_id());
    let names = ids.map(|id| format!("{}(h2)", id.name()));
    let ids = ids.map(|id| id.to_string());
    assert!(
        notes.iter().any(
            |note| note.contains("nickname h2") && names.iter().all(|name| note.contains(name))
        ),
        "{notes:?}"
    );
    let node = sim.node(1).unwrap();
    assert!(
        node.find_peer("h2").is_err(),
        "an ambiguous name is refused"
    );
    assert!(ids.iter().all(|id| node.find_peer(id).is_ok()));
    assert!(is_connected(&sim));
}

//! More hosts than a flood is sealed for one by one, in the simulator: floods go along trees, once to each.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::{GROUP_DEPARTED_AFTER, GROUP_HANDOUT_MAX, GROUP_RENEW_PAUSE};
use crate::sim::host::HostSpec;
use crate::sim::{HostId, Sim};

const SECOND: Duration = Duration::from_secs(1);
const HOSTS: usize = 68;

/// Hosts that all know each other; host `SOURCE` has flooded once.
fn mesh(seed: u64) -> Sim {
    let mut sim = Sim::new(seed);
    // Where round trips swing by more than a quarter, trees follow them all the time, and a flood on its way may miss.
    (sim.latency, sim.underlay.weather.jitter_percent) = (Duration::from_millis(10), 5);
    for host in 0..HOSTS {
        let targets: &[&str] = if host == 0 { &[] } else { &["192.0.2.1"] };
        sim.add(HostSpec::new(format!("h{host}")).dialling(targets));
    }
    let pace = Duration::from_millis(200);
    sim.run_until_seen(30 * SECOND, pace, |sim| {
        sim.is_acquainted() && sim.is_reachable()
    })
    .expect("all reach each other");
    // Round trips are news for a while, and trees follow them.
    sim.run_for(30 * SECOND);
    sim.flood_frame(SOURCE);
    sim
}

const SOURCE: HostId = 3;

fn until_key(sim: &mut Sim, other_than: Option<u32>) -> u32 {
    let limit = GROUP_RENEW_PAUSE + GROUP_DEPARTED_AFTER + GROUP_HANDOUT_MAX;
    sim.run_until(limit, "a key for floods", |sim| {
        let epoch = sim.newest_group_key(SOURCE);
        epoch.is_some() && epoch != other_than
    });
    sim.newest_group_key(SOURCE).expect("there is one")
}

/// Everybody but those who are down gets one copy, and no link carries more.
fn assert_once(sim: &mut Sim, down: &[HostId]) {
    let frame = sim.flood_frame(SOURCE);
    sim.run_for(2 * SECOND);
    let fate = sim.fate(frame);
    let once: BTreeMap<_, _> = (0..HOSTS)
        .filter(|host| *host != SOURCE && !down.contains(host))
        .map(|host| (host, 1))
        .collect();
    assert_eq!(fate.arrivals, once);
    assert_eq!(fate.transmissions, once.len() as u64);
}

#[test]
fn floods_go_along_the_tree_once_all_have_the_key() {
    let mut sim = mesh(1);
    assert_eq!(sim.newest_group_key(SOURCE), None);
    let epoch = until_key(&mut sim, None);
    for host in (0..HOSTS).filter(|host| *host != SOURCE) {
        assert!(sim.opens_floods(host, SOURCE, epoch), "host {host}");
    }
    sim.run_for(SECOND);
    assert_once(&mut sim, &[]);

    // A new process is given the key in use.
    sim.kill(10);
    sim.start(10);
    sim.run_for(20 * SECOND);
    assert_eq!(sim.newest_group_key(SOURCE), Some(epoch));
    assert_once(&mut sim, &[]);
}

#[test]
fn who_departed_does_not_have_the_next_key() {
    let mut sim = mesh(2);
    let first = until_key(&mut sim, None);
    sim.power_off(20);
    let next = until_key(&mut sim, Some(first));
    assert_once(&mut sim, &[20]);

    sim.start(20);
    sim.run_for(20 * SECOND);
    assert!(
        sim.opens_floods(20, SOURCE, next),
        "back, and given the key"
    );
    assert_once(&mut sim, &[]);
}

#[test]
fn a_source_that_starts_anew_gives_another_key() {
    let mut sim = mesh(3);
    let first = until_key(&mut sim, None);
    sim.kill(SOURCE);
    sim.start(SOURCE);
    sim.run_for(10 * SECOND);
    sim.flood_frame(SOURCE);
    let second = until_key(&mut sim, None);
    sim.run_for(SECOND);
    assert_once(&mut sim, &[]);
    for host in (0..HOSTS).filter(|host| *host != SOURCE) {
        assert!(!sim.opens_floods(host, SOURCE, first), "host {host}");
        assert!(sim.opens_floods(host, SOURCE, second), "host {host}");
    }
}

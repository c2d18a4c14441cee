//! Small meshes whose ways are known beforehand: chains, relays that are faster, NATs.

use std::time::Duration;

use super::*;
use crate::sim::nat::NatKind;

const MILLISECOND: Duration = Duration::from_millis(1);

/// Containers of these two hosts talk for a while; how many of their frames, one each 100 ms and way, arrived.
fn talk(sim: &mut Sim, a: HostId, b: HostId, duration: Duration) -> (usize, usize) {
    let end = sim.now + duration;
    let mut frames = Vec::new();
    while sim.now < end {
        frames.push((sim.send_frame(a, b), b));
        frames.push((sim.send_frame(b, a), a));
        sim.run_for(100 * MILLISECOND);
    }
    let arrived = frames
        .iter()
        .filter(|(frame, to)| sim.fate(*frame).arrivals.contains_key(to))
        .count();
    (arrived, frames.len())
}

/// h1 dials h0, and h2 dials h1.
fn chain(seed: u64, discovery: bool) -> Sim {
    let mut sim = Sim::new(seed);
    for (host, targets) in [[].as_slice(), &["192.0.2.1"], &["192.0.2.2"]]
        .into_iter()
        .enumerate()
    {
        let spec = HostSpec::new(format!("h{host}")).dialling(targets);
        sim.add(HostSpec { discovery, ..spec });
    }
    sim
}

#[test]
fn the_ends_of_a_chain_find_each_other_and_need_the_middle_no_more() {
    let mut sim = chain(1, true);
    talk(&mut sim, 0, 2, 5 * SECOND);
    assert_eq!(sim.route(0, 2), Some(vec![0, 2]));
    assert_eq!(sim.route(2, 0), Some(vec![2, 0]));

    sim.kill(1);
    let (arrived, sent) = talk(&mut sim, 0, 2, 20 * SECOND);

    assert_eq!(arrived, sent);
}

#[test]
fn without_discovery_a_chain_goes_through_its_middle_and_is_silent_without_it() {
    let mut sim = chain(1, false);
    talk(&mut sim, 0, 2, 5 * SECOND);
    assert_eq!(sim.route(0, 2), Some(vec![0, 1, 2]));
    let (arrived, sent) = talk(&mut sim, 0, 2, 5 * SECOND);
    assert_eq!(arrived, sent);

    sim.kill(1);
    sim.run_for(5 * SECOND);
    let (arrived, _) = talk(&mut sim, 0, 2, 10 * SECOND);

    assert_eq!(arrived, 0);
    assert_eq!(sim.route(0, 2), None);
}

#[test]
fn a_fast_relay_is_preferred_to_a_slow_path_and_left_when_the_path_is_better() {
    let mut sim = chain(1, true);
    sim.underlay.set_latency(0, 2, 20 * MILLISECOND);
    sim.underlay.set_latency(0, 1, MILLISECOND / 2);
    sim.underlay.set_latency(1, 2, MILLISECOND / 2);
    talk(&mut sim, 0, 2, 20 * SECOND);
    assert_eq!(sim.route(0, 2), Some(vec![0, 1, 2]));
    assert_eq!(sim.route(2, 0), Some(vec![2, 1, 0]));

    sim.underlay.set_latency(0, 2, MILLISECOND / 5);
    let (arrived, sent) = talk(&mut sim, 0, 2, 40 * SECOND);

    assert_eq!(sim.route(0, 2), Some(vec![0, 2]));
    assert_eq!(arrived, sent, "the change loses nothing");
}

/// h0 is public; h1 and h2 stand each behind a NAT of its own and dial h0.
fn two_nats(seed: u64, kinds: [NatKind; 2]) -> Sim {
    let mut sim = Sim::new(seed);
    let nats = kinds.map(|kind| sim.add_nat(kind));
    sim.add(HostSpec::new("h0"));
    for (host, nat) in (1..).zip(nats) {
        let spec = HostSpec::new(format!("h{host}")).dialling(&["192.0.2.1"]);
        sim.add(spec.behind(nat));
    }
    sim
}

#[test]
fn hosts_behind_two_nats_are_relayed_in_two_seconds_and_meet_in_five() {
    for kinds in [
        [NatKind::FullCone, NatKind::FullCone],
        [NatKind::PortRestricted, NatKind::PortRestricted],
        [NatKind::FullCone, NatKind::Symmetric],
    ] {
        let mut sim = two_nats(1, kinds);
        talk(&mut sim, 1, 2, 2 * SECOND);
        assert!(sim.route(1, 2).is_some(), "{kinds:?}: no way after 2 s");
        talk(&mut sim, 1, 2, 3 * SECOND);
        assert_eq!(sim.route(1, 2), Some(vec![1, 2]), "{kinds:?}");
        assert_eq!(sim.route(2, 1), Some(vec![2, 1]), "{kinds:?}");

        // Ports change every 5 s: traffic goes on, but for the moment of each change.
        for nat in [0, 1, 0, 1] {
            sim.restart_nat(nat);
            let (arrived, sent) = talk(&mut sim, 1, 2, 5 * SECOND);
            assert!(arrived * 2 >= sent, "{kinds:?}: {arrived} of {sent}");
        }
    }
}

#[test]
fn hosts_behind_symmetric_nats_stay_relayed() {
    let mut sim = two_nats(1, [NatKind::Symmetric, NatKind::Symmetric]);
    talk(&mut sim, 1, 2, 10 * SECOND);

    let (arrived, sent) = talk(&mut sim, 1, 2, 60 * SECOND);

    assert_eq!(sim.route(1, 2), Some(vec![1, 0, 2]));
    assert_eq!(arrived, sent);
}

#[test]
fn a_flapping_line_makes_few_changes_and_is_used_again() {
    let mut sim = chain(3, true);
    talk(&mut sim, 0, 2, 10 * SECOND);
    let mut ways = Vec::new();
    for _ in 0..20 {
        sim.cut(0, 2);
        sim.run_for(500 * MILLISECOND);
        ways.push(sim.route(0, 2));
        sim.heal(0, 2);
        sim.run_for(500 * MILLISECOND);
        ways.push(sim.route(0, 2));
    }
    ways.dedup();
    assert!(ways.len() <= 1 + 2 * 20, "{ways:?}");

    let took = sim.run_until_seen(3 * SECOND, 50 * MILLISECOND, |sim| {
        sim.route(0, 2).is_some() && sim.route(2, 0).is_some()
    });
    assert!(took.is_some());
    assert!(sim.reach().is_whole());
}

#[test]
fn a_broadcast_reaches_everybody_once() {
    let mut sim = line(4, 6);
    sim.run_for(20 * SECOND);
    for source in 0..6 {
        // Sessions are made by the first.
        sim.flood_frame(source);
        sim.run_for(3 * SECOND);
    }
    for source in 0..6 {
        let frame = sim.flood_frame(source);
        sim.run_for(SECOND);
        let fate = sim.fate(frame);
        let others: Vec<_> = (0..6).filter(|host| *host != source).collect();
        assert_eq!(fate.arrivals.keys().copied().collect::<Vec<_>>(), others);
        assert!(fate.arrivals.values().all(|count| *count == 1), "{fate:?}");
    }
}

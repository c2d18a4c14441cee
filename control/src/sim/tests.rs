//! The simulator itself: repeatable, and true to the network that it stands for.

mod mesh;
mod random;

use std::time::Duration;

use super::*;
use crate::config::{LINK_DEAD_AFTER, LINK_PING_AFTER};

const SECOND: Duration = Duration::from_secs(1);

/// Each host dials the one before it.
fn line(seed: u64, count: usize) -> Sim {
    let mut sim = Sim::new(seed);
    for host in 0..count {
        let target = host
            .checked_sub(1)
            .map(|before| underlay::address_of(before).to_string());
        let targets: Vec<_> = target.iter().map(String::as_str).collect();
        sim.add(HostSpec::new(format!("h{host}")).dialling(&targets));
    }
    sim
}

fn run_until_linked(sim: &mut Sim, limit: Duration) -> Duration {
    sim.run_until(limit, "h0 and h1 established", |sim| {
        sim.established(0, "h1") && sim.established(1, "h0")
    })
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_does_not() {
    let trace = |seed| {
        let mut sim = line(seed, 5);
        sim.underlay.weather.loss = 0.05;
        sim.underlay.weather.duplication = 0.05;
        sim.underlay.weather.reordering = 0.05;
        sim.run_for(5 * SECOND);
        sim.cut(0, 1);
        sim.run_for(5 * SECOND);
        sim.heal(0, 1);
        sim.run_for(5 * SECOND);
        sim.trace
    };
    let first = trace(1);
    assert!(first.events > 500, "{first:?}");
    assert_eq!(trace(1), first);
    assert_ne!(trace(2), first);
}

#[test]
fn neighbours_reach_each_other_and_frames_arrive_once() {
    let mut sim = line(1, 2);
    run_until_linked(&mut sim, 2 * SECOND);
    sim.run_for(SECOND);

    assert_eq!(sim.route(0, 1), Some(vec![0, 1]));
    assert!(sim.reach().is_whole(), "{:?}", sim.reach());
    let frame = sim.send_frame(0, 1);
    let flood = sim.flood_frame(1);
    sim.run_for(SECOND);

    for (frame, to) in [(frame, 1), (flood, 0)] {
        let fate = sim.fate(frame);
        assert_eq!(fate.transmissions, 1);
        assert_eq!(fate.arrivals, BTreeMap::from([(to, 1)]));
    }
}

#[test]
fn latencies_are_those_of_the_pair() {
    let mut sim = line(1, 2);
    sim.underlay.set_latency(0, 1, Duration::from_millis(40));
    sim.underlay.weather.jitter_percent = 0;
    run_until_linked(&mut sim, 5 * SECOND);
    sim.run_for(5 * SECOND);

    let rtt = sim.status(0).unwrap().connections[0]
        .path
        .as_ref()
        .unwrap()
        .rtt_ms;
    assert!((79.0..=81.0).contains(&rtt), "{rtt}");
}

#[test]
fn a_bad_line_costs_time_and_nothing_else() {
    let mut sim = line(3, 2);
    sim.underlay.weather = underlay::Weather {
        loss: 0.2,
        duplication: 0.1,
        reordering: 0.1,
        ..underlay::Weather::default()
    };
    run_until_linked(&mut sim, 30 * SECOND);
    sim.run_for(60 * SECOND);

    assert!(sim.established(0, "h1"));
    let down = |notice: &crate::node::notice::Notice| {
        matches!(notice, crate::node::notice::Notice::LinkDown { .. })
    };
    assert!(!sim.hosts[0].notices.iter().any(down));
    assert_eq!(sim.lost, 0);
}

#[test]
fn a_host_behind_a_nat_is_seen_at_the_nats_address_and_cannot_be_dialled() {
    for kind in [
        NatKind::FullCone,
        NatKind::PortRestricted,
        NatKind::Symmetric,
    ] {
        let mut sim = Sim::new(1);
        let nat = sim.add_nat(kind);
        sim.add(HostSpec::new("h0").dialling(&["198.51.100.1"]));
        sim.run_for(5 * SECOND);
        assert!(
            sim.status(0).unwrap().targets[0]
                .detail
                .contains("no answer")
        );

        sim.add(HostSpec::new("h1").dialling(&["192.0.2.1"]).behind(nat));
        run_until_linked(&mut sim, 5 * SECOND);

        let connections = sim.status(0).unwrap().connections;
        let line = connections.iter().find(|line| line.nickname == "h1");
        assert!(
            line.unwrap().address.starts_with("198.51.100.1:"),
            "{line:?}"
        );
    }
}

#[test]
fn a_nat_that_restarts_moves_the_path_and_the_link_is_made_anew() {
    let mut sim = Sim::new(1);
    let nat = sim.add_nat(NatKind::PortRestricted);
    sim.add(HostSpec::new("h0"));
    sim.add(HostSpec::new("h1").dialling(&["192.0.2.1"]).behind(nat));
    run_until_linked(&mut sim, 5 * SECOND);
    sim.run_for(5 * SECOND);
    let address = |sim: &Sim| sim.hosts[0].engine.peers.values().next().unwrap().path;
    let before = address(&sim).unwrap().address;

    sim.restart_nat(nat);
    sim.run_for(5 * SECOND);

    let after = address(&sim).unwrap().address;
    assert_ne!(before, after);
    sim.run_for(LINK_DEAD_AFTER + LINK_PING_AFTER);
    assert!(sim.established(0, "h1") && sim.established(1, "h0"));
    assert_eq!(sim.links_to(0, "h1"), 1);
}

#[test]
fn a_way_that_is_cut_in_one_direction_carries_nothing_that_counts() {
    for (from, to) in [(0, 1), (1, 0)] {
        let mut sim = line(1, 2);
        run_until_linked(&mut sim, 2 * SECOND);
        sim.cut_one_way(from, to);
        sim.run_for(10 * SECOND);

        assert!(!sim.established(0, "h1") && !sim.established(1, "h0"));
        assert_eq!(sim.reach().reachable, 0);
        sim.heal(0, 1);
        run_until_linked(&mut sim, 3 * SECOND);
    }
}

#[test]
fn a_split_parts_the_hosts_and_a_join_brings_them_together() {
    let mut sim = line(1, 2);
    run_until_linked(&mut sim, 2 * SECOND);

    sim.split(|host| u8::from(host == 1));
    sim.run_for(60 * SECOND);
    assert!(!sim.established(0, "h1"));
    sim.join();
    run_until_linked(&mut sim, 3 * SECOND);
}

#[test]
fn a_host_that_loses_its_power_says_nothing_and_comes_back() {
    let mut sim = line(1, 2);
    run_until_linked(&mut sim, 2 * SECOND);
    sim.power_off(0);
    sim.run_for(2 * SECOND);
    assert_eq!(sim.links_to(1, "h0"), 1, "nobody told it yet");

    sim.run_for(8 * SECOND);
    sim.start(0);
    run_until_linked(&mut sim, 3 * SECOND);
    sim.run_for(LINK_DEAD_AFTER);
    assert_eq!(sim.links_to(1, "h0"), 1);
}

#[test]
fn a_crash_at_any_output_is_survived() {
    for outputs in 0..40 {
        let mut sim = line(outputs, 2);
        sim.crash_after(1, usize::try_from(outputs).unwrap());
        sim.run_for(2 * SECOND);
        if sim.node(1).is_none() {
            sim.start(1);
        }
        run_until_linked(&mut sim, 3 * SECOND);
    }
}

#[test]
fn a_new_process_finds_what_was_written_and_rises_above_its_incarnation() {
    let mut sim = line(1, 2);
    run_until_linked(&mut sim, 2 * SECOND);
    sim.connect(0, &["192.0.2.9"], false);
    sim.run_for(SECOND);
    let before = sim.hosts[0].config.incarnation;

    sim.kill(0);
    sim.hosts[0].stored.incarnation = before + 5;
    sim.start(0);

    assert_eq!(sim.hosts[0].config.incarnation, before + 6);
    let targets = sim.status(0).unwrap().targets;
    assert!(targets.iter().any(|target| target.address == "192.0.2.9"));
}

#[test]
fn an_experiment_gives_the_same_figures_for_the_same_seed() {
    let stages = experiments::Stage::ALL.map(|(_, stage)| stage);
    let trace = |seed| experiments::run(3, seed, &stages, &mut |_, _| {}).trace;
    assert_eq!(trace(5), trace(5));
    assert_ne!(trace(5), trace(6));
}

/// What one host says is pushed along a few links and nobody has to ask for it; losses cost time, and little else.
#[test]
fn a_change_is_known_after_a_few_hops_and_a_bad_line_costs_little() {
    use experiments::Stage::{Changes, Lossy};
    for seed in 1..=2 {
        let figures = experiments::run(24, seed, &[Changes, Lossy], &mut |_, _| {});

        let p99 = |change: Option<(f64, f64)>| change.unwrap().1;
        assert!(p99(figures.change_ms) < 150.0, "{figures:?}");
        assert!(p99(figures.change_lossy_ms) < 10_000.0, "{figures:?}");
        assert!(figures.lossy_kbit < 20.0, "{figures:?}");
    }
}

#[test]
fn a_scenario_follows_from_its_seed() {
    let drawn = |seed| format!("{:?}", scenario::Scenario::draw(seed, 12, 6));
    assert_eq!(drawn(1), drawn(1));
    assert_ne!(drawn(1), drawn(2));
}

//! Lines, triangles, NATs and cuts in the simulator: which way frames go, and how soon after a change.

use std::time::Duration;

use crate::api::RouteReport;
use crate::node::exchange::{Input, RequestId};
use crate::sim::host::HostSpec;
use crate::sim::nat::NatKind;
use crate::sim::{HostId, Sim};

const SECOND: Duration = Duration::from_secs(1);

/// Hosts 0.., the targets of each by number; hosts without targets wait to be dialled.
fn mesh(seed: u64, discovery: bool, targets: &[&[HostId]]) -> Sim {
    let mut sim = Sim::new(seed);
    for (host, targets) in targets.iter().enumerate() {
        let addresses: Vec<_> = targets
            .iter()
            .map(|target| crate::sim::underlay::address_of(*target).to_string())
            .collect();
        let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
        let spec = HostSpec::new(name(host)).dialling(&addresses);
        sim.add(if discovery {
            spec
        } else {
            spec.without_discovery()
        });
    }
    sim
}

fn name(host: HostId) -> String {
    format!("h{host}")
}

fn path(sim: &Sim, from: HostId, to: HostId) -> RouteReport {
    let node = sim.node(from).expect("the host runs");
    node.path_report(&name(to)).expect("the peer is known")
}

fn knows(sim: &Sim, from: HostId, to: HostId) -> bool {
    let node = sim.node(from).expect("the host runs");
    node.path_report(&name(to)).is_ok()
}

/// Sends frames both ways until both arrive; how long that took.
fn until_frames_pass(sim: &mut Sim, a: HostId, b: HostId, limit: Duration) -> Duration {
    let start = sim.now;
    loop {
        let there = sim.send_frame(a, b);
        let back = sim.send_frame(b, a);
        sim.run_for(Duration::from_millis(50));
        let arrived = |frame, at| sim.fate(frame).arrivals.get(&at) == Some(&1);
        if arrived(there, b) && arrived(back, a) {
            return sim.now - start;
        }
        assert!(sim.now - start < limit, "no frames: {:#?}", path(sim, a, b));
    }
}

fn until_route(sim: &mut Sim, limit: Duration, way: &[HostId]) -> Duration {
    let (from, to) = (way[0], *way.last().expect("a way has an end"));
    sim.run_until(limit, &format!("{way:?}"), |sim| {
        sim.route(from, to).as_deref() == Some(way)
    })
}

/// A and B have no link with each other, and may have none: everything goes through R, end to end.
#[test]
fn a_line_talks_through_its_middle_and_falls_silent_with_it() {
    for seed in 0..5 {
        let mut sim = mesh(seed, false, &[&[1], &[], &[1]]);
        until_route(&mut sim, 2 * SECOND, &[0, 1, 2]);
        let took = until_frames_pass(&mut sim, 0, 2, 2 * SECOND);
        assert!(took < SECOND, "{took:?} for a session through a relay");

        let frame = sim.send_frame(0, 2);
        sim.run_for(SECOND);
        assert_eq!(sim.fate(frame).transmissions, 2);
        let route = path(&sim, 0, 2);
        assert!(
            route.kind.starts_with("via ") && route.kind.contains("h1"),
            "{route:?}"
        );
        assert!(route.why.contains("no-discovery"), "{route:?}");
        assert_eq!(route.hops.len(), 2);
        assert!(
            route
                .hops
                .iter()
                .all(|hop| hop.rtt_ms > 1.0 && hop.mtu > 1000)
        );
        assert_eq!(path(&sim, 0, 1).kind, "direct");

        sim.power_off(1);
        sim.run_for(10 * SECOND);
        let frame = sim.send_frame(0, 2);
        sim.run_for(SECOND);
        assert!(sim.fate(frame).arrivals.is_empty(), "silence");
    }
}

#[test]
fn a_chain_of_launches_becomes_direct_and_outlives_its_middle() {
    for seed in 0..5 {
        let mut sim = mesh(seed, true, &[&[], &[0], &[1]]);
        sim.run_until(3 * SECOND, "the ends know each other", |sim| {
            knows(sim, 0, 2) && knows(sim, 2, 0)
        });
        until_frames_pass(&mut sim, 0, 2, 2 * SECOND);
        until_route(&mut sim, 3 * SECOND, &[0, 2]);
        sim.power_off(1);
        for _ in 0..20 {
            let frame = sim.send_frame(0, 2);
            sim.run_for(SECOND);
            assert_eq!(sim.fate(frame).arrivals.get(&2), Some(&1));
        }
    }
}

/// R dies without a word, another relay is there.
#[test]
fn traffic_moves_to_another_relay_in_four_seconds() {
    for seed in 0..10 {
        let mut sim = mesh(seed, false, &[&[1, 2], &[], &[], &[1, 2]]);
        sim.run_until(3 * SECOND, "a route", |sim| sim.route(0, 3).is_some());
        until_frames_pass(&mut sim, 0, 3, 2 * SECOND);
        sim.run_for(5 * SECOND);
        let used = sim.route(0, 3).expect("a route")[1];
        sim.power_off(used);
        let took = until_frames_pass(&mut sim, 0, 3, 6 * SECOND);
        assert!(took <= 4 * SECOND, "{took:?}, seed {seed}");
    }
}

#[test]
fn a_one_way_cut_is_left_by_both_ends() {
    for seed in 0..10 {
        let mut sim = mesh(seed, true, &[&[1, 2], &[2], &[]]);
        sim.run_until(3 * SECOND, "a direct route", |sim| {
            sim.route(0, 1).as_deref() == Some(&[0, 1])
        });
        until_frames_pass(&mut sim, 0, 1, 2 * SECOND);
        sim.run_for(3 * SECOND);
        sim.cut_one_way(0, 1);
        let took = until_frames_pass(&mut sim, 0, 1, 8 * SECOND);
        assert!(took <= 5 * SECOND, "{took:?}, seed {seed}");
        assert!(sim.reach().looping.is_empty());
    }
}

/// The direct way between A and B comes and goes every half second for 20 s: no loop, few changes, soon back.
#[test]
fn a_flapping_way_changes_routes_twice_a_flap_at_most() {
    for seed in 0..5 {
        let mut sim = mesh(seed, true, &[&[1, 2], &[2], &[]]);
        until_route(&mut sim, 5 * SECOND, &[0, 1]);
        until_frames_pass(&mut sim, 0, 1, 2 * SECOND);
        sim.run_for(5 * SECOND);
        let changes = |sim: &Sim| (0..3).map(|host| sim.counters(host)["route_changes"]).max();
        let before = changes(&sim).unwrap_or(0);
        for _ in 0..20 {
            sim.cut(0, 1);
            sim.run_for(SECOND / 2);
            assert!(sim.reach().looping.is_empty());
            sim.heal(0, 1);
            sim.run_for(SECOND / 2);
        }
        let changed = changes(&sim).unwrap_or(0) - before;
        assert!(changed <= 2 * 20, "{changed} changes in 20 flaps");
        let took = until_frames_pass(&mut sim, 0, 1, 4 * SECOND);
        assert!(took <= 3 * SECOND, "{took:?}");
        until_route(&mut sim, 10 * SECOND, &[0, 1]);
    }
}

/// A slow flap, 5 s each way, is followed: a change down and one up, at each end.
#[test]
fn a_slow_flap_is_two_changes() {
    let mut sim = mesh(3, true, &[&[1, 2], &[2], &[]]);
    until_route(&mut sim, 5 * SECOND, &[0, 1]);
    until_frames_pass(&mut sim, 0, 1, 2 * SECOND);
    sim.run_for(5 * SECOND);
    let before = sim.counters(0)["route_changes"];
    for _ in 0..6 {
        sim.cut(0, 1);
        sim.run_for(5 * SECOND);
        sim.heal(0, 1);
        let took = until_frames_pass(&mut sim, 0, 1, 4 * SECOND);
        assert!(took <= SECOND, "the relay goes on: {took:?}");
        sim.run_for(5 * SECOND);
    }
    let changed = sim.counters(0)["route_changes"] - before;
    assert!(changed <= 12, "{changed} changes in 6 flaps");
}

#[test]
fn a_fast_relay_beats_a_slow_direct_path_until_that_gets_better() {
    let ms = Duration::from_millis;
    for seed in 0..5 {
        let mut sim = mesh(seed, true, &[&[1, 2], &[2], &[]]);
        sim.underlay.set_latency(0, 1, ms(20));
        sim.underlay.set_latency(0, 2, Duration::from_micros(500));
        sim.underlay.set_latency(1, 2, Duration::from_micros(500));
        sim.run_until(3 * SECOND, "all links", |sim| sim.reach().is_whole());
        until_frames_pass(&mut sim, 0, 1, 2 * SECOND);
        until_route(&mut sim, 10 * SECOND, &[0, 2, 1]);
        until_route(&mut sim, 10 * SECOND, &[1, 2, 0]);
        sim.run_for(3 * SECOND);
        let route = path(&sim, 0, 1);
        assert!(route.why.starts_with("relay route takes"), "{route:?}");

        sim.underlay.set_latency(0, 1, Duration::from_micros(200));
        until_route(&mut sim, 30 * SECOND, &[0, 1]);
        until_route(&mut sim, 10 * SECOND, &[1, 0]);
    }
}

/// As a measurement loads it, or a large transfer: the way that it takes must not be left for that.
#[test]
fn a_direct_path_is_not_left_for_a_load_that_passes() {
    let ms = Duration::from_millis;
    for seed in 0..5 {
        let mut sim = mesh(seed, true, &[&[1, 2], &[2], &[]]);
        for (a, b) in [(0, 1), (0, 2), (1, 2)] {
            sim.underlay.set_latency(a, b, ms(2));
        }
        sim.run_until(3 * SECOND, "all links", |sim| sim.reach().is_whole());
        until_frames_pass(&mut sim, 0, 1, 2 * SECOND);
        until_route(&mut sim, 10 * SECOND, &[0, 1]);
        sim.run_for(10 * SECOND);
        let changes = |sim: &Sim| [0, 1].map(|host| sim.counters(host)["route_changes"]);
        let before = changes(&sim);

        sim.underlay.set_latency(0, 1, ms(60));
        sim.run_for(25 * SECOND);
        sim.underlay.set_latency(0, 1, ms(2));
        sim.run_for(10 * SECOND);

        assert_eq!(changes(&sim), before, "seed {seed}");
    }
}

/// Two hosts behind NATs of their own, and a public third.
fn two_behind(kind: NatKind, seed: u64) -> Sim {
    let mut sim = Sim::new(seed);
    let public = crate::sim::underlay::address_of(0).to_string();
    sim.add(HostSpec::new("h0"));
    for host in 1..3 {
        let nat = sim.add_nat(kind);
        sim.add(HostSpec::new(name(host)).dialling(&[&public]).behind(nat));
    }
    sim
}

#[test]
fn hosts_behind_two_nats_meet() {
    for kind in [NatKind::FullCone, NatKind::PortRestricted] {
        for seed in 0..10 {
            let mut sim = two_behind(kind, seed);
            let start = sim.now;
            sim.run_until(2 * SECOND, "they know each other", |sim| {
                knows(sim, 1, 2) && knows(sim, 2, 1)
            });
            until_frames_pass(&mut sim, 1, 2, 2 * SECOND);
            let relayed = sim.now - start;
            assert!(relayed <= 2 * SECOND, "{relayed:?}");
            until_route(&mut sim, 5 * SECOND, &[1, 2]);
            until_route(&mut sim, 5 * SECOND, &[2, 1]);
            let direct = sim.now - start;
            assert!(direct <= 5 * SECOND, "{kind:?}, seed {seed}: {direct:?}");
        }
    }
}

/// Whoever speaks first makes the other's NAT choose another port; both must begin at once, and rest first if they did
/// not. Jitter decides: some meet at once, and the others after a rest or two.
#[test]
fn hosts_behind_nats_that_remember_strangers_meet() {
    let mut at_once = 0;
    for seed in 0..10 {
        let mut sim = two_behind(NatKind::Remembering, seed);
        for (a, b, ms) in [(0, 1, 10), (0, 2, 25), (1, 2, 15)] {
            sim.underlay.set_latency(a, b, Duration::from_millis(ms));
        }
        until_frames_pass(&mut sim, 1, 2, 5 * SECOND);
        let direct = Some(vec![1, 2]);
        let took = (0..150).find(|_| {
            // Without frames the session would end.
            sim.send_frame(1, 2);
            sim.run_for(SECOND);
            sim.route(1, 2) == direct
        });
        assert!(took.is_some(), "seed {seed}: {:?}", sim.route(1, 2));
        assert_eq!(sim.route(2, 1), Some(vec![2, 1]));
        at_once += u32::from(took.is_some_and(|seconds| seconds < 5));
    }
    assert!(at_once >= 4, "{at_once} of 10");
}

#[test]
fn symmetric_nats_on_both_sides_stay_relayed_and_say_so() {
    let mut sim = two_behind(NatKind::Symmetric, 1);
    // A second public host, so that each side sees that the first sees it elsewhere.
    let public: Vec<_> = [0, 3]
        .map(|host| crate::sim::underlay::address_of(host).to_string())
        .to_vec();
    sim.add(HostSpec::new("h3").dialling(&[&public[0]]));
    for host in 1..3 {
        sim.connect(host, &[&public[1]], false);
    }
    sim.run_until(3 * SECOND, "they know each other", |sim| {
        knows(sim, 1, 2) && knows(sim, 2, 1)
    });
    until_frames_pass(&mut sim, 1, 2, 2 * SECOND);
    sim.run_for(30 * SECOND);
    until_frames_pass(&mut sim, 1, 2, SECOND);
    let route = path(&sim, 1, 2);
    assert!(route.kind.starts_with("via "), "{route:?}");
    assert!(route.why.contains("symmetric NATs"), "{route:?}");
}

/// The NAT forgets its mappings every 5 s: data goes on, with gaps of a few seconds at most.
#[test]
fn ports_that_change_keep_the_traffic_going() {
    let mut sim = Sim::new(5);
    let public = crate::sim::underlay::address_of(0).to_string();
    sim.add(HostSpec::new("h0"));
    let nats = [1, 2].map(|host| {
        let nat = sim.add_nat(NatKind::PortRestricted);
        sim.add(HostSpec::new(name(host)).dialling(&[&public]).behind(nat));
        nat
    });
    sim.run_until(3 * SECOND, "they know each other", |sim| {
        knows(sim, 1, 2) && knows(sim, 2, 1)
    });
    until_frames_pass(&mut sim, 1, 2, 2 * SECOND);
    sim.run_for(5 * SECOND);
    for round in 0..6 {
        sim.restart_nat(nats[round % 2]);
        let took = until_frames_pass(&mut sim, 1, 2, 8 * SECOND);
        assert!(took <= 5 * SECOND, "{took:?} in round {round}");
        sim.run_for(5 * SECOND - took);
    }
}

#[test]
fn a_ping_makes_a_session_and_measures_the_way() {
    let mut sim = mesh(1, false, &[&[1], &[], &[1]]);
    until_route(&mut sim, 3 * SECOND, &[0, 1, 2]);
    let ping = |peer: &str| Input::Ping {
        request: RequestId(7),
        peer: peer.to_owned(),
    };
    sim.input(0, ping("h2"));
    sim.run_for(SECOND);
    sim.input(0, ping("nobody"));
    let pongs = std::mem::take(&mut sim.hosts[0].pongs);
    let reply = pongs[0].as_ref().expect("an answer");
    assert_eq!(
        (reply.nickname.as_str(), reply.kind.contains("h1")),
        ("h2", true)
    );
    assert!((4.0..20.0).contains(&reply.rtt_ms), "{reply:?}");
    assert!(
        pongs[1]
            .as_ref()
            .unwrap_err()
            .error
            .contains("no such peer")
    );
}

/// Without frames the session ends with its epoch at both ends; the next frame makes a new one.
#[test]
fn an_idle_session_without_a_link_ends_and_comes_back() {
    let mut sim = mesh(1, false, &[&[1], &[], &[1]]);
    until_route(&mut sim, 3 * SECOND, &[0, 1, 2]);
    until_frames_pass(&mut sim, 0, 2, 2 * SECOND);
    assert!(path(&sim, 0, 2).cipher.is_some());
    sim.run_for(400 * SECOND);
    for (from, to) in [(0, 2), (2, 0)] {
        assert_eq!(path(&sim, from, to).cipher, None);
    }
    assert!(path(&sim, 0, 1).cipher.is_some(), "who has a link keeps it");
    until_frames_pass(&mut sim, 0, 2, 2 * SECOND);
}

#[test]
fn who_does_not_relay_is_passed_by() {
    let mut sim = Sim::new(2);
    let relays: Vec<_> = [0, 1]
        .map(|host| crate::sim::underlay::address_of(host).to_string())
        .to_vec();
    sim.add(HostSpec::new("h0").without_discovery().without_relaying());
    sim.add(HostSpec::new("h1").without_discovery());
    for host in 2..4 {
        let spec = HostSpec::new(name(host)).without_discovery();
        sim.add(spec.dialling(&[&relays[0], &relays[1]]));
    }
    until_route(&mut sim, 3 * SECOND, &[2, 1, 3]);
    until_frames_pass(&mut sim, 2, 3, 2 * SECOND);
    sim.power_off(1);
    sim.run_for(6 * SECOND);
    assert_eq!(sim.route(2, 3), None);
}

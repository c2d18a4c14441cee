//! A peer whose address changes, and those who pretend that it did.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::sim::*;
use crate::path::PathConfig;

const ELSEWHERE: &str = "203.0.113.9:40001";

fn one(seed: u64) -> Sim {
    Sim::new(
        seed,
        PathConfig::default(),
        vec![Underlay::v4(Way::default())],
    )
}

/// End 1 has another address from now on (a new network, or its NAT forgot the old mapping).
fn move_end_1(sim: &mut Sim, to: &str) -> SocketAddr {
    sim.underlays[0].addresses[1] = address(to);
    address(to)
}

#[test]
fn data_follows_one_round_trip_after_the_next_packet() {
    for seed in 0..50 {
        let mut sim = one(seed);
        sim.ends[0].data_every = Some(ms(10));
        sim.ends[1].data_every = Some(ms(10));
        let calm = 10_000 + sim.below(2_000);
        sim.run_for(ms(calm));

        let new = move_end_1(&mut sim, ELSEWHERE);
        // At most 10 ms until its next packet, 5 ms on the way, and one round trip.
        let took = sim.run_until(ms(25), |sim| sim.address_in_use(0) == Some(new));
        assert!(took.is_some(), "seed {seed}");
        sim.run_for(secs(300));
        assert_eq!((sim.downs(0), sim.downs(1)), (0, 0), "seed {seed}");
        assert_eq!(sim.address_in_use(0), Some(new), "seed {seed}");
        assert_eq!(sim.datagram_max(0), 1472);
    }
}

#[test]
fn an_idle_path_follows_the_next_probe() {
    for seed in 0..50 {
        let mut sim = one(seed);
        let calm = 10_000 + sim.below(2_000);
        sim.run_for(ms(calm));
        let new = move_end_1(&mut sim, ELSEWHERE);
        let took = sim.run_until(ms(1_070), |sim| sim.address_in_use(0) == Some(new));
        assert!(took.is_some(), "seed {seed}");
        sim.run_for(secs(30));
        assert_eq!((sim.downs(0), sim.downs(1)), (0, 0), "seed {seed}");
    }
}

#[test]
fn a_lost_challenge_is_made_again() {
    for seed in 0..50 {
        let mut sim = one(seed);
        sim.ends[1].data_every = Some(ms(50));
        sim.run_for(secs(10));
        sim.ways(|way| way.loss = 0.3);
        let new = move_end_1(&mut sim, ELSEWHERE);
        assert!(
            sim.run_until(secs(12), |sim| sim.address_in_use(0) == Some(new))
                .is_some()
        );
    }
}

#[test]
fn the_old_address_is_kept_10_s_and_then_forgotten() {
    let mut sim = one(1);
    let old = sim.underlays[0].addresses[1];
    // Learned, not listed: what control knows is never forgotten.
    let new = move_end_1(&mut sim, ELSEWHERE);
    sim.ends[1].data_every = Some(ms(10));
    sim.run_until(secs(5), |sim| sim.address_in_use(0) == Some(new))
        .expect("followed");
    sim.call(0, |paths, now| paths.set_candidates(&[], now));
    let newest = move_end_1(&mut sim, "203.0.113.10:5");
    sim.run_until(secs(5), |sim| sim.address_in_use(0) == Some(newest))
        .expect("followed");
    let moved = sim.elapsed();
    sim.run_for(secs(60));
    let probed = |address| {
        sim.probes_since(0, moved)
            .iter()
            .filter(|p| p.1 == address)
            .map(|p| p.0)
            .max()
    };
    assert_eq!(probed(old), None);
    let last = probed(new).expect("the old address is still tried");
    assert!(
        last <= moved + secs(10),
        "last tried {:?} after the move",
        last - moved
    );
}

#[test]
fn late_packets_from_the_old_address_do_not_move_data_back() {
    let mut sim = one(2);
    let old = sim.underlays[0].addresses[1];
    sim.ends[1].data_every = Some(ms(10));
    sim.run_for(secs(10));
    let new = move_end_1(&mut sim, ELSEWHERE);
    sim.run_until(secs(1), |sim| sim.address_in_use(0) == Some(new))
        .expect("followed");
    let sent = sim.ends[0].sent.len();
    for _ in 0..50 {
        sim.call(0, |paths, now| paths.heard(old, now));
    }
    assert_eq!(sim.ends[0].sent.len(), sent);
    assert_eq!(sim.address_in_use(0), Some(new));
}

#[test]
fn a_peer_that_returns_is_followed_back() {
    let mut sim = one(3);
    let old = "198.51.100.2:6783";
    sim.ends[1].data_every = Some(ms(10));
    sim.run_for(secs(10));
    for (there, away) in [
        (ELSEWHERE, secs(2)),
        (old, secs(2)),
        (ELSEWHERE, secs(6)),
        (old, secs(6)),
    ] {
        let new = move_end_1(&mut sim, there);
        let took = sim.run_until(ms(30), |sim| sim.address_in_use(0) == Some(new));
        assert!(took.is_some(), "to {there}: {:?}", sim.address_in_use(0));
        sim.run_for(away);
    }
    assert_eq!(sim.downs(0), 0);
}

#[test]
fn a_moved_peer_with_two_known_addresses_is_followed_in_a_second() {
    let (fast, slow) = (
        Way::default(),
        Way {
            latency: ms(20),
            ..Way::default()
        },
    );
    let mut sim = Sim::new(
        4,
        PathConfig::default(),
        vec![Underlay::v4(fast), Underlay::v6(slow)],
    );
    sim.run_for(secs(20));
    let second = sim.underlays[1].addresses[1];
    assert_ne!(sim.address_in_use(0), Some(second));

    sim.ways(|way| way.refused = false);
    sim.underlays[0].ways[0].cut = true;
    for _ in 0..100 {
        sim.run_for(ms(10));
        sim.call(0, |paths, now| paths.heard(second, now));
    }
    assert_eq!(sim.address_in_use(0), Some(second));
    assert_eq!(sim.downs(0), 0);
}

/// End 1 has two addresses, as in a network that end 0 knows from discovery; end 0 has one.
fn two_addresses_of_end_1(seed: u64, other: Way) -> Sim {
    let here = "192.0.2.2:6783";
    let first = Underlay::new(here, "192.0.2.5:6783", Way::default());
    let second = Underlay::new(here, "192.0.2.1:6783", other);
    Sim::new(seed, PathConfig::default(), vec![first, second])
}

#[test]
fn another_known_address_is_followed_one_round_trip_after_the_next_packet() {
    for seed in 0..50 {
        let mut sim = two_addresses_of_end_1(seed, Way::default());
        sim.ends[0].data_every = Some(ms(10));
        sim.ends[1].data_every = Some(ms(10));
        let calm = 10_000 + sim.below(2_000);
        sim.run_for(ms(calm));
        let [first, second] = [0, 1].map(|n| sim.underlays[n].addresses[1]);
        assert_eq!(sim.address_in_use(0), Some(first), "seed {seed}");

        // The first address is gone: what end 1 sends leaves from the second.
        sim.underlays.remove(0);
        // 10 ms until the next packet, 5 ms on the way, a round trip of 10 ms and what it varies by.
        let took = sim.run_until(ms(1000), |sim| sim.address_in_use(0) == Some(second));
        assert!(
            took.is_some_and(|took| took <= ms(30)),
            "seed {seed}: {took:?}"
        );
        sim.run_for(secs(60));
        assert_eq!((sim.downs(0), sim.downs(1)), (0, 0), "seed {seed}");
        assert_eq!(sim.address_in_use(0), Some(second), "seed {seed}");
    }
}

#[test]
fn another_known_address_is_followed_on_an_idle_path_after_the_next_probe() {
    let mut sim = two_addresses_of_end_1(1, Way::default());
    sim.run_for(secs(10));
    let second = sim.underlays[1].addresses[1];
    sim.underlays.remove(0);
    let took = sim.run_until(ms(1_100), |sim| sim.address_in_use(0) == Some(second));
    assert!(took.is_some());
}

/// Two families, and each end sends by another: one of them may give in when an answer is late, no more.
#[test]
fn ends_that_use_two_good_paths_do_not_chase_each_other() {
    for seed in 0..20 {
        let way = Way {
            latency: ms(5),
            jitter: ms(4),
            loss: 0.02,
            ..Way::default()
        };
        let mut sim = Sim::without_session(
            seed,
            PathConfig::default(),
            vec![Underlay::v4(way), Underlay::v6(way)],
        );
        for end in 0..2 {
            // At first each knows one address of the other, on different underlays.
            let known = sim.underlays[end].addresses[1 - end];
            sim.call(end, |paths, now| paths.set_candidates(&[known], now));
            sim.call(end, |paths, now| paths.session_ready(now));
            sim.ends[end].data_every = Some(ms(10));
        }
        let each_its_own = |sim: &Sim| {
            (0..2).all(|end| sim.address_in_use(end) == Some(sim.underlays[end].addresses[1 - end]))
        };
        sim.run_until(secs(1), each_its_own).expect("two paths");
        sim.introduce();
        sim.run_for(secs(300));
        for end in 0..2 {
            let told = sim.ends[end].told.iter();
            let mut used: Vec<_> = told
                .filter_map(|(_, told)| match told {
                    Told::Up(path) | Told::Changed(path) => Some(path.address),
                    Told::Down | Told::Observed(_) => None,
                })
                .collect();
            used.dedup();
            assert!(used.len() <= 4, "seed {seed}, end {end}: {used:?}");
        }
        assert_eq!((sim.downs(0), sim.downs(1)), (0, 0), "seed {seed}");
    }
}

#[test]
fn data_from_an_address_that_does_not_answer_moves_nothing() {
    let mut sim = one(5);
    let peer = sim.underlays[0].addresses[1];
    sim.run_for(secs(10));
    let before = sim.elapsed();
    for _ in 0..6000 {
        sim.run_for(ms(10));
        sim.call(0, |paths, now| paths.heard(address(ELSEWHERE), now));
    }
    assert_eq!(sim.address_in_use(0), Some(peer));
    let challenges = sim.probes_since(0, before);
    let challenges: Vec<_> = challenges
        .iter()
        .filter(|p| p.1 == address(ELSEWHERE))
        .collect();
    assert!(
        (30..=63).contains(&challenges.len()),
        "{} challenges in a minute",
        challenges.len()
    );
}

#[test]
fn packets_sent_on_from_many_addresses_do_not_make_us_spray() {
    let mut sim = one(6);
    let peer = sim.underlays[0].addresses[1];
    sim.run_for(secs(10));
    let before = sim.elapsed();
    for n in 0..60_000_u32 {
        sim.run_for(ms(1));
        let [.., a, b] = n.to_be_bytes();
        sim.call(0, |paths, now| {
            paths.heard(SocketAddr::from(([203, 0, a, b], 9)), now)
        });
    }
    assert_eq!(sim.address_in_use(0), Some(peer));
    assert_eq!(sim.downs(0), 0);
    let probes = sim.probes_since(0, before);
    let sprayed: Vec<_> = probes.iter().filter(|probe| probe.1 != peer).collect();
    // Four addresses at a time, three probes in the second before they can be pushed out.
    assert!(
        sprayed.len() <= 61 * 12,
        "{} probes in a minute",
        sprayed.len()
    );
    let targets: BTreeSet<_> = sprayed.iter().map(|probe| probe.1).collect();
    assert!(
        targets.len() <= 61 * 4,
        "{} addresses in a minute",
        targets.len()
    );
}

#[test]
fn an_honest_move_is_followed_while_someone_sends_packets_on_from_many_addresses() {
    let mut sim = one(7);
    sim.ends[1].data_every = Some(ms(5));
    sim.run_for(secs(10));
    let new = move_end_1(&mut sim, ELSEWHERE);
    let mut followed = None;
    for n in 0..1_000_u32 {
        sim.run_for(ms(10));
        let [.., a, b] = n.to_be_bytes();
        let from = SocketAddr::from(([203, 0, a, b], 9));
        sim.call(0, |paths, now| paths.heard(from, now));
        followed = followed.or((sim.address_in_use(0) == Some(new)).then_some(n));
    }
    assert!(
        followed.is_some_and(|after| after <= 200),
        "{followed:?} times 10 ms"
    );
    assert_eq!(sim.address_in_use(0), Some(new));
    assert_eq!(sim.downs(0), 0);
}

#[test]
fn a_peer_that_control_cannot_place_is_found_by_its_probes() {
    let mut sim =
        Sim::without_session(8, PathConfig::default(), vec![Underlay::v4(Way::default())]);
    let known = sim.underlays[0].addresses[0];
    sim.call(1, |paths, now| paths.set_candidates(&[known], now));
    sim.call(0, |paths, now| paths.session_ready(now));
    sim.call(1, |paths, now| paths.session_ready(now));
    assert!(sim.run_until(ms(50), Sim::both_up).is_some());

    sim.ways(|way| way.cut = true);
    sim.run_for(secs(30));
    assert!(sim.both_down());
    sim.ways(|way| way.cut = false);
    assert!(sim.run_until(secs(2), Sim::both_up).is_some());
}

#[test]
fn a_peer_behind_a_nat_that_forgets_in_an_outage_is_found_again_in_2_s() {
    for seed in 0..20 {
        let mut sim = Sim::without_session(
            seed,
            PathConfig::default(),
            vec![Underlay::v4(Way::default())],
        );
        let known = sim.underlays[0].addresses[0];
        sim.call(1, |paths, now| paths.set_candidates(&[known], now));
        sim.call(0, |paths, now| paths.session_ready(now));
        sim.call(1, |paths, now| paths.session_ready(now));
        sim.run_for(secs(10));
        sim.ways(|way| way.cut = true);
        let outage = 10_000 + sim.below(20_000);
        sim.run_for(ms(outage));
        move_end_1(&mut sim, ELSEWHERE);
        sim.ways(|way| way.cut = false);
        let took = sim.run_until(secs(5), Sim::both_up).expect("found again");
        assert!(took <= secs(2), "seed {seed}: {took:?}");
    }
}

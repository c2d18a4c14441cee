//! The path MTU against underlays that drop what is too big without a word.

use super::sim::*;
use crate::path::{PathConfig, SendFailure};

const HEADERS_V4: u16 = 28;
const HEADERS_V6: u16 = 48;

fn config(underlay_mtu: u16) -> PathConfig {
    PathConfig {
        underlay_mtu,
        ..PathConfig::default()
    }
}

fn lan(mtu: u16) -> Way {
    Way {
        latency: ms(1),
        jitter: ms(1),
        mtu,
        ..Way::default()
    }
}

/// Both ends at this size?
fn found(sim: &Sim, datagram_max: u16) -> bool {
    (0..2).all(|end| sim.datagram_max(end) == datagram_max)
}

#[test]
fn well_known_mtus_are_found_exactly_within_300_ms() {
    for local in [1500, 9000, 65535] {
        for mtu in [1280, 1400, 1420, 1492, 1500, 9000] {
            for (headers, underlay) in [
                (HEADERS_V4, Underlay::v4(lan(mtu))),
                (HEADERS_V6, Underlay::v6(lan(mtu))),
            ] {
                let mut sim = Sim::new(u64::from(mtu), config(local), vec![underlay]);
                sim.run_until(secs(1), Sim::both_up).expect("up");
                let wanted = mtu.min(local) - headers;
                let took = sim.run_until(ms(300), |sim| found(sim, wanted));
                assert!(
                    took.is_some(),
                    "interface {local}, path {mtu}: {}",
                    sim.datagram_max(0)
                );
                sim.run_for(secs(600));
                assert!(
                    found(&sim, wanted),
                    "interface {local}, path {mtu}: {}",
                    sim.datagram_max(0)
                );
            }
        }
    }
}

#[test]
fn any_other_mtu_is_found_to_within_8_bytes_in_2_s() {
    for seed in 0..100 {
        let mut sim = Sim::new(seed, config(9000), vec![Underlay::v4(lan(1500))]);
        let mtu = 1240 + u16::try_from(sim.below(7760)).expect("small");
        sim.ways(|way| way.mtu = mtu);
        sim.run_for(secs(2));
        let gap = (mtu - HEADERS_V4)
            .checked_sub(sim.datagram_max(0))
            .expect("not too big");
        assert!(gap <= 8, "seed {seed}, path {mtu}: {gap} bytes short");
    }
}

#[test]
fn the_base_size_is_used_until_more_is_known() {
    let mut sim = Sim::new(1, config(1500), vec![Underlay::v4(lan(1500))]);
    sim.run_until(secs(1), |sim| sim.is_up(0)).expect("up");
    assert_eq!(sim.datagram_max(0), 1200);
    let Some((_, Told::Up(path))) = sim.ends[0]
        .told
        .iter()
        .find(|(_, told)| matches!(told, Told::Up(_)))
    else {
        panic!("told that it is up");
    };
    assert_eq!(path.datagram_max, 1200);
    sim.run_for(secs(1));
    let raised = |told: &Told| matches!(told, Told::Changed(path) if path.datagram_max == 1472);
    assert_eq!(sim.count(0, raised), 1);
}

#[test]
fn a_path_that_shrinks_under_data_falls_back_and_settles_in_5_s() {
    for seed in 0..60 {
        let mut sim = Sim::new(seed, config(9000), vec![Underlay::v4(lan(9000))]);
        let two_way = seed % 2 == 0;
        sim.ends[0].data_every = Some(ms(5));
        sim.ends[1].data_every = two_way.then_some(ms(5));
        let calm = 8_000 + sim.below(4_000);
        sim.run_for(ms(calm));
        assert!(found(&sim, 9000 - HEADERS_V4));

        let smaller = [1280, 1400, 1500][usize::try_from(seed % 3).expect("small")];
        sim.ways(|way| way.mtu = smaller);
        let took = sim.run_until(secs(5), |sim| sim.datagram_max(0) == smaller - HEADERS_V4);
        assert!(took.is_some(), "seed {seed}: {}", sim.datagram_max(0));
        assert_eq!(
            (sim.downs(0), sim.downs(1)),
            (0, 0),
            "small datagrams crossed all the time"
        );
    }
}

#[test]
fn an_idle_path_that_shrinks_is_noticed_in_12_s() {
    for seed in 0..10 {
        let mut sim = Sim::new(seed, config(1500), vec![Underlay::v6(lan(1500))]);
        let calm = 20_000 + sim.below(10_000);
        sim.run_for(ms(calm));
        sim.ways(|way| way.mtu = 1280);
        assert!(
            sim.run_until(secs(12), |sim| found(sim, 1280 - HEADERS_V6))
                .is_some()
        );
    }
}

#[test]
fn a_path_that_grows_is_noticed_within_a_minute() {
    for seed in 0..10 {
        let mut sim = Sim::new(seed, config(9000), vec![Underlay::v4(lan(1400))]);
        let calm = 10_000 + sim.below(100_000);
        sim.run_for(ms(calm));
        assert!(found(&sim, 1400 - HEADERS_V4));
        sim.ways(|way| way.mtu = 9000);
        let took = sim.run_until(secs(61), |sim| found(sim, 9000 - HEADERS_V4));
        assert!(took.is_some(), "seed {seed}: {}", sim.datagram_max(0));
    }
}

#[test]
fn at_30_percent_loss_the_size_is_never_too_big_and_seldom_too_small() {
    for seed in 0..10 {
        let way = Way {
            loss: 0.3,
            ..lan(1400)
        };
        let mut sim = Sim::new(seed, config(1500), vec![Underlay::v4(way)]);
        sim.ends[0].data_every = Some(ms(100));
        sim.run_until(secs(20), |sim| sim.is_up(0)).expect("up");
        sim.run_for(secs(2));
        let (mut right, mut of) = (0_u32, 0_u32);
        for _ in 0..3600 {
            sim.run_for(secs(1));
            let size = sim.datagram_max(0);
            assert!(size <= 1400 - HEADERS_V4);
            right += u32::from(size == 1400 - HEADERS_V4);
            of += 1;
        }
        assert!(
            right * 10 >= of * 9,
            "seed {seed}: right for {right} of {of} s"
        );
    }
}

#[test]
fn a_shrunk_path_with_10_percent_loss_is_found_too() {
    for seed in 0..20 {
        let way = Way {
            loss: 0.1,
            ..lan(1500)
        };
        let mut sim = Sim::new(seed, config(1500), vec![Underlay::v4(way)]);
        sim.ends[0].data_every = Some(ms(20));
        let calm = 70_000 + sim.below(4_000);
        sim.run_for(ms(calm));
        sim.ways(|way| way.mtu = 1280);
        let took = sim.run_until(secs(8), |sim| sim.datagram_max(0) <= 1252);
        assert!(took.is_some(), "seed {seed}: {}", sim.datagram_max(0));
    }
}

#[test]
fn what_the_own_kernel_refuses_is_given_up_at_once() {
    let mut sim = Sim::new(2, config(9000), vec![Underlay::v4(lan(9000))]);
    sim.run_for(secs(5));
    assert_eq!(sim.datagram_max(0), 8972);

    sim.ends[0].local_mtu = 1500;
    let peer = sim.underlays[0].addresses[1];
    sim.call(0, |paths, now| {
        paths.sent_failed(peer, 8972, SendFailure::TooBig, now)
    });
    assert_eq!(sim.datagram_max(0), 1200);
    assert!(
        sim.run_until(ms(100), |sim| sim.datagram_max(0) == 1472)
            .is_some()
    );
    assert_eq!(sim.downs(0), 0);
}

/// A host's interface shrinks: its own kernel says so, and what the peer sends it vanishes.
#[test]
fn the_peer_of_an_end_that_shrinks_follows_in_a_round_trip() {
    let mut sim = Sim::new(8, config(9000), vec![Underlay::v4(lan(9000))]);
    sim.run_for(secs(5));
    assert!(found(&sim, 8972));

    sim.ends[0].local_mtu = 1500;
    sim.underlays[0].ways[1].mtu = 1500;
    let peer = sim.underlays[0].addresses[1];
    sim.call(0, |paths, now| {
        paths.sent_failed(peer, 8972, SendFailure::TooBig, now)
    });
    let took = sim.run_until(ms(100), |sim| found(sim, 1472));
    assert!(took.is_some(), "{}", sim.datagram_max(1));
    // Neither tells the other again and again.
    let before = sim.elapsed();
    sim.run_for(secs(60));
    // A probe a second, and one search for a larger size.
    assert!(sim.probes_since(1, before).len() < 200);
    assert!(found(&sim, 1472));
}

/// What shrinks one way only, in the middle, costs the other way a round trip of small datagrams.
#[test]
fn the_way_back_keeps_its_size_when_one_way_shrinks() {
    let mut sim = Sim::new(9, config(9000), vec![Underlay::v4(lan(9000))]);
    sim.ends[0].data_every = Some(ms(5));
    sim.run_for(secs(5));
    sim.underlays[0].ways[0].mtu = 1500;
    sim.run_until(secs(5), |sim| sim.datagram_max(0) == 1472)
        .expect("noticed");
    sim.run_for(secs(1));
    assert_eq!(sim.datagram_max(1), 8972);
}

#[test]
fn false_refusals_never_take_the_base_size() {
    let mut sim = Sim::new(3, config(1500), vec![Underlay::v4(lan(1500))]);
    sim.run_for(secs(5));
    let peer = sim.underlays[0].addresses[1];
    for len in [0, 100, 1199, 1200, 1201, 1472] {
        sim.call(0, |paths, now| {
            paths.sent_failed(peer, len, SendFailure::TooBig, now)
        });
        assert!(sim.datagram_max(0) >= 1200);
    }
    assert!(
        sim.run_until(secs(61), |sim| sim.datagram_max(0) == 1472)
            .is_some()
    );
}

#[test]
fn a_new_interface_mtu_takes_effect_in_both_directions() {
    let mut sim = Sim::new(4, config(1500), vec![Underlay::v4(lan(9000))]);
    sim.run_for(secs(5));
    assert_eq!(sim.datagram_max(0), 1472);
    sim.call(0, |paths, now| paths.set_underlay_mtu(9000, now));
    assert!(
        sim.run_until(ms(100), |sim| sim.datagram_max(0) == 8972)
            .is_some()
    );
    sim.call(0, |paths, now| paths.set_underlay_mtu(1400, now));
    assert_eq!(sim.datagram_max(0), 1372);
    sim.call(0, |paths, now| paths.set_underlay_mtu(0, now));
    assert_eq!(sim.datagram_max(0), 1200);
}

#[test]
fn another_address_starts_from_the_base_size() {
    let (first, second) = (
        Underlay::v4(lan(9000)),
        Underlay::v6(Way {
            latency: ms(9),
            ..lan(1280)
        }),
    );
    let mut sim = Sim::new(5, config(9000), vec![first, second]);
    sim.run_for(secs(15));
    assert_eq!(sim.datagram_max(0), 8972);
    sim.underlays[0].ways[0].cut = true;
    let second = sim.underlays[1].addresses[1];
    sim.run_until(secs(5), |sim| sim.address_in_use(0) == Some(second))
        .expect("moved");
    assert_eq!(sim.datagram_max(0), 1200);
    assert!(
        sim.run_until(ms(300), |sim| sim.datagram_max(0) == 1280 - HEADERS_V6)
            .is_some()
    );
}

#[test]
fn a_settled_search_costs_at_most_a_round_a_minute() {
    let mut sim = Sim::new(6, config(9000), vec![Underlay::v4(lan(1300))]);
    sim.run_for(secs(10));
    let before = sim.elapsed();
    sim.run_for(secs(600));
    let full = 1300 - HEADERS_V4;
    let trials = sim
        .probes_since(0, before)
        .into_iter()
        .filter(|probe| probe.2 > full);
    let trials = trials.count();
    // Nine sizes, three tries each.
    assert!(
        (10..=10 * 27).contains(&trials),
        "{trials} trials in ten minutes"
    );
}

#[test]
fn no_size_is_tried_that_the_engine_has_no_room_for() {
    for mtu in [9001, 9216, 65535] {
        let mut sim = Sim::new(7, config(mtu), vec![Underlay::v4(lan(mtu))]);
        sim.run_for(secs(60));
        assert_eq!(
            usize::from(sim.datagram_max(0)),
            crate::config::DATAGRAM_LEN_MAX,
            "underlay of {mtu} bytes"
        );
    }
}

//! Up, down, which of several addresses, and what that costs in probes.

use super::sim::*;
use crate::path::{PathConfig, SendFailure};

fn one(seed: u64, way: Way) -> Sim {
    Sim::new(seed, PathConfig::default(), vec![Underlay::v4(way)])
}

/// Two underlays, the first faster.
fn two(seed: u64, first: Way, second: Way) -> Sim {
    Sim::new(
        seed,
        PathConfig::default(),
        vec![Underlay::v4(first), Underlay::v6(second)],
    )
}

#[test]
fn a_path_is_up_one_round_trip_after_the_session() {
    let mut sim = one(
        1,
        Way {
            latency: ms(20),
            ..Way::default()
        },
    );
    assert_eq!(sim.run_until(secs(1), Sim::both_up), Some(ms(40)));
    sim.run_for(secs(5));
    let path = sim.ends[0].paths.current().expect("up");
    assert_eq!((path.rtt, path.loss), (ms(40), 0.0));
    assert!(sim.count(0, |told| *told == Told::Observed(address("192.0.2.1:6783"))) == 1);
}

#[test]
fn nothing_is_sent_before_there_is_a_session() {
    let mut sim =
        Sim::without_session(1, PathConfig::default(), vec![Underlay::v4(Way::default())]);
    sim.introduce();
    sim.run_for(secs(60));
    assert!(
        sim.ends
            .iter()
            .all(|end| end.sent.is_empty() && end.paths.deadline().is_none())
    );
}

#[test]
fn a_black_hole_is_found_in_3_5_s_and_its_end_in_2_s() {
    for seed in 0..200 {
        let mut sim = one(seed, Way::default());
        let latency = [0, 1, 5, 20, 50, 100][usize::try_from(seed % 6).expect("small")];
        sim.ways(|way| (way.latency, way.jitter) = (ms(latency), ms(latency / 4)));
        let busy = seed % 2 == 0;
        for end in &mut sim.ends {
            end.data_every = busy.then_some(ms(20));
        }
        let (calm, outage) = (10_000 + sim.below(3_000), 5_000 + sim.below(55_000));
        sim.run_for(ms(calm));

        sim.ways(|way| way.cut = true);
        let found = sim
            .run_until(secs(10), Sim::both_down)
            .expect("found at all");
        assert!(
            found <= ms(3_500) && found >= ms(1_500),
            "seed {seed}: found after {found:?}"
        );
        sim.run_for(ms(outage));
        assert!(sim.both_down());

        sim.ways(|way| way.cut = false);
        let healed = sim
            .run_until(secs(10), Sim::both_up)
            .expect("healed at all");
        assert!(healed <= secs(2), "seed {seed}: up again after {healed:?}");
        sim.run_for(secs(60));
        assert_eq!((sim.downs(0), sim.downs(1)), (1, 1), "seed {seed}");
    }
}

#[test]
fn thirty_percent_loss_for_an_hour_is_no_reason_to_go_down() {
    for seed in 0..12 {
        let latency = ms([0, 5, 20, 50, 75, 100][usize::try_from(seed % 6).expect("small")]);
        let mut sim = one(
            seed,
            Way {
                latency,
                jitter: latency / 3,
                loss: 0.3,
                ..Way::default()
            },
        );
        sim.run_until(secs(60), Sim::both_up).expect("up");
        sim.run_for(secs(3600));
        assert_eq!((sim.downs(0), sim.downs(1)), (0, 0), "seed {seed}");
        let loss = sim.ends[0].paths.current().expect("up").loss;
        assert!(
            (0.2..0.8).contains(&loss),
            "seed {seed}: half of the round trips fail, says {loss}"
        );
    }
}

#[test]
fn both_ends_leave_a_path_that_is_cut_one_way_and_do_not_flap() {
    for seed in 0..40 {
        let mut sim = one(
            seed,
            Way {
                latency: ms(1 + seed % 100),
                ..Way::default()
            },
        );
        for end in &mut sim.ends {
            end.data_every = (seed % 4 < 2).then_some(ms(10));
        }
        let calm = 9_000 + sim.below(3_000);
        sim.run_for(ms(calm));

        let cut = usize::try_from(seed % 2).expect("small");
        sim.underlays[0].ways[cut].cut = true;
        let found = sim
            .run_until(secs(10), Sim::both_down)
            .expect("found at all");
        assert!(found <= ms(3_500), "seed {seed}: found after {found:?}");
        sim.run_for(secs(120));
        assert_eq!((sim.downs(0), sim.downs(1)), (1, 1), "seed {seed}");

        sim.underlays[0].ways[cut].cut = false;
        let healed = sim
            .run_until(secs(10), Sim::both_up)
            .expect("healed at all");
        assert!(healed <= secs(2), "seed {seed}: up again after {healed:?}");
    }
}

#[test]
fn a_path_that_answers_one_probe_in_ten_flaps_at_most_twice_a_minute() {
    for seed in 0..100 {
        let mut sim = one(seed, Way::default());
        sim.run_for(secs(10));
        sim.underlays[0].ways[0].loss = 0.9;
        sim.run_for(secs(600));
        for end in 0..2 {
            let downs: Vec<_> = sim.ends[end]
                .told
                .iter()
                .filter(|(_, told)| *told == Told::Down)
                .collect();
            for three in downs.windows(3) {
                let within = three[2].0 - three[0].0;
                assert!(
                    within > secs(60),
                    "seed {seed}: three times down within {within:?}"
                );
            }
        }
    }
}

#[test]
fn a_path_comes_back_in_10_s_after_a_day() {
    let mut sim = one(3, Way::default());
    sim.run_for(secs(10));
    sim.ways(|way| way.cut = true);
    sim.run_for(secs(24 * 3600));
    let late = sim.probes_since(0, sim.elapsed() - secs(60)).len();
    assert!(late <= 13, "{late} probes in the last minute");
    sim.ways(|way| way.cut = false);
    let healed = sim
        .run_until(secs(60), Sim::both_up)
        .expect("healed at all");
    assert!(healed <= secs(10), "up again after {healed:?}");
}

#[test]
fn a_slow_path_stays_up_and_its_death_is_noticed() {
    let mut sim = one(
        4,
        Way {
            latency: ms(300),
            jitter: ms(60),
            ..Way::default()
        },
    );
    sim.run_for(secs(600));
    assert_eq!((sim.downs(0), sim.downs(1)), (0, 0));
    let rate = sim.probes_since(0, secs(300)).len();
    assert!(rate <= 320, "{rate} probes in 300 s");
    sim.ways(|way| way.cut = true);
    let found = sim
        .run_until(secs(10), Sim::both_down)
        .expect("found at all");
    assert!(found <= ms(4_500), "found after {found:?}");
}

#[test]
fn a_closed_port_takes_a_second() {
    for seed in 0..20 {
        let mut sim = one(seed, Way::default());
        sim.ends[0].data_every = Some(ms(50));
        let calm = 9_000 + sim.below(3_000);
        sim.run_for(ms(calm));

        sim.underlays[0].ways[0].refused = true;
        sim.underlays[0].ways[1].cut = true;
        let found = sim
            .run_until(secs(10), |sim| !sim.is_up(0))
            .expect("found at all");
        assert!(found <= secs(1), "seed {seed}: found after {found:?}");
    }
}

#[test]
fn false_hints_do_not_take_a_path_down() {
    let mut sim = one(5, Way::default());
    sim.run_for(secs(5));
    let before = sim.elapsed();
    let peer = address("198.51.100.2:6783");
    for _ in 0..600 {
        sim.run_for(ms(100));
        sim.call(0, |paths, now| {
            paths.sent_failed(peer, 1400, SendFailure::Unreachable, now)
        });
    }
    assert_eq!(sim.downs(0), 0);
    let probes = sim.probes_since(0, before).len();
    assert!(probes <= 200, "{probes} probes in a minute of hints");
}

#[test]
fn an_idle_path_costs_one_probe_a_second() {
    let mut sim = one(6, Way::default());
    sim.run_for(secs(20));
    let before = sim.elapsed();
    sim.run_for(secs(300));
    for end in 0..2 {
        let probes = sim.probes_since(end, before).len();
        assert!((280..=300).contains(&probes), "{probes} probes in 300 s");
    }
}

#[test]
fn addresses_that_never_answer_get_a_burst_and_then_one_probe_in_5_s() {
    let mut sim = one(
        7,
        Way {
            cut: true,
            ..Way::default()
        },
    );
    let peer = address("198.51.100.2:6783");
    sim.run_for(secs(120));
    let sent: Vec<_> = sim
        .probes_since(0, ms(0))
        .into_iter()
        .map(|(at, ..)| at)
        .collect();
    assert_eq!(&sent[..4], [ms(0), ms(200), ms(500), ms(1000)]);
    for pair in sent[3..].windows(2) {
        assert!(pair[1] - pair[0] >= secs(5), "{pair:?}");
    }
    assert!(sim.ends[0].sent.iter().all(|(_, to, _)| *to == peer));
}

#[test]
fn eight_dead_addresses_beside_a_living_one_share_one_probe_in_5_s() {
    let mut sim = one(8, Way::default());
    let living = address("198.51.100.2:6783");
    let all: Vec<_> = (1..8)
        .map(|host| address(&format!("203.0.113.{host}:6783")))
        .chain([living])
        .collect();
    sim.call(0, |paths, now| paths.set_candidates(&all, now));
    sim.run_for(secs(30));
    let before = sim.elapsed();
    sim.run_for(secs(350));
    let probes = sim.probes_since(0, before);
    let others = probes.iter().filter(|(_, to, _)| *to != living);
    assert!((65..=70).contains(&others.count()));
    for dead in &all[..7] {
        let count = probes.iter().filter(|(_, to, _)| to == dead).count();
        assert!((9..=10).contains(&count), "{count} probes to {dead}");
    }
}

#[test]
fn a_path_in_doubt_gets_at_most_ten_probes_a_second() {
    let mut sim = one(9, Way::default());
    sim.run_for(secs(10));
    sim.ways(|way| way.loss = 0.5);
    sim.run_for(secs(300));
    sim.ways(|way| way.cut = true);
    sim.run_for(secs(30));
    let small: Vec<_> = sim
        .probes_since(0, secs(10))
        .into_iter()
        .filter(|probe| probe.2 < 100)
        .collect();
    for (first, (at, ..)) in small.iter().enumerate() {
        let within = small[first..]
            .iter()
            .take_while(|probe| probe.0 < *at + secs(1))
            .count();
        assert!(
            within <= 11,
            "{within} small probes within a second of {at:?}"
        );
    }
}

#[test]
fn data_moves_to_another_living_address_without_going_down() {
    for seed in 0..20 {
        let mut sim = two(
            seed,
            Way::default(),
            Way {
                latency: ms(30),
                ..Way::default()
            },
        );
        let calm = 15_000 + sim.below(5_000);
        sim.run_for(ms(calm));
        let first = [sim.underlays[0].addresses[1], sim.underlays[0].addresses[0]];
        assert_eq!(
            [sim.address_in_use(0), sim.address_in_use(1)],
            first.map(Some)
        );

        sim.underlays[0].ways[0].cut = true;
        let moved = sim.run_until(secs(10), |sim| {
            (0..2).all(|end| {
                sim.address_in_use(end)
                    .is_some_and(|address| address != first[end])
            })
        });
        let moved = moved.expect("moved at all");
        assert!(moved <= ms(2_600), "seed {seed}: moved after {moved:?}");
        assert_eq!((sim.downs(0), sim.downs(1)), (0, 0), "seed {seed}");
    }
}

#[test]
fn a_much_better_address_is_adopted_and_a_slightly_better_one_is_not() {
    let mut sim = two(
        10,
        Way {
            latency: ms(50),
            ..Way::default()
        },
        Way {
            latency: ms(55),
            ..Way::default()
        },
    );
    let second = sim.underlays[1].addresses[1];
    sim.run_for(secs(60));
    sim.underlays[1]
        .ways
        .iter_mut()
        .for_each(|way| way.latency = ms(45));
    sim.run_for(secs(300));
    assert_ne!(
        sim.address_in_use(0),
        Some(second),
        "a tenth better is not enough"
    );
    sim.underlays[1]
        .ways
        .iter_mut()
        .for_each(|way| way.latency = ms(10));
    let moved = sim.run_until(secs(120), |sim| sim.address_in_use(0) == Some(second));
    // The smoothed round trip takes a few turns, and it must have been better three times.
    let moved = moved.expect("moved at all");
    assert!(
        moved >= secs(12) && moved <= secs(60),
        "moved after {moved:?}"
    );
    assert_eq!(sim.downs(0), 0);
}

#[test]
fn two_equal_addresses_with_jitter_do_not_make_data_wander() {
    for seed in 0..5 {
        let way = Way {
            latency: ms(10),
            jitter: ms(20),
            ..Way::default()
        };
        let mut sim = two(seed, way, way);
        sim.run_for(secs(20));
        let before = sim.ends[0].told.len();
        sim.run_for(secs(1800));
        let mut last = sim.address_in_use(0);
        let mut moves = 0;
        for (_, told) in &sim.ends[0].told[before..] {
            if let Told::Changed(path) = told {
                moves += usize::from(last != Some(path.address));
                last = Some(path.address);
            }
        }
        assert!(moves <= 6, "seed {seed}: {moves} moves in half an hour");
    }
}

#[test]
fn a_stalled_worker_does_not_take_a_living_path_down() {
    let mut sim = one(11, Way::default());
    sim.run_for(secs(10));
    for stall in 1..20 {
        let sent = sim.ends[0].sent.len();
        sim.run_until(secs(2), |sim| sim.ends[0].sent.len() > sent)
            .expect("a probe or an answer");
        sim.ends[0].stalled = true;
        sim.run_for(secs(stall));
        sim.ends[0].stalled = false;
        sim.run_for(secs(5));
    }
    assert_eq!(sim.downs(0), 0);
}

/// Late answers make the timeout as long as it gets: most of the quick probes have no verdict yet.
#[test]
fn a_black_hole_after_late_answers_is_found_in_8_s() {
    for seed in 0..50 {
        let mut sim = one(seed, Way::default());
        sim.run_for(secs(10));
        sim.ways(|way| (way.latency, way.jitter) = (ms(1), ms(1_400)));
        sim.run_for(secs(10));
        sim.ways(|way| (way.latency, way.jitter) = (ms(1), ms(0)));
        sim.ways(|way| way.cut = true);
        let found = sim.run_until(secs(60), Sim::both_down);
        assert!(
            found.is_some_and(|found| found <= secs(8)),
            "seed {seed}: {found:?}"
        );
    }
}

#[test]
fn an_address_that_died_with_the_one_in_use_is_not_taken_for_alive() {
    let mut sim = two(
        12,
        Way::default(),
        Way {
            latency: ms(250),
            ..Way::default()
        },
    );
    sim.run_for(ms(17_500));
    let second = sim.underlays[1].addresses[1];
    for underlay in &mut sim.underlays {
        underlay.ways[0].refused = true;
        underlay.ways[1].cut = true;
    }
    sim.ends[0].data_every = Some(ms(50));
    assert!(sim.run_until(secs(1), |sim| !sim.is_up(0)).is_some());
    sim.run_for(secs(60));
    let to_second = |told: &Told| matches!(told, Told::Changed(path) | Told::Up(path) if path.address == second);
    assert_eq!(sim.count(0, to_second), 0);
}

#[test]
fn duplicates_and_reordering_change_nothing() {
    let way = Way {
        latency: ms(5),
        jitter: ms(100),
        duplicates: 0.5,
        ..Way::default()
    };
    let mut sim = one(12, way);
    sim.run_for(secs(600));
    assert_eq!((sim.downs(0), sim.downs(1)), (0, 0));
    assert_eq!(sim.datagram_max(0), 1472);
    sim.ways(|way| way.cut = true);
    assert!(sim.run_until(ms(3_700), Sim::both_down).is_some());
}

#[test]
fn a_new_session_brings_a_dead_path_back_at_once() {
    let mut sim = one(13, Way::default());
    sim.ways(|way| way.cut = true);
    sim.run_for(secs(60));
    sim.ways(|way| way.cut = false);
    sim.run_for(ms(100));
    assert!(!sim.is_up(0));
    sim.call(0, |paths, now| paths.session_ready(now));
    assert!(sim.run_until(ms(10), |sim| sim.is_up(0)).is_some());
}

#[test]
fn a_lost_session_takes_the_path_down_and_silences_it() {
    let mut sim = one(14, Way::default());
    sim.run_for(secs(10));
    sim.call(0, |paths, _| paths.session_lost());
    assert_eq!(sim.downs(0), 1);
    let sent = sim.ends[0].sent.len();
    sim.run_for(secs(60));
    assert_eq!(sim.ends[0].sent.len(), sent);
    sim.call(0, |paths, now| paths.session_ready(now));
    assert!(sim.run_until(ms(50), |sim| sim.is_up(0)).is_some());
}

#[test]
fn the_end_of_loss_is_told_though_there_was_little() {
    for seed in 0..20 {
        let mut sim = Sim::new(
            seed,
            PathConfig::default(),
            vec![Underlay::v4(Way::default())],
        );
        sim.run_for(secs(10));
        sim.ways(|way| way.loss = 0.1);
        sim.run_for(secs(60));
        sim.ways(|way| way.loss = 0.0);
        sim.run_for(secs(60));
        let told = sim.ends[0]
            .told
            .iter()
            .rev()
            .find_map(|(_, told)| match told {
                Told::Up(path) | Told::Changed(path) => Some(path.loss),
                Told::Down | Told::Observed(_) => None,
            });
        assert_eq!(told, Some(0.0), "seed {seed}");
    }
}

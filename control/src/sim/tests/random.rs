//! Random scenarios before the checker: a few here, many in the long checks (`SIM_SEEDS` says which, as `1000-1199`).

use crate::sim::checker::Checker;
use crate::sim::scenario::Scenario;

/// Every seed that fails is told, with what happened in the first of them.
fn check(seeds: impl Iterator<Item = u64>, hosts_max: usize, episodes: usize) {
    let mut failed = Vec::new();
    let mut first = None;
    for seed in seeds {
        let scenario = Scenario::draw(seed, hosts_max, episodes);
        if let Err(error) = Checker::run(&scenario) {
            if first.is_none() {
                first = Some(scenario);
            }
            failed.push(format!("seed {seed}: {error}"));
        }
    }
    assert!(failed.is_empty(), "{failed:#?}; the first: {first:#?}");
}

#[test]
fn small_meshes_survive_random_troubles() {
    check(0..6, 6, 3);
}

#[test]
#[ignore = "takes minutes; `.ci/long sim` runs it"]
fn many_meshes_survive_random_troubles() {
    let seeds = std::env::var("SIM_SEEDS").unwrap_or_else(|_| "1000-2999".to_owned());
    let (first, last) = seeds.split_once('-').unwrap();
    check(first.parse().unwrap()..=last.parse().unwrap(), 12, 6);
}

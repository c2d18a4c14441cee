//! Random scenarios before the checker: a few here, many in the long checks (`SIM_SEEDS` says how many).

use crate::sim::checker::Checker;
use crate::sim::scenario::Scenario;

fn check(seeds: impl Iterator<Item = u64>, hosts_max: usize, episodes: usize) {
    for seed in seeds {
        let scenario = Scenario::draw(seed, hosts_max, episodes);
        if let Err(error) = Checker::run(&scenario) {
            panic!("seed {seed}: {error}\n{scenario:#?}");
        }
    }
}

#[test]
fn small_meshes_survive_random_troubles() {
    check(0..6, 6, 3);
}

#[test]
#[ignore = "takes minutes; `.ci/long sim` runs it"]
fn many_meshes_survive_random_troubles() {
    let seeds = std::env::var("SIM_SEEDS").ok();
    let seeds = seeds.and_then(|text| text.parse().ok()).unwrap_or(200);
    check(1000..1000 + seeds, 12, 6);
}

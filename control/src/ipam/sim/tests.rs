//! The runs: what a seed does to its hosts, and what all runs must show.

use std::time::{Duration, Instant};

use serde_json::{Map, json};

use super::checker::Checker;
use super::plan::{Begin, Plan};
use super::world::World;
use crate::ipam::Faults;
use crate::ipam::lost_store;
use crate::ipam::request::Request;
use crate::measured::keep;

/// What came of one run.
#[derive(Debug)]
struct Outcome {
    violations: Vec<String>,
    judged: u64,
    partitions: u64,
    settled: Duration,
    /// Stores that were lost.
    losses: u64,
    /// What happened to what was violated.
    log: Vec<String>,
}

#[expect(
    clippy::disallowed_methods,
    reason = "the virtual clock needs a first instant"
)]
pub(crate) fn first_instant() -> Instant {
    Instant::now()
}

fn run(seed: u64, faults: Faults) -> Outcome {
    run_plan(seed, &Plan::of(seed), faults)
}

fn run_plan(seed: u64, plan: &Plan, faults: Faults) -> Outcome {
    let mut world = World::new(seed, plan.clone(), faults);
    let early = plan.hosts - plan.late;
    for at in 0..early {
        world.start(at);
    }
    let mut outcome = Outcome {
        violations: Vec::new(),
        judged: 0,
        partitions: 0,
        settled: Duration::ZERO,
        losses: 0,
        log: Vec::new(),
    };
    for round in 0..plan.rounds {
        world.is_calm = false;
        for _ in 0..plan.partitions {
            outcome.partitions += 1;
            disturb(&mut world, round);
            if !world.checker.violations.is_empty() {
                break;
            }
        }
        if world.checker.violations.is_empty() {
            outcome.settled = outcome.settled.max(calm_down(&mut world));
        }
        outcome.losses = world.losses;
        if !world.checker.violations.is_empty() {
            break;
        }
    }
    if let Some(violation) = world.checker.violations.first() {
        // The address or range comes first or third in what the checker says.
        let words = violation
            .split([' ', '-', '/'])
            .filter(|word| word.contains('.'));
        let mut wanted: Vec<&str> = words.take(1).collect();
        let holders: Vec<String> = violation
            .split(' ')
            .filter(|word| word.starts_with('c') && word[1..].parse::<u64>().is_ok())
            .map(|word| format!("{word:?}"))
            .collect();
        wanted.extend(holders.iter().map(String::as_str));
        wanted.extend([
            "Disputed", "Remove", "blocks", "says", "starts", "crashes", "fails", "reaches",
        ]);
        outcome.log = world.log_about(&wanted);
    }
    outcome.violations = world.checker.violations;
    outcome.judged = world.checker.judged;
    outcome
}

/// One part of a round: the network changes, hosts come and go, and containers all the while.
fn disturb(world: &mut World, round: usize) {
    let count = world.hosts.len();
    let parts = world.pick(3) as u64;
    for at in 0..count {
        world.hosts[at].group = world.pick(usize::try_from(parts).unwrap_or(0) + 1) as u64;
    }
    world.network_changed();
    for _ in 0..12 + world.pick(12) {
        let at = world.pick(count);
        match world.pick(100) {
            0..60 => use_containers(world, at),
            60..70 => world.crash(at),
            70..84 => world.start(at),
            84..90 => remove_a_peer(world, at),
            90..93 => put_old_disk_back(world, at),
            93..94 => copy_host(world, at),
            94..97 if world.plan.with_disk_errors => world.hosts[at].disk_fails = true,
            97.. if world.plan.with_lost_stores => lose_store(world, at),
            97..99 if world.plan.with_leaving && round > 0 && at > 1 && world.is_up(at) => {
                world.checker.may_leave(at);
                world.ask(at, Request::Leave);
            }
            _ => {}
        }
        let pause = Duration::from_millis(20 + world.pick(400) as u64);
        world.run_for(pause);
    }
    if world.chance(10) {
        world.run_for(Duration::from_secs(31));
    }
}

fn use_containers(world: &mut World, at: usize) {
    if !world.is_up(at) {
        return;
    }
    let names: Vec<String> = world.hosts[at].containers.keys().cloned().collect();
    let some = (!names.is_empty()).then(|| names[world.pick(names.len())].clone());
    let has_died = some
        .as_ref()
        .is_some_and(|name| world.hosts[at].containers[name].died_at.is_some());
    match (world.pick(10), some) {
        (0..2, Some(name)) => world.detach(at, &name),
        (2..4, Some(name)) if !has_died => world.kill_container(at, &name),
        (4..6, Some(name)) if has_died => world.return_container(at, &name),
        (6, Some(holder)) if !has_died => {
            world.ask(
                at,
                Request::Allocate {
                    holder,
                    subnet: None,
                },
            );
        }
        (7, _) => {
            let holder = world.new_container();
            let count = usize::try_from(1_u64 << (32 - u32::from(world.plan.prefix))).unwrap_or(4);
            let address = u32::from(world.range().network())
                + 1
                + u32::try_from(world.pick(count - 2)).unwrap_or(0);
            let address = world.with_prefix(address);
            world.ask(at, Request::Claim { holder, address });
        }
        _ => {
            let holder = world.new_container();
            world.ask(
                at,
                Request::Allocate {
                    holder,
                    subnet: None,
                },
            );
        }
    }
}

/// One or two hosts remove a peer that is down or out of reach.
fn remove_a_peer(world: &mut World, at: usize) {
    let victim = world.pick(world.hosts.len());
    if victim == at {
        return;
    }
    let force = !world.plan.is_clean && world.chance(20);
    if force {
        world.checker.taint();
    }
    let others = [at, world.pick(world.hosts.len())];
    for by in others {
        if world.is_up(by) && by != victim {
            let victim = world.hosts[victim].id;
            world.ask(
                by,
                Request::Remove {
                    victim,
                    force,
                    dry_run: false,
                },
            );
        }
    }
}

fn put_old_disk_back(world: &mut World, at: usize) {
    let count = world.hosts[at].old_disks.len();
    if world.plan.is_clean || count == 0 || world.hosts[at].has_left {
        return;
    }
    world.crash(at);
    let which = world.pick(count);
    let disk = world.hosts[at].old_disks[which].clone();
    world.hosts[at].disk = disk;
    world.checker.forgets(at);
    let pause = Duration::from_millis(1000 + world.pick(2000) as u64);
    world.run_for(pause);
    world.start(at);
}

/// A host's store is damaged; somebody else still knows the ring.
fn lose_store(world: &mut World, at: usize) {
    let knows = |host: &super::host::Host| {
        host.disk.contains_key(b"g".as_slice()) && !host.disk.contains_key(b"l".as_slice())
    };
    let others = world.hosts.iter().enumerate();
    let is_known = others
        .filter(|(other, host)| *other != at && !host.has_left)
        .any(|(_, host)| knows(host));
    if !is_known || !knows(&world.hosts[at]) || world.hosts[at].has_left {
        return;
    }
    world.crash(at);
    world.hosts[at].disk = lost_store();
    world.losses += 1;
    world.checker.forgets(at);
    let pause = Duration::from_millis(world.pick(2000) as u64);
    world.run_for(pause);
    world.start(at);
}

/// A second machine with the same key and the same disk.
fn copy_host(world: &mut World, at: usize) {
    if world.plan.is_clean || world.hosts[at].old_disks.is_empty() || world.hosts[at].has_left {
        return;
    }
    if world.hosts.iter().filter(|host| host.is_clone).count() > 1 {
        return;
    }
    let mut copy = super::host::Host::new(world.hosts[at].id, world.now);
    copy.disk = world.hosts[at].disk.clone();
    copy.is_clone = true;
    copy.group = world.pick(3) as u64;
    world.hosts.push(copy);
    world.checker.forgets(at);
    world.checker.forgets(world.hosts.len() - 1);
    let clone = world.hosts.len() - 1;
    world.start(clone);
}

/// The network is whole, everybody is up, nothing is lost: how long until all agree.
fn calm_down(world: &mut World) -> Duration {
    world.is_calm = true;
    for at in 0..world.hosts.len() {
        world.hosts[at].group = 0;
        world.hosts[at].disk_fails = false;
        // Two of one identity cannot both be in one network.
        if world.hosts[at].is_clone {
            world.crash(at);
            world.hosts[at].has_left = true;
        }
    }
    for at in 0..world.hosts.len() {
        world.start(at);
    }
    world.network_changed();
    let began = world.now;
    let (mut settled, mut last) = (None, String::new());
    while world.now < began + Duration::from_secs(5) && settled.is_none() {
        world.run_for(Duration::from_millis(100));
        match Checker::agreement(&world.shown()) {
            Ok(()) => settled = Some(world.now - began),
            Err(why) => last = why,
        }
    }
    // What waits for requests that were made before is over by then, too.
    world.run_for(Duration::from_secs(15));
    let (network, broadcast) = (world.range().network(), world.range().broadcast());
    let shown = world.shown();
    if settled.is_none() {
        let why = Checker::agreement(&shown)
            .err()
            .unwrap_or_else(|| format!("it took longer: {last}"));
        world.checker.not_converged(why);
    }
    world
        .checker
        .quiet(&shown, (network.into(), broadcast.into()), world.now);
    settled.unwrap_or(Duration::from_secs(5))
}

/// Runs seeds until one fails.
fn run_seeds(seeds: std::ops::Range<u64>) -> (u64, u64, Duration) {
    let (mut judged, mut partitions, mut slowest) = (0, 0, Duration::ZERO);
    for seed in seeds {
        let outcome = run(seed, Faults::default());
        assert!(
            outcome.violations.is_empty(),
            "seed {seed}: {:#?}\n{:?}\n{}",
            outcome.violations,
            Plan::of(seed),
            outcome.log.join("\n")
        );
        judged += outcome.judged;
        partitions += outcome.partitions;
        slowest = slowest.max(outcome.settled);
    }
    (judged, partitions, slowest)
}

#[test]
fn whatever_happens_no_address_is_there_twice_and_none_is_lost() {
    let (judged, partitions, slowest) = run_seeds(0..60);
    assert!(judged > 1000, "{judged} answers judged");
    assert!(partitions > 500);
    assert!(slowest <= Duration::from_secs(5));
}

/// Hosts without leavers, so that what one has lost some other still knows.
fn with_losses(seed: u64) -> Plan {
    Plan {
        with_lost_stores: true,
        with_leaving: false,
        ..Plan::of(seed)
    }
}

#[test]
#[ignore = "minutes: .ci/long runs it"]
fn many_lost_stores() {
    let mut broken = Vec::new();
    for seed in asked_seeds("LOST_SEEDS", LOST_SEEDS).1 {
        let outcome = run_plan(seed, &with_losses(seed), Faults::default());
        if let Some(violation) = outcome.violations.first() {
            broken.push(format!("seed {seed}: {violation}"));
            broken.extend(outcome.log.into_iter().rev().take(LOG_LINES).rev());
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// Seeds of hosts that lose their stores.
const LOST_SEEDS: &str = "0-999";

#[test]
fn lost_stores_cost_no_range_and_give_no_address_twice() {
    let mut losses = 0;
    for seed in 0..60 {
        let plan = with_losses(seed);
        let outcome = run_plan(seed, &plan, Faults::default());
        assert!(
            outcome.violations.is_empty(),
            "seed {seed}: {:#?}\n{plan:?}\n{}",
            outcome.violations,
            outcome.log.join("\n")
        );
        losses += outcome.losses;
    }
    assert!(losses > 30, "{losses} stores were lost");
}

/// What a fetch of space may take when each message takes 25 ms.
const FETCH_LIMIT: Duration = Duration::from_millis(300);
const ONE_WAY_MS: u64 = 25;

/// One allocation when nothing else goes on; the time until its answer.
fn allocation(world: &mut World, at: usize) -> Duration {
    let (holder, subnet) = (world.new_container(), None);
    world.last_answer = None;
    world.ask(at, Request::Allocate { holder, subnet });
    for _ in 0..12_000 {
        if let Some((took, is_given)) = world.last_answer {
            assert!(is_given, "there is space");
            return took;
        }
        world.run_for(Duration::from_millis(1));
    }
    panic!("no answer");
}

/// The allocations of a host that has used up all it has, and of one that comes later and has nothing.
fn fetches(seed: u64) -> Vec<Duration> {
    let hosts = 3 + usize::try_from(seed % 6).unwrap_or(0);
    let plan = Plan {
        hosts,
        begin: Begin::Consensus,
        observers: 0,
        late: 1,
        prefix: 24,
        loss_percent: 0,
        repeat_percent: 0,
        delay_ms_max: ONE_WAY_MS,
        delay_is_fixed: true,
        write_ms_max: 5,
        is_clean: true,
        with_leaving: false,
        with_disk_errors: false,
        with_lost_stores: false,
        ..Plan::of(seed)
    };
    let mut world = World::new(seed, plan, Faults::default());
    world.is_calm = true;
    for at in 0..hosts - 1 {
        world.start(at);
    }
    world.run_for(Duration::from_secs(3));
    world.ask(0, Request::Prime);
    world.run_for(Duration::from_secs(5));
    let mut took = Vec::new();
    let at = world.pick(hosts - 1);
    // Half of the whole range: more than any of two or more hosts has.
    for _ in 0..150 {
        took.push(allocation(&mut world, at));
    }
    world.start(hosts - 1);
    world.run_for(Duration::from_secs(3));
    took.push(allocation(&mut world, hosts - 1));
    assert_eq!(world.checker.violations, Vec::<String>::new());
    took.retain(|took| *took >= Duration::from_millis(2 * ONE_WAY_MS));
    took
}

#[test]
fn space_is_fetched_from_another_peer_within_300_ms() {
    let mut count = 0;
    for seed in 0..60 {
        let took = fetches(seed);
        assert!(!took.is_empty(), "seed {seed}: nothing had to be fetched");
        count += took.len();
        let slowest = took.iter().max().copied().unwrap_or_default();
        assert!(slowest <= FETCH_LIMIT, "seed {seed}: {took:?}");
    }
    assert!(count > 200, "{count} fetches");
}

#[test]
fn one_seed_is_one_run() {
    let trace = |seed| {
        let outcome = run(seed, Faults::default());
        (outcome.judged, outcome.partitions, outcome.settled)
    };
    assert_eq!(trace(3), trace(3));
}

/// A planted fault: its name, the first seed that shows it, how it is switched on.
type Plant = (&'static str, u64, fn(&mut Faults));

/// The planted faults.
const PLANTED: [Plant; 6] = [
    ("tie by free counts", 671, |faults| {
        faults.tie_by_free = true;
    }),
    ("answer before the write", 43, |faults| {
        faults.answer_before_write = true;
    }),
    ("forgotten promise", 153, |faults| {
        faults.forget_promise = true;
    }),
    ("double vote", 1608, |faults| faults.double_vote = true),
    ("removal without fence", 0, |faults| {
        faults.remove_without_fence = true;
    }),
    ("reuse inside the grace", 0, |faults| {
        faults.reuse_in_grace = true;
    }),
];

/// What a seed shows with a fault that it does not show without.
fn shows(seed: u64, plant: fn(&mut Faults)) -> Option<String> {
    let mut faults = Faults::default();
    plant(&mut faults);
    let violation = run(seed, faults).violations.into_iter().next()?;
    run(seed, Faults::default())
        .violations
        .is_empty()
        .then_some(violation)
}

/// The generator knows nothing of faults. When it or the machine changes, the seeds are found anew:
/// `every_planted_fault_is_found_from_seed_0` prints them.
#[test]
fn each_planted_fault_shows_in_its_seed() {
    let hidden: Vec<_> = PLANTED
        .iter()
        .filter(|(_, seed, plant)| shows(*seed, *plant).is_none())
        .map(|(name, seed, _)| (name, seed))
        .collect();
    assert!(hidden.is_empty(), "not shown: {hidden:?}");
}

#[test]
#[ignore = "minutes: .ci/long runs it"]
#[expect(
    clippy::print_stdout,
    reason = "which seed shows what, under --nocapture"
)]
fn every_planted_fault_is_found_from_seed_0() {
    let (mut missed, mut shown) = (Vec::new(), Map::new());
    for (name, _, plant) in PLANTED {
        let found = (0..FAULT_SEEDS_MAX).find_map(|seed| Some((seed, shows(seed, plant)?)));
        match found {
            Some((seed, violation)) => {
                println!("{name}: seed {seed}: {violation}");
                shown.insert(name.to_owned(), json!({ "seed": seed, "shows": violation }));
            }
            None => missed.push(name),
        }
    }
    let figures = json!({ "seeds_max": FAULT_SEEDS_MAX, "first_seeds": shown, "missed": missed });
    keep("ipam-planted", &figures);
    assert!(missed.is_empty(), "not found: {missed:?}");
}

/// Seeds in which every planted fault must show.
const FAULT_SEEDS_MAX: u64 = 10_000;

/// Lines of one seed's log that are shown.
const LOG_LINES: usize = 120;

/// The seeds of a variable, FIRST-LAST: as text, and as numbers.
fn asked_seeds(variable: &str, otherwise: &str) -> (String, std::ops::RangeInclusive<u64>) {
    let asked = std::env::var(variable).unwrap_or_else(|_| otherwise.to_owned());
    let (first, last) = asked.split_once('-').expect("FIRST-LAST");
    let seeds = first.parse::<u64>().unwrap()..=last.parse::<u64>().unwrap();
    (asked, seeds)
}

/// Every seed from FIRST to LAST of `IPAM_SEEDS=FIRST-LAST`, whatever goes wrong on the way.
#[test]
#[ignore = "minutes: .ci/long runs it"]
#[expect(clippy::print_stdout, reason = "the record of a long run")]
fn many_seeds() {
    let (asked, seeds) = asked_seeds("IPAM_SEEDS", "0-9999");
    let (mut judged, mut partitions, mut slowest) = (0, 0, Duration::ZERO);
    let (mut wrong, mut broken) = (Vec::new(), Vec::new());
    for seed in seeds {
        let outcome = run(seed, Faults::default());
        judged += outcome.judged;
        partitions += outcome.partitions;
        slowest = slowest.max(outcome.settled);
        if let Some(violation) = outcome.violations.first() {
            let plan = Plan::of(seed);
            broken.push(format!("seed {seed}: {violation}"));
            wrong.push(format!("seed {seed}: {violation}\n{plan:?}"));
            wrong.extend(outcome.log.into_iter().rev().take(LOG_LINES).rev());
        }
    }
    println!(
        "{partitions} partitions and heals, {judged} judgements, slowest agreement {slowest:?}"
    );
    let figures = json!({
        "seeds": asked,
        "partitions_and_heals": partitions,
        "judgements": judged,
        "slowest_agreement_s": slowest.as_secs_f64(),
        "violations": broken,
    });
    keep(&format!("ipam-seeds-{asked}"), &figures);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

//! Rings of names: the peers that bear them vote, leave and are removed like others.

use super::*;
use crate::ipam::request::Missing;

fn named(count: u8) -> Net {
    let names: Vec<PeerName> = (1..=count).map(|n| peer(n).name()).collect();
    Net::new(count, "10.32.0.0/12", &IpamInit::Seed(names))
}

fn remove(victim: PeerId) -> Request {
    Request::Remove {
        victim,
        force: false,
        dry_run: false,
    }
}

#[test]
fn peers_take_the_seats_of_their_names_once_most_are_within_reach() {
    let mut net = named(3);
    net.start(0);
    net.run_for(Duration::from_secs(5));
    let seeds = [1, 2, 3].map(|n| Ipam::seeded_owner(peer(n).name()));
    assert_eq!(
        net.status(0)
            .members
            .iter()
            .copied()
            .collect::<BTreeSet<_>>(),
        BTreeSet::from(seeds),
        "alone"
    );
    net.start(1);
    net.run_for(Duration::from_secs(10));
    let members = BTreeSet::from_iter(net.status(0).members);
    assert_eq!(members, BTreeSet::from([peer(1), peer(2), seeds[2]]));
    net.start(2);
    net.run_for(Duration::from_secs(10));
    for at in 0..3 {
        assert_eq!(net.status(at).members, [peer(1), peer(2), peer(3)]);
    }
    let rests = net.machines[0].ipam.as_ref().unwrap().deadline();
    assert!(rests.is_none_or(|at| at > net.now + Duration::from_secs(1)));
}

/// As soon as they have met, and later.
#[test]
fn one_of_two_named_hosts_leaves_and_the_other_has_everything() {
    for wait in [0, 10] {
        let mut net = named(2);
        (0..2).for_each(|at| net.start(at));
        net.run_for(Duration::from_secs(wait));
        let left = Reply::Left {
            heir: Some(peer(2)),
            count: 1 << 19,
        };
        assert_eq!(net.answer(0, Request::Leave), Ok(left));
        net.kill(0);
        net.run_for(Duration::from_secs(5));
        assert_eq!(net.owns(1), 1 << 20);
        assert_eq!(net.status(1).members, [peer(2)], "after {wait} s");
        let last = Reply::Left {
            heir: None,
            count: 0,
        };
        assert_eq!(net.answer(1, Request::Leave), Ok(last));
    }
}

#[test]
fn the_only_named_host_leaves() {
    let mut net = named(1);
    net.start(0);
    assert!(net.answer(0, Request::Leave).is_ok());
}

#[test]
fn a_named_host_that_never_met_the_others_says_whom_it_misses() {
    let mut net = named(2);
    net.start(0);
    let number = net.ask(0, Request::Leave);
    net.run_for(Duration::from_secs(11));
    let refused = net.machines[0].answers.remove(&number).unwrap();
    let missing = Missing(vec![peer(2).name().to_string()]);
    let (majority, voters, votes) = (2, 2, 1);
    let wanted = Failure::NoVotesToLeave {
        majority,
        voters,
        votes,
        missing,
    };
    assert_eq!(refused, Err(wanted));
}

#[test]
fn named_hosts_that_die_one_after_the_other_are_removed_with_their_votes() {
    let mut net = named(3);
    (0..3).for_each(|at| net.start(at));
    net.run_for(Duration::from_secs(10));
    net.kill(2);
    let removed = net.answer(0, remove(peer(3)));
    assert!(matches!(removed, Ok(Reply::Removed { count, .. }) if count > 0));
    assert_eq!(net.status(0).members, [peer(1), peer(2)]);
    assert_eq!(net.owns(0) + net.owns(1), 1 << 20);

    // It returns with what it had, as a voter like any other.
    net.start(2);
    net.run_for(Duration::from_secs(10));
    assert_eq!(net.owns(2), 0);
    assert_eq!(net.status(2).members, [peer(1), peer(2), peer(3)]);
}

/// Nobody ever bore the name.
#[test]
fn a_name_that_no_host_bears_is_removed_like_a_dead_host() {
    let mut net = named(3);
    (0..2).for_each(|at| net.start(at));
    net.run_for(Duration::from_secs(10));
    let removed = net.answer(0, remove(Ipam::seeded_owner(peer(3).name())));
    assert!(matches!(removed, Ok(Reply::Removed { count, .. }) if count > 0));
    assert_eq!(net.status(1).members, [peer(1), peer(2)]);
}

//! Whom a thousand peers choose, and what that makes of the network.

use super::*;
use crate::node::tests::first_instant;

fn id(n: u64) -> PeerId {
    let mut random = Randomness::seeded(n);
    PeerId(random.bytes())
}

fn ids(count: u64) -> Vec<PeerId> {
    (0..count).map(id).collect()
}

fn candidate(peer: PeerId) -> Candidate {
    Candidate {
        peer,
        linked_at: None,
        has_address: true,
        is_routed: true,
        is_apart: false,
    }
}

fn dialled(choices: &[Choice]) -> BTreeSet<PeerId> {
    let dial = |choice: &Choice| match choice {
        Choice::Dial(peer, _) | Choice::Seek(peer, _) => Some(*peer),
        Choice::Keep(_) | Choice::Leave(_) => None,
    };
    choices.iter().filter_map(dial).collect()
}

/// What each peer dials if it knows all the others and has no link.
fn graph(ids: &[PeerId]) -> BTreeMap<PeerId, BTreeSet<PeerId>> {
    let (now, mut random) = (first_instant(), Randomness::seeded(1));
    let mut graph: BTreeMap<PeerId, BTreeSet<PeerId>> = BTreeMap::new();
    for ours in ids {
        let others: Vec<_> = ids
            .iter()
            .filter(|id| *id != ours)
            .map(|id| candidate(*id))
            .collect();
        let choices = Mesh::new(*ours).choose(&others, &[], &mut random, now);
        for peer in dialled(&choices) {
            graph.entry(*ours).or_default().insert(peer);
            graph.entry(peer).or_default().insert(*ours);
        }
    }
    graph
}

/// Links from one peer to the farthest other; `None` if some cannot be reached.
fn depth(graph: &BTreeMap<PeerId, BTreeSet<PeerId>>, from: PeerId, count: usize) -> Option<usize> {
    let (mut seen, mut front) = (BTreeSet::from([from]), vec![from]);
    for depth in 0.. {
        let next: BTreeSet<_> = front
            .iter()
            .flat_map(|peer| &graph[peer])
            .copied()
            .collect();
        front = next.into_iter().filter(|peer| seen.insert(*peer)).collect();
        if front.is_empty() {
            return (seen.len() == count).then_some(depth);
        }
    }
    None
}

#[test]
fn a_few_links_each_make_one_network_with_short_ways() {
    for (count, degree_mean_max, degree_max, depth_max) in [
        (2, 1, 1, 1),
        (3, 2, 2, 1),
        (10, 9, 9, 2),
        (100, 16, 32, 4),
        (1000, 22, 44, 5),
    ] {
        let ids = ids(count);
        let graph = graph(&ids);
        let degrees: Vec<_> = graph.values().map(BTreeSet::len).collect();
        let mean = degrees.iter().sum::<usize>() / ids.len();
        let most = degrees.iter().max().copied();
        let farthest = depth(&graph, ids[0], ids.len());

        assert!(
            mean <= degree_mean_max,
            "{mean} links on average of {count}"
        );
        assert!(
            most <= Some(degree_max),
            "{most:?} links at most of {count}"
        );
        assert!(
            farthest <= Some(depth_max) && farthest.is_some(),
            "{farthest:?} of {count}"
        );
    }
}

#[test]
fn a_newcomer_changes_little() {
    let mut known = ids(200);
    let before = graph(&known);
    known.push(id(999));
    let after = graph(&known);

    let changed: usize = before
        .iter()
        .map(|(peer, links)| links.symmetric_difference(&after[peer]).count())
        .sum();
    assert!(changed < 60, "{changed} ends of links changed");
}

#[test]
fn who_has_links_enough_dials_its_successor_alone() {
    let (now, mut random) = (first_instant(), Randomness::seeded(1));
    let known = ids(64);
    let ours = known[0];
    let mut mesh = Mesh::new(ours);
    let mut candidates: Vec<_> = known[1..].iter().map(|id| candidate(*id)).collect();
    let wanted = dialled(&mesh.choose(&candidates, &[], &mut random, now));
    for candidate in &mut candidates {
        candidate.linked_at = (!wanted.contains(&candidate.peer)).then_some(now);
    }

    let choices = mesh.choose(&candidates, &[], &mut random, now);

    let members = mesh.members(&candidates);
    let dialled = dialled(&choices);
    assert!(
        dialled
            .iter()
            .all(|peer| members.successor(ours) == Some(*peer))
    );
    assert!(dialled.len() <= 1);
}

#[test]
fn who_does_not_answer_gives_way_and_is_not_forgotten() {
    let (start, mut random) = (first_instant(), Randomness::seeded(1));
    let known = ids(40);
    let mut mesh = Mesh::new(known[0]);
    let candidates: Vec<_> = known[1..].iter().map(|id| candidate(*id)).collect();
    let first = dialled(&mesh.choose(&candidates, &[], &mut random, start));
    let failed: Vec<_> = first
        .iter()
        .map(|peer| Discovered {
            peer: *peer,
            failures: MESH_FAILURES_MAX,
            is_connected: false,
        })
        .collect();

    assert!(mesh.note_failures(failed.iter().copied(), &mut random, start));
    assert!(!mesh.note_failures(failed.iter().copied(), &mut random, start));
    let choices = mesh.choose(&candidates, &failed, &mut random, start);

    let second = dialled(&choices);
    let again = second.intersection(&first).count();
    assert_eq!(
        again,
        first.len().min(MESH_ALONE_DIALED),
        "a few are tried all the same"
    );
    assert!(second.len() > 4, "and others instead of them");
    let left = choices
        .iter()
        .filter(|choice| matches!(choice, Choice::Leave(_)))
        .count();
    assert_eq!(left, first.len() - again);

    let later = start + 2 * MESH_SHUN;
    assert_eq!(
        dialled(&mesh.choose(&candidates, &[], &mut random, later)),
        first
    );
}

#[test]
fn one_end_dials_first_where_both_want_the_link() {
    let (now, mut random) = (first_instant(), Randomness::seeded(1));
    let (a, b) = (id(1).min(id(2)), id(1).max(id(2)));
    let at = |ours, other, random: &mut Randomness| match Mesh::new(ours).choose(
        &[candidate(other)],
        &[],
        random,
        now,
    )[..]
    {
        [Choice::Dial(_, at)] => at,
        ref other => panic!("{other:?}"),
    };

    assert!(at(a, b, &mut random) <= now + MESH_DIAL_SPREAD);
    assert!(at(b, a, &mut random) >= now + MESH_OTHER_SIDE_AFTER);
}

#[test]
fn a_hub_ends_old_links_that_nobody_needs_a_few_at_a_time() {
    let (start, mut random) = (first_instant(), Randomness::seeded(1));
    let known = ids(300);
    let (hub, named) = (known[0], known[1]);
    let kept = MESH_LINKS_KEPT.max(4 * 9);
    let mut mesh = Mesh::new(hub);
    let linked_at = Some(start);
    let mut candidates: Vec<_> = known[1..]
        .iter()
        .map(|id| Candidate {
            linked_at,
            ..candidate(*id)
        })
        .collect();
    candidates[1].is_apart = true;
    let apart = candidates[1].peer;
    assert!(
        mesh.trim(&candidates, |_| false, &mut random, start)
            .is_empty(),
        "all are young"
    );

    let mut now = start + TRIM_AFTER;
    loop {
        now += 2 * TRIM_EVERY;
        let ended = mesh.trim(&candidates, |peer| peer == named, &mut random, now);
        let linked = candidates.iter().filter(|known| known.linked_at.is_some());
        let too_many = linked.count() - kept;
        assert!(ended.len() <= TRIM_AT_ONCE.max(too_many / TRIM_SHARE));
        assert!(!ended.contains(&named) && !ended.contains(&apart));
        if ended.is_empty() {
            break;
        }
        for candidate in &mut candidates {
            if ended.contains(&candidate.peer) {
                candidate.linked_at = None;
            }
        }
    }

    let links = candidates
        .iter()
        .filter(|candidate| candidate.linked_at.is_some());
    assert_eq!(links.count(), kept);
}

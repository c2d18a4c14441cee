//! Random networks seen by everybody: every way ends, however views differ.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::config::HOPS_MAX;
use crate::topology::DataReport;

fn id(n: usize) -> PeerId {
    // Not in the order of the numbers, so that ties by PeerId are no ties by place.
    let mut bytes = [0; 16];
    bytes[0] = u8::try_from((n * 151 + 7) % 256).unwrap();
    bytes[1..9].copy_from_slice(&n.to_be_bytes());
    PeerId(bytes)
}

fn report(rtt_us: u64) -> LinkReport {
    LinkReport {
        control: true,
        data: Some(DataReport {
            rtt: Duration::from_micros(rtt_us),
            datagram_max: 1472,
            loss_percent: 0,
        }),
    }
}

type Links = BTreeMap<(usize, usize), u64>;

/// Everybody's word on these links, told in this order.
fn network(count: usize, links: &Links, no_relay: &BTreeSet<usize>, order: &[usize]) -> Network {
    let mut network = Network::default();
    for &n in order.iter().filter(|n| **n < count) {
        let mut said: Vec<_> = links
            .iter()
            .filter_map(|((a, b), rtt)| match n {
                n if n == *a => Some((id(*b), report(*rtt))),
                n if n == *b => Some((id(*a), report(*rtt))),
                _ => None,
            })
            .collect();
        said.sort_unstable_by_key(|(peer, _)| *peer);
        let part = TopologyPart {
            no_relay: no_relay.contains(&n),
            links: said,
        };
        network.set_part(id(n), 0, &part);
    }
    network
}

fn all(count: usize) -> Vec<usize> {
    (0..count).collect()
}

fn links(list: &[(usize, usize, u64)]) -> Links {
    list.iter()
        .map(|(a, b, ms)| ((*a, *b), ms * 1000))
        .collect()
}

#[test]
fn a_line_is_crossed_and_a_shorter_way_taken() {
    let line = links(&[(0, 1, 1), (1, 2, 1), (0, 2, 40)]);
    let network = network(3, &line, &BTreeSet::new(), &all(3));
    let ways = network.ways_from(id(0), Plane::Data);
    let way = network.way(&ways, id(2)).expect("there is a way");
    assert_eq!((way.next, way.hops), (id(1), 2));
    assert_eq!(way.cost, Duration::from_millis(2) + 2 * HOP_COST);
    assert_eq!(network.hops(&ways, id(2)), [id(1), id(2)]);
}

#[test]
fn who_does_not_relay_is_only_an_end() {
    let line = links(&[(0, 1, 1), (1, 2, 1), (0, 3, 9), (3, 2, 9)]);
    let network = network(4, &line, &BTreeSet::from([1]), &all(4));
    let data = network.ways_from(id(0), Plane::Data);
    assert_eq!(network.way(&data, id(2)).unwrap().next, id(3));
    assert_eq!(network.way(&data, id(1)).unwrap().next, id(1));
    let control = network.ways_from(id(0), Plane::Control);
    assert_eq!(
        network.way(&control, id(2)).unwrap().next,
        id(1),
        "messages still go"
    );
}

#[test]
fn a_link_that_one_end_reports_is_none() {
    let mut network = network(2, &links(&[(0, 1, 1)]), &BTreeSet::new(), &[0]);
    assert_eq!(network.link_count(Plane::Data), 0);
    let theirs = TopologyPart {
        no_relay: false,
        links: vec![(id(0), report(5000))],
    };
    network.set_part(id(1), 0, &theirs);
    let ways = network.ways_from(id(0), Plane::Data);
    let cost = network.way(&ways, id(1)).map(|way| way.cost);
    assert_eq!(
        cost,
        Some(Duration::from_millis(5) + HOP_COST),
        "the slower word counts"
    );
    let one_way = LinkReport {
        data: None,
        ..report(1)
    };
    let theirs = TopologyPart {
        no_relay: false,
        links: vec![(id(0), one_way)],
    };
    network.set_part(id(1), 0, &theirs);
    assert_eq!(network.link_count(Plane::Data), 0);
    assert_eq!(network.link_count(Plane::Control), 1);
    network.clear_part(id(1), 0);
    assert_eq!(network.link_count(Plane::Control), 0);
    assert_eq!(network.peers().collect::<Vec<_>>(), [id(0)]);
}

#[test]
fn nobody_is_reached_over_more_links_than_the_limit() {
    let line: Links = (0..12).map(|n| ((n, n + 1), 1000)).collect();
    let network = network(13, &line, &BTreeSet::new(), &all(13));
    let ways = network.ways_from(id(0), Plane::Data);
    assert_eq!(network.way(&ways, id(8)).map(|way| way.hops), Some(8));
    assert_eq!(network.way(&ways, id(9)), None);
}

/// A cheap line of ten, and a dear way from its begin to its end.
#[test]
fn a_cheap_way_that_is_too_long_hides_no_dearer_one() {
    let mut links: Links = (0..9).map(|n| ((n, n + 1), 1000)).collect();
    links.insert((0, 10), 50_000);
    links.insert((9, 10), 50_000);
    let network = network(11, &links, &BTreeSet::new(), &all(11));
    let ways = network.ways_from(id(0), Plane::Data);
    assert_eq!(network.hops(&ways, id(9)), [id(10), id(9)]);
    let (visited, arrived) = walk(&[network], 0, 9, 11);
    assert!(arrived, "{visited:?}");
}

/// The dear way leads over one that has a cheap way of its own, of just as many links as nobody else has left.
#[test]
fn a_relay_takes_the_way_that_what_came_far_can_still_go() {
    // 0 ─ 1 ─ … ─ 9, cheap; 1 ─ 10 ─ 9, dear. From 0 the cheap way has nine links, from 1 it has eight.
    let mut links: Links = (0..9).map(|n| ((n, n + 1), 1000)).collect();
    links.insert((1, 10), 50_000);
    links.insert((9, 10), 50_000);
    let network = network(11, &links, &BTreeSet::new(), &all(11));
    let ways = network.ways_from(id(1), Plane::Data);
    let lens: Vec<_> = network.ways(&ways, id(9)).map(|way| way.hops).collect();
    assert_eq!(lens, [8, 2], "for frames of its own, and for those of 0");
    let (visited, arrived) = walk(&[network], 0, 9, 11);
    assert!(arrived, "{visited:?}");
    assert_eq!(visited, [0, 1, 10, 9]);
}

/// Long lines of cheap links with some dear ones across: many cheapest ways are longer than the limit.
fn any_deep_network() -> impl Strategy<Value = (usize, Links, BTreeSet<usize>)> {
    (10..20_usize).prop_flat_map(|count| {
        let line = prop::collection::vec(1..3_u64, count - 1);
        let across = prop::collection::vec((0..count, 0..count, 3..40_u64), 0..8);
        let no_relay = prop::collection::btree_set(0..count, 0..2);
        (Just(count), line, across, no_relay).prop_map(|(count, line, across, no_relay)| {
            let line = line.into_iter().enumerate().map(|(n, ms)| (n, n + 1, ms));
            let all = across.into_iter().filter(|(a, b, _)| a != b).chain(line);
            let links = all.map(|(a, b, ms)| ((a.min(b), a.max(b)), ms * 1000));
            (count, links.collect(), no_relay)
        })
    })
}

/// The lowest cost from one peer to each other over at most `hops_max` links, by Bellman and Ford.
fn costs(
    count: usize,
    links: &Links,
    no_relay: &BTreeSet<usize>,
    from: usize,
    hops_max: u8,
) -> Vec<Option<u64>> {
    let mut costs = vec![None; count];
    costs[from] = Some(0);
    for _ in 0..hops_max {
        let before = costs.clone();
        for ((a, b), rtt) in links {
            for (here, there) in [(*a, *b), (*b, *a)] {
                let passes = here == from || !no_relay.contains(&here);
                let Some(cost) = before[here].filter(|_| passes) else {
                    continue;
                };
                let cost: u64 = cost + rtt + u64::try_from(HOP_COST.as_micros()).unwrap();
                if costs[there].is_none_or(|known| cost < known) {
                    costs[there] = Some(cost);
                }
            }
        }
    }
    costs
}

/// A network of up to 24 peers, whose round trips are often equal.
fn any_network() -> impl Strategy<Value = (usize, Links, BTreeSet<usize>)> {
    (3..24_usize).prop_flat_map(|count| {
        let pair = (0..count, 0..count, 1..6_u64);
        let links = prop::collection::vec(pair, count..4 * count).prop_map(|pairs| {
            let two = pairs.into_iter().filter(|(a, b, _)| a != b);
            two.map(|(a, b, ms)| ((a.min(b), a.max(b)), ms * 1000))
                .collect()
        });
        let no_relay = prop::collection::btree_set(0..count, 0..count / 4 + 1);
        (Just(count), links, no_relay)
    })
}

/// The peers that a frame visits when each forwards by its own view, by the cheapest way that is no longer than what
/// is left; ends at the destination, the limit, or where there is no way.
fn walk(views: &[Network], from: usize, to: usize, count: usize) -> (Vec<usize>, bool) {
    let number = |peer: PeerId| (0..count).find(|n| id(*n) == peer).unwrap();
    let (mut at, mut visited) = (from, vec![from]);
    for left in (1..=HOPS_MAX).rev() {
        let view = &views[at % views.len()];
        let found = view.ways_from(id(at), Plane::Data);
        let ways: Vec<_> = view.ways(&found, id(to)).collect();
        // As `weft_engine::bridge::Fib::way_within`: if none is short enough, the shortest.
        let fits = ways.iter().find(|way| way.hops <= left);
        let Some(way) = fits.or(ways.last()) else {
            return (visited, false);
        };
        at = number(way.next);
        visited.push(at);
        if at == to {
            return (visited, true);
        }
    }
    (visited, false)
}

proptest! {
    /// Told in another order at each peer, so that tables differ while views do not.
    #[test]
    fn no_loop_while_views_agree((count, links, no_relay) in any_network(), turn in 0..24_usize) {
        let views: Vec<_> = (0..count)
            .map(|n| {
                let mut order = all(count);
                order.rotate_left((n + turn) % count);
                network(count, &links, &no_relay, &order)
            })
            .collect();
        for from in 0..count {
            let ways = views[from].ways_from(id(from), Plane::Data);
            for to in (0..count).filter(|to| *to != from) {
                let (visited, arrived) = walk(&views, from, to, count);
                let distinct: BTreeSet<_> = visited.iter().collect();
                prop_assert_eq!(distinct.len(), visited.len(), "a loop: {:?}", visited);
                let way = views[from].way(&ways, id(to));
                prop_assert_eq!(way.is_some(), arrived, "{:?}", visited);
                for middle in visited.iter().skip(1).filter(|n| **n != to) {
                    prop_assert!(!no_relay.contains(middle), "{} does not relay", middle);
                }
            }
        }
    }

    /// Against Bellman and Ford, for each number of links that may be left; and frames take just those ways.
    #[test]
    fn ways_are_the_cheapest_that_the_limit_allows((count, links, no_relay) in any_deep_network()) {
        let view = network(count, &links, &no_relay, &all(count));
        for from in 0..count {
            let found = view.ways_from(id(from), Plane::Data);
            for left in 1..=HOPS_MAX {
                let wanted = costs(count, &links, &no_relay, from, left);
                for to in (0..count).filter(|to| *to != from) {
                    let way = view.ways(&found, id(to)).find(|way| way.hops <= left);
                    let cost = way.map(|way| u64::try_from(way.cost.as_micros()).unwrap());
                    prop_assert_eq!(cost, wanted[to], "{} to {} in {}", from, to, left);
                }
            }
            let reached = costs(count, &links, &no_relay, from, HOPS_MAX);
            for to in (0..count).filter(|to| *to != from) {
                let (visited, arrived) = walk(std::slice::from_ref(&view), from, to, count);
                prop_assert_eq!(arrived, reached[to].is_some(), "{:?}", visited);
                let distinct: BTreeSet<_> = visited.iter().collect();
                prop_assert_eq!(distinct.len(), visited.len(), "a loop: {:?}", visited);
            }
        }
    }

    /// Half of the peers have heard nothing of the last changes.
    #[test]
    fn views_that_differ_cost_no_more_than_the_limit(
        (count, links, no_relay) in any_network(),
        gone in prop::collection::vec(any::<prop::sample::Index>(), 1..6),
    ) {
        let keys: Vec<_> = links.keys().copied().collect();
        prop_assume!(!keys.is_empty());
        let mut later = links.clone();
        for index in gone {
            later.remove(index.get(&keys));
        }
        let views = [
            network(count, &links, &no_relay, &all(count)),
            network(count, &later, &no_relay, &all(count)),
        ];
        for from in 0..count {
            for to in (0..count).filter(|to| *to != from) {
                let (visited, _) = walk(&views, from, to, count);
                prop_assert!(visited.len() <= usize::from(HOPS_MAX) + 1);
            }
        }
    }

    /// From each source, along what each peer computes for itself: everybody who has a way to it gets one copy.
    #[test]
    fn floods_reach_everybody_once((count, links, no_relay) in any_network(), turn in 0..24_usize) {
        let number = |peer: PeerId| (0..count).find(|n| id(*n) == peer).unwrap();
        let branches: Vec<_> = (0..count)
            .map(|n| {
                let mut order = all(count);
                order.rotate_left((n + turn) % count);
                let view = network(count, &links, &no_relay, &order);
                let ways = view.ways_from(id(n), Plane::Data);
                let reached: BTreeSet<_> =
                    (0..count).filter(|to| view.way(&ways, id(*to)).is_some()).collect();
                (view.branches(id(n), &ways), reached)
            })
            .collect();
        for source in 0..count {
            let mut got = vec![0; count];
            let mut queue = vec![source];
            while let Some(at) = queue.pop() {
                for child in &branches[at].0[&id(source)].children {
                    let child = number(*child);
                    prop_assert_eq!(branches[child].0[&id(source)].parent, Some(id(at)));
                    got[child] += 1;
                    prop_assert!(got[child] == 1, "{} gets a second copy", child);
                    queue.push(child);
                }
            }
            // Ways may differ there and back where the limit cuts the cheapest one off; the tree is made of ways back.
            for n in (0..count).filter(|n| *n != source && branches[*n].1.contains(&source)) {
                prop_assert_eq!(got[n], 1, "{} is left out", n);
            }
        }
    }
}

/// What a recomputation costs at a thousand peers with twenty links each; run it in release with `--ignored`.
#[test]
#[ignore = "a measurement"]
#[expect(clippy::disallowed_methods, reason = "it measures time")]
#[expect(clippy::print_stdout, reason = "the result")]
fn cost_at_a_thousand_peers() {
    let mut random = crate::random::Randomness::seeded(1);
    let mut links = Links::new();
    for a in 0..1000 {
        for _ in 0..10 {
            let b = random.u32() as usize % 1000;
            if a != b {
                links.insert(
                    (a.min(b), a.max(b)),
                    1000 + u64::from(random.u32() % 50_000),
                );
            }
        }
    }
    let start = std::time::Instant::now();
    let view = network(1000, &links, &BTreeSet::new(), &all(1000));
    println!("told in {:?}", start.elapsed());
    let start = std::time::Instant::now();
    for n in 0..100 {
        std::hint::black_box(view.ways_from(id(n), Plane::Data));
    }
    println!("ways of one peer {:?}", start.elapsed() / 100);
    let ways = view.ways_from(id(0), Plane::Data);
    let start = std::time::Instant::now();
    let branches = view.branches(id(0), &ways);
    println!("branches {:?} for {}", start.elapsed(), branches.len());
}

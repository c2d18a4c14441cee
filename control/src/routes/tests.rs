//! Random networks seen by everybody: every way ends, however views differ.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
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

/// The peers that a frame visits when each forwards by its own view; ends at the destination, the limit, or
/// where there is no way.
fn walk(views: &[Network], from: usize, to: usize, count: usize) -> (Vec<usize>, bool) {
    let number = |peer: PeerId| (0..count).find(|n| id(*n) == peer).unwrap();
    let (mut at, mut visited) = (from, vec![from]);
    for _ in 0..HOPS_MAX {
        let view = &views[at % views.len()];
        let ways = view.ways_from(id(at), Plane::Data);
        let Some(way) = view.way(&ways, id(to)) else {
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
                if way.is_some_and(|way| way.hops < HOPS_MAX / 2) {
                    prop_assert!(arrived, "{:?}", visited);
                }
                for middle in visited.iter().skip(1).filter(|n| **n != to) {
                    prop_assert!(!no_relay.contains(middle), "{} does not relay", middle);
                }
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

    /// A network that changes bit by bit: what was not computed anew is what would have come out.
    #[test]
    fn ways_that_no_change_touches_still_hold(
        (count, links, no_relay) in any_network(),
        changes in prop::collection::vec(
            (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..7_u64, 0..9_u8), 1..40),
    ) {
        let (mut links, mut no_relay) = (links, no_relay);
        let mut view = network(count, &links, &no_relay, &all(count));
        let roots = [id(0), id(1)];
        let mut kept: Vec<_> = roots
            .iter()
            .flat_map(|root| [(*root, Plane::Data), (*root, Plane::Control)])
            .map(|(root, plane)| (root, plane, Ways::default()))
            .collect();
        for (a, b, ms, what) in changes {
            let (a, b) = (a.index(count), b.index(count));
            match what {
                0 => { no_relay.insert(a); }
                1 => { no_relay.remove(&a); }
                2 => { links.retain(|(one, other), _| *one != a && *other != a); }
                _ if a == b || ms == 0 => { links.remove(&(a.min(b), a.max(b))); }
                _ => { links.insert((a.min(b), a.max(b)), ms * 1000); }
            }
            let now = network(count, &links, &no_relay, &all(count));
            for n in 0..count {
                let said = now.links_of(id(n)).collect::<Vec<_>>();
                if said.is_empty() && n % 2 == 0 {
                    view.clear_part(id(n), 0);
                } else {
                    let no_relay = no_relay.contains(&n);
                    view.set_part(id(n), 0, &TopologyPart { no_relay, links: said });
                }
            }
            // Some are brought up to date rarely, and have several changes to look at.
            for (number, (root, plane, ways)) in kept.iter_mut().enumerate() {
                if number > 1 && ms % 3 != 0 {
                    continue;
                }
                view.renew(ways, *root, *plane);
                let fresh = view.ways_from(*root, *plane);
                for to in 0..count {
                    prop_assert_eq!(view.way(ways, id(to)), view.way(&fresh, id(to)));
                    prop_assert_eq!(view.hops(ways, id(to)), view.hops(&fresh, id(to)));
                }
            }
        }
    }

    /// From each source, along what each peer computes for itself: everybody whose frames arrive there gets one copy.
    #[test]
    fn floods_reach_everybody_once((count, links, no_relay) in any_network(), turn in 0..24_usize) {
        let number = |peer: PeerId| (0..count).find(|n| id(*n) == peer).unwrap();
        let views: Vec<_> = (0..count)
            .map(|n| {
                let mut order = all(count);
                order.rotate_left((n + turn) % count);
                network(count, &links, &no_relay, &order)
            })
            .collect();
        let branches: Vec<_> = (0..count)
            .map(|n| {
                let ways = views[n].ways_from(id(n), Plane::Data);
                let mut trees = trees::Trees::default();
                trees.renew(&views[n], id(n), &ways);
                trees.branches().clone()
            })
            .collect();
        for source in 0..count {
            let mut got = vec![0; count];
            let mut queue = vec![source];
            while let Some(at) = queue.pop() {
                for child in &branches[at][&id(source)].children {
                    let child = number(*child);
                    prop_assert_eq!(branches[child][&id(source)].parent, Some(id(at)));
                    got[child] += 1;
                    prop_assert!(got[child] == 1, "{} gets a second copy", child);
                    queue.push(child);
                }
            }
            // The tree is made of ways back. Where the limit cuts one off, frames do not arrive either.
            for n in (0..count).filter(|n| *n != source) {
                let (_, arrives) = walk(&views, n, source, count);
                if arrives {
                    prop_assert_eq!(got[n], 1, "{} is left out", n);
                }
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
    let mut trees = trees::Trees::default();
    trees.renew(&view, id(0), &ways);
    println!("trees {:?} for {}", start.elapsed(), trees.branches().len());
}

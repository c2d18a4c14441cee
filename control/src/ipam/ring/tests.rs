//! The ring against its laws, and against a plain map from address to claim.

use proptest::prelude::*;

use super::*;
use crate::ipam::claim::tests::any_claim;

const POINTS: u32 = 24;

fn span(first: u32, last: u32) -> Span {
    Span::new(first, last).unwrap()
}

fn peer(n: u8) -> PeerId {
    PeerId([n; 16])
}

fn blank() -> Ring {
    Ring::blank(GenesisId([1; 16]), span(0, POINTS - 1), Council::default())
}

fn any_runs() -> impl Strategy<Value = Vec<Run>> {
    let run = (0..POINTS, 0..POINTS, any_claim()).prop_map(|(a, b, claim)| Run {
        span: span(a.min(b), a.max(b)),
        claim,
    });
    proptest::collection::vec(run, 0..12)
}

fn ring_of(runs: &[Run]) -> Ring {
    let mut ring = blank();
    add(&mut ring, runs);
    ring
}

fn add(ring: &mut Ring, runs: &[Run]) {
    for run in runs {
        ring.join(run.span, &run.claim, None);
    }
}

fn merged(a: &Ring, b: &Ring) -> Ring {
    let mut sum = a.clone();
    add(&mut sum, &b.runs().collect::<Vec<_>>());
    sum
}

proptest! {
    #[test]
    fn merging_commutes_associates_and_may_be_repeated(
        a in any_runs(), b in any_runs(), c in any_runs(),
    ) {
        let (a, b, c) = (ring_of(&a), ring_of(&b), ring_of(&c));

        prop_assert_eq!(merged(&a, &b), merged(&b, &a));
        prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
        prop_assert_eq!(merged(&merged(&a, &b), &b), merged(&a, &b));
        prop_assert_eq!(merged(&a, &b).digest(), merged(&b, &a).digest());
    }

    #[test]
    fn runs_say_what_a_map_of_single_addresses_says(runs in any_runs()) {
        let ring = ring_of(&runs);
        let mut plain: BTreeMap<u32, Claim> = BTreeMap::new();
        for run in &runs {
            for address in run.span.first()..=run.span.last() {
                let joined = plain.get(&address).map_or(run.claim.clone(), |old| old.join(&run.claim));
                plain.insert(address, joined);
            }
        }

        for address in 0..POINTS {
            prop_assert_eq!(ring.at(address), plain.get(&address));
        }
        let listed: Vec<Run> = ring.runs().collect();
        for pair in listed.windows(2) {
            prop_assert!(pair[0].span.last() < pair[1].span.first(), "in order");
            let touches = pair[0].span.last() + 1 == pair[1].span.first();
            prop_assert!(!touches || pair[0].claim != pair[1].claim, "equal neighbours are one run");
        }
    }

    #[test]
    fn changes_tell_exactly_what_became_different(a in any_runs(), b in any_runs()) {
        let mut ring = ring_of(&a);
        for run in &b {
            let before = ring.clone();
            let changes = ring.join(run.span, &run.claim, None);
            for address in 0..POINTS {
                let told = changes.iter().find(|change| change.span.contains(address));
                prop_assert_eq!(told.is_some(), before.at(address) != ring.at(address));
                if let Some(told) = told {
                    prop_assert_eq!(told.before.as_ref(), before.at(address));
                    prop_assert_eq!(Some(&told.after), ring.at(address));
                }
            }
        }
    }
}

#[test]
fn the_first_ring_is_halved_over_the_peers_in_order() {
    let share = |count: u8| {
        let peers: Vec<PeerId> = (1..=count).map(peer).collect();
        let ring = Ring::divided(GenesisId([1; 16]), span(0, 7), &peers, Council::default());
        let sizes: Vec<u64> = peers
            .iter()
            .map(|peer| ring.owned_by(*peer).iter().map(|span| span.count()).sum())
            .collect();
        assert_eq!(sizes.iter().sum::<u64>(), 8);
        sizes
    };

    assert_eq!(share(1), [8]);
    assert_eq!(share(3), [4, 2, 2]);
    assert_eq!(share(8), [1; 8]);
    for count in 1..=12 {
        share(count);
    }
}

#[test]
fn a_run_outside_the_range_changes_nothing() {
    let mut ring = blank();
    let claim = Claim::new(Version::default(), peer(1));
    assert!(ring.join(span(POINTS, 100), &claim, None).is_empty());
    assert_eq!(ring.join(span(POINTS - 1, 100), &claim, None).len(), 1);
    assert_eq!(ring.owned_by(peer(1)), [span(POINTS - 1, POINTS - 1)]);
}

#[test]
fn views_differ_only_with_what_a_peer_owns() {
    let mut ring = blank();
    ring.join(span(0, 9), &Claim::new(Version::default(), peer(1)), None);
    let before = (ring.view_of(peer(1)), ring.view_of(peer(2)));
    ring.join(span(10, 19), &Claim::new(Version::default(), peer(2)), None);

    assert_eq!(ring.view_of(peer(1)), before.0);
    assert_ne!(ring.view_of(peer(2)), before.1);
}

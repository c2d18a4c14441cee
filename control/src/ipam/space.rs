//! Free space inside the ranges that we own: the next address, and what to give away.
//!
//! Pure functions over spans in order and the addresses taken in them. A donation is the largest aligned block of
//! the free space; if that is more than half of it, the upper half of the block, so that both keep room to grow.

use std::collections::BTreeMap;

use crate::ipam::span::Span;

/// The lowest address of the owned spans inside `within` that nobody has.
pub(crate) fn lowest_free<T>(
    owned: &[Span],
    taken: &BTreeMap<u32, T>,
    within: Span,
) -> Option<u32> {
    owned
        .iter()
        .filter_map(|span| span.intersect(within))
        .find_map(|span| {
            let mut candidate = span.first();
            for address in taken.range(span.first()..=span.last()).map(|(at, _)| *at) {
                if address != candidate {
                    break;
                }
                candidate = candidate.checked_add(1)?;
            }
            span.contains(candidate).then_some(candidate)
        })
}

/// The parts of the owned spans inside `within` in which no address is taken.
pub(crate) fn free_spans<T>(owned: &[Span], taken: &BTreeMap<u32, T>, within: Span) -> Vec<Span> {
    let mut free = Vec::new();
    for span in owned.iter().filter_map(|span| span.intersect(within)) {
        let mut next = Some(span.first());
        for address in taken.range(span.first()..=span.last()).map(|(at, _)| *at) {
            let gap = next.and_then(|first| Span::new(first, address.checked_sub(1)?));
            free.extend(gap);
            next = address.checked_add(1);
        }
        free.extend(next.and_then(|first| Span::new(first, span.last())));
    }
    free
}

/// What to give to a peer that asks for space.
pub(crate) fn donation(free: &[Span]) -> Option<Span> {
    let total: u64 = free.iter().map(|span| span.count()).sum();
    let block = free
        .iter()
        .map(|span| span.largest_block())
        .max_by_key(|block| (block.count(), block.first()))?;
    if block.count() * 2 > total && block.count() > 1 {
        Some(block.upper_half())
    } else {
        Some(block)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn span(first: u32, last: u32) -> Span {
        Span::new(first, last).unwrap()
    }

    fn network(text: &str) -> Span {
        Span::of(text.parse().unwrap())
    }

    fn taken(addresses: &[u32]) -> BTreeMap<u32, ()> {
        addresses.iter().map(|address| (*address, ())).collect()
    }

    fn given(owned: &str, used: &[&str]) -> String {
        let used: Vec<u32> = used
            .iter()
            .map(|text| text.parse::<std::net::Ipv4Addr>().unwrap().into())
            .collect();
        let owned = network(owned);
        let free = free_spans(&[owned], &taken(&used), owned);
        donation(&free).unwrap().to_string()
    }

    #[test]
    fn the_second_host_gets_what_users_of_weave_expect() {
        assert_eq!(given("10.32.0.0/12", &["10.32.0.1"]), "10.44.0.0/14");
        assert_eq!(given("10.32.0.0/12", &[]), "10.40.0.0/13");
        assert_eq!(given("10.2.1.0/24", &["10.2.1.1"]), "10.2.1.192/26");
    }

    #[test]
    fn forty_eight_addresses_with_the_last_one_used_give_the_second_sixteen() {
        let owned = span(0, 47);
        let free = free_spans(&[owned], &taken(&[47]), owned);
        assert_eq!(donation(&free), Some(span(16, 31)));
    }

    #[test]
    fn repeated_donations_give_everything_away() {
        let mut owned = vec![span(0, 47)];
        let mut given = 0;
        while let Some(gift) = donation(&free_spans(&owned, &taken(&[]), span(0, 47))) {
            given += gift.count();
            let rest = owned.iter().flat_map(|span| {
                let before = gift
                    .first()
                    .checked_sub(1)
                    .and_then(|last| Span::new(span.first(), last.min(span.last())));
                let after = Span::new(span.last().min(gift.last()) + 1, span.last());
                [
                    before.filter(|part| part.last() >= span.first()),
                    after.filter(|part| part.first() > gift.last()),
                ]
            });
            owned = rest.flatten().collect();
        }
        assert_eq!((given, owned), (48, Vec::new()));
    }

    proptest! {
        #[test]
        fn the_lowest_free_address_is_what_a_plain_search_finds(
            owned in proptest::collection::btree_set(0_u32..8, 0..5),
            used in proptest::collection::btree_set(0_u32..64, 0..64),
            from in 0_u32..64,
            len in 0_u32..64,
        ) {
            let owned: Vec<Span> = owned.iter().map(|block| span(block * 8, block * 8 + 7)).collect();
            let used: BTreeMap<u32, ()> = used.iter().map(|address| (*address, ())).collect();
            let within = span(from, from + len);
            let is_free = |address: &u32| owned.iter().any(|span| span.contains(*address)) && !used.contains_key(address);

            let plain: Vec<u32> = (from..=from + len).filter(is_free).collect();

            prop_assert_eq!(lowest_free(&owned, &used, within), plain.first().copied());
            let spans = free_spans(&owned, &used, within);
            let listed: Vec<u32> = spans.iter().flat_map(|span| span.first()..=span.last()).collect();
            prop_assert_eq!(listed, plain);
        }
    }
}

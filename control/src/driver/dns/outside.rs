//! What users read of names that are not answered for here, since they were given under another domain.

use crate::peer::{PeerId, PeerName};

/// Peers told one by one, those with the most names first: a status is read as a whole, and there can be thousands.
const PEERS_SHOWN_MAX: usize = 3;

/// A line for this host, one for each of a few peers, and one for all others, from how many names each has outside.
pub(super) fn notes(
    mut outside: Vec<(PeerId, usize)>,
    own: PeerId,
    name_of: impl Fn(PeerId) -> PeerName,
) -> Vec<String> {
    let line = |count: usize, whose: &str| format!("names not answered here: {count} of {whose}");
    // By name where they have as many.
    outside.sort_by_key(|(origin, count)| (*origin != own, usize::MAX - count, *origin));
    let has_own = outside.first().is_some_and(|(origin, _)| *origin == own);
    let rest = outside.split_off(outside.len().min(PEERS_SHOWN_MAX + usize::from(has_own)));
    let shown = outside.into_iter().map(|(origin, count)| {
        if origin == own {
            line(count, "this host, given under another --dns-domain")
        } else {
            let name = name_of(origin);
            line(count, &format!("{name}, which has another --dns-domain"))
        }
    });
    let more = (!rest.is_empty()).then(|| {
        let count = rest.iter().map(|(_, count)| count).sum();
        let peers = rest.len();
        line(count, &format!("{peers} more with another --dns-domain"))
    });
    shown.chain(more).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_peers_are_named_after_this_host_and_the_others_counted() {
        let peer = |n: u8| PeerId([n; 16]);
        let said = |outside: &[(u8, usize)]| {
            let outside = outside.iter().map(|(n, count)| (peer(*n), *count));
            notes(outside.collect(), peer(9), |id| id.name())
        };
        let of = |n: u8, count: usize| {
            let name = peer(n).name();
            format!("names not answered here: {count} of {name}, which has another --dns-domain")
        };
        let ours =
            "names not answered here: 4 of this host, given under another --dns-domain".to_owned();
        assert!(said(&[]).is_empty());
        assert_eq!(said(&[(1, 2), (9, 4)]), [ours.clone(), of(1, 2)]);
        assert_eq!(said(&[(1, 2), (2, 5)]), [of(2, 5), of(1, 2)]);
        let many = said(&[(1, 2), (2, 5), (3, 1), (4, 2), (5, 1), (9, 4)]);
        let more = "names not answered here: 2 of 2 more with another --dns-domain".to_owned();
        assert_eq!(many, [ours, of(2, 5), of(1, 2), of(4, 2), more]);
    }
}

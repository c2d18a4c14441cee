//! Says what a question is answered with: from the names, with nothing, by asking others, or not at all.
//!
//! ```text
//!  class not IN, transfers ────────────────► Refused
//!  inside the domain, or one label ─ name ─► Addresses · NoData (other type) · NoName
//!  localhost and below ────────────────────► Addresses · NoData (other type): the asker itself (RFC 6761 §6.3)
//!  reverse name, known or loopback address ► Pointer · NoData (other type)
//!  reverse name, unknown, not PTR ─────────► NoName
//!  anything else ──────────────────────────► Forward
//! ```
//!
//! A name that exists never gives NXDOMAIN: resolvers that ask for AAAA first would take it for "no such host".

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use crate::dns::name::{AskedName, DnsName, Domain, Reverse};
use crate::dns::names::{Addresses, Names};

/// Class IN.
pub const CLASS_IN: u16 = 1;
/// Type A.
pub const TYPE_A: u16 = 1;
/// Type SOA.
pub const TYPE_SOA: u16 = 6;
/// Type PTR.
pub const TYPE_PTR: u16 = 12;
/// Type AAAA.
pub const TYPE_AAAA: u16 = 28;
/// "Everything that you have."
pub const TYPE_ANY: u16 = 255;
/// Incremental and whole zone transfers, and the mailbox types between them and ANY.
const TRANSFERS: std::ops::Range<u16> = 251..255;

/// What every host calls itself.
static LOCALHOST: LazyLock<Domain> =
    LazyLock::new(|| Domain::parse(crate::dns::name::LOCALHOST).expect("nine letters"));

/// One question.
#[derive(Debug, Clone, Copy)]
pub struct Question {
    /// The name, of any case.
    pub name: AskedName,
    /// The type wanted.
    pub kind: u16,
    /// The class wanted.
    pub class: u16,
}

/// What it is answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// These addresses, shuffled.
    Addresses(Vec<IpAddr>),
    /// The name of an address.
    Pointer(&'a DnsName),
    /// What the domain itself is: its SOA record.
    Zone,
    /// The name exists, nothing of that type does.
    NoData,
    /// There is no such name.
    NoName,
    /// Others know.
    Forward,
    /// Nothing that we do.
    Refused,
}

/// Answers a question; `luck` decides the order of addresses.
#[must_use]
pub fn answer<'a>(names: &'a Names, question: &Question, luck: u64) -> Verdict<'a> {
    let Question { name, kind, class } = question;
    if *class != CLASS_IN || TRANSFERS.contains(kind) {
        return Verdict::Refused;
    }
    if names.domain().contains(name.key()) {
        return inside(names, name.key(), *kind, luck);
    }
    if LOCALHOST.contains(name.key()) {
        return match wanted(&own_addresses(), *kind) {
            none if none.is_empty() => Verdict::NoData,
            own => Verdict::Addresses(own),
        };
    }
    if name.labels() == 1 {
        return match name.within(names.domain()) {
            Some(whole) => inside(names, whole.key(), *kind, luck),
            None => Verdict::NoName,
        };
    }
    let is_pointer = *kind == TYPE_PTR || *kind == TYPE_ANY;
    match name.reverse() {
        Reverse::No => Verdict::Forward,
        Reverse::Address(address) => match names.name_of(address).or_else(|| own_name(address)) {
            Some(found) if is_pointer => Verdict::Pointer(found),
            Some(_) => Verdict::NoData,
            None if is_pointer => Verdict::Forward,
            None => Verdict::NoName,
        },
        Reverse::Part if is_pointer => Verdict::Forward,
        Reverse::Part => Verdict::NoName,
    }
}

fn inside<'a>(names: &'a Names, key: &[u8], kind: u16, luck: u64) -> Verdict<'a> {
    let is_domain = key == names.domain().name().key();
    if is_domain && kind == TYPE_SOA {
        return Verdict::Zone;
    }
    let Some(found) = names.addresses(key) else {
        // The domain itself is always there.
        return if is_domain {
            Verdict::NoData
        } else {
            Verdict::NoName
        };
    };
    let mut addresses = wanted(found, kind);
    if addresses.is_empty() {
        return Verdict::NoData;
    }
    shuffle(&mut addresses, luck);
    Verdict::Addresses(addresses)
}

fn own_addresses() -> Addresses {
    Addresses {
        v4: vec![Ipv4Addr::LOCALHOST],
        v6: vec![Ipv6Addr::LOCALHOST],
    }
}

fn own_name(address: IpAddr) -> Option<&'static DnsName> {
    address.is_loopback().then(|| LOCALHOST.name())
}

fn wanted(found: &Addresses, kind: u16) -> Vec<IpAddr> {
    let v4 = found.v4.iter().copied().map(IpAddr::V4);
    let v6 = found.v6.iter().copied().map(IpAddr::V6);
    match kind {
        TYPE_A => v4.collect(),
        TYPE_AAAA => v6.collect(),
        TYPE_ANY => v4.chain(v6).collect(),
        _ => Vec::new(),
    }
}

/// Fisher and Yates, with splitmix64 from one random number: an order for load balancing, no secret.
fn shuffle(addresses: &mut [IpAddr], luck: u64) {
    let mut state = luck;
    for last in (1..addresses.len()).rev() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let bound = u64::try_from(last).unwrap_or(u64::MAX).saturating_add(1);
        let pick = usize::try_from(mixed % bound).unwrap_or(0);
        addresses.swap(last, pick);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::dns::names::tests::{entry, names};

    fn question(name: &str, kind: u16) -> Question {
        let labels = name.split('.').filter(|label| !label.is_empty());
        Question {
            name: AskedName::from_labels(labels.map(str::as_bytes)).unwrap(),
            kind,
            class: CLASS_IN,
        }
    }

    fn some_names() -> Names {
        names(&[
            (1, entry("One.weave.local", "10.32.0.1", "c1")),
            (1, entry("two.weave.local", "10.32.0.1", "c1")),
            (2, entry("two.weave.local", "10.32.0.2", "c2")),
            (2, entry("two.weave.local", "fd00::2", "c2")),
            (2, entry("foo.sub.weave.local", "10.32.0.3", "c3")),
        ])
    }

    #[test]
    fn questions_get_their_verdicts() {
        let names = some_names();
        let one = Verdict::Addresses(vec!["10.32.0.1".parse().unwrap()]);
        let six = Verdict::Addresses(vec!["fd00::2".parse().unwrap()]);
        let table = [
            ("one.weave.local", TYPE_A, one.clone()),
            ("ONE.Weave.Local", TYPE_A, one.clone()),
            ("one", TYPE_A, one.clone()),
            ("one", TYPE_ANY, one),
            ("one.weave.local", TYPE_AAAA, Verdict::NoData),
            ("one.weave.local", 15, Verdict::NoData),
            ("two", TYPE_AAAA, six),
            ("sub.weave.local", TYPE_A, Verdict::NoData),
            ("weave.local", TYPE_A, Verdict::NoData),
            ("Weave.local", TYPE_SOA, Verdict::Zone),
            ("sub.weave.local", TYPE_SOA, Verdict::NoData),
            ("three.weave.local", TYPE_A, Verdict::NoName),
            ("three.weave.local", 15, Verdict::NoName),
            ("three", TYPE_A, Verdict::NoName),
            ("local", TYPE_A, Verdict::NoName),
            ("", 2, Verdict::Forward),
            ("example.org", TYPE_A, Verdict::Forward),
            ("oneweave.local", TYPE_A, Verdict::Forward),
            ("9.0.32.10.in-addr.arpa", TYPE_PTR, Verdict::Forward),
            ("9.0.32.10.in-addr.arpa", TYPE_A, Verdict::NoName),
            ("32.10.in-addr.arpa", TYPE_PTR, Verdict::Forward),
            ("32.10.in-addr.arpa", 6, Verdict::NoName),
            ("1.0.32.10.in-addr.arpa", TYPE_A, Verdict::NoData),
            ("one.weave.local", 252, Verdict::Refused),
        ];
        for (name, kind, wanted) in table {
            assert_eq!(
                answer(&names, &question(name, kind), 7),
                wanted,
                "{name} {kind}"
            );
        }
        let own = |text: &[&str]| {
            let addresses = text.iter().map(|text| text.parse().unwrap());
            Verdict::Addresses(addresses.collect())
        };
        for (name, kind, wanted) in [
            ("localhost", TYPE_A, own(&["127.0.0.1"])),
            ("LocalHost", TYPE_AAAA, own(&["::1"])),
            ("db.localhost", TYPE_A, own(&["127.0.0.1"])),
            ("a.b.localhost", TYPE_ANY, own(&["127.0.0.1", "::1"])),
            ("localhost", 15, Verdict::NoData),
            ("localhost", TYPE_PTR, Verdict::NoData),
            ("notlocalhost", TYPE_A, Verdict::NoName),
            ("localhost.weave.local", TYPE_A, Verdict::NoName),
            ("localhost.org", TYPE_A, Verdict::Forward),
            ("1.0.0.127.in-addr.arpa", TYPE_A, Verdict::NoData),
        ] {
            let verdict = answer(&names, &question(name, kind), 7);
            assert_eq!(verdict, wanted, "{name} {kind}");
        }
        let reverse6 = format!("1.{}ip6.arpa", "0.".repeat(31));
        for reverse in ["1.0.0.127.in-addr.arpa", &reverse6] {
            let pointer = answer(&names, &question(reverse, TYPE_PTR), 0);
            assert!(matches!(&pointer, Verdict::Pointer(name) if name.as_str() == "localhost"));
        }
        let chaos = Question {
            class: 3,
            ..question("version.bind", 16)
        };
        assert_eq!(answer(&names, &chaos, 0), Verdict::Refused);
        let pointer = answer(&names, &question("1.0.32.10.in-addr.arpa", TYPE_PTR), 0);
        assert!(matches!(&pointer, Verdict::Pointer(name) if name.as_str() == "One.weave.local"));
        let reverse = "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa";
        let pointer = answer(&names, &question(reverse, TYPE_PTR), 0);
        assert!(matches!(&pointer, Verdict::Pointer(name) if name.as_str() == "two.weave.local"));
    }

    /// Three addresses have six orders; each must turn up about as often as the others.
    #[test]
    fn orders_are_about_equally_likely() {
        let names = names(&[
            (1, entry("x.weave.local", "10.0.0.1", "c")),
            (1, entry("x.weave.local", "10.0.0.2", "c")),
            (1, entry("x.weave.local", "10.0.0.3", "c")),
        ]);
        let mut seen = BTreeMap::<Vec<IpAddr>, u32>::new();
        for luck in 0..6000u64 {
            let luck = luck.wrapping_mul(0x1234_5678_9abc_def1);
            let Verdict::Addresses(order) = answer(&names, &question("x", TYPE_A), luck) else {
                panic!("no addresses");
            };
            *seen.entry(order).or_default() += 1;
        }
        assert_eq!(seen.len(), 6);
        assert!(
            seen.values().all(|count| (800..1200).contains(count)),
            "{seen:?}"
        );
    }

    proptest! {
        #[test]
        fn any_question_gets_a_verdict(labels: Vec<Vec<u8>>, kind: u16, class: u16, luck: u64) {
            let names = some_names();
            if let Some(name) = AskedName::from_labels(labels.iter().map(Vec::as_slice)) {
                let verdict = answer(&names, &Question { name, kind, class }, luck);
                let forwarded = verdict == Verdict::Forward;
                prop_assert!(!(forwarded && name.labels() == 1), "a single label left the host");
            }
        }
    }
}

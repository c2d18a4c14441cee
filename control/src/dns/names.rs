//! All names that can be answered for now: an immutable snapshot, made from what each origin says.
//!
//! ```text
//!  Sources: origin ─► its entries      build      Names: key ─► addresses of each family
//!           origin ─► its entries   ───────────►         address ─► first name
//! ```
//!
//! A source is replaced as a whole or taken out; a snapshot is built beside the one in use and then swapped in.
//! Bounds: `config::DNS_NAMES_PER_ORIGIN_MAX` entries of each origin, `config::PEERS_MAX` origins.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::config::{DNS_NAMES_PER_ORIGIN_MAX, PEERS_MAX};
use crate::dns::name::{DnsName, Domain};
use crate::peer::PeerId;

/// One address under one name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry {
    /// The name.
    pub name: DnsName,
    /// What it means.
    pub address: IpAddr,
    /// The container that it is for, or `weave:extern`.
    pub container: Arc<str>,
}

/// What each origin says.
#[derive(Debug, Clone, Default)]
pub struct Sources(BTreeMap<PeerId, Arc<[Entry]>>);

impl Sources {
    /// Replaces what an origin says; what is over the limits is left out.
    pub fn set(&mut self, origin: PeerId, entries: Arc<[Entry]>) {
        if entries.is_empty() {
            self.0.remove(&origin);
        } else if self.0.contains_key(&origin) || self.0.len() < PEERS_MAX {
            self.0.insert(origin, entries);
        }
    }

    /// Makes the snapshot of a domain; names outside it are left out.
    #[must_use]
    pub fn build(&self, domain: &Domain) -> Names {
        let mut names = Names {
            domain: domain.clone(),
            by_name: HashMap::new(),
            by_address: HashMap::new(),
            sources: self.clone(),
        };
        for entries in self.0.values() {
            let inside = entries
                .iter()
                .take(DNS_NAMES_PER_ORIGIN_MAX)
                .filter(|entry| domain.contains(entry.name.key()));
            for entry in inside {
                names.insert(entry);
            }
        }
        names
    }
}

/// The addresses of a name; none for a name that only has names below it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Addresses {
    pub(crate) v4: Vec<Ipv4Addr>,
    pub(crate) v6: Vec<Ipv6Addr>,
}

/// The snapshot.
#[derive(Debug, Clone)]
pub struct Names {
    domain: Domain,
    by_name: HashMap<Box<[u8]>, Addresses>,
    by_address: HashMap<IpAddr, DnsName>,
    sources: Sources,
}

impl Names {
    /// The domain that it is authoritative for.
    #[must_use]
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// The addresses of a name; `None` if there is no such name.
    pub(crate) fn addresses(&self, key: &[u8]) -> Option<&Addresses> {
        self.by_name.get(key)
    }

    /// The first name, alphabetically, that has an address.
    #[must_use]
    pub fn name_of(&self, address: IpAddr) -> Option<&DnsName> {
        self.by_address.get(&address)
    }

    /// Every entry inside the domain with its origin; by name, then origin, container and address.
    #[must_use]
    pub fn entries(&self) -> Vec<(&Entry, PeerId)> {
        let mut listed = self
            .sources
            .0
            .iter()
            .flat_map(|(origin, entries)| entries.iter().map(|entry| (entry, *origin)))
            .filter(|(entry, _)| self.domain.contains(entry.name.key()))
            .collect::<Vec<_>>();
        listed.sort_by(|(a, by_a), (b, by_b)| {
            (&a.name, by_a, &a.container, a.address).cmp(&(&b.name, by_b, &b.container, b.address))
        });
        listed
    }

    /// How many entries outside the domain each origin says; those who say none are left out.
    #[must_use]
    pub fn outside(&self) -> Vec<(PeerId, usize)> {
        let is_outside = |entry: &&Entry| !self.domain.contains(entry.name.key());
        let counts = self.sources.0.iter();
        counts
            .map(|(origin, entries)| (*origin, entries.iter().filter(is_outside).count()))
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    fn insert(&mut self, entry: &Entry) {
        let Entry { name, address, .. } = entry;
        let found = self.by_name.entry(name.key().into()).or_default();
        match address {
            IpAddr::V4(address) if !found.v4.contains(address) => found.v4.push(*address),
            IpAddr::V6(address) if !found.v6.contains(address) => found.v6.push(*address),
            IpAddr::V4(_) | IpAddr::V6(_) => {}
        }
        for parent in name.parents_within(self.domain.name()) {
            if !self.by_name.contains_key(parent) {
                self.by_name.insert(parent.into(), Addresses::default());
            }
        }
        let first = self
            .by_address
            .entry(*address)
            .or_insert_with(|| name.clone());
        if name < first {
            *first = name.clone();
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn entry(name: &str, address: &str, container: &str) -> Entry {
        Entry {
            name: DnsName::parse(name).unwrap(),
            address: address.parse().unwrap(),
            container: container.into(),
        }
    }

    pub(crate) fn names(entries: &[(u8, Entry)]) -> Names {
        let mut by_origin = BTreeMap::<PeerId, Vec<Entry>>::new();
        for (origin, entry) in entries {
            by_origin
                .entry(PeerId([*origin; 16]))
                .or_default()
                .push(entry.clone());
        }
        let mut sources = Sources::default();
        for (origin, entries) in by_origin {
            sources.set(origin, entries.into());
        }
        sources.build(&Domain::parse("weave.local").unwrap())
    }

    fn key(text: &str) -> Vec<u8> {
        DnsName::parse(text).unwrap().key().to_vec()
    }

    #[test]
    fn names_of_another_domain_are_counted_by_who_says_them() {
        let mut sources = Sources::default();
        let [one, two] = [1, 2].map(|n| PeerId([n; 16]));
        let said = [
            entry("a.weave.local", "10.0.0.1", "c"),
            entry("a.example.internal", "10.0.0.1", "c"),
            entry("b.example.internal", "10.0.0.1", "c"),
        ];
        sources.set(one, Arc::from(&said[..1]));
        sources.set(two, Arc::from(&said[..]));
        let names = sources.build(&Domain::parse("weave.local").unwrap());
        assert_eq!(names.outside(), [(two, 2)]);
    }

    #[test]
    fn one_name_gathers_the_addresses_of_all_origins_once() {
        let names = names(&[
            (1, entry("Foo.weave.local", "10.32.0.1", "c1")),
            (2, entry("foo.WEAVE.local", "10.32.0.2", "c2")),
            (2, entry("foo.weave.local", "fd00::2", "c2")),
            (3, entry("foo.weave.local", "10.32.0.1", "c3")),
            (3, entry("foo.example.org", "10.32.0.9", "c3")),
        ]);

        let found = names.addresses(&key("foo.weave.local")).unwrap();
        assert_eq!(
            found.v4,
            [Ipv4Addr::new(10, 32, 0, 1), Ipv4Addr::new(10, 32, 0, 2)]
        );
        assert_eq!(found.v6, ["fd00::2".parse::<Ipv6Addr>().unwrap()]);
        assert_eq!(names.addresses(&key("foo.example.org")), None);
        assert_eq!(names.entries().len(), 4);
    }

    #[test]
    fn an_address_answers_with_its_first_name_as_spelt() {
        let names = names(&[
            (1, entry("web.weave.local", "10.32.0.1", "c1")),
            (1, entry("Api.weave.local", "10.32.0.1", "c1")),
            (2, entry("mail.weave.local", "10.32.0.1", "c1")),
        ]);
        let found = names.name_of("10.32.0.1".parse().unwrap()).unwrap();
        assert_eq!(found.as_str(), "Api.weave.local");
        assert_eq!(names.name_of("10.32.0.2".parse().unwrap()), None);
    }

    #[test]
    fn a_name_above_others_exists_without_addresses() {
        let names = names(&[(1, entry("a.b.c.weave.local", "10.32.0.1", "c1"))]);
        for parent in ["b.c.weave.local", "c.weave.local"] {
            assert_eq!(names.addresses(&key(parent)), Some(&Addresses::default()));
        }
        assert_eq!(names.addresses(&key("d.weave.local")), None);
    }

    #[test]
    fn an_origin_that_is_taken_out_takes_its_names_along() {
        let mut sources = Sources::default();
        let domain = Domain::parse("weave.local").unwrap();
        sources.set(
            PeerId([1; 16]),
            [entry("a.weave.local", "10.0.0.1", "x")].into(),
        );
        sources.set(
            PeerId([2; 16]),
            [entry("b.weave.local", "10.0.0.2", "x")].into(),
        );
        sources.set(PeerId([1; 16]), [].into());

        let names = sources.build(&domain);
        assert_eq!(names.addresses(&key("a.weave.local")), None);
        assert!(names.addresses(&key("b.weave.local")).is_some());
        assert_eq!(names.name_of("10.0.0.1".parse().unwrap()), None);
    }

    proptest! {
        /// Against a plain list: forward and reverse say what the entries say, whatever their order.
        #[test]
        fn the_snapshot_says_what_the_entries_say(
            said in proptest::collection::vec((0u8..4, 0u8..6, 0u8..6), 0..40)
        ) {
            let entries = said
                .iter()
                .map(|(origin, name, address)| {
                    (*origin, entry(&format!("n{name}.weave.local"), &format!("10.0.0.{address}"), "c"))
                })
                .collect::<Vec<_>>();
            let names = names(&entries);

            for n in 0..6u8 {
                let wanted = (0..6u8)
                    .filter(|address| said.iter().any(|(_, name, has)| *name == n && has == address))
                    .map(|address| Ipv4Addr::new(10, 0, 0, address))
                    .collect::<Vec<_>>();
                let mut found = names
                    .addresses(&key(&format!("n{n}.weave.local")))
                    .map(|found| found.v4.clone())
                    .unwrap_or_default();
                found.sort();
                prop_assert_eq!(found, wanted);
                let first = said.iter().filter(|(_, _, address)| *address == n).map(|(_, name, _)| *name).min();
                let address = IpAddr::from([10, 0, 0, n]);
                prop_assert_eq!(
                    names.name_of(address).map(ToString::to_string),
                    first.map(|name| format!("n{name}.weave.local"))
                );
            }
        }
    }
}

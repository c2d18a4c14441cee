//! The names that this host says: of its containers, of itself, and those given by hand.
//!
//! ```text
//!  attach, dns-add ── add ──►  ┌──────────┐
//!  detach, dns-remove ─ remove ► registry ├─► entries ─► store, gossip
//!  a container is gone ─ keep ► └──────────┘
//! ```
//!
//! An entry goes with its container. Ids that begin with `weave:` are no containers and stay until they are removed.
//! Bounds: `config::DNS_NAMES_PER_ORIGIN_MAX` entries of `config::DNS_BYTES_PER_ORIGIN_MAX` bytes; what is over them is
//! refused.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use crate::config::{DNS_BYTES_PER_ORIGIN_MAX, DNS_NAMES_PER_ORIGIN_MAX};
use crate::dns::name::DnsName;
use crate::dns::names::Entry;
use crate::dns::parts::Parts;
pub use crate::dns::record::Giver;
use crate::dns::record::{encode, encode_saved, len_of};

/// Owner of names for addresses outside the network.
pub const EXTERN: &str = "weave:extern";
/// Owner of the host's own names.
pub const EXPOSE: &str = "weave:expose";
/// How the ids begin that are not containers'.
const SPECIAL: &str = "weave:";

/// Why a name was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// Over a limit.
    #[error(
        "this host has no room for more DNS entries: at most {DNS_NAMES_PER_ORIGIN_MAX}, and {DNS_BYTES_PER_ORIGIN_MAX} bytes; remove some first"
    )]
    Full,
}

/// Which entries to remove; what is not given matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this owner.
    pub container: Option<String>,
    /// For one of these addresses; none given means any.
    pub addresses: Vec<IpAddr>,
    /// Of this name.
    pub name: Option<DnsName>,
}

impl Filter {
    /// Whether an entry is of those.
    pub(crate) fn matches(&self, entry: &Entry) -> bool {
        self.container
            .as_ref()
            .is_none_or(|container| **container == *entry.container)
            && (self.addresses.is_empty() || self.addresses.contains(&entry.address))
            && self.name.as_ref().is_none_or(|name| *name == entry.name)
    }
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    /// The record that the entry is in.
    part: u16,
    giver: Giver,
}

/// This host's entries.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    entries: BTreeMap<Entry, Slot>,
    parts: Parts,
}

impl Registry {
    /// Takes up what the last run left, and who gave each.
    #[must_use]
    pub fn new(entries: impl IntoIterator<Item = (Entry, Giver)>) -> Self {
        let mut registry = Self::default();
        for (entry, giver) in entries.into_iter().take(DNS_NAMES_PER_ORIGIN_MAX) {
            registry.insert(entry, giver);
        }
        registry
    }

    /// Takes an entry; one that was given by hand stays so.
    fn insert(&mut self, entry: Entry, giver: Giver) {
        if let Some(slot) = self.entries.get_mut(&entry) {
            if giver == Giver::Hand {
                slot.giver = giver;
            }
            return;
        }
        let first = Entry {
            name: entry.name.clone(),
            address: Ipv4Addr::UNSPECIFIED.into(),
            container: "".into(),
        };
        let after = self.entries.range(first..).next();
        let same_name = after.filter(|(next, _)| next.name == entry.name);
        let same_name = same_name.map(|(_, slot)| slot.part);
        if let Some(part) = self.parts.take(len_of(&entry), same_name) {
            self.entries.insert(entry, Slot { part, giver });
        }
    }

    fn retain(&mut self, mut keeps: impl FnMut(&Entry, Slot) -> bool) {
        let parts = &mut self.parts;
        self.entries.retain(|entry, slot| {
            let is_kept = keeps(entry, *slot);
            if !is_kept {
                parts.give_back(slot.part, len_of(entry));
            }
            is_kept
        });
    }

    /// Gives each of the addresses each of the names. True if anything is new; all or nothing.
    ///
    /// # Errors
    /// [`RegistryError::Full`].
    pub fn add(
        &mut self,
        container: &str,
        names: &[DnsName],
        addresses: &[IpAddr],
        giver: Giver,
    ) -> Result<bool, RegistryError> {
        let container: Arc<str> = container.into();
        let asked = names.iter().flat_map(|name| {
            let container = &container;
            addresses.iter().map(move |address| Entry {
                name: name.clone(),
                address: *address,
                container: Arc::clone(container),
            })
        });
        let (known, fresh) =
            asked.partition::<BTreeSet<_>, _>(|entry| self.entries.contains_key(entry));
        let bytes = self.parts.bytes() + fresh.iter().map(len_of).sum::<usize>();
        if self.entries.len() + fresh.len() > DNS_NAMES_PER_ORIGIN_MAX
            || bytes > DNS_BYTES_PER_ORIGIN_MAX
        {
            return Err(RegistryError::Full);
        }
        let changed = !fresh.is_empty();
        for entry in known.into_iter().chain(fresh) {
            self.insert(entry, giver);
        }
        Ok(changed)
    }

    /// A container is called `names` at these addresses, and nothing else any more but what was given by hand. True if
    /// that takes a name.
    pub fn only(&mut self, container: &str, names: &[DnsName], addresses: &[IpAddr]) -> bool {
        let before = self.entries.len();
        self.retain(|entry, slot| {
            slot.giver == Giver::Hand
                || *entry.container != *container
                || !addresses.contains(&entry.address)
                || names.contains(&entry.name)
        });
        self.entries.len() < before
    }

    /// Removes what matches, and returns it.
    pub fn remove(&mut self, filter: &Filter) -> Vec<Entry> {
        let removed = self.entries().filter(|entry| filter.matches(entry));
        let removed = removed.cloned().collect();
        self.retain(|entry, _| !filter.matches(entry));
        removed
    }

    /// Drops what belongs to containers that are not among the living; returns those that were dropped.
    pub fn keep(&mut self, living: &BTreeSet<String>) -> BTreeSet<Arc<str>> {
        let mut gone = self.containers();
        gone.retain(|container| !living.contains(&**container));
        self.retain(|entry, _| !gone.contains(&entry.container));
        gone
    }

    /// All containers that have entries.
    #[must_use]
    pub fn containers(&self) -> BTreeSet<Arc<str>> {
        let owners = self.entries().map(|entry| &entry.container);
        owners
            .filter(|owner| !owner.starts_with(SPECIAL))
            .cloned()
            .collect()
    }

    /// All entries, in order.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.keys()
    }

    /// The bodies of the NAMES records that say some of them, by part.
    pub fn bodies_of(&self, is_said: impl Fn(&Entry) -> bool) -> BTreeMap<u16, Vec<u8>> {
        let said = self.entries.iter().filter(|(entry, _)| is_said(entry));
        encode(said.map(|(entry, slot)| (entry, slot.part)))
    }

    /// What the store keeps of all of them, by part.
    #[must_use]
    pub fn bodies_to_save(&self) -> BTreeMap<u16, Vec<u8>> {
        let all = self.entries.iter();
        encode_saved(all.map(|(entry, slot)| (entry, slot.part, slot.giver)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dns::names::tests::entry;
    use crate::dns::record::parse_saved;

    fn name(text: &str) -> DnsName {
        DnsName::parse(text).unwrap()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn by_containers(
        entries: impl IntoIterator<Item = Entry>,
    ) -> impl Iterator<Item = (Entry, Giver)> {
        entries.into_iter().map(|entry| (entry, Giver::Container))
    }

    fn listed(registry: &Registry) -> Vec<Entry> {
        registry.entries().cloned().collect()
    }

    #[test]
    fn every_address_gets_every_name_once() {
        let mut registry = Registry::default();
        let names = [name("a.weave.local"), name("b.weave.local")];
        let addresses = [address("10.2.1.1"), address("10.2.2.1")];

        assert_eq!(
            registry.add("c1", &names, &addresses, Giver::Container),
            Ok(true)
        );
        assert_eq!(
            registry.add("c1", &names, &addresses, Giver::Container),
            Ok(false)
        );

        assert_eq!(registry.entries().count(), 4);
    }

    #[test]
    fn removal_takes_what_matches_and_leaves_others() {
        let all = [
            entry("a.weave.local", "10.2.1.1", "c1"),
            entry("a.weave.local", "10.2.1.2", "c2"),
            entry("b.weave.local", "10.2.1.1", "c1"),
            entry("b.weave.local", "192.0.2.1", EXTERN),
        ];
        let table = [
            (Some("c1"), None, None, vec![1, 3]),
            (None, Some("10.2.1.1"), None, vec![1, 3]),
            (None, None, Some("B.weave.local"), vec![0, 1]),
            (Some("c1"), None, Some("a.weave.local"), vec![1, 2, 3]),
            (Some("c3"), None, None, vec![0, 1, 2, 3]),
        ];
        for (container, at, of, left) in table {
            let mut registry = Registry::new(by_containers(all.clone()));
            let removed = registry.remove(&Filter {
                container: container.map(str::to_owned),
                addresses: at.map(address).into_iter().collect(),
                name: of.map(name),
            });
            let wanted = left.iter().map(|at| all[*at].clone()).collect::<Vec<_>>();
            assert_eq!(listed(&registry), wanted);
            assert_eq!(removed.len() + left.len(), all.len());
            assert!(removed.iter().all(|entry| all.contains(entry)));
        }
    }

    #[test]
    fn names_go_with_their_container_but_not_those_by_hand() {
        let mut registry = Registry::new(by_containers([
            entry("a.weave.local", "10.2.1.1", "c1"),
            entry("b.weave.local", "10.2.1.2", "c2"),
            entry("c.weave.local", "192.0.2.1", EXTERN),
            entry("d.weave.local", "10.2.1.3", EXPOSE),
        ]));
        let living = BTreeSet::from(["c2".to_owned()]);
        assert_eq!(registry.keep(&living), BTreeSet::from(["c1".into()]));
        let left = registry
            .entries()
            .map(|entry| entry.name.to_string())
            .collect::<Vec<_>>();
        assert_eq!(left, ["b.weave.local", "c.weave.local", "d.weave.local"]);
        assert!(registry.keep(&living).is_empty());
    }

    #[test]
    fn a_container_keeps_of_its_earlier_names_what_was_given_by_hand_also_after_a_restart() {
        let mut registry = Registry::default();
        let [at, other] = ["10.2.1.1", "10.2.2.1"].map(address);
        let [first, second, given] = ["a.weave.local", "b.weave.local", "g.weave.local"].map(name);
        let mut give = |names: &[DnsName], to: &[IpAddr], giver| {
            registry.add("c1", names, to, giver).unwrap();
        };
        give(std::slice::from_ref(&first), &[at, other], Giver::Container);
        give(std::slice::from_ref(&given), &[at], Giver::Container);
        give(std::slice::from_ref(&given), &[at], Giver::Hand);
        registry
            .add("c2", std::slice::from_ref(&first), &[at], Giver::Container)
            .unwrap();

        let saved = registry.bodies_to_save();
        let saved = saved.values().flat_map(|body| parse_saved(body));
        let mut registry = Registry::new(saved);
        assert!(registry.only("c1", std::slice::from_ref(&second), &[at]));
        assert!(!registry.only("c1", &[second], &[at]));

        let left = [
            entry("a.weave.local", "10.2.1.1", "c2"),
            entry("a.weave.local", "10.2.2.1", "c1"),
            entry("g.weave.local", "10.2.1.1", "c1"),
        ];
        assert_eq!(listed(&registry), left);
    }

    #[test]
    fn the_limit_refuses_and_changes_nothing() {
        let mut registry = Registry::new(by_containers(
            (1..DNS_NAMES_PER_ORIGIN_MAX)
                .map(|n| entry(&format!("n{n}.weave.local"), "10.0.0.1", "c")),
        ));
        let two = [address("10.0.0.1"), address("10.0.0.2")];
        assert_eq!(
            registry.add("c", &[name("x.y")], &two, Giver::Container),
            Err(RegistryError::Full)
        );
        assert_eq!(registry.entries().count(), DNS_NAMES_PER_ORIGIN_MAX - 1);
        assert_eq!(
            registry.add("c", &[name("x.y")], &two[..1], Giver::Container),
            Ok(true)
        );
    }

    #[test]
    fn long_names_fill_it_sooner() {
        let mut registry = Registry::default();
        let label = "x".repeat(60);
        let named = |n: usize| name(&format!("n{n}.{label}.{label}.{label}.weave.local"));
        let mut add = |n| registry.add("c", &[named(n)], &[address("10.0.0.1")], Giver::Container);
        let taken = (0..DNS_NAMES_PER_ORIGIN_MAX).take_while(|n| add(*n).is_ok());
        let taken = taken.count();
        assert!((800..1200).contains(&taken), "{taken}");
        let removed = registry.remove(&Filter {
            name: Some(named(0)),
            ..Filter::default()
        });
        assert_eq!(removed.len(), 1);
        assert_eq!(
            registry.add(
                "c",
                &[named(5000)],
                &[address("10.0.0.1")],
                Giver::Container
            ),
            Ok(true)
        );
    }

    proptest! {
        /// Whatever is done in whatever order, the registry holds what a plain list of triples would.
        #[test]
        fn it_behaves_like_a_list(steps in proptest::collection::vec((0u8..3, 0u8..3, 0u8..3, 0u8..3), 0..60)) {
            let mut registry = Registry::default();
            let mut plain: Vec<(u8, u8, u8)> = Vec::new();
            for (what, n, a, c) in steps {
                let of = name(&format!("n{n}.weave.local"));
                let at = IpAddr::from([10, 0, 0, a]);
                let container = format!("c{c}");
                match what {
                    0 => {
                        let changed = registry.add(&container, &[of], &[at], Giver::Container).unwrap();
                        prop_assert_eq!(changed, !plain.contains(&(n, a, c)));
                        if changed { plain.push((n, a, c)); }
                    }
                    1 => {
                        let filter = Filter { container: Some(container), addresses: vec![at], name: None };
                        let before = plain.len();
                        plain.retain(|(_, has, owner)| !(*has == a && *owner == c));
                        prop_assert_eq!(registry.remove(&filter).len(), before - plain.len());
                    }
                    _ => {
                        registry.keep(&BTreeSet::from([container]));
                        plain.retain(|(_, _, owner)| *owner == c);
                    }
                }
            }
            prop_assert_eq!(registry.entries().count(), plain.len());
        }
    }
}

//! The body of a NAMES record: entries of one origin, spread over several records.
//!
//! ```text
//!  field ENTRY:   family 4|6 (1) | address (4 or 16) | container length (1) | container | name …
//!  field BY_HAND: the same; in the store only, of a name that a user gave
//! ```
//!
//! Which record an entry is in is up to the origin (`dns/parts.rs`); who hears takes all of them together. Fields of
//! other types are left for newer peers; entries that make no sense are left out and counted. Bounds:
//! `config::RECORD_BODY_MAX` a body, `config::DNS_NAMES_PER_ORIGIN_MAX` entries.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::config::{DNS_NAMES_PER_ORIGIN_MAX, RECORD_BODY_MAX};
use crate::dns::name::DnsName;
use crate::dns::names::Entry;
use crate::fields::{FieldWriter, Fields};

const ENTRY: u8 = 1;
const BY_HAND: u8 = 2;

/// Who gave a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Giver {
    /// Its container, by what it is called.
    Container,
    /// A user, who takes it again.
    Hand,
}

/// What a field costs besides its value.
const FIELD_OVERHEAD: usize = 3;
/// Longest container id; what can be attached has a shorter one.
const CONTAINER_LEN_MAX: usize = 200;

/// The bytes that an entry takes.
#[must_use]
pub fn len_of(entry: &Entry) -> usize {
    encode_entry(entry).len() + FIELD_OVERHEAD
}

/// The bodies that say these entries, each in its part. Parts that are not there are to be withdrawn. What a body has
/// no room for is left out.
#[must_use]
pub fn encode<'a>(entries: impl IntoIterator<Item = (&'a Entry, u16)>) -> BTreeMap<u16, Vec<u8>> {
    let entries = entries.into_iter();
    encode_as(entries.map(|(entry, part)| (ENTRY, entry, part)))
}

/// The same for the store, which remembers who gave each.
#[must_use]
pub fn encode_saved<'a>(
    entries: impl IntoIterator<Item = (&'a Entry, u16, Giver)>,
) -> BTreeMap<u16, Vec<u8>> {
    let entries = entries.into_iter();
    encode_as(entries.map(|(entry, part, giver)| {
        let kind = match giver {
            Giver::Container => ENTRY,
            Giver::Hand => BY_HAND,
        };
        (kind, entry, part)
    }))
}

fn encode_as<'a>(entries: impl Iterator<Item = (u8, &'a Entry, u16)>) -> BTreeMap<u16, Vec<u8>> {
    let mut parts: BTreeMap<u16, (usize, FieldWriter)> = BTreeMap::new();
    for (kind, entry, part) in entries.take(DNS_NAMES_PER_ORIGIN_MAX) {
        let value = encode_entry(entry);
        let len = value.len() + FIELD_OVERHEAD;
        let (used, writer) = parts.entry(part).or_default();
        if *used + len <= RECORD_BODY_MAX {
            *used += len;
            *writer = std::mem::take(writer).put(kind, &value);
        }
    }
    let bodies = parts.into_iter();
    bodies
        .map(|(part, (_, writer))| (part, writer.finish()))
        .collect()
}

fn encode_entry(entry: &Entry) -> Vec<u8> {
    let mut value = Vec::new();
    match entry.address {
        IpAddr::V4(address) => {
            value.push(4);
            value.extend(address.octets());
        }
        IpAddr::V6(address) => {
            value.push(6);
            value.extend(address.octets());
        }
    }
    let container = entry.container.as_bytes();
    let container = container.get(..CONTAINER_LEN_MAX).unwrap_or(container);
    value.push(u8::try_from(container.len()).unwrap_or(0));
    value.extend(container);
    value.extend(entry.name.as_str().as_bytes());
    value
}

/// What one body says, and how many of its entries made no sense; `None` if it is no list of fields.
#[must_use]
pub fn parse(body: &[u8]) -> Option<(Vec<Entry>, usize)> {
    let mut entries = Vec::new();
    let mut senseless = 0;
    for (kind, value) in Fields::parse(body).ok()?.all() {
        if kind != ENTRY {
            continue;
        }
        match parse_entry(value) {
            Some(entry) if entries.len() < DNS_NAMES_PER_ORIGIN_MAX => entries.push(entry),
            Some(_) | None => senseless += 1,
        }
    }
    Some((entries, senseless))
}

/// What a body in the store says: entries, and who gave each.
#[must_use]
pub fn parse_saved(body: &[u8]) -> Vec<(Entry, Giver)> {
    let fields = Fields::parse(body).ok();
    let fields = fields.iter().flat_map(|fields| fields.all());
    let saved = fields.filter_map(|(kind, value)| {
        let giver = match kind {
            ENTRY => Giver::Container,
            BY_HAND => Giver::Hand,
            _ => return None,
        };
        Some((parse_entry(value)?, giver))
    });
    saved.collect()
}

fn parse_entry(value: &[u8]) -> Option<Entry> {
    let (family, rest) = value.split_first()?;
    let (address, rest) = match family {
        4 => {
            let (octets, rest) = rest.split_first_chunk::<4>()?;
            (IpAddr::from(*octets), rest)
        }
        6 => {
            let (octets, rest) = rest.split_first_chunk::<16>()?;
            (IpAddr::from(*octets), rest)
        }
        _ => return None,
    };
    let (len, rest) = rest.split_first()?;
    let (container, name) = rest.split_at_checked(usize::from(*len))?;
    let container = std::str::from_utf8(container).ok()?;
    if container.len() > CONTAINER_LEN_MAX || container.contains(char::is_control) {
        return None;
    }
    Some(Entry {
        name: DnsName::parse(std::str::from_utf8(name).ok()?).ok()?,
        address,
        container: Arc::from(container),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::dns::names::tests::entry;

    fn all(parts: &BTreeMap<u16, Vec<u8>>) -> BTreeSet<Entry> {
        parts
            .values()
            .flat_map(|body| {
                let (entries, senseless) = parse(body).unwrap();
                assert_eq!(senseless, 0);
                entries
            })
            .collect()
    }

    #[test]
    fn the_body_is_held_by_golden_bytes() {
        let web = entry("Web.weave.local", "10.32.0.1", "c1");
        assert_eq!(
            encode([(&web, 0)])[&0],
            b"\x01\x00\x17\x04\x0a\x20\x00\x01\x02c1Web.weave.local"
        );
        let six = entry("a.b", "fd00::1", "");
        assert_eq!(
            encode([(&six, 0)])[&0],
            b"\x01\x00\x15\x06\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0a.b"
        );
    }

    #[test]
    fn the_store_remembers_what_was_given_by_hand_and_nobody_else_is_told() {
        let (own, given) = (
            entry("a.b", "10.32.0.1", "c1"),
            entry("c.d", "10.32.0.1", "c1"),
        );
        let bodies = encode_saved([(&own, 0, Giver::Container), (&given, 0, Giver::Hand)]);
        let saved = parse_saved(&bodies[&0]);
        assert_eq!(
            saved,
            [
                (own.clone(), Giver::Container),
                (given.clone(), Giver::Hand)
            ]
        );
        let told = encode([(&own, 0), (&given, 0)]);
        assert_eq!(parse(&told[&0]).unwrap(), (vec![own, given], 0));
        assert_eq!(parse_saved(b"\x01"), []);
    }

    #[test]
    fn a_full_body_takes_no_more() {
        let entries = (0..1000)
            .map(|n| entry(&format!("n{n:05}.weave.local"), "10.0.0.1", "c23"))
            .collect::<Vec<_>>();
        let parts = encode(entries.iter().map(|entry| (entry, 3)));
        assert_eq!(parts.keys().collect::<Vec<_>>(), [&3]);
        let room = RECORD_BODY_MAX / len_of(&entries[0]);
        assert!(parts[&3].len() <= RECORD_BODY_MAX);
        assert_eq!(all(&parts).len(), room);
    }

    #[test]
    fn senseless_entries_are_left_out_and_newer_fields_ignored() {
        let body = FieldWriter::default()
            .put(9, b"later")
            .put(ENTRY, b"\x05\x0a\x20\x00\x01\x00a.b")
            .put(ENTRY, b"\x04\x0a\x20\x00\x01\x00a..b")
            .put(ENTRY, b"\x04\x0a\x20\x00\x01\x01\na.b")
            .put(ENTRY, b"\x04\x0a\x20\x00\x01\xffa.b")
            .put(ENTRY, b"\x04\x0a\x20\x00\x01\x00a.b")
            .finish();
        let (entries, senseless) = parse(&body).unwrap();
        assert_eq!(entries, [entry("a.b", "10.32.0.1", "")]);
        assert_eq!(senseless, 4);
    }

    proptest! {
        #[test]
        fn entries_survive_the_way(said in proptest::collection::btree_set(
            ("[a-zA-Z0-9_-]{1,20}\\.weave\\.local", any::<IpAddr>(), "[ -~]{0,64}"), 0..300))
        {
            let entries = said.iter().map(|(name, address, container)| Entry {
                name: DnsName::parse(name).unwrap(),
                address: *address,
                container: container.as_str().into(),
            }).collect::<BTreeSet<_>>();
            let parts = encode(entries.iter().zip((0..5).cycle()));
            prop_assert_eq!(all(&parts), entries);
        }

        #[test]
        fn any_bytes_are_parsed_or_refused(body: Vec<u8>) {
            if let Some((entries, _)) = parse(&body) {
                prop_assert!(entries.len() * 10 <= body.len());
            }
        }
    }
}

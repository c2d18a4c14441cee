//! The body of a NAMES record: entries of one origin, spread over several records.
//!
//! ```text
//!  field ENTRY:  family 4|6 (1) | address (4 or 16) | container length (1) | container | name …
//! ```
//!
//! An entry's record is found by a hash over it, so a change alters one record. The number of records is a power of
//! two that follows the amount. Fields of other types are left for newer peers; entries that make no sense are left
//! out and counted. Bounds: `config::DNS_RECORD_LEN_MAX` a body, `config::DNS_NAMES_PER_ORIGIN_MAX` entries.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::config::{
    DNS_NAMES_PER_ORIGIN_MAX, DNS_RECORD_LEN_AIM, DNS_RECORD_LEN_MAX, DNS_RECORDS_MAX,
};
use crate::dns::name::DnsName;
use crate::dns::names::Entry;
use crate::fields::{FieldWriter, Fields};

const ENTRY: u8 = 1;
/// What a field costs besides its value.
const FIELD_OVERHEAD: usize = 3;
/// Longest container id; what can be attached has a shorter one.
const CONTAINER_LEN_MAX: usize = 200;

/// The bodies that say these entries, by part. Parts that are not there are to be withdrawn.
/// At most `config::DNS_NAMES_PER_ORIGIN_MAX` entries.
#[must_use]
pub fn encode<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> BTreeMap<u16, Vec<u8>> {
    let values = entries
        .into_iter()
        .take(DNS_NAMES_PER_ORIGIN_MAX)
        .map(encode_entry)
        .collect::<Vec<_>>();
    let total: usize = values
        .iter()
        .map(|value| value.len() + FIELD_OVERHEAD)
        .sum();
    let mut count = (total / DNS_RECORD_LEN_AIM).max(1).next_power_of_two();
    loop {
        let parts = spread(&values, count);
        let fits = parts.values().all(|body| body.len() <= DNS_RECORD_LEN_MAX);
        if fits || count >= DNS_RECORDS_MAX {
            return parts;
        }
        count *= 2;
    }
}

fn spread(values: &[Vec<u8>], count: usize) -> BTreeMap<u16, Vec<u8>> {
    let mut writers = BTreeMap::<u16, FieldWriter>::new();
    let count = u64::try_from(count).unwrap_or(1).max(1);
    for value in values {
        let part = u16::try_from(fnv(value) % count).unwrap_or(0);
        let writer = writers.remove(&part).unwrap_or_default();
        writers.insert(part, writer.put(ENTRY, value));
    }
    writers
        .into_iter()
        .map(|(part, writer)| (part, writer.finish()))
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

/// FNV-1a: the same on every host, and all that is asked of it is to spread.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
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
        let entries = [entry("Web.weave.local", "10.32.0.1", "c1")];
        assert_eq!(
            encode(&entries)[&0],
            b"\x01\x00\x17\x04\x0a\x20\x00\x01\x02c1Web.weave.local"
        );
        let six = [entry("a.b", "fd00::1", "")];
        assert_eq!(
            encode(&six)[&0],
            b"\x01\x00\x15\x06\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0a.b"
        );
    }

    #[test]
    fn the_most_and_longest_entries_fit_their_records() {
        let label = "x".repeat(60);
        let container = "c".repeat(CONTAINER_LEN_MAX);
        let entries = (0..DNS_NAMES_PER_ORIGIN_MAX)
            .map(|n| {
                let name = format!("n{n:05}.{label}.{label}.{label}.weave.local");
                entry(&name, &format!("fd00::{n:x}"), &container)
            })
            .collect::<Vec<_>>();
        let parts = encode(&entries);
        assert!(parts.values().all(|body| body.len() <= DNS_RECORD_LEN_MAX));
        assert!(parts.len() <= DNS_RECORDS_MAX);
        assert_eq!(all(&parts), entries.into_iter().collect());
    }

    #[test]
    fn one_change_alters_one_record() {
        let entries = (0..400)
            .map(|n| entry(&format!("n{n}.weave.local"), "10.0.0.1", "c"))
            .collect::<Vec<_>>();
        let before = encode(&entries);
        let after = encode(&entries[1..]);
        let altered = before
            .iter()
            .filter(|(part, body)| after.get(part) != Some(body));
        assert!(before.len() >= 4, "{}", before.len());
        assert_eq!(altered.count(), 1);
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
            prop_assert_eq!(all(&encode(&entries)), entries);
        }

        #[test]
        fn any_bytes_are_parsed_or_refused(body: Vec<u8>) {
            if let Some((entries, _)) = parse(&body) {
                prop_assert!(entries.len() * 10 <= body.len());
            }
        }
    }
}

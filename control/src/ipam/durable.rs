//! What of IPAM is on disk, as keys and values, and how it is taken up again.
//!
//! ```text
//!  g             genesis (16) · range          absent: no ring
//!  c             council
//!  r first       last (4) · claim              one for each run
//!  v             slot (8) · promised: 0, or 1 and ballot · accepted: 0, or 1, ballot and decree
//!  n peer        name (6) · nickname              owners and voters that were heard of (called)
//!  l             absent: nothing was lost; 1: everything, 2: promises (relearn)
//!  a owner       addresses: family (1), 4 or 16 bytes, prefix (1) each
//! ```
//!
//! The mirror holds what was last handed over to be written, so that a step writes what it changed and no more.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use crate::ipam::Contact;
use crate::ipam::called::{CALLED, take_called};
use crate::ipam::codec::{
    Reader, put_ballot, put_claim, put_council, put_decree, put_span, take_all, take_ballot,
    take_claim, take_council, take_decree, take_span,
};
use crate::ipam::holdings::{ADDRESSES_PER_HOLDER_MAX, Holdings};
use crate::ipam::paxos::Acceptor;
use crate::ipam::relearn::Lost;
use crate::ipam::ring::{GenesisId, Ring};
use crate::ipam::span::Span;
use crate::peer::PeerId;

/// Keys that begin with it are those of runs.
const RUN: u8 = b'r';
/// The same of addresses in use.
const ADDRESSES: u8 = b'a';

/// One key and its new value; `None` deletes it.
pub type StoreChange = (Vec<u8>, Option<Vec<u8>>);

/// What the store holds.
pub type StoreContent = BTreeMap<Vec<u8>, Vec<u8>>;

/// What was taken up.
#[derive(Debug, Default)]
pub(crate) struct Restored {
    pub(crate) ring: Option<Ring>,
    pub(crate) acceptor: Acceptor,
    pub(crate) holdings: Holdings,
    pub(crate) lost: Lost,
    pub(crate) called: BTreeMap<PeerId, Contact>,
}

/// A value in the store is not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stored addresses are damaged")]
pub struct StoreDamage;

/// The last state that was handed over to be written.
#[derive(Debug, Default)]
pub(crate) struct Mirror(StoreContent);

impl Mirror {
    pub(crate) fn new(content: StoreContent) -> Self {
        Self(content)
    }

    /// What differs from the state, which is written from now on.
    pub(crate) fn changes(
        &mut self,
        ring: Option<&Ring>,
        acceptor: Option<&Acceptor>,
        holdings: &mut Holdings,
    ) -> Vec<StoreChange> {
        let mut changes = Vec::new();
        if let Some(ring) = ring {
            self.ring_changes(ring, &mut changes);
        }
        if let Some(acceptor) = acceptor {
            self.set(b"v".to_vec(), Some(acceptor_bytes(acceptor)), &mut changes);
        }
        for holder in holdings.drain_changed() {
            let addresses = holdings.of(&holder);
            let value = (!addresses.is_empty()).then(|| addresses_bytes(addresses));
            self.set(
                [[ADDRESSES].as_slice(), holder.as_bytes()].concat(),
                value,
                &mut changes,
            );
        }
        changes
    }

    /// What peers are called, all of it.
    pub(crate) fn note_called(&mut self, called: StoreContent, changes: &mut Vec<StoreChange>) {
        self.replace(CALLED, called, changes);
    }

    /// What is not known any more since the store was lost.
    pub(crate) fn note_lost(&mut self, lost: Lost, changes: &mut Vec<StoreChange>) {
        let (key, value) = lost.entry();
        self.set(key, value, changes);
    }

    fn ring_changes(&mut self, ring: &Ring, changes: &mut Vec<StoreChange>) {
        let mut head = ring.genesis.0.to_vec();
        put_span(&mut head, ring.range);
        self.set(b"g".to_vec(), Some(head), changes);
        let mut council = Vec::new();
        put_council(&mut council, &ring.council);
        self.set(b"c".to_vec(), Some(council), changes);
        let runs = ring.runs().map(|run| {
            let mut value = run.span.last().to_be_bytes().to_vec();
            put_claim(&mut value, &run.claim);
            (run_key(run.span.first()), value)
        });
        self.replace(RUN, runs.collect(), changes);
    }

    /// All that is kept under a kind of keys.
    fn replace(&mut self, kind: u8, all: StoreContent, changes: &mut Vec<StoreChange>) {
        let known = self.0.range(keys_of(kind)).map(|(key, _)| key);
        let gone: Vec<Vec<u8>> = known
            .filter(|key| !all.contains_key(*key))
            .cloned()
            .collect();
        for key in gone {
            self.set(key, None, changes);
        }
        for (key, value) in all {
            self.set(key, Some(value), changes);
        }
    }

    fn set(&mut self, key: Vec<u8>, value: Option<Vec<u8>>, changes: &mut Vec<StoreChange>) {
        if self.0.get(&key) == value.as_ref() {
            return;
        }
        match &value {
            Some(value) => self.0.insert(key.clone(), value.clone()),
            None => self.0.remove(&key),
        };
        changes.push((key, value));
    }
}

/// Looks whether the content can be taken up.
///
/// # Errors
/// [`StoreDamage`] if it is not what was written.
pub fn check_content(content: &StoreContent) -> Result<(), StoreDamage> {
    restore(content).map(drop)
}

/// The allocation range that the content is about; `None` without a ring, or if it is damaged.
#[must_use]
pub fn range_of(content: &StoreContent) -> Option<Ipv4Net> {
    let (_, range) = content.get(b"g".as_slice())?.split_first_chunk::<16>()?;
    take_span(&mut Reader::new(range))?.network()
}

/// Takes the state up.
pub(crate) fn restore(content: &StoreContent) -> Result<Restored, StoreDamage> {
    let mut restored = Restored::default();
    if let Some(head) = content.get(b"g".as_slice()) {
        restored.ring = Some(restore_ring(head, content).ok_or(StoreDamage)?);
    }
    if let Some(acceptor) = content.get(b"v".as_slice()) {
        restored.acceptor = take_acceptor(acceptor).ok_or(StoreDamage)?;
    }
    for (key, value) in content.range(keys_of(ADDRESSES)) {
        let holder = holder_in(key).ok_or(StoreDamage)?;
        let addresses = take_all(value, ADDRESSES_PER_HOLDER_MAX, take_address);
        for address in addresses.ok_or(StoreDamage)? {
            restored.holdings.add(holder, address);
        }
    }
    restored.holdings.drain_changed();
    for (key, value) in content.range(keys_of(CALLED)) {
        let (peer, contact) = take_called(key, value).ok_or(StoreDamage)?;
        restored.called.insert(peer, contact);
    }
    restored.lost = Lost::read(content).ok_or(StoreDamage)?;
    Ok(restored)
}

fn restore_ring(head: &[u8], content: &StoreContent) -> Option<Ring> {
    let (genesis, range) = head.split_first_chunk::<16>()?;
    let range = take_span(&mut Reader::new(range))?;
    let council = take_council(&mut Reader::new(content.get(b"c".as_slice())?))?;
    let mut ring = Ring::blank(GenesisId(*genesis), range, council);
    for (key, value) in content.range(keys_of(RUN)) {
        let mut reader = Reader::new(value);
        let span = Span::new(run_first(key)?, reader.u32()?)?;
        ring.join(span, &take_claim(&mut reader)?, None);
    }
    Some(ring)
}

/// The owner whose addresses are under this key.
pub(crate) fn holder_in(key: &[u8]) -> Option<&str> {
    std::str::from_utf8(key.strip_prefix(&[ADDRESSES])?).ok()
}

/// The keys that begin with this byte.
fn keys_of(kind: u8) -> std::ops::Range<Vec<u8>> {
    vec![kind]..vec![kind + 1]
}

fn run_key(first: u32) -> Vec<u8> {
    [[RUN].as_slice(), &first.to_be_bytes()].concat()
}

fn run_first(key: &[u8]) -> Option<u32> {
    key.get(1..)?.try_into().ok().map(u32::from_be_bytes)
}

fn acceptor_bytes(acceptor: &Acceptor) -> Vec<u8> {
    let mut bytes = acceptor.slot.to_be_bytes().to_vec();
    bytes.push(u8::from(acceptor.promised.is_some()));
    if let Some(ballot) = acceptor.promised {
        put_ballot(&mut bytes, ballot);
    }
    bytes.push(u8::from(acceptor.accepted.is_some()));
    if let Some((ballot, decree)) = &acceptor.accepted {
        put_ballot(&mut bytes, *ballot);
        put_decree(&mut bytes, decree);
    }
    bytes
}

fn take_acceptor(bytes: &[u8]) -> Option<Acceptor> {
    let mut reader = Reader::new(bytes);
    let slot = reader.u64()?;
    let promised = match reader.u8()? {
        0 => None,
        _ => Some(take_ballot(&mut reader)?),
    };
    let accepted = match reader.u8()? {
        0 => None,
        _ => Some((take_ballot(&mut reader)?, take_decree(&mut reader)?)),
    };
    Some(Acceptor {
        slot,
        promised,
        accepted,
    })
}

fn addresses_bytes(addresses: &[IpNet]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for address in addresses {
        match address.addr() {
            IpAddr::V4(ip) => {
                bytes.push(4);
                bytes.extend(ip.octets());
            }
            IpAddr::V6(ip) => {
                bytes.push(6);
                bytes.extend(ip.octets());
            }
        }
        bytes.push(address.prefix_len());
    }
    bytes
}

fn take_address(reader: &mut Reader<'_>) -> Option<IpNet> {
    let ip: IpAddr = match reader.u8()? {
        4 => <[u8; 4]>::try_from(reader.bytes(4)?).ok()?.into(),
        6 => <[u8; 16]>::try_from(reader.bytes(16)?).ok()?.into(),
        _ => return None,
    };
    IpNet::new(ip, reader.u8()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipam::claim::{Claim, Version};
    use crate::ipam::council::Council;
    use crate::ipam::paxos::{Ballot, Decree};

    fn apply(content: &mut StoreContent, changes: Vec<StoreChange>) {
        for (key, value) in changes {
            match value {
                Some(value) => content.insert(key, value),
                None => content.remove(&key),
            };
        }
    }

    #[test]
    fn what_was_written_is_taken_up_and_written_once() {
        let (me, other) = (PeerId([1; 16]), PeerId([2; 16]));
        let range = Span::new(0, 1023).unwrap();
        let mut ring = Ring::divided(
            GenesisId([3; 16]),
            range,
            &[me, other],
            Council::first(&[me]),
        );
        let ballot = Ballot {
            round: 2,
            proposer: me,
        };
        let acceptor = Acceptor {
            slot: 2,
            promised: Some(ballot),
            accepted: Some((ballot, Decree::Admit(other))),
        };
        let mut holdings = Holdings::default();
        holdings.add("c1", "0.0.0.1/22".parse().unwrap());
        holdings.add("c1", "fd00::1/64".parse().unwrap());
        holdings.add("c2", "0.0.0.2/22".parse().unwrap());
        let (mut mirror, mut content) = (Mirror::default(), StoreContent::new());

        apply(
            &mut content,
            mirror.changes(Some(&ring), Some(&acceptor), &mut holdings),
        );
        let claim = Claim::new(Version::default().next_step(), other);
        ring.join(Span::new(400, 499).unwrap(), &claim, None);
        holdings.remove("c2");
        apply(
            &mut content,
            mirror.changes(Some(&ring), Some(&acceptor), &mut holdings),
        );

        assert_eq!(
            mirror.changes(Some(&ring), Some(&acceptor), &mut holdings),
            []
        );
        let restored = restore(&content).unwrap();
        assert_eq!(restored.ring, Some(ring));
        assert_eq!(restored.acceptor, acceptor);
        assert_eq!(restored.holdings.of("c1"), holdings.of("c1"));
        assert_eq!(restored.holdings.all().count(), 1);
        assert_eq!(
            range_of(&content).map(Span::of),
            restored.ring.map(|ring| ring.range)
        );
    }

    #[test]
    fn damage_is_told_and_nothing_is_guessed() {
        for (key, value) in [
            (b"g", b"short".as_slice()),
            (b"v", b"x"),
            (b"a", b"\x05"),
            (b"l", b"\x09"),
        ] {
            let content = StoreContent::from([(key.to_vec(), value.to_vec())]);
            assert_eq!(restore(&content).unwrap_err(), StoreDamage);
        }
    }
}

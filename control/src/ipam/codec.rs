//! The parts that messages, records and the store have in common, as bytes.
//!
//! ```text
//!  span     first (4) · last (4)
//!  run      span · era (8) · step (8) · owners (1) · 16 each
//!  ballot   round (8) · proposer (16)
//!  council  index (8) · last removal (8) · members (2) · 16 each · removed (2) · peer (16), index (8), incarnation (8) each
//!  decree   1 · genesis (16) · founders (2) · 16 each
//!           2 · peer (16)
//!           3 · victim (16) · incarnation (8) · takeovers (2) · span, owner (16) each
//!           4 · seed (16) · peer (16)
//! ```
//!
//! Readers are total: bytes that are not what they should be, or more than a limit, give `None`.

use crate::ipam::claim::{Claim, OWNERS_MAX, Version};
use crate::ipam::council::{Council, REMOVALS_MAX, Removal, VOTERS_MAX};
use crate::ipam::paxos::{Ballot, Decree};
use crate::ipam::ring::{GenesisId, Run};
use crate::ipam::span::Span;
use crate::peer::PeerId;

/// Peers that share a first ring; later ones are given space.
pub(crate) const FOUNDERS_MAX: usize = 64;
/// Spans that one removal hands over; what is left goes with the next.
pub(crate) const TAKEOVERS_MAX: usize = 512;

/// Takes numbers from the front of bytes.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn peer(&mut self) -> Option<PeerId> {
        self.array().map(PeerId)
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Reads values until the bytes end; `None` if one is broken or there are more than `max`.
pub(crate) fn take_all<T>(
    bytes: &[u8],
    max: usize,
    mut take: impl FnMut(&mut Reader<'_>) -> Option<T>,
) -> Option<Vec<T>> {
    let mut reader = Reader::new(bytes);
    let mut values = Vec::new();
    while !reader.is_empty() {
        if values.len() >= max {
            return None;
        }
        values.push(take(&mut reader)?);
    }
    Some(values)
}

fn put_count(bytes: &mut Vec<u8>, count: usize) {
    bytes.extend(u16::try_from(count).unwrap_or(u16::MAX).to_be_bytes());
}

pub(crate) fn put_span(bytes: &mut Vec<u8>, span: Span) {
    bytes.extend(span.first().to_be_bytes());
    bytes.extend(span.last().to_be_bytes());
}

pub(crate) fn take_span(reader: &mut Reader<'_>) -> Option<Span> {
    Span::new(reader.u32()?, reader.u32()?)
}

pub(crate) fn put_claim(bytes: &mut Vec<u8>, claim: &Claim) {
    bytes.extend(claim.version.era.to_be_bytes());
    bytes.extend(claim.version.step.to_be_bytes());
    bytes.push(u8::try_from(claim.owners().len()).unwrap_or(u8::MAX));
    claim
        .owners()
        .iter()
        .for_each(|owner| bytes.extend(owner.0));
}

pub(crate) fn take_claim(reader: &mut Reader<'_>) -> Option<Claim> {
    let version = Version {
        era: reader.u64()?,
        step: reader.u64()?,
    };
    let count = usize::from(reader.u8()?);
    if count > OWNERS_MAX {
        return None;
    }
    let owners = (0..count).map(|_| reader.peer()).collect::<Option<_>>()?;
    Claim::with_owners(version, owners)
}

pub(crate) fn put_run(bytes: &mut Vec<u8>, run: &Run) {
    put_span(bytes, run.span);
    put_claim(bytes, &run.claim);
}

pub(crate) fn take_run(reader: &mut Reader<'_>) -> Option<Run> {
    Some(Run {
        span: take_span(reader)?,
        claim: take_claim(reader)?,
    })
}

pub(crate) fn put_ballot(bytes: &mut Vec<u8>, ballot: Ballot) {
    bytes.extend(ballot.round.to_be_bytes());
    bytes.extend(ballot.proposer.0);
}

pub(crate) fn take_ballot(reader: &mut Reader<'_>) -> Option<Ballot> {
    Some(Ballot {
        round: reader.u64()?,
        proposer: reader.peer()?,
    })
}

pub(crate) fn put_council(bytes: &mut Vec<u8>, council: &Council) {
    bytes.extend(council.index.to_be_bytes());
    bytes.extend(council.last_removal.to_be_bytes());
    put_count(bytes, council.members.len());
    council.members.iter().for_each(|peer| bytes.extend(peer.0));
    put_count(bytes, council.removed.len());
    for (peer, removal) in &council.removed {
        bytes.extend(peer.0);
        bytes.extend(removal.index.to_be_bytes());
        bytes.extend(removal.incarnation.to_be_bytes());
    }
}

pub(crate) fn take_council(reader: &mut Reader<'_>) -> Option<Council> {
    let (index, last_removal) = (reader.u64()?, reader.u64()?);
    let members = usize::from(reader.u16()?);
    if members > VOTERS_MAX {
        return None;
    }
    let members = (0..members).map(|_| reader.peer()).collect::<Option<_>>()?;
    let removed = usize::from(reader.u16()?);
    if removed > REMOVALS_MAX {
        return None;
    }
    let mut council = Council {
        index,
        last_removal,
        members,
        ..Council::default()
    };
    for _ in 0..removed {
        let peer = reader.peer()?;
        let removal = Removal {
            index: reader.u64()?,
            incarnation: reader.u64()?,
        };
        council.removed.insert(peer, removal);
    }
    Some(council)
}

pub(crate) fn put_decree(bytes: &mut Vec<u8>, decree: &Decree) {
    match decree {
        Decree::Found { genesis, founders } => {
            bytes.push(1);
            bytes.extend(genesis.0);
            put_count(bytes, founders.len());
            founders.iter().for_each(|peer| bytes.extend(peer.0));
        }
        Decree::Admit(peer) => {
            bytes.push(2);
            bytes.extend(peer.0);
        }
        Decree::Seat { seed, peer } => {
            bytes.push(4);
            bytes.extend(seed.0);
            bytes.extend(peer.0);
        }
        Decree::Remove {
            victim,
            incarnation,
            takeovers,
        } => {
            bytes.push(3);
            bytes.extend(victim.0);
            bytes.extend(incarnation.to_be_bytes());
            put_count(bytes, takeovers.len());
            for (span, owner) in takeovers {
                put_span(bytes, *span);
                bytes.extend(owner.0);
            }
        }
    }
}

pub(crate) fn take_decree(reader: &mut Reader<'_>) -> Option<Decree> {
    Some(match reader.u8()? {
        1 => {
            let genesis = GenesisId(reader.array()?);
            let count = usize::from(reader.u16()?);
            if count == 0 || count > FOUNDERS_MAX {
                return None;
            }
            let founders = (0..count).map(|_| reader.peer()).collect::<Option<_>>()?;
            Decree::Found { genesis, founders }
        }
        2 => Decree::Admit(reader.peer()?),
        3 => {
            let (victim, incarnation) = (reader.peer()?, reader.u64()?);
            let count = usize::from(reader.u16()?);
            if count > TAKEOVERS_MAX {
                return None;
            }
            let takeovers = (0..count)
                .map(|_| Some((take_span(reader)?, reader.peer()?)))
                .collect::<Option<_>>()?;
            Decree::Remove {
                victim,
                incarnation,
                takeovers,
            }
        }
        4 => Decree::Seat {
            seed: reader.peer()?,
            peer: reader.peer()?,
        },
        _ => return None,
    })
}

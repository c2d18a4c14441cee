//! What peers say to each other about addresses, and its form on the wire.
//!
//! ```text
//!  0     kind
//!  1..   fields (fields.rs); numbers big-endian
//! ```
//!
//! A message of an unknown kind, or one that does not parse, is dropped and counted by the caller. Bounds:
//! `CHUNK_RUNS_MAX` runs or spans in one message, `ADDRESSES_MAX` addresses; decrees as in `codec`.

use crate::fields::{FieldError, FieldWriter, Fields};
use crate::ipam::codec::{
    Reader, put_ballot, put_council, put_decree, put_run, put_span, take_all, take_ballot,
    take_council, take_decree, take_run, take_span,
};
use crate::ipam::council::Council;
use crate::ipam::paxos::{Accepted, Ballot, Decree};
use crate::ipam::ring::{GenesisId, RingDigest, Run};
use crate::ipam::span::Span;
use crate::peer::PeerId;

/// Runs in one message: below 6 KiB even if all are disputed; the council beside them has at most nine.
pub(crate) const CHUNK_RUNS_MAX: usize = 64;

/// Why space was not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Denial {
    /// Nothing is free in the span that was asked for.
    NoSpace,
    /// The address is in use there.
    InUse,
    /// The two do not know the same about each other's ranges; they compare now.
    Stale,
    /// There is no ring there, or another one.
    NoRing,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum IpamMessage {
    /// What the sender knows, in short; `answer` asks for the same. If it `agrees` it has heard the same of the
    /// receiver.
    Digest {
        genesis: Option<GenesisId>,
        range: Span,
        digest: RingDigest,
        votes: bool,
        answer: bool,
        agrees: bool,
    },
    /// A part of the ring. When all are there, the receiver answers with its digest or its own ring.
    Ring {
        genesis: GenesisId,
        range: Span,
        council: Council,
        digest: RingDigest,
        /// The same for all parts of one sending.
        number: u64,
        /// Which part, and how many there are.
        part: (u16, u16),
        runs: Vec<Run>,
    },
    /// The sender needs a ring.
    RingWanted,
    /// Space is asked for; the views show that both know the same about giver and taker.
    Want {
        number: u64,
        spans: Vec<Span>,
        /// These very addresses, not a share.
        exact: bool,
        giver_view: RingDigest,
        taker_view: RingDigest,
    },
    /// Space is given.
    Given { number: u64, runs: Vec<Run> },
    /// Space is not given.
    Denied { number: u64, denial: Denial },
    Prepare {
        slot: u64,
        ballot: Ballot,
        /// Voters that decide on the first ring, if that was said.
        electors: u32,
        /// Whose ranges a removal is about, and what the proposer knows of them.
        about: Option<(PeerId, RingDigest)>,
    },
    Promise {
        slot: u64,
        ballot: Ballot,
        voter: PeerId,
        accepted: Accepted,
    },
    /// A higher ballot was promised.
    Refused {
        slot: u64,
        ballot: Ballot,
        promised: Ballot,
    },
    Accept {
        slot: u64,
        ballot: Ballot,
        decree: Decree,
    },
    Voted {
        slot: u64,
        ballot: Ballot,
        voter: PeerId,
    },
    /// The sender settles a dispute about these runs: what does the receiver use of them?
    Disputed { runs: Vec<Run> },
    /// These addresses of the span are in use at the sender.
    InUse { span: Span, addresses: Vec<u32> },
    /// The sender leaves: may it hand over its ranges?
    Inherit { number: u64 },
    /// The answer.
    Inherits { number: u64, willing: bool },
}

const GENESIS: u8 = 1;
const RANGE: u8 = 2;
const DIGEST: u8 = 3;
const RUNS: u8 = 4;
const COUNCIL: u8 = 5;
const NUMBER: u8 = 6;
const SPAN: u8 = 7;
const GIVER: u8 = 8;
const TAKER: u8 = 9;
const FLAGS: u8 = 10;
const BALLOT: u8 = 11;
const VOTER: u8 = 12;
const HIGHER: u8 = 13;
const DECREE: u8 = 14;
const ELECTORS: u8 = 15;
const ABOUT: u8 = 16;
const ADDRESSES: u8 = 17;
const PART: u8 = 18;

impl IpamMessage {
    #[expect(
        clippy::too_many_lines,
        reason = "one line for each field of each message"
    )]
    pub(crate) fn encode(&self) -> Vec<u8> {
        let w = FieldWriter::default();
        let (kind, fields) = match self {
            Self::Digest {
                genesis,
                range,
                digest,
                votes,
                answer,
                agrees,
            } => {
                let flags = u8::from(*votes) | u8::from(*answer) << 1 | u8::from(*agrees) << 2;
                let w = w
                    .put(RANGE, &span_bytes(*range))
                    .put(DIGEST, digest)
                    .put(FLAGS, &[flags]);
                (
                    1,
                    if let Some(GenesisId(id)) = genesis {
                        w.put(GENESIS, id)
                    } else {
                        w
                    },
                )
            }
            Self::Ring {
                genesis,
                range,
                council,
                digest,
                number,
                part,
                runs,
            } => (
                2,
                w.put(GENESIS, &genesis.0)
                    .put(RANGE, &span_bytes(*range))
                    .put(COUNCIL, &council_bytes(council))
                    .put(DIGEST, digest)
                    .put(NUMBER, &number.to_be_bytes())
                    .put(PART, &[part.0.to_be_bytes(), part.1.to_be_bytes()].concat())
                    .put(RUNS, &runs_bytes(runs)),
            ),
            Self::RingWanted => (3, w),
            Self::Want {
                number,
                spans,
                exact,
                giver_view,
                taker_view,
            } => (
                4,
                w.put(NUMBER, &number.to_be_bytes())
                    .put(SPAN, &spans_bytes(spans))
                    .put(FLAGS, &[u8::from(*exact)])
                    .put(GIVER, giver_view)
                    .put(TAKER, taker_view),
            ),
            Self::Given { number, runs } => (
                5,
                w.put(NUMBER, &number.to_be_bytes())
                    .put(RUNS, &runs_bytes(runs)),
            ),
            Self::Denied { number, denial } => (
                6,
                w.put(NUMBER, &number.to_be_bytes())
                    .put(FLAGS, &[denial_byte(*denial)]),
            ),
            Self::Prepare {
                slot,
                ballot,
                electors,
                about,
            } => {
                let w = w
                    .put(NUMBER, &slot.to_be_bytes())
                    .put(BALLOT, &ballot_bytes(*ballot))
                    .put(ELECTORS, &electors.to_be_bytes());
                let about = about.map(|(peer, view)| [peer.0, view].concat());
                (
                    7,
                    if let Some(about) = about {
                        w.put(ABOUT, &about)
                    } else {
                        w
                    },
                )
            }
            Self::Promise {
                slot,
                ballot,
                voter,
                accepted,
            } => {
                let w = w
                    .put(NUMBER, &slot.to_be_bytes())
                    .put(BALLOT, &ballot_bytes(*ballot))
                    .put(VOTER, &voter.0);
                let w = match accepted {
                    Some((ballot, decree)) => w
                        .put(HIGHER, &ballot_bytes(*ballot))
                        .put(DECREE, &decree_bytes(decree)),
                    None => w,
                };
                (8, w)
            }
            Self::Refused {
                slot,
                ballot,
                promised,
            } => (
                9,
                w.put(NUMBER, &slot.to_be_bytes())
                    .put(BALLOT, &ballot_bytes(*ballot))
                    .put(HIGHER, &ballot_bytes(*promised)),
            ),
            Self::Accept {
                slot,
                ballot,
                decree,
            } => (
                10,
                w.put(NUMBER, &slot.to_be_bytes())
                    .put(BALLOT, &ballot_bytes(*ballot))
                    .put(DECREE, &decree_bytes(decree)),
            ),
            Self::Voted {
                slot,
                ballot,
                voter,
            } => (
                11,
                w.put(NUMBER, &slot.to_be_bytes())
                    .put(BALLOT, &ballot_bytes(*ballot))
                    .put(VOTER, &voter.0),
            ),
            Self::Disputed { runs } => (12, w.put(RUNS, &runs_bytes(runs))),
            Self::InUse { span, addresses } => {
                let bytes: Vec<u8> = addresses.iter().flat_map(|at| at.to_be_bytes()).collect();
                (13, w.put(SPAN, &span_bytes(*span)).put(ADDRESSES, &bytes))
            }
            Self::Inherit { number } => (14, w.put(NUMBER, &number.to_be_bytes())),
            Self::Inherits { number, willing } => (
                15,
                w.put(NUMBER, &number.to_be_bytes())
                    .put(FLAGS, &[u8::from(*willing)]),
            ),
        };
        [[kind].as_slice(), &fields.finish()].concat()
    }

    #[expect(
        clippy::too_many_lines,
        reason = "one line for each field of each message"
    )]
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, FieldError> {
        let (kind, rest) = bytes.split_first().ok_or(FieldError)?;
        let f = Fields::parse(rest)?;
        let number = || f.array::<8>(NUMBER).map(u64::from_be_bytes);
        let flags = || f.array::<1>(FLAGS).map(|[flags]| flags);
        let ballot = || one(f, BALLOT, take_ballot);
        let runs = || many(f, RUNS, CHUNK_RUNS_MAX, take_run);
        Ok(match kind {
            1 => Self::Digest {
                genesis: f.array(GENESIS).ok().map(GenesisId),
                range: one(f, RANGE, take_span)?,
                digest: f.array(DIGEST)?,
                votes: flags()? & 1 != 0,
                answer: flags()? & 2 != 0,
                agrees: flags()? & 4 != 0,
            },
            2 => Self::Ring {
                genesis: GenesisId(f.array(GENESIS)?),
                range: one(f, RANGE, take_span)?,
                council: one(f, COUNCIL, take_council)?,
                digest: f.array(DIGEST)?,
                number: number()?,
                part: f
                    .array::<4>(PART)
                    .map(|[a, b, c, d]| (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))?,
                runs: runs()?,
            },
            3 => Self::RingWanted,
            4 => Self::Want {
                number: number()?,
                spans: many(f, SPAN, CHUNK_RUNS_MAX, take_span)?,
                exact: flags()? & 1 != 0,
                giver_view: f.array(GIVER)?,
                taker_view: f.array(TAKER)?,
            },
            5 => Self::Given {
                number: number()?,
                runs: runs()?,
            },
            6 => Self::Denied {
                number: number()?,
                denial: denial_of(flags()?).ok_or(FieldError)?,
            },
            7 => Self::Prepare {
                slot: number()?,
                ballot: ballot()?,
                electors: u32::from_be_bytes(f.array(ELECTORS)?),
                about: f.array::<32>(ABOUT).ok().map(|bytes| {
                    let (mut peer, mut view) = ([0; 16], [0; 16]);
                    peer.copy_from_slice(&bytes[..16]);
                    view.copy_from_slice(&bytes[16..]);
                    (PeerId(peer), view)
                }),
            },
            8 => Self::Promise {
                slot: number()?,
                ballot: ballot()?,
                voter: PeerId(f.array(VOTER)?),
                accepted: match f.find(DECREE) {
                    Some(_) => Some((one(f, HIGHER, take_ballot)?, one(f, DECREE, take_decree)?)),
                    None => None,
                },
            },
            9 => Self::Refused {
                slot: number()?,
                ballot: ballot()?,
                promised: one(f, HIGHER, take_ballot)?,
            },
            10 => Self::Accept {
                slot: number()?,
                ballot: ballot()?,
                decree: one(f, DECREE, take_decree)?,
            },
            11 => Self::Voted {
                slot: number()?,
                ballot: ballot()?,
                voter: PeerId(f.array(VOTER)?),
            },
            12 => Self::Disputed { runs: runs()? },
            13 => Self::InUse {
                span: one(f, SPAN, take_span)?,
                addresses: many(f, ADDRESSES, ADDRESSES_MAX, |r| r.u32())?,
            },
            14 => Self::Inherit { number: number()? },
            15 => Self::Inherits {
                number: number()?,
                willing: flags()? & 1 != 0,
            },
            _ => return Err(FieldError),
        })
    }
}

/// Addresses in one answer about a dispute; more than a host has containers.
pub(crate) const ADDRESSES_MAX: usize = 4096;

fn one<T>(
    fields: Fields<'_>,
    kind: u8,
    take: impl FnMut(&mut Reader<'_>) -> Option<T>,
) -> Result<T, FieldError> {
    let mut found = many(fields, kind, 1, take)?;
    found.pop().ok_or(FieldError)
}

fn many<T>(
    fields: Fields<'_>,
    kind: u8,
    max: usize,
    take: impl FnMut(&mut Reader<'_>) -> Option<T>,
) -> Result<Vec<T>, FieldError> {
    take_all(fields.find(kind).ok_or(FieldError)?, max, take).ok_or(FieldError)
}

fn span_bytes(span: Span) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_span(&mut bytes, span);
    bytes
}

fn spans_bytes(spans: &[Span]) -> Vec<u8> {
    let mut bytes = Vec::new();
    spans.iter().for_each(|span| put_span(&mut bytes, *span));
    bytes
}

fn runs_bytes(runs: &[Run]) -> Vec<u8> {
    let mut bytes = Vec::new();
    runs.iter().for_each(|run| put_run(&mut bytes, run));
    bytes
}

fn council_bytes(council: &Council) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_council(&mut bytes, council);
    bytes
}

fn ballot_bytes(ballot: Ballot) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_ballot(&mut bytes, ballot);
    bytes
}

fn decree_bytes(decree: &Decree) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_decree(&mut bytes, decree);
    bytes
}

fn denial_byte(denial: Denial) -> u8 {
    match denial {
        Denial::NoSpace => 1,
        Denial::InUse => 2,
        Denial::Stale => 3,
        Denial::NoRing => 4,
    }
}

fn denial_of(byte: u8) -> Option<Denial> {
    Some(match byte {
        1 => Denial::NoSpace,
        2 => Denial::InUse,
        3 => Denial::Stale,
        4 => Denial::NoRing,
        _ => return None,
    })
}

#[cfg(test)]
mod tests;

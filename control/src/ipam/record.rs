//! What a peer publishes about addresses: its own ranges and fresh gifts, and in a record beside it how much is free.
//!
//! ```text
//!  parts 0..  fields: 1 genesis · 2 range · 3 council (part 0 only) · 4 runs
//!  part 1000  fields: 1 genesis · 5 free addresses (8)
//! ```
//!
//! Ownership and statistics are apart: a count that changes with every container moves nothing else. Bounds:
//! `RECORD_RUNS_MAX` runs in a part, `RECORD_PARTS_MAX` parts; what is beyond travels when peers compare.

use crate::fields::{FieldError, FieldWriter, Fields};
use crate::ipam::codec::{
    Reader, put_council, put_run, put_span, take_all, take_council, take_run, take_span,
};
use crate::ipam::council::Council;
use crate::ipam::ring::{GenesisId, Run};
use crate::ipam::span::Span;

/// Runs in one record: below 16 KiB with the council, even if all are disputed.
pub(crate) const RECORD_RUNS_MAX: usize = 64;
/// Records of one peer's ranges.
pub(crate) const RECORD_PARTS_MAX: usize = 32;
/// The part with the count of free addresses.
pub(crate) const FREE_PART: u16 = 1000;

/// One record's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RingRecord {
    pub(crate) genesis: GenesisId,
    pub(crate) range: Option<Span>,
    pub(crate) council: Option<Council>,
    pub(crate) runs: Vec<Run>,
    pub(crate) free: Option<u64>,
}

impl RingRecord {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut w = FieldWriter::default().put(1, &self.genesis.0);
        if let Some(range) = self.range {
            let mut bytes = Vec::new();
            put_span(&mut bytes, range);
            w = w.put(2, &bytes);
        }
        if let Some(council) = &self.council {
            let mut bytes = Vec::new();
            put_council(&mut bytes, council);
            w = w.put(3, &bytes);
        }
        if !self.runs.is_empty() {
            let mut bytes = Vec::new();
            self.runs.iter().for_each(|run| put_run(&mut bytes, run));
            w = w.put(4, &bytes);
        }
        if let Some(free) = self.free {
            w = w.put(5, &free.to_be_bytes());
        }
        w.finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, FieldError> {
        let fields = Fields::parse(bytes)?;
        let range = fields
            .find(2)
            .map(|bytes| take_span(&mut Reader::new(bytes)).ok_or(FieldError));
        let council = fields
            .find(3)
            .map(|bytes| take_council(&mut Reader::new(bytes)).ok_or(FieldError));
        let runs = fields
            .find(4)
            .map(|bytes| take_all(bytes, RECORD_RUNS_MAX, take_run).ok_or(FieldError));
        Ok(Self {
            genesis: GenesisId(fields.array(1)?),
            range: range.transpose()?,
            council: council.transpose()?,
            runs: runs.transpose()?.unwrap_or_default(),
            free: fields.array(5).ok().map(u64::from_be_bytes),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ipam::claim::{Claim, OWNERS_MAX, Version};
    use crate::ipam::council::{REMOVALS_MAX, VOTERS_MAX};
    use crate::peer::PeerId;

    #[test]
    fn the_largest_record_fits_and_comes_back() {
        let peers: Vec<PeerId> = (0..=255).map(|n| PeerId([n; 16])).collect();
        let mut council = Council::first(&peers[..VOTERS_MAX]);
        for (index, peer) in (2..).zip(&peers) {
            council = council.removing(*peer, 1, index);
        }
        assert_eq!(council.removed.len(), REMOVALS_MAX);
        let run = Run {
            span: Span::new(0, 9).unwrap(),
            claim: Claim::with_owners(Version::default(), peers[..OWNERS_MAX].to_vec()).unwrap(),
        };
        let record = RingRecord {
            genesis: GenesisId([1; 16]),
            range: Span::new(0, 99),
            council: Some(council),
            runs: vec![run; RECORD_RUNS_MAX],
            free: Some(3),
        };

        let bytes = record.encode();

        assert!(bytes.len() <= 16 * 1024, "{} bytes", bytes.len());
        assert_eq!(RingRecord::decode(&bytes), Ok(record));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = RingRecord::decode(&bytes);
        }
    }
}

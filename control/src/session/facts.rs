//! What the two ends of a session handshake tell each other, sealed in its second and third message.

use weft_engine::session::CipherSuite;

use crate::config::{BootId, CipherCost};
use crate::fields::{FieldError, FieldWriter, Fields};
use crate::link::handshake::{encode_ciphers, parse_ciphers, suite_byte, suite_from_byte};

mod field {
    pub(super) const BOOT_ID: u8 = 1;
    pub(super) const SEQUENCE: u8 = 2;
    pub(super) const INDEX: u8 = 3;
    pub(super) const LANES: u8 = 4;
    pub(super) const CIPHERS: u8 = 5;
    pub(super) const SUITE: u8 = 6;
}

/// Lanes that a peer may have; the engine's bound.
const LANES_MAX: u8 = 16;

/// One end's facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) boot_id: BootId,
    /// Rises with every handshake of this process with this peer, so that a delayed one cannot replace a newer.
    pub(crate) sequence: u64,
    /// What the other end is to write into its datagrams.
    pub(crate) index: u32,
    pub(crate) lanes: u8,
    pub(crate) ciphers: Vec<CipherCost>,
    /// The initiator's choice; only in the third message.
    pub(crate) suite: Option<CipherSuite>,
}

impl Facts {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let fields = FieldWriter::default()
            .put(field::BOOT_ID, &self.boot_id.0)
            .put(field::SEQUENCE, &self.sequence.to_be_bytes())
            .put(field::INDEX, &self.index.to_be_bytes())
            .put(field::LANES, &[self.lanes])
            .put(field::CIPHERS, &encode_ciphers(&self.ciphers));
        match self.suite {
            Some(suite) => fields.put(field::SUITE, &[suite_byte(suite)]).finish(),
            None => fields.finish(),
        }
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, FieldError> {
        let fields = Fields::parse(bytes)?;
        let [lanes] = fields.array(field::LANES)?;
        if !(1..=LANES_MAX).contains(&lanes) {
            return Err(FieldError);
        }
        let suite = match fields.find(field::SUITE) {
            None => None,
            Some([byte]) => Some(suite_from_byte(*byte).ok_or(FieldError)?),
            Some(_) => return Err(FieldError),
        };
        Ok(Self {
            boot_id: BootId(fields.array(field::BOOT_ID)?),
            sequence: u64::from_be_bytes(fields.array(field::SEQUENCE)?),
            index: u32::from_be_bytes(fields.array(field::INDEX)?),
            lanes,
            ciphers: parse_ciphers(fields.find(field::CIPHERS).ok_or(FieldError)?),
            suite,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(suite: Option<CipherSuite>) -> Facts {
        let ciphers = vec![CipherCost {
            suite: CipherSuite::Aes256Gcm,
            ns_per_kib: 300,
        }];
        Facts {
            boot_id: BootId(*b"8 bytes!"),
            sequence: 7,
            index: 0xdead_beef,
            lanes: 4,
            ciphers,
            suite,
        }
    }

    #[test]
    fn facts_are_understood() {
        for suite in [None, Some(CipherSuite::ChaCha20Poly1305)] {
            assert_eq!(Facts::parse(&facts(suite).encode()), Ok(facts(suite)));
        }
    }

    #[test]
    fn impossible_facts_are_refused() {
        for lanes in [0, 17] {
            let bytes = Facts {
                lanes,
                ..facts(None)
            }
            .encode();
            assert_eq!(Facts::parse(&bytes), Err(FieldError));
        }
        let bytes = facts(None).encode();
        assert_eq!(Facts::parse(&bytes[..bytes.len() - 1]), Err(FieldError));
        assert_eq!(Facts::parse(b""), Err(FieldError));
    }
}

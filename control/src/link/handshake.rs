//! What a peer says of itself when a link comes up.
//!
//! ```text
//!  dialler                                      acceptor
//!    preamble ────────────────────────────────────►        nothing is sent to who is no weft
//!    ◄──────────────────────────────────── preamble
//!    handshake 1 (nothing) ───────────────────────►        fails if the network is another
//!    ◄───────────────────────── handshake 2 (nothing)
//!    handshake 3 (HELLO) ─────────────────────────►        fails if the secret is another
//!    ◄───────────────────────────── record (HELLO)         proves the secret to the dialler
//! ```
//!
//! Neither end says anything of itself, its static key apart, before the other has proved the secret; the dialler
//! proves it first. The HELLO's signing key is bound to the static key by a signature and both by the PeerId.

use std::collections::BTreeMap;

use weft_engine::session::CipherSuite;

use crate::config::{BootId, CipherCost, NodeConfig};
use crate::fields::{FieldError, FieldWriter, Fields};
use crate::peer::{Identity, Nickname, PeerId, PeerName, PublicKeys};
use crate::secret::NetworkId;

/// Lanes that a peer may have; the engine's bound.
const WORKERS_MAX: u8 = 16;
/// Longest version text that is kept.
const VERSION_LEN_MAX: usize = 64;

/// A capability: links to its targets only, and would be cut off if a link of it were ended for being one too many.
pub(crate) const CAPABILITY_APART: u64 = 1;

mod field {
    pub(super) const SIGNING: u8 = 1;
    pub(super) const SIGNATURE: u8 = 2;
    pub(super) const NAME: u8 = 3;
    pub(super) const NICKNAME: u8 = 4;
    pub(super) const VERSION: u8 = 5;
    pub(super) const CAPABILITIES: u8 = 6;
    pub(super) const BOOT_ID: u8 = 7;
    pub(super) const INCARNATION: u8 = 8;
    pub(super) const UDP_PORT: u8 = 9;
    pub(super) const WORKERS: u8 = 10;
    pub(super) const CIPHERS: u8 = 11;
    pub(super) const EXCHANGE: u8 = 12;
    pub(super) const MTU: u8 = 13;
}

/// What a peer says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) peer_id: PeerId,
    pub(crate) keys: PublicKeys,
    pub(crate) name: PeerName,
    pub(crate) nickname: Nickname,
    pub(crate) version: String,
    /// What the peer can do beyond the protocol version, and how it wants to be treated.
    pub(crate) capabilities: u64,
    pub(crate) boot_id: BootId,
    pub(crate) incarnation: u64,
    pub(crate) udp_port: u16,
    pub(crate) workers: u8,
    pub(crate) ciphers: Vec<CipherCost>,
    /// Of its containers, in bytes; older ones do not say.
    pub(crate) mtu: Option<u16>,
}

/// Why a HELLO is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HelloError {
    #[error("introduces itself in a form we do not understand")]
    Malformed,
    #[error("its signing key does not vouch for its static key")]
    Unbound,
}

impl From<FieldError> for HelloError {
    fn from(_: FieldError) -> Self {
        Self::Malformed
    }
}

impl Hello {
    /// What we say; the same on every link of this process.
    pub(crate) fn encode_ours(config: &NodeConfig, identity: &Identity) -> Vec<u8> {
        put_facts(FieldWriter::default(), config, identity)
            .put(field::SIGNATURE, &identity.bind(&config.network_id))
            .put(field::INCARNATION, &config.incarnation.to_be_bytes())
            .finish()
    }

    /// What our PEER record says: the same and both keys. Its header has the incarnation, its signature binds them.
    pub(crate) fn encode_record(config: &NodeConfig, identity: &Identity) -> Vec<u8> {
        put_facts(FieldWriter::default(), config, identity)
            .put(field::EXCHANGE, &identity.keys().exchange)
            .finish()
    }

    /// Reads and checks what the owner of the static key `exchange` says.
    pub(crate) fn parse(
        bytes: &[u8],
        exchange: [u8; 32],
        network: &NetworkId,
    ) -> Result<Self, HelloError> {
        let fields = Fields::parse(bytes)?;
        let keys = PublicKeys {
            signing: fields.array(field::SIGNING)?,
            exchange,
        };
        if !keys.is_bound_by(network, &fields.array(field::SIGNATURE)?) {
            return Err(HelloError::Unbound);
        }
        let incarnation = u64::from_be_bytes(fields.array(field::INCARNATION)?);
        Self::read(fields, keys, incarnation)
    }

    /// Reads the body of a PEER record of this incarnation; that its keys are its origin's, the caller checks.
    pub(crate) fn parse_record(bytes: &[u8], incarnation: u64) -> Result<Self, HelloError> {
        let fields = Fields::parse(bytes)?;
        let keys = PublicKeys {
            signing: fields.array(field::SIGNING)?,
            exchange: fields.array(field::EXCHANGE)?,
        };
        Self::read(fields, keys, incarnation)
    }

    fn read(fields: Fields<'_>, keys: PublicKeys, incarnation: u64) -> Result<Self, HelloError> {
        let [workers] = fields.array(field::WORKERS)?;
        let udp_port = u16::from_be_bytes(fields.array(field::UDP_PORT)?);
        if !(1..=WORKERS_MAX).contains(&workers) || udp_port == 0 {
            return Err(HelloError::Malformed);
        }
        let version = fields.text(field::VERSION)?;
        if version.len() > VERSION_LEN_MAX || version.contains(|c: char| c.is_control()) {
            return Err(HelloError::Malformed);
        }
        Ok(Self {
            peer_id: PeerId::of(&keys),
            keys,
            name: PeerName(fields.array(field::NAME)?),
            nickname: fields
                .text(field::NICKNAME)?
                .parse()
                .map_err(|_| HelloError::Malformed)?,
            version: version.to_owned(),
            capabilities: u64::from_be_bytes(fields.array(field::CAPABILITIES)?),
            boot_id: BootId(fields.array(field::BOOT_ID)?),
            incarnation,
            udp_port,
            workers,
            ciphers: parse_ciphers(fields.find(field::CIPHERS).ok_or(HelloError::Malformed)?),
            mtu: fields.array(field::MTU).ok().map(u16::from_be_bytes),
        })
    }
}

fn put_facts(fields: FieldWriter, config: &NodeConfig, identity: &Identity) -> FieldWriter {
    let name = config.name.unwrap_or_else(|| identity.peer_id().name());
    let capabilities = if config.discovery {
        0
    } else {
        CAPABILITY_APART
    };
    fields
        .put(field::SIGNING, &identity.keys().signing)
        .put(field::NAME, &name.0)
        .put(field::NICKNAME, config.nickname.as_str().as_bytes())
        .put(field::VERSION, env!("CARGO_PKG_VERSION").as_bytes())
        .put(field::CAPABILITIES, &capabilities.to_be_bytes())
        .put(field::BOOT_ID, &config.boot_id.0)
        .put(field::UDP_PORT, &config.port.to_be_bytes())
        .put(field::WORKERS, &[config.workers])
        .put(field::CIPHERS, &encode_ciphers(&config.ciphers))
        .put(field::MTU, &config.mtu.to_be_bytes())
}

/// The number of a cipher on the wire.
pub(crate) fn suite_byte(suite: CipherSuite) -> u8 {
    match suite {
        CipherSuite::ChaCha20Poly1305 => 1,
        CipherSuite::Aes256Gcm => 2,
    }
}

/// The cipher of that number.
pub(crate) fn suite_from_byte(byte: u8) -> Option<CipherSuite> {
    match byte {
        1 => Some(CipherSuite::ChaCha20Poly1305),
        2 => Some(CipherSuite::Aes256Gcm),
        _ => None,
    }
}

/// Each cipher's number and cost, 5 bytes each.
pub(crate) fn encode_ciphers(ciphers: &[CipherCost]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(5 * ciphers.len());
    for cipher in ciphers {
        bytes.push(suite_byte(cipher.suite));
        bytes.extend_from_slice(&cipher.ns_per_kib.to_be_bytes());
    }
    bytes
}

/// Reads what [`encode_ciphers`] wrote; ciphers that we do not know are left out, one said twice counts once.
pub(crate) fn parse_ciphers(bytes: &[u8]) -> Vec<CipherCost> {
    let mut known = BTreeMap::new();
    for entry in bytes.chunks_exact(5) {
        let [number, cost @ ..] = entry else { continue };
        if let (Some(suite), Ok(cost)) = (suite_from_byte(*number), <[u8; 4]>::try_from(cost)) {
            known.entry(suite).or_insert(u32::from_be_bytes(cost));
        }
    }
    known
        .into_iter()
        .map(|(suite, ns_per_kib)| CipherCost { suite, ns_per_kib })
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::RekeyConfig;
    use crate::random::Randomness;
    use crate::secret::Secrets;

    pub(crate) fn config(nickname: &str) -> NodeConfig {
        NodeConfig {
            network_id: NetworkId::of("weft"),
            network: "weft".to_owned(),
            secrets: Secrets::open(),
            name: None,
            nickname: nickname.parse().unwrap(),
            port: 6783,
            workers: 2,
            ciphers: vec![CipherCost {
                suite: CipherSuite::ChaCha20Poly1305,
                ns_per_kib: 700,
            }],
            mtu: 1376,
            discovery: true,
            relay: true,
            boot_id: BootId(*b"boot-one"),
            incarnation: 3,
            targets: Vec::new(),
            rekey: RekeyConfig::default(),
        }
    }

    #[test]
    fn a_hello_is_understood() {
        let identity = Identity::generate(&mut Randomness::seeded(1));
        let config = config("host1");

        let bytes = Hello::encode_ours(&config, &identity);
        let hello = Hello::parse(&bytes, identity.keys().exchange, &config.network_id).unwrap();

        assert_eq!(hello.peer_id, identity.peer_id());
        assert_eq!(hello.name, identity.peer_id().name());
        assert_eq!(hello.nickname, config.nickname);
        assert_eq!((hello.boot_id, hello.incarnation), (config.boot_id, 3));
        assert_eq!((hello.udp_port, hello.workers), (6783, 2));
        assert_eq!(hello.ciphers, config.ciphers);
        assert_eq!(hello.mtu, Some(1376));
        assert!(bytes.len() < 500, "{} bytes", bytes.len());
    }

    #[test]
    fn another_static_key_or_network_is_not_believed() {
        let identity = Identity::generate(&mut Randomness::seeded(1));
        let config = config("host1");
        let bytes = Hello::encode_ours(&config, &identity);

        assert_eq!(
            Hello::parse(&bytes, [9; 32], &config.network_id),
            Err(HelloError::Unbound)
        );
        let other = NetworkId::of("other");
        assert_eq!(
            Hello::parse(&bytes, identity.keys().exchange, &other),
            Err(HelloError::Unbound)
        );
    }

    #[test]
    fn unknown_ciphers_are_left_out() {
        let bytes = [[9, 0, 0, 0, 1], [2, 0, 0, 1, 0], [2, 0, 0, 0, 0]].concat();
        assert_eq!(
            parse_ciphers(&bytes),
            [CipherCost {
                suite: CipherSuite::Aes256Gcm,
                ns_per_kib: 256
            }]
        );
        assert_eq!(parse_ciphers(b"\x01\x00"), []);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn a_damaged_hello_never_panics(at in any::<prop::sample::Index>(), bit in 0_u8..8, cut in any::<bool>()) {
            let identity = Identity::generate(&mut Randomness::seeded(1));
            let config = config("host1");
            let mut bytes = Hello::encode_ours(&config, &identity);
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] ^= 1 << bit }
            let _ = Hello::parse(&bytes, identity.keys().exchange, &config.network_id);
        }
    }
}

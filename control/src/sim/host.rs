//! What a host of a simulation is.

use weft_engine::session::CipherSuite;
use zeroize::Zeroizing;

use crate::config::{CipherCost, RekeyConfig};
use crate::secret::{Credential, NetworkId, Secrets};

/// How a host is started.
pub(crate) struct HostSpec {
    pub(crate) nickname: &'static str,
    pub(crate) secrets: Secrets,
    pub(crate) targets: Vec<String>,
    pub(crate) network: &'static str,
    pub(crate) ciphers: Vec<CipherCost>,
    pub(crate) rekey: RekeyConfig,
}

impl HostSpec {
    pub(crate) fn new(nickname: &'static str) -> Self {
        Self {
            nickname,
            secrets: Secrets::open(),
            targets: Vec::new(),
            network: "weft",
            ciphers: vec![CipherCost {
                suite: CipherSuite::ChaCha20Poly1305,
                ns_per_kib: 700,
            }],
            rekey: RekeyConfig::default(),
        }
    }

    pub(crate) fn dialling(self, targets: &[&str]) -> Self {
        Self {
            targets: targets.iter().map(ToString::to_string).collect(),
            ..self
        }
    }

    pub(crate) fn with_secrets(self, secrets: Secrets) -> Self {
        Self { secrets, ..self }
    }
}

/// Secrets without the cost of stretching: tokens made from numbers.
pub(crate) fn tokens(numbers: &[u8]) -> Secrets {
    let credentials: Vec<_> = numbers
        .iter()
        .map(|n| Credential::Token(Zeroizing::new([*n; 32])))
        .collect();
    Secrets::stretch(&credentials, &NetworkId::of("weft")).unwrap()
}

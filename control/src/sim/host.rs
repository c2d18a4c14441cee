//! What a host of a simulation is: how it is started, and what there is of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use weft_engine::session::CipherSuite;
use zeroize::Zeroizing;

use super::engine::EngineStandIn;
use super::underlay::NatId;
use crate::api::{ApiError, PingReply};
use crate::config::{CipherCost, NodeConfig, RekeyConfig};
use crate::dns::names::Entry;
use crate::node::Node;
use crate::node::exchange::Record;
use crate::node::notice::Notice;
use crate::peer::{Identity, PeerId};
use crate::secret::{Credential, NetworkId, Secrets};

/// How a host is started.
pub(crate) struct HostSpec {
    pub(crate) nickname: String,
    pub(crate) secrets: Secrets,
    pub(crate) targets: Vec<String>,
    pub(crate) network: &'static str,
    pub(crate) ciphers: Vec<CipherCost>,
    pub(crate) rekey: RekeyConfig,
    pub(crate) discovery: bool,
    pub(crate) relay: bool,
    pub(crate) mtu: u16,
    /// The NAT that it stands behind.
    pub(crate) behind: Option<NatId>,
}

impl HostSpec {
    pub(crate) fn new(nickname: impl Into<String>) -> Self {
        Self {
            nickname: nickname.into(),
            secrets: Secrets::open(),
            targets: Vec::new(),
            network: "weft",
            ciphers: vec![CipherCost {
                suite: CipherSuite::ChaCha20Poly1305,
                ns_per_kib: 700,
            }],
            rekey: RekeyConfig::default(),
            discovery: true,
            relay: true,
            mtu: 1376,
            behind: None,
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

    /// With `--no-discovery`.
    pub(crate) fn without_discovery(self) -> Self {
        Self {
            discovery: false,
            ..self
        }
    }

    /// With `--no-relay`.
    pub(crate) fn without_relaying(self) -> Self {
        Self {
            relay: false,
            ..self
        }
    }

    pub(crate) fn behind(self, nat: NatId) -> Self {
        Self {
            behind: Some(nat),
            ..self
        }
    }
}

/// Secrets without the cost of stretching: tokens made from numbers.
pub(crate) fn tokens(numbers: &[u8]) -> Secrets {
    let credentials: Vec<_> = numbers
        .iter()
        .map(|n| Credential::Token(Zeroizing::new([*n; 32])))
        .collect();
    Secrets::stretch(&credentials, &NetworkId::of("weft")).expect("a token is a secret")
}

/// What a host has sent since it was added.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    /// Messages on links, and their bytes with TCP and IP headers.
    pub(crate) link_messages: u64,
    pub(crate) link_bytes: u64,
    /// Path probes and their answers, with UDP and IP headers.
    pub(crate) probes: u64,
    pub(crate) probe_bytes: u64,
    /// Messages of control inside sessions.
    pub(crate) session_messages: u64,
    pub(crate) session_bytes: u64,
    /// Datagrams passed on for others.
    pub(crate) relayed: u64,
}

/// What a host's store keeps when its process ends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) targets: Option<Vec<String>>,
    pub(crate) incarnation: u64,
}

impl Stored {
    pub(super) fn write(&mut self, record: Record) {
        match record {
            Record::Targets(targets) => self.targets = Some(targets),
            Record::Incarnation(incarnation) => {
                self.incarnation = self.incarnation.max(incarnation);
            }
        }
    }
}

/// One host.
pub(crate) struct Host {
    pub(super) node: Option<Node>,
    /// Rises with each start and each end: what was meant for another process is not delivered.
    pub(super) life: u64,
    pub(super) identity: Identity,
    pub(super) config: NodeConfig,
    pub(crate) address: SocketAddr,
    pub(super) engine: EngineStandIn,
    /// The FIB by hosts: to whom a frame for each goes next.
    pub(super) next_hosts: Vec<u16>,
    /// The tick that is in the queue.
    pub(super) tick_at: Option<Instant>,
    /// Its open TCP connections.
    pub(super) wires: BTreeSet<usize>,
    /// What it answers for, by origin.
    pub(crate) names: BTreeMap<PeerId, Arc<[Entry]>>,
    pub(crate) notices: Vec<Notice>,
    pub(crate) answers: Vec<Result<(), String>>,
    pub(crate) pongs: Vec<Result<PingReply, ApiError>>,
    pub(crate) sent: Sent,
    pub(crate) stored: Stored,
    /// Writes that are not durable yet, oldest first.
    pub(super) unwritten: VecDeque<Record>,
}

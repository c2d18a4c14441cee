//! A node whose outputs are watched: what no input may ever bring about.
//!
//! * A connection is closed once, and nothing is sent on it afterwards.
//! * The engine is told only what makes sense to it: no slot twice, no epoch twice, none that is not there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use weft_control::config::{BootId, CipherCost, NodeConfig, RekeyConfig};
use weft_control::node::Node;
use weft_control::node::exchange::{DialId, Input, LinkId, Output};
use weft_control::peer::Identity;
use weft_control::random::Randomness;
use weft_control::secret::{Credential, NetworkId, Secrets, TOKEN_PREFIX};
use weft_engine::command::{Command, PeerSlot};
use weft_engine::config::{EPOCHS_MAX, MESSAGE_LEN_MAX};
use weft_engine::session::CipherSuite;

/// Outputs that one input may have: a few for each link and peer of a small network.
const OUTPUTS_MAX: usize = 64;

/// How a node is started; with a secret unless `open`.
pub fn config(nickname: &str, open: bool, targets: &[&str]) -> NodeConfig {
    let network_id = NetworkId::of("weft");
    let token = format!("{TOKEN_PREFIX}{}", "5a".repeat(32));
    let token = Credential::parse(&token).expect("a token");
    let secrets = Secrets::stretch(&[token], &network_id).expect("a token is not stretched");
    NodeConfig {
        network_id,
        network: "weft".to_owned(),
        secrets: if open { Secrets::open() } else { secrets },
        name: None,
        nickname: nickname.parse().expect("a nickname"),
        port: 6783,
        workers: 2,
        ciphers: vec![CipherCost {
            suite: CipherSuite::ChaCha20Poly1305,
            ns_per_kib: 700,
        }],
        mtu: 1376,
        discovery: true,
        relay: true,
        boot_id: BootId([nickname.as_bytes()[0]; 8]),
        incarnation: 3,
        targets: targets.iter().map(ToString::to_string).collect(),
        rekey: RekeyConfig::default(),
    }
}

/// The identity of this number, the same every time.
pub fn identity(number: u64) -> Identity {
    Identity::generate(&mut Randomness::seeded(number))
}

/// A node and what it wants done.
pub struct Watched {
    /// The node.
    pub node: Node,
    /// Bytes to be sent, by connection.
    pub sent: VecDeque<(LinkId, Bytes)>,
    /// Messages to be carried inside the session.
    pub carried: VecDeque<(PeerSlot, Bytes)>,
    /// Connections to be made.
    pub dials: VecDeque<DialId>,
    /// Live epochs: slot and the peer's name for each, by ours.
    pub epochs: BTreeMap<u32, (PeerSlot, u32)>,
    /// Epochs that were installed and not reported yet.
    pub installed: VecDeque<(PeerSlot, u32)>,
    /// The epoch in use, by slot.
    pub active: BTreeMap<PeerSlot, u32>,
    /// Connections that the node closed.
    pub closed: BTreeSet<LinkId>,
    /// Peers in the engine's table.
    pub peers: BTreeSet<PeerSlot>,
}

impl Watched {
    /// Starts a node.
    pub fn new(config: NodeConfig, identity: Identity, seed: u64, now: Instant) -> Self {
        Self {
            node: Node::new(config, identity, Randomness::seeded(seed), now),
            sent: VecDeque::new(),
            carried: VecDeque::new(),
            dials: VecDeque::new(),
            epochs: BTreeMap::new(),
            installed: VecDeque::new(),
            active: BTreeMap::new(),
            closed: BTreeSet::new(),
            peers: BTreeSet::new(),
        }
    }

    /// Feeds one input in and looks at all that comes out.
    pub fn input(&mut self, input: Input, now: Instant) {
        self.node.handle(input, now);
        let mut count = 0;
        while let Some(output) = self.node.poll_output() {
            count += 1;
            match output {
                Output::Dial { dial, .. } => self.dials.push_back(dial),
                Output::Send { link, data } => {
                    assert!(
                        !self.closed.contains(&link),
                        "sent on a connection that was closed"
                    );
                    self.sent.push_back((link, data));
                }
                Output::Close { link } => {
                    assert!(self.closed.insert(link), "closed twice");
                }
                Output::Engine(command) => self.command(command),
                Output::Persist { .. }
                | Output::Answer { .. }
                | Output::Pong { .. }
                | Output::CountTraffic
                | Output::Ipam(_)
                | Output::Names { .. }
                | Output::Notice(_) => {}
            }
        }
        assert!(count <= OUTPUTS_MAX, "{count} outputs of one input");
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::AddPeer { slot, .. } => assert!(self.peers.insert(slot), "slot in use"),
            Command::RemovePeer { slot } => {
                assert!(self.peers.remove(&slot), "no such slot");
                self.epochs.retain(|_, (of, _)| *of != slot);
                self.active.remove(&slot);
            }
            Command::InstallSession(keys) => {
                let (slot, index) = (keys.slot, keys.local_index);
                assert!(self.peers.contains(&slot), "an epoch of nobody");
                let epoch = (slot, keys.remote_index);
                assert!(self.epochs.insert(index, epoch).is_none(), "index in use");
                let count = self.epochs.values().filter(|(of, _)| *of == slot).count();
                assert!(count <= EPOCHS_MAX, "{count} epochs of one peer");
                self.installed.push_back((slot, index));
            }
            Command::ActivateSession { slot, local_index } => {
                assert!(self.epochs.contains_key(&local_index), "no such epoch");
                self.active.insert(slot, local_index);
            }
            Command::RemoveSession { slot, local_index } => {
                assert!(self.epochs.remove(&local_index).is_some(), "no such epoch");
                if self.active.get(&slot) == Some(&local_index) {
                    self.active.remove(&slot);
                }
            }
            Command::SendMessage { slot, message } => {
                assert!(message.len() <= MESSAGE_LEN_MAX, "too long for a datagram");
                self.carried.push_back((slot, message));
            }
            Command::SetCandidates { addresses, .. } => {
                assert!(addresses.len() <= weft_engine::config::CANDIDATES_MAX);
            }
            Command::SetLabel(_)
            | Command::SetFib(_)
            | Command::SetNeighbours(_)
            | Command::SetLimits(_)
            | Command::SetDisputed(_)
            | Command::SetFlow { .. }
            | Command::SetGroupKey(_)
            | Command::RemoveGroupKey { .. }
            | Command::Bench { .. } => {}
        }
    }

    /// A connection was made.
    pub fn open(&mut self, link: LinkId, dial: Option<DialId>, remote: &str, now: Instant) {
        let remote: SocketAddr = remote.parse().expect("an address");
        let local = "192.0.2.1:6783".parse().expect("an address");
        let opened = Input::LinkOpened {
            link,
            dial,
            remote,
            local,
        };
        self.input(opened, now);
    }

    /// Bytes came.
    pub fn data(&mut self, link: LinkId, data: &[u8], now: Instant) {
        let data = Bytes::copy_from_slice(data);
        self.input(Input::LinkData { link, data }, now);
    }

    /// What the node sent on a connection since last asked.
    pub fn sent_on(&mut self, link: LinkId) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.sent.retain(|(on, data)| {
            if *on == link {
                bytes.extend_from_slice(data);
            }
            *on != link
        });
        bytes
    }

    /// Does what is due until then.
    pub fn tick_until(&mut self, until: Instant) {
        let mut same = 0;
        while let Some(due) = self.node.deadline().filter(|due| *due <= until) {
            self.input(Input::Tick, due);
            same = if self.node.deadline() == Some(due) {
                same + 1
            } else {
                0
            };
            assert!(same < 8, "would spin");
        }
    }
}

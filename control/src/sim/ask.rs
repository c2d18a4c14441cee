//! What tests ask of the hosts of a simulation.

use std::collections::BTreeMap;

use weft_engine::bridge::NeighbourTable;

use super::datagrams::Payload;
use super::frames::FrameId;
use super::host::Stored;
use super::{HostId, Sim};
use crate::api::{EngineStatus, Status};
use crate::node::Node;
use crate::node::exchange::{Input, RequestId};
use crate::peer::Identity;

impl Sim {
    /// Every host sends one datagram to each peer that it has a session with.
    pub(crate) fn traffic(&mut self) {
        for host in 0..self.hosts.len() {
            let slots: Vec<_> = self.hosts[host].engine.peers.keys().copied().collect();
            for slot in slots {
                self.send_datagram(host, slot, Payload::Frame(FrameId::default()));
            }
        }
    }

    /// The attachments as the host's engine has them.
    pub(crate) fn neighbours(&self, host: HostId) -> &NeighbourTable {
        &self.hosts[host].engine.neighbours
    }

    pub(crate) fn identity(&self, host: HostId) -> Identity {
        self.hosts[host].identity.clone()
    }

    /// Ends a host, and starts it again at the same address with another identity: `weft reset` and `weft launch`.
    pub(crate) fn reset(&mut self, host: HostId) {
        self.kill(host);
        let identity = Identity::generate(&mut self.random);
        let entry = &mut self.hosts[host];
        (entry.identity, entry.stored) = (identity, Stored::default());
        entry.config.incarnation = 0;
        self.start(host);
    }

    pub(crate) fn node(&self, host: HostId) -> Option<&Node> {
        self.hosts[host].node.as_ref()
    }

    pub(crate) fn status(&self, host: HostId) -> Option<Status> {
        let node = self.node(host)?;
        Some(node.status(EngineStatus::default(), self.now))
    }

    /// Whether `host` shows an established connection to the one of that nickname.
    pub(crate) fn established(&self, host: HostId, nickname: &str) -> bool {
        self.status(host).is_some_and(|status| {
            status
                .connections
                .iter()
                .any(|line| line.state == "established" && line.nickname == nickname)
        })
    }

    /// Links that are up between two hosts.
    pub(crate) fn links_to(&self, host: HostId, nickname: &str) -> usize {
        let status = self.status(host);
        let lines = status.iter().flat_map(|status| &status.connections);
        lines
            .filter(|line| line.nickname == nickname && !line.detail.contains("lost"))
            .count()
    }

    pub(crate) fn rekeys(&self, host: HostId) -> u64 {
        self.status(host).map_or(0, |status| {
            let rekeys = status.connections.iter().map(|line| line.rekeys);
            rekeys.max().unwrap_or(0)
        })
    }

    pub(crate) fn epochs(&self, host: HostId) -> usize {
        self.hosts[host].engine.epochs.len()
    }

    pub(crate) fn connect(&mut self, host: HostId, peers: &[&str], replace: bool) {
        let peers = peers.iter().map(ToString::to_string).collect();
        self.input(
            host,
            Input::Connect {
                request: RequestId(1),
                peers,
                replace,
            },
        );
    }

    pub(crate) fn counters(&self, host: HostId) -> BTreeMap<String, u64> {
        self.node(host).map(Node::counters).unwrap_or_default()
    }
}

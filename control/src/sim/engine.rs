//! The engine stand-in: installs epochs, probes, carries messages; datagrams are lost while the way is cut.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use weft_engine::command::{Command, Event, PeerSlot, SessionKeys};
use weft_engine::path::PathStatus;

use super::{HostId, Sim, SimEvent};
use crate::node::exchange::Input;

/// How long the stand-in takes to install an epoch.
const INSTALL_TIME: Duration = Duration::from_micros(200);
/// How often the stand-in probes a peer that does not answer.
pub(super) const PROBE_PERIOD: Duration = Duration::from_millis(500);
/// Silence after which the stand-in says that a path is down.
const PATH_TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Default)]
pub(super) struct EngineStandIn {
    pub(super) peers: BTreeSet<PeerSlot>,
    pub(super) epochs: BTreeMap<u32, Arc<SessionKeys>>,
    pub(super) confirmed: BTreeSet<u32>,
    pub(super) active: BTreeMap<PeerSlot, u32>,
    pub(super) candidates: BTreeMap<PeerSlot, Arc<[SocketAddr]>>,
    pub(super) heard: BTreeMap<PeerSlot, Instant>,
    pub(super) up: BTreeSet<PeerSlot>,
    pub(super) generation: u64,
}

impl Sim {
    pub(super) fn command(&mut self, host: HostId, command: Command) {
        let (now, life) = (self.now, self.hosts[host].life);
        let engine = &mut self.hosts[host].engine;
        match command {
            Command::AddPeer { slot, .. } => {
                assert!(engine.peers.insert(slot), "slot {slot:?} is in use")
            }
            Command::RemovePeer { slot } => {
                assert!(engine.peers.remove(&slot), "slot {slot:?} is free");
                engine.epochs.retain(|_, keys| keys.slot != slot);
                engine.active.remove(&slot);
                engine.candidates.remove(&slot);
                engine.up.remove(&slot);
            }
            Command::InstallSession(keys) => {
                assert!(
                    engine.peers.contains(&keys.slot),
                    "a session of a peer that was not added"
                );
                let (slot, local_index) = (keys.slot, keys.local_index);
                assert!(
                    engine.epochs.insert(local_index, keys).is_none(),
                    "index in use"
                );
                assert!(
                    engine
                        .epochs
                        .values()
                        .filter(|keys| keys.slot == slot)
                        .count()
                        <= 4,
                    "too many epochs"
                );
                let input = Input::Engine(Event::SessionInstalled { slot, local_index });
                self.at(now + INSTALL_TIME, SimEvent::Input { host, life, input });
            }
            Command::ActivateSession { slot, local_index } => {
                assert!(
                    engine.epochs.contains_key(&local_index),
                    "an epoch that was not installed"
                );
                engine.active.insert(slot, local_index);
                self.datagram_to(host, slot, None);
            }
            Command::RemoveSession { slot, local_index } => {
                assert!(
                    engine.epochs.remove(&local_index).is_some(),
                    "an epoch that is not there"
                );
                engine.confirmed.remove(&local_index);
                if engine.active.get(&slot) == Some(&local_index) {
                    engine.active.remove(&slot);
                }
            }
            Command::SetCandidates { slot, addresses } => {
                engine.candidates.insert(slot, addresses);
            }
            Command::SetFib(fib) => {
                assert!(fib.generation > engine.generation, "generations rise");
                assert_eq!(
                    fib.flood.iter().copied().collect::<BTreeSet<_>>(),
                    engine.peers
                );
                engine.generation = fib.generation;
            }
            Command::SendMessage { slot, message } => self.datagram_to(host, slot, Some(message)),
            Command::SetLabel(_)
            | Command::SetNeighbours(_)
            | Command::SetLimits(_)
            | Command::SetGroupKey(_)
            | Command::RemoveGroupKey { .. }
            | Command::Bench { .. } => {}
        }
    }

    pub(super) fn datagram_to(&mut self, host: HostId, slot: PeerSlot, message: Option<Bytes>) {
        let latency = self.latency();
        let engine = &self.hosts[host].engine;
        let Some(keys) = engine
            .active
            .get(&slot)
            .and_then(|index| engine.epochs.get(index))
            .cloned()
        else {
            return;
        };
        let Some(to) = engine
            .candidates
            .get(&slot)
            .and_then(|addresses| addresses.first())
            .copied()
        else {
            return;
        };
        let from = self.hosts[host].address;
        let index = keys.remote_index;
        self.at(
            self.now + latency,
            SimEvent::Datagram {
                from,
                to,
                index,
                keys,
                message,
            },
        );
    }

    pub(super) fn datagram(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        index: u32,
        keys: &SessionKeys,
        message: Option<Bytes>,
    ) {
        let (Some(sender), Some(host)) = (self.host_at(from.ip()), self.host_at(to.ip())) else {
            return;
        };
        if self.is_cut(sender, host) || self.hosts[host].node.is_none() {
            return;
        }
        let now = self.now;
        let engine = &mut self.hosts[host].engine;
        let ours = engine
            .epochs
            .get(&index)
            .filter(|ours| ours.recv_key == keys.send_key && ours.suite == keys.suite);
        let Some(ours) = ours else {
            self.lost += 1;
            return;
        };
        let slot = ours.slot;
        self.delivered += 1;
        let first = engine.confirmed.insert(index);
        engine.heard.insert(slot, now);
        let path_up = engine.active.contains_key(&slot) && engine.up.insert(slot);
        if first {
            self.input(
                host,
                Input::Engine(Event::SessionConfirmed {
                    slot,
                    local_index: index,
                }),
            );
        }
        if path_up {
            let path = PathStatus {
                address: from,
                rtt: 2 * self.latency,
                datagram_max: 1472,
                loss: 0.0,
            };
            self.input(host, Input::Engine(Event::PathUp { slot, path }));
        }
        if let Some(message) = message {
            self.input(host, Input::Engine(Event::Message { slot, message }));
        }
    }

    pub(super) fn probe(&mut self, host: HostId, life: u64) {
        if self.hosts[host].life != life {
            return;
        }
        for slot in self.hosts[host].engine.peers.clone() {
            self.datagram_to(host, slot, None);
            let engine = &mut self.hosts[host].engine;
            let silent = engine
                .heard
                .get(&slot)
                .is_none_or(|at| self.now - *at >= PATH_TIMEOUT);
            if silent && engine.up.remove(&slot) {
                self.input(host, Input::Engine(Event::PathDown { slot }));
            }
        }
        self.at(self.now + PROBE_PERIOD, SimEvent::Probe { host, life });
    }

    /// The stand-in of `host` says that every path is down, until the next datagram comes.
    pub(crate) fn lose_path(&mut self, host: HostId) {
        for slot in std::mem::take(&mut self.hosts[host].engine.up) {
            self.input(host, Input::Engine(Event::PathDown { slot }));
        }
    }
}

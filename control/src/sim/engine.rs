//! The engine stand-in: takes control's commands and runs the engine's own path machines.
//!
//! ```text
//!  Command ──► EngineStandIn ─┬─ epochs: installed, confirmed by the first datagram that opens
//!                             ├─ paths: `weft_engine::path::Paths`, one for each peer with a session
//!                             └─ FIB: Direct, or Via a neighbour with hop limit (datagrams.rs)
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weft_engine::bridge::{Fib, NeighbourTable, NextHop};
use weft_engine::command::{Command, Event, GroupKey, Limits, PeerSlot, SessionKeys};
use weft_engine::config::{EPOCHS_MAX, MESSAGE_LEN_MAX};
use weft_engine::path::{PathConfig, PathOutput, PathStatus, Paths};

use super::datagrams::Payload;
use super::{HostId, Sim, SimEvent};
use crate::node::exchange::Input;

/// How long the stand-in takes to install an epoch.
const INSTALL_TIME: Duration = Duration::from_micros(200);
/// How long an event takes from the engine to control.
const EVENT_TIME: Duration = Duration::from_micros(10);

pub(super) struct Epoch {
    pub(super) keys: Arc<SessionKeys>,
    confirmed: bool,
}

#[derive(Default)]
pub(super) struct EnginePeer {
    pub(super) label: [u8; 8],
    active: Option<u32>,
    candidates: Arc<[std::net::SocketAddr]>,
    paths: Option<Box<Paths>>,
    /// The tick of the paths that is in the queue.
    tick_at: Option<Instant>,
    /// Frames to and from the peer.
    pub(super) frames: u64,
    /// What control knows.
    pub(super) path: Option<PathStatus>,
}

#[derive(Default)]
pub(super) struct EngineStandIn {
    pub(super) label: [u8; 8],
    pub(super) peers: BTreeMap<PeerSlot, EnginePeer>,
    pub(super) slots: BTreeMap<[u8; 8], PeerSlot>,
    pub(super) epochs: BTreeMap<u32, Epoch>,
    pub(super) fib: Arc<Fib>,
    pub(super) neighbours: Arc<NeighbourTable>,
    pub(super) limits: Limits,
    /// Of each source, and ours under `None`, newest last.
    pub(super) group_keys: BTreeMap<(Option<PeerSlot>, u32), Arc<GroupKey>>,
}

impl EngineStandIn {
    /// The keys with which a peer is sent to now.
    pub(super) fn active_keys(&self, slot: PeerSlot) -> Option<&Arc<SessionKeys>> {
        let index = self.peers.get(&slot)?.active?;
        self.epochs.get(&index).map(|epoch| &epoch.keys)
    }

    /// The peer to which a datagram for `slot` goes next: itself, or the neighbour that passes it on.
    pub(super) fn next_hop(&self, slot: PeerSlot) -> Option<PeerSlot> {
        match *self.fib.routes.get(&slot)? {
            NextHop::Direct => Some(slot),
            NextHop::Via(neighbour) => Some(neighbour),
        }
    }

    /// The path in use to a peer that there is a live session with.
    pub(super) fn path(&self, slot: PeerSlot) -> Option<PathStatus> {
        self.peers.get(&slot)?.path
    }

    /// Whether this datagram's keys open here; true for the first of an epoch.
    pub(super) fn opens(&mut self, keys: &SessionKeys) -> Option<(PeerSlot, bool)> {
        let epoch = self.epochs.get_mut(&keys.remote_index)?;
        let ours = &epoch.keys;
        if ours.recv_key != keys.send_key || ours.suite != keys.suite {
            return None;
        }
        let first = !std::mem::replace(&mut epoch.confirmed, true);
        Some((ours.slot, first))
    }

    fn add_peer(&mut self, slot: PeerSlot, label: [u8; 8]) {
        let peer = EnginePeer {
            label,
            ..EnginePeer::default()
        };
        let old = self.peers.insert(slot, peer);
        assert!(old.is_none(), "slot {slot:?} is in use");
        let old = self.slots.insert(label, slot);
        assert!(old.is_none(), "label {label:?} is in use");
    }

    fn remove_peer(&mut self, slot: PeerSlot) {
        let peer = self.peers.remove(&slot);
        let label = peer.expect("the slot of a peer that was added").label;
        self.slots.remove(&label);
        self.epochs.retain(|_, epoch| epoch.keys.slot != slot);
        self.group_keys
            .retain(|(source, _), _| *source != Some(slot));
    }

    fn install(&mut self, keys: Arc<SessionKeys>) {
        assert!(
            self.peers.contains_key(&keys.slot),
            "a session of a peer that was not added"
        );
        let (slot, index) = (keys.slot, keys.local_index);
        let epoch = Epoch {
            keys,
            confirmed: false,
        };
        let old = self.epochs.insert(index, epoch);
        assert!(old.is_none(), "index in use");
        let of_peer = self.epochs.values().filter(|epoch| epoch.keys.slot == slot);
        assert!(of_peer.count() <= EPOCHS_MAX, "too many epochs");
    }

    fn set_fib(&mut self, fib: Arc<Fib>) {
        assert!(fib.generation > self.fib.generation, "generations rise");
        let known = |slot: &PeerSlot| self.peers.contains_key(slot);
        assert!(
            fib.routes.keys().all(known) && fib.flood.iter().all(known),
            "the FIB names peers that were not added"
        );
        for (slot, next) in &fib.routes {
            if let NextHop::Via(neighbour) = next {
                assert!(
                    known(neighbour),
                    "a route through a peer that was not added"
                );
                assert_ne!(slot, neighbour, "a route through the destination itself");
            }
        }
        self.fib = fib;
    }
}

impl Sim {
    pub(super) fn command(&mut self, host: HostId, command: Command) {
        let engine = &mut self.hosts[host].engine;
        match command {
            Command::SetLabel(label) => engine.label = label,
            Command::AddPeer { slot, label } => engine.add_peer(slot, label),
            Command::RemovePeer { slot } => engine.remove_peer(slot),
            Command::InstallSession(keys) => {
                let (slot, local_index) = (keys.slot, keys.local_index);
                engine.install(keys);
                let event = Event::SessionInstalled { slot, local_index };
                self.later(host, INSTALL_TIME, Input::Engine(event));
            }
            Command::ActivateSession { slot, local_index } => {
                assert!(
                    engine.epochs.contains_key(&local_index),
                    "an epoch that was not installed"
                );
                if let Some(peer) = engine.peers.get_mut(&slot) {
                    peer.active = Some(local_index);
                }
                self.session_ready(host, slot);
            }
            Command::RemoveSession { slot, local_index } => {
                assert!(
                    engine.epochs.remove(&local_index).is_some(),
                    "an epoch that is not there"
                );
                if let Some(peer) = engine.peers.get_mut(&slot)
                    && peer.active == Some(local_index)
                {
                    peer.active = None;
                    self.with_paths(host, slot, |paths, _| paths.session_lost());
                }
            }
            Command::SetCandidates { slot, addresses } => {
                if let Some(peer) = engine.peers.get_mut(&slot) {
                    peer.candidates = addresses.clone();
                }
                self.with_paths(host, slot, |paths, now| {
                    paths.set_candidates(&addresses, now);
                });
            }
            Command::SetFib(fib) => {
                engine.set_fib(fib);
                self.fib_changed(host);
            }
            Command::SetLimits(limits) => engine.limits = limits,
            // Simulated frames have no addresses.
            Command::SetDisputed(_) | Command::SetFlow { .. } => {}
            Command::SetGroupKey(key) => {
                engine.group_keys.insert((key.slot, key.epoch), key);
            }
            Command::RemoveGroupKey { slot, epoch } => {
                engine.group_keys.remove(&(slot, epoch));
            }
            Command::SendMessage { slot, message } => {
                assert!(message.len() <= MESSAGE_LEN_MAX, "a message too long");
                self.send_datagram(host, slot, Payload::Message(message));
            }
            Command::SetNeighbours(table) => engine.neighbours = table,
            Command::Bench { .. } => {}
        }
    }

    /// Probes go out under new keys; the machine is made when the first are there.
    fn session_ready(&mut self, host: HostId, slot: PeerSlot) {
        let (now, seed) = (self.now, self.random.u64());
        if let Some(peer) = self.hosts[host].engine.peers.get_mut(&slot)
            && peer.paths.is_none()
        {
            let mut paths = Box::new(Paths::new(PathConfig::default(), seed, now));
            paths.set_candidates(&peer.candidates, now);
            peer.paths = Some(paths);
        }
        self.with_paths(host, slot, Paths::session_ready);
    }

    /// Lets `act` move a peer's machine, then carries out what it wants.
    pub(super) fn with_paths(
        &mut self,
        host: HostId,
        slot: PeerSlot,
        act: impl FnOnce(&mut Paths, Instant),
    ) {
        let now = self.now;
        let peer = self.hosts[host].engine.peers.get_mut(&slot);
        let Some(mut paths) = peer.and_then(|peer| peer.paths.take()) else {
            return;
        };
        act(&mut paths, now);
        while let Some(output) = paths.poll_output() {
            match output {
                PathOutput::Send {
                    to,
                    message,
                    datagram_len,
                    // A host here has one address.
                    local: _,
                } => self.send_probe(host, slot, to, message, datagram_len),
                PathOutput::Up(path) | PathOutput::Changed(path) => {
                    self.use_path(host, slot, Some(path));
                }
                PathOutput::Down => self.use_path(host, slot, None),
                PathOutput::Observed(address) => {
                    self.event(host, Event::Observed { slot, address });
                }
            }
        }
        let due = paths.deadline();
        let life = self.hosts[host].life;
        let Some(peer) = self.hosts[host].engine.peers.get_mut(&slot) else {
            return;
        };
        peer.paths = Some(paths);
        // A later deadline is found when the tick comes.
        if let Some(due) = due
            && peer.tick_at.is_none_or(|at| due < at)
        {
            let due = due.max(now);
            peer.tick_at = Some(due);
            self.at(due, SimEvent::PathTick { host, life, slot });
        }
    }

    pub(super) fn path_tick(&mut self, host: HostId, slot: PeerSlot) {
        let now = self.now;
        let peer = self.hosts[host].engine.peers.get_mut(&slot);
        // A tick that an earlier one has replaced.
        if peer
            .and_then(|peer| peer.tick_at.take_if(|at| *at == now))
            .is_none()
        {
            return;
        }
        self.with_paths(host, slot, |paths, now| {
            if paths.deadline().is_some_and(|due| due <= now) {
                paths.tick(now);
            }
        });
    }

    fn use_path(&mut self, host: HostId, slot: PeerSlot, path: Option<PathStatus>) {
        if let Some(peer) = self.hosts[host].engine.peers.get_mut(&slot) {
            peer.path = path;
        }
        let event = match path {
            Some(path) => Event::PathUp { slot, path },
            None => Event::PathDown { slot },
        };
        self.event(host, event);
    }

    /// A frame waits for a session, as the engine says it.
    pub(super) fn want_session(&mut self, host: HostId, slot: PeerSlot) {
        if self.hosts[host].engine.active_keys(slot).is_none() {
            self.event(host, Event::SessionWanted { slot });
        }
    }

    /// Reports something to control.
    pub(super) fn event(&mut self, host: HostId, event: Event) {
        self.later(host, EVENT_TIME, Input::Engine(event));
    }

    /// The stand-in of `host` says that every path is down, and at once that it is up again.
    pub(crate) fn lose_path(&mut self, host: HostId) {
        let peers = self.hosts[host].engine.peers.iter();
        let up: Vec<_> = peers
            .filter_map(|(slot, peer)| Some((*slot, peer.path?)))
            .collect();
        for (slot, path) in up {
            self.event(host, Event::PathDown { slot });
            self.event(host, Event::PathUp { slot, path });
        }
    }
}

//! Path machines, live: worker 0 owns them, seals their probes on lane 0 and follows their verdicts.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::command::{Event, PeerSlot};
use crate::config::{DATAGRAM_LEN_MAX, MESSAGE_LEN_MAX};
use crate::datapath::{Datapath, TrainBuilder, counters, peer_mut};
use crate::io::SendError;
use crate::path::{Arrival, PathConfig, PathError, PathOutput, PathStatus, Paths, SendFailure};
use crate::shared::{Endpoint, PeerShared};
use crate::verdict::DropReason;
use crate::wire::{ControlClass, Kind};

impl Datapath {
    /// When [`Datapath::tick`], [`Datapath::bench_turn`] or the next turn of `relay` is due.
    pub fn deadline(&self) -> Option<Instant> {
        let backlog = self.relays.has_backlog().then_some(self.shared.start);
        let dues = [self.probes_due, self.bench_due(), backlog];
        dues.into_iter().flatten().min()
    }

    /// Runs the path machines that are due, and asks after strangers.
    pub fn tick(&mut self, now: Instant) {
        if self.worker != 0 {
            return;
        }
        while let Some((slot, from)) = self.shared.strangers.pop() {
            self.with_paths(slot, now, |paths| paths.heard(from, now));
        }
        while let Some((to, len, failure)) = self.shared.send_failures.pop() {
            self.every_path(now, |paths| paths.sent_failed(to, len, failure, now));
        }
        if self.probes_due.is_none_or(|due| due > now) {
            return;
        }
        self.probes_due = None;
        for slot in 0..self.peers.len() {
            let Ok(slot) = u16::try_from(slot) else { break };
            let Some(peer) = peer_mut(&mut self.peers, PeerSlot(slot)) else {
                continue;
            };
            let traffic = &peer.shared;
            let bytes = traffic
                .tx_bytes
                .load(Ordering::Relaxed)
                .wrapping_add(traffic.rx_bytes.load(Ordering::Relaxed));
            let carried = std::mem::replace(&mut peer.traffic_seen, bytes) != bytes;
            self.with_paths(PeerSlot(slot), now, |paths| {
                if carried {
                    paths.carried(now);
                }
                if paths.deadline().is_some_and(|due| due <= now) {
                    paths.tick(now);
                }
            });
        }
    }

    pub(super) fn set_candidates(
        &mut self,
        slot: PeerSlot,
        addresses: &[SocketAddr],
        now: Instant,
    ) {
        if self.worker != 0 {
            return;
        }
        let Some(peer) = peer_mut(&mut self.peers, slot) else {
            return;
        };
        if peer.paths.is_none() {
            let config = PathConfig {
                underlay_mtu: self.shared.underlay_mtu,
                ..PathConfig::default()
            };
            peer.paths = Some(Box::new(Paths::new(config, rand::random(), now)));
            if peer.active.is_some() {
                self.session_ready(slot, now);
            }
        }
        self.with_paths(slot, now, |paths| paths.set_candidates(addresses, now));
    }

    pub(super) fn session_ready(&mut self, slot: PeerSlot, now: Instant) {
        self.with_paths(slot, now, |paths| paths.session_ready(now));
    }

    /// There are no keys to send with any more.
    pub(super) fn session_lost(&mut self, slot: PeerSlot, now: Instant) {
        self.with_paths(slot, now, Paths::session_lost);
    }

    /// A peer's datagram with frames opened, from this address.
    pub(super) fn heard(&mut self, slot: PeerSlot, from: SocketAddr, now: Instant) {
        let Some(peer) = peer_mut(&mut self.peers, slot) else {
            return;
        };
        if peer
            .shared
            .endpoint
            .load()
            .as_deref()
            .is_some_and(|endpoint| endpoint.address == from)
        {
            return;
        }
        if self.worker == 0 {
            self.with_paths(slot, now, |paths| paths.heard(from, now));
        } else if self.shared.strangers.push((slot, from)).is_ok() {
            self.shared.wake(0);
        }
    }

    /// A path message of the peer's; `len` is its datagram's.
    pub(super) fn probe(
        &mut self,
        slot: PeerSlot,
        from: Arrival,
        len: usize,
        body: &[u8],
        now: Instant,
    ) -> Result<(), DropReason> {
        let mut verdict = Ok(());
        let len = u16::try_from(len).unwrap_or(u16::MAX);
        self.with_paths(slot, now, |paths| {
            verdict = paths.handle_message(from, len, body, now)
        });
        verdict.map_err(|error| match error {
            // As most are of a search for the path MTU that has found it.
            PathError::UnexpectedReply => DropReason::ProbeLate,
            PathError::Truncated | PathError::UnknownKind(_) | PathError::ImpossibleSource => {
                DropReason::BadPayload
            }
        })
    }

    /// What the kernel said of a train: a hint for the path machine.
    pub fn send_failed(&mut self, to: SocketAddr, len: usize, error: SendError, now: Instant) {
        let failure = match error {
            SendError::TooBig => SendFailure::TooBig,
            SendError::Unreachable => SendFailure::Unreachable,
            SendError::Busy | SendError::Refused => return,
        };
        let len = u16::try_from(len).unwrap_or(u16::MAX);
        if self.worker == 0 {
            self.every_path(now, |paths| paths.sent_failed(to, len, failure, now));
        } else if self.shared.send_failures.push((to, len, failure)).is_ok() {
            self.shared.wake(0);
        }
    }

    fn every_path(&mut self, now: Instant, act: impl Fn(&mut Paths)) {
        for slot in 0..self.peers.len() {
            let Ok(slot) = u16::try_from(slot) else { break };
            if self
                .peers
                .get(usize::from(slot))
                .is_some_and(Option::is_some)
            {
                self.with_paths(PeerSlot(slot), now, &act);
            }
        }
    }

    /// Carries a message of control's to the peer, on the way in use.
    pub(super) fn send_message(&mut self, slot: PeerSlot, message: &[u8], now: Instant) {
        if self.worker != 0 || message.len() > MESSAGE_LEN_MAX {
            return;
        }
        if !self.send_on_way(slot, ControlClass::Message, message) {
            return self.count_drop(DropReason::PathDown);
        }
        self.schedule(slot, now);
    }

    /// Seals one CONTROL datagram for the way in use; it leaves as a train of its own.
    pub(super) fn send_on_way(
        &mut self,
        slot: PeerSlot,
        class: ControlClass,
        message: &[u8],
    ) -> bool {
        let sent = self.with_sink(slot, |_, sink, _| {
            let mut builder = TrainBuilder::default();
            builder.append_body(Kind::Control, class as u8, message, 0, sink);
            builder.flush(sink);
        });
        sent.is_some()
    }

    /// Lets `act` move a peer's machine, then carries out what it wants.
    fn with_paths(&mut self, slot: PeerSlot, now: Instant, act: impl FnOnce(&mut Paths)) {
        let Some(mut paths) = peer_mut(&mut self.peers, slot).and_then(|peer| peer.paths.take())
        else {
            return;
        };
        act(&mut paths);
        while let Some(output) = paths.poll_output() {
            self.path_output(slot, output, paths.local(), now);
        }
        if let Some(peer) = peer_mut(&mut self.peers, slot) {
            follow_local(&peer.shared, paths.local());
            peer.paths = Some(paths);
        }
        self.schedule(slot, now);
    }

    fn schedule(&mut self, slot: PeerSlot, now: Instant) {
        let due = peer_mut(&mut self.peers, slot).and_then(|peer| peer.paths.as_ref()?.deadline());
        if let Some(due) = due {
            self.probes_due = Some(self.probes_due.map_or(due, |at| at.min(due)).max(now));
        }
    }

    fn path_output(
        &mut self,
        slot: PeerSlot,
        output: PathOutput,
        local_in_use: Option<IpAddr>,
        now: Instant,
    ) {
        match output {
            PathOutput::Send {
                to,
                local,
                message,
                datagram_len,
            } => {
                let len = datagram_len.map_or(0, usize::from);
                let class = ControlClass::Path as u8;
                let to = Arrival { address: to, local };
                self.with_address(slot, to, DATAGRAM_LEN_MAX, |sink| {
                    let mut builder = TrainBuilder::default();
                    builder.append_body(Kind::Control, class, message.as_bytes(), len, sink);
                    builder.flush(sink);
                });
            }
            PathOutput::Up(path) | PathOutput::Changed(path) => {
                self.use_path(slot, Some((path, local_in_use)), now)
            }
            PathOutput::Down => self.use_path(slot, None, now),
            PathOutput::Observed(address) => {
                let event = Event::Observed { slot, address };
                self.shared
                    .report(event, counters(&self.shared, self.worker));
            }
        }
    }

    fn use_path(
        &mut self,
        slot: PeerSlot,
        path: Option<(PathStatus, Option<IpAddr>)>,
        now: Instant,
    ) {
        let Some(peer) = peer_mut(&mut self.peers, slot) else {
            return;
        };
        let endpoint = path.map(|(path, local)| Endpoint {
            address: path.address,
            local,
            datagram_max: path.datagram_max.into(),
        });
        let known = peer.shared.endpoint.load();
        let came_up = known.is_none() && endpoint.is_some();
        if known.as_deref() != endpoint.as_ref() {
            drop(known);
            // What was cut to the old path's size leaves by it.
            self.flush_peer(slot);
            let Some(peer) = peer_mut(&mut self.peers, slot) else {
                return;
            };
            peer.shared.endpoint.store(endpoint.map(Arc::new));
        }
        let event = match path {
            Some((path, _)) => Event::PathUp { slot, path },
            None => Event::PathDown { slot },
        };
        self.shared
            .report(event, counters(&self.shared, self.worker));
        if came_up {
            // Others may be reached through this peer.
            self.drain_all(now);
        }
    }
}

/// Data leaves from the address that the peer uses; until the machine has said it, the kernel chooses.
fn follow_local(peer: &PeerShared, local: Option<IpAddr>) {
    let known = peer.endpoint.load();
    let Some(endpoint) = known.as_deref().filter(|known| known.local != local) else {
        return;
    };
    let endpoint = Endpoint { local, ..*endpoint };
    peer.endpoint.store(Some(Arc::new(endpoint)));
}

//! `relay`: RELAY datagrams, unwrapped where they are for us and passed on where they are not.
//!
//! ```text
//!  hop tag ─► replay mark ─► for us ─► source label is the inner session's peer? ─► open
//!                        └─► for another ─► limits, labels, split horizon ─► run ─► fair queue ─► new front, new tag
//! ```
//!
//! A relay never sees the inside: it rewrites 16 bytes and a tag where the train was received, and the same
//! buffer leaves. A run is neighbouring datagrams of one train with one next hop. Runs wait in a queue that is
//! fair to the peers they came from; each turn of the worker passes on `config::RELAY_TURN_LEN` bytes at most,
//! and sends about as many of its own while others wait. Bounds: `config::RELAY_TRAINS_MAX`, `HOP_LIMIT_MAX`.

use std::ops::Range;
use std::time::Instant;

use crate::bridge::NextHop;
use crate::command::PeerSlot;
use crate::config::{
    DATAGRAM_LEN_BASE, PACKET_LEN, RELAY_COPY_LEN_MAX, RELAY_TRAINS_MAX, RELAY_TURN_LEN,
    TRAIN_DATAGRAMS_MAX, TRAIN_LEN_MAX,
};
use crate::datapath::fair::FairQueue;
use crate::datapath::receive::{Opened, owner_of};
use crate::datapath::{Datapath, Place, counters, peer_mut};
use crate::io::Train;
use crate::packet::Packet;
use crate::shared::Origin;
use crate::verdict::{DropReason, Station};
use crate::wire::relay::{RELAY_FRONT_LEN, RelayHeader, Wrapping};
use crate::wire::{Header, TAG_LEN};

/// Turns for which more is received than passed on, after several peers wanted to pass at once: what is beyond a
/// peer's share is dropped here, where it is known whose it is. Some milliseconds under load.
const CONTENDED_TURNS: u8 = 100;

/// The way of a datagram through this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) ingress: PeerSlot,
    pub(super) next: PeerSlot,
}

/// Neighbouring datagrams of a packet that go the same way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    step: Step,
    start: usize,
    len: usize,
    segment: usize,
    /// Whether the last one is shorter than the others.
    ended: bool,
}

/// A run that owns its packet.
#[derive(Debug)]
struct Relayed {
    packet: Packet,
    run: Run,
}

/// What waits to be passed on, and what helps to decide whither.
#[derive(Debug, Default)]
pub(super) struct Relays {
    queue: FairQueue<Relayed>,
    /// The last look-up, which the next datagram of a train repeats: source, destination, hop limit, step.
    known: Option<(u64, u64, u8, Step)>,
    /// Bytes taken in, and passed on, since the last turn.
    taken: usize,
    passed: usize,
    /// For so many turns more several peers are taken to contend for this relay.
    contended: u8,
    /// Bytes of our own containers since the last turn.
    own: usize,
}

impl Relays {
    /// True when enough waits to be passed on that more had better wait in the socket, but for what a
    /// greedy sender loses.
    pub(super) fn is_turn_full(&self) -> bool {
        self.taken >= 2 * RELAY_TURN_LEN
            || self.queue.len() >= RELAY_TRAINS_MAX
            || (self.contended == 0 && self.passed + TRAIN_LEN_MAX > RELAY_TURN_LEN)
    }

    /// Trains that there is room for. One peer alone loses nothing here: what it sends too fast waits in the socket.
    fn room(&self) -> usize {
        if self.contended > 0 || self.queue.is_empty() {
            return usize::MAX;
        }
        RELAY_TRAINS_MAX.saturating_sub(self.queue.len()).max(1)
    }

    pub(super) fn forget_routes(&mut self) {
        self.known = None;
    }

    /// Counts a frame of our own; see [`Datapath::is_own_turn_over`].
    #[inline]
    pub(super) fn count_own(&mut self, len: usize) {
        self.own += len;
    }

    /// When the next turn is due: at once while something waits.
    pub(super) fn has_backlog(&self) -> bool {
        !self.queue.is_empty()
    }
}

impl Datapath {
    /// True once our own containers have had their share of this turn and relayed trains wait for theirs.
    pub fn is_own_turn_over(&self) -> bool {
        let others_wait = self.relays.has_backlog() || self.relays.passed >= RELAY_TURN_LEN;
        self.relays.own >= RELAY_TURN_LEN && others_wait
    }

    /// A datagram that is not DATA: checks who vouches for it, then opens it or says whither it goes.
    pub(super) fn open_wrapped(
        &mut self,
        datagram: &mut [u8],
        place: Place,
        from: Origin,
        now: Instant,
    ) -> Result<Opened, DropReason> {
        let header = RelayHeader::parse(datagram).ok_or(DropReason::BadHeader)?;
        if let Origin::Hop(ingress) = from {
            // Nothing is wrapped twice: this is a flood that another worker has checked for us.
            return match header.wrapping {
                Wrapping::Group => self.group(&header, datagram, place, ingress, now),
                Wrapping::Relay => Err(DropReason::BadHeader),
            };
        }
        let epoch = self
            .epochs
            .get_mut(&header.receiver)
            .ok_or(DropReason::UnknownSession)?;
        let owner = owner_of(header.lane, &self.shared);
        if owner != self.worker {
            return self.hand_off(owner, datagram, from);
        }
        let ingress = epoch.slot();
        let hop = epoch.hop(header.lane).ok_or(DropReason::BadHeader)?;
        let verified = hop.verify(&header, datagram);
        let first = verified.is_ok() && epoch.confirm();
        self.judge(verified, first, (ingress, header.receiver), now)?;
        if header.wrapping == Wrapping::Group {
            self.group(&header, datagram, place, ingress, now)
        } else if header.destination == self.label {
            self.unwrap_inner(&header, datagram, place, ingress, now)
        } else {
            self.step(&header, ingress).map(Opened::Pass)
        }
    }

    /// Opens what a relay brought us, if the source that it names sealed it.
    fn unwrap_inner(
        &mut self,
        header: &RelayHeader,
        datagram: &mut [u8],
        place: Place,
        ingress: PeerSlot,
        now: Instant,
    ) -> Result<Opened, DropReason> {
        let end = datagram.len().saturating_sub(TAG_LEN);
        let inner = datagram
            .get_mut(RELAY_FRONT_LEN..end)
            .ok_or(DropReason::BadHeader)?;
        let (inner_header, _) = Header::parse(inner).ok_or(DropReason::BadHeader)?;
        let sealer = self
            .epochs
            .get(&inner_header.receiver)
            .ok_or(DropReason::UnknownSession)?
            .slot();
        if self.peer(sealer).map(|peer| peer.shared.label) != Some(header.source) {
            return Err(DropReason::WrongSource);
        }
        let start = place.start + RELAY_FRONT_LEN;
        self.open(inner, Place { start, ..place }, Origin::Hop(ingress), now)?;
        Ok(Opened::From(ingress))
    }

    /// Where a datagram of others goes from here.
    fn step(&mut self, header: &RelayHeader, ingress: PeerSlot) -> Result<Step, DropReason> {
        if !self.limits.relay {
            return Err(DropReason::NoRelay);
        }
        if header.hop_limit <= 1 {
            return Err(DropReason::HopLimit);
        }
        if let Some((source, destination, hop_limit, step)) = self.relays.known
            && source == header.source
            && destination == header.destination
            && hop_limit == header.hop_limit
            && step.ingress == ingress
        {
            return Ok(step);
        }
        if header.source == self.label {
            return Err(DropReason::SplitHorizon);
        }
        let destination = *self
            .labels
            .get(&header.destination)
            .ok_or(DropReason::UnknownLabel)?;
        if !self.labels.contains_key(&header.source) {
            return Err(DropReason::UnknownLabel);
        }
        let way = self.peer(destination).and_then(|peer| peer.way);
        let left = header.hop_limit - 1;
        let next = match self.fib.way_within(destination, left, way) {
            Some(NextHop::Direct) => destination,
            Some(NextHop::Via(relay)) => relay,
            None => return Err(DropReason::NoRoute),
        };
        if next == ingress || destination == ingress {
            return Err(DropReason::SplitHorizon);
        }
        let step = Step { ingress, next };
        let RelayHeader {
            source,
            destination,
            hop_limit,
            ..
        } = *header;
        self.relays.known = Some((source, destination, hop_limit, step));
        Ok(step)
    }

    /// Adds a datagram to the run if it goes on in the same way; else the run so far is put aside.
    pub(super) fn extend(
        &mut self,
        run: &mut Option<Run>,
        step: Step,
        at: Range<usize>,
        packet: &Packet,
    ) {
        if let Some(run) = run
            && run.step == step
            && run.start + run.len == at.start
            && !run.ended
            && at.len() <= run.segment
        {
            run.len += at.len();
            run.ended = at.len() < run.segment;
            return;
        }
        if let Some(run) = run.take() {
            self.relay_copy(&run, packet);
        }
        *run = Some(Run {
            step,
            start: at.start,
            len: at.len(),
            segment: at.len(),
            ended: false,
        });
    }

    /// Queues a run whose packet is needed for something else, too.
    pub(super) fn relay_copy(&mut self, run: &Run, packet: &Packet) {
        let bytes = packet.bytes().get(run.start..run.start + run.len);
        let Some(bytes) = bytes else { return };
        if self.relay_append(run, bytes) {
            return;
        }
        let Some(mut copy) = self.pool.take() else {
            return self.count_drop(DropReason::PoolEmpty);
        };
        if let Some(to) = copy.bytes_mut().get_mut(..run.len) {
            to.copy_from_slice(bytes);
        }
        self.relay_push(Run { start: 0, ..*run }, copy);
    }

    /// Queues a run with the packet that it came in.
    pub(super) fn relay(&mut self, run: Run, packet: Packet) {
        let bytes = packet.bytes().get(run.start..run.start + run.len);
        if run.len <= RELAY_COPY_LEN_MAX
            && bytes.is_some_and(|bytes| self.relay_append(&run, bytes))
        {
            return self.pool.put(packet);
        }
        self.relay_push(run, packet);
    }

    fn relay_push(&mut self, run: Run, packet: Packet) {
        self.relays.taken += run.len;
        let relayed = Relayed { packet, run };
        let gone = self.relays.queue.push(run.step.ingress, run.len, relayed);
        if let Some(Relayed { packet, run }) = gone {
            let count = run.len.div_ceil(run.segment.max(1));
            self.counters()
                .drop_many(DropReason::RelayFull, count as u64);
            self.pool.put(packet);
        }
    }

    /// Puts a run behind the newest one of the same peer, if they can leave as one train.
    fn relay_append(&mut self, run: &Run, bytes: &[u8]) -> bool {
        let ingress = run.step.ingress;
        let Some(newest) = self.relays.queue.newest_mut(ingress) else {
            return false;
        };
        let to = &mut newest.run;
        let end = to.start + to.len;
        let fits = to.step == run.step
            && !to.ended
            && run.segment <= to.segment
            && (run.segment == to.segment || run.len == run.segment)
            && to.len + run.len <= TRAIN_LEN_MAX
            && (to.len + run.len).div_ceil(to.segment.max(1)) <= TRAIN_DATAGRAMS_MAX
            && end + run.len <= PACKET_LEN;
        if !fits {
            return false;
        }
        let Some(place) = newest.packet.bytes_mut().get_mut(end..end + run.len) else {
            return false;
        };
        place.copy_from_slice(bytes);
        to.len += run.len;
        to.ended = run.ended || run.segment < to.segment;
        self.relays.taken += run.len;
        self.relays.queue.grown(ingress, run.len);
        true
    }

    /// Trains that may be received at once.
    pub fn receive_max(&self) -> usize {
        self.relays.room()
    }

    /// Between two receive calls: passes on what came while it is in the cache. The newest train may still grow.
    pub fn pass_on_early(&mut self) {
        if self.relays.queue.peers_count() > 1 {
            self.relays.contended = CONTENDED_TURNS;
        }
        self.pass_on_some(1);
    }

    /// The end of a turn: passes on what waits, each peer in turn.
    pub(super) fn pass_on(&mut self) {
        self.pass_on_some(0);
        self.relays.taken = 0;
        self.relays.passed = 0;
        self.relays.own = 0;
        self.relays.contended = self.relays.contended.saturating_sub(1);
    }

    /// As far as the turn's bytes go, or until no more than `rest` wait.
    fn pass_on_some(&mut self, rest: usize) {
        while self.relays.passed < RELAY_TURN_LEN
            && self.relays.queue.len() > rest
            && let Some(Relayed { packet, run }) = self.relays.queue.pop()
        {
            self.relays.passed += run.len;
            let count = run.len.div_ceil(run.segment.max(1)) as u64;
            match self.seal_run(packet, &run) {
                Ok(()) => {
                    self.count(Station::Relay, count);
                    self.count(Station::RelayBytes, run.len as u64);
                    self.report_wear(run.step.next);
                }
                Err((reason, packet)) => {
                    self.counters().drop_many(reason, count);
                    self.pool.put(packet);
                }
            }
        }
    }

    /// Gives each datagram of a run its new front and tag, and hands the train over.
    fn seal_run(&mut self, mut packet: Packet, run: &Run) -> Result<(), (DropReason, Packet)> {
        let next = peer_mut(&mut self.peers, run.step.next);
        let ready = next.and_then(|next| {
            let endpoint = next.shared.endpoint.load();
            let endpoint = **endpoint.as_ref()?;
            Some((endpoint, next.active.as_mut()?.hop()))
        });
        let Some((endpoint, hop)) = ready else {
            return Err((DropReason::PathDown, packet));
        };
        // A path whose size is still being searched may well carry more than what is proven.
        if run.segment > endpoint.datagram_max && endpoint.datagram_max > DATAGRAM_LEN_BASE {
            return Err((DropReason::RelayTooBig, packet));
        }
        let datagrams = packet
            .bytes_mut()
            .get_mut(run.start..run.start + run.len)
            .unwrap_or_default();
        for datagram in datagrams.chunks_mut(run.segment.max(1)) {
            let sealed = RelayHeader::parse(datagram).is_some_and(|header| {
                let RelayHeader {
                    hop_limit,
                    destination,
                    source,
                    ..
                } = header;
                hop.seal(datagram, hop_limit.saturating_sub(1), destination, source)
            });
            if !sealed {
                return Err((DropReason::KeyExhausted, packet));
            }
        }
        self.trains.push_back(Train {
            packet,
            start: run.start,
            len: run.len,
            segment: run.segment,
            to: endpoint.address,
            local: endpoint.local,
        });
        Ok(())
    }

    /// A peer is gone, and what it sent or was to get with it.
    pub(super) fn forget_relayed(&mut self, slot: PeerSlot) {
        self.relays.forget_routes();
        let mut kept = Vec::new();
        while let Some(relayed) = self.relays.queue.pop_any() {
            let Step { ingress, next } = relayed.run.step;
            if ingress == slot || next == slot {
                counters(&self.shared, self.worker).drop(DropReason::NoRoute);
                self.pool.put(relayed.packet);
            } else {
                kept.push(relayed);
            }
        }
        for relayed in kept.into_iter().rev() {
            let (ingress, len) = (relayed.run.step.ingress, relayed.run.len);
            if let Some(lost) = self.relays.queue.push(ingress, len, relayed) {
                self.pool.put(lost.packet);
            }
        }
    }
}

//! GROUP: floods sealed once by their source, copied along its tree, taken from the parent alone.
//!
//! ```text
//!  source   plain frame ─► seal once ─► a copy and a hop tag for each child
//!  member   hop tag ─► from the parent in the source's tree? ─► open, once ─► deliver
//!                                                                     └─► the same bytes, a hop tag for each child
//! ```
//!
//! The sealed part is a DATA datagram under the source's group key, its receiver index the key's number. Whoever
//! holds the key could seal in the source's name; that only the parent is listened to confines such a liar to its
//! own subtree. A copy is passed on once it has opened, so that no replay is; a member that has no key yet passes
//! on what it cannot read. Bounds: `config::GROUP_EPOCHS_MAX`, `HOP_LIMIT_MAX`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64};
use std::time::Instant;

use crate::bridge::NextHop;
use crate::command::{Event, GroupKey, PeerSlot, SessionKeys};
use crate::config::{DATAGRAM_LEN_MAX, GROUP_EPOCHS_MAX, GROUP_KEY_WANTED_INTERVAL, LANES_MAX};
use crate::datapath::receive::{EpochName, Opened, owner_of, text_of};
use crate::datapath::{Datapath, Place, TrainBuilder, counters, peer_mut};
use crate::io::offload::{Splitter, VnetHeader};
use crate::path::Arrival;
use crate::session::{EpochShared, OpenEpoch, OpenError, SealLane};
use crate::shared::Origin;
use crate::verdict::{DropReason, Station};
use crate::wire::relay::{HOP_LIMIT_MAX, RELAY_FRONT_LEN, RELAY_OVERHEAD, RelayHeader};
use crate::wire::{FRAME_OVERHEAD, HEADER_LEN, Header, INNER_LEN, Kind, PIECE_LEN, TAG_LEN};

/// Our lane of our own group key.
#[derive(Debug, Default)]
pub(super) struct OwnGroup {
    lane: Option<SealLane>,
    /// The newest key's number: none is used twice, for its counters would begin anew.
    newest: Option<u32>,
    worn_reported: bool,
    /// When we last said that we have none and need one.
    wanted_reported: Option<Instant>,
    /// A datagram being sealed or copied.
    scratch: Vec<u8>,
}

/// One of a source's keys, by its number.
pub(super) fn group_epoch(groups: &mut [OpenEpoch], number: u32) -> Option<&mut OpenEpoch> {
    groups
        .iter_mut()
        .find(|epoch| epoch.local_index() == number)
}

impl Datapath {
    pub(super) fn set_group_key(&mut self, key: &GroupKey) {
        let Some(implementation) = self.shared.implementations.get(&key.suite).copied() else {
            return;
        };
        let keys = SessionKeys {
            slot: key.slot.unwrap_or(PeerSlot(u16::MAX)),
            local_index: key.epoch,
            remote_index: key.epoch,
            suite: key.suite,
            send_key: key.key.clone(),
            recv_key: key.key.clone(),
            peer_lanes: key.lanes,
        };
        let Some(slot) = key.slot else {
            if self.group.newest.is_some_and(|newest| key.epoch <= newest) {
                return;
            }
            let lane = u8::try_from(usize::from(self.worker) % LANES_MAX).unwrap_or(0);
            self.group.lane = SealLane::new(&keys, implementation, lane);
            self.group.newest = Some(key.epoch);
            self.group.worn_reported = false;
            self.group.scratch.reserve(DATAGRAM_LEN_MAX);
            return;
        };
        let Some(peer) = peer_mut(&mut self.peers, slot) else {
            return;
        };
        if group_epoch(&mut peer.groups, key.epoch).is_some() {
            return;
        }
        if peer.groups.len() >= GROUP_EPOCHS_MAX {
            peer.groups.remove(0);
        }
        let shared = EpochShared {
            pending: AtomicU16::new(0),
            confirmed: AtomicBool::new(true),
            forged: AtomicU64::new(0),
        };
        let epoch = OpenEpoch::new(Arc::new(keys), implementation, Arc::new(shared));
        peer.groups.push(epoch);
        self.group.scratch.reserve(DATAGRAM_LEN_MAX);
    }

    pub(super) fn remove_group_key(&mut self, slot: Option<PeerSlot>, number: u32) {
        match slot {
            None => {
                self.group.lane.take_if(|lane| lane.local_index() == number);
            }
            Some(slot) => {
                if let Some(peer) = peer_mut(&mut self.peers, slot) {
                    peer.groups.retain(|epoch| epoch.local_index() != number);
                }
            }
        }
    }

    /// Sends a frame of ours along our tree; false if there is none, or no key for it.
    pub(super) fn flood_tree(&mut self, bytes: &[u8], now: Instant) -> bool {
        let fib = Arc::clone(&self.fib);
        let Some(tree) = &fib.group else { return false };
        if self.group.lane.is_none() {
            self.report_group_wanted(now);
            return false;
        }
        let Some((vnet, frame)) = VnetHeader::parse(bytes) else {
            return true;
        };
        let Ok(splitter) = Splitter::new(&vnet, frame) else {
            self.count_drop(DropReason::BadFrame);
            return true;
        };
        let datagram_max = self.tree_max(&tree.children, tree.datagram_max.into());
        let inner_max = datagram_max.saturating_sub(RELAY_OVERHEAD);
        let meta = splitter.meta().to_wire();
        let Some(mut whole) = self.pool.take() else {
            self.count_drop(DropReason::PoolEmpty);
            return true;
        };
        for index in 0..splitter.count() {
            let len = splitter.len_of(index);
            splitter.write(index, whole.bytes_mut());
            let frame = whole.bytes().get(..len).unwrap_or_default();
            if FRAME_OVERHEAD + len <= inner_max {
                let head = [Kind::Frame as u8, meta];
                self.send_group(&head, frame, &tree.children);
                continue;
            }
            let (first, second) = frame.split_at(len.div_ceil(2));
            if FRAME_OVERHEAD + PIECE_LEN + first.len() > inner_max {
                self.count_drop(DropReason::TooBig);
                continue;
            }
            self.count(Station::SealPieces, 1);
            let [high, low] = u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes();
            for (part, bytes) in [(0, first), (1, second)] {
                let head = [Kind::Piece as u8, meta, part, high, low];
                self.send_group(&head, bytes, &tree.children);
            }
        }
        self.pool.put(whole);
        self.report_group_wear();
        true
    }

    /// The largest datagram that every child's path carries, and the whole tree where control knows it.
    fn tree_max(&self, children: &[PeerSlot], known: usize) -> usize {
        let paths = children.iter().filter_map(|child| {
            Some(
                self.peer(*child)?
                    .shared
                    .endpoint
                    .load()
                    .as_ref()?
                    .datagram_max,
            )
        });
        let paths = paths.min().unwrap_or(DATAGRAM_LEN_MAX);
        if known == 0 { paths } else { known.min(paths) }
    }

    /// Seals one datagram for everybody and sends each child a copy.
    fn send_group(&mut self, head: &[u8], body: &[u8], children: &[PeerSlot]) {
        let mut inner = std::mem::take(&mut self.group.scratch);
        inner.clear();
        inner.resize(HEADER_LEN, 0);
        inner.extend_from_slice(head);
        inner.extend_from_slice(body);
        inner.resize(inner.len() + TAG_LEN, 0);
        let lane = self.group.lane.as_mut();
        if lane.is_some_and(|lane| lane.seal(&mut inner)) {
            self.count(Station::Seal, 1);
            self.copy_to(children, &inner, HOP_LIMIT_MAX, self.label);
        } else {
            self.count_drop(DropReason::KeyExhausted);
        }
        self.group.scratch = inner;
    }

    fn report_group_wanted(&mut self, now: Instant) {
        let lately = |at: Instant| now.duration_since(at) < GROUP_KEY_WANTED_INTERVAL;
        if self.group.wanted_reported.is_some_and(lately) {
            return;
        }
        self.group.wanted_reported = Some(now);
        let counters = counters(&self.shared, self.worker);
        self.shared.report(Event::GroupKeyWanted, counters);
    }

    fn report_group_wear(&mut self) {
        let Some(lane) = &self.group.lane else { return };
        if lane.is_worn() && !self.group.worn_reported {
            self.group.worn_reported = true;
            let event = Event::GroupKeyDue {
                epoch: lane.local_index(),
            };
            self.shared
                .report(event, counters(&self.shared, self.worker));
        }
    }

    /// A copy under a hop tag of ours for each of `children`.
    fn copy_to(&mut self, children: &[PeerSlot], inner: &[u8], hop_limit: u8, source: u64) {
        for child in children {
            let direct = self
                .peer(*child)
                .is_some_and(|peer| peer.way == Some(NextHop::Direct));
            let added = if direct {
                self.with_sink(*child, |builder, sink, _| {
                    let begun = builder.is_empty();
                    let added = builder.append_group(inner, hop_limit, source, sink);
                    (begun && added, added)
                })
            } else {
                self.copy_beside(*child, inner, hop_limit, source)
            };
            match added {
                Some((begun, added)) => {
                    if begun {
                        self.dirty.push(*child);
                    }
                    self.count(Station::GroupCopies, u64::from(added));
                }
                None => self.count_drop(DropReason::PathDown),
            }
        }
    }

    /// A copy for a child whose frames go another way: on its own path, as a train of its own.
    fn copy_beside(
        &mut self,
        child: PeerSlot,
        inner: &[u8],
        hop_limit: u8,
        source: u64,
    ) -> Option<(bool, bool)> {
        let endpoint = **self.peer(child)?.shared.endpoint.load().as_ref()?;
        let to = Arrival {
            address: endpoint.address,
            local: endpoint.local,
        };
        let mut added = None;
        self.with_address(child, to, endpoint.datagram_max, |sink| {
            let mut builder = TrainBuilder::default();
            added = Some((false, builder.append_group(inner, hop_limit, source, sink)));
            builder.flush(sink);
        });
        added
    }

    /// A flood that `ingress` vouched for: opened for us, copied for our children.
    pub(super) fn group(
        &mut self,
        header: &RelayHeader,
        datagram: &mut [u8],
        place: Place,
        ingress: PeerSlot,
        now: Instant,
    ) -> Result<Opened, DropReason> {
        if header.source == self.label {
            return Err(DropReason::SplitHorizon);
        }
        let source = *self
            .labels
            .get(&header.source)
            .ok_or(DropReason::UnknownLabel)?;
        let fib = Arc::clone(&self.fib);
        let branch = fib
            .group
            .as_ref()
            .and_then(|group| group.sources.get(&source))
            .filter(|branch| branch.parent == ingress)
            .ok_or(DropReason::NotParent)?;
        let end = datagram.len().saturating_sub(TAG_LEN);
        let whole = &mut *datagram;
        let inner = whole
            .get_mut(RELAY_FRONT_LEN..end)
            .ok_or(DropReason::BadHeader)?;
        let (inner_header, bytes) = Header::parse(inner).ok_or(DropReason::BadHeader)?;
        let bytes = *bytes;
        let owner = owner_of(inner_header.lane, &self.shared);
        if owner != self.worker {
            self.hand_off(owner, datagram, Origin::Hop(ingress))?;
            return Ok(Opened::From(ingress));
        }
        let mut copy = std::mem::take(&mut self.group.scratch);
        copy.clear();
        copy.extend_from_slice(inner);
        let opened = self.open_group(source, &inner_header, &bytes, inner);
        let passes = matches!(opened, Ok(()) | Err(DropReason::NoGroupKey));
        if passes && !branch.children.is_empty() {
            self.pass_on_copy(header, &copy, &branch.children);
        }
        self.group.scratch = copy;
        opened?;
        self.count(Station::Open, 1);
        let (kind, meta, body) = match text_of(inner) {
            [kind, meta, body @ ..] => (*kind, *meta, body),
            _ => return Err(DropReason::BadPayload),
        };
        let start = place.start + RELAY_FRONT_LEN + HEADER_LEN + INNER_LEN;
        let place = Place { start, ..place };
        match Kind::parse(kind) {
            Some(Kind::Frame) => self.frame(source, meta, body, place, now)?,
            Some(Kind::Frames) => self.frames(source, meta, body, place, now)?,
            Some(Kind::Piece) => {
                let name = EpochName::Group(source, inner_header.receiver);
                self.piece(source, (name, inner_header), (meta, body), now)?;
            }
            Some(Kind::Control | Kind::Bench) | None => return Err(DropReason::BadPayload),
        }
        Ok(Opened::From(ingress))
    }

    fn open_group(
        &mut self,
        source: PeerSlot,
        header: &Header,
        bytes: &[u8; HEADER_LEN],
        inner: &mut [u8],
    ) -> Result<(), DropReason> {
        let lane = peer_mut(&mut self.peers, source)
            .and_then(|peer| group_epoch(&mut peer.groups, header.receiver))
            .ok_or(DropReason::NoGroupKey)?
            .lane(header.lane)
            .ok_or(DropReason::BadHeader)?;
        let text = inner.get_mut(HEADER_LEN..).unwrap_or_default();
        lane.open(header.counter, bytes, text)
            .map_err(|error| match error {
                OpenError::Replayed => DropReason::Replayed,
                OpenError::Forged => DropReason::Forged,
            })
    }

    fn pass_on_copy(&mut self, header: &RelayHeader, inner: &[u8], children: &[PeerSlot]) {
        if !self.limits.relay {
            self.count_drop(DropReason::NoRelay);
        } else if header.hop_limit <= 1 {
            self.count_drop(DropReason::HopLimit);
        } else {
            self.copy_to(children, inner, header.hop_limit - 1, header.source);
        }
    }
}

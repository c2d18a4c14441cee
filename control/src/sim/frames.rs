//! Overlay frames that a test watches: how often each was transmitted, and where it arrived how often.
//!
//! ```text
//!  unicast   the FIB's route, hop by hop
//!  flood     up to 64 members: one sealed copy for each; beyond, GROUP copies along the source's tree
//! ```

use std::collections::BTreeMap;

use weft_engine::command::{Event, PeerSlot};

use super::datagrams::{GroupCopy, HOP_LIMIT, Payload};
use super::{HostId, Sim};

/// The number of a frame that is watched; 0 is nobody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct FrameId(u64);

/// What became of one frame.
#[derive(Debug, Clone, Default)]
pub(crate) struct FrameFate {
    /// Datagrams that carried it, over all hops.
    pub(crate) transmissions: u64,
    /// How often it came to each host.
    pub(crate) arrivals: BTreeMap<HostId, u64>,
}

impl Sim {
    /// A container at `host` sends a frame to one at `to`.
    pub(crate) fn send_frame(&mut self, host: HostId, to: HostId) -> FrameId {
        let frame = self.watch_frame();
        let label = self.hosts[to].engine.label;
        if let Some(slot) = self.hosts[host].engine.slots.get(&label).copied()
            && !self.send_datagram(host, slot, Payload::Frame(frame))
        {
            self.want_session(host, slot);
        }
        frame
    }

    /// A container at `host` sends a frame to everybody.
    pub(crate) fn flood_frame(&mut self, host: HostId) -> FrameId {
        let frame = self.watch_frame();
        let fib = self.hosts[host].engine.fib.clone();
        let own_key = self.newest_group_key(host);
        if let (Some(group), Some(epoch)) = (&fib.group, own_key) {
            let source = self.hosts[host].engine.label;
            for child in &group.children {
                let copy = GroupCopy {
                    source,
                    epoch,
                    hops_left: HOP_LIMIT,
                    frame,
                };
                self.send_group_copy(host, *child, copy);
            }
        } else {
            if fib.group.is_some() {
                self.event(host, Event::GroupKeyWanted);
            }
            for slot in &fib.flood {
                if !self.send_datagram(host, *slot, Payload::Frame(frame)) {
                    self.want_session(host, *slot);
                }
            }
        }
        frame
    }

    /// The number of the key that the host seals floods under.
    pub(crate) fn newest_group_key(&self, host: HostId) -> Option<u32> {
        let keys = self.hosts[host].engine.group_keys.keys();
        let own = keys.filter(|(slot, _)| slot.is_none());
        own.map(|(_, epoch)| *epoch).max()
    }

    /// Whether the host opens what the other one floods under that key.
    pub(crate) fn opens_floods(&self, host: HostId, source: HostId, epoch: u32) -> bool {
        let engine = &self.hosts[host].engine;
        let slot = engine.slots.get(&self.hosts[source].engine.label).copied();
        slot.is_some() && engine.group_keys.contains_key(&(slot, epoch))
    }

    pub(crate) fn fate(&self, frame: FrameId) -> FrameFate {
        self.frames.get(&frame).cloned().unwrap_or_default()
    }

    fn watch_frame(&mut self) -> FrameId {
        self.frame_count += 1;
        let frame = FrameId(self.frame_count);
        self.frames.insert(frame, FrameFate::default());
        frame
    }

    pub(super) fn count_transmission(&mut self, payload: &Payload) {
        let (Payload::Frame(frame) | Payload::Group(GroupCopy { frame, .. })) = payload else {
            return;
        };
        if let Some(fate) = self.frames.get_mut(frame) {
            fate.transmissions += 1;
        }
    }

    pub(super) fn frame_arrived(&mut self, host: HostId, frame: FrameId) {
        if let Some(fate) = self.frames.get_mut(&frame) {
            *fate.arrivals.entry(host).or_default() += 1;
        }
    }

    /// A tree's arrows are direct paths.
    fn send_group_copy(&mut self, host: HostId, child: PeerSlot, copy: GroupCopy) {
        if self.hosts[host].engine.path(child).is_some() {
            self.send_direct(host, child, Payload::Group(copy));
        }
    }

    /// Taken from the parent in the source's tree alone; delivered where its key is, and passed on.
    pub(super) fn group_arrived(&mut self, host: HostId, ingress: PeerSlot, copy: GroupCopy) {
        let engine = &self.hosts[host].engine;
        let fib = engine.fib.clone();
        let source = engine.slots.get(&copy.source).copied();
        let branch = source.and_then(|source| fib.group.as_ref()?.sources.get(&source));
        let Some(branch) = branch.filter(|branch| branch.parent == ingress) else {
            self.unrelayed += 1;
            return;
        };
        if engine.group_keys.contains_key(&(source, copy.epoch)) {
            self.frame_arrived(host, copy.frame);
        }
        let hops_left = copy.hops_left.saturating_sub(1);
        if hops_left == 0 || !self.hosts[host].engine.limits.relay {
            return;
        }
        for child in &branch.children {
            self.send_group_copy(host, *child, GroupCopy { hops_left, ..copy });
        }
    }
}

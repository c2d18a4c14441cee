//! One host of the simulation: a machine that may be down, its disk, and its containers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use weft_engine::command::Flow;

use crate::ipam::{Contact, Ipam, StoreChange, StoreContent};
use crate::peer::PeerId;

/// When a record was written: what its host spoke as, number.
pub(super) type Stamp = (u64, u64);

/// A container; its addresses are what stands on its interface.
#[derive(Debug, Clone, Default)]
pub(super) struct Container {
    pub(super) addresses: BTreeSet<u32>,
    pub(super) died_at: Option<Instant>,
}

/// A write on its way to the disk.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) token: u64,
    pub(super) changes: Vec<StoreChange>,
}

/// One host.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) id: PeerId,
    pub(super) ipam: Option<Ipam>,
    pub(super) disk: StoreContent,
    pub(super) writes: VecDeque<Write>,
    pub(super) last_write_at: Instant,
    /// Older disks that may be put back, with a ring on them.
    pub(super) old_disks: Vec<StoreContent>,
    pub(super) containers: BTreeMap<String, Container>,
    pub(super) blocked: BTreeSet<u32>,
    pub(super) flows: BTreeMap<PeerId, Flow>,
    /// Counts the starts of all hosts.
    pub(super) boot: u64,
    pub(super) group: u64,
    pub(super) records: BTreeMap<(PeerId, u16), (Stamp, Vec<u8>)>,
    pub(super) published: u64,
    /// The number of its start, or a higher one: records of a copy of it may not outrank its own.
    pub(super) speaks_as: u64,
    /// Whom the machine believes to be within reach, and which start of it.
    pub(super) told: BTreeMap<PeerId, (Contact, u64)>,
    pub(super) has_left: bool,
    pub(super) disk_fails: bool,
    /// The number of its index, or of the host it was copied from.
    pub(super) is_clone: bool,
}

impl Host {
    pub(super) fn new(id: PeerId, now: Instant) -> Self {
        Self {
            id,
            ipam: None,
            disk: StoreContent::new(),
            writes: VecDeque::new(),
            last_write_at: now,
            old_disks: Vec::new(),
            containers: BTreeMap::new(),
            blocked: BTreeSet::new(),
            flows: BTreeMap::new(),
            boot: 0,
            group: 0,
            records: BTreeMap::new(),
            published: 0,
            speaks_as: 0,
            told: BTreeMap::new(),
            has_left: false,
            disk_fails: false,
            is_clone: false,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.ipam.is_some()
    }

    /// Writes one transaction.
    pub(super) fn apply(&mut self, changes: Vec<StoreChange>) {
        for (key, value) in changes {
            match value {
                Some(value) => self.disk.insert(key, value),
                None => self.disk.remove(&key),
            };
        }
    }

    /// Whether frames with this source leave the host.
    pub(super) fn is_on_the_wire(&self, address: u32) -> bool {
        let has = |container: &Container| {
            container.died_at.is_none() && container.addresses.contains(&address)
        };
        self.is_up() && !self.blocked.contains(&address) && self.containers.values().any(has)
    }

    /// The addresses on the interfaces of running containers.
    pub(super) fn addresses(&self) -> BTreeSet<u32> {
        let running = self
            .containers
            .values()
            .filter(|container| container.died_at.is_none());
        running
            .flat_map(|container| container.addresses.iter().copied())
            .collect()
    }
}

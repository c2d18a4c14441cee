//! Taking up what the store holds, at start and after the store had failed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use ipnet::Ipv4Net;

use crate::ipam::compare::Settling;
use crate::ipam::dispute::Testimony;
use crate::ipam::durable::{Restored, StoreContent, StoreDamage, restore};
use crate::ipam::elect::Election;
use crate::ipam::exchange::Exchange;
use crate::ipam::faults::Faults;
use crate::ipam::gate::Gate;
use crate::ipam::holdings::Holdings;
use crate::ipam::paxos::Acceptor;
use crate::ipam::publish::Published;
use crate::ipam::relearn::{Relearning, is_lost};
use crate::ipam::request::{Failure, IpamRequestId};
use crate::ipam::seats::Bearers;
use crate::ipam::{Ipam, IpamConfig, IpamInit, IpamOutput};
use crate::peer::{PeerId, PeerName};
use crate::random::Randomness;

impl IpamConfig {
    /// A configuration without planted faults.
    #[must_use]
    pub fn new(me: PeerId, name: PeerName, range: Ipv4Net, init: IpamInit) -> Self {
        Self {
            me,
            name,
            incarnation: 0,
            range,
            default_subnet: range,
            range6: None,
            init,
            faults: Faults::default(),
        }
    }

    /// The same with planted faults.
    #[cfg(test)]
    pub(crate) fn with_faults(self, faults: Faults) -> Self {
        Self { faults, ..self }
    }
}

impl Ipam {
    /// Makes a machine that goes on where the store ends.
    ///
    /// # Errors
    /// [`StoreDamage`] if the content is not what was written: set it aside and begin with `lost_store`. Or if it is
    /// about another range (`range_of`): what was promised and given there is kept until that range is used again.
    pub fn new(
        config: IpamConfig,
        content: StoreContent,
        random: Randomness,
        now: Instant,
    ) -> Result<Self, StoreDamage> {
        let mut ipam = Self {
            config,
            random,
            ring: None,
            owned: Vec::new(),
            acceptor: Acceptor::default(),
            holdings: Holdings::default(),
            gate: Gate::default(),
            contacts: BTreeMap::new(),
            gone: BTreeMap::new(),
            called_changed: false,
            bearers: Bearers::default(),
            meetings: BTreeMap::new(),
            strangers: BTreeSet::new(),
            voting: BTreeMap::new(),
            free: BTreeMap::new(),
            settling: Settling::default(),
            testimony: Testimony::default(),
            exchange: Exchange::default(),
            election: Election::default(),
            published: Published::default(),
            pending: BTreeMap::new(),
            leaving: None,
            sight: None,
            inheriting: BTreeMap::new(),
            cloned: false,
            store_failed: false,
            relearning: Relearning::default(),
            removal_told: 0,
            blocked: BTreeSet::new(),
            stepped_at: now,
        };
        ipam.take_up(content, now)?;
        ipam.finish(now);
        Ok(ipam)
    }

    fn take_up(&mut self, content: StoreContent, now: Instant) -> Result<(), StoreDamage> {
        let Restored {
            ring,
            acceptor,
            holdings,
            lost,
            called,
        } = restore(&content)?;
        if ring.as_ref().is_some_and(|ring| ring.range != self.range()) {
            return Err(StoreDamage);
        }
        self.gate.begin(content);
        self.acceptor = acceptor;
        self.holdings = holdings;
        self.ring = ring;
        self.relearning.read_again(lost);
        self.take_up_called(called);
        match (&self.ring, &self.config.init) {
            (None, IpamInit::Seed(names)) => {
                let ring = self.seeded_ring(&names.clone());
                self.adopt(ring);
                self.take_seeded_share(now);
            }
            _ => {
                let me = self.config.me;
                self.owned = self
                    .ring
                    .as_ref()
                    .map(|ring| ring.owned_by(me))
                    .unwrap_or_default();
            }
        }
        Ok(())
    }

    /// A write is done, or failed.
    pub(crate) fn persisted(&mut self, token: u64, durable: bool) {
        if durable {
            self.gate.durable(token);
            if self.gate.is_all_durable() {
                self.sight = None;
            }
            return;
        }
        self.store_failed = true;
        self.gate.failed();
        for request in self.pending.keys().copied().collect::<Vec<IpamRequestId>>() {
            self.pending.remove(&request);
            let result = Err(Failure::Store);
            self.gate.at_once(IpamOutput::Answer { request, result });
        }
    }

    /// The store works again; what it holds is the truth, unless it is a new one in the place of one that was lost
    /// while we ran: then all that we know goes into it.
    pub(crate) fn reloaded(&mut self, content: StoreContent, now: Instant) {
        let before = self.ring.clone();
        let nothing_rested = self.settling.spans.is_empty();
        self.pending.clear();
        self.exchange = Exchange::default();
        self.election.forget_proposal();
        self.settling = Settling::default();
        self.testimony = Testimony::default();
        self.published = Published::default();
        self.leaving = None;
        let dead = self.holdings.deaths();
        let mut is_as_before = false;
        if is_lost(&content) && !self.is_relearning() {
            self.gate.begin(content);
            self.gate.ring_changed();
            self.gate.acceptor_changed();
            self.holdings.all_changed();
        } else if self.take_up(content, now).is_err() {
            self.gate.at_once(IpamOutput::Reload);
            return;
        } else {
            is_as_before = nothing_rested && self.ring == before;
        }
        self.free_again();
        for (holder, at) in dead {
            self.holdings.died(&holder, at);
        }
        if let Some(sight) = self.sight.clone() {
            self.present(&sight, now);
        }
        self.store_failed = false;
        if is_as_before {
            // What was agreed is what the store holds: frames go on.
            self.finish(now);
            return;
        }
        let contacts = std::mem::take(&mut self.contacts);
        // Whatever was agreed rested on what may not have been written.
        for peer in self.meetings.keys().copied().collect::<Vec<_>>() {
            self.close(peer, now);
        }
        self.tell_flows(now);
        self.reachable(BTreeMap::new(), now);
        self.reachable(contacts, now);
        self.finish(now);
    }
}

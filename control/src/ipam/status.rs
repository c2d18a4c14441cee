//! What `status ipam` shows.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use crate::ipam::request::{ElectionStatus, IpamStatus, OwnerStatus, Request};
use crate::ipam::{Contact, Ipam};
use crate::ipam::{IpamInit, allocate::Need};
use crate::peer::{PeerId, PeerName};

impl Ipam {
    /// Everything that is shown.
    #[must_use]
    pub fn status(&self) -> IpamStatus {
        let range = self.range();
        let mut counts: BTreeMap<PeerId, u64> = BTreeMap::new();
        let mut disputed = Vec::new();
        if let Some(ring) = &self.ring {
            for run in ring.runs() {
                *counts.entry(run.claim.owner()).or_default() += run.span.count();
                if run.claim.is_disputed() {
                    disputed.push(run.span.to_string());
                }
            }
        }
        #[expect(
            clippy::cast_precision_loss,
            reason = "a share in percent needs four digits"
        )]
        let share = |count: u64| 100.0 * count as f64 / range.count() as f64;
        let me = self.config.me;
        let mut owners: Vec<OwnerStatus> = counts
            .into_iter()
            .map(|(peer, count)| OwnerStatus {
                peer,
                count,
                share: share(count),
                reachable: peer == me || self.contacts.contains_key(&peer),
                seed: self.seed_of(peer),
            })
            .collect();
        owners.sort_by_key(|owner| owner.peer != me);
        IpamStatus {
            state: self.state(&owners),
            range: self.config.range,
            default_subnet: self.config.default_subnet,
            range6: self.config.range6,
            genesis: self.ring.as_ref().map(|ring| ring.genesis.to_string()),
            owners,
            active: self.holdings.count_in(range),
            disputed,
            misplaced: self
                .holdings
                .in_span(range)
                .filter(|(address, _)| self.blocked.contains(&u32::from(*address)))
                .map(|(address, holder)| (address, holder.to_owned()))
                .collect(),
            strangers: self.strangers.iter().copied().collect(),
            waiting: self.pending.len(),
            pending_allocates: self.pending_allocates(),
            pending_claims: self.pending_claims(),
            election: self.election_status(),
            members: self
                .ring
                .iter()
                .flat_map(|ring| ring.council.members.iter().copied())
                .collect(),
        }
    }

    fn pending_allocates(&self) -> Vec<(String, IpNet)> {
        let default = self.config.default_subnet;
        let asked = self.pending.values().filter_map(|pending| {
            let Request::Allocate { holder, subnet } = &pending.what else {
                return None;
            };
            Some((holder.clone(), IpNet::V4(subnet.unwrap_or(default))))
        });
        asked.collect()
    }

    fn pending_claims(&self) -> Vec<(String, IpNet)> {
        let asked = self.pending.values().filter_map(|pending| {
            let Request::Claim { holder, address } = &pending.what else {
                return None;
            };
            Some((holder.clone(), *address))
        });
        asked.collect()
    }

    fn needs(&self, wanted: fn(&Need) -> bool) -> bool {
        self.pending
            .values()
            .any(|pending| pending.need.as_ref().is_some_and(wanted))
    }

    fn election_status(&self) -> Option<ElectionStatus> {
        let wanted = self.needs(|need| *need == Need::Ring) || self.election.needed;
        let awaited = wanted && self.ring.is_none() && !self.is_relearning();
        awaited.then(|| ElectionStatus {
            votes: self.votes_on_first_ring(),
            known: self.known_electors().len(),
            quorum: self.first_quorum(),
        })
    }

    fn state(&self, owners: &[OwnerStatus]) -> String {
        if self.is_relearning() {
            "learning from peers what this host owns - its store was damaged or gone".to_owned()
        } else if self.ring.is_some() {
            if !owners.is_empty() && owners.iter().all(|owner| !owner.reachable) {
                "all IP ranges owned by unreachable peers - use 'rmpeer' if they are dead"
                    .to_owned()
            } else if self.store_failed {
                "no new addresses - the store takes no writes".to_owned()
            } else if self.needs(|need| matches!(need, Need::Space(_) | Need::Address(_))) {
                "waiting for IP(s) to become available".to_owned()
            } else {
                "ready".to_owned()
            }
        } else if let Some(ElectionStatus { known, quorum, .. }) = self.election_status() {
            if self.config.init == IpamInit::Observer {
                "priming".to_owned()
            } else {
                format!("awaiting consensus (quorum: {quorum}, known: {known})")
            }
        } else {
            "idle".to_owned()
        }
    }

    /// The name that was given for a share which nobody has taken up.
    pub fn seed_of(&self, owner: PeerId) -> Option<PeerName> {
        let IpamInit::Seed(names) = &self.config.init else {
            return None;
        };
        let mut names = names.iter().copied();
        names.find(|name| Self::seeded_owner(*name) == owner)
    }

    /// A peer out of reach that owns ranges or votes, as it was last.
    pub fn gone(&self, peer: PeerId) -> Option<&Contact> {
        self.gone.get(&peer)
    }

    /// The peers that own ranges or vote, for `rmpeer` by name.
    pub fn owners(&self) -> BTreeSet<PeerId> {
        let Some(ring) = &self.ring else {
            return BTreeSet::new();
        };
        let owners = ring.runs().map(|run| run.claim.owner());
        owners.chain(ring.council.members.iter().copied()).collect()
    }
}

#[cfg(test)]
impl Ipam {
    /// First, last, era and owners of each run, for the simulator's checker.
    pub(crate) fn beliefs(&self) -> Vec<(u32, u32, u64, Vec<PeerId>)> {
        let runs = self.ring.iter().flat_map(crate::ipam::ring::Ring::runs);
        runs.map(|run| {
            let (span, claim) = (run.span, run.claim);
            (
                span.first(),
                span.last(),
                claim.version.era,
                claim.owners().to_vec(),
            )
        })
        .collect()
    }

    /// Holder and address of all that is in use.
    pub(crate) fn in_use(&self) -> BTreeSet<(String, u32)> {
        let taken = self.holdings.taken().iter();
        taken
            .map(|(address, holder)| (holder.clone(), *address))
            .collect()
    }
}

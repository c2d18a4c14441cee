//! What happens to addresses: who is within reach, messages about them in and out, and what the driver is to do.
//!
//! ```text
//!  peers ─────► Contact ─┐            ┌─► message by link or session
//!  Message::Ipam ────────┼──► ipam ───┤
//!  driver's requests ────┘            └─► driver: writes, answers, what is blocked
//! ```

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use ipnet::IpNet;
use weft_engine::command::{Command, Flow};

use crate::api::{IpamElection, IpamGauges, IpamOwner, IpamReport, PendingAddress};
use crate::config::{BootId, LINK_DEAD_AFTER, REFUSALS_SHOWN};
use crate::ipam::check::Believed;
use crate::ipam::request::{Failure, IpamStatus, OwnerStatus};
use crate::ipam::span::Span;
use crate::ipam::{Contact, Ipam, IpamInput, IpamNotice, IpamOutput};
use crate::link::message::ByeReason;
use crate::node::Node;
use crate::node::exchange::Output;
use crate::peer::PeerId;
use crate::record::{RecordKey, RecordKind};

/// The machine and what it was told last.
pub(super) struct Addresses {
    ipam: Ipam,
    contacts: BTreeMap<PeerId, (Contact, BootId)>,
    targets: usize,
    /// Another process has our key.
    runs_twice: bool,
    /// Somebody may have come within reach, or gone out of it.
    look: bool,
    /// Peers with another ring or range, and in which way; until we agree. At most [`REFUSALS_SHOWN`].
    apart: BTreeMap<PeerId, String>,
}

fn pending(requests: &[(String, IpNet)]) -> Vec<PendingAddress> {
    let requests = requests.iter().map(|(holder, cidr)| PendingAddress {
        holder: holder.clone(),
        cidr: cidr.to_string(),
    });
    requests.collect()
}

fn gauges(status: &IpamStatus, me: PeerId) -> IpamGauges {
    let own = status.owners.iter().find(|owner| owner.peer == me);
    let unreachable = || status.owners.iter().filter(|owner| !owner.reachable);
    // Not `sum`, which makes -0 of none.
    let share = unreachable().fold(0.0, |share, owner| share + owner.share);
    IpamGauges {
        ips: status.active,
        owned_ips: own.map_or(0, |own| own.count),
        max_ips: Span::of(status.range).count(),
        ipam_unreachable_count: unreachable().count() as u64,
        ipam_unreachable_percentage: share,
        ipam_pending_allocates: status.pending_allocates.len() as u64,
        ipam_pending_claims: status.pending_claims.len() as u64,
    }
}

impl Node {
    /// Lets the node give addresses.
    #[must_use]
    pub fn with_ipam(mut self, ipam: Ipam) -> Self {
        self.addresses = Some(Addresses {
            ipam,
            contacts: BTreeMap::new(),
            targets: 0,
            runs_twice: false,
            look: true,
            apart: BTreeMap::new(),
        });
        self
    }

    /// What `status ipam` shows; `None` if addresses are not given.
    pub(super) fn show_ipam(&self) -> Option<IpamReport> {
        let ipam = &self.addresses.as_ref()?.ipam;
        let status = ipam.status();
        let show = |owner: &OwnerStatus| {
            let known = self.peers.find(owner.peer).map(|peer| &peer.hello);
            let (name, nickname) = if owner.peer == self.identity.peer_id() {
                let nickname = self.config.nickname.to_string();
                (self.config.name, Some(nickname))
            } else {
                let known = known.map(|hello| (hello.name, hello.nickname.to_string()));
                let gone = ipam.gone(owner.peer);
                let gone = gone.map(|gone| (gone.name, gone.nickname.clone()));
                known.or(gone).unzip()
            };
            IpamOwner {
                peer_id: owner.peer.to_string(),
                name: name
                    .or(owner.seed)
                    .unwrap_or_else(|| owner.peer.name())
                    .to_string(),
                nickname: nickname.unwrap_or_default(),
                unheard: owner.seed.is_some(),
                addresses: owner.count,
                share: owner.share,
                reachable: owner.reachable,
            }
        };
        let ids = |peers: &[PeerId]| peers.iter().map(PeerId::to_string).collect();
        let misplaced = status.misplaced.iter();
        Some(IpamReport {
            state: status.state.clone(),
            range: status.range.to_string(),
            default_subnet: status.default_subnet.to_string(),
            range6: status.range6.map(|range| range.to_string()),
            ring: status.genesis.clone(),
            active: status.active,
            owners: status.owners.iter().map(show).collect(),
            disputed: status.disputed.clone(),
            misplaced: misplaced
                .map(|(ip, holder)| (IpAddr::V4(*ip), holder.clone()))
                .collect(),
            strangers: ids(&status.strangers),
            waiting: status.waiting,
            pending_allocates: pending(&status.pending_allocates),
            pending_claims: pending(&status.pending_claims),
            election: status.election.map(|election| IpamElection {
                votes: election.votes,
                known: election.known,
                quorum: election.quorum,
            }),
            voters: ids(&status.members),
            gauges: gauges(&status, self.identity.peer_id()),
        })
    }

    /// Peers with which no link stays, for their addresses are others' than ours: who, and in which way.
    pub(super) fn peers_apart(&self) -> impl Iterator<Item = (PeerId, &str)> {
        let apart = self.addresses.iter().flat_map(|addresses| &addresses.apart);
        apart.map(|(peer, why)| (*peer, why.as_str()))
    }

    /// What is believed of this host's addresses; `None` if addresses are not given.
    #[must_use]
    pub fn believed_addresses(&self) -> Option<Believed> {
        self.addresses
            .as_ref()
            .map(|addresses| addresses.ipam.believed())
    }

    /// The peers of this PeerId, shown name or nickname that own ranges or can be reached.
    #[must_use]
    pub fn find_owner(&self, text: &str) -> Vec<PeerId> {
        if let Ok(id) = text.parse::<PeerId>() {
            return vec![id];
        }
        let name = text.parse().ok();
        let known = self.peers.all().filter(|(_, peer)| {
            Some(peer.hello.name) == name || peer.hello.nickname.as_str() == text
        });
        let mut found: Vec<PeerId> = known.map(|(id, _)| id).collect();
        if let Some(addresses) = &self.addresses {
            let ipam = &addresses.ipam;
            let is_meant = |owner: &PeerId| match ipam.gone(*owner) {
                Some(gone) => Some(gone.name) == name || gone.nickname == text,
                None => Some(ipam.seed_of(*owner).unwrap_or_else(|| owner.name())) == name,
            };
            found.extend(ipam.owners().into_iter().filter(is_meant));
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    pub(super) fn ipam_input(&mut self, input: IpamInput, now: Instant) {
        if let Some(addresses) = &mut self.addresses {
            addresses.ipam.handle(input, now);
        } else if let IpamInput::Request { request, .. } = input {
            let result = Err(Failure::Off);
            let answer = IpamOutput::Answer { request, result };
            self.outputs.push_back(Output::Ipam(answer));
        }
    }

    pub(super) fn ipam_message(&mut self, from: PeerId, body: Vec<u8>, now: Instant) {
        if self.addresses.is_none() {
            if !body.is_empty() {
                self.send_ipam(from, Vec::new(), now);
            }
            return;
        }
        self.ipam_input(IpamInput::Message { from, body }, now);
    }

    /// The ways to others have changed.
    pub(super) fn contacts_changed(&mut self) {
        if let Some(addresses) = &mut self.addresses {
            addresses.look = true;
        }
    }

    /// Tells the machine what has changed and does what it wants.
    pub(super) fn do_addresses(&mut self, now: Instant) {
        let Some(addresses) = &self.addresses else {
            return;
        };
        let targets = self.dialer.named_others();
        let is_due = addresses.ipam.deadline().is_some_and(|at| now >= at);
        if targets != addresses.targets {
            if let Some(addresses) = &mut self.addresses {
                addresses.targets = targets;
            }
            self.ipam_input(IpamInput::Targets(targets), now);
        }
        self.tell_whether_we_run_twice(now);
        if self
            .addresses
            .as_mut()
            .is_some_and(|it| std::mem::take(&mut it.look))
        {
            self.tell_contacts(now);
        }
        if is_due {
            self.ipam_input(IpamInput::Tick, now);
        }
        while let Some(output) = self.addresses.as_mut().and_then(|it| it.ipam.poll_output()) {
            let publishes = matches!(output, IpamOutput::Publish { .. });
            self.carry_out_for_ipam(output, now);
            if publishes {
                self.do_gossip(now);
            }
        }
        let deadline = self.addresses.as_ref().and_then(|it| it.ipam.deadline());
        self.wake(deadline);
    }

    fn tell_whether_we_run_twice(&mut self, now: Instant) {
        let until = self.runs_twice_until(now);
        self.wake(until);
        let Some(addresses) = &mut self.addresses else {
            return;
        };
        if addresses.runs_twice != until.is_some() {
            addresses.runs_twice = until.is_some();
            self.ipam_input(IpamInput::Cloned(until.is_some()), now);
        }
    }

    fn tell_contacts(&mut self, now: Instant) {
        let contacts: BTreeMap<PeerId, (Contact, BootId)> = self
            .peers
            .all()
            .filter(|(id, _)| self.is_reachable(*id))
            .map(|(id, peer)| {
                let contact = Contact {
                    label: format!("{}({})", peer.hello.name, peer.hello.nickname),
                    name: peer.hello.name,
                    nickname: peer.hello.nickname.to_string(),
                    incarnation: peer.hello.incarnation,
                    // Others exchange no frames with us; they are asked when there is a reason.
                    meets: peer.link.is_some() || peer.session.suite().is_some(),
                };
                (id, (contact, peer.hello.boot_id))
            })
            .collect();
        let Some(addresses) = &mut self.addresses else {
            return;
        };
        if contacts == addresses.contacts {
            return;
        }
        let known = std::mem::replace(&mut addresses.contacts, contacts.clone());
        // A new process begins anew: the old one is gone first.
        let is_same =
            |id: &PeerId, boot: BootId| known.get(id).is_none_or(|(_, known)| *known == boot);
        let only = |same: bool| -> BTreeMap<PeerId, Contact> {
            let contacts = contacts.iter();
            contacts
                .filter(|(id, (_, boot))| !same || is_same(id, *boot))
                .map(|(id, (contact, _))| (*id, contact.clone()))
                .collect()
        };
        let (same, all) = (only(true), only(false));
        if same != all {
            addresses.ipam.handle(IpamInput::Reachable(same), now);
        }
        addresses.ipam.handle(IpamInput::Reachable(all), now);
    }

    fn carry_out_for_ipam(&mut self, output: IpamOutput, now: Instant) {
        match output {
            IpamOutput::Send { to, body } => self.send_ipam(to, body, now),
            IpamOutput::Publish { part, body } if body.is_empty() => {
                self.gossip.withdraw(RecordKind::Ring, part, now);
            }
            IpamOutput::Publish { part, body } => {
                self.gossip.publish(RecordKind::Ring, part, body, now);
            }
            IpamOutput::Flow { peer, flow } => {
                if flow != Flow::Shut
                    && let Some(addresses) = &mut self.addresses
                {
                    addresses.apart.remove(&peer);
                }
                if let Some(slot) = self.peers.find(peer).map(|peer| peer.slot) {
                    self.engine(Command::SetFlow { slot, flow });
                }
            }
            IpamOutput::Notice(IpamNotice::Stranger { peer, why }) => {
                if let Some(link) = self.peers.find(peer).and_then(|peer| peer.link) {
                    self.close_link(link, ByeReason::OtherRing, now);
                }
                if let Some(addresses) = &mut self.addresses
                    && (addresses.apart.len() < REFUSALS_SHOWN
                        || addresses.apart.contains_key(&peer))
                {
                    addresses.apart.insert(peer, why.clone());
                }
                let notice = IpamNotice::Stranger { peer, why };
                self.outputs
                    .push_back(Output::Ipam(IpamOutput::Notice(notice)));
            }
            IpamOutput::Blocked(blocked) => {
                let disputed = blocked.iter().map(|ip| ip.to_be_bytes()).collect();
                self.engine(Command::SetDisputed(disputed));
                let output = IpamOutput::Blocked(blocked);
                self.outputs.push_back(Output::Ipam(output));
            }
            IpamOutput::Answer {
                request,
                result: Err(Failure::Alive { peer, victim }),
            } if !self.answers(peer, now) => {
                let result = Err(Failure::Silent { victim });
                let output = IpamOutput::Answer { request, result };
                self.outputs.push_back(Output::Ipam(output));
            }
            IpamOutput::Persist { .. }
            | IpamOutput::Reload
            | IpamOutput::Answer { .. }
            | IpamOutput::Notice(_) => self.outputs.push_back(Output::Ipam(output)),
        }
    }

    /// Whether nothing speaks against it that the peer, which is within reach, is there: its link, if it has or had
    /// one just now, is not broken.
    fn answers(&self, peer: PeerId, now: Instant) -> bool {
        let Some(known) = self.peers.find(peer) else {
            return true;
        };
        match known.link.and_then(|link| self.links.get(&link)) {
            Some(entry) => !entry.suspect && !entry.link.is_suspect(now),
            None => known
                .gone_since
                .is_none_or(|since| now >= since + LINK_DEAD_AFTER),
        }
    }

    /// A peer's record about its ranges is new.
    pub(super) fn ring_record_changed(&mut self, key: RecordKey, now: Instant) {
        let origin = key.origin;
        if origin == self.identity.peer_id() {
            return;
        }
        let body = self.gossip.body(origin, RecordKind::Ring, key.part);
        if let Some(body) = body.map(<[u8]>::to_vec) {
            self.ipam_input(IpamInput::Record { origin, body }, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gauges_count_what_is_shown() {
        let owner = |n: u8, count, share, reachable| OwnerStatus {
            peer: PeerId([n; 16]),
            count,
            share,
            reachable,
            seed: None,
        };
        let asked = |cidr: &str| ("c1".to_owned(), cidr.parse().expect("a network"));
        let range = "10.32.0.0/24".parse().expect("a network");
        let mut status = IpamStatus {
            state: String::new(),
            range,
            default_subnet: range,
            range6: None,
            genesis: None,
            owners: Vec::new(),
            active: 0,
            disputed: Vec::new(),
            misplaced: Vec::new(),
            strangers: Vec::new(),
            waiting: 0,
            pending_allocates: Vec::new(),
            pending_claims: Vec::new(),
            election: None,
            members: Vec::new(),
        };
        let nothing = gauges(&status, PeerId([1; 16]));
        let all = IpamGauges {
            max_ips: 256,
            ..IpamGauges::default()
        };
        assert_eq!(nothing, all);
        assert!(nothing.ipam_unreachable_percentage.is_sign_positive());

        status.active = 3;
        status.owners = vec![
            owner(1, 128, 50.0, true),
            owner(2, 64, 25.0, false),
            owner(3, 32, 12.5, true),
            owner(4, 32, 12.5, false),
        ];
        // Those for votes or a ring count as neither.
        status.waiting = 5;
        status.pending_allocates = vec![asked("10.32.0.0/24"); 2];
        status.pending_claims = vec![asked("10.32.0.9/24")];
        assert_eq!(
            gauges(&status, PeerId([1; 16])),
            IpamGauges {
                ips: 3,
                owned_ips: 128,
                max_ips: 256,
                ipam_unreachable_count: 2,
                ipam_unreachable_percentage: 37.5,
                ipam_pending_allocates: 2,
                ipam_pending_claims: 1,
            }
        );
    }
}

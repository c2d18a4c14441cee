//! What happens to links: opened, up, duplicate, cloned, suspect, gone.
//!
//! ```text
//!  two links to one peer      made within LINK_SIMULTANEOUS      the one that the smaller PeerId dialled stays,
//!                                                                among equals the one with the smaller hash
//!                             else                               the newer one stays
//!  same key, other boot id    larger incarnation                 the peer restarted: its old link and sessions end
//!                             not larger, old one alive          a clone: refused and said
//! ```
//!
//! Both ends see the same facts, so they drop the same link. A dropped duplicate is no event for people.

use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use weft_engine::command::{Command, Flow};

use crate::config::{
    LINK_SIMULTANEOUS, PEER_FORGOTTEN_AFTER, PENDING_INBOUND_MAX, PENDING_INBOUND_PER_SOURCE_MAX,
};
use crate::link::handshake::Hello;
use crate::link::message::{ByeReason, Message, Refusal};
use crate::link::{Link, LinkAction, LinkContext};
use crate::node::admission::Source;
use crate::node::exchange::{DialId, LinkId, Output};
use crate::node::notice::Notice;
use crate::node::peers::Peer;
use crate::node::reach::Reach;
use crate::node::{LinkEntry, Node};
use crate::peer::PeerId;
use crate::session::{Session, SessionPeer};

impl Node {
    pub(super) fn link_opened(
        &mut self,
        id: LinkId,
        dial: Option<DialId>,
        remote: SocketAddr,
        now: Instant,
    ) {
        let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
        let closed = self.secrets.is_closed();
        let link = if let Some(dial) = dial {
            let Some(attempt) = self.dialer.opened(dial, id) else {
                // The target was forgotten, or its peer dialled us, in the meantime.
                self.outputs.push_back(Output::Close { link: id });
                return;
            };
            Link::dialled(self.secrets.offered(attempt).clone(), closed, now)
        } else {
            self.counters.links_accepted += 1;
            if !self.make_room_for_inbound(remote, now) {
                self.counters.links_turned_away += 1;
                self.outputs.push_back(Output::Close { link: id });
                return;
            }
            Link::accepted(closed, now)
        };
        self.links.insert(
            id,
            LinkEntry {
                link,
                remote,
                peer: None,
                suspect: false,
            },
        );
        // Whoever dialled speaks first.
        self.with_link(id, now, |_, _, _| {});
    }

    /// Whether one more connection may wait for its handshake; the oldest that has said nothing gives way.
    fn make_room_for_inbound(&mut self, remote: SocketAddr, now: Instant) -> bool {
        let pending = |entry: &LinkEntry| entry.peer.is_none() && !entry.link.is_outbound();
        let source = Source::of(remote);
        let of_source = |entry: &&LinkEntry| pending(entry) && Source::of(entry.remote) == source;
        if self.links.values().filter(of_source).count() >= PENDING_INBOUND_PER_SOURCE_MAX {
            return false;
        }
        if self.links.values().filter(|entry| pending(entry)).count() < PENDING_INBOUND_MAX {
            return true;
        }
        let silent =
            |(_, entry): &(&LinkId, &LinkEntry)| pending(entry) && entry.link.awaits_preamble();
        let Some(oldest) = self.links.iter().find(silent).map(|(id, _)| *id) else {
            return false;
        };
        self.with_link(oldest, now, |link, _, actions| {
            link.refuse(Refusal::Busy, actions)
        });
        true
    }

    pub(super) fn link_data(&mut self, id: LinkId, data: &Bytes, now: Instant) {
        let Some(entry) = self.links.get(&id) else {
            return;
        };
        let awaits_first = entry.link.awaits_first();
        let refusal = if awaits_first && !self.admission.admits(entry.remote, now) {
            Some(Refusal::TooManyFailures)
        } else if awaits_first && !self.admission.starts(now) {
            Some(Refusal::Busy)
        } else {
            None
        };
        self.with_link(id, now, |link, context, actions| match refusal {
            Some(refusal) => link.refuse(refusal, actions),
            None => link.receive(data, context, actions),
        });
        self.unsuspect(id, now);
    }

    /// Runs one link and does what it asks for.
    pub(super) fn with_link(
        &mut self,
        id: LinkId,
        now: Instant,
        run: impl FnOnce(&mut Link, &mut LinkContext<'_>, &mut Vec<LinkAction>),
    ) {
        let mut actions = Vec::new();
        let Some(entry) = self.links.get_mut(&id) else {
            return;
        };
        let mut context = LinkContext {
            identity: &self.identity,
            network: &self.config.network_id,
            secrets: &self.secrets,
            hello: &self.hello,
            random: &mut self.random,
            now,
        };
        run(&mut entry.link, &mut context, &mut actions);
        // Before any action is done: one may seal a record of its own, which must come after these.
        for data in entry.link.take_outbox() {
            let data = data.into();
            self.outputs.push_back(Output::Send { link: id, data });
        }
        for action in actions {
            // An action may have ended the link: what the peer said after that is not heard.
            if !self.links.contains_key(&id) {
                break;
            }
            match action {
                LinkAction::Up(hello) => self.link_up(id, *hello, now),
                LinkAction::Message(message) => self.link_message(id, message, now),
                LinkAction::Malformed => self.counters.messages_malformed += 1,
                LinkAction::Down(error) => {
                    self.outputs.push_back(Output::Close { link: id });
                    self.link_down(id, error, now);
                }
            }
        }
        if let Some(entry) = self.links.get(&id) {
            let (deadline, suspect_at) = (entry.link.deadline(), entry.link.suspect_at());
            self.wake(deadline);
            self.wake(
                suspect_at.filter(|_| !self.links.get(&id).is_some_and(|entry| entry.suspect)),
            );
        }
    }

    pub(super) fn close_link(&mut self, id: LinkId, reason: ByeReason, now: Instant) {
        self.with_link(id, now, |link, _, actions| link.close(reason, actions));
    }

    fn link_message(&mut self, id: LinkId, message: Message, now: Instant) {
        let peer = self.links.get(&id).and_then(|entry| entry.peer);
        match (message, peer) {
            (Message::Routed(routed), Some(peer)) => self.routed_received(peer, routed, now),
            (Message::Gossip(message), Some(_)) => {
                self.gossip.receive(id, &message, now);
                self.do_gossip(now);
            }
            (Message::GroupKey(message), Some(peer)) => self.group_key_given(peer, &message, now),
            (Message::GroupKeyTaken(epoch), Some(peer)) => self.group.taken(peer, epoch, now),
            (message, Some(peer)) => self.message_from(peer, message, now),
            (_, None) => self.counters.messages_unknown += 1,
        }
    }

    /// A peer has proved who it is.
    fn link_up(&mut self, id: LinkId, hello: Hello, now: Instant) {
        let Some(entry) = self.links.get(&id) else {
            return;
        };
        let address = entry.remote;
        if !entry.link.is_outbound() {
            self.admission.succeeded(address);
        }
        if let Err(reason) = self.judge(id, &hello, address, now) {
            return self.close_link(id, reason, now);
        }
        let peer_id = hello.peer_id;
        let known = self
            .peers
            .find(peer_id)
            .is_some_and(|peer| peer.hello.boot_id == hello.boot_id);
        if !known && !self.take_in(hello, now) {
            return self.close_link(id, ByeReason::PeersMax, now);
        }
        if let Some(entry) = self.links.get_mut(&id) {
            entry.peer = Some(peer_id);
        }
        self.dialer.connected(id, peer_id, now);
        self.mesh.is_alive(peer_id);
        self.touch_mesh(now);
        self.choose_link(peer_id, id, now);
        self.update_candidates(peer_id, id, now);
        self.with_session(peer_id, now, |session, context| {
            session.link_up(context.now)
        });
        self.links_changed(now);
    }

    /// Whether the peer at the other end may stay.
    fn judge(
        &mut self,
        id: LinkId,
        hello: &Hello,
        address: SocketAddr,
        now: Instant,
    ) -> Result<(), ByeReason> {
        let peer_id = hello.peer_id;
        if peer_id == self.identity.peer_id() {
            if hello.boot_id != self.config.boot_id {
                self.our_clone_met(address, now);
                return Err(ByeReason::ClonedIdentity);
            }
            if self.dialer.is_ourself(id, now) {
                self.notice(Notice::SelfConnection { address });
            }
            return Err(ByeReason::SelfConnection);
        }
        if self.peers.with_label_of(peer_id) {
            return Err(ByeReason::LabelCollision);
        }
        if let Some(peer) = self.peers.find(peer_id)
            && peer.hello.boot_id != hello.boot_id
            && hello.incarnation <= peer.hello.incarnation
            && self.is_alive(peer, now)
        {
            self.notice(Notice::ClonedIdentity {
                peer_id,
                address,
                ours: false,
            });
            return Err(ByeReason::ClonedIdentity);
        }
        Ok(())
    }

    fn is_alive(&self, peer: &Peer, now: Instant) -> bool {
        let link = peer.link.and_then(|id| self.links.get(&id));
        peer.is_data_up() || link.is_some_and(|entry| !entry.link.is_suspect(now))
    }

    /// Makes a place for a new peer, or for a new process of a known one; false if there is none.
    pub(super) fn take_in(&mut self, hello: Hello, now: Instant) -> bool {
        let peer_id = hello.peer_id;
        self.notice_other_mtu(&hello);
        if let Some(peer) = self.peers.find_mut(peer_id) {
            let (boot_id, name) = (hello.boot_id, hello.name);
            let old_link = peer.link.take();
            peer.hello = hello;
            self.drop_group_keys_of(peer_id);
            self.with_session(peer_id, now, |session, context| {
                session.restarted(boot_id, context)
            });
            self.notice(Notice::PeerRestarted { name });
            if let Some(old) = old_link {
                self.close_link(old, ByeReason::Duplicate, now);
            }
            return true;
        }
        self.notice_namesakes(&hello);
        let Some(slot) = self.peers.take_slot() else {
            return false;
        };
        let session_peer = SessionPeer {
            slot,
            peer_id,
            exchange: hello.keys.exchange,
            boot_id: hello.boot_id,
        };
        let session = Session::new(self.identity.peer_id(), session_peer, now);
        let peer = Peer {
            slot,
            hello,
            link: None,
            session,
            path: None,
            candidates: Vec::new(),
            gone_since: Some(now),
            handover_until: None,
            reach: Reach::default(),
            group_epochs: Vec::new(),
            timer: None,
        };
        self.peers.insert(peer_id, peer);
        self.look_for_lost_peers(now + PEER_FORGOTTEN_AFTER);
        let label = peer_id.label();
        self.engine(Command::AddPeer { slot, label });
        if self.addresses.is_some() {
            // Until both have compared who owns what.
            let flow = Flow::Shut;
            self.engine(Command::SetFlow { slot, flow });
        }
        self.routing.touch_soon();
        true
    }

    /// Decides between the link in use and a new one, and closes the other.
    fn choose_link(&mut self, peer_id: PeerId, new: LinkId, now: Instant) {
        // Frames wait for the two to compare who owns what.
        self.contacts_changed();
        let old = self
            .peers
            .find(peer_id)
            .and_then(|peer| peer.link)
            .filter(|old| *old != new);
        let (stays, goes) = match old {
            Some(old) if !self.prefers_new(peer_id, old, new) => (old, Some(new)),
            other => (new, other),
        };
        let Some(peer) = self.peers.find_mut(peer_id) else {
            return;
        };
        peer.link = Some(stays);
        if stays == new {
            if let Some(old) = goes {
                self.gossip.link_down(old);
            }
            self.gossip.link_up(new, peer_id, now);
        }
        let handed_over = peer.handover_until.take().is_some();
        if peer.gone_since.take().is_some() && !handed_over {
            let (name, nickname) = (peer.hello.name, peer.hello.nickname.clone());
            if let Some(entry) = self.links.get(&stays) {
                let (address, outbound) = (entry.remote, entry.link.is_outbound());
                self.notice(Notice::LinkUp {
                    name,
                    nickname,
                    address,
                    outbound,
                });
            }
        }
        if let Some(goes) = goes {
            self.counters.links_duplicate += 1;
            self.close_link(goes, ByeReason::Duplicate, now);
        }
    }

    fn prefers_new(&self, peer_id: PeerId, old: LinkId, new: LinkId) -> bool {
        let (Some(old), Some(new)) = (self.links.get(&old), self.links.get(&new)) else {
            return true;
        };
        // The peer's word that it closes the new one as a duplicate may come together with its first.
        if new.link.hash().is_none() {
            return false;
        }
        let (Some(old_at), Some(new_at)) = (old.link.up_at(), new.link.up_at()) else {
            return true;
        };
        if new_at.duration_since(old_at) >= LINK_SIMULTANEOUS {
            return true;
        }
        let we_are_smaller = self.identity.peer_id() < peer_id;
        // False sorts first: dialled by the smaller PeerId.
        let rank = |entry: &LinkEntry| {
            (
                entry.link.is_outbound() != we_are_smaller,
                entry.link.hash(),
            )
        };
        rank(new) < rank(old)
    }

    /// Tells the engine where the peer may be found, from where its link goes.
    fn update_candidates(&mut self, peer_id: PeerId, id: LinkId, now: Instant) {
        let (Some(entry), Some(peer)) = (self.links.get(&id), self.peers.find_mut(peer_id)) else {
            return;
        };
        let mut fresh = vec![SocketAddr::new(entry.remote.ip(), peer.hello.udp_port)];
        if entry.link.is_outbound() {
            // A forwarded port is likely forwarded for UDP too.
            fresh.push(entry.remote);
        }
        peer.reach.path_of_link = true;
        peer.add_candidates(&fresh);
        self.try_addresses(peer_id, false, now);
    }
}

//! What happens to sessions: engine events in, messages by link or session out.

use std::time::Instant;

use bytes::Bytes;
use weft_engine::command::{Event, PeerSlot};
use weft_engine::path::PathStatus;

use crate::config::{LINK_LONE_AFTER, LINK_SILENT_AFTER};
use crate::link::message::Message;
use crate::node::Node;
use crate::node::notice::Notice;
use crate::node::peers::Peer;
use crate::peer::PeerId;
use crate::session::keys::suite_name;
use crate::session::{Session, SessionAction, SessionContext};

impl Node {
    /// Runs one peer's session and does what it asks for.
    pub(super) fn with_session(
        &mut self,
        peer_id: PeerId,
        now: Instant,
        run: impl FnOnce(&mut Session, &mut SessionContext<'_>),
    ) {
        let mut actions = Vec::new();
        let routable = self.is_routable(peer_id);
        let may_begin = self.may_begin_session(peer_id, now);
        let Some(peer) = self.peers.find_mut(peer_id) else {
            return;
        };
        let mut context = SessionContext {
            identity: &self.identity,
            network: &self.config.network_id,
            secrets: &self.secrets,
            boot_id: self.config.boot_id,
            lanes: self.config.workers,
            ciphers: &self.config.ciphers,
            rekey: self.config.rekey,
            random: &mut self.random,
            indices: &mut self.indices,
            reachable: routable || peer.session.suite().is_some(),
            may_begin,
            in_use: peer.is_in_use(now),
            now,
            actions: &mut actions,
        };
        run(&mut peer.session, &mut context);
        let name = peer.hello.name;
        let deadline = peer.session.deadline();
        self.peers.set_timer(peer_id, deadline);
        self.wake(deadline);
        for action in actions {
            match action {
                SessionAction::Send { message, repeated } => {
                    let message = Message::Session(message);
                    // A link that may be dead is not trusted alone.
                    if repeated {
                        self.send_every_way(peer_id, &message, now);
                    } else {
                        self.send_to(peer_id, &message, now);
                    }
                }
                SessionAction::Engine(command) => self.engine(command),
                SessionAction::Up(suite) => {
                    self.notice(Notice::SessionUp {
                        name,
                        cipher: suite_name(suite),
                    });
                    self.look_for_path(peer_id, now);
                    self.data_changed(peer_id, now);
                    self.group.may_be_given(peer_id, now);
                }
                SessionAction::Down => {
                    self.notice(Notice::SessionDown { name });
                    self.data_changed(peer_id, now);
                }
                SessionAction::Ignored => self.counters.session_messages_ignored += 1,
            }
        }
    }

    /// A session or a path came or went: the routes follow.
    fn data_changed(&mut self, peer_id: PeerId, now: Instant) {
        // Frames wait for the two to compare who owns what.
        self.contacts_changed();
        if self.peers.find(peer_id).is_some_and(Peer::is_adjacent) {
            self.links_changed(now);
        } else {
            self.routing.touch();
        }
    }

    pub(super) fn engine_event(&mut self, event: Event, now: Instant) {
        match event {
            Event::SessionInstalled { slot, local_index } => {
                self.with_slot(slot, now, |session, context| {
                    session.installed(local_index, context)
                });
            }
            Event::SessionConfirmed { slot, local_index } => {
                self.with_slot(slot, now, |session, context| {
                    session.confirmed(local_index, context)
                });
            }
            Event::RekeyDue { slot, local_index } => {
                self.with_slot(slot, now, |session, context| {
                    session.rekey_due(local_index, context.now)
                });
            }
            Event::SessionWanted { slot } => {
                if let Some(id) = self.peers.at(slot) {
                    self.session_wanted(id, now);
                }
            }
            Event::PathUp { slot, path } => self.path_up(slot, path, now),
            Event::PathDown { slot } => self.path_down(slot, now),
            Event::Observed { slot, address } => self.observed(slot, address, now),
            Event::Message { slot, message } => self.carried_message(slot, &message, now),
            Event::LoopSuspected { slot, mac } => {
                if let Some(peer) = self.peers.at(slot).and_then(|id| self.peers.find(id)) {
                    let name = peer.hello.name;
                    self.notice(Notice::LoopSuspected { name, mac });
                }
            }
            Event::GroupKeyWanted => self.group.wanted(now),
            Event::GroupKeyDue { epoch } => self.group.worn(epoch, now),
        }
    }

    fn with_slot(
        &mut self,
        slot: PeerSlot,
        now: Instant,
        run: impl FnOnce(&mut Session, &mut SessionContext<'_>),
    ) {
        if let Some(peer) = self.peers.at(slot) {
            self.with_session(peer, now, run);
        }
    }

    fn path_up(&mut self, slot: PeerSlot, path: PathStatus, now: Instant) {
        let Some(id) = self.peers.at(slot) else {
            return;
        };
        let Some(peer) = self.peers.find_mut(id) else {
            return;
        };
        let was_down = peer.path.replace(path).is_none();
        self.data_changed(id, now);
        if was_down {
            self.path_found(id, now);
            self.doubt_link(id, now);
            self.group.may_be_given(id, now);
        }
    }

    fn path_down(&mut self, slot: PeerSlot, now: Instant) {
        let Some(id) = self.peers.at(slot) else {
            return;
        };
        let Some(peer) = self.peers.find_mut(id) else {
            return;
        };
        let was_adjacent = peer.is_adjacent();
        if peer.path.take().is_none() {
            return;
        }
        peer.reach.path_of_link &= peer.link.is_some();
        if was_adjacent {
            self.links_changed(now);
        } else {
            self.routing.touch();
        }
        self.no_longer_observed(id, now);
        self.path_lost(id, now);
        match self.peers.find(id).and_then(|peer| peer.link) {
            Some(link) => self.with_link(link, now, |link, context, _| {
                link.doubt(LINK_LONE_AFTER, context);
            }),
            None => self.dial_at_once(id, now),
        }
    }

    /// The way to the peer is another than it was, and the link may not have lived through the change: what it lost is
    /// said again only seconds later, and others hear by it what has changed.
    pub(super) fn doubt_link(&mut self, id: PeerId, now: Instant) {
        let Some(link) = self.peers.find(id).and_then(|peer| peer.link) else {
            return self.dial_at_once(id, now);
        };
        self.with_link(link, now, |link, context, _| {
            link.doubt(LINK_SILENT_AFTER, context);
        });
        self.suspect_links(now);
        if self.links.get(&link).is_none_or(|entry| entry.suspect) {
            self.dial_at_once(id, now);
        }
    }

    fn dial_at_once(&mut self, id: PeerId, now: Instant) {
        self.dialer.hurry(id, now);
        self.wake(self.dialer.deadline());
    }

    /// A message that came inside a session.
    fn carried_message(&mut self, slot: PeerSlot, message: &Bytes, now: Instant) {
        let Some(peer) = self.peers.at(slot) else {
            return;
        };
        match Message::decode(message) {
            Ok(Message::Echo { id, is_answer }) => self.echoed(peer, id, is_answer, now),
            Ok(Message::GroupKey(message)) => self.group_key_given(peer, &message, now),
            Ok(Message::GroupKeyTaken(epoch)) => self.group.taken(peer, epoch, now),
            Ok(message) => self.message_from(peer, message, now),
            Err(_) => self.counters.messages_malformed += 1,
        }
    }
}

//! What happens to sessions: engine events in, messages by link or session out.

use std::time::Instant;

use bytes::Bytes;
use weft_engine::command::{Command, Event, PeerSlot};
use weft_engine::config::MESSAGE_LEN_MAX;

use crate::link::message::{Message, SessionMessage};
use crate::node::Node;
use crate::node::exchange::LinkId;
use crate::node::notice::Notice;
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
            reachable: peer.link.is_some() || peer.session.suite().is_some(),
            now,
            actions: &mut actions,
        };
        run(&mut peer.session, &mut context);
        let (slot, name, link) = (peer.slot, peer.hello.name, peer.link);
        let (has_session, deadline) = (peer.session.suite().is_some(), peer.session.deadline());
        self.wake(deadline);
        for action in actions {
            match action {
                SessionAction::Send { message, repeated } => {
                    // A session that is not there cannot carry; a link that may be dead is not trusted alone.
                    let carrier = has_session
                        .then_some(slot)
                        .filter(|_| repeated || link.is_none());
                    self.send_session_message(link, carrier, message, now);
                }
                SessionAction::Engine(command) => self.engine(command),
                SessionAction::Up(suite) => self.notice(Notice::SessionUp {
                    name,
                    cipher: suite_name(suite),
                }),
                SessionAction::Down => self.notice(Notice::SessionDown { name }),
                SessionAction::Ignored => self.counters.session_messages_ignored += 1,
            }
        }
    }

    fn send_session_message(
        &mut self,
        link: Option<LinkId>,
        carrier: Option<PeerSlot>,
        message: SessionMessage,
        now: Instant,
    ) {
        let message = Message::Session(message);
        if let Some(slot) = carrier {
            let bytes = message.encode();
            debug_assert!(
                bytes.len() <= MESSAGE_LEN_MAX,
                "a session message fits into a datagram"
            );
            self.engine(Command::SendMessage {
                slot,
                message: bytes.into(),
            });
        }
        if let Some(link) = link {
            self.with_link(link, now, |link, _, _| link.send(&message));
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
                self.with_slot(slot, now, |session, context| session.wanted(context.now));
            }
            Event::PathUp { slot, path } => {
                if let Some(peer) = self.peers.at(slot).and_then(|id| self.peers.find_mut(id)) {
                    let was_down = peer.path.replace(path).is_none();
                    if was_down {
                        self.path_changed(slot, now);
                    }
                }
            }
            Event::PathDown { slot } => {
                if let Some(peer) = self.peers.at(slot).and_then(|id| self.peers.find_mut(id))
                    && peer.path.take().is_some()
                {
                    self.path_changed(slot, now);
                }
            }
            Event::LoopSuspected { slot, mac } => {
                if let Some(peer) = self.peers.at(slot).and_then(|id| self.peers.find(id)) {
                    let name = peer.hello.name;
                    self.notice(Notice::LoopSuspected { name, mac });
                }
            }
            // Nobody hands out group keys yet, so none wears out.
            Event::GroupKeyDue { .. } => {}
            Event::Message { slot, message } => self.carried_message(slot, &message, now),
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

    /// The path came or went: find out what that means for the link, and dial if there is none.
    fn path_changed(&mut self, slot: PeerSlot, now: Instant) {
        let Some(peer_id) = self.peers.at(slot) else {
            return;
        };
        match self.peers.find(peer_id).and_then(|peer| peer.link) {
            Some(link) => {
                self.with_link(link, now, |link, context, _| link.ping(context));
            }
            None => {
                self.dialer.hurry(peer_id, now);
                self.wake(self.dialer.deadline());
            }
        }
    }

    /// A message that came inside a session.
    fn carried_message(&mut self, slot: PeerSlot, message: &Bytes, now: Instant) {
        match Message::decode(message) {
            Ok(Message::Session(message)) => {
                self.with_slot(slot, now, |session, context| {
                    session.receive(&message, context)
                });
            }
            Ok(_) => self.counters.messages_unknown += 1,
            Err(_) => self.counters.messages_malformed += 1,
        }
    }
}

//! The sessions with one peer: handshakes, epochs, rekeys.
//!
//! ```text
//!  initiator                                             responder
//!  First ───────────────────────────────────────────────►
//!        ◄─────────────────────────────────────── Second       its index, lanes, ciphers
//!  install, wait for every worker
//!  Third ───────────────────────────────────────────────►      index, lanes, ciphers, the suite
//!                                                              install, wait for every worker
//!                                                              activate (the engine probes)
//!        ◄──────── the first datagram, or Installed ─────
//!  activate
//! ```
//!
//! Make before break: an epoch is opened before its first datagram can come, and the one before stays open until
//! both ends have moved on, and for `EPOCH_LINGER` more. The messages travel on the link, and inside the live
//! session where there is no link or it does not answer; a lost one is repeated. The peer with the smaller PeerId
//! starts rekeys. Sans-IO. Bounds: `config::EPOCHS_MAX`, `SESSIONS_PENDING_MAX`, `SESSION_TIMEOUT`, `EPOCH_LIFE_MAX`.

mod epochs;
mod exchange;
pub(crate) mod facts;
pub(crate) mod keys;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use weft_engine::command::{Command, PeerSlot, SecretKey};
use weft_engine::session::CipherSuite;

use crate::config::{
    BootId, CipherCost, RekeyConfig, SESSION_RETRY_MAX, SESSION_TIMEOUT, TRAFFIC_EVERY,
};
use crate::link::message::{SessionMessage, SessionStep};
use crate::link::noise::NoiseHandshake;
use crate::peer::{Identity, PeerId};
use crate::random::Randomness;
use crate::secret::{NetworkId, Secrets};
use crate::session::keys::PROOF_LEN;

/// How long the peer with the larger PeerId waits for the other to start the first session.
const FIRST_SESSION_OTHER_SIDE_AFTER: Duration = Duration::from_millis(500);
/// Pause after a session handshake that came to nothing.
const SESSION_PAUSE: Duration = Duration::from_secs(1);
/// Pause before asking again whether a handshake may be begun.
const SESSION_TURN: Duration = Duration::from_millis(250);
/// Share by which the life of an epoch varies, so that a cluster does not rekey in step.
const REKEY_JITTER_PERCENT: u32 = 10;

/// What a session needs to know of the node, and where its wishes go.
pub(crate) struct SessionContext<'a> {
    pub(crate) identity: &'a Identity,
    pub(crate) network: &'a NetworkId,
    pub(crate) secrets: &'a Secrets,
    pub(crate) boot_id: BootId,
    pub(crate) lanes: u8,
    pub(crate) ciphers: &'a [CipherCost],
    pub(crate) rekey: RekeyConfig,
    pub(crate) random: &'a mut Randomness,
    /// The indices of all live epochs and handshakes of this node.
    pub(crate) indices: &'a mut BTreeSet<u32>,
    /// Whether a message can reach the peer, by link, session or other peers' links.
    pub(crate) reachable: bool,
    /// Whether a handshake may be begun now; those on the way turn away too many.
    pub(crate) may_begin: bool,
    /// Whether a session that is there is worth a new epoch.
    pub(crate) in_use: bool,
    pub(crate) now: Instant,
    pub(crate) actions: &'a mut Vec<SessionAction>,
}

impl SessionContext<'_> {
    /// A random index that no live epoch or handshake of this node has.
    fn draw_index(&mut self) -> u32 {
        loop {
            let index = self.random.u32();
            if self.indices.insert(index) {
                return index;
            }
        }
    }

    fn send(&mut self, step: SessionStep, id: u64, body: Vec<u8>) {
        let message = SessionMessage { step, id, body };
        self.actions.push(SessionAction::Send {
            message,
            repeated: false,
        });
    }

    fn send_again(&mut self, message: SessionMessage) {
        self.actions.push(SessionAction::Send {
            message,
            repeated: true,
        });
    }
}

/// What a session asks of the node.
#[derive(Debug)]
pub(crate) enum SessionAction {
    /// Send a message; a repeated one on every way there is.
    Send {
        message: SessionMessage,
        repeated: bool,
    },
    Engine(Command),
    /// The first epoch is active.
    Up(CipherSuite),
    /// The last epoch is gone.
    Down,
    /// A message was not believed, was late, or came too often.
    Ignored,
}

/// Why the last handshake came to nothing; stands in status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SessionFailure {
    #[error("no common data cipher; see --cipher on both hosts")]
    NoCommonCipher,
    #[error("peer refused our password for the session")]
    WrongSecret,
    #[error("peer does not answer session handshakes")]
    Timeout,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EpochState {
    /// Not every worker accepts its datagrams yet.
    Installing,
    /// Open here; the peer may not have the keys yet.
    Installed,
    Active,
    Superseded,
}

#[derive(Debug)]
struct Epoch {
    index: u32,
    suite: CipherSuite,
    secret: SecretKey,
    state: EpochState,
    /// The peer is known to have the keys.
    confirmed: bool,
    remove_at: Instant,
}

type Proof = [u8; PROOF_LEN];

struct Initiating {
    id: u64,
    stage: InitiatingStage,
    /// What is repeated.
    last: SessionMessage,
    retry_at: Instant,
    retry_pause: Duration,
    deadline: Instant,
    secret: SecretKey,
}

enum InitiatingStage {
    AwaitSecond(Box<NoiseHandshake>),
    Installing { index: u32, proof: Proof },
    AwaitConfirmation { index: u32, proof: Proof },
}

struct Responding {
    id: u64,
    index: u32,
    stage: RespondingStage,
    deadline: Instant,
}

enum RespondingStage {
    AwaitThird {
        noise: Box<NoiseHandshake>,
        second: Vec<u8>,
    },
    Installing {
        proof: Proof,
    },
    Done {
        proof: Proof,
    },
}

/// The sessions with one peer.
pub(crate) struct Session {
    slot: PeerSlot,
    ours: PeerId,
    theirs: PeerId,
    exchange: [u8; 32],
    boot_id: BootId,
    /// Oldest first.
    epochs: Vec<Epoch>,
    initiating: Option<Initiating>,
    responding: Vec<Responding>,
    sequence: u64,
    heard_sequence: u64,
    /// When we start the next handshake.
    due: Option<Instant>,
    /// Which of our secrets we offer.
    attempt: usize,
    window_at: Instant,
    window_starts: u32,
    rekeys: u64,
    failure: Option<SessionFailure>,
}

/// Who a session is with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SessionPeer {
    pub(crate) slot: PeerSlot,
    pub(crate) peer_id: PeerId,
    pub(crate) exchange: [u8; 32],
    pub(crate) boot_id: BootId,
}

impl Session {
    pub(crate) fn new(ours: PeerId, peer: SessionPeer, now: Instant) -> Self {
        Self {
            slot: peer.slot,
            ours,
            theirs: peer.peer_id,
            exchange: peer.exchange,
            boot_id: peer.boot_id,
            epochs: Vec::new(),
            initiating: None,
            responding: Vec::new(),
            sequence: 0,
            heard_sequence: 0,
            due: None,
            attempt: 0,
            window_at: now,
            window_starts: 0,
            rekeys: 0,
            failure: None,
        }
    }

    /// The cipher of the active epoch.
    pub(crate) fn suite(&self) -> Option<CipherSuite> {
        self.active().map(|epoch| epoch.suite)
    }

    /// Epochs replaced since the peer is known.
    pub(crate) fn rekeys(&self) -> u64 {
        self.rekeys
    }

    /// Why there is no session, if the last handshake failed.
    pub(crate) fn failure(&self) -> Option<SessionFailure> {
        self.failure
    }

    /// True while any epoch is open.
    pub(crate) fn is_live(&self) -> bool {
        !self.epochs.is_empty()
    }

    fn active(&self) -> Option<&Epoch> {
        self.epochs
            .iter()
            .find(|epoch| epoch.state == EpochState::Active)
    }

    fn we_lead(&self) -> bool {
        self.ours < self.theirs
    }

    /// A link is up: there shall be a session.
    pub(crate) fn link_up(&mut self, now: Instant) {
        if self.active().is_none() && self.initiating.is_none() {
            let pause = if self.we_lead() {
                Duration::ZERO
            } else {
                FIRST_SESSION_OTHER_SIDE_AFTER
            };
            self.hasten(now + pause);
        }
    }

    /// Frames wait for a session.
    pub(crate) fn wanted(&mut self, now: Instant) {
        if self.active().is_none() && self.initiating.is_none() {
            self.hasten(now);
        }
    }

    /// The engine wants this epoch replaced.
    pub(crate) fn rekey_due(&mut self, index: u32, now: Instant) {
        if self.active().is_some_and(|epoch| epoch.index == index) && self.initiating.is_none() {
            self.hasten(now);
        }
    }

    /// The valid secrets have changed: an epoch made with one that is gone is replaced now, or dies of age.
    pub(crate) fn secrets_changed(&mut self, secrets: &Secrets, now: Instant) {
        self.attempt = 0;
        if self
            .active()
            .is_some_and(|epoch| !secrets.keys().contains(&epoch.secret))
        {
            self.hasten(now);
        }
    }

    fn hasten(&mut self, at: Instant) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// The peer is a new process: what the old one had is worthless.
    pub(crate) fn restarted(&mut self, boot_id: BootId, context: &mut SessionContext<'_>) {
        self.end(context);
        self.boot_id = boot_id;
        self.heard_sequence = 0;
        self.attempt = 0;
    }

    /// Drops everything.
    pub(crate) fn end(&mut self, context: &mut SessionContext<'_>) {
        self.initiating = None;
        for pending in std::mem::take(&mut self.responding) {
            context.indices.remove(&pending.index);
        }
        for epoch in std::mem::take(&mut self.epochs) {
            self.retire(&epoch, context);
        }
        self.due = None;
    }

    /// A message of the peer.
    pub(crate) fn receive(&mut self, message: &SessionMessage, context: &mut SessionContext<'_>) {
        let believed = match message.step {
            SessionStep::First => self.take_first(message, context),
            SessionStep::Second => self.take_second(message, context),
            SessionStep::Third => self.take_third(message, context),
            SessionStep::Installed => self.take_installed(message, context),
            SessionStep::Refused => self.take_refused(message, context),
        };
        if believed.is_none() {
            context.actions.push(SessionAction::Ignored);
        }
    }

    /// Does what is due: repeats, gives up, drops old epochs, starts the next handshake.
    pub(crate) fn tick(&mut self, context: &mut SessionContext<'_>) {
        self.tick_initiating(context);
        for pending in self
            .responding
            .extract_if(.., |pending| pending.deadline <= context.now)
            .collect::<Vec<_>>()
        {
            self.drop_responding(&pending, context);
        }
        self.drop_old_epochs(context);
        if self.due.is_some_and(|due| due <= context.now) {
            self.due = None;
            if self.active().is_some() && !context.in_use {
                // It ends with its epoch, unless frames come until then.
                self.due = Some(context.now + TRAFFIC_EVERY);
                return;
            }
            let responding =
                |pending: &Responding| !matches!(pending.stage, RespondingStage::Done { .. });
            if self.initiating.is_some()
                || self.responding.iter().any(responding)
                || !context.reachable
            {
                self.due = Some(context.now + SESSION_PAUSE);
            } else if !context.may_begin {
                self.due = Some(context.now + context.random.around(SESSION_TURN, 50));
            } else if self.begin(context).is_none() {
                self.due = Some(context.now + SESSION_TIMEOUT);
            }
        }
    }

    fn tick_initiating(&mut self, context: &mut SessionContext<'_>) {
        let now = context.now;
        if let Some(given_up) = self.initiating.take_if(|pending| pending.deadline <= now) {
            // An epoch that is open stays so: the peer may have it, and its first datagram still counts.
            if let InitiatingStage::Installing { index, .. } = given_up.stage {
                self.remove_epoch(index, context);
            }
            self.failure = Some(SessionFailure::Timeout);
            self.hasten(now + SESSION_PAUSE);
        }
        if let Some(pending) = &mut self.initiating
            && pending.retry_at <= now
        {
            pending.retry_pause = (pending.retry_pause * 2).min(SESSION_RETRY_MAX);
            pending.retry_at = now + pending.retry_pause;
            if !matches!(pending.stage, InitiatingStage::Installing { .. }) {
                context.send_again(pending.last.clone());
            }
        }
    }

    /// When [`Session::tick`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let initiating = self
            .initiating
            .as_ref()
            .map(|pending| pending.retry_at.min(pending.deadline));
        let responding = self.responding.iter().map(|pending| pending.deadline);
        let epochs = self.epochs.iter().map(|epoch| epoch.remove_at);
        responding
            .chain(epochs)
            .chain(initiating)
            .chain(self.due)
            .min()
    }
}

impl Initiating {
    fn awaits_confirmation_of(&self, epoch: u32) -> bool {
        matches!(self.stage, InitiatingStage::AwaitConfirmation { index, .. } if index == epoch)
    }
}

#[cfg(test)]
mod tests;

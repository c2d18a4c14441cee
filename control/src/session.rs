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

pub(crate) mod facts;
pub(crate) mod keys;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weft_engine::command::{Command, PeerSlot, SecretKey, SessionKeys};
use weft_engine::session::CipherSuite;

use crate::config::{
    BootId, CipherCost, EPOCH_LIFE_MAX, EPOCH_LINGER, EPOCHS_MAX, REKEY_OTHER_SIDE_AFTER,
    RekeyConfig, SESSION_RETRY_MAX, SESSION_RETRY_MIN, SESSION_TIMEOUT, SESSIONS_PENDING_MAX,
};
use crate::link::message::{Refusal, SessionMessage, SessionStep};
use crate::link::noise::{NoiseHandshake, Split};
use crate::peer::{Identity, PeerId};
use crate::random::Randomness;
use crate::secret::{NetworkId, Secrets};
use crate::session::facts::Facts;
use crate::session::keys::{EpochKeys, PROOF_LEN, choose_suite, derive};

/// How long the peer with the larger PeerId waits for the other to start the first session.
const FIRST_SESSION_OTHER_SIDE_AFTER: Duration = Duration::from_millis(500);
/// Pause after a session handshake that came to nothing.
const SESSION_PAUSE: Duration = Duration::from_secs(1);
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
    /// Whether a message can reach the peer, by link or session.
    pub(crate) reachable: bool,
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

    /// Starts a handshake.
    fn begin(&mut self, context: &mut SessionContext<'_>) -> Option<()> {
        let id = context.random.u64();
        let secret = context.secrets.offered(self.attempt).clone();
        let prologue = prologue(context.network, &self.ours, &self.theirs, id);
        let exchange = context.identity.exchange_secret();
        let mut noise =
            NoiseHandshake::initiator(exchange, &secret, &prologue, context.random).ok()?;
        let first = SessionMessage {
            step: SessionStep::First,
            id,
            body: noise.write(&[]).ok()?,
        };
        context.send(first.step, id, first.body.clone());
        self.initiating = Some(Initiating {
            id,
            stage: InitiatingStage::AwaitSecond(Box::new(noise)),
            last: first,
            retry_at: context.now + SESSION_RETRY_MIN,
            retry_pause: SESSION_RETRY_MIN,
            deadline: context.now + SESSION_TIMEOUT,
            secret,
        });
        Some(())
    }

    fn take_first(
        &mut self,
        message: &SessionMessage,
        context: &mut SessionContext<'_>,
    ) -> Option<()> {
        if let Some(known) = self
            .responding
            .iter()
            .find(|pending| pending.id == message.id)
        {
            if let RespondingStage::AwaitThird { second, .. } = &known.stage {
                let body = second.clone();
                context.send_again(SessionMessage {
                    step: SessionStep::Second,
                    id: message.id,
                    body,
                });
            }
            return Some(());
        }
        if self
            .initiating
            .as_ref()
            .is_some_and(|ours| matches!(ours.stage, InitiatingStage::AwaitSecond(_)))
        {
            // Both began at once: the handshake of the smaller PeerId goes on.
            if self.we_lead() {
                return Some(());
            }
            self.initiating = None;
        }
        self.admit_start(context.rekey.starts_per_second_max, context.now)?;
        let prologue = prologue(context.network, &self.theirs, &self.ours, message.id);
        let exchange = context.identity.exchange_secret();
        let mut noise = NoiseHandshake::responder(exchange, &prologue, context.random).ok()?;
        noise.read(&message.body).ok()?;
        self.make_room_to_respond(context);
        let index = context.draw_index();
        let facts = self.facts(context, index, None);
        let second = noise.write(&facts.encode()).ok()?;
        context.send(SessionStep::Second, message.id, second.clone());
        let stage = RespondingStage::AwaitThird {
            noise: Box::new(noise),
            second,
        };
        let deadline = context.now + SESSION_TIMEOUT;
        self.responding.push(Responding {
            id: message.id,
            index,
            stage,
            deadline,
        });
        Some(())
    }

    fn admit_start(&mut self, per_second_max: u32, now: Instant) -> Option<()> {
        if now.duration_since(self.window_at) >= Duration::from_secs(1) {
            (self.window_at, self.window_starts) = (now, 0);
        }
        self.window_starts = self.window_starts.saturating_add(1);
        (self.window_starts <= per_second_max).then_some(())
    }

    fn make_room_to_respond(&mut self, context: &mut SessionContext<'_>) {
        if self.responding.len() >= SESSIONS_PENDING_MAX {
            let done = |pending: &Responding| matches!(pending.stage, RespondingStage::Done { .. });
            let at = self.responding.iter().position(done).unwrap_or(0);
            let oldest = self.responding.remove(at);
            self.drop_responding(&oldest, context);
        }
    }

    fn drop_responding(&mut self, pending: &Responding, context: &mut SessionContext<'_>) {
        match pending.stage {
            RespondingStage::AwaitThird { .. } => {
                context.indices.remove(&pending.index);
            }
            RespondingStage::Installing { .. } => self.remove_epoch(pending.index, context),
            RespondingStage::Done { .. } => {}
        }
    }

    fn facts(
        &mut self,
        context: &SessionContext<'_>,
        index: u32,
        suite: Option<CipherSuite>,
    ) -> Facts {
        self.sequence += 1;
        Facts {
            boot_id: context.boot_id,
            sequence: self.sequence,
            index,
            lanes: context.lanes,
            ciphers: context.ciphers.to_vec(),
            suite,
        }
    }

    /// Checks who sealed the facts, that it is the process we know, and that they are no older ones.
    fn check(&self, noise: &NoiseHandshake, facts: &[u8]) -> Option<Facts> {
        let facts = Facts::parse(facts).ok()?;
        let same_process =
            noise.remote_exchange() == Some(self.exchange) && facts.boot_id == self.boot_id;
        (same_process && facts.sequence > self.heard_sequence).then_some(facts)
    }

    fn take_second(
        &mut self,
        message: &SessionMessage,
        context: &mut SessionContext<'_>,
    ) -> Option<()> {
        let initiating = self
            .initiating
            .as_mut()
            .filter(|pending| pending.id == message.id)?;
        let InitiatingStage::AwaitSecond(noise) = &mut initiating.stage else {
            return None;
        };
        // A message that does not verify leaves the handshake as it was: the right one may still come.
        let payload = noise.read(&message.body).ok()?;
        let mut initiating = self.initiating.take()?;
        let InitiatingStage::AwaitSecond(mut noise) = initiating.stage else {
            return None;
        };
        self.due = Some(context.now + SESSION_PAUSE);
        let facts = self.check(&noise, &payload)?;
        let Some(suite) = choose_suite(context.ciphers, &facts.ciphers) else {
            self.failure = Some(SessionFailure::NoCommonCipher);
            self.due = Some(context.now + SESSION_TIMEOUT);
            return None;
        };
        let index = context.draw_index();
        let ours = self.facts(context, index, Some(suite));
        let body = noise.write(&ours.encode()).ok()?;
        let split = noise.split().ok()?;
        let proof = self.install(
            index,
            &facts,
            suite,
            Keying {
                split,
                secret: initiating.secret.clone(),
                we_began: true,
            },
            context,
        );
        self.due = None;
        initiating.last = SessionMessage {
            step: SessionStep::Third,
            id: message.id,
            body,
        };
        initiating.stage = InitiatingStage::Installing { index, proof };
        self.initiating = Some(initiating);
        Some(())
    }

    fn take_third(
        &mut self,
        message: &SessionMessage,
        context: &mut SessionContext<'_>,
    ) -> Option<()> {
        let at = self
            .responding
            .iter()
            .position(|pending| pending.id == message.id)?;
        let noise = match &mut self.responding.get_mut(at)?.stage {
            RespondingStage::AwaitThird { noise, .. } => noise,
            RespondingStage::Installing { .. } => return Some(()),
            RespondingStage::Done { proof } => {
                let body = proof.to_vec();
                context.send_again(SessionMessage {
                    step: SessionStep::Installed,
                    id: message.id,
                    body,
                });
                return Some(());
            }
        };
        let Ok((payload, which)) = noise.read_last(&message.body, context.secrets.keys()) else {
            context.send(
                SessionStep::Refused,
                message.id,
                vec![Refusal::WrongSecret.byte()],
            );
            return None;
        };
        let pending = self.responding.remove(at);
        let RespondingStage::AwaitThird { noise, .. } = pending.stage else {
            return None;
        };
        let secret = context.secrets.offered(which).clone();
        let agreed = self.check(&noise, &payload).and_then(|facts| {
            let suite = choose_suite(context.ciphers, &facts.ciphers)?;
            (facts.suite == Some(suite)).then_some((facts, suite))
        });
        let (Some((facts, suite)), Ok(split)) = (agreed, noise.split()) else {
            context.indices.remove(&pending.index);
            return None;
        };
        let proof = self.install(
            pending.index,
            &facts,
            suite,
            Keying {
                split,
                secret,
                we_began: false,
            },
            context,
        );
        let stage = RespondingStage::Installing { proof };
        self.responding.push(Responding { stage, ..pending });
        Some(())
    }

    /// Hands the keys of a new epoch to the engine.
    fn install(
        &mut self,
        index: u32,
        facts: &Facts,
        suite: CipherSuite,
        keying: Keying,
        context: &mut SessionContext<'_>,
    ) -> Proof {
        self.heard_sequence = facts.sequence;
        self.make_room_for_epoch(context);
        let EpochKeys {
            initiator,
            responder,
            proof,
        } = derive(&keying.split, suite);
        let (send_key, recv_key) = if keying.we_began {
            (initiator, responder)
        } else {
            (responder, initiator)
        };
        self.epochs.push(Epoch {
            index,
            suite,
            secret: keying.secret,
            state: EpochState::Installing,
            confirmed: false,
            remove_at: context.now + EPOCH_LIFE_MAX,
        });
        context
            .actions
            .push(SessionAction::Engine(Command::InstallSession(Arc::new(
                SessionKeys {
                    slot: self.slot,
                    local_index: index,
                    remote_index: facts.index,
                    suite,
                    send_key,
                    recv_key,
                    peer_lanes: facts.lanes,
                },
            ))));
        proof
    }

    fn make_room_for_epoch(&mut self, context: &mut SessionContext<'_>) {
        while self.epochs.len() >= EPOCHS_MAX {
            let of = |state| self.epochs.iter().find(|epoch| epoch.state == state);
            let oldest = of(EpochState::Superseded)
                .or_else(|| of(EpochState::Installed))
                .or_else(|| of(EpochState::Installing));
            let Some(index) = oldest.map(|epoch| epoch.index) else {
                return;
            };
            self.remove_epoch(index, context);
        }
    }

    fn remove_epoch(&mut self, index: u32, context: &mut SessionContext<'_>) {
        if let Some(at) = self.epochs.iter().position(|epoch| epoch.index == index) {
            let epoch = self.epochs.remove(at);
            self.retire(&epoch, context);
        }
    }

    fn retire(&self, epoch: &Epoch, context: &mut SessionContext<'_>) {
        context.indices.remove(&epoch.index);
        let command = Command::RemoveSession {
            slot: self.slot,
            local_index: epoch.index,
        };
        context.actions.push(SessionAction::Engine(command));
    }

    /// Every worker accepts datagrams of this epoch.
    pub(crate) fn installed(&mut self, index: u32, context: &mut SessionContext<'_>) {
        let Some(epoch) = self.epochs.iter_mut().find(|epoch| epoch.index == index) else {
            return;
        };
        if epoch.state != EpochState::Installing {
            return;
        }
        epoch.state = EpochState::Installed;
        if let Some(initiating) = &mut self.initiating
            && let InitiatingStage::Installing {
                index: installing,
                proof,
            } = initiating.stage
            && installing == index
        {
            initiating.stage = InitiatingStage::AwaitConfirmation { index, proof };
            initiating.retry_at = context.now + SESSION_RETRY_MIN;
            initiating.retry_pause = SESSION_RETRY_MIN;
            initiating.deadline = context.now + SESSION_TIMEOUT;
            context.send(
                initiating.last.step,
                initiating.last.id,
                initiating.last.body.clone(),
            );
        } else if let Some(responding) = self
            .responding
            .iter_mut()
            .find(|pending| pending.index == index)
            && let RespondingStage::Installing { proof } = responding.stage
        {
            responding.stage = RespondingStage::Done { proof };
            context.send(SessionStep::Installed, responding.id, proof.to_vec());
            self.activate(index, context);
        }
    }

    fn take_installed(
        &mut self,
        message: &SessionMessage,
        context: &mut SessionContext<'_>,
    ) -> Option<()> {
        let initiating = self
            .initiating
            .as_ref()
            .filter(|pending| pending.id == message.id)?;
        let InitiatingStage::AwaitConfirmation { index, proof } = initiating.stage else {
            return None;
        };
        if !equal_in_constant_time(&proof, &message.body) {
            return None;
        }
        self.confirmed(index, context);
        Some(())
    }

    /// The peer has the keys of this epoch.
    pub(crate) fn confirmed(&mut self, index: u32, context: &mut SessionContext<'_>) {
        let Some(epoch) = self.epochs.iter_mut().find(|epoch| epoch.index == index) else {
            return;
        };
        epoch.confirmed = true;
        match epoch.state {
            EpochState::Installed => {
                self.initiating
                    .take_if(|pending| pending.awaits_confirmation_of(index));
                self.activate(index, context);
            }
            EpochState::Active => self.let_superseded_end(context.now),
            EpochState::Installing | EpochState::Superseded => {}
        }
    }

    fn activate(&mut self, index: u32, context: &mut SessionContext<'_>) {
        let had_one = self.active().is_some();
        for epoch in &mut self.epochs {
            if epoch.index == index {
                epoch.state = EpochState::Active;
            } else if epoch.state == EpochState::Active {
                epoch.state = EpochState::Superseded;
            }
        }
        let Some(epoch) = self.active() else { return };
        let (suite, confirmed) = (epoch.suite, epoch.confirmed);
        let command = Command::ActivateSession {
            slot: self.slot,
            local_index: index,
        };
        context.actions.push(SessionAction::Engine(command));
        if confirmed {
            self.let_superseded_end(context.now);
        }
        if had_one {
            self.rekeys += 1;
        } else {
            context.actions.push(SessionAction::Up(suite));
        }
        self.failure = None;
        let after = context.rekey.after;
        self.due = Some(
            context.now
                + if self.we_lead() {
                    context.random.around(after, REKEY_JITTER_PERCENT)
                } else {
                    after + after * REKEY_JITTER_PERCENT / 100 + REKEY_OTHER_SIDE_AFTER
                },
        );
    }

    fn let_superseded_end(&mut self, now: Instant) {
        for epoch in self
            .epochs
            .iter_mut()
            .filter(|epoch| epoch.state == EpochState::Superseded)
        {
            epoch.remove_at = epoch.remove_at.min(now + EPOCH_LINGER);
        }
    }

    fn take_refused(
        &mut self,
        message: &SessionMessage,
        context: &mut SessionContext<'_>,
    ) -> Option<()> {
        let initiating = self
            .initiating
            .take_if(|pending| pending.id == message.id)?;
        let InitiatingStage::AwaitConfirmation { index, .. } = initiating.stage else {
            self.initiating = Some(initiating);
            return None;
        };
        self.remove_epoch(index, context);
        self.failure = Some(SessionFailure::WrongSecret);
        self.attempt += 1;
        let all_tried = self.attempt.is_multiple_of(context.secrets.keys().len());
        self.due = Some(
            context.now
                + if all_tried {
                    SESSION_TIMEOUT
                } else {
                    Duration::ZERO
                },
        );
        Some(())
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
            let responding =
                |pending: &Responding| !matches!(pending.stage, RespondingStage::Done { .. });
            if self.initiating.is_some()
                || self.responding.iter().any(responding)
                || !context.reachable
            {
                self.due = Some(context.now + SESSION_PAUSE);
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

    fn drop_old_epochs(&mut self, context: &mut SessionContext<'_>) {
        let was_active = self.active().is_some();
        for epoch in self
            .epochs
            .extract_if(.., |epoch| epoch.remove_at <= context.now)
            .collect::<Vec<_>>()
        {
            self.retire(&epoch, context);
        }
        if was_active && self.active().is_none() {
            context.actions.push(SessionAction::Down);
            self.hasten(context.now);
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

/// Where an epoch's keys come from.
struct Keying {
    split: Split,
    secret: SecretKey,
    we_began: bool,
}

impl Initiating {
    fn awaits_confirmation_of(&self, epoch: u32) -> bool {
        matches!(self.stage, InitiatingStage::AwaitConfirmation { index, .. } if index == epoch)
    }
}

fn prologue(network: &NetworkId, initiator: &PeerId, responder: &PeerId, id: u64) -> Vec<u8> {
    [
        b"weft session 1".as_slice(),
        network.as_bytes(),
        &initiator.0,
        &responder.0,
        &id.to_be_bytes(),
    ]
    .concat()
}

fn equal_in_constant_time(ours: &Proof, theirs: &[u8]) -> bool {
    theirs.len() == ours.len()
        && ours
            .iter()
            .zip(theirs)
            .fold(0, |differs, (a, b)| differs | (a ^ b))
            == 0
}

#[cfg(test)]
mod tests;

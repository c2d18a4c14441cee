//! The epochs of a session: installed, activated, superseded, removed.
//!
//! ```text
//!  Installing ─ all workers ─► Installed ─ the peer has the keys ─► Active ─ a newer one ─► Superseded ─► removed
//! ```
//!
//! The responder's epoch is active as soon as it is installed. Bounds: `config::EPOCHS_MAX`, `EPOCH_LIFE_MAX`,
//! `EPOCH_LINGER`.

use std::sync::Arc;
use std::time::Instant;

use weft_engine::command::{Command, SecretKey, SessionKeys};
use weft_engine::session::CipherSuite;

use crate::config::{
    EPOCH_LIFE_MAX, EPOCH_LINGER, EPOCHS_MAX, REKEY_OTHER_SIDE_AFTER, SESSION_RETRY_MIN,
    SESSION_TIMEOUT,
};
use crate::link::message::SessionStep;
use crate::link::noise::Split;
use crate::session::facts::Facts;
use crate::session::keys::{EpochKeys, derive};
use crate::session::{
    Epoch, EpochState, InitiatingStage, Proof, REKEY_JITTER_PERCENT, RespondingStage, Session,
    SessionAction, SessionContext,
};

/// Where an epoch's keys come from.
pub(super) struct Keying {
    pub(super) split: Split,
    pub(super) secret: SecretKey,
    pub(super) we_began: bool,
}

impl Session {
    /// Hands the keys of a new epoch to the engine.
    pub(super) fn install(
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

    pub(super) fn make_room_for_epoch(&mut self, context: &mut SessionContext<'_>) {
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

    pub(super) fn remove_epoch(&mut self, index: u32, context: &mut SessionContext<'_>) {
        if let Some(at) = self.epochs.iter().position(|epoch| epoch.index == index) {
            let epoch = self.epochs.remove(at);
            self.retire(&epoch, context);
        }
    }

    pub(super) fn retire(&self, epoch: &Epoch, context: &mut SessionContext<'_>) {
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

    pub(super) fn activate(&mut self, index: u32, context: &mut SessionContext<'_>) {
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

    pub(super) fn let_superseded_end(&mut self, now: Instant) {
        for epoch in self
            .epochs
            .iter_mut()
            .filter(|epoch| epoch.state == EpochState::Superseded)
        {
            epoch.remove_at = epoch.remove_at.min(now + EPOCH_LINGER);
        }
    }

    pub(super) fn drop_old_epochs(&mut self, context: &mut SessionContext<'_>) {
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
            if context.in_use {
                self.hasten(context.now);
            } else {
                self.due = None;
            }
        }
    }
}

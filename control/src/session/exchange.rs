//! The messages of a session's handshake, at both ends.
//!
//! Each `take_` function says `None` for a message that is not believed, late, or too much.

use std::time::{Duration, Instant};

use weft_engine::session::CipherSuite;

use crate::config::{SESSION_RETRY_MIN, SESSION_TIMEOUT, SESSIONS_PENDING_MAX};
use crate::link::message::{Refusal, SessionMessage, SessionStep};
use crate::link::noise::NoiseHandshake;
use crate::peer::PeerId;
use crate::secret::NetworkId;
use crate::session::epochs::Keying;
use crate::session::facts::Facts;
use crate::session::keys::choose_suite;
use crate::session::{
    Initiating, InitiatingStage, Proof, Responding, RespondingStage, SESSION_PAUSE, Session,
    SessionContext, SessionFailure,
};

impl Session {
    /// Starts a handshake.
    pub(super) fn begin(&mut self, context: &mut SessionContext<'_>) -> Option<()> {
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

    pub(super) fn take_first(
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

    pub(super) fn admit_start(&mut self, per_second_max: u32, now: Instant) -> Option<()> {
        if now.duration_since(self.window_at) >= Duration::from_secs(1) {
            (self.window_at, self.window_starts) = (now, 0);
        }
        self.window_starts = self.window_starts.saturating_add(1);
        (self.window_starts <= per_second_max).then_some(())
    }

    pub(super) fn make_room_to_respond(&mut self, context: &mut SessionContext<'_>) {
        if self.responding.len() >= SESSIONS_PENDING_MAX {
            let done = |pending: &Responding| matches!(pending.stage, RespondingStage::Done { .. });
            let at = self.responding.iter().position(done).unwrap_or(0);
            let oldest = self.responding.remove(at);
            self.drop_responding(&oldest, context);
        }
    }

    pub(super) fn drop_responding(
        &mut self,
        pending: &Responding,
        context: &mut SessionContext<'_>,
    ) {
        match pending.stage {
            RespondingStage::AwaitThird { .. } => {
                context.indices.remove(&pending.index);
            }
            RespondingStage::Installing { .. } => self.remove_epoch(pending.index, context),
            RespondingStage::Done { .. } => {}
        }
    }

    pub(super) fn facts(
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
    pub(super) fn check(&self, noise: &NoiseHandshake, facts: &[u8]) -> Option<Facts> {
        let facts = Facts::parse(facts).ok()?;
        let same_process =
            noise.remote_exchange() == Some(self.exchange) && facts.boot_id == self.boot_id;
        (same_process && facts.sequence > self.heard_sequence).then_some(facts)
    }

    pub(super) fn take_second(
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

    pub(super) fn take_third(
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

    pub(super) fn take_installed(
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

    pub(super) fn take_refused(
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

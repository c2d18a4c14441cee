//! One link: from the first byte of a TCP connection to its end.
//!
//! ```text
//!  dialled    AwaitPreamble ─► AwaitSecond ─► AwaitHello ─► Up ─► Closed
//!  accepted   AwaitPreamble ─► AwaitFirst ─► AwaitThird ──► Up ─► Closed
//!                 │ any failure, any timeout                      ▲
//!                 └───────────────────────────────────────────────┘
//! ```
//!
//! Sans-IO: bytes and time in, an outbox and [`LinkAction`]s out. A link is up at one end only when the other end has proved the
//! secret and its identity. Which of two links to one peer stays is for the node to say. Curve operations begin
//! after a good preamble, and garbage ends the link at its first wrong byte. Bounds: `config::HANDSHAKE_TIMEOUT`,
//! `PREAMBLE_TIMEOUT`, `MESSAGE_LEN_MAX`, `LINK_DEAD_AFTER`.

pub(crate) mod dialer;
pub(crate) mod error;
pub(crate) mod handshake;
mod liveness;
pub(crate) mod message;
pub(crate) mod noise;
pub(crate) mod preamble;

use std::time::{Duration, Instant};

use weft_engine::command::SecretKey;

use crate::config::{HANDSHAKE_TIMEOUT, LINK_RECORDS_MAX, MESSAGE_LEN_MAX, PREAMBLE_TIMEOUT};
use crate::link::error::LinkError;
use crate::link::handshake::Hello;
use crate::link::liveness::Liveness;
use crate::link::message::{
    ByeReason, FRAME_HEADER_LEN, FrameError, FrameHeader, FrameKind, Message, Refusal, frame,
};
use crate::link::noise::{LinkCipher, NoiseError, NoiseHandshake, Split, TAG_LEN};
use crate::link::preamble::{PREAMBLE_LEN, Preamble};
use crate::peer::Identity;
use crate::random::Randomness;
use crate::secret::{NetworkId, Secrets};

/// What a link needs to know of the node.
pub(crate) struct LinkContext<'a> {
    pub(crate) identity: &'a Identity,
    pub(crate) network: &'a NetworkId,
    pub(crate) secrets: &'a Secrets,
    /// Our HELLO, encoded.
    pub(crate) hello: &'a [u8],
    pub(crate) random: &'a mut Randomness,
    pub(crate) now: Instant,
}

/// What a link asks of the node.
#[derive(Debug)]
pub(crate) enum LinkAction {
    /// The peer has proved who it is.
    Up(Box<Hello>),
    Message(Message),
    /// A message of a known type that did not parse was skipped.
    Malformed,
    /// The link is over; what was sent goes out first.
    Down(LinkError),
}

enum Stage {
    AwaitPreamble,
    AwaitFirst(NoiseHandshake),
    AwaitSecond(NoiseHandshake),
    AwaitThird(NoiseHandshake),
    AwaitHello(Secured),
    Up(Secured),
    Closed,
}

/// What a finished handshake gave.
struct Secured {
    cipher: LinkCipher,
    exchange: [u8; 32],
    hash: [u8; 32],
    secret: SecretKey,
}

/// One end of a link.
pub(crate) struct Link {
    /// The secret that we offer; `None` if the peer dialled.
    offered: Option<SecretKey>,
    preamble: Preamble,
    stage: Stage,
    inbox: Vec<u8>,
    /// In the order of sealing, which is the only order in which the peer can open them.
    outbox: Vec<Vec<u8>>,
    opened_at: Instant,
    up_at: Option<Instant>,
    liveness: Liveness,
}

impl Link {
    /// A connection that we dialled; its preamble waits in the outbox.
    pub(crate) fn dialled(secret: SecretKey, closed: bool, now: Instant) -> Self {
        let mut link = Self::new(Some(secret), closed, now);
        link.outbox.push(link.preamble.as_bytes().to_vec());
        link
    }

    /// A connection that somebody made to us; silent until it shows a good preamble.
    pub(crate) fn accepted(closed: bool, now: Instant) -> Self {
        Self::new(None, closed, now)
    }

    fn new(offered: Option<SecretKey>, closed: bool, now: Instant) -> Self {
        Self {
            offered,
            preamble: Preamble::ours(closed),
            stage: Stage::AwaitPreamble,
            inbox: Vec::new(),
            outbox: Vec::new(),
            opened_at: now,
            up_at: None,
            liveness: Liveness::new(now),
        }
    }

    /// What is to be sent, in this order.
    pub(crate) fn take_outbox(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.outbox)
    }

    /// True if we dialled.
    pub(crate) fn is_outbound(&self) -> bool {
        self.offered.is_some()
    }

    /// When the peer had proved itself; `None` before.
    pub(crate) fn up_at(&self) -> Option<Instant> {
        self.up_at
    }

    /// Nothing has been heard that a weft would say.
    pub(crate) fn awaits_preamble(&self) -> bool {
        matches!(self.stage, Stage::AwaitPreamble)
    }

    /// Curve operations come with the next message.
    pub(crate) fn awaits_first(&self) -> bool {
        matches!(self.stage, Stage::AwaitFirst(_))
    }

    /// The same at both ends and on no other link; decides between duplicates.
    pub(crate) fn hash(&self) -> Option<[u8; 32]> {
        self.secured().map(|secured| secured.hash)
    }

    /// The secret that the link was made with.
    pub(crate) fn secret(&self) -> Option<&SecretKey> {
        self.secured().map(|secured| &secured.secret)
    }

    fn secured(&self) -> Option<&Secured> {
        match &self.stage {
            Stage::AwaitHello(secured) | Stage::Up(secured) => Some(secured),
            Stage::AwaitPreamble
            | Stage::AwaitFirst(_)
            | Stage::AwaitSecond(_)
            | Stage::AwaitThird(_)
            | Stage::Closed => None,
        }
    }

    /// True if a ping has waited too long for its answer.
    pub(crate) fn is_suspect(&self, now: Instant) -> bool {
        self.liveness.is_suspect(now)
    }

    /// Takes bytes in, cut anywhere.
    pub(crate) fn receive(
        &mut self,
        data: &[u8],
        context: &mut LinkContext<'_>,
        actions: &mut Vec<LinkAction>,
    ) {
        self.inbox.extend_from_slice(data);
        let mut taken = 0;
        loop {
            let inbox = std::mem::take(&mut self.inbox);
            let step = self.take_one(&inbox[taken..], context, actions);
            self.inbox = inbox;
            match step {
                Ok(0) => break,
                Ok(len) => taken += len,
                Err(error) => return self.fail(error, actions),
            }
        }
        self.inbox.drain(..taken);
    }

    /// Takes the preamble or one frame from the front; 0 if none is whole.
    fn take_one(
        &mut self,
        bytes: &[u8],
        context: &mut LinkContext<'_>,
        actions: &mut Vec<LinkAction>,
    ) -> Result<usize, LinkError> {
        if matches!(self.stage, Stage::Closed) {
            return Ok(0);
        }
        if self.awaits_preamble() {
            let Some(theirs) = Preamble::parse(bytes).map_err(LinkError::Preamble)? else {
                return Ok(0);
            };
            self.take_preamble(&theirs, context)?;
            return Ok(PREAMBLE_LEN);
        }
        let Some(header) = FrameHeader::parse(bytes).map_err(|FrameError| LinkError::Frame)? else {
            return Ok(0);
        };
        let Some(body) = bytes.get(FRAME_HEADER_LEN..FRAME_HEADER_LEN + header.len) else {
            return Ok(0);
        };
        match header.kind {
            FrameKind::Handshake => self.take_handshake(body, context, actions)?,
            FrameKind::Record => self.take_record(header, body, context, actions)?,
            FrameKind::Refusal => return Err(self.take_refusal(body)),
        }
        Ok(FRAME_HEADER_LEN + header.len)
    }

    fn take_preamble(
        &mut self,
        theirs: &Preamble,
        context: &mut LinkContext<'_>,
    ) -> Result<(), LinkError> {
        if self.offered.is_none() {
            // Ours goes out even when the two do not agree: the peer shall see why.
            self.outbox.push(self.preamble.as_bytes().to_vec());
        }
        self.preamble.agree(theirs).map_err(LinkError::Preamble)?;
        let exchange = context.identity.exchange_secret();
        self.stage = if let Some(secret) = &self.offered {
            let prologue = Preamble::prologue(&self.preamble, theirs, context.network);
            let mut noise = NoiseHandshake::initiator(exchange, secret, &prologue, context.random)?;
            self.outbox
                .push(frame(FrameKind::Handshake, &noise.write(&[])?));
            Stage::AwaitSecond(noise)
        } else {
            let prologue = Preamble::prologue(theirs, &self.preamble, context.network);
            Stage::AwaitFirst(NoiseHandshake::responder(
                exchange,
                &prologue,
                context.random,
            )?)
        };
        Ok(())
    }

    fn take_handshake(
        &mut self,
        body: &[u8],
        context: &mut LinkContext<'_>,
        actions: &mut Vec<LinkAction>,
    ) -> Result<(), LinkError> {
        match std::mem::replace(&mut self.stage, Stage::Closed) {
            Stage::AwaitFirst(mut noise) => {
                noise
                    .read(body)
                    .map_err(|NoiseError| LinkError::RefusedByUs(Refusal::OtherNetwork))?;
                self.outbox
                    .push(frame(FrameKind::Handshake, &noise.write(&[])?));
                self.stage = Stage::AwaitThird(noise);
            }
            Stage::AwaitSecond(mut noise) => {
                noise.read(body)?;
                let secret = self.offered.clone().ok_or(LinkError::Frame)?;
                self.outbox
                    .push(frame(FrameKind::Handshake, &noise.write(context.hello)?));
                self.stage = Stage::AwaitHello(secure(noise, secret, true)?);
            }
            Stage::AwaitThird(mut noise) => {
                let (payload, which) = noise
                    .read_last(body, context.secrets.keys())
                    .map_err(|NoiseError| LinkError::RefusedByUs(Refusal::WrongSecret))?;
                let secret = context
                    .secrets
                    .keys()
                    .get(which)
                    .cloned()
                    .ok_or(LinkError::Handshake)?;
                self.stage = Stage::Up(secure(noise, secret, false)?);
                self.send(&Message::Hello(context.hello.to_vec()));
                self.come_up(&payload, context, actions)?;
            }
            Stage::AwaitPreamble | Stage::AwaitHello(_) | Stage::Up(_) | Stage::Closed => {
                return Err(LinkError::Frame);
            }
        }
        Ok(())
    }

    fn come_up(
        &mut self,
        hello: &[u8],
        context: &LinkContext<'_>,
        actions: &mut Vec<LinkAction>,
    ) -> Result<(), LinkError> {
        let exchange = self.secured().ok_or(LinkError::Handshake)?.exchange;
        let hello = Hello::parse(hello, exchange, context.network).map_err(LinkError::Hello)?;
        self.up_at = Some(context.now);
        self.liveness.heard(context.now);
        actions.push(LinkAction::Up(Box::new(hello)));
        Ok(())
    }

    fn take_record(
        &mut self,
        header: FrameHeader,
        body: &[u8],
        context: &LinkContext<'_>,
        actions: &mut Vec<LinkAction>,
    ) -> Result<(), LinkError> {
        let (Stage::AwaitHello(secured) | Stage::Up(secured)) = &mut self.stage else {
            return Err(LinkError::Frame);
        };
        let mut message = body.to_vec();
        secured
            .cipher
            .open(&header.encode(), &mut message)
            .map_err(|NoiseError| LinkError::Record)?;
        self.liveness.heard(context.now);
        let Ok(message) = Message::decode(&message) else {
            actions.push(LinkAction::Malformed);
            return Ok(());
        };
        if matches!(self.stage, Stage::AwaitHello(_)) {
            let Message::Hello(hello) = message else {
                return Err(LinkError::Frame);
            };
            if let Stage::AwaitHello(secured) = std::mem::replace(&mut self.stage, Stage::Closed) {
                self.stage = Stage::Up(secured);
            }
            return self.come_up(&hello, context, actions);
        }
        match message {
            Message::Ping(nonce) => self.send(&Message::Pong(nonce)),
            Message::Pong(nonce) => self.liveness.answered(nonce),
            Message::Bye(reason) => return Err(LinkError::ByPeer(reason)),
            Message::Hello(_)
            | Message::Session(_)
            | Message::Gossip(_)
            | Message::Routed(_)
            | Message::Punch(_)
            | Message::Echo { .. }
            | Message::GroupKey(_)
            | Message::GroupKeyTaken(_)
            | Message::Ipam(_)
            | Message::SignedIpam(_)
            | Message::Unknown(_) => actions.push(LinkAction::Message(message)),
        }
        Ok(())
    }

    fn take_refusal(&self, body: &[u8]) -> LinkError {
        match (&self.stage, body) {
            (Stage::AwaitSecond(_) | Stage::AwaitHello(_), [reason]) => {
                LinkError::RefusedByPeer(Refusal::from_byte(*reason))
            }
            _ => LinkError::Frame,
        }
    }

    /// Sends a message; nothing while the link is not up.
    pub(crate) fn send(&mut self, message: &Message) {
        self.send_encoded(&message.encode());
    }

    /// Sends the bytes of a message.
    pub(crate) fn send_encoded(&mut self, message: &[u8]) {
        let Stage::Up(secured) = &mut self.stage else {
            return;
        };
        debug_assert!(message.len() <= MESSAGE_LEN_MAX, "no message is that long");
        let header = FrameHeader {
            kind: FrameKind::Record,
            len: message.len() + TAG_LEN,
        }
        .encode();
        let mut bytes = Vec::with_capacity(FRAME_HEADER_LEN + message.len() + TAG_LEN);
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(message);
        if secured
            .cipher
            .seal(&header, &mut bytes, FRAME_HEADER_LEN)
            .is_ok()
        {
            self.outbox.push(bytes);
        }
    }

    /// Ends the link from our side and says why, as far as the handshake has come.
    pub(crate) fn close(&mut self, reason: ByeReason, actions: &mut Vec<LinkAction>) {
        self.fail(LinkError::ByUs(reason), actions);
    }

    /// Turns the peer away before the handshake has cost anything.
    pub(crate) fn refuse(&mut self, refusal: Refusal, actions: &mut Vec<LinkAction>) {
        self.fail(LinkError::RefusedByUs(refusal), actions);
    }

    fn fail(&mut self, error: LinkError, actions: &mut Vec<LinkAction>) {
        if let LinkError::ByUs(reason) = error {
            self.send(&Message::Bye(reason));
        }
        if let LinkError::RefusedByUs(refusal) = error
            && !self.awaits_preamble()
        {
            self.outbox
                .push(frame(FrameKind::Refusal, &[refusal.byte()]));
        }
        self.stage = Stage::Closed;
        self.inbox = Vec::new();
        actions.push(LinkAction::Down(error));
    }

    /// Does what is due: asks for a sign of life, or gives up.
    pub(crate) fn tick(&mut self, context: &mut LinkContext<'_>, actions: &mut Vec<LinkAction>) {
        if self
            .deadline()
            .is_none_or(|deadline| context.now < deadline)
        {
            return;
        }
        if !matches!(self.stage, Stage::Up(_)) {
            return self.fail(LinkError::HandshakeTimeout, actions);
        }
        if self
            .secured()
            .is_some_and(|secured| secured.cipher.sealed() >= LINK_RECORDS_MAX)
        {
            return self.fail(LinkError::Worn, actions);
        }
        if self.liveness.awaits_answer() {
            // The ping was sent `LINK_PING_AFTER` after the last word, and has waited for the rest.
            return self.fail(LinkError::Silent, actions);
        }
        self.ping(context);
    }

    /// Asks for a sign of life now.
    pub(crate) fn ping(&mut self, context: &mut LinkContext<'_>) {
        if !self.liveness.awaits_answer() {
            let nonce = context.random.bytes();
            self.liveness.asked(nonce, context.now);
            self.send(&Message::Ping(nonce));
        }
    }

    /// The same, and an answer that has not come after so long will not come: TCP says again what was lost only in its
    /// own time, seconds later.
    pub(crate) fn doubt(&mut self, patience: Duration, context: &mut LinkContext<'_>) {
        self.ping(context);
        self.liveness.doubt(patience);
    }

    /// When [`Link::tick`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Closed => None,
            Stage::AwaitPreamble => Some(self.opened_at + PREAMBLE_TIMEOUT),
            Stage::AwaitFirst(_)
            | Stage::AwaitSecond(_)
            | Stage::AwaitThird(_)
            | Stage::AwaitHello(_) => Some(self.opened_at + HANDSHAKE_TIMEOUT),
            Stage::Up(_) => Some(self.liveness.deadline()),
        }
    }

    /// When [`Link::is_suspect`] may turn true.
    pub(crate) fn suspect_at(&self) -> Option<Instant> {
        self.liveness.suspect_at()
    }
}

fn secure(noise: NoiseHandshake, secret: SecretKey, outbound: bool) -> Result<Secured, LinkError> {
    let exchange = noise.remote_exchange().ok_or(LinkError::Handshake)?;
    let Split {
        initiator,
        responder,
        hash,
    } = noise.split()?;
    let cipher = if outbound {
        LinkCipher::new(&initiator, &responder)
    } else {
        LinkCipher::new(&responder, &initiator)
    };
    Ok(Secured {
        cipher,
        exchange,
        hash,
        secret,
    })
}

#[cfg(test)]
mod tests;

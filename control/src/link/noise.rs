//! `Noise_XXpsk3_25519_ChaChaPoly_BLAKE2s`: the state machine is snow's, the primitives are the pinned crates.
//!
//! ```text
//!  → e
//!  ← e, ee, s, es
//!  → s, se, psk
//! ```
//!
//! Links and sessions both use it. snow runs the handshake only; its raw split keys [`LinkCipher`] for a link and
//! the engine's lanes for a session. Noise specification, revision 34.

use blake2::{Blake2s256, Digest as _};
use chacha20poly1305::aead::{AeadInOut as _, KeyInit as _};
use chacha20poly1305::{ChaCha20Poly1305, Nonce, Tag};
use snow::params::{CipherChoice, DHChoice, HashChoice, NoiseParams};
use snow::resolvers::CryptoResolver;
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState};
use weft_engine::command::SecretKey;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::config::HANDSHAKE_LEN_MAX;
use crate::random::Randomness;

const PATTERN: &str = "Noise_XXpsk3_25519_ChaChaPoly_BLAKE2s";
/// Where the pattern mixes the secret in.
const PSK_LOCATION: u8 = 3;
/// Bytes that sealing adds.
pub(crate) const TAG_LEN: usize = 16;

/// A message did not open, a key was worthless, or it came out of turn; which of them is nobody's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("handshake message does not verify")]
pub(crate) struct NoiseError;

impl From<snow::Error> for NoiseError {
    fn from(_: snow::Error) -> Self {
        Self
    }
}

/// One end of a handshake.
///
/// snow cannot go back after a message that does not verify, so this keeps what it takes to begin again and come to
/// the same point: a spoilt message does no harm, and the last one can be tried with several secrets.
pub(crate) struct NoiseHandshake {
    state: HandshakeState,
    origin: Origin,
    steps: Vec<Step>,
}

/// What a handshake starts from.
struct Origin {
    initiator: bool,
    exchange: Zeroizing<[u8; 32]>,
    ephemeral: Zeroizing<[u8; 32]>,
    prologue: Vec<u8>,
    secret: Option<SecretKey>,
}

/// What has happened in a handshake.
enum Step {
    Wrote(Vec<u8>),
    Read(Vec<u8>),
}

/// What a finished handshake leaves.
pub(crate) struct Split {
    /// Key of what the initiator sends.
    pub(crate) initiator: SecretKey,
    /// Key of what the responder sends.
    pub(crate) responder: SecretKey,
    /// The transcript's hash, equal at both ends and nowhere else.
    pub(crate) hash: [u8; 32],
}

impl Origin {
    fn build(&self) -> Result<HandshakeState, NoiseError> {
        let params: NoiseParams = PATTERN.parse()?;
        let resolver = Resolver {
            ephemeral: self.ephemeral.clone(),
        };
        let builder = Builder::with_resolver(params, Box::new(resolver))
            .local_private_key(self.exchange.as_slice())?
            .prologue(&self.prologue)?;
        let builder = match &self.secret {
            Some(secret) => builder.psk(PSK_LOCATION, &secret.0)?,
            None => builder,
        };
        Ok(if self.initiator {
            builder.build_initiator()?
        } else {
            builder.build_responder()?
        })
    }
}

impl NoiseHandshake {
    /// The end that sends the first and the last message, and so proves `secret` first.
    pub(crate) fn initiator(
        exchange: &[u8; 32],
        secret: &SecretKey,
        prologue: &[u8],
        random: &mut Randomness,
    ) -> Result<Self, NoiseError> {
        Self::new(true, exchange, Some(secret.clone()), prologue, random)
    }

    /// The end that answers; its secrets are given to [`NoiseHandshake::read_last`].
    pub(crate) fn responder(
        exchange: &[u8; 32],
        prologue: &[u8],
        random: &mut Randomness,
    ) -> Result<Self, NoiseError> {
        Self::new(false, exchange, None, prologue, random)
    }

    fn new(
        initiator: bool,
        exchange: &[u8; 32],
        secret: Option<SecretKey>,
        prologue: &[u8],
        random: &mut Randomness,
    ) -> Result<Self, NoiseError> {
        let origin = Origin {
            initiator,
            exchange: Zeroizing::new(*exchange),
            ephemeral: Zeroizing::new(random.bytes()),
            prologue: prologue.to_vec(),
            secret,
        };
        Ok(Self {
            state: origin.build()?,
            origin,
            steps: Vec::new(),
        })
    }

    /// Writes the next message around `payload`.
    pub(crate) fn write(&mut self, payload: &[u8]) -> Result<Vec<u8>, NoiseError> {
        let mut message = vec![0; HANDSHAKE_LEN_MAX];
        let len = self.state.write_message(payload, &mut message)?;
        message.truncate(len);
        self.steps.push(Step::Wrote(payload.to_vec()));
        Ok(message)
    }

    /// Reads the next message and gives its payload; after an error the handshake is as before.
    pub(crate) fn read(&mut self, message: &[u8]) -> Result<Vec<u8>, NoiseError> {
        if message.len() > HANDSHAKE_LEN_MAX {
            return Err(NoiseError);
        }
        let mut payload = vec![0; message.len()];
        match self.state.read_message(message, &mut payload) {
            Ok(len) => {
                payload.truncate(len);
                self.steps.push(Step::Read(message.to_vec()));
                Ok(payload)
            }
            Err(_) => {
                self.begin_again()?;
                Err(NoiseError)
            }
        }
    }

    fn begin_again(&mut self) -> Result<(), NoiseError> {
        self.state = self.origin.build()?;
        let mut ignored = [0; HANDSHAKE_LEN_MAX];
        for step in &self.steps {
            match step {
                Step::Wrote(payload) => self.state.write_message(payload, &mut ignored)?,
                Step::Read(message) => self.state.read_message(message, &mut ignored)?,
            };
        }
        Ok(())
    }

    /// Reads the last message with each secret in turn; also says which one it was.
    pub(crate) fn read_last(
        &mut self,
        message: &[u8],
        secrets: &[SecretKey],
    ) -> Result<(Vec<u8>, usize), NoiseError> {
        for (i, secret) in secrets.iter().enumerate() {
            self.state.set_psk(usize::from(PSK_LOCATION), &secret.0)?;
            if let Ok(payload) = self.read(message) {
                return Ok((payload, i));
            }
        }
        Err(NoiseError)
    }

    /// The peer's static key, once its message was read.
    pub(crate) fn remote_exchange(&self) -> Option<[u8; 32]> {
        self.state
            .get_remote_static()
            .and_then(|key| key.try_into().ok())
    }

    /// The keys, once the last message is written or read.
    pub(crate) fn split(mut self) -> Result<Split, NoiseError> {
        if !self.state.is_handshake_finished() {
            return Err(NoiseError);
        }
        let hash = self
            .state
            .get_handshake_hash()
            .try_into()
            .map_err(|_| NoiseError)?;
        let (initiator, responder) = self.state.dangerously_get_raw_split();
        Ok(Split {
            initiator: SecretKey(initiator),
            responder: SecretKey(responder),
            hash,
        })
    }
}

/// Seals and opens the records of one link, in order, one counter for each direction.
pub(crate) struct LinkCipher {
    send: ChaCha20Poly1305,
    send_counter: u64,
    recv: ChaCha20Poly1305,
    recv_counter: u64,
}

impl LinkCipher {
    /// The cipher of the end that sends under `send`.
    pub(crate) fn new(send: &SecretKey, recv: &SecretKey) -> Self {
        Self {
            send: ChaCha20Poly1305::new(&send.0.into()),
            send_counter: 0,
            recv: ChaCha20Poly1305::new(&recv.0.into()),
            recv_counter: 0,
        }
    }

    /// Records sealed so far.
    pub(crate) fn sealed(&self) -> u64 {
        self.send_counter
    }

    /// Seals `buffer` from `start` on in place and appends the tag.
    pub(crate) fn seal(
        &mut self,
        associated: &[u8],
        buffer: &mut Vec<u8>,
        start: usize,
    ) -> Result<(), NoiseError> {
        let nonce = nonce(self.send_counter);
        let body = buffer.get_mut(start..).ok_or(NoiseError)?;
        let tag = self
            .send
            .encrypt_inout_detached(&nonce, associated, body.into())
            .map_err(|_| NoiseError)?;
        self.send_counter = self.send_counter.checked_add(1).ok_or(NoiseError)?;
        buffer.extend_from_slice(&tag);
        Ok(())
    }

    /// Opens the next record in place and cuts its tag off.
    pub(crate) fn open(
        &mut self,
        associated: &[u8],
        record: &mut Vec<u8>,
    ) -> Result<(), NoiseError> {
        let body_len = record.len().checked_sub(TAG_LEN).ok_or(NoiseError)?;
        let (body, tag) = record.split_at_mut(body_len);
        let tag: [u8; TAG_LEN] = (&*tag).try_into().map_err(|_| NoiseError)?;
        let nonce = nonce(self.recv_counter);
        self.recv
            .decrypt_inout_detached(&nonce, associated, body.into(), &Tag::from(tag))
            .map_err(|_| NoiseError)?;
        self.recv_counter = self.recv_counter.checked_add(1).ok_or(NoiseError)?;
        record.truncate(body_len);
        Ok(())
    }
}

/// Noise §12.3: four zero bytes, then the counter in little-endian order.
fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce.into()
}

/// Gives snow its primitives, and the one random number that the pattern needs of each end.
struct Resolver {
    ephemeral: Zeroizing<[u8; 32]>,
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Ephemeral(Some(self.ephemeral.clone()))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        (*choice == DHChoice::Curve25519).then(|| Box::<X25519>::default() as Box<dyn Dh>)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        (*choice == HashChoice::Blake2s).then(|| Box::<Blake2sHash>::default() as Box<dyn Hash>)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        (*choice == CipherChoice::ChaChaPoly)
            .then(|| Box::<ChaChaPoly>::default() as Box<dyn Cipher>)
    }
}

/// Drawn before the handshake begins; given out once.
struct Ephemeral(Option<Zeroizing<[u8; 32]>>);

impl Random for Ephemeral {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), snow::Error> {
        let ephemeral = self
            .0
            .take_if(|ephemeral| ephemeral.len() == dest.len())
            .ok_or(snow::Error::Rng)?;
        dest.copy_from_slice(ephemeral.as_slice());
        Ok(())
    }
}

#[derive(Default)]
struct X25519 {
    secret: Zeroizing<[u8; 32]>,
    public: [u8; 32],
}

impl X25519 {
    fn set_secret(&mut self, secret: [u8; 32]) {
        self.public = PublicKey::from(&StaticSecret::from(secret)).to_bytes();
        self.secret = Zeroizing::new(secret);
    }
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, privkey: &[u8]) {
        let mut secret = [0; 32];
        // snow's builder has checked the length against `priv_len`.
        secret.copy_from_slice(privkey);
        self.set_secret(secret);
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), snow::Error> {
        let mut secret = [0; 32];
        rng.try_fill_bytes(&mut secret)?;
        self.set_secret(secret);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        self.secret.as_slice()
    }

    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        let theirs: [u8; 32] = *pubkey.first_chunk().ok_or(snow::Error::Dh)?;
        let shared = StaticSecret::from(*self.secret).diffie_hellman(&PublicKey::from(theirs));
        // A point of low order would make the result the same whatever our key is (RFC 7748 §6.1).
        if !shared.was_contributory() {
            return Err(snow::Error::Dh);
        }
        out.get_mut(..32)
            .ok_or(snow::Error::Dh)?
            .copy_from_slice(shared.as_bytes());
        Ok(())
    }
}

#[derive(Default)]
struct Blake2sHash(Blake2s256);

impl Hash for Blake2sHash {
    fn name(&self) -> &'static str {
        "BLAKE2s"
    }

    fn block_len(&self) -> usize {
        64
    }

    fn hash_len(&self) -> usize {
        32
    }

    fn reset(&mut self) {
        self.0 = Blake2s256::new();
    }

    fn input(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn result(&mut self, out: &mut [u8]) {
        out[..32].copy_from_slice(&self.0.finalize_reset());
    }
}

#[derive(Default)]
struct ChaChaPoly {
    key: Zeroizing<[u8; 32]>,
}

impl ChaChaPoly {
    fn cipher(&self) -> ChaCha20Poly1305 {
        ChaCha20Poly1305::new(&(*self.key).into())
    }
}

impl Cipher for ChaChaPoly {
    fn name(&self) -> &'static str {
        "ChaChaPoly"
    }

    fn set(&mut self, key: &[u8; 32]) {
        self.key = Zeroizing::new(*key);
    }

    fn encrypt(&self, counter: u64, authtext: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
        let (body, rest) = out.split_at_mut(plaintext.len());
        body.copy_from_slice(plaintext);
        let tag = self
            .cipher()
            .encrypt_inout_detached(&nonce(counter), authtext, body.into())
            .expect("a handshake message is far below the cipher's limit of 256 GiB");
        rest[..TAG_LEN].copy_from_slice(&tag);
        plaintext.len() + TAG_LEN
    }

    fn decrypt(
        &self,
        counter: u64,
        authtext: &[u8],
        ciphertext: &[u8],
        out: &mut [u8],
    ) -> Result<usize, snow::Error> {
        let len = ciphertext
            .len()
            .checked_sub(TAG_LEN)
            .ok_or(snow::Error::Decrypt)?;
        let (body, tag) = ciphertext.split_at(len);
        let tag: [u8; TAG_LEN] = tag.try_into().map_err(|_| snow::Error::Decrypt)?;
        let out = out.get_mut(..len).ok_or(snow::Error::Decrypt)?;
        out.copy_from_slice(body);
        let nonce = nonce(counter);
        self.cipher()
            .decrypt_inout_detached(&nonce, authtext, out.into(), &Tag::from(tag))
            .map_err(|_| snow::Error::Decrypt)?;
        Ok(len)
    }
}

#[cfg(test)]
mod tests;

//! What proves membership: passwords, tokens, or nothing; and the network's id.
//!
//! ```text
//!  password ── Argon2id(salt = network id) ──┐
//!  token ───── BLAKE2s(network id, token) ───┼─► 32 bytes, mixed into the last message of each handshake
//!  open ────── zeros, said in the preamble ──┘
//! ```
//!
//! Several secrets may be valid at once, so that a password can be changed without an outage. Bound:
//! `config::SECRETS_MAX`.

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use blake2::{Blake2s256, Digest as _};
use weft_engine::command::SecretKey;
use zeroize::Zeroizing;

use crate::config::SECRETS_MAX;
use crate::random::Randomness;

/// How a token begins, wherever a password can stand.
pub const TOKEN_PREFIX: &str = "weft-token-";
/// Longest password in bytes; more is a file given by mistake.
pub const PASSWORD_LEN_MAX: usize = 1024;

/// Argon2id's memory in KiB: RFC 9106's second choice, with one lane because a launch has one core to give.
const STRETCH_MEMORY_KIB: u32 = 64 * 1024;
/// Argon2id's passes.
const STRETCH_PASSES: u32 = 3;

/// Why a secret cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// An empty password.
    #[error("password is empty; leave it out for an open network")]
    Empty,
    /// Longer than [`PASSWORD_LEN_MAX`].
    #[error("password is longer than {PASSWORD_LEN_MAX} bytes")]
    TooLong,
    /// The prefix of a token, and then not 64 hexadecimal digits.
    #[error(
        "token is damaged; accepted is {TOKEN_PREFIX} and 64 hexadecimal digits, as `weft token` prints"
    )]
    DamagedToken,
    /// More than [`SECRETS_MAX`].
    #[error("at most {SECRETS_MAX} secrets may be valid at once")]
    TooMany,
    /// Memory for the stretching was refused.
    #[error("stretch password (needs 64 MiB of memory)")]
    Stretch,
}

/// The network that a peer belongs to: a hash of its configured name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct NetworkId([u8; 32]);

impl NetworkId {
    /// The id of the network of this name.
    #[must_use]
    pub fn of(name: &str) -> Self {
        Self(
            Blake2s256::new()
                .chain_update(b"weft network 1")
                .chain_update(name)
                .finalize()
                .into(),
        )
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NetworkId(")?;
        self.0
            .iter()
            .take(4)
            .try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("..)")
    }
}

/// A secret as a person gives it.
#[derive(Clone)]
pub enum Credential {
    /// Made by a person; stretched before use.
    Password(Zeroizing<String>),
    /// 256 random bits; used as it is.
    Token(Zeroizing<[u8; 32]>),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password(_) => "Password(..)",
            Self::Token(_) => "Token(..)",
        })
    }
}

impl Credential {
    /// Reads what stands in `--password` or a line of `--password-file`.
    ///
    /// # Errors
    /// [`SecretError`] if it is empty, too long, or a token with a fault.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        if text.is_empty() {
            return Err(SecretError::Empty);
        }
        if text.len() > PASSWORD_LEN_MAX {
            return Err(SecretError::TooLong);
        }
        let Some(digits) = text.strip_prefix(TOKEN_PREFIX) else {
            return Ok(Self::Password(Zeroizing::new(text.to_owned())));
        };
        if digits.len() != 64 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(SecretError::DamagedToken);
        }
        let mut token = Zeroizing::new([0; 32]);
        for (i, byte) in token.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[2 * i..2 * i + 2], 16)
                .map_err(|_| SecretError::DamagedToken)?;
        }
        Ok(Self::Token(token))
    }

    /// Makes a new token, as text.
    #[must_use]
    pub fn new_token(random: &mut Randomness) -> Zeroizing<String> {
        let token = Zeroizing::new(random.bytes::<32>());
        let mut text = Zeroizing::new(String::with_capacity(TOKEN_PREFIX.len() + 64));
        text.push_str(TOKEN_PREFIX);
        for byte in *token {
            text.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
            text.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
        }
        text
    }

    /// The key for handshakes; a password takes tens of milliseconds and 64 MiB, so never on the loop.
    ///
    /// # Errors
    /// [`SecretError::Stretch`] if there is no memory for it.
    pub fn stretch(&self, network: &NetworkId) -> Result<SecretKey, SecretError> {
        let mut key = [0; 32];
        match self {
            Self::Password(password) => {
                let params = Params::new(STRETCH_MEMORY_KIB, STRETCH_PASSES, 1, Some(key.len()))
                    .map_err(|_| SecretError::Stretch)?;
                Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
                    .hash_password_into(password.as_bytes(), network.as_bytes(), &mut key)
                    .map_err(|_| SecretError::Stretch)?;
            }
            Self::Token(token) => {
                let hash = Blake2s256::new()
                    .chain_update(b"weft token 1")
                    .chain_update(network.as_bytes())
                    .chain_update(token.as_slice());
                key = hash.finalize().into();
            }
        }
        Ok(SecretKey(key))
    }
}

/// How membership is proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Membership {
    /// At least one password.
    Password,
    /// Tokens only.
    Token,
    /// Nothing to prove; traffic is encrypted all the same.
    Open,
}

impl Membership {
    /// The word in status.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Token => "token",
            Self::Open => "open",
        }
    }
}

/// The keys that prove membership, the one that we offer first in front.
#[derive(Debug, Clone)]
pub struct Secrets {
    keys: Vec<SecretKey>,
    membership: Membership,
}

impl Secrets {
    /// A network without a secret.
    #[must_use]
    pub fn open() -> Self {
        Self {
            keys: vec![SecretKey([0; 32])],
            membership: Membership::Open,
        }
    }

    /// Stretches what was given; an empty list means an open network. Takes tens of milliseconds for each password.
    ///
    /// # Errors
    /// [`SecretError`] if there are too many or one cannot be stretched.
    pub fn stretch(credentials: &[Credential], network: &NetworkId) -> Result<Self, SecretError> {
        if credentials.len() > SECRETS_MAX {
            return Err(SecretError::TooMany);
        }
        if credentials.is_empty() {
            return Ok(Self::open());
        }
        let keys = credentials
            .iter()
            .map(|c| c.stretch(network))
            .collect::<Result<_, _>>()?;
        let password = credentials
            .iter()
            .any(|c| matches!(c, Credential::Password(_)));
        Ok(Self {
            keys,
            membership: if password {
                Membership::Password
            } else {
                Membership::Token
            },
        })
    }

    /// How membership is proved.
    #[must_use]
    pub fn membership(&self) -> Membership {
        self.membership
    }

    /// Whether there is a secret at all.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.membership != Membership::Open
    }

    /// The keys, best first; never empty.
    pub(crate) fn keys(&self) -> &[SecretKey] {
        &self.keys
    }

    /// The key to offer at the n-th try.
    pub(crate) fn offered(&self, attempt: usize) -> &SecretKey {
        &self.keys[attempt % self.keys.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str, network: &str) -> SecretKey {
        Credential::parse(text)
            .unwrap()
            .stretch(&NetworkId::of(network))
            .unwrap()
    }

    #[test]
    fn a_password_gives_one_key_for_each_network() {
        let wanted = key("wfvAwt7sj", "weft");

        assert_eq!(key("wfvAwt7sj", "weft"), wanted);
        assert_ne!(key("wfvAwt7sj", "other"), wanted);
        assert_ne!(key("wfvAwt7sk", "weft"), wanted);
    }

    #[test]
    fn a_token_is_made_read_and_tied_to_the_network() {
        let text = Credential::new_token(&mut Randomness::seeded(1));

        assert_eq!(text.len(), TOKEN_PREFIX.len() + 64);
        assert!(matches!(Credential::parse(&text), Ok(Credential::Token(_))));
        assert_ne!(key(&text, "a"), key(&text, "b"));
        assert_ne!(*text, *Credential::new_token(&mut Randomness::seeded(2)));
    }

    #[test]
    fn bad_secrets_are_named() {
        let error = |text: &str| Credential::parse(text).unwrap_err();
        assert_eq!(error(""), SecretError::Empty);
        assert_eq!(error(&"x".repeat(1025)), SecretError::TooLong);
        assert_eq!(error("weft-token-12"), SecretError::DamagedToken);
        assert_eq!(
            error(&format!("{TOKEN_PREFIX}{}", "g".repeat(64))),
            SecretError::DamagedToken
        );
        assert_eq!(
            error(&format!("{TOKEN_PREFIX}{}", "é".repeat(32))),
            SecretError::DamagedToken
        );
        let five: Vec<_> = (0..5)
            .map(|n| Credential::parse(&format!("p{n}")).unwrap())
            .collect();
        assert_eq!(
            Secrets::stretch(&five, &NetworkId::of("n")).unwrap_err(),
            SecretError::TooMany
        );
    }

    #[test]
    fn membership_says_what_kind_of_secret_there_is() {
        let network = NetworkId::of("weft");
        let token = Credential::parse(&Credential::new_token(&mut Randomness::seeded(3))).unwrap();

        assert_eq!(
            Secrets::stretch(&[], &network).unwrap().membership(),
            Membership::Open
        );
        assert_eq!(
            Secrets::stretch(&[token], &network).unwrap().membership(),
            Membership::Token
        );
        assert!(!Secrets::open().is_closed());
    }

    #[test]
    fn secrets_are_not_shown() {
        let secret = Credential::parse("hunter2").unwrap();
        assert!(!format!("{secret:?}").contains("hunter2"));
    }
}

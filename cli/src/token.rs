//! `weft token`: makes a secret that needs no stretching, because nobody thought it up.

use weft_control::random::Randomness;
use weft_control::secret::Credential;
use zeroize::Zeroizing;

/// Returns a new token: a prefix that tells it from a password, and 256 random bits as hexadecimal digits.
pub(crate) fn generate() -> Zeroizing<String> {
    Credential::new_token(&mut Randomness::system())
}

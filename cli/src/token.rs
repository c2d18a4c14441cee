//! `weft token`: makes a secret that needs no stretching, because nobody thought it up.

use std::fmt::Write;

/// How a token begins, so that it is told from a password.
const PREFIX: &str = "weft-token-";

/// Returns a new token: the prefix and 256 random bits as hexadecimal digits.
pub(crate) fn generate() -> String {
    let bits: [u8; 32] = rand::random();
    let mut token = PREFIX.to_owned();
    for byte in bits {
        // Writing to a string cannot fail.
        let _infallible = write!(token, "{byte:02x}");
    }
    token
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_the_prefix_and_256_bits_and_never_the_same() {
        let (one, other) = (generate(), generate());

        let digits = one.strip_prefix(PREFIX).unwrap();
        assert!(
            digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{one}"
        );
        assert_ne!(one, other);
    }
}

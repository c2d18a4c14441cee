//! Any text as a password or token: refused, or a secret that is never shown.

#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_control::secret::{Credential, NetworkId, PASSWORD_LEN_MAX, TOKEN_PREFIX};

fuzz_target!(|text: &str| {
    match Credential::parse(text) {
        Ok(Credential::Password(password)) => {
            assert_eq!(*password, text);
            assert!((1..=PASSWORD_LEN_MAX).contains(&text.len()));
            assert!(
                !text.starts_with(TOKEN_PREFIX),
                "a damaged token is no password"
            );
        }
        Ok(token @ Credential::Token(_)) => {
            assert_eq!(text.len(), TOKEN_PREFIX.len() + 64);
            assert_eq!(format!("{token:?}"), "Token(..)");
            let key = |text: &str| {
                let token = Credential::parse(text).expect("a token");
                token
                    .stretch(&NetworkId::of("weft"))
                    .expect("it is not stretched")
            };
            // Upper and lower case digits are one token.
            let lower = format!(
                "{TOKEN_PREFIX}{}",
                text[TOKEN_PREFIX.len()..].to_lowercase()
            );
            assert!(key(text) == key(&lower));
        }
        Err(error) => {
            // The message must not repeat what was typed, which may be nearly right.
            let said = error.to_string();
            let digits = text.strip_prefix(TOKEN_PREFIX).unwrap_or_default();
            // A fuzzer learns the message's own words and types them.
            let words = Credential::parse(&format!("{TOKEN_PREFIX}!"));
            let words = words.expect_err("no token").to_string();
            assert!(digits.len() < 16 || words.contains(digits) || !said.contains(digits));
        }
    }
});

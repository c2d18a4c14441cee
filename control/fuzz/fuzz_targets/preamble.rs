//! Any bytes as a preamble: read whole or refused, and both ends agree or neither does.

#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_control::fuzzing::preamble;

fuzz_target!(|bytes: &[u8]| {
    for closed in [false, true] {
        match preamble(bytes, closed) {
            Some((read, version)) => {
                assert_eq!(read, bytes[..8]);
                assert!(bytes.starts_with(b"weft"));
                let (lowest, highest) = (read[4], read[5]);
                let agreed = (lowest..=highest).contains(&1) && (read[6] & 1 == 1) == closed;
                assert_eq!(version, agreed.then_some(1));
            }
            None => assert!(bytes.len() < 8 || !bytes.starts_with(b"weft")),
        }
    }
});

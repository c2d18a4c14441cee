//! Any bytes as a control message: what is read and written again means the same, and is no longer than it was.

#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_control::fuzzing::message;

fuzz_target!(|bytes: &[u8]| {
    let Some(again) = message(bytes) else {
        assert!(matches!(bytes, [] | [2..=9 | 16 | 17, ..]), "another type is skipped");
        return;
    };
    assert!(bytes.starts_with(&again));
    assert_eq!(message(&again), Some(again.clone()));
    // Only what a newer peer may add is left out: behind a reason, or all of an unknown type.
    let cut_is_meant = matches!(bytes, [4, ..] | [0 | 10..=15 | 18.., ..]);
    assert!(again.len() == bytes.len() || cut_is_meant);
});

//! Any bytes as the body of a NAMES record: refused, or entries that are written and read again as they were.

#![no_main]

use std::collections::BTreeSet;

use libfuzzer_sys::fuzz_target;
use weft_control::dns::record;

fuzz_target!(|body: &[u8]| {
    let Some((entries, senseless)) = record::parse(body) else {
        return;
    };
    // An entry has ten bytes at least, and a senseless one three.
    assert!(entries.len() * 10 + senseless * 3 <= body.len());
    let said: BTreeSet<_> = entries.into_iter().collect();
    let mut again = BTreeSet::new();
    for part in record::encode(said.iter().zip((0..32).cycle())).values() {
        let (entries, senseless) = record::parse(part).expect("what we write is well-formed");
        assert_eq!(senseless, 0);
        again.extend(entries);
    }
    assert_eq!(again, said);
});

//! Any text as a target: refused, or an address that reads back as itself.

#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_control::{TargetAddress, TargetHost};

fuzz_target!(|text: &str| {
    let Ok(target) = TargetAddress::parse(text, 6783) else {
        return;
    };
    assert_ne!(target.port, 0);
    match &target.host {
        TargetHost::Ip(ip) => assert!(!ip.is_unspecified() && !ip.is_multicast()),
        TargetHost::Name(name) => {
            assert!((1..=254).contains(&name.len()) && text.starts_with(name.as_str()));
            assert!(
                name.bytes()
                    .all(|byte| byte.is_ascii_graphic() && !b"/:[]@".contains(&byte))
            );
        }
    }
    assert_eq!(TargetAddress::parse(&target.to_string(), 1), Ok(target));
});

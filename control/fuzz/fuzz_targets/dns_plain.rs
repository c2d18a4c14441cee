//! Any datagram as a question: where the short way answers, the library's way answers the same.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use weft_control::dns::name::{DnsName, Domain};
use weft_control::dns::names::{Entry, Sources};
use weft_control::fuzzing::DnsWays;
use weft_control::peer::PeerId;

static WAYS: LazyLock<DnsWays> = LazyLock::new(|| {
    let entry = |name, address: String| Entry {
        name: DnsName::parse(name).expect("a name"),
        address: address.parse().expect("an address"),
        container: "c".into(),
    };
    let mut entries = vec![
        entry("A.weave.local", "10.32.0.1".to_owned()),
        entry("a.weave.local", "fd00::1".to_owned()),
        entry("b.a.weave.local", "fd00::2".to_owned()),
    ];
    // More than fit into 512 bytes, and fewer than fit into 1232.
    entries.extend((0..40).map(|n| entry("m.weave.local", format!("10.40.0.{n}"))));
    let mut sources = Sources::default();
    sources.set(PeerId([1; 16]), entries.into());
    DnsWays::new(sources.build(&Domain::parse("weave.local").expect("a domain")))
});

fuzz_target!(|datagram: &[u8]| {
    let _ = WAYS.agree(datagram);
});

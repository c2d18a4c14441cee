//! Any labels, type and class as a question: one verdict, a single label never leaves the host, and addresses are
//! the domain's, or the asker's own below `localhost`.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use weft_control::dns::answer::{Question, Verdict, answer};
use weft_control::dns::name::{AskedName, DnsName, Domain};
use weft_control::dns::names::{Entry, Names, Sources};
use weft_control::peer::PeerId;

static NAMES: LazyLock<Names> = LazyLock::new(|| {
    let entry = |name, address: &str| Entry {
        name: DnsName::parse(name).expect("a name"),
        address: address.parse().expect("an address"),
        container: "c".into(),
    };
    let mut sources = Sources::default();
    let entries = [
        entry("a.weave.local", "10.32.0.1"),
        entry("b.a.weave.local", "fd00::1"),
    ];
    sources.set(PeerId([1; 16]), entries.into());
    sources.build(&Domain::parse("weave.local").expect("a domain"))
});

fuzz_target!(|input: (Vec<&[u8]>, u16, u16, u64)| {
    let (labels, kind, class, luck) = input;
    let Some(name) = AskedName::from_labels(labels.iter().copied()) else {
        return;
    };
    let local = labels.last().is_some_and(|label| label.eq_ignore_ascii_case(b"localhost"));
    let verdict = answer(&NAMES, &Question { name, kind, class }, luck);
    assert!(!(verdict == Verdict::Forward && labels.len() == 1));
    if let Verdict::Addresses(addresses) = verdict {
        assert!(!addresses.is_empty());
        let loopback = addresses.iter().all(|address| address.is_loopback());
        assert_eq!(local, loopback, "the asker itself, if and only if it asks for localhost");
        assert!(local || labels.len() == 1 || NAMES.domain().contains(name.key()));
    }
});

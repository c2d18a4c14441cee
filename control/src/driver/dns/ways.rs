//! One datagram both ways, through `dns::plain` and through the library, and whether that is the same: for the tests
//! and the fuzz target.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use futures_util::FutureExt as _;
use hickory_server::net::runtime::TokioTime;
use hickory_server::net::xfer::Protocol;
use hickory_server::proto::op::Message;
use hickory_server::server::{Request, RequestHandler as _};

use super::counters::Counters;
use super::handler::{Handler, Short, now};
use super::udp::reply_to;
use super::upstreams::Upstreams;
use super::{ADDRESS_DEFAULT, DOCKER_BRIDGE_DEFAULT, DnsConfig, RESOLV_CONF_DEFAULT, Shared};
use crate::config::DNS_UDP_LEN_MAX;
use crate::dns::names::Names;
use crate::dns::plain::Room;

/// A handler without upstreams.
pub(crate) struct Ways(Handler);

impl Ways {
    pub(crate) fn new(names: Names, ttl: u32) -> Self {
        let config = DnsConfig {
            domain: names.domain().clone(),
            ttl,
            address: ADDRESS_DEFAULT,
            bridge: "weft".to_owned(),
            docker_bridge: DOCKER_BRIDGE_DEFAULT.to_owned(),
            upstreams: Vec::new(),
            resolv_conf: RESOLV_CONF_DEFAULT.into(),
            client_rate: 0,
        };
        let shared = Arc::new(Shared {
            names: ArcSwap::from_pointee(names),
            state: Mutex::default(),
            counters: Counters::default(),
        });
        let upstreams = Arc::new(Upstreams::new(&config));
        Self(Handler::new(&config, shared, upstreams))
    }

    /// True if there is a short answer.
    ///
    /// # Panics
    /// If the long way says or counts anything else.
    pub(crate) fn agree(&self, datagram: &[u8]) -> bool {
        let before = self.counted();
        let Some(short) = self.short(datagram) else {
            assert_eq!(self.counted(), before, "counted without an answer");
            return false;
        };
        let by_short = change(&before, &self.counted());
        let before = self.counted();
        let long = self.long(datagram).expect("the short way found an answer");
        assert_eq!(by_short, change(&before, &self.counted()), "{datagram:x?}");
        if short != long {
            assert_eq!(short.len(), long.len(), "{short:x?} {long:x?}");
            let (short, long) = (parsed(&short), parsed(&long));
            assert!(long.answers.len() > 1, "{short:?} {long:?}");
            assert_eq!(short, long);
        }
        true
    }

    fn short(&self, datagram: &[u8]) -> Option<Vec<u8>> {
        let names = self.0.shared.names.load();
        let mut out = vec![0; DNS_UDP_LEN_MAX.into()];
        let room = Room::Datagram(&mut out);
        match self
            .0
            .short(datagram, client().ip(), (&names, now()), room)?
        {
            Short::Answer(len) => out.truncate(len),
            Short::Drop => out.clear(),
        }
        Some(out)
    }

    fn long(&self, datagram: &[u8]) -> Option<Vec<u8>> {
        let request = Request::from_bytes(datagram.to_vec(), client(), Protocol::Udp).ok()?;
        let reply = reply_to(&request);
        let answering = self
            .0
            .handle_request::<_, TokioTime>(&request, reply.clone());
        answering.now_or_never()?;
        reply.take()
    }

    fn counted(&self) -> BTreeMap<String, u64> {
        self.0.shared.counters.by_name()
    }
}

fn client() -> SocketAddr {
    (ADDRESS_DEFAULT, 4444).into()
}

/// What rose, and by how much.
fn change(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let rises = after.iter().map(|(name, count)| {
        let before = before.get(name).copied().unwrap_or_default();
        (name.clone(), count - before)
    });
    rises.filter(|(_, rise)| *rise > 0).collect()
}

/// In the order of what the answers say.
fn parsed(answer: &[u8]) -> Message {
    let mut message = Message::from_vec(answer).expect("an answer of ours is one");
    message
        .answers
        .sort_by_key(|record| record.data.to_string());
    message
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dns::name::{DnsName, Domain};
    use crate::dns::names::tests::entry;
    use crate::dns::names::{Entry, Sources};
    use crate::peer::PeerId;

    const WEAVE: &str = "weave.local";

    fn ways(domain: &str, entries: &[Entry], ttl: u32) -> Ways {
        let mut sources = Sources::default();
        sources.set(PeerId([1; 16]), entries.into());
        Ways::new(sources.build(&Domain::parse(domain).unwrap()), ttl)
    }

    /// One name with one address of each family, one with `many` of each, one below, and one for each reverse name.
    fn some_ways(domain: &str, many: usize, ttl: u32) -> Ways {
        let mut entries = Vec::new();
        let mut add = |name: String, address: String| {
            // With a long domain a name may be too long for one.
            if DnsName::parse(&name).is_ok() {
                entries.push(entry(&name, &address, "c"));
            }
        };
        add(format!("One.{domain}"), "10.32.0.1".to_owned());
        add(format!("one.{domain}"), "fd00::1".to_owned());
        add(format!("six.{domain}"), "fd00::2".to_owned());
        add(format!("a.b.{domain}"), "10.32.0.2".to_owned());
        for n in 1..=many {
            add(format!("many.{domain}"), format!("10.40.0.{n}"));
            add(format!("many.{domain}"), format!("fd00:40::{n}"));
        }
        ways(domain, &entries, ttl)
    }

    /// A question; `opt` is what the client takes, and the rest of the time to live of its OPT record.
    fn datagram(name: &str, kind: u16, flags: [u8; 2], opt: Option<(u16, u32)>) -> Vec<u8> {
        let mut bytes = vec![0x12, 0x34, flags[0], flags[1], 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.').filter(|label| !label.is_empty()) {
            bytes.push(u8::try_from(label.len()).unwrap());
            bytes.extend(label.as_bytes());
        }
        bytes.push(0);
        bytes.extend(kind.to_be_bytes());
        bytes.extend([0, 1]);
        if let Some((size, rest)) = opt {
            bytes[11] = 1;
            bytes.extend([0, 0, 41]);
            bytes.extend(size.to_be_bytes());
            bytes.extend(rest.to_be_bytes());
            bytes.extend([0, 0]);
        }
        bytes
    }

    fn long_domain(len: usize) -> String {
        let label = "d".repeat(63);
        let whole = format!("{label}.{label}.{label}.{}", "d".repeat(61));
        whole[whole.len() - len..].to_owned()
    }

    #[test]
    fn the_usual_questions_go_the_short_way_and_others_do_not() {
        let ways = some_ways(WEAVE, 40, 1);
        let (plain, dnssec) = ([1, 0], Some((1232, 0x8000)));
        let reverse6 = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa";
        for (name, kind, opt) in [
            ("one.weave.local", 1, None),
            ("oNe.weave.LOCAL", 28, None),
            ("one", 1, None),
            ("One", 255, dnssec),
            ("six", 1, None),
            ("six.weave.local", 28, Some((512, 0))),
            ("one", 65, None),
            ("two", 1, None),
            ("two.weave.local", 28, dnssec),
            ("b.weave.local", 1, None),
            ("weave.local", 1, None),
            ("many", 1, Some((1232, 0))),
            ("many", 1, Some((u16::MAX, 0))),
            ("1.0.32.10.in-addr.arpa", 12, None),
            (reverse6, 12, dnssec),
            ("1.0.32.10.in-addr.arpa", 1, None),
            ("localhost", 1, dnssec),
            ("Db.LocalHost", 28, None),
            ("localhost", 15, None),
            ("1.0.0.127.in-addr.arpa", 12, None),
        ] {
            assert!(
                ways.agree(&datagram(name, kind, plain, opt)),
                "{name} {kind}"
            );
        }
        for (name, kind, flags, opt) in [
            ("many", 1, plain, None),
            ("many", 255, plain, Some((1232, 0))),
            ("weave.local", 6, plain, None),
            ("example.org", 1, plain, None),
            ("one.weave.local", 252, plain, None),
            ("9.0.32.10.in-addr.arpa", 12, plain, None),
            ("one", 1, [0x80, 0], None),
            ("one", 1, [0x10, 0], None),
            ("one", 1, plain, Some((1232, 0x1_0000))),
            ("", 1, plain, None),
        ] {
            assert!(
                !ways.agree(&datagram(name, kind, flags, opt)),
                "{name} {kind}"
            );
        }
        let usual = datagram("one", 1, plain, Some((1232, 0)));
        for len in 0..usual.len() {
            assert!(!ways.agree(&usual[..len]), "{len}");
        }
        assert!(!ways.agree(&[usual.as_slice(), &[0]].concat()));
    }

    fn any_name() -> impl Strategy<Value = String> {
        let first = prop::sample::select(vec![
            "one",
            "ONE",
            "six",
            "many",
            "Many",
            "a.b",
            "b",
            "none",
            "x.y.z",
            "localhost",
            "x.Localhost",
            "",
        ]);
        let foreign = prop::sample::select(vec![
            "1.0.32.10.in-addr.arpa",
            "2.0.32.10.In-Addr.ARPA",
            "1.0.40.10.in-addr.arpa",
            "9.9.9.9.in-addr.arpa",
            "32.10.in-addr.arpa",
            "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa",
            "example.org",
        ]);
        prop_oneof![
            2 => first.clone().prop_map(|first| format!("{first}.@")),
            1 => first.prop_map(str::to_owned),
            1 => foreign.prop_map(str::to_owned),
        ]
    }

    fn any_domain() -> impl Strategy<Value = String> {
        prop_oneof![
            4 => Just(WEAVE.to_owned()),
            1 => Just("Weave.Local".to_owned()),
            1 => Just("x.arpa".to_owned()),
            1 => Just("a.a.a".to_owned()),
            1 => (225..=253usize).prop_map(long_domain),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn a_short_answer_is_the_long_one(
            domain in any_domain(),
            name in any_name(),
            kind in prop_oneof![Just(1), Just(28), Just(12), Just(255), Just(65), any::<u16>()],
            flags: [u8; 2],
            opt: Option<(u16, u32)>,
            many in 0..90usize,
            ttl in prop_oneof![Just(1), any::<u32>()],
        ) {
            let ways = some_ways(&domain, many, ttl);
            let name = name.replace('@', &domain);
            let usual = [flags[0] & 0x07, flags[1]];
            let version = opt.map(|(size, rest)| (size, rest & !0xff_0000));
            if name.len() < 254 {
                ways.agree(&datagram(&name, kind, flags, opt));
                ways.agree(&datagram(&name, kind, usual, version));
            }
        }

        #[test]
        fn a_spoilt_question_is_not_misunderstood(
            name in any_name(),
            opt: Option<(u16, u32)>,
            at: prop::sample::Index,
            byte: u8,
            kept: prop::sample::Index,
            more: Vec<u8>,
        ) {
            let ways = some_ways(WEAVE, 3, 1);
            let mut bytes = datagram(&name.replace('@', WEAVE), 1, [1, 0], opt);
            *at.get_mut(&mut bytes) = byte;
            ways.agree(&bytes);
            bytes.truncate(kept.index(bytes.len()));
            bytes.extend(more);
            ways.agree(&bytes);
        }
    }
}

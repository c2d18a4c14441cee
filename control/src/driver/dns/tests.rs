//! Requests through the handler, with an upstream on loopback that does what a test says.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use hickory_server::net::runtime::TokioTime;
use hickory_server::net::xfer::Protocol;
use hickory_server::proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_server::proto::rr::rdata::{A, CNAME, NULL, SOA};
use hickory_server::proto::rr::{Name, RData, Record, RecordType};
use hickory_server::server::{Request, RequestHandler};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};

use super::wire::WireAnswer;
use super::*;
use crate::dns::names::Sources;
use crate::dns::names::tests::entry;

fn config(upstreams: Vec<SocketAddr>) -> DnsConfig {
    DnsConfig {
        domain: Domain::parse(DOMAIN_DEFAULT).unwrap(),
        ttl: TTL_DEFAULT,
        address: ADDRESS_DEFAULT,
        bridge: "weft".to_owned(),
        docker_bridge: DOCKER_BRIDGE_DEFAULT.to_owned(),
        upstreams,
        resolv_conf: "/nowhere/resolv.conf".into(),
        client_rate: 0,
    }
}

fn handler(config: &DnsConfig, entries: &[Entry]) -> Arc<Handler> {
    let mut sources = Sources::default();
    sources.set(PeerId([1; 16]), entries.into());
    let shared = Arc::new(Shared {
        names: ArcSwap::from_pointee(sources.build(&config.domain)),
        state: Mutex::default(),
        counters: Counters::default(),
    });
    let upstreams = Arc::new(Upstreams::new(config));
    upstreams.look(&[ADDRESS_DEFAULT.into()]);
    Arc::new(Handler::new(config, shared, upstreams))
}

fn some_entries() -> Vec<Entry> {
    let mut entries = vec![
        entry("One.weave.local", "10.32.0.1", "c1"),
        entry("one.weave.local", "fd00::1", "c1"),
        entry("two.weave.local", "10.32.0.2", "c2"),
    ];
    entries.extend((1..=50).map(|n| entry("many.weave.local", &format!("10.40.0.{n}"), "c")));
    entries
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

async fn try_ask(handler: &Handler, message: &Message, len_max: u16) -> Option<Message> {
    try_ask_from([10, 32, 0, 9].into(), handler, message, len_max).await
}

async fn try_ask_from(
    client: IpAddr,
    handler: &Handler,
    message: &Message,
    len_max: u16,
) -> Option<Message> {
    let client = SocketAddr::new(client, 4444);
    let request = Request::from_bytes(message.to_vec().unwrap(), client, Protocol::Udp).unwrap();
    let reply = WireAnswer::to(&request, len_max);
    handler
        .handle_request::<_, TokioTime>(&request, reply.clone())
        .await;
    let bytes = reply.take()?;
    assert!(bytes.len() <= usize::from(len_max));
    Some(Message::from_vec(&bytes).unwrap())
}

async fn ask(handler: &Handler, name: &str, kind: RecordType) -> Message {
    try_ask(handler, &question(name, kind), 1232).await.unwrap()
}

fn addresses(message: &Message) -> Vec<String> {
    let mut found = message
        .answers
        .iter()
        .map(|record| record.data.to_string())
        .collect::<Vec<_>>();
    found.sort();
    found
}

#[tokio::test]
async fn our_names_are_answered_with_authority_and_in_the_askers_spelling() {
    let handler = handler(&config(Vec::new()), &some_entries());

    let reply = ask(&handler, "oNe.Weave.local.", RecordType::A).await;
    assert_eq!(addresses(&reply), ["10.32.0.1"]);
    assert_eq!(reply.answers[0].name.to_string(), "oNe.Weave.local.");
    assert_eq!(reply.answers[0].ttl, 1);
    assert!(reply.metadata.authoritative && reply.metadata.recursion_available);
    assert!(reply.metadata.recursion_desired && !reply.metadata.truncation);
    assert_eq!(reply.metadata.id, 7);

    let reply = ask(&handler, "one.", RecordType::AAAA).await;
    assert_eq!(addresses(&reply), ["fd00::1"]);
    let reply = ask(&handler, "1.0.32.10.in-addr.arpa.", RecordType::PTR).await;
    assert_eq!(addresses(&reply), ["One.weave.local."]);
}

#[tokio::test]
async fn negative_answers_say_how_long_they_hold() {
    let handler = handler(&config(Vec::new()), &some_entries());
    for (name, kind, code) in [
        ("two.weave.local.", RecordType::AAAA, ResponseCode::NoError),
        ("two.", RecordType::TXT, ResponseCode::NoError),
        ("three.weave.local.", RecordType::A, ResponseCode::NXDomain),
        ("three.", RecordType::A, ResponseCode::NXDomain),
    ] {
        let reply = ask(&handler, name, kind).await;
        assert_eq!(reply.metadata.response_code, code, "{name}");
        assert!(reply.answers.is_empty());
        assert_eq!(reply.authorities[0].record_type(), RecordType::SOA);
        assert_eq!(reply.authorities[0].name.to_string(), "weave.local.");
        assert_eq!(reply.authorities[0].ttl, 1);
    }
}

#[tokio::test]
async fn what_does_not_fit_is_cut_and_says_so() {
    let handler = handler(&config(Vec::new()), &some_entries());
    let question = question("many.weave.local.", RecordType::A);

    let short = try_ask(&handler, &question, 512).await.unwrap();
    assert!(short.metadata.truncation);
    assert!(short.answers.len() > 20 && short.answers.len() < 50);
    let whole = try_ask(&handler, &question, u16::MAX).await.unwrap();
    assert!(!whole.metadata.truncation);
    assert_eq!(whole.answers.len(), 50);
    let mut extended = question.clone();
    extended.edns = Some(Edns::new());
    let cut = try_ask(&handler, &extended, 700).await.unwrap();
    assert!(cut.metadata.truncation && cut.answers.len() > short.answers.len());
}

/// Whatever fits beside it: an answer to a question of EDNS says so (RFC 6891 §7), and no other answer does.
#[tokio::test]
async fn an_answer_to_an_extended_question_is_an_extended_one() {
    let handler = handler(&config(Vec::new()), &some_entries());
    for name in ["many.weave.local.", "one.weave.local.", "none.weave.local."] {
        let mut asked = question(name, RecordType::A);
        for len_max in 512..720 {
            let plain = try_ask(&handler, &asked, len_max).await.unwrap();
            assert!(plain.edns.is_none());
        }
        asked.edns = Some(Edns::new());
        for len_max in 512..720 {
            let reply = try_ask(&handler, &asked, len_max).await.unwrap();
            let edns = reply.edns.unwrap();
            assert_eq!((edns.max_payload(), edns.version()), (1232, 0), "{len_max}");
            let is_cut = name.starts_with("many");
            assert_eq!(reply.metadata.truncation, is_cut, "{name} {len_max}");
        }
    }
}

#[tokio::test]
async fn the_domain_has_a_record_of_its_own() {
    let handler = handler(&config(Vec::new()), &some_entries());
    let reply = ask(&handler, "Weave.Local.", RecordType::SOA).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
    assert_eq!(reply.answers.len(), 1);
    assert_eq!(reply.answers[0].record_type(), RecordType::SOA);
    assert!(reply.metadata.authoritative && reply.authorities.is_empty());
}

#[tokio::test]
async fn requests_that_are_no_plain_question_are_refused() {
    let handler = handler(&config(Vec::new()), &some_entries());
    let plain = question("one.", RecordType::A);
    let mut status = plain.clone();
    status.metadata.op_code = OpCode::Status;
    let mut newer = plain.clone();
    newer.edns = Some(Edns::new().set_version(1).clone());
    let mut two = plain.clone();
    two.add_query(Query::query(
        Name::from_ascii("two.").unwrap(),
        RecordType::A,
    ));
    let none = Message::new(7, MessageType::Query, OpCode::Query);
    let transfer = question("weave.local.", RecordType::AXFR);

    for (message, code) in [
        (status, ResponseCode::NotImp),
        (newer, ResponseCode::BADVERS),
        (two, ResponseCode::FormErr),
        (none, ResponseCode::FormErr),
        (transfer, ResponseCode::Refused),
    ] {
        let reply = try_ask(&handler, &message, 512).await.unwrap();
        assert_eq!(reply.metadata.response_code.low(), code.low());
        assert!(reply.answers.is_empty());
    }
}

#[tokio::test]
async fn a_client_over_its_rate_gets_nothing() {
    let config = DnsConfig {
        client_rate: 5,
        ..config(Vec::new())
    };
    let handler = handler(&config, &some_entries());
    let foreign = question("example.org.", RecordType::A);
    let mut answered = 0;
    for _ in 0..50 {
        answered += usize::from(try_ask(&handler, &foreign, 512).await.is_some());
    }
    assert!((4..=10).contains(&answered), "{answered}");
    let own = question("one.", RecordType::A);
    assert!(try_ask(&handler, &own, 512).await.is_some());
}

/// Nor for what is refused: a refusal is an answer.
#[tokio::test]
async fn refusals_are_within_the_rate() {
    let config = DnsConfig {
        client_rate: 1,
        ..config(Vec::new())
    };
    let plain = question("one.", RecordType::A);
    let mut status = plain.clone();
    status.metadata.op_code = OpCode::Status;
    let mut newer = plain.clone();
    newer.edns = Some(Edns::new().set_version(1).clone());
    let none = Message::new(7, MessageType::Query, OpCode::Query);
    let transfer = question("weave.local.", RecordType::AXFR);
    for message in [status, newer, none, transfer] {
        let handler = handler(&config, &some_entries());
        let mut answered = 0;
        for _ in 0..150 {
            answered += u64::from(try_ask(&handler, &message, 512).await.is_some());
        }
        // A second's worth at once.
        assert!((50..100).contains(&answered), "{answered}");
        let counters = handler.shared.counters.by_name();
        assert_eq!(counters["dns_drop_over_rate"], 150 - answered);
        assert_eq!(
            counters["dns_refused"] + counters["dns_malformed"],
            answered
        );
    }
}

#[tokio::test]
async fn over_both_transports_format_errors_are_within_the_rate() {
    let config = DnsConfig {
        client_rate: 1,
        ..config(Vec::new())
    };
    let handler = handler(&config, &[]);
    let address = serve_on_loopback(&handler).await;
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(address).await.unwrap();
    // A question without its end.
    let mut broken = question("one.", RecordType::A).to_vec().unwrap();
    broken.truncate(14);
    let counted = || {
        let counters = handler.shared.counters.by_name();
        (counters["dns_malformed"], counters["dns_drop_over_rate"])
    };
    let asked = 120;
    for n in 1..=asked {
        client.send(&broken).await.unwrap();
        while counted().0 + counted().1 < n {
            tokio::task::yield_now().await;
        }
    }
    let (told, dropped) = counted();
    assert!(
        (50..100).contains(&told) && dropped == asked - told,
        "{told}"
    );
    let mut buffer = [0; 512];
    let heard = (0..).take_while(|_| client.try_recv(&mut buffer).is_ok());
    assert_eq!(heard.count(), usize::try_from(told).unwrap());

    let mut stream = TcpStream::connect(address).await.unwrap();
    let framed = [&[0, 14], broken.as_slice()].concat();
    stream.write_all(&framed.repeat(60)).await.unwrap();
    let mut heard = Vec::new();
    // Hung up on, perhaps before all was read.
    let _ = stream.read_to_end(&mut heard).await;
    assert!(heard.len() < 14 * 60, "{}", heard.len());
}

/// What an upstream does with a question.
#[derive(Clone, Copy)]
enum Upstream {
    Answer,
    Nothing(ResponseCode),
    Silence,
    /// Nothing to names that begin with this.
    SilenceOf(&'static str),
    /// An answer after this time.
    Late(Duration),
    /// Under another number, and for another name.
    Lies,
    Garbage,
    /// Over UDP; over TCP it answers.
    Cut,
    /// The name is another one for this, of which it says something, and of another of ours, too.
    Alias(&'static str),
    /// Signed, if signatures are asked for; the last number of the address says with which bits it was asked.
    Signed,
}

/// What [`Upstream::Signed`] says to a question: the address, its signature, and that this is good unless it was not to
/// be checked.
fn signed_reply(question: &Message, mut reply: Message) -> Message {
    let name = question.queries[0].name().clone();
    let edns = question.edns.as_ref();
    let is_dnssec_ok = edns.is_some_and(|edns| edns.flags().dnssec_ok);
    let is_unchecked = question.metadata.checking_disabled;
    let last = 80 + u8::from(is_dnssec_ok) + 2 * u8::from(is_unchecked);
    let address = RData::A(A::new(192, 0, 2, last));
    reply.add_answer(Record::from_rdata(name.clone(), 300, address));
    reply.metadata.authentic_data = question.metadata.authentic_data && !is_unchecked;
    if is_dnssec_ok {
        let rdata = RData::Unknown {
            code: RecordType::RRSIG,
            rdata: NULL::with(vec![7; 40]),
        };
        reply.add_answer(Record::from_rdata(name, 300, rdata));
    }
    reply
}

fn upstream_reply(behaviour: Upstream, question: &[u8], over_tcp: bool) -> Option<Vec<u8>> {
    let question = Message::from_vec(question).ok()?;
    let query = question.queries[0].clone();
    let mut reply = Message::new(question.metadata.id, MessageType::Response, OpCode::Query);
    reply.metadata.recursion_available = true;
    reply.add_query(query.clone());
    let name = query.name().clone();
    let other = Name::from_ascii("real.example.org.").unwrap();
    match behaviour {
        Upstream::Answer | Upstream::Late(_) => {}
        Upstream::Cut if over_tcp => {}
        Upstream::Cut => {
            reply.metadata.truncation = true;
            return reply.to_vec().ok();
        }
        Upstream::Nothing(code) => {
            reply.metadata.response_code = code;
            let soa = SOA::new(other.clone(), other, 1, 60, 60, 60, 30);
            let zone = Name::from_ascii("example.org.").unwrap();
            reply.add_authority(Record::from_rdata(zone, 60, RData::SOA(soa)));
            return reply.to_vec().ok();
        }
        Upstream::Silence => return None,
        Upstream::SilenceOf(start) if name.to_ascii().starts_with(start) => return None,
        Upstream::SilenceOf(_) => {}
        Upstream::Lies => {
            reply.metadata.id = reply.metadata.id.wrapping_add(1);
            reply.queries[0].set_name(other.clone());
        }
        Upstream::Garbage => return Some(vec![0xff; 40]),
        Upstream::Signed => return signed_reply(&question, reply).to_vec().ok(),
        Upstream::Alias(target) => {
            let target = Name::from_ascii(target).unwrap();
            let alias = RData::CNAME(CNAME(target.clone()));
            reply.add_answer(Record::from_rdata(name, 300, alias));
            for spoken_of in [target, Name::from_ascii("two.weave.local.").unwrap()] {
                let address = RData::A(A::new(192, 0, 2, 66));
                reply.add_answer(Record::from_rdata(spoken_of, 300, address));
            }
            return reply.to_vec().ok();
        }
    }
    let chain = CNAME(other.clone());
    reply.add_answer(Record::from_rdata(name, 300, RData::CNAME(chain)));
    let address = A::new(192, 0, 2, 80);
    reply.add_answer(Record::from_rdata(other, 300, RData::A(address)));
    reply.to_vec().ok()
}

/// Serves on loopback; where, and how often it was asked.
async fn upstream(behaviour: Upstream) -> (SocketAddr, Arc<AtomicUsize>) {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let udp = Arc::new(UdpSocket::bind(address).await.unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        loop {
            let (len, from) = udp.recv_from(&mut buffer).await.unwrap();
            count.fetch_add(1, Ordering::Relaxed);
            let Some(reply) = upstream_reply(behaviour, &buffer[..len], false) else {
                continue;
            };
            let socket = Arc::clone(&udp);
            tokio::spawn(async move {
                if let Upstream::Late(pause) = behaviour {
                    tokio::time::sleep(pause).await;
                }
                socket.send_to(&reply, from).await.unwrap();
            });
        }
    });
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = tcp.accept().await.unwrap();
            tokio::spawn(async move {
                while let Ok(len) = stream.read_u16().await {
                    let mut question = vec![0; len.into()];
                    stream.read_exact(&mut question).await.unwrap();
                    if let Some(reply) = upstream_reply(behaviour, &question, true) {
                        let len = u16::try_from(reply.len()).unwrap();
                        stream.write_u16(len).await.unwrap();
                        stream.write_all(&reply).await.unwrap();
                    }
                }
            });
        }
    });
    (address, asked)
}

#[tokio::test]
async fn foreign_names_are_asked_upstream_once_and_then_kept() {
    let (address, asked) = upstream(Upstream::Answer).await;
    let handler = handler(&config(vec![address]), &some_entries());

    for _ in 0..3 {
        let reply = ask(&handler, "www.example.org.", RecordType::A).await;
        assert_eq!(addresses(&reply), ["192.0.2.80", "real.example.org."]);
        assert!(!reply.metadata.authoritative);
        assert!(reply.answers.iter().all(|record| record.ttl <= 300));
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

/// What was asked in one way is never an answer to what is asked in another.
#[tokio::test]
async fn bits_of_dnssec_go_to_the_upstream_and_its_answer_comes_back_whole() {
    let (address, asked) = upstream(Upstream::Signed).await;
    let handler = handler(&config(vec![address]), &some_entries());
    for (is_dnssec_ok, is_unchecked, says) in [
        (false, false, "192.0.2.80"),
        (true, false, "192.0.2.81"),
        (false, true, "192.0.2.82"),
        (true, true, "192.0.2.83"),
        (false, false, "192.0.2.80"),
    ] {
        let mut message = question("www.example.org.", RecordType::A);
        message.metadata.checking_disabled = is_unchecked;
        message.edns = Some(Edns::new().set_dnssec_ok(is_dnssec_ok).clone());
        let reply = try_ask(&handler, &message, 1232).await.unwrap();

        assert!(addresses(&reply).contains(&says.to_owned()), "{reply}");
        let signatures = reply.answers.iter();
        let signatures = signatures.filter(|record| record.record_type() == RecordType::RRSIG);
        assert_eq!(signatures.count(), usize::from(is_dnssec_ok));
        let said = reply.metadata;
        assert_eq!(said.authentic_data, is_dnssec_ok && !is_unchecked);
        assert_eq!(said.checking_disabled, is_unchecked);
        assert_eq!(reply.edns.unwrap().flags().dnssec_ok, is_dnssec_ok);
    }
    // The last was in the cache.
    assert_eq!(asked.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn signed_answers_that_are_cut_are_fetched_over_tcp_and_negative_ones_are_whole() {
    for (behaviour, code, answers, authorities) in [
        (Upstream::Cut, ResponseCode::NoError, 2, 0),
        (
            Upstream::Nothing(ResponseCode::NXDomain),
            ResponseCode::NXDomain,
            0,
            1,
        ),
        (
            Upstream::Nothing(ResponseCode::ServFail),
            ResponseCode::ServFail,
            0,
            0,
        ),
        (Upstream::Lies, ResponseCode::ServFail, 0, 0),
        (Upstream::Silence, ResponseCode::ServFail, 0, 0),
    ] {
        let (address, _) = upstream(behaviour).await;
        let handler = handler(&config(vec![address]), &[]);
        let mut message = question("www.example.org.", RecordType::A);
        message.edns = Some(Edns::new().set_dnssec_ok(true).clone());
        let started = clock();
        let reply = try_ask(&handler, &message, 1232).await.unwrap();
        assert_eq!(reply.metadata.response_code, code);
        let counts = (reply.answers.len(), reply.authorities.len());
        assert_eq!(counts, (answers, authorities));
        assert!(started.elapsed() < Duration::from_millis(4900));
    }
}

/// Nobody learns so what others asked for, and nobody is sent on.
#[tokio::test]
async fn without_a_wish_for_recursion_foreign_names_are_refused() {
    let (address, asked) = upstream(Upstream::Answer).await;
    let handler = handler(&config(vec![address]), &some_entries());
    ask(&handler, "www.example.org.", RecordType::A).await;
    for (name, code, count) in [
        ("www.example.org.", ResponseCode::Refused, 0),
        ("9.0.32.10.in-addr.arpa.", ResponseCode::Refused, 0),
        ("one.weave.local.", ResponseCode::NoError, 1),
        ("nobody.weave.local.", ResponseCode::NXDomain, 0),
    ] {
        let mut message = question(name, RecordType::A);
        if name.ends_with("arpa.") {
            message.queries[0].set_query_type(RecordType::PTR);
        }
        message.metadata.recursion_desired = false;
        let reply = try_ask(&handler, &message, 1232).await.unwrap();
        assert_eq!(reply.metadata.response_code, code, "{name}");
        assert_eq!(reply.answers.len(), count);
        assert!(!reply.metadata.recursion_desired);
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn upstreams_have_nothing_to_say_of_our_names() {
    for (target, address) in [
        ("one.weave.local.", Some("10.32.0.1")),
        ("nobody.weave.local.", None),
        ("real.example.org.", Some("192.0.2.66")),
    ] {
        let (server, _) = upstream(Upstream::Alias(target)).await;
        let handler = handler(&config(vec![server]), &some_entries());
        let reply = ask(&handler, "www.example.org.", RecordType::A).await;
        let mut expected = vec![target.to_owned()];
        expected.extend(address.map(str::to_owned));
        expected.sort();
        assert_eq!(addresses(&reply), expected);
        let code = address.map_or(ResponseCode::NXDomain, |_| ResponseCode::NoError);
        assert_eq!(reply.metadata.response_code, code);
    }
}

#[tokio::test]
async fn one_question_is_asked_once_at_a_time() {
    let (address, asked) = upstream(Upstream::Answer).await;
    let handler = handler(&config(vec![address]), &[]);
    let asking = (0..100).map(|_| ask(&handler, "www.example.org.", RecordType::A));
    let replies = futures_util::future::join_all(asking).await;
    assert!(replies.iter().all(|reply| reply.answers.len() == 2));
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn upstreams_that_have_nothing_are_believed() {
    for code in [ResponseCode::NXDomain, ResponseCode::NoError] {
        let (address, _) = upstream(Upstream::Nothing(code)).await;
        let handler = handler(&config(vec![address]), &[]);
        let reply = ask(&handler, "none.example.org.", RecordType::A).await;
        assert_eq!(reply.metadata.response_code, code);
        assert_eq!(reply.authorities[0].record_type(), RecordType::SOA);
        assert!(reply.authorities[0].ttl <= 30);
    }
}

#[tokio::test]
async fn an_answer_that_was_cut_is_fetched_over_tcp() {
    let (address, _) = upstream(Upstream::Cut).await;
    let handler = handler(&config(vec![address]), &[]);
    let reply = ask(&handler, "www.example.org.", RecordType::A).await;
    assert_eq!(addresses(&reply), ["192.0.2.80", "real.example.org."]);
}

/// Whatever an upstream does, a client has its answer before its resolver asks again, and ours are not delayed.
#[tokio::test]
async fn bad_upstreams_end_in_servfail_in_time_and_hold_up_nobody() {
    for behaviour in [Upstream::Silence, Upstream::Lies, Upstream::Garbage] {
        let (address, _) = upstream(behaviour).await;
        let handler = handler(&config(vec![address]), &some_entries());
        let started = tokio::time::Instant::now();
        let foreign = async {
            let reply = ask(&handler, "www.example.org.", RecordType::A).await;
            (reply.metadata.response_code, started.elapsed())
        };
        let own = async {
            ask(&handler, "one.", RecordType::A).await;
            started.elapsed()
        };
        let ((code, late), soon) = tokio::join!(foreign, own);
        assert_eq!(code, ResponseCode::ServFail);
        assert!(late < Duration::from_millis(4900), "{late:?}");
        assert!(soon < Duration::from_secs(1), "{soon:?}");
    }
}

/// A container that gave itself many addresses asks what nobody answers.
#[tokio::test]
async fn who_waits_for_many_makes_room_for_others() {
    let (address, _) = upstream(Upstream::SilenceOf("hole")).await;
    let handler = handler(&config(vec![address]), &[]);
    let mut waiting = tokio::task::JoinSet::new();
    for n in 0..1500_u16 {
        let handler = Arc::clone(&handler);
        let client = [10, 32, 1, u8::try_from(n % 30).unwrap()];
        let hole = question(&format!("hole{n}.example.org."), RecordType::A);
        waiting.spawn(async move { try_ask_from(client.into(), &handler, &hole, 1232).await });
    }
    // Those above the limit get no place.
    for _ in 0..1500 - crate::config::DNS_FORWARDS_MAX {
        let reply = waiting.join_next().await.unwrap().unwrap().unwrap();
        assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    }
    let over = || handler.shared.counters.by_name()["dns_drop_over_forwards"];
    assert_eq!(over(), 1500 - 1024);
    for n in 0..20 {
        let name = format!("www{n}.example.org.");
        let reply = ask(&handler, &name, RecordType::A).await;
        assert_eq!(addresses(&reply), ["192.0.2.80", "real.example.org."]);
    }
    assert!(over() > 1500 - 1024, "{}", over());
}

/// Resolvers wait five seconds: what comes in four is of use.
#[tokio::test]
async fn a_slow_upstream_is_waited_for_as_long_as_the_client_waits() {
    let (address, _) = upstream(Upstream::Late(Duration::from_secs(4))).await;
    let handler = handler(&config(vec![address]), &[]);
    let reply = ask(&handler, "www.example.org.", RecordType::A).await;
    assert_eq!(addresses(&reply), ["192.0.2.80", "real.example.org."]);
}

#[tokio::test]
async fn a_dead_upstream_does_not_hide_a_living_one() {
    let (dead, _) = upstream(Upstream::Silence).await;
    let (living, _) = upstream(Upstream::Answer).await;
    let handler = handler(&config(vec![dead, living]), &[]);
    let started = tokio::time::Instant::now();
    let reply = ask(&handler, "www.example.org.", RecordType::A).await;
    assert_eq!(reply.answers.len(), 2);
    assert!(started.elapsed() < Duration::from_secs(3));
}

/// Of the three that resolv.conf may name the last one alone is there; after the first question it comes first.
#[tokio::test]
async fn upstreams_that_are_late_are_asked_last_for_a_while() {
    let (first, asked_first) = upstream(Upstream::Silence).await;
    let (second, _) = upstream(Upstream::Silence).await;
    let (living, _) = upstream(Upstream::Answer).await;
    let handler = handler(&config(vec![first, second, living]), &[]);
    for (name, limit) in [("a.example.org.", 2000), ("b.example.org.", 350)] {
        let started = clock();
        let reply = ask(&handler, name, RecordType::A).await;
        assert_eq!(reply.answers.len(), 2);
        let took = started.elapsed();
        assert!(took < Duration::from_millis(limit), "{name} {took:?}");
    }
    assert!(asked_first.load(Ordering::Relaxed) > 0);
}

#[tokio::test]
async fn upstreams_are_asked_in_their_order_and_the_next_one_after_a_failure() {
    let (failing, _) = upstream(Upstream::Nothing(ResponseCode::ServFail)).await;
    let (refusing, _) = upstream(Upstream::Nothing(ResponseCode::Refused)).await;
    let (knowing, _) = upstream(Upstream::Nothing(ResponseCode::NXDomain)).await;
    let (last, asked) = upstream(Upstream::Answer).await;
    let handler = handler(&config(vec![failing, refusing, knowing, last]), &[]);
    let reply = ask(&handler, "none.example.org.", RecordType::A).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(asked.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn without_upstreams_the_answer_is_servfail_at_once() {
    let handler = handler(&config(Vec::new()), &[]);
    let reply = ask(&handler, "www.example.org.", RecordType::A).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
}

#[test]
fn resolv_conf_is_read_again_when_it_changes_and_we_are_not_our_own_upstream() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("resolv.conf");
    let upstreams = Upstreams::new(&DnsConfig {
        resolv_conf: path.clone(),
        ..config(Vec::new())
    });
    let own = [IpAddr::V4(ADDRESS_DEFAULT)];
    assert!(upstreams.look(&own).0.is_empty());

    std::fs::write(&path, "nameserver 169.254.53.1\nnameserver 192.0.2.1\n").unwrap();
    assert_eq!(upstreams.look(&own).0, ["192.0.2.1:53".parse().unwrap()]);
    std::fs::write(&path, "nameserver 169.254.53.1\nnameserver 192.0.2.22\n").unwrap();
    assert_eq!(upstreams.look(&own).0, ["192.0.2.22:53".parse().unwrap()]);
    let more = [own[0], "192.0.2.22".parse().unwrap()];
    assert!(upstreams.look(&more).0.is_empty());
    std::fs::remove_file(&path).unwrap();
    assert!(upstreams.look(&own).0.is_empty());
}

#[test]
fn upstreams_that_cannot_be_asked_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("resolv.conf");
    let upstreams = Upstreams::new(&DnsConfig {
        resolv_conf: path.clone(),
        ..config(Vec::new())
    });
    std::fs::write(&path, "nameserver fe80::1%eth0\n").unwrap();
    let told = upstreams.look(&[]).1.join("\n");
    assert!(told.contains("nameserver fe80::1%eth0 in "), "{told}");
    assert!(told.contains("no upstream DNS server: "), "{told}");
    std::fs::write(&path, "nameserver 192.0.2.1\n").unwrap();
    assert_eq!(upstreams.look(&[]).1, [""; 0]);
    let own = DnsConfig {
        upstreams: vec!["169.254.53.1:53".parse().unwrap()],
        ..config(Vec::new())
    };
    let told = Upstreams::new(&own).look(&[ADDRESS_DEFAULT.into()]).1;
    assert!(
        told.concat()
            .contains("--dns-upstream names this server itself"),
        "{told:?}"
    );
}

/// A container that asks while the daemon starts would believe for a while that its peers are gone.
#[test]
fn a_server_never_listens_without_the_names_of_the_last_run() {
    let mut saved = Sources::default();
    saved.set(PeerId([1; 16]), some_entries().into());
    let server = DnsServer::start(config(Vec::new()), saved).unwrap();
    let known = || server.handle().names().entries().len();
    assert_eq!(known(), 53);
    // They are a source as any other: others come beside them, and they go when they are taken out.
    let other = [entry("three.weave.local", "10.32.0.3", "c3")];
    server.handle().set(PeerId([2; 16]), other.into());
    server.handle().set(PeerId([1; 16]), [].into());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(server.handle().shown());
    assert_eq!(known(), 1);
}

async fn serve_on_loopback(handler: &Arc<Handler>) -> SocketAddr {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let udp = UdpSocket::bind(address).await.unwrap();
    let udp = udp::watched(udp.into_std().unwrap()).unwrap();
    tokio::spawn(udp::serve(udp, Arc::clone(handler)));
    tokio::spawn(tcp::serve(tcp, Arc::clone(handler)));
    address
}

#[tokio::test]
async fn both_transports_answer_and_survive_garbage() {
    let handler = handler(&config(Vec::new()), &some_entries());
    let address = serve_on_loopback(&handler).await;
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(address).await.unwrap();
    let mut seed = 1u64;
    for len in 0..200usize {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let mut garbage = vec![seed.to_be_bytes()[0]; len];
        if len % 3 == 0 && len > 2 {
            garbage[2] = 0;
        }
        client.send(&garbage).await.unwrap();
    }
    let question = question("many.weave.local.", RecordType::A)
        .to_vec()
        .unwrap();
    client.send(&question).await.unwrap();
    let mut buffer = [0; 4096];
    let over_udp = loop {
        let len = client.recv(&mut buffer).await.unwrap();
        let message = Message::from_vec(&buffer[..len]).unwrap();
        if message.metadata.id == 7 && !message.answers.is_empty() {
            assert!(len <= 512);
            break message;
        }
    };
    assert!(over_udp.metadata.truncation);

    let mut stream = TcpStream::connect(address).await.unwrap();
    // Two at once: the second waits its turn.
    for _ in 0..2 {
        let len = u16::try_from(question.len()).unwrap();
        stream.write_u16(len).await.unwrap();
        stream.write_all(&question).await.unwrap();
    }
    for _ in 0..2 {
        let mut reply = vec![0; stream.read_u16().await.unwrap().into()];
        stream.read_exact(&mut reply).await.unwrap();
        assert_eq!(Message::from_vec(&reply).unwrap().answers.len(), 50);
    }
    assert!(handler.shared.counters.by_name()["dns_malformed"] > 100);
}

/// Asks over a connection of its own.
async fn ask_over_tcp(server: SocketAddr, question: &Message) -> (Vec<u8>, Message) {
    let mut stream = TcpStream::connect(server).await.unwrap();
    let question = question.to_vec().unwrap();
    let len = u16::try_from(question.len()).unwrap();
    stream.write_u16(len).await.unwrap();
    stream.write_all(&question).await.unwrap();
    let mut reply = vec![0; stream.read_u16().await.unwrap().into()];
    stream.read_exact(&mut reply).await.unwrap();
    let message = Message::from_vec(&reply).unwrap();
    (reply, message)
}

/// Sixteen bytes for each address of IPv4, twenty-eight for one of IPv6.
#[tokio::test]
async fn as_many_addresses_as_a_message_holds_are_answered_over_tcp() {
    let name = format!("{}.weave.local", "m".repeat(60));
    for (first, kind, record_len) in [
        ("10.40", RecordType::A, 16),
        ("fd00:", RecordType::AAAA, 28),
    ] {
        let separator = if record_len == 16 { "." } else { ":" };
        let entries = (0..4000).map(|n| {
            let (high, low) = (n / 200, n % 200);
            entry(
                &name,
                &format!("{first}{separator}{high}{separator}{low}"),
                "c",
            )
        });
        let handler = handler(&config(Vec::new()), &entries.collect::<Vec<_>>());
        let address = serve_on_loopback(&handler).await;
        for opt in [None, Some(Edns::new())] {
            let mut question = question(&format!("{name}."), kind);
            question.edns = opt.clone();
            let (bytes, reply) = ask_over_tcp(address, &question).await;

            let opt_len = if opt.is_some() { 11 } else { 0 };
            // The header, the name twice, type and class of the question.
            let fixed = 12 + (61 + 13) * 2 + 4 - 2 + opt_len;
            let count = ((usize::from(u16::MAX) - fixed) / record_len).min(4000);
            assert_eq!(reply.answers.len(), count);
            assert_eq!(bytes.len(), fixed + count * record_len);
            assert_eq!(reply.metadata.truncation, count < 4000);
            assert_eq!(reply.edns.is_some(), opt.is_some());
            let name = Name::from_ascii(format!("{name}.")).unwrap();
            assert!(reply.answers.iter().all(|record| record.name == name));
            let different = reply.answers.iter().map(|record| record.data.to_string());
            assert_eq!(different.collect::<BTreeSet<_>>().len(), count);
        }
    }
}

/// Two servers that took each other's answers for questions would never be done.
#[tokio::test]
async fn answers_and_fragments_of_headers_end_a_connection() {
    let handler = handler(&config(Vec::new()), &some_entries());
    let address = serve_on_loopback(&handler).await;
    let mut answer = question("many.weave.local.", RecordType::A)
        .to_vec()
        .unwrap();
    answer[2] |= 0x80;
    for sent in [&answer[..], &answer[..11]] {
        let before = handler.shared.counters.by_name()["dns_malformed"];
        let mut stream = TcpStream::connect(address).await.unwrap();
        let len = u16::try_from(sent.len()).unwrap();
        stream.write_u16(len).await.unwrap();
        stream.write_all(sent).await.unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"");
        let after = handler.shared.counters.by_name()["dns_malformed"];
        assert_eq!(after, before + 1);
    }
}

/// Sends without the runtime, so that nothing is answered meanwhile.
fn client_of(server: SocketAddr) -> std::net::UdpSocket {
    let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_nonblocking(true).unwrap();
    client.connect(server).unwrap();
    client
}

/// More than one batch at once, of questions that go either way.
#[tokio::test]
async fn all_that_comes_in_a_burst_is_answered() {
    let handler = handler(&config(Vec::new()), &some_entries());
    let address = serve_on_loopback(&handler).await;
    let client = client_of(address);
    let count = 5 * crate::config::DNS_BATCH_MAX;
    for n in 0..count {
        let kind = if n % 3 == 0 {
            RecordType::SOA
        } else {
            RecordType::A
        };
        let mut message = question("weave.local.", kind);
        message.metadata.id = u16::try_from(n).unwrap();
        client.send(&message.to_vec().unwrap()).unwrap();
    }
    let client = UdpSocket::from_std(client).unwrap();
    let mut ids = BTreeSet::new();
    let mut buffer = [0; 512];
    while ids.len() < count {
        let len = client.recv(&mut buffer).await.unwrap();
        let message = Message::from_vec(&buffer[..len]).unwrap();
        let is_soa = message.metadata.id.is_multiple_of(3);
        assert_eq!(message.answers.len(), usize::from(is_soa));
        assert!(ids.insert(message.metadata.id), "answered twice");
    }
}

/// Each question finds the socket as the one before left it: taken, and to be waited for.
#[tokio::test]
async fn questions_one_after_the_other_are_all_answered() {
    let handler = handler(&config(Vec::new()), &some_entries());
    let address = serve_on_loopback(&handler).await;
    let client = UdpSocket::from_std(client_of(address)).unwrap();
    let mut buffer = [0; 512];
    for n in 0..500u16 {
        let kind = if n.is_multiple_of(7) {
            RecordType::SOA
        } else {
            RecordType::A
        };
        let mut message = question("weave.local.", kind);
        message.metadata.id = n;
        client.send(&message.to_vec().unwrap()).await.unwrap();
        let answered = client.recv(&mut buffer);
        let len = tokio::time::timeout(Duration::from_secs(10), answered).await;
        let len = len.expect("the server is awake").unwrap();
        assert_eq!(Message::from_vec(&buffer[..len]).unwrap().metadata.id, n);
    }
}

#[tokio::test]
async fn over_udp_a_client_has_its_rate_of_local_questions() {
    let config = DnsConfig {
        client_rate: 1,
        ..config(Vec::new())
    };
    let handler = handler(&config, &some_entries());
    let address = serve_on_loopback(&handler).await;
    let client = client_of(address);
    // As many as wait in a socket's buffer of the usual size.
    let asked = 150;
    for _ in 0..asked {
        let bytes = question("one.", RecordType::A).to_vec().unwrap();
        client.send(&bytes).unwrap();
    }
    let counted = || {
        let counters = handler.shared.counters.by_name();
        (counters["dns_answered"], counters["dns_drop_over_rate"])
    };
    while counted().0 + counted().1 < asked {
        tokio::task::yield_now().await;
    }
    let (answered, dropped) = counted();
    // A second's worth at once.
    assert!((50..100).contains(&answered), "{answered}");
    assert_eq!(answered + dropped, asked);
}

#[tokio::test]
async fn one_client_cannot_take_all_connections() {
    let handler = handler(&config(Vec::new()), &[]);
    let address = serve_on_loopback(&handler).await;
    let mut held = Vec::new();
    for _ in 0..crate::config::DNS_CONNECTIONS_PER_CLIENT_MAX {
        held.push(TcpStream::connect(address).await.unwrap());
    }
    let mut over = TcpStream::connect(address).await.unwrap();
    // The one over the limit is hung up on; a read ends.
    assert_eq!(over.read(&mut [0; 1]).await.unwrap_or(0), 0);
    drop(held.pop());
    let question = question("one.weave.local.", RecordType::A)
        .to_vec()
        .unwrap();
    let answered = async {
        loop {
            let mut again = TcpStream::connect(address).await.unwrap();
            let len = u16::try_from(question.len()).unwrap();
            let _ = again.write_u16(len).await;
            let _ = again.write_all(&question).await;
            if again.read_u16().await.is_ok() {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), answered)
        .await
        .expect("the freed place is given away");
}

/// One container may give itself many addresses: with all connections taken, others still have their answers.
#[tokio::test]
async fn who_holds_all_connections_makes_room_for_others() {
    let handler = handler(&config(Vec::new()), &some_entries());
    let address = serve_on_loopback(&handler).await;
    let connect = async |last: u8| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 1, last], 0).into()).unwrap();
        socket.connect(address).await.unwrap()
    };
    let mut held = Vec::new();
    for n in 0..crate::config::DNS_CONNECTIONS_MAX {
        held.push(connect(u8::try_from(n % 10).unwrap()).await);
    }
    let question = question("one.weave.local", RecordType::A).to_vec().unwrap();

    let mut other = connect(200).await;
    for _ in 0..3 {
        other
            .write_u16(question.len().try_into().unwrap())
            .await
            .unwrap();
        other.write_all(&question).await.unwrap();
        let mut reply = vec![0; other.read_u16().await.unwrap().into()];
        other.read_exact(&mut reply).await.unwrap();
        assert_eq!(Message::from_vec(&reply).unwrap().answers.len(), 1);
        // It wants more and loses one of its own.
        held.push(connect(3).await);
    }

    assert_eq!(
        held[0].read(&mut [0; 1]).await.unwrap_or(0),
        0,
        "hung up on"
    );
    let counters = handler.shared.counters.by_name();
    assert!(
        (3..=4).contains(&counters["dns_connections_evicted"]),
        "{counters:?}"
    );
    assert_eq!(counters["dns_drop_over_connections"], 0);
}

#[expect(clippy::disallowed_methods, reason = "a bound on a test's wait")]
fn clock() -> Instant {
    Instant::now()
}

#[tokio::test]
async fn a_loop_through_an_upstream_ends() {
    // Our server's own socket is its upstream, at a port that nobody would take for ours.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let handler = handler(&config(vec![address]), &some_entries());
    let udp = UdpSocket::bind(address).await.unwrap();
    let udp = udp::watched(udp.into_std().unwrap()).unwrap();
    tokio::spawn(udp::serve(udp, Arc::clone(&handler)));
    tokio::spawn(tcp::serve(listener, Arc::clone(&handler)));
    let started = clock();

    let reply = ask(&handler, "www.example.org.", RecordType::A).await;

    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    assert!(started.elapsed() < Duration::from_millis(4900));
}

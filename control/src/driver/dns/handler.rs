//! Turns a request into a response: checks it, has it judged by `dns::answer`, and asks upstreams where that says so.
//!
//! Place: between the sockets (`udp`, `tcp`) and the snapshot. A request over the client's rate gets no answer. The
//! usual question is answered by `dns::plain` instead, with the same rates and counters.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use hickory_server::net::runtime::Time;
use hickory_server::proto::op::{
    Edns, Header, HeaderCounts, LowerQuery, MessageType, Metadata, OpCode, ResponseCode,
};
use hickory_server::proto::rr::rdata::{A, AAAA, PTR, SOA};
use hickory_server::proto::rr::{Name, RData, Record};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;

use super::direct::Wish;
use super::upstreams::{Found, Upstreams};
use super::{DnsConfig, Shared};
use crate::config::DNS_UDP_LEN_MAX;
use crate::dns::answer::{Question, Verdict, answer};
use crate::dns::name::{AskedName, DnsName, Domain};
use crate::dns::names::Names;
use crate::dns::plain::{Ending, Plain, Room};
use crate::dns::rate::{Cost, Rates};
use crate::random::Randomness;

/// Answers requests.
pub(super) struct Handler {
    pub(super) shared: Arc<Shared>,
    upstreams: Arc<Upstreams>,
    /// In the authority section of negative answers: how long they hold.
    soa: Record,
    ttl: u32,
    plain: Plain,
    limits: Mutex<(Rates, Randomness)>,
}

/// What a message gets without the library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Short {
    /// An answer of this many bytes.
    Answer(usize),
    /// The client asks too much.
    Drop,
}

/// What a request is answered with.
struct Reply {
    code: ResponseCode,
    /// From our own names.
    is_ours: bool,
    /// Signed, as an upstream says.
    is_authentic: bool,
    answers: Vec<Record>,
    authorities: Vec<Record>,
}

impl Reply {
    fn bare(code: ResponseCode) -> Self {
        Self {
            code,
            is_ours: false,
            is_authentic: false,
            answers: Vec::new(),
            authorities: Vec::new(),
        }
    }
}

/// What is done with a request at first sight.
enum Step<'a> {
    Reply(Reply),
    Forward(&'a LowerQuery),
    /// The client asks too much.
    Drop,
}

#[expect(
    clippy::disallowed_methods,
    reason = "the driver reads the clock for the rates and for late upstreams"
)]
pub(super) fn now() -> Instant {
    Instant::now()
}

impl Handler {
    pub(super) fn new(config: &DnsConfig, shared: Arc<Shared>, upstreams: Arc<Upstreams>) -> Self {
        // The order of addresses is no secret: no system call for each question.
        let luck = Randomness::seeded(Randomness::system().u64());
        Self {
            shared,
            upstreams,
            soa: soa(&config.domain, config.ttl),
            ttl: config.ttl,
            plain: Plain::new(&config.domain, config.ttl),
            limits: Mutex::new((Rates::new(config.client_rate), luck)),
        }
    }

    /// Answers a message at once if it is the usual question; `None` for what is to become a [`Request`].
    pub(super) fn short(
        &self,
        message: &[u8],
        client: IpAddr,
        (names, now): (&Names, Instant),
        room: Room<'_>,
    ) -> Option<Short> {
        let counters = &self.shared.counters;
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        let (rates, random) = &mut *limits;
        let (len, ending) = self.plain.answer(message, names, random.u64(), room)?;
        if !rates.allow(client, Cost::Local, now) {
            counters.over_rate.count();
            return Some(Short::Drop);
        }
        match ending {
            Ending::Answered => counters.answered.count(),
            Ending::NoData => counters.no_data.count(),
            Ending::NoName => counters.no_name.count(),
        }
        Some(Short::Answer(len))
    }

    /// Counts what is no question at all, and says whether its sender may be told so.
    pub(super) fn malformed(&self, client: IpAddr) -> bool {
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        let is_allowed = limits.0.allow(client, Cost::Local, now());
        if is_allowed {
            self.shared.counters.malformed.count();
        } else {
            self.shared.counters.over_rate.count();
        }
        is_allowed
    }

    /// Whatever is answered, with a refusal as well, costs the client.
    fn first_step<'a>(&self, request: &'a Request) -> Step<'a> {
        let counters = &self.shared.counters;
        let names = self.shared.names.load();
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        let (rates, random) = &mut *limits;
        let judged = asked(request).map(|(query, question)| {
            let mut verdict = answer(&names, &question, random.u64());
            if verdict == Verdict::Forward && !request.metadata.recursion_desired {
                // What others asked for is not told, either.
                verdict = Verdict::Refused;
            }
            (query, verdict)
        });
        let cost = match judged {
            Ok((_, Verdict::Forward)) => Cost::Forwarded,
            Ok(_) | Err(_) => Cost::Local,
        };
        if !rates.allow(request.src().ip(), cost, now()) {
            counters.over_rate.count();
            return Step::Drop;
        }
        match judged {
            Ok((query, Verdict::Forward)) => Step::Forward(query),
            Ok((query, verdict)) => {
                Step::Reply(self.local_reply(query.original().name(), &verdict))
            }
            Err(code) => {
                if code == ResponseCode::FormErr {
                    counters.malformed.count();
                } else {
                    counters.refused.count();
                }
                Step::Reply(Reply::bare(code))
            }
        }
    }

    fn local_reply(&self, asked: &Name, verdict: &Verdict<'_>) -> Reply {
        let counters = &self.shared.counters;
        let (code, answers) = match verdict {
            Verdict::Addresses(addresses) => {
                counters.answered.count();
                let record = |address: &IpAddr| {
                    let data = match address {
                        IpAddr::V4(ip) => RData::A(A(*ip)),
                        IpAddr::V6(ip) => RData::AAAA(AAAA(*ip)),
                    };
                    Record::from_rdata(asked.clone(), self.ttl, data)
                };
                (
                    ResponseCode::NoError,
                    addresses.iter().map(record).collect(),
                )
            }
            Verdict::Pointer(name) => {
                counters.answered.count();
                let data = RData::PTR(PTR(wire_name(name)));
                let record = Record::from_rdata(asked.clone(), self.ttl, data);
                (ResponseCode::NoError, vec![record])
            }
            Verdict::Zone => {
                counters.answered.count();
                (ResponseCode::NoError, vec![self.soa.clone()])
            }
            Verdict::NoData => {
                counters.no_data.count();
                (ResponseCode::NoError, Vec::new())
            }
            Verdict::NoName => {
                counters.no_name.count();
                (ResponseCode::NXDomain, Vec::new())
            }
            Verdict::Refused | Verdict::Forward => {
                counters.refused.count();
                return Reply::bare(ResponseCode::Refused);
            }
        };
        let authorities = if answers.is_empty() {
            vec![self.soa.clone()]
        } else {
            Vec::new()
        };
        Reply {
            code,
            is_ours: true,
            is_authentic: false,
            answers,
            authorities,
        }
    }

    async fn forward(&self, client: IpAddr, query: &LowerQuery, wish: Wish) -> Reply {
        let counters = &self.shared.counters;
        let Some(found) = self.upstreams.ask(client, query, wish).await else {
            counters.over_forwards.count();
            return Reply::bare(ResponseCode::ServFail);
        };
        if found.code == ResponseCode::ServFail {
            counters.forward_failed.count();
        } else {
            counters.forwarded.count();
        }
        self.without_our_names(query, found.as_ref().clone())
    }

    /// Nobody else speaks of our domain: what an upstream says of it is dropped, and where a foreign name is an alias
    /// of one of ours, the address is what we say.
    fn without_our_names(&self, query: &LowerQuery, found: Found) -> Reply {
        let names = self.shared.names.load();
        let asked = |name: &Name| {
            let name = AskedName::from_labels(name.iter())?;
            names.domain().contains(name.key()).then_some(name)
        };
        let mut reply = Reply {
            code: found.code,
            is_ours: false,
            is_authentic: found.is_authentic,
            answers: found.answers,
            authorities: found.authorities,
        };
        let count = reply.answers.len();
        reply.answers.retain(|record| asked(&record.name).is_none());
        reply.is_authentic &= reply.answers.len() == count;
        let alias = reply.answers.iter().find_map(|record| {
            let RData::CNAME(target) = &record.data else {
                return None;
            };
            Some((target.0.clone(), asked(&target.0)?))
        });
        if let Some((target, name)) = alias {
            let question = Question {
                name,
                kind: query.query_type().into(),
                class: query.query_class().into(),
            };
            let luck = {
                let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
                limits.1.u64()
            };
            let ours = self.local_reply(&target, &answer(&names, &question, luck));
            reply.code = ours.code;
            reply.is_authentic = false;
            reply.answers.extend(ours.answers);
            reply.authorities = ours.authorities;
        }
        reply
    }
}

#[async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut out: R,
    ) -> ResponseInfo {
        let wish = Wish::of(request);
        let reply = match self.first_step(request) {
            Step::Reply(reply) => Some(reply),
            Step::Forward(query) => Some(self.forward(request.src().ip(), query, wish).await),
            Step::Drop => None,
        };
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.message_type = MessageType::Response;
        metadata.recursion_available = true;
        let Some(reply) = reply else {
            return nothing_sent(metadata);
        };
        metadata.authoritative = reply.is_ours;
        // For who asked for it (RFC 6840 §5.8).
        let is_told = wish.is_dnssec_ok || request.metadata.authentic_data;
        metadata.authentic_data = is_told && reply.is_authentic;
        metadata.response_code = reply.code;
        // It holds what of a code does not fit into the header; else whoever writes the answer adds it.
        let has_code = metadata.response_code.high() > 0;
        let edns = request.edns.as_ref().filter(|_| has_code);
        let edns = edns.map(|_| our_edns(wish));
        let builder = MessageResponseBuilder::new(&request.queries, edns.as_ref());
        let response = builder.build(
            metadata,
            reply.answers.iter(),
            reply.authorities.iter(),
            [],
            [],
        );
        match out.send_response(response).await {
            Ok(info) => info,
            Err(error) => {
                tracing::debug!(%error, "DNS answer not sent");
                self.shared.counters.not_sent.count();
                nothing_sent(metadata)
            }
        }
    }
}

/// The one question of a request, or what is wrong with it.
fn asked(request: &Request) -> Result<(&LowerQuery, Question), ResponseCode> {
    if request.metadata.op_code != OpCode::Query {
        return Err(ResponseCode::NotImp);
    }
    if request.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
        return Err(ResponseCode::BADVERS);
    }
    let [query] = request.queries.queries() else {
        return Err(ResponseCode::FormErr);
    };
    let name = AskedName::from_labels(query.name().iter()).ok_or(ResponseCode::FormErr)?;
    let question = Question {
        name,
        kind: query.query_type().into(),
        class: query.query_class().into(),
    };
    Ok((query, question))
}

fn nothing_sent(metadata: Metadata) -> ResponseInfo {
    ResponseInfo::from(Header {
        metadata,
        counts: HeaderCounts::default(),
    })
}

fn our_edns(wish: Wish) -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(DNS_UDP_LEN_MAX).set_version(0);
    edns.set_dnssec_ok(wish.is_dnssec_ok);
    edns
}

/// A name of ours as the library has it.
fn wire_name(name: &DnsName) -> Name {
    let labels = name.as_str().split('.').map(str::as_bytes);
    Name::from_labels(labels).unwrap_or_else(|_| Name::root())
}

fn soa(domain: &Domain, ttl: u32) -> Record {
    let zone = wire_name(domain.name());
    let below = |label: &str| {
        let labels = std::iter::once(label).chain(domain.name().as_str().split('.'));
        Name::from_labels(labels.map(str::as_bytes)).unwrap_or_else(|_| zone.clone())
    };
    let hold = i32::try_from(ttl).unwrap_or(i32::MAX);
    let data = SOA::new(below("ns"), below("hostmaster"), 1, hold, hold, hold, ttl);
    Record::from_rdata(zone.clone(), ttl, RData::SOA(data))
}

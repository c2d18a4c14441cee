//! Asks the upstreams in their order, as resolvers read `resolv.conf`: the first that knows anything is believed.
//!
//! ```text
//!  1st ──────────────────────────► answer
//!     │ late, or a failure
//!     └► 2nd ────────────────────► answer      whichever comes first; who was late is asked last for a while
//! ```
//!
//! Each upstream has a resolver of its own: cache, random number and port for each question, UDP, and TCP when cut. A
//! question with bits of DNSSEC goes by `direct`, without a cache.

use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
    ServerOrderingStrategy,
};
use hickory_server::net::runtime::TokioRuntimeProvider;
use hickory_server::net::{DnsError, NetError};
use hickory_server::proto::op::{LowerQuery, ResponseCode};
use hickory_server::proto::rr::LowerName;
use hickory_server::proto::rr::domain::usage::{INVALID, ONION};
use tokio::time::timeout;

use super::direct::{Direct, Wish};
use super::handler::now;
use super::upstreams::Found;
use crate::config::{
    DNS_CACHE_MAX, DNS_FORWARDS_MAX, DNS_UPSTREAM_DISTRUST, DNS_UPSTREAM_LATE, DNS_UPSTREAM_TIMEOUT,
};

/// The upstreams, in their order.
pub(super) struct Servers(Vec<Server>);

impl Servers {
    /// `None` for none.
    pub(super) fn new(addresses: &[SocketAddr]) -> io::Result<Option<Self>> {
        let servers = addresses.iter().map(|address| Server::new(*address));
        let servers: Vec<Server> = servers.collect::<io::Result<_>>()?;
        Ok((!servers.is_empty()).then_some(Self(servers)))
    }

    /// The first answer, or else a failure.
    pub(super) async fn ask(&self, query: &LowerQuery, wish: Wish) -> Found {
        let begin = now();
        let mut order: Vec<&Server> = self.0.iter().collect();
        order.sort_by_key(|server| server.is_late(begin));
        let mut next = order.into_iter().peekable();
        let mut asked = FuturesUnordered::new();
        loop {
            if let Some(server) = next.next() {
                asked.push(server.ask(query, wish));
            }
            let answer = if next.peek().is_some() {
                timeout(DNS_UPSTREAM_LATE, asked.next()).await
            } else {
                Ok(asked.next().await)
            };
            match answer {
                Ok(Some(found)) if found.is_verdict() => return found,
                // Nobody is left.
                Ok(None) => return Found::nothing(ResponseCode::ServFail),
                Ok(Some(_)) | Err(_) => {}
            }
        }
    }
}

struct Server {
    resolver: TokioResolver,
    direct: Direct,
    /// Not asked first until then.
    late_until: Mutex<Option<Instant>>,
}

impl Server {
    fn new(address: SocketAddr) -> io::Result<Self> {
        Ok(Self {
            resolver: resolver(address)?,
            direct: Direct::new(address, options())?,
            late_until: Mutex::default(),
        })
    }

    fn is_late(&self, now: Instant) -> bool {
        let until = self.late_until.lock();
        until
            .unwrap_or_else(PoisonError::into_inner)
            .is_some_and(|until| now < until)
    }

    async fn ask(&self, query: &LowerQuery, wish: Wish) -> Found {
        let mut wait = Wait {
            server: self,
            begin: now(),
            is_answered: false,
        };
        let found = if wish.is_plain() || is_never_asked(query.name()) {
            look_up(&self.resolver, query).await
        } else {
            self.direct.ask(query, wish).await
        };
        wait.is_answered = found.is_verdict();
        found
    }
}

/// Judges a server when its answer is there, or when nobody waits for it any more.
struct Wait<'a> {
    server: &'a Server,
    begin: Instant,
    is_answered: bool,
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let now = now();
        let is_late = now.duration_since(self.begin) >= DNS_UPSTREAM_LATE;
        if self.is_answered || is_late {
            let mut until = self
                .server
                .late_until
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            *until = (!self.is_answered).then(|| now + DNS_UPSTREAM_DISTRUST);
        }
    }
}

/// What the resolver keeps to itself, as RFC 6761 §6.4 and RFC 7686 say.
fn is_never_asked(name: &LowerName) -> bool {
    [&*INVALID, &*ONION].iter().any(|zone| zone.zone_of(name))
}

async fn look_up(resolver: &TokioResolver, query: &LowerQuery) -> Found {
    let mut name = query.original().name().clone();
    name.set_fqdn(true);
    match resolver.lookup(name, query.query_type()).await {
        Ok(lookup) => Found {
            code: ResponseCode::NoError,
            is_authentic: false,
            answers: lookup.answers().to_vec(),
            authorities: Vec::new(),
        },
        Err(NetError::Dns(DnsError::NoRecordsFound(none))) => {
            let soa = none.soa.map(|soa| {
                let mut soa = soa.into_record_of_rdata();
                soa.ttl = none.negative_ttl.unwrap_or(soa.ttl).min(soa.ttl);
                soa
            });
            let mut found = Found::nothing(none.response_code);
            if !found.is_verdict() {
                found.code = ResponseCode::ServFail;
            }
            found.authorities.extend(soa);
            found
        }
        Err(error) => {
            tracing::debug!(%error, "a DNS upstream gave no answer");
            Found::nothing(ResponseCode::ServFail)
        }
    }
}

fn resolver(server: SocketAddr) -> io::Result<TokioResolver> {
    let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
    for connection in &mut connections {
        connection.port = server.port();
    }
    let server = NameServerConfig::new(server.ip(), true, connections);
    let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
    TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        .with_options(options())
        .build()
        .map_err(io::Error::other)
}

fn options() -> ResolverOpts {
    let mut options = ResolverOpts::default();
    options.ndots = 0;
    options.timeout = DNS_UPSTREAM_TIMEOUT;
    options.attempts = 2;
    options.cache_size = DNS_CACHE_MAX;
    options.use_hosts_file = ResolveHosts::Never;
    options.edns0 = true;
    options.preserve_intermediates = true;
    options.try_tcp_on_error = true;
    options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
    options.max_active_requests = DNS_FORWARDS_MAX;
    options
}

//! Asks one upstream what a client asks with bits of DNSSEC, and passes on what comes back.
//!
//! ```text
//!  question, Wish ─► UDP ─► answer, with its signatures and whether the upstream found them good
//!                     │ cut, or an error
//!                     └► TCP ─► answer
//! ```
//!
//! Called by `servers`, whose resolver has no words for these bits. Nothing is kept: who sets them validates, and keeps
//! what is validated; so an answer that was not checked is never given to somebody else. Bounds: those of `upstreams`,
//! which lets so many questions go.

use std::io;
use std::net::SocketAddr;

use hickory_resolver::config::{ConnectionConfig, ResolverOpts};
use hickory_resolver::{ConnectionProvider as _, PoolContext, TlsConfig};
use hickory_server::net::NetError;
use hickory_server::net::runtime::TokioRuntimeProvider;
use hickory_server::net::xfer::{DnsHandle as _, FirstAnswer as _};
use hickory_server::proto::op::{
    DnsRequest, DnsRequestOptions, DnsResponse, Edns, LowerQuery, Message, Query, ResponseCode,
};
use hickory_server::proto::rr::DNSClass;
use hickory_server::server::Request;

use super::upstreams::Found;
use crate::config::DNS_UDP_LEN_MAX;

/// How a client wants a foreign name to be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Wish {
    /// DO: signatures, too (RFC 3225).
    pub(super) is_dnssec_ok: bool,
    /// CD: whatever the upstream thinks of them (RFC 4035 §3.2.2).
    pub(super) is_unchecked: bool,
}

impl Wish {
    pub(super) fn of(request: &Request) -> Self {
        let edns = request.edns.as_ref();
        Self {
            is_dnssec_ok: edns.is_some_and(|edns| edns.flags().dnssec_ok),
            is_unchecked: request.metadata.checking_disabled,
        }
    }

    /// Nothing but the answer.
    pub(super) fn is_plain(self) -> bool {
        self == Self::default()
    }
}

/// One upstream.
pub(super) struct Direct {
    server: SocketAddr,
    context: PoolContext,
    provider: TokioRuntimeProvider,
}

impl Direct {
    pub(super) fn new(server: SocketAddr, options: ResolverOpts) -> io::Result<Self> {
        let tls = TlsConfig::new().map_err(io::Error::other)?;
        Ok(Self {
            server,
            context: PoolContext::new(options, tls),
            provider: TokioRuntimeProvider::default(),
        })
    }

    pub(super) async fn ask(&self, query: &LowerQuery, wish: Wish) -> Found {
        let request = request(query, wish);
        for connection in [ConnectionConfig::udp(), ConnectionConfig::tcp()] {
            match self.exchange(connection, request.clone()).await {
                Ok(response) if response.metadata.truncation => {}
                Ok(response) => return found(response),
                Err(error) => tracing::debug!(%error, "a DNS upstream gave no answer"),
            }
        }
        Found::nothing(ResponseCode::ServFail)
    }

    async fn exchange(
        &self,
        mut connection: ConnectionConfig,
        request: DnsRequest,
    ) -> Result<DnsResponse, NetError> {
        connection.port = self.server.port();
        let query = request.queries.first().cloned();
        let connected =
            self.provider
                .new_connection(self.server.ip(), &connection, &self.context)?;
        let response = connected.await?.send(request).first_answer().await?;
        // Over TCP nobody else has looked.
        if response.queries.first() != query.as_ref() {
            return Err(NetError::Message("another question was answered"));
        }
        Ok(response)
    }
}

fn request(query: &LowerQuery, wish: Wish) -> DnsRequest {
    let mut name = query.original().name().clone();
    name.set_fqdn(true);
    let mut message = Message::query();
    message.add_query(Query::query(name, query.query_type()));
    message.metadata.recursion_desired = true;
    message.metadata.checking_disabled = wish.is_unchecked;
    // We know what it means in an answer (RFC 6840 §5.7).
    message.metadata.authentic_data = true;
    let mut edns = Edns::new();
    edns.set_max_payload(DNS_UDP_LEN_MAX)
        .set_dnssec_ok(wish.is_dnssec_ok);
    message.edns = Some(edns);
    DnsRequest::new(message, DnsRequestOptions::default())
}

fn found(response: DnsResponse) -> Found {
    let message = response.into_message();
    let mut found = Found {
        code: message.metadata.response_code,
        is_authentic: message.metadata.authentic_data,
        answers: message.answers,
        authorities: message.authorities,
    };
    if !found.is_verdict() {
        return Found::nothing(ResponseCode::ServFail);
    }
    for records in [&mut found.answers, &mut found.authorities] {
        records.retain(|record| record.dns_class == DNSClass::IN);
    }
    found
}

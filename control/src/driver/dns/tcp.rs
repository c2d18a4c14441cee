//! Questions and answers over TCP, one after the other on each connection (RFC 7766).
//!
//! ```text
//!  length (2) | message …
//! ```
//!
//! Bounds: `config::DNS_CONNECTIONS_MAX` connections, `config::DNS_CONNECTIONS_PER_CLIENT_MAX` of one client,
//! `config::DNS_TCP_TIMEOUT` for the next question.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_server::net::runtime::TokioTime;
use hickory_server::net::xfer::Protocol;
use hickory_server::server::{Request, RequestHandler};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::handler::Handler;
use super::udp::{format_error, is_answer};
use super::wire::WireAnswer;
use crate::config::{DNS_CONNECTIONS_MAX, DNS_CONNECTIONS_PER_CLIENT_MAX, DNS_TCP_TIMEOUT};

/// Pause after a failed accept: the process is out of files, and another try at once would fail too.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections of each client.
type Clients = Arc<Mutex<BTreeMap<IpAddr, usize>>>;

/// Answers until it is aborted.
pub(super) async fn serve(listener: TcpListener, handler: Arc<Handler>) {
    let clients = Clients::default();
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let (stream, source) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "DNS connection not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(place) = Place::take(&clients, source.ip()) else {
            handler.shared.counters.over_connections.count();
            continue;
        };
        let handler = Arc::clone(&handler);
        connections.spawn(async move {
            let _place = place;
            // Who breaks off or talks nonsense is hung up on.
            let _ = converse(stream, source, &handler).await;
        });
    }
}

/// One connection's place among those of its client.
struct Place {
    clients: Clients,
    client: IpAddr,
}

impl Place {
    fn take(clients: &Clients, client: IpAddr) -> Option<Self> {
        let mut counts = clients.lock().unwrap_or_else(PoisonError::into_inner);
        let own = counts.get(&client).copied().unwrap_or_default();
        let all: usize = counts.values().sum();
        if own >= DNS_CONNECTIONS_PER_CLIENT_MAX || all >= DNS_CONNECTIONS_MAX {
            return None;
        }
        counts.insert(client, own + 1);
        Some(Self {
            clients: Arc::clone(clients),
            client,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.client);
            }
        }
    }
}

async fn converse(
    mut stream: TcpStream,
    source: std::net::SocketAddr,
    handler: &Handler,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let question = timeout(DNS_TCP_TIMEOUT, read(&mut stream)).await??;
        // Nothing that is owed an answer; whoever says such things has no more to say.
        if is_answer(&question) {
            handler.shared.counters.malformed.count();
            return Ok(());
        }
        let answer = match Request::from_bytes(question.clone(), source, Protocol::Tcp) {
            Ok(request) => {
                let reply = WireAnswer::new(u16::MAX, request.edns.is_some());
                handler
                    .handle_request::<_, TokioTime>(&request, reply.clone())
                    .await;
                reply.take()
            }
            Err(_) => {
                handler.shared.counters.malformed.count();
                format_error(&question).map(|refusal| refusal.to_vec())
            }
        };
        let Some(answer) = answer else {
            return Ok(());
        };
        let Ok(len) = u16::try_from(answer.len()) else {
            return Ok(());
        };
        let framed = [&len.to_be_bytes(), answer.as_slice()].concat();
        timeout(DNS_TCP_TIMEOUT, stream.write_all(&framed)).await??;
    }
}

async fn read(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let len = stream.read_u16().await?;
    let mut question = vec![0; usize::from(len)];
    stream.read_exact(&mut question).await?;
    Ok(question)
}

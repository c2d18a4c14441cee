//! Questions and answers over TCP, one after the other on each connection (RFC 7766).
//!
//! ```text
//!  length (2) | message …
//! ```
//!
//! Bounds: the connections that `dns::seats` gives a seat, `config::DNS_TCP_TIMEOUT` for the next question.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hickory_server::net::runtime::TokioTime;
use hickory_server::net::xfer::Protocol;
use hickory_server::server::{Request, RequestHandler};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use super::handler::{Handler, Short, now};
use super::udp::{format_error, is_answer};
use super::wire::WireAnswer;
use crate::config::DNS_TCP_TIMEOUT;
use crate::dns::plain::Room;
use crate::dns::seats::{SeatId, Seats};

/// Pause after a failed accept: the process is out of files, and another try at once would fail too.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers until it is aborted.
pub(super) async fn serve(listener: TcpListener, handler: Arc<Handler>) {
    let seats = Arc::default();
    let mut connections = JoinSet::new();
    let mut seated = BTreeMap::<SeatId, AbortHandle>::new();
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
        let counters = &handler.shared.counters;
        let Some((place, evicted)) = Place::take(&seats, source.ip()) else {
            counters.over_connections.count();
            continue;
        };
        counters.connections.count();
        seated.retain(|_, connection| !connection.is_finished());
        if let Some(connection) = evicted.and_then(|id| seated.remove(&id)) {
            connection.abort();
            counters.evicted_connections.count();
        }
        let (id, handler) = (place.id, Arc::clone(&handler));
        let connection = connections.spawn(async move {
            // Who breaks off or talks nonsense is hung up on.
            let _ = converse(stream, source, &handler, &place).await;
        });
        seated.insert(id, connection);
    }
}

/// One connection's seat, left when dropped.
struct Place {
    seats: Arc<Mutex<Seats>>,
    id: SeatId,
}

impl Place {
    /// With the connection that has to end for it, if any.
    fn take(seats: &Arc<Mutex<Seats>>, client: IpAddr) -> Option<(Self, Option<SeatId>)> {
        let (id, evicted) = locked(seats).take(client)?;
        let seats = Arc::clone(seats);
        Some((Self { seats, id }, evicted))
    }

    fn set_busy(&self, is_busy: bool) {
        locked(&self.seats).set_busy(self.id, is_busy);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        locked(&self.seats).leave(self.id);
    }
}

fn locked(seats: &Mutex<Seats>) -> MutexGuard<'_, Seats> {
    seats.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn converse(
    mut stream: TcpStream,
    source: SocketAddr,
    handler: &Handler,
    place: &Place,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        place.set_busy(false);
        let question = timeout(DNS_TCP_TIMEOUT, read(&mut stream)).await??;
        place.set_busy(true);
        // Nothing that is owed an answer; whoever says such things has no more to say.
        if is_answer(&question) {
            handler.shared.counters.malformed.count();
            return Ok(());
        }
        let Some(answer) = answer(question, source, handler).await else {
            return Ok(());
        };
        let Ok(len) = u16::try_from(answer.len()) else {
            return Ok(());
        };
        let framed = [&len.to_be_bytes(), answer.as_slice()].concat();
        timeout(DNS_TCP_TIMEOUT, stream.write_all(&framed)).await??;
    }
}

/// `None` for who is owed no answer, or asks too much.
async fn answer(question: Vec<u8>, source: SocketAddr, handler: &Handler) -> Option<Vec<u8>> {
    let mut out = vec![0; u16::MAX.into()];
    let short = {
        let names = handler.shared.names.load();
        let room = Room::Stream(&mut out);
        handler.short(&question, source.ip(), (&names, now()), room)
    };
    match short {
        Some(Short::Answer(len)) => {
            out.truncate(len);
            return Some(out);
        }
        Some(Short::Drop) => return None,
        None => drop(out),
    }
    let Ok(request) = Request::from_bytes(question.clone(), source, Protocol::Tcp) else {
        let is_told = handler.malformed(source.ip());
        let refusal = format_error(&question).filter(|_| is_told);
        return refusal.map(|refusal| refusal.to_vec());
    };
    let reply = WireAnswer::to(&request, u16::MAX);
    handler
        .handle_request::<_, TokioTime>(&request, reply.clone())
        .await;
    reply.take()
}

async fn read(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let len = stream.read_u16().await?;
    let mut question = vec![0; usize::from(len)];
    stream.read_exact(&mut question).await?;
    Ok(question)
}

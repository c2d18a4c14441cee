//! Questions and answers over UDP.
//!
//! ```text
//!  socket ─► batch ─┬─ the usual question ─► dns::plain ───────────► batch ─► socket
//!                   └─ any other ──────────► hickory, handler ─────────────► socket
//! ```
//!
//! What waits is taken and answered, however little it is: nothing is held back for a batch to fill. What can be
//! answered at once is answered in place; a question that has to wait for an upstream goes on as a task of its own.
//! Bounds: `config::DNS_BATCH_MAX` questions at a time, `config::DNS_FORWARDS_MAX` such tasks (above it one of them is
//! answered SERVFAIL at once), `config::DNS_UDP_LEN_MAX` bytes an answer.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::Arc;

use futures_util::poll;
use hickory_server::net::runtime::TokioTime;
use hickory_server::net::xfer::Protocol;
use hickory_server::server::{Request, RequestHandler};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::batch::Batch;
use super::handler::{Handler, Short, now};
use super::wire::WireAnswer;
use crate::config::{DNS_BATCH_MAX, DNS_UDP_LEN_MAX};
use crate::dns::plain::{LEN_DEFAULT, Room};

/// Full batches taken before other tasks have their turn.
const TURNS_MAX: usize = 4;
/// A header, which an error is answered with.
const HEADER_LEN: usize = 12;

/// A socket that the runtime watches.
pub(super) type Socket = AsyncFd<UdpSocket>;
/// Questions that are not the usual ones.
type Others = Vec<(Vec<u8>, SocketAddr)>;

/// Makes a socket that does not block ready for [`serve`].
///
/// # Errors
/// If the runtime can not watch it.
#[expect(
    deprecated,
    reason = "its successor is unsafe; a UdpSocket is one open descriptor for its whole life"
)]
pub(super) fn watched(socket: impl Into<UdpSocket>) -> io::Result<Socket> {
    // For reading only: each answer that leaves makes room to write, and would wake us to hear of it.
    AsyncFd::with_interest(socket.into(), Interest::READABLE)
}

/// Answers until it is aborted.
pub(super) async fn serve(socket: Socket, handler: Arc<Handler>) {
    let socket = Arc::new(socket);
    let mut batch = Batch::default();
    let mut others = Others::new();
    'arrivals: loop {
        let mut ready = match socket.readable().await {
            Ok(ready) => ready,
            Err(error) => {
                tracing::debug!(%error, "DNS socket is not readable");
                return;
            }
        };
        for _ in 0..TURNS_MAX {
            let turn = ready.try_io(|socket| turn(socket, &mut batch, &handler, &mut others));
            for (question, source) in others.drain(..) {
                take(&socket, &handler, question, source).await;
            }
            match turn {
                Ok(Ok(())) => {}
                // An answer of ours could not be delivered: the next question is not to blame.
                Ok(Err(error)) => tracing::debug!(%error, "DNS socket reports"),
                // Waiting lets others have their turn; another yield would be another system call for each question.
                Err(_nothing_waits) => continue 'arrivals,
            }
        }
        tokio::task::yield_now().await;
    }
}

/// Takes what waits and answers the usual questions of it; the others are put to `others`.
fn turn(
    socket: &Socket,
    batch: &mut Batch,
    handler: &Handler,
    others: &mut Others,
) -> io::Result<()> {
    let names = handler.shared.names.load();
    let now = now();
    let count = batch.turn(socket.as_fd(), |question, source, out| {
        let short = match source.port() {
            0 => None,
            _ => handler.short(question, source.ip(), (&names, now), Room::Datagram(out)),
        };
        match short {
            Some(Short::Answer(len)) => Some(len),
            Some(Short::Drop) => None,
            None => {
                others.push((question.to_vec(), source));
                None
            }
        }
    })?;
    if count < DNS_BATCH_MAX {
        // That was all: whatever comes from now on is told to the runtime.
        return Err(io::ErrorKind::WouldBlock.into());
    }
    Ok(())
}

async fn take(socket: &Arc<Socket>, handler: &Arc<Handler>, bytes: Vec<u8>, source: SocketAddr) {
    // An answer is no question, however malformed: answering it could go on for ever.
    if is_answer(&bytes) || source.port() == 0 {
        handler.shared.counters.malformed.count();
        return;
    }
    let refusal = format_error(&bytes);
    let Ok(request) = Request::from_bytes(bytes, source, Protocol::Udp) else {
        let is_told = handler.malformed(source.ip());
        if let Some(refusal) = refusal.filter(|_| is_told) {
            let _ = socket.get_ref().send_to(&refusal, source);
        }
        return;
    };
    let reply = reply_to(&request);
    let (socket, handler) = (Arc::clone(socket), Arc::clone(handler));
    let mut answering = Box::pin(async move {
        handler
            .handle_request::<_, TokioTime>(&request, reply.clone())
            .await;
        if let Some(answer) = reply.take() {
            // A full socket buffer is a lost datagram, as on any wire.
            let _ = socket.get_ref().send_to(&answer, source);
        }
    });
    if poll!(answering.as_mut()).is_pending() {
        tokio::spawn(answering);
    }
}

/// Where the answer to a request goes, as long as the client takes.
pub(super) fn reply_to(request: &Request) -> WireAnswer {
    let len_max = match &request.edns {
        Some(edns) => edns.max_payload().clamp(LEN_DEFAULT, DNS_UDP_LEN_MAX),
        None => LEN_DEFAULT,
    };
    WireAnswer::to(request, len_max)
}

/// True unless it is long enough for a header and says that it is a question.
pub(super) fn is_answer(bytes: &[u8]) -> bool {
    bytes.len() < HEADER_LEN || bytes.get(2).is_none_or(|flags| flags & 0x80 != 0)
}

/// FORMERR under the number of the question; nothing else of it is to be trusted.
pub(super) fn format_error(bytes: &[u8]) -> Option<[u8; HEADER_LEN]> {
    let [high, low, flags, ..] = bytes else {
        return None;
    };
    Some([
        *high,
        *low,
        0x80 | (flags & 0x79),
        0x81,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_questions_are_looked_at() {
        let question = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00";
        assert!(!is_answer(question));
        assert!(is_answer(&question[..11]));
        let mut answer = *question;
        answer[2] |= 0x80;
        assert!(is_answer(&answer));
    }

    #[test]
    fn a_format_error_keeps_number_and_operation() {
        assert_eq!(
            format_error(b"\x12\x34\x29\x00\x00\x01"),
            Some([0x12, 0x34, 0xa9, 0x81, 0, 0, 0, 0, 0, 0, 0, 0])
        );
        assert_eq!(format_error(b"\x12\x34"), None);
    }
}

//! One connection of a client: requests go to Docker and answers come back, byte for byte unless the core says
//! otherwise.
//!
//! ```text
//!  client ── request ──► head ─► calls ─► Docker        streamed; a connection to Docker for each of a client
//!         ◄── answer ─── [held until attached] ◄──┘
//!         ◄═════ raw, both ways ═════►                  after 101, and after a hijacking answer
//! ```
//!
//! The end of a client's half goes on to Docker, which takes it as the end of its interest, and so on back. A client
//! of a raw stream may end its half and go on reading; one that has gone altogether takes Docker's connection along.

use std::future::pending;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use super::calls::{Calls, Outgoing};
use super::seats::Seats;
use super::stream::{Input, Reader, Side, StreamError, Writer};
use crate::proxy::body::Body;
use crate::proxy::head::{RequestHead, ResponseHead, error_answer};
use crate::proxy::route::Call;

/// How long a client may go on sending a body whose answer it has: a socket closed before would take the answer along.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest description of a container that is rewritten: Docker's have some ten kilobytes.
const INSPECTED_LEN_MAX: usize = 16 * 1024 * 1024;

type SocketSide = Side<OwnedReadHalf, OwnedWriteHalf>;

/// How an exchange ended.
enum Ended {
    /// Another one may follow.
    Whole,
    /// The connection says nothing more.
    Closed,
    /// It is a raw stream from now on.
    Raw,
}

/// Serves one client until one of the two ends.
pub(super) async fn converse<R: Reader, W: Writer>(
    mut client: Side<R, W>,
    calls: &Calls,
    seats: &Seats,
) {
    let mut docker = None;
    loop {
        match exchange(&mut client, &mut docker, calls, seats).await {
            Ok(Ended::Whole) => {}
            Ok(Ended::Raw) => {
                if let Some(docker) = &mut docker {
                    join(&mut client, docker).await;
                }
                return;
            }
            Ok(Ended::Closed) => return,
            Err(StreamError::Refused(refusal)) => {
                tracing::debug!(%refusal, "refused a request");
                let answer = error_answer(refusal.status(), &refusal.to_string());
                last_word(&mut client, &answer).await;
                return;
            }
            Err(error @ StreamError::BadAnswer(_)) => {
                tracing::warn!(%error, "an answer is not passed on");
                last_word(&mut client, &error_answer(502, &error.to_string())).await;
                return;
            }
            Err(StreamError::Io(_) | StreamError::Truncated) => return,
        }
    }
}

/// Answers a client's first request in this way, and closes.
pub(super) async fn refuse<R, W>(client: &mut Side<R, W>, answer: &[u8])
where
    R: Reader,
    W: Writer,
{
    // What comes before the question is no answer to it, for a client that has not asked yet.
    let asked = timeout(DRAIN_TIMEOUT, client.input.head(RequestHead::parse));
    if matches!(asked.await, Ok(Ok(Some(_)))) {
        last_word(client, answer).await;
    }
}

/// Answers, and closes so that the answer arrives.
async fn last_word<R, W>(client: &mut Side<R, W>, answer: &[u8])
where
    R: Reader,
    W: Writer,
{
    let goodbye = async {
        client.output.write_all(answer).await?;
        client.output.shutdown().await?;
        while client.input.fill().await? {
            let len = client.input.waiting().len();
            drop(client.input.take(len));
        }
        Ok::<(), io::Error>(())
    };
    // Who has hung up needs no answer.
    let _ = timeout(DRAIN_TIMEOUT, goodbye).await;
}

async fn exchange<R, W>(
    client: &mut Side<R, W>,
    docker: &mut Option<SocketSide>,
    calls: &Calls,
    seats: &Seats,
) -> Result<Ended, StreamError>
where
    R: Reader,
    W: Writer,
{
    let head = {
        let mut silence = seats.fall_silent();
        tokio::select! {
            biased;
            head = next_request(client, docker.as_mut()) => head?,
            () = silence.wanted() => None,
        }
    };
    let Some(head) = head else {
        return Ok(Ended::Closed);
    };
    let call = Call::of(&head.method, &head.target);
    let outgoing = calls.prepare(client, &head, call).await?;
    let side = match docker {
        Some(side) => side,
        None => match UnixStream::connect(calls.docker().socket()).await {
            Ok(stream) => {
                let (reader, writer) = stream.into_split();
                docker.insert(Side::new(reader, writer))
            }
            Err(error) => {
                let line = format!("cannot reach Docker at {}: {error}", calls.docker().host());
                last_word(client, &error_answer(503, &line)).await;
                return Ok(Ended::Closed);
            }
        },
    };
    pass(client, side, calls, &head.method, outgoing).await
}

/// The next request; none if either side has nothing more to say.
async fn next_request<R: Reader, W>(
    client: &mut Side<R, W>,
    docker: Option<&mut SocketSide>,
) -> Result<Option<RequestHead>, StreamError> {
    let request = client.input.head(RequestHead::parse);
    let Some(docker) = docker else {
        return request.await;
    };
    tokio::select! {
        biased;
        request = request => request,
        // Nobody asked: it can only be the end.
        _ = docker.input.fill() => Ok(None),
    }
}

/// Passes a request on and its answer back, at the same time.
async fn pass<R, W>(
    client: &mut Side<R, W>,
    docker: &mut SocketSide,
    calls: &Calls,
    method: &str,
    outgoing: Outgoing,
) -> Result<Ended, StreamError>
where
    R: Reader,
    W: Writer,
{
    let Outgoing {
        bytes,
        mut body,
        after,
    } = outgoing;
    let is_sent = AtomicBool::new(false);
    let (from_client, to_docker) = (&mut client.input, &mut docker.output);
    let send = async {
        let sent = async {
            to_docker.write_all(&bytes).await?;
            from_client.copy_body(&mut body, to_docker).await
        };
        if sent.await.is_ok() {
            is_sent.store(true, Ordering::Relaxed);
            from_client.ended().await;
        }
        // If it was Docker that broke off, its answer may still be on the way.
        let _ = to_docker.shutdown().await;
        pending::<()>().await;
    };
    let receive = receive(&mut docker.input, &mut client.output, calls, method, after);
    let ended = tokio::select! {
        () = send => Ended::Closed,
        ended = receive => ended?,
    };
    if is_sent.load(Ordering::Relaxed) {
        return Ok(ended);
    }
    last_word(client, &[]).await;
    Ok(Ended::Closed)
}

async fn receive<W: Writer>(
    docker: &mut Input<OwnedReadHalf>,
    client: &mut W,
    calls: &Calls,
    method: &str,
    after: super::calls::After,
) -> Result<Ended, StreamError> {
    loop {
        let head = docker.head(|bytes| ResponseHead::parse(bytes, method));
        let Some(head) = head.await.map_err(StreamError::of_docker)? else {
            return Ok(Ended::Closed);
        };
        let bytes = docker.take(head.len);
        if head.status < 200 {
            client.write_all(&bytes).await?;
            client.flush().await?;
            match head.status {
                101 => return Ok(Ended::Raw),
                _ => continue,
            }
        }
        if let Err(line) = calls.finish(&after, head.status).await {
            deliver(client, &error_answer(500, &line)).await?;
            return Ok(Ended::Closed);
        }
        let mut body = head.body;
        if calls.rewrites(&after, head.status) {
            let read = docker.read_body(&mut body, INSPECTED_LEN_MAX).await;
            let read = read.map_err(StreamError::of_docker)?;
            let whole = calls.inspected(&read).await.unwrap_or(read);
            let mut all = ResponseHead::with_length(&bytes, whole.len())?;
            all.extend_from_slice(&whole);
            deliver(client, &all).await?;
            let ends = head.closes || head.body == Body::UntilClose;
            return Ok(if ends { Ended::Closed } else { Ended::Whole });
        }
        deliver(client, &bytes).await?;
        if after.may_become_raw() && head.is_raw_stream && body == Body::UntilClose {
            return Ok(Ended::Raw);
        }
        if let Err(error) = docker.copy_body(&mut body, client).await {
            // Part of it has gone out: whatever followed would be taken for more of it.
            let error = error.of_docker();
            tracing::debug!(%error, "an answer breaks off");
            return Ok(Ended::Closed);
        }
        let ends = head.closes || body == Body::UntilClose;
        return Ok(if ends { Ended::Closed } else { Ended::Whole });
    }
}

/// Sends to the client what it waits for.
async fn deliver<W: Writer>(client: &mut W, bytes: &[u8]) -> io::Result<()> {
    client.write_all(bytes).await?;
    client.flush().await
}

/// Passes everything on in both directions; each ends on its own, and both do when the client has gone.
async fn join<R: Reader, W: Writer>(client: &mut Side<R, W>, docker: &mut SocketSide) {
    let gone = client.input.gone();
    let there = client.input.copy_all(&mut docker.output);
    let back = docker.input.copy_all(&mut client.output);
    tokio::pin!(there, back);
    // An end is passed on; a failure is the end of both.
    tokio::select! {
        sent = &mut there => if sent.is_ok() {
            // Docker has all that the client sent. While it says nothing itself, no write would fail.
            tokio::select! {
                _ = back => {}
                () = gone => {}
            }
        },
        received = &mut back => if received.is_ok() {
            let _ = there.await;
        },
    }
}

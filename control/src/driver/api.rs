//! Serves the local HTTP API on a unix socket: each call becomes one [`Request`] to the driver.
//!
//! ```text
//!  client ── weft.sock ──► head ≤ 16 KiB in 10 s ──► route ──► body ≤ 1 MiB in 10 s ──► Request ──► driver
//!         ◄── JSON, or one line of error ──────────────────────────────────────────── answer ◄──┘
//! ```
//!
//! Whoever may write to the socket may do everything: file permissions (0660) are the only guard. What the paths mean
//! is said in [`crate::api`].

mod addresses;
mod socket;

use std::convert::Infallible;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request as HttpRequest, State};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use self::addresses::{check, prime, remove, reset};
pub(super) use self::socket::OwnedSocket;
pub use self::socket::SocketError;
use super::request::{Reply, Request};
use crate::api::{ApiError, BenchProgress, STOPPING};

/// Most clients at once; one more is hung up on. Scripts that ask in a loop use a handful.
const CONNECTIONS_MAX: usize = 64;
/// Longest request line and headers in bytes; ours need a few hundred.
const HEAD_LEN_MAX: usize = 16 * 1024;
/// Longest body in bytes; ours need a few kilobytes.
const BODY_LEN_MAX: usize = 1024 * 1024;
/// Longest wait for a head, which includes an idle connection, and for a body.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for the last answers when the daemon ends: the answer to `stop` itself is among them.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause after a failed accept: the process is out of files, and another try at once would fail too.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Bench steps under way to a client; it reads a few in a second.
const BENCH_STEPS_MAX: usize = 16;

/// The API's socket, bound and not yet served.
#[derive(Debug)]
pub struct ApiServer {
    socket: OwnedSocket,
}

impl ApiServer {
    /// Binds the socket, mode 0660; a file left by a daemon that is gone is replaced.
    ///
    /// # Errors
    ///
    /// If a daemon answers there, something else has the path, or the path cannot be used. Needs a tokio runtime.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        Ok(Self {
            socket: OwnedSocket::bind(path)?,
        })
    }

    /// Answers until `stop` is ready, then finishes what is under way and removes the socket.
    pub async fn serve(self, requests: mpsc::Sender<Request>, stop: impl Future<Output = ()>) {
        serve_at(self.socket, routes(requests), MANNERS, stop).await;
    }
}

/// How a socket treats its clients.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manners {
    /// Connections stay for another call.
    pub(super) keeps: bool,
    /// Most clients at once; one more is hung up on.
    pub(super) connections_max: usize,
}

const MANNERS: Manners = Manners {
    keeps: true,
    connections_max: CONNECTIONS_MAX,
};

/// Answers at a socket until `stop` is ready, then finishes what is under way and removes the socket.
pub(super) async fn serve_at(
    socket: OwnedSocket,
    router: Router,
    manners: Manners,
    stop: impl Future<Output = ()>,
) {
    let Manners {
        keeps,
        connections_max,
    } = manners;
    let (closing, is_closing) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok(stream) if connections.len() < connections_max => {
                connections.spawn(converse(stream, router.clone(), keeps, is_closing.clone()));
            }
            Ok(_) => tracing::warn!(
                limit = connections_max,
                "too many API clients, hung up on one"
            ),
            Err(error) => {
                tracing::warn!(%error, "API connection not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // New clients see at once that nobody is there.
    drop(socket);
    drop(closing);
    let farewell = async { while connections.join_next().await.is_some() {} };
    // Who does not read its answer is left.
    let _ = tokio::time::timeout(FAREWELL_TIMEOUT, farewell).await;
}

async fn converse(
    stream: UnixStream,
    router: Router,
    keeps: bool,
    mut is_closing: watch::Receiver<()>,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(keeps)
        .header_read_timeout(READ_TIMEOUT)
        .max_buf_size(HEAD_LEN_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    // A client that breaks off or talks nonsense is its own problem.
    let _ = tokio::select! {
        done = connection.as_mut() => done,
        _ = is_closing.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
}

/// What a call fails with.
struct Failure(StatusCode, String);

type Requests = State<mpsc::Sender<Request>>;

fn routes(requests: mpsc::Sender<Request>) -> Router {
    Router::new()
        .route(
            "/status",
            get(|State(to): Requests| async move { answer(ask(&to, Request::Status).await) }),
        )
        .route(
            "/report",
            get(|State(to): Requests| async move { answer(ask(&to, Request::Report).await) }),
        )
        .route("/ps", get(ps))
        .merge(mesh_routes())
        .merge(dns_routes())
        .route(
            "/connect",
            post(|State(to): Requests, call| change(to, call, Request::Connect)),
        )
        .route(
            "/forget",
            post(|State(to): Requests, call| change(to, call, Request::Forget)),
        )
        .route(
            "/attach",
            post(|State(to): Requests, call| ask_with(to, call, Request::Attach)),
        )
        .route(
            "/detach",
            post(|State(to): Requests, call| ask_with(to, call, Request::Detach)),
        )
        .route(
            "/find",
            post(|State(to): Requests, call| ask_with(to, call, Request::Find)),
        )
        .route(
            "/expose",
            post(|State(to): Requests, call| ask_with(to, call, Request::Expose)),
        )
        .route(
            "/hide",
            post(|State(to): Requests, call| ask_with(to, call, Request::Hide)),
        )
        .route("/prime", post(prime))
        .route("/ipam/check", get(check))
        .route("/rmpeer", post(remove))
        .route("/bench", post(bench))
        .route("/stop", post(stop))
        .route("/reset", post(reset))
        .fallback(async |uri: Uri| {
            Failure(
                StatusCode::NOT_FOUND,
                format!("no path {} in weft's API", uri.path()),
            )
        })
        .method_not_allowed_fallback(async |method: Method, uri: Uri| {
            let other = if method == Method::POST {
                "GET"
            } else {
                "POST"
            };
            let line = format!("{} does not take {method}: use {other}", uri.path());
            Failure(StatusCode::METHOD_NOT_ALLOWED, line)
        })
        .with_state(requests)
}

/// What is asked about other hosts.
fn mesh_routes() -> Router<mpsc::Sender<Request>> {
    Router::new()
        .route(
            "/peers",
            get(|State(to): Requests| async move { answer(ask(&to, Request::Peers).await) }),
        )
        .route(
            "/topology",
            get(|State(to): Requests| async move { answer(ask(&to, Request::Topology).await) }),
        )
        .route(
            "/path",
            post(|State(to): Requests, call| ask_with(to, call, Request::Path)),
        )
        .route(
            "/ping",
            post(|State(to): Requests, call| ask_with(to, call, Request::Ping)),
        )
}

/// What is asked about names.
fn dns_routes() -> Router<mpsc::Sender<Request>> {
    Router::new()
        .route(
            "/dns",
            get(|State(to): Requests| async move { answer(ask(&to, Request::Dns).await) }),
        )
        .route(
            "/dns/add",
            post(|State(to): Requests, call| ask_with(to, call, Request::DnsAdd)),
        )
        .route(
            "/dns/remove",
            post(|State(to): Requests, call| ask_with(to, call, Request::DnsRemove)),
        )
        .route(
            "/dns/lookup",
            post(|State(to): Requests, call| ask_with(to, call, Request::DnsLookup)),
        )
}

async fn ps(State(to): Requests) -> Response {
    match ask(&to, Request::Ps).await {
        Ok(listed) => {
            answer(listed.map_err(|error| Failure(StatusCode::INTERNAL_SERVER_ERROR, error.error)))
        }
        Err(failure) => failure.into_response(),
    }
}

async fn stop(State(to): Requests) -> Response {
    answer(ask(&to, Request::Stop).await.map(|()| Empty {}))
}

/// A call whose success has nothing to say.
async fn change<T: DeserializeOwned>(
    to: mpsc::Sender<Request>,
    call: HttpRequest,
    request: fn(T, Reply<Result<(), ApiError>>) -> Request,
) -> Response {
    answer(asked(&to, call, request).await.map(|()| Empty {}))
}

async fn ask_with<T: DeserializeOwned, A: Serialize>(
    to: mpsc::Sender<Request>,
    call: HttpRequest,
    request: fn(T, Reply<Result<A, ApiError>>) -> Request,
) -> Response {
    answer(asked(&to, call, request).await)
}

async fn asked<T: DeserializeOwned, A>(
    to: &mpsc::Sender<Request>,
    call: HttpRequest,
    request: fn(T, Reply<Result<A, ApiError>>) -> Request,
) -> Result<A, Failure> {
    let body = read(call).await?;
    let answer = ask(to, |reply| request(body, reply)).await?;
    answer.map_err(|error| Failure(StatusCode::BAD_REQUEST, error.error))
}

/// Steps as they come, a line each; a failure before the first step is an ordinary failure.
async fn bench(State(to): Requests, call: HttpRequest) -> Response {
    let body = match read(call).await {
        Ok(body) => body,
        Err(failure) => return failure.into_response(),
    };
    let (sender, mut steps) = mpsc::channel(BENCH_STEPS_MAX);
    if to.send(Request::Bench(body, sender)).await.is_err() {
        return gone().into_response();
    }
    let first = match steps.recv().await {
        Some(Ok(step)) => step,
        Some(Err(error)) => return Failure(StatusCode::BAD_REQUEST, error.error).into_response(),
        None => return gone().into_response(),
    };
    let lines =
        futures_util::stream::unfold((Some(Ok(first)), steps), async |(next, mut steps)| {
            let next: Result<BenchProgress, ApiError> = match next {
                Some(next) => next,
                None => steps.recv().await?,
            };
            let line = match &next {
                Ok(step) => serde_json::to_vec(step),
                Err(error) => serde_json::to_vec(error),
            };
            let mut line = line.ok()?;
            line.push(b'\n');
            Some((Ok::<_, Infallible>(Bytes::from(line)), (None, steps)))
        });
    let kind = HeaderValue::from_static("application/x-ndjson");
    ([(header::CONTENT_TYPE, kind)], Body::from_stream(lines)).into_response()
}

async fn ask<A>(
    to: &mpsc::Sender<Request>,
    request: impl FnOnce(Reply<A>) -> Request,
) -> Result<A, Failure> {
    let (reply, answer) = oneshot::channel();
    to.send(request(reply)).await.map_err(|_| gone())?;
    answer.await.map_err(|_| gone())
}

fn gone() -> Failure {
    Failure(StatusCode::SERVICE_UNAVAILABLE, STOPPING.to_owned())
}

async fn read<T: DeserializeOwned>(call: HttpRequest) -> Result<T, Failure> {
    let path = call.uri().path().to_owned();
    let read = axum::body::to_bytes(call.into_body(), BODY_LEN_MAX);
    let Ok(body) = tokio::time::timeout(READ_TIMEOUT, read).await else {
        return Err(Failure(
            StatusCode::REQUEST_TIMEOUT,
            format!("body of {path} did not come in time"),
        ));
    };
    let too_large = |_| {
        Failure(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("body of {path} is over {BODY_LEN_MAX} bytes"),
        )
    };
    serde_json::from_slice(&body.map_err(too_large)?).map_err(|error| {
        Failure(
            StatusCode::BAD_REQUEST,
            format!("body of {path} is not understood: {error}"),
        )
    })
}

/// `{}`.
#[derive(Serialize)]
struct Empty {}

fn answer<T: Serialize>(outcome: Result<T, Failure>) -> Response {
    match outcome {
        Ok(value) => axum::Json(value).into_response(),
        Err(failure) => failure.into_response(),
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Self(status, error) = self;
        (status, axum::Json(ApiError { error })).into_response()
    }
}

#[cfg(test)]
mod tests;

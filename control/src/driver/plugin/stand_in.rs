//! Answers Docker where weft has ended and Docker still has networks of weft's.
//!
//! ```text
//!  daemon ── pipe ──► stand-in (waits)          the daemon ends: of itself, killed, crashed
//!                     stand-in ──► sockets      "gone" is believed, "wanted" is refused, at once
//!  next daemon ── Weft.StepAside ──► stand-in   ends
//! ```
//!
//! Without it Docker tries each call for 15 s: a container is removed after 45. What Docker takes away meanwhile is
//! found by the next daemon, as what went while it was down. Ends by itself once Docker has no such network any more.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path as UrlPath, State};
use axum::response::Response;
use axum::routing::post;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::{interval, timeout};

use super::networks::Networks;
use super::{PluginError, make_folder, response, serve};
use crate::driver::api::{OwnedSocket, SocketError};
use crate::plugin::{
    Call, CallError, DRIVERS, LOCAL_DRIVER, Scope, address_answer, pool_answer, read,
};

/// What the next daemon asks.
const STEP_ASIDE: &str = "Weft.StepAside";
/// How long a daemon waits for that: `launch` promises to be ready in two seconds.
const STEP_ASIDE_TIMEOUT: Duration = Duration::from_secs(1);
/// How often it looks whether the sockets are free by then.
const TRY_INTERVAL: Duration = Duration::from_millis(10);
/// How often a stand-in looks whether it is still of use: `reset` removes what is noted of networks.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

struct Desk {
    scope: Scope,
    networks: Arc<Networks>,
    stop: watch::Sender<bool>,
}

/// Stands in at the sockets in `dir` for as long as Docker has networks that are noted in `data_dir`; returns at once if
/// there are none, or somebody answers there.
///
/// # Errors
/// [`PluginError`] if the sockets cannot be had.
pub async fn stand_in(dir: &Path, data_dir: &Path) -> Result<(), PluginError> {
    let sockets = DRIVERS.map(|(driver, scope)| (socket_of(dir, driver), scope));
    let networks = Arc::new(Networks::load(data_dir));
    if networks.is_empty() {
        // A Docker that starts would wait long for an answer at what a crash has left.
        let left = sockets.iter().filter(|(path, _)| path.exists());
        left.for_each(|(path, _)| drop(OwnedSocket::bind(path)));
        return Ok(());
    }
    make_folder(dir)?;
    let mut bound = Vec::new();
    for (path, scope) in sockets {
        match OwnedSocket::bind(&path) {
            Ok(socket) => bound.push((socket, scope)),
            // The next daemon was faster.
            Err(SocketError::InUse(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    let (stop, stopped) = watch::channel(false);
    let serving = serve(bound, &stopped, |scope| {
        let desk = Desk {
            scope,
            networks: Arc::clone(&networks),
            stop: stop.clone(),
        };
        Router::new()
            .route("/{method}", post(answer))
            .with_state(Arc::new(desk))
    });
    of_no_use(data_dir, stopped).await;
    stop.send_replace(true);
    for task in serving {
        let _ = task.await;
    }
    Ok(())
}

/// Waits until somebody else wants to answer, or there is nothing left to answer for.
async fn of_no_use(data_dir: &Path, mut stopped: watch::Receiver<bool>) {
    let mut ticks = interval(LOOK_INTERVAL);
    loop {
        tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => return,
            _ = ticks.tick() => if Networks::load(data_dir).is_empty() {
                return;
            }
        }
    }
}

/// Binds a plugin's socket; a stand-in there is told to go.
pub(super) async fn bind(dir: &Path, driver: &str) -> Result<OwnedSocket, SocketError> {
    let path = socket_of(dir, driver);
    match OwnedSocket::bind(&path) {
        Err(SocketError::InUse(_)) => {}
        bound => return bound,
    }
    let waiting = async {
        let mut ticks = interval(TRY_INTERVAL);
        loop {
            ticks.tick().await;
            // One that is about to end itself hangs up.
            let _ = ask_to_step_aside(&path).await;
            match OwnedSocket::bind(&path) {
                Err(SocketError::InUse(_)) => {}
                bound => return bound,
            }
        }
    };
    match timeout(STEP_ASIDE_TIMEOUT, waiting).await {
        Ok(bound) => bound,
        Err(_) => Err(SocketError::InUse(path)),
    }
}

async fn ask_to_step_aside(path: &Path) -> io::Result<()> {
    let mut stream = UnixStream::connect(path).await?;
    let request = format!("POST /{STEP_ASIDE} HTTP/1.0\r\nHost: weft\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(())
}

fn socket_of(dir: &Path, driver: &str) -> PathBuf {
    dir.join(format!("{driver}.sock"))
}

async fn answer(
    State(desk): State<Arc<Desk>>,
    UrlPath(method): UrlPath<String>,
    body: Bytes,
) -> Response {
    if method == STEP_ASIDE {
        desk.stop.send_replace(true);
        return response(Ok(json!({})));
    }
    response(read(desk.scope, &method, &body).and_then(|call| said(call, &desk)))
}

/// What goes is believed, and what was is confirmed; there is nobody to make anything new.
fn said(call: Call, desk: &Desk) -> Result<Value, CallError> {
    match call {
        Call::Fixed(said) => Ok(said),
        Call::DeleteNetwork { network } => {
            let removed = desk.networks.remove(&network);
            removed.map_err(|error| CallError::Refused(error.to_string()))?;
            Ok(json!({}))
        }
        Call::DeleteEndpoint { .. } | Call::ReleaseAddress { .. } => Ok(json!({})),
        // Of a Docker that starts, for the networks that it has.
        Call::RequestPool { chosen: Some(pool) } => Ok(pool_answer(pool)),
        Call::RequestGateway { pool } => Ok(address_answer(pool.no_gateway().into())),
        Call::RequestPool { chosen: None }
        | Call::CreateNetwork { .. }
        | Call::CreateEndpoint { .. }
        | Call::Join { .. }
        | Call::RequestAddress { .. } => Err(CallError::Refused(format!(
            "weft, whose plugin \"{LOCAL_DRIVER}\" this needs, is not running on this host: weft launch"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn asked(dir: &Path, driver: &str, method: &str, body: &str) -> String {
        let mut stream = UnixStream::connect(socket_of(dir, driver)).await.unwrap();
        let request = format!(
            "POST /{method} HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    fn stand_in_at(dir: &Path) -> tokio::task::JoinHandle<Result<(), PluginError>> {
        let dir = dir.to_owned();
        tokio::spawn(async move { stand_in(&dir, &dir).await })
    }

    async fn is_there(dir: &Path) {
        while UnixStream::connect(socket_of(dir, LOCAL_DRIVER))
            .await
            .is_err()
        {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn nobody_stands_in_where_docker_has_no_network() {
        let dir = tempfile::tempdir().unwrap();
        let socket = socket_of(dir.path(), LOCAL_DRIVER);
        // Bound, and nobody there any more.
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        assert!(socket.exists());
        stand_in(dir.path(), dir.path()).await.unwrap();
        assert!(!socket.exists());
    }

    #[tokio::test]
    async fn what_goes_is_believed_and_what_is_wanted_refused() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        Networks::load(dir).add("n1", false).unwrap();
        let standing = stand_in_at(dir);
        is_there(dir).await;

        let said = |method, body| asked(dir, LOCAL_DRIVER, method, body);
        let activated = said("Plugin.Activate", "").await;
        assert!(activated.contains("NetworkDriver"), "{activated}");
        let pool = r#"{"Pool":"10.44.0.0/24"}"#;
        let pool = said("IpamDriver.RequestPool", pool).await;
        assert!(pool.starts_with("HTTP/1.0 200"), "{pool}");
        let place = r#"{"NetworkID":"n1","EndpointID":"e1"}"#;
        let joined = said("NetworkDriver.CreateEndpoint", place).await;
        assert!(joined.starts_with("HTTP/1.0 500"), "{joined}");
        assert!(joined.contains("weft launch"), "{joined}");
        let left = said("NetworkDriver.DeleteEndpoint", place).await;
        assert!(left.starts_with("HTTP/1.0 200"), "{left}");

        // With the last network the stand-in goes.
        let removed = said("NetworkDriver.DeleteNetwork", r#"{"NetworkID":"n1"}"#).await;
        assert!(removed.starts_with("HTTP/1.0 200"), "{removed}");
        standing.await.unwrap().unwrap();
        assert!(!socket_of(dir, LOCAL_DRIVER).exists());
    }

    #[tokio::test]
    async fn it_steps_aside_for_a_daemon_and_leaves_one_alone() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        Networks::load(dir).add("n1", false).unwrap();
        let standing = stand_in_at(dir);
        is_there(dir).await;

        let mut daemon = Vec::new();
        for (driver, _) in DRIVERS {
            daemon.push(bind(dir, driver).await.unwrap());
        }
        standing.await.unwrap().unwrap();

        stand_in(dir, dir).await.unwrap();
        assert!(
            UnixStream::connect(socket_of(dir, LOCAL_DRIVER))
                .await
                .is_ok()
        );
        assert_eq!(daemon.len(), DRIVERS.len());
    }
}

//! The API over a real socket, with a driver that answers from a table.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use super::*;
use crate::api::{AttachReply, Attachment};
use crate::ipam::request::{Reply as AddressReply, Request as AddressRequest};

struct Served {
    folder: tempfile::TempDir,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

impl Served {
    /// Serves in front of a driver that knows one container.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = ApiServer::bind(&folder.path().join("weft.sock")).unwrap();
        let (requests, driver) = mpsc::channel(CONNECTIONS_MAX);
        tokio::spawn(drive(driver));
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(server.serve(requests, async {
            let _ = stopped.await;
        }));
        Self {
            folder,
            stop,
            server,
        }
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("weft.sock")
    }

    async fn connect(&self) -> UnixStream {
        UnixStream::connect(self.path()).await.unwrap()
    }

    /// Sends a call; answers status and body.
    async fn call(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut stream = self.connect().await;
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: weft\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
        );
        // The server may answer and hang up before it has read a body that is too long.
        let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
        answer_of(stream).await
    }
}

async fn answer_of(mut stream: UnixStream) -> (u16, String) {
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head
        .split(' ')
        .nth(1)
        .map_or(0, |status| status.parse().unwrap());
    (status, body.to_owned())
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the other requests go unanswered on purpose"
)]
async fn drive(mut requests: mpsc::Receiver<Request>) {
    while let Some(request) = requests.recv().await {
        match request {
            Request::Attach(asked, reply) if asked.container == "c1" => {
                let addresses = asked
                    .addresses
                    .iter()
                    .map(|address| address.parse().unwrap())
                    .collect();
                let _ = reply.send(Ok(AttachReply {
                    addresses,
                    ..AttachReply::default()
                }));
            }
            Request::Attach(asked, reply) => {
                let _ = reply.send(Err(ApiError {
                    error: format!("no container {:?}", asked.container),
                }));
            }
            Request::Connect(_, reply) => {
                let _ = reply.send(Ok(()));
            }
            Request::Ps(reply) => {
                let listed = Attachment {
                    id: "weft".to_owned(),
                    mac: "m".to_owned(),
                    addresses: Vec::new(),
                };
                let _ = reply.send(Ok(vec![listed]));
            }
            Request::Bench(asked, steps) => {
                for elapsed_s in [0.5, 1.0] {
                    let step = BenchProgress {
                        phase: asked.peer.clone(),
                        elapsed_s,
                        phase_s: 1.0,
                        done: None,
                    };
                    let _ = steps.send(Ok(step)).await;
                }
                let _ = steps
                    .send(Err(ApiError {
                        error: "peer went away".to_owned(),
                    }))
                    .await;
            }
            // What `reset` asks first: there is nothing to hand over.
            Request::Addresses(AddressRequest::Leave, reply) => {
                let _ = reply.send(Ok(AddressReply::Left {
                    heir: None,
                    count: 0,
                }));
            }
            Request::Stop(reply) => {
                let _ = reply.send(());
            }
            Request::Reset(reply) => {
                let _ = reply.send(Err(ApiError {
                    error: "store is busy".to_owned(),
                }));
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_call_becomes_a_request_and_its_answer_json() {
    let served = Served::new();
    let table = [
        (
            "POST",
            "/attach",
            r#"{"container":"c1","addresses":["10.2.1.1"]}"#,
            200,
            r#"{"addresses":["10.2.1.1"],"id":"","names":[]}"#,
        ),
        (
            "POST",
            "/attach",
            r#"{"container":"x","addresses":[]}"#,
            400,
            r#"{"error":"no container \"x\""}"#,
        ),
        ("POST", "/connect", r#"{"peers":["h2"]}"#, 200, "{}"),
        (
            "GET",
            "/ps",
            "",
            200,
            r#"[{"id":"weft","mac":"m","addresses":[]}]"#,
        ),
        ("POST", "/stop", "", 200, "{}"),
        ("POST", "/reset", "{}", 500, r#"{"error":"store is busy"}"#),
        // The driver dropped these.
        (
            "GET",
            "/status",
            "",
            503,
            r#"{"error":"the daemon is stopping"}"#,
        ),
        (
            "POST",
            "/forget",
            r#"{"peers":[]}"#,
            503,
            r#"{"error":"the daemon is stopping"}"#,
        ),
    ];
    for (method, path, body, status, answer) in table {
        assert_eq!(
            served.call(method, path, body).await,
            (status, answer.to_owned()),
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn a_bad_call_gets_one_line_that_says_why() {
    let served = Served::new();
    let table = [
        ("GET", "/nowhere", "", 404, "no path /nowhere in weft's API"),
        (
            "GET",
            "/attach",
            "",
            405,
            "/attach does not take GET: use POST",
        ),
        ("POST", "/ps", "", 405, "/ps does not take POST: use GET"),
        (
            "POST",
            "/attach",
            "",
            400,
            "body of /attach is not understood: EOF",
        ),
        (
            "POST",
            "/attach",
            r#"{"container":1}"#,
            400,
            "body of /attach is not understood: invalid type",
        ),
        (
            "POST",
            "/connect",
            "[]x",
            400,
            "body of /connect is not understood",
        ),
    ];
    for (method, path, body, status, line) in table {
        let (got, answer) = served.call(method, path, body).await;
        let answer: ApiError = serde_json::from_str(&answer).unwrap();
        assert_eq!(got, status, "{method} {path}");
        assert!(
            answer.error.starts_with(line) && !answer.error.contains('\n'),
            "{}",
            answer.error
        );
    }
}

#[tokio::test]
async fn too_much_is_refused() {
    let served = Served::new();

    assert_eq!(
        served
            .call("POST", "/attach", &" ".repeat(BODY_LEN_MAX + 1))
            .await
            .0,
        413
    );
    let long_path = format!("/{}", "x".repeat(HEAD_LEN_MAX));
    assert!([414, 431].contains(&served.call("GET", &long_path, "").await.0));

    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        clients.push(served.connect().await);
    }
    let mut one_more = served.connect().await;
    assert_eq!(one_more.read(&mut [0]).await.unwrap(), 0, "hung up on");
    drop(clients);
    // The places are free as soon as the server has seen them go.
    while served.call("GET", "/ps", "").await.0 != 200 {}
}

/// The clock is paused: it leaps to the next deadline whenever everything waits.
#[tokio::test(start_paused = true)]
async fn a_client_that_dawdles_is_hung_up_on() {
    let served = Served::new();

    let mut idle = served.connect().await;
    assert_eq!(idle.read(&mut [0]).await.unwrap(), 0);

    let mut half_a_head = served.connect().await;
    half_a_head
        .write_all(b"GET /ps HTTP/1.1\r\n")
        .await
        .unwrap();
    let _ = answer_of(half_a_head).await;

    let mut half_a_body = served.connect().await;
    half_a_body
        .write_all(b"POST /attach HTTP/1.1\r\nhost: w\r\ncontent-length: 9\r\n\r\n{")
        .await
        .unwrap();
    assert_eq!(answer_of(half_a_body).await.0, 408);
}

#[tokio::test]
async fn bench_sends_a_line_for_each_step() {
    let served = Served::new();

    let (status, body) = served
        .call("POST", "/bench", r#"{"peer":"h2","seconds":1}"#)
        .await;

    assert_eq!(status, 200);
    let lines: Vec<_> = body.lines().filter(|line| line.starts_with('{')).collect();
    assert_eq!(lines.len(), 3, "{body}");
    assert_eq!(
        serde_json::from_str::<BenchProgress>(lines[1])
            .unwrap()
            .elapsed_s,
        1.0
    );
    assert_eq!(lines[2], r#"{"error":"peer went away"}"#);
}

#[tokio::test]
async fn the_socket_is_for_owner_and_group_and_goes_with_the_daemon() {
    let served = Served::new();
    let path = served.path();
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        MODE_SHOWN
    );
    let mut idle = served.connect().await;
    // Clients are accepted in turn: when the second has its answer, the first is in.
    assert_eq!(served.call("GET", "/ps", "").await.0, 200);

    served.stop.send(()).unwrap();

    assert_eq!(idle.read(&mut [0]).await.unwrap(), 0);
    served.server.await.unwrap();
    assert!(!path.exists());
}

const MODE_SHOWN: u32 = 0o660;

#[tokio::test]
async fn a_living_daemons_socket_is_left_alone_and_a_dead_ones_replaced() {
    let served = Served::new();
    let path = served.path();
    assert!(matches!(ApiServer::bind(&path), Err(SocketError::InUse(_))));
    assert_eq!(served.call("GET", "/ps", "").await.0, 200);

    let stale = served.folder.path().join("stale.sock");
    drop(UnixListener::bind(&stale).unwrap());
    drop(ApiServer::bind(&stale).unwrap());
    assert!(!stale.exists());

    let file = served.folder.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    assert!(matches!(
        ApiServer::bind(&file),
        Err(SocketError::NotASocket(_))
    ));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    assert!(matches!(
        ApiServer::bind(Path::new("/nowhere/weft.sock")),
        Err(SocketError::System { .. })
    ));
}

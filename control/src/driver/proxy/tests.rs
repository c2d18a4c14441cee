//! One connection through the relay, to a Docker that answers as it is told.

mod ends;

use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use super::*;
use crate::api::ApiError;

/// On a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

struct Relayed {
    client: UnixStream,
    docker: UnixListener,
    relay: JoinHandle<()>,
    _dir: tempfile::TempDir,
}

fn attach_rules() -> AttachRules {
    AttachRules {
        without_dns: true,
        rewrite_hosts: false,
        folders: ["/wait".to_owned(), "/other".to_owned()],
        range: None,
    }
}

fn calls(dir: &Path) -> Calls {
    let docker = Docker::new(Some(&dir.join("docker.sock").to_string_lossy())).unwrap();
    let rules = CreateRules {
        default_ipalloc: true,
        folder: "/wait".to_owned(),
        naming: None,
    };
    let starts = Starts::new(docker.clone(), mpsc::channel(1).0, attach_rules());
    let program = WaitProgram::new(dir, b"program");
    Calls::new(docker, rules, starts, Arc::new(program), false)
}

fn relayed() -> Relayed {
    relayed_among(Arc::new(Seats::new(1)))
}

fn relayed_among(seats: Arc<Seats>) -> Relayed {
    let dir = tempfile::tempdir().unwrap();
    let docker = UnixListener::bind(dir.path().join("docker.sock")).unwrap();
    let calls = calls(dir.path());
    let (client, ours) = UnixStream::pair().unwrap();
    let relay = tokio::spawn(async move {
        relay::converse(listen::local_side(ours), &calls, &seats).await;
    });
    Relayed {
        client,
        docker,
        relay,
        _dir: dir,
    }
}

async fn accept(docker: &UnixListener) -> UnixStream {
    timeout(LIMIT, docker.accept()).await.unwrap().unwrap().0
}

async fn expect(stream: &mut UnixStream, expected: &[u8]) {
    let mut read = vec![0; expected.len()];
    let reading = timeout(LIMIT, stream.read_exact(&mut read)).await;
    reading.expect("in time").expect("not the end");
    assert_eq!(
        String::from_utf8_lossy(&read),
        String::from_utf8_lossy(expected)
    );
}

async fn rest(stream: &mut UnixStream) -> String {
    let mut read = Vec::new();
    let reading = timeout(LIMIT, stream.read_to_end(&mut read)).await;
    reading.expect("in time").unwrap();
    String::from_utf8(read).unwrap()
}

#[tokio::test]
async fn requests_and_answers_pass_as_they_are_one_after_another() {
    let mut it = relayed();
    let first = b"POST /build?t=x HTTP/1.1\r\nhost:\r\nX-y:  z\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\n\r\n";
    let second = b"HEAD /_ping HTTP/1.1\r\nHost: h\r\n\r\n";
    it.client.write_all(first).await.unwrap();
    it.client.write_all(second).await.unwrap();
    let mut docker = accept(&it.docker).await;
    expect(&mut docker, first).await;
    let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    docker
        .write_all(b"HTTP/1.1 102 Wait\r\n\r\n")
        .await
        .unwrap();
    docker.write_all(answer).await.unwrap();
    expect(&mut it.client, b"HTTP/1.1 102 Wait\r\n\r\n").await;
    expect(&mut it.client, answer).await;

    expect(&mut docker, second).await;
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";
    docker.write_all(answer).await.unwrap();
    expect(&mut it.client, answer).await;
    drop(docker);
    assert_eq!(
        rest(&mut it.client).await,
        "",
        "Docker's end is the client's"
    );
}

#[tokio::test]
async fn a_hijacked_and_an_upgraded_connection_are_raw_both_ways_to_their_ends() {
    let hijack = "POST /v1.41/containers/c/attach?stream=1 HTTP/1.1\r\nHost: h\r\n\r\n";
    let upgrade =
        "POST /session HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
    let raw = "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n";
    let switched = "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
    for (request, answer) in [(hijack, raw), (upgrade, switched)] {
        let mut it = relayed();
        it.client.write_all(request.as_bytes()).await.unwrap();
        // What a container reads need not wait for the answer, nor look like HTTP.
        it.client.write_all(b"GET \0early").await.unwrap();
        let mut docker = accept(&it.docker).await;
        expect(&mut docker, request.as_bytes()).await;
        docker.write_all(answer.as_bytes()).await.unwrap();
        docker.write_all(b"output").await.unwrap();
        expect(&mut it.client, answer.as_bytes()).await;
        expect(&mut it.client, b"output").await;
        expect(&mut docker, b"GET \0early").await;

        it.client.shutdown().await.unwrap();
        assert_eq!(rest(&mut docker).await, "", "stdin has ended");
        docker.write_all(b"more").await.unwrap();
        expect(&mut it.client, b"more").await;
        drop(docker);
        assert_eq!(rest(&mut it.client).await, "");
    }
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_question_along() {
    let mut it = relayed();
    let request = b"GET /events HTTP/1.1\r\nHost: h\r\n\r\n";
    it.client.write_all(request).await.unwrap();
    let mut docker = accept(&it.docker).await;
    expect(&mut docker, request).await;
    docker.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    expect(&mut it.client, b"HTTP/1.1 200 OK\r\n\r\n").await;
    drop(it.client);
    assert_eq!(rest(&mut docker).await, "");
}

#[tokio::test]
async fn a_raw_stream_ends_with_its_client_though_docker_is_silent() {
    for ends_a_half_first in [false, true] {
        let mut it = relayed();
        let request = b"POST /containers/c/attach?stream=1 HTTP/1.1\r\nHost: h\r\n\r\n";
        it.client.write_all(request).await.unwrap();
        let mut docker = accept(&it.docker).await;
        expect(&mut docker, request).await;
        let answer = b"HTTP/1.1 101 UPGRADED\r\n\r\n";
        docker.write_all(answer).await.unwrap();
        expect(&mut it.client, answer).await;
        it.client.write_all(b"last words").await.unwrap();
        if ends_a_half_first {
            it.client.shutdown().await.unwrap();
            assert_eq!(rest(&mut docker).await, "last words");
            docker.write_all(b"still heard").await.unwrap();
            expect(&mut it.client, b"still heard").await;
        }
        drop(it.client);
        if !ends_a_half_first {
            assert_eq!(rest(&mut docker).await, "last words");
        }
        // Nobody reads there any more, either.
        let closed = async {
            while docker.write_all(b"?").await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        timeout(LIMIT, it.relay).await.expect("in time").unwrap();
        timeout(LIMIT, closed).await.expect("in time");
    }
}

#[tokio::test]
async fn an_answer_that_comes_before_the_whole_body_arrives() {
    let mut it = relayed();
    let head = b"POST /images/load HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000000\r\n\r\n";
    it.client.write_all(head).await.unwrap();
    let mut docker = accept(&it.docker).await;
    expect(&mut docker, head).await;
    let answer = "HTTP/1.1 500 Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    docker.write_all(answer.as_bytes()).await.unwrap();
    drop(docker);
    assert_eq!(rest(&mut it.client).await, answer);
}

/// Longer than what the relay reads itself, so that the kernel passes the rest of it.
fn long_body() -> Vec<u8> {
    (0..1_500_000_u32)
        .map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()[0])
        .collect()
}

/// The same in chunks, of 32 KiB as Docker and its client send them.
fn in_chunks(data: &[u8]) -> Vec<u8> {
    let chunk = |part: &[u8]| {
        let size = format!("{:x}\r\n", part.len()).into_bytes();
        [&size[..], part, b"\r\n"].concat()
    };
    let mut chunks: Vec<u8> = data.chunks(32 * 1024).flat_map(chunk).collect();
    chunks.extend_from_slice(b"0\r\n\r\n");
    chunks
}

/// Writes all of `sent` at one end while its first `len` bytes are read at the other.
async fn passes(from: &mut UnixStream, to: &mut UnixStream, sent: &[u8], len: usize) {
    let mut got = vec![0; len];
    let both = async { tokio::try_join!(from.write_all(sent), to.read_exact(&mut got)) };
    timeout(LIMIT, both).await.expect("in time").unwrap();
    // Not assert_eq: nobody reads that much.
    assert!(got == sent[..len], "something else arrived");
}

#[tokio::test]
async fn what_follows_a_long_body_on_the_same_connection_passes_unharmed() {
    let data = long_body();
    let of_length = format!("Content-Length: {}\r\n\r\n", data.len());
    let chunked = "Transfer-Encoding: chunked\r\n\r\n";
    let bodies = [
        [of_length.as_bytes(), &data].concat(),
        [chunked.as_bytes(), &in_chunks(&data)].concat(),
    ];
    let (mut it, mut docker) = (relayed(), None);
    let next = b"GET /_ping HTTP/1.1\r\nHost: h\r\n\r\n";
    let (done, pong) = (
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    );
    for body in &bodies {
        // A long body there, and right behind it the next request; then a long one back, twice in a row.
        let request = [&b"PUT /containers/c/archive HTTP/1.1\r\n"[..], body].concat();
        let answer = [&b"HTTP/1.1 200 OK\r\n"[..], body].concat();
        let (begun, rest) = request.split_at(1000);
        it.client.write_all(begun).await.unwrap();
        let docker = match &mut docker {
            Some(docker) => docker,
            none => none.insert(accept(&it.docker).await),
        };
        expect(docker, begun).await;
        let sent = [rest, next].concat();
        // The next request waits its turn.
        passes(&mut it.client, docker, &sent, rest.len()).await;
        docker.write_all(done).await.unwrap();
        expect(&mut it.client, done).await;
        expect(docker, next).await;
        docker.write_all(pong).await.unwrap();
        expect(&mut it.client, pong).await;
        for _ in 0..2 {
            it.client.write_all(next).await.unwrap();
            expect(docker, next).await;
            passes(docker, &mut it.client, &answer, answer.len()).await;
        }
    }
    let another = timeout(Duration::ZERO, it.docker.accept()).await;
    assert!(another.is_err(), "all went over one connection");
}

#[tokio::test]
async fn what_is_in_doubt_never_gets_to_docker() {
    for (request, status) in [
        (
            "POST /containers/create HTTP/1.1\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
            400,
        ),
        (
            "POST /containers/create HTTP/1.1\r\nContent-Length: 20\r\n\r\n{\"Image\":1,\"image\":2}",
            400,
        ),
        (
            "POST /containers/create HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n{}",
            413,
        ),
        ("nonsense\r\n\r\n", 400),
    ] {
        let mut it = relayed();
        it.client.write_all(request.as_bytes()).await.unwrap();
        let answer = rest(&mut it.client).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{request}: {answer}"
        );
        assert!(
            answer.contains("\"message\":\"weft's proxy does not pass"),
            "{answer}"
        );
        let nobody = timeout(Duration::ZERO, it.docker.accept()).await;
        assert!(nobody.is_err(), "{request}");
    }
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_is_dockers_fault_and_breaks_off() {
    let begun = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n";
    for (answer, expected) in [
        ("nonsense\r\n\r\n", None),
        ("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", None),
        (&format!("{begun}no length\r\n"), Some(begun)),
    ] {
        let mut it = relayed();
        let request = b"GET /info HTTP/1.1\r\nHost: h\r\n\r\n";
        it.client.write_all(request).await.unwrap();
        let mut docker = accept(&it.docker).await;
        expect(&mut docker, request).await;
        let (first, later) = answer.split_at(expected.map_or(0, str::len));
        docker.write_all(first.as_bytes()).await.unwrap();
        expect(&mut it.client, first.as_bytes()).await;
        docker.write_all(later.as_bytes()).await.unwrap();
        let got = rest(&mut it.client).await;
        match expected {
            None => assert!(
                got.starts_with("HTTP/1.1 502 ") && got.contains("cannot read Docker's answer"),
                "{answer}: {got}"
            ),
            Some(_) => assert_eq!(got, "", "{answer}"),
        }
    }
}

#[tokio::test]
async fn a_docker_that_is_not_there_is_named() {
    let mut it = relayed();
    drop(it.docker);
    it.client
        .write_all(b"GET /_ping HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    let answer = rest(&mut it.client).await;
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && answer.contains("cannot reach Docker at"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_container_that_runs_already_is_none_of_a_starts_business() {
    let mut it = relayed();
    let request = b"POST /v1.41/containers/c/start HTTP/1.1\r\nHost: h\r\n\r\n";
    it.client.write_all(request).await.unwrap();
    let mut docker = accept(&it.docker).await;
    expect(&mut docker, request).await;
    let answer = b"HTTP/1.1 304 Not Modified\r\n\r\n";
    docker.write_all(answer).await.unwrap();
    expect(&mut it.client, answer).await;
    let nobody = timeout(Duration::ZERO, it.docker.accept()).await;
    assert!(nobody.is_err(), "nothing was asked about it");
}

/// Answers questions about a container of ours, each time with the next process; notes what it is to kill.
async fn answer_about(docker: UnixListener, pids: [u32; 2], killed: &Mutex<Vec<String>>) {
    let mut pids = pids.into_iter();
    loop {
        let mut asking = docker.accept().await.unwrap().0;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(asking.read_u8().await.unwrap());
        }
        let line = String::from_utf8(head).unwrap();
        let line = line.lines().next().unwrap().to_owned();
        let body = if line.contains("/version ") {
            serde_json::json!({ "ApiVersion": "1.41" })
        } else if line.contains("/kill") {
            killed.lock().unwrap().push(line);
            serde_json::json!({})
        } else {
            serde_json::json!({
                "Id": "c0",
                "State": { "Pid": pids.next().expect("no more questions") },
                "Config": { "Entrypoint": ["/w/w"] },
                "HostConfig": { "Binds": ["/wait:/w:ro"], "NetworkMode": "default" },
            })
        };
        let body = body.to_string();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        asking.write_all((head + &body).as_bytes()).await.unwrap();
    }
}

#[tokio::test]
async fn a_process_that_was_not_attached_is_killed_and_no_later_one() {
    for (pids, kills) in [([7, 7], 1), ([7, 8], 0)] {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("docker.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let docker = Docker::new(socket.to_str()).unwrap();
        let (requests, mut asked) = mpsc::channel(1);
        let starts = Starts::new(docker, requests, attach_rules());
        let refuse = async {
            while let Some(Request::Attach(_, reply)) = asked.recv().await {
                let error = "no room".to_owned();
                reply.send(Err(ApiError { error })).unwrap();
            }
        };
        let killed = Mutex::default();
        let outcome = tokio::select! {
            outcome = timeout(LIMIT, starts.attached("c")) => outcome.expect("in time"),
            () = refuse => panic!("something else was asked"),
            () = answer_about(listener, pids, &killed) => unreachable!(),
        };
        assert_eq!(outcome, Err("no room".to_owned()));
        let killed = killed.into_inner().unwrap();
        assert_eq!(killed.len(), kills, "{pids:?}: {killed:?}");
    }
}

#[test]
fn the_sockets_owner_and_mode_are_dockers() {
    let dir = tempfile::tempdir().unwrap();
    let (theirs, ours) = (dir.path().join("a"), dir.path().join("b"));
    for (path, mode) in [(&theirs, 0o606), (&ours, 0o660)] {
        fs::write(path, "").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    copy_access(&theirs, &ours, own).unwrap();
    assert_eq!(mode(&ours), 0o606);

    // Another user's.
    let theirs = match own(&theirs, 1, 1) {
        Ok(()) => theirs,
        Err(_) => "/".into(),
    };
    fs::set_permissions(&ours, fs::Permissions::from_mode(0o600)).unwrap();
    let refused = copy_access(&theirs, &ours, |_, _, _| Err(io::Error::other("no")));
    assert_eq!(refused.unwrap_err().to_string(), "no");
    assert_eq!(mode(&ours), mode(&theirs));
}

#[test]
fn the_same_is_not_said_twice_in_a_row() {
    let said = Mutex::default();
    for (now, expected) in [
        (Some("a"), Some("a")),
        (Some("a"), None),
        (Some("b"), Some("b")),
        (None, None),
        (Some("b"), Some("b")),
    ] {
        assert_eq!(news(&said, now.map(str::to_owned)).as_deref(), expected);
    }
}

//! What goes through weft's Docker proxy is as if it had gone to Docker, but for the rewriting that is documented.
//!
//! ```text
//!  Session ─┬─ docker.sock ────────────► dockerd        the same calls, one after the other, twice
//!           └─ weft's docker.sock ─────►                compared call by call, ids and times made equal
//! ```

#![expect(
    clippy::print_stdout,
    reason = "what was compared, for whoever runs it with --nocapture"
)]

#[path = "docker_same/calls.rs"]
mod calls;
#[path = "docker_same/normal.rs"]
mod normal;

use serde_json::{Value, json};
use weft_netns_tests::{Answer, Dockerd, HttpClient, Lab, Weft, chunked, in_docker_lab, request};

use crate::calls::{JSON, Session, archive};
use crate::normal::scrubbed;

/// As many different pairs of method and endpoint have to be the same.
const PAIRS_MIN: usize = 60;
/// A large body.
const LARGE: usize = 10 * 1024 * 1024;

/// Docker, weft, and the sockets of both.
struct Place {
    docker: Dockerd,
    _weft: Weft,
    sockets: [HttpClient; 2],
}

impl Place {
    fn launch(lab: &Lab) -> Self {
        // The plugin's network would be among Docker's, and go with `network prune`.
        let (docker, weft) = lab.docker_and_weft(&[], &["--plugin=false"]);
        let config = weft.ok(&["config"]);
        let ours = config.trim().strip_prefix("-H=unix://");
        let ours = HttpClient::new(ours.expect("a proxy runs").as_ref());
        let address = docker.address();
        let theirs = address.strip_prefix("unix://").expect("it is a socket");
        let theirs = HttpClient::new(theirs.as_ref());
        Self {
            docker,
            _weft: weft,
            sockets: [theirs, ours],
        }
    }
}

#[test]
fn every_call_that_the_docker_client_makes_has_the_same_answer() {
    in_docker_lab(|lab| {
        let place = Place::launch(lab);
        let [theirs, ours] = place.sockets.clone().map(|socket| {
            let mut session = Session::new(socket);
            session.all();
            session
        });
        let pairs = ours.pairs().len();
        println!(
            "{pairs} pairs of method and endpoint, {} calls",
            ours.said().len()
        );
        assert!(pairs >= PAIRS_MIN, "{:?}", ours.pairs());
        assert_eq!(theirs.pairs(), ours.pairs());
        let differences: Vec<String> = theirs
            .said()
            .iter()
            .zip(ours.said())
            .filter(|(theirs, ours)| theirs != ours)
            .map(|(theirs, ours)| difference(theirs, ours))
            .collect();
        assert!(differences.is_empty(), "\n{}", differences.join("\n"));
        assert_eq!(theirs.said().len(), ours.said().len());
    });
}

/// The call, and where its answers part.
fn difference(theirs: &str, ours: &str) -> String {
    let same = theirs.chars().zip(ours.chars());
    let same = same.take_while(|(one, other)| one == other).count();
    let part = |text: &str| -> String {
        text.chars()
            .skip(same.saturating_sub(60))
            .take(300)
            .collect()
    };
    let call: String = theirs.chars().take(80).collect();
    format!(
        "{call}\n  Docker: …{}\n  proxy:  …{}\n",
        part(theirs),
        part(ours)
    )
}

fn create(headers: &[&str], body: &[u8]) -> Vec<u8> {
    let headers = [&[JSON], headers].concat();
    request("POST", "/containers/create", &headers, body)
}

/// A body as long as Docker takes it, with a label that makes it so.
fn labelled(len: usize) -> Vec<u8> {
    let label = "x".repeat(len);
    json!({ "Image": "box", "Cmd": ["true"], "Labels": { "long": label } })
        .to_string()
        .into_bytes()
}

/// Bodies, right, odd and wrong; whoever sends one may say nothing after it.
#[expect(clippy::too_many_lines, reason = "a table")]
fn odd_requests() -> Vec<(&'static str, Vec<u8>)> {
    let plain = br#"{"Image":"box","Cmd":["true"]}"#;
    let length = format!("Content-Length: {}", plain.len());
    let raw = |head: &str, body: &[u8]| {
        let head =
            format!("POST /containers/create HTTP/1.1\r\nHost: docker\r\n{JSON}\r\n{head}\r\n");
        [head.as_bytes(), body].concat()
    };
    let large = labelled(LARGE);
    let mut all = vec![
        ("whole", create(&[], plain)),
        ("no bytes", create(&[], b"")),
        ("no length", raw("", b"")),
        (
            "length 0, bytes after it",
            raw("Content-Length: 0\r\n", plain),
        ),
        ("only spaces", create(&[], b"  \n")),
        ("null", create(&[], b"null")),
        ("an empty object", create(&[], b"{}")),
        ("a list", create(&[], b"[]")),
        ("a number", create(&[], b"1e400")),
        ("half an object", create(&[], br#"{"Image":"box""#)),
        ("no text", create(&[], b"{\"Image\":\"\xff\xfe\"}")),
        (
            "two objects",
            create(&[], br#"{"Image":"box","Cmd":["true"]} {"Image":"x"}"#),
        ),
        (
            "more after the object",
            create(&[], br#"{"Image":"box","Cmd":["true"]} x"#),
        ),
        (
            "a key twice",
            create(&[], br#"{"Image":"no-such","Image":"box","Cmd":["true"]}"#),
        ),
        (
            "a key in two spellings",
            create(&[], br#"{"Image":"box","image":"no-such","Cmd":["true"]}"#),
        ),
        (
            "small letters",
            create(
                &[],
                br#"{"image":"box","cmd":["true"],"hostconfig":{"memory":6291456}}"#,
            ),
        ),
        (
            "a key twice further in",
            create(
                &[],
                br#"{"Image":"box","Cmd":["true"],"HostConfig":{"Binds":null,"binds":["/:/w"]}}"#,
            ),
        ),
        (
            "an escaped key",
            create(&[], br#"{"\u0049mage":"box","Cmd":["true"]}"#),
        ),
        (
            "unknown keys",
            create(
                &[],
                br#"{"Image":"box","Cmd":["true"],"New":{"a":[1,2.50]},"HostConfig":{"Newer":1}}"#,
            ),
        ),
        (
            "a large number",
            create(
                &[],
                br#"{"Image":"box","Cmd":["true"],"HostConfig":{"Memory":9223372036854775807}}"#,
            ),
        ),
        (
            "a number with an exponent",
            create(
                &[],
                br#"{"Image":"box","Cmd":["true"],"HostConfig":{"Memory":1e9}}"#,
            ),
        ),
        ("a wrong type", create(&[], br#"{"Image":["box"]}"#)),
        (
            "a wrong type further in",
            create(&[], br#"{"Image":"box","HostConfig":{"Binds":"x"}}"#),
        ),
        (
            "chunks",
            create(&["Transfer-Encoding: chunked"], &chunked(plain, 7)),
        ),
        (
            "one length twice",
            raw(&format!("{length}\r\n{length}\r\n"), plain),
        ),
        (
            "two lengths",
            raw(&format!("{length}\r\nContent-Length: 2\r\n"), plain),
        ),
        (
            "two lengths in one",
            raw("Content-Length: 30, 2\r\n", plain),
        ),
        ("a signed length", raw("Content-Length: +30\r\n", plain)),
        (
            "no number for a length",
            raw("Content-Length: x\r\n", plain),
        ),
        (
            "length and chunks",
            raw(
                "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
                &chunked(plain, 40),
            ),
        ),
        (
            "chunks and length",
            raw(
                "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
                &chunked(plain, 40),
            ),
        ),
        (
            "chunks twice",
            raw(
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                &chunked(plain, 40),
            ),
        ),
        (
            "another encoding",
            raw("Transfer-Encoding: gzip, chunked\r\n", &chunked(plain, 40)),
        ),
        ("identity", raw("Transfer-Encoding: identity\r\n", plain)),
        (
            "a chunk without a size",
            raw("Transfer-Encoding: chunked\r\n", b"\r\n0\r\n\r\n"),
        ),
        (
            "a chunk that is longer",
            raw(
                "Transfer-Encoding: chunked\r\n",
                b"3\r\n{}{}{}\r\n0\r\n\r\n",
            ),
        ),
        (
            "a chunk that does not end",
            raw("Transfer-Encoding: chunked\r\n", b"2\r\n{}"),
        ),
        (
            "fewer bytes than said",
            raw("Content-Length: 300\r\n", plain),
        ),
        ("10 MiB", create(&[], &large)),
        (
            "10 MiB in chunks",
            create(&["Transfer-Encoding: chunked"], &chunked(&large, 1 << 20)),
        ),
        (
            "waits to be asked",
            raw(&format!("{length}\r\nExpect: 100-continue\r\n"), plain),
        ),
        ("a colon too few", raw("No header\r\n", plain)),
        (
            "a folded line",
            raw(&format!("X-A: b\r\n c\r\n{length}\r\n"), plain),
        ),
        (
            "a space before the colon",
            raw("Content-Length : 30\r\n", plain),
        ),
    ];
    let exec = |body: &[u8]| request("POST", "/containers/c1/exec", &[JSON], body);
    all.extend([
        ("exec", exec(br#"{"Cmd":["true"]}"#)),
        ("exec of nothing", exec(b"")),
        ("exec of an empty object", exec(b"{}")),
        (
            "exec with a key twice",
            exec(br#"{"Cmd":["false"],"cmd":["true"]}"#),
        ),
        ("exec with a wrong type", exec(br#"{"Cmd":"true"}"#)),
        ("exec that is no JSON", exec(b"x")),
    ]);
    let old = b"POST /containers/create HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: 30\r\n\r\n";
    all.push(("an old client", [&old[..], plain].concat()));
    all.push(("an old client with chunks", {
        let head = b"POST /containers/create HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
        [&head[..], &chunked(plain, 40)].concat()
    }));
    let tar = archive("large", &vec![7; LARGE]);
    let put = "/containers/c1/archive?path=/tmp";
    all.push(("10 MiB of files", request("PUT", put, &[], &tar)));
    let in_chunks = chunked(&tar, 32 * 1024);
    let headers = ["Transfer-Encoding: chunked"];
    all.push((
        "10 MiB of files in chunks",
        request("PUT", put, &headers, &in_chunks),
    ));
    all
}

fn tell(socket: &HttpClient, bytes: &[u8]) -> Answer {
    let mut connection = socket.connect();
    connection.send(bytes);
    connection.end();
    connection.answer("POST")
}

/// How many containers there are, and removes all but the first.
fn count(theirs: &HttpClient) -> usize {
    let all = theirs.ask("GET", "/containers/json?all=1", &[], b"");
    let all: Vec<Value> = serde_json::from_slice(&all.body).expect("it is a list");
    for container in &all {
        let id = container["Id"].as_str().expect("each has an id");
        if container["Names"][0] != "/c1" {
            let target = format!("/containers/{id}?force=1");
            assert_eq!(theirs.ask("DELETE", &target, &[], b"").status, 204);
        }
    }
    all.len()
}

#[test]
fn an_odd_body_is_answered_as_by_docker_or_refused_and_never_half_understood() {
    in_docker_lab(|lab| {
        let place = Place::launch(lab);
        let [theirs, ours] = &place.sockets;
        place
            .docker
            .ok(&["run", "-d", "--name", "c1", "box", "sleep", "1000"]);
        let (mut same, mut refused, mut others) = (0, Vec::new(), Vec::new());
        for (what, bytes) in odd_requests() {
            let expected = tell(theirs, &bytes);
            let theirs_made = count(theirs);
            let got = tell(ours, &bytes);
            let ours_made = count(theirs);
            let text = got.text();
            if matches!(got.status, 400 | 413 | 431) && text.contains("weft's proxy does not pass")
            {
                assert_eq!(
                    ours_made, 1,
                    "{what}: refused, and a container was made: {text}"
                );
                refused.push(what);
                continue;
            }
            let got = (got.status, scrubbed(&text), ours_made);
            let expected = (expected.status, scrubbed(&expected.text()), theirs_made);
            if got != expected {
                others.push(format!(
                    "{what}:\n  Docker: {expected:?}\n  proxy:  {got:?}"
                ));
            }
            same += 1;
        }
        assert!(others.is_empty(), "{}", others.join("\n"));
        println!("{same} as Docker; refused: {refused:?}");
        // What is right is never refused.
        for right in [
            "whole",
            "chunks",
            "10 MiB",
            "10 MiB in chunks",
            "unknown keys",
            "exec",
            "10 MiB of files",
        ] {
            assert!(!refused.contains(&right), "{right}");
        }
        // Longer than weft reads, and shorter than Docker would.
        let too_long = create(&[], &labelled(17 << 20));
        let answer = tell(ours, &too_long);
        assert_eq!(answer.status, 413, "{}", answer.text());
        assert_eq!(count(theirs), 1);
        nothing_follows_a_body_in_doubt(&place);
    });
}

/// A request hidden in the body of another is not carried out.
fn nothing_follows_a_body_in_doubt(place: &Place) {
    let [theirs, ours] = &place.sockets;
    let hidden = request(
        "POST",
        "/containers/create?name=hidden",
        &[JSON],
        br#"{"Image":"box","Cmd":["true"]}"#,
    );
    for head in [
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        "Content-Length: 0\r\nContent-Length: 5\r\n",
        "Transfer-Encoding: x\r\n",
    ] {
        let mut bytes =
            format!("POST /containers/prune HTTP/1.1\r\nHost: docker\r\n{head}\r\n0\r\n\r\n")
                .into_bytes();
        bytes.extend_from_slice(&hidden);
        let answer = tell(ours, &bytes);
        assert_eq!(answer.status, 400, "{head}: {}", answer.text());
        assert_eq!(count(theirs), 1, "{head}");
    }
    // What follows a body that is whole is another request.
    let both = [request("GET", "/_ping", &[], b""), hidden].concat();
    assert_eq!(tell(ours, &both).text(), "OK");
}

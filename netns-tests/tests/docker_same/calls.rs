//! The calls of the `docker` client: run, exec -it, attach, logs -f, cp, build, events, save, load, stats, network,
//! volume, image, system, compose, and what they get when something is wrong.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use weft_netns_tests::{Answer, HttpClient, HttpConnection, chunked, request};

use crate::normal::{normalise, scrubbed, shape};

/// What the client says its bodies are.
pub(crate) const JSON: &str = "Content-Type: application/json";
const TAR: &str = "Content-Type: application/x-tar";
const UPGRADE: [&str; 2] = ["Connection: Upgrade", "Upgrade: tcp"];
/// The version that the client has agreed on with Docker 20.10.
const V: &str = "/v1.41";
/// A container that stays until it is told to end.
const STAY: &str = "trap 'exit 0' TERM; echo here | tee /made; sleep 1000 & wait";

/// A row of calls at one socket, and what was answered.
#[derive(Debug)]
pub(crate) struct Session {
    socket: HttpClient,
    pairs: BTreeSet<String>,
    said: Vec<String>,
}

/// What of an answer is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compare {
    /// All but ids and times.
    All,
    /// Members and their kinds.
    Shape,
    /// The names in an archive.
    Names,
}

/// An archive with one file.
pub(crate) fn archive(name: &str, content: &[u8]) -> Vec<u8> {
    let mut head = [0_u8; 512];
    let mut put =
        |at: usize, text: &str| head[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000644\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{:011o}\0", content.len()));
    put(136, "14000000000\0");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
    head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let padding = vec![0; content.len().next_multiple_of(512) - content.len() + 1024];
    [&head[..], content, &padding].concat()
}

/// The names in an archive, sorted; those of the wait program's folder left out.
fn names_in(archive: &[u8]) -> String {
    let mut names = Vec::new();
    let mut at = 0;
    while let Some(head) = archive.get(at..at + 512) {
        let text = |from: usize, len: usize| {
            let field = head[from..from + len].split(|byte| *byte == 0).next();
            String::from_utf8_lossy(field.unwrap_or_default()).into_owned()
        };
        let name = text(0, 100);
        if name.is_empty() {
            break;
        }
        let size = usize::from_str_radix(text(124, 12).trim(), 8).expect("it is a size");
        if name != "w/" {
            names.push(scrubbed(&name));
        }
        at += 512 + size.next_multiple_of(512);
    }
    names.sort();
    names.join(" ")
}

/// Standard output and error out of Docker's frames: which, three zeros, four bytes of length, content.
fn told_apart(mut frames: &[u8]) -> [Vec<u8>; 2] {
    let mut both = [Vec::new(), Vec::new()];
    while let Some((head, rest)) = frames.split_at_checked(8) {
        let len = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let (content, rest) = rest.split_at(len);
        both[usize::from(head[0] == 2)].extend_from_slice(content);
        frames = rest;
    }
    assert!(frames.is_empty(), "a frame that is cut");
    both
}

/// An exec that is attached.
fn exec_of(command: &[&str], tty: bool) -> Value {
    json!({
        "AttachStdin": true, "AttachStdout": true, "AttachStderr": true, "Tty": tty, "Cmd": command,
    })
}

/// What Docker 20.10 sends in several JSON values, one after the other.
fn values(text: &str) -> Option<Vec<Value>> {
    let values = serde_json::Deserializer::from_str(text).into_iter();
    values.collect::<Result<_, _>>().ok()
}

impl Session {
    pub(crate) fn new(socket: HttpClient) -> Self {
        Self {
            socket,
            pairs: BTreeSet::new(),
            said: Vec::new(),
        }
    }

    pub(crate) fn pairs(&self) -> &BTreeSet<String> {
        &self.pairs
    }

    pub(crate) fn said(&self) -> &[String] {
        &self.said
    }

    /// `endpoint` is a pattern with `{}` for what `name` fills in; the query is no part of it.
    fn call(&mut self, method: &str, endpoint: &str, name: &str, body: Option<&Value>) -> Answer {
        let bytes = body.map(|body| body.to_string().into_bytes());
        let headers: &[&str] = if body.is_some() { &[JSON] } else { &[] };
        self.send(
            method,
            endpoint,
            name,
            headers,
            &bytes.unwrap_or_default(),
            Compare::All,
        )
    }

    fn get(&mut self, endpoint: &str, name: &str) -> Answer {
        self.call("GET", endpoint, name, None)
    }

    fn post(&mut self, endpoint: &str, name: &str) -> Answer {
        self.call("POST", endpoint, name, None)
    }

    fn send(
        &mut self,
        method: &str,
        endpoint: &str,
        name: &str,
        headers: &[&str],
        body: &[u8],
        compare: Compare,
    ) -> Answer {
        let target = self.target(method, endpoint, name);
        let answer = self.socket.ask(method, &target, headers, body);
        self.note(method, &target, &answer, compare);
        answer
    }

    fn target(&mut self, method: &str, endpoint: &str, name: &str) -> String {
        let path = endpoint.split('?').next().unwrap_or(endpoint);
        self.pairs.insert(format!("{method} {path}"));
        format!("{V}{}", endpoint.replace("{}", name))
    }

    fn note(&mut self, method: &str, target: &str, answer: &Answer, compare: Compare) {
        let mut headers: Vec<String> = answer
            .headers
            .iter()
            .filter(|(name, _)| !matches!(name.as_str(), "date" | "content-length"))
            .map(|(name, value)| format!("{name}: {value}"))
            .collect();
        headers.sort();
        // A number beside what is measured may have one digit more.
        let has_length = answer.header("content-length").is_some();
        let text = answer.text();
        let body = match (compare, values(&text)) {
            (Compare::Names, _) => names_in(&answer.body),
            (Compare::All, Some(mut values)) if !text.is_empty() => {
                values.iter_mut().for_each(normalise);
                values.iter().map(|value| format!("{value}\n")).collect()
            }
            (Compare::Shape, Some(mut values)) => {
                values.iter_mut().for_each(shape);
                values.iter().map(|value| format!("{value}\n")).collect()
            }
            (Compare::All | Compare::Shape, _) => scrubbed(&text),
        };
        let target = scrubbed(target);
        self.said.push(format!(
            "{method} {target} ─► {} {headers:?} length: {has_length} cut: {} {body}",
            answer.line, answer.is_cut
        ));
    }

    /// Notes what a raw connection said.
    fn note_raw(&mut self, what: &str, head: Option<&Answer>, said: &[u8]) {
        let line = head.map(|head| (head.line.clone(), head.headers.clone()));
        let text = String::from_utf8_lossy(said);
        self.said
            .push(format!("{what} ─► {line:?} {:?}", scrubbed(&text)));
    }

    /// Opens a connection that becomes a stream, and reads the head of the answer.
    fn raw(
        &mut self,
        method: &str,
        endpoint: &str,
        name: &str,
        headers: &[&str],
        body: &[u8],
    ) -> (HttpConnection, Option<Answer>) {
        let target = self.target(method, endpoint, name);
        let mut connection = self.socket.connect();
        connection.send(&request(method, &target, headers, body));
        let head = connection.head();
        (connection, head)
    }

    fn create(&mut self, name: &str, config: &Value) -> Answer {
        self.call("POST", "/containers/create?name={}", name, Some(config))
    }

    fn id(answer: &Answer) -> String {
        let value: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        value["Id"].as_str().unwrap_or_default().to_owned()
    }

    /// Every call, on a Docker that has nothing but the image.
    pub(crate) fn all(&mut self) {
        self.system();
        self.images();
        self.run();
        self.life();
        self.copies();
        self.streams();
        self.execs();
        self.networks();
        self.volumes();
        self.builds();
        self.others();
        self.mistakes();
        self.end();
    }

    fn system(&mut self) {
        for method in ["GET", "HEAD"] {
            self.call(method, "/_ping", "", None);
        }
        self.get("/version", "");
        self.get("/info", "");
        let registry = json!({ "username": "a", "password": "b", "serveraddress": "127.0.0.1:1" });
        self.call("POST", "/auth", "", Some(&registry));
    }

    fn images(&mut self) {
        self.get("/images/json?all=1", "");
        self.get("/images/{}/json", "box");
        self.get("/images/{}/history", "box");
        self.get("/images/{}/json", "no-such");
        self.post("/images/{}/tag?repo=box2&tag=v1", "box");
        let saved = self.send("GET", "/images/{}/get", "box2:v1", &[], b"", Compare::Names);
        self.send(
            "GET",
            "/images/get?names=box&names=box2:v1",
            "",
            &[],
            b"",
            Compare::Names,
        );
        self.call("DELETE", "/images/{}", "box2:v1", None);
        self.send(
            "POST",
            "/images/load?quiet=1",
            "",
            &[TAR],
            &saved.body,
            Compare::All,
        );
        let in_chunks = chunked(&saved.body, 32 * 1024);
        let headers = [TAR, "Transfer-Encoding: chunked"];
        self.send(
            "POST",
            "/images/load?quiet=0",
            "",
            &headers,
            &in_chunks,
            Compare::All,
        );
        let file = archive("only", b"file");
        self.send(
            "POST",
            "/images/create?fromSrc=-&repo=made&message=m",
            "",
            &[TAR],
            &file,
            Compare::All,
        );
        for name in ["box2:v1", "made", "made"] {
            self.call("DELETE", "/images/{}", name, None);
        }
        self.post("/images/create?fromImage=127.0.0.1:1/no&tag=such", "");
        self.send(
            "POST",
            "/images/{}/push?tag=v1",
            "127.0.0.1:1/no",
            &["X-Registry-Auth: e30="],
            b"",
            Compare::All,
        );
        self.get("/distribution/{}/json", "127.0.0.1:1/no");
        self.get("/images/search?term=127.0.0.1:1/x", "");
    }

    /// `docker run -i`: create, attach, wait, start, and the streams until the end.
    fn run(&mut self) {
        let script = "read word; echo got $word; read word; echo wrong >&2; exit 3";
        self.create(
            "r1",
            &json!({
                "Image": "box", "Cmd": ["sh", "-c", script], "OpenStdin": true, "StdinOnce": true,
                "AttachStdin": true, "AttachStdout": true, "AttachStderr": true,
                "HostConfig": { "NetworkMode": "default", "ExtraHosts": ["other:192.0.2.9"] },
                "NetworkingConfig": { "EndpointsConfig": {} },
            }),
        );
        let attach = "/containers/{}/attach?stream=1&stdin=1&stdout=1&stderr=1";
        let (mut stream, head) = self.raw("POST", attach, "r1", &UPGRADE, b"");
        let wait = self.target("POST", "/containers/{}/wait?condition=next-exit", "r1");
        let mut waiting = self.socket.connect();
        waiting.send(&request("POST", &wait, &[], b""));
        self.post("/containers/{}/start", "r1");
        stream.send(b"hello\n");
        // Docker itself mixes the two streams as it pleases: the second is written when the first was read.
        let got = stream.exactly("12345678got hello\n".len());
        let mut said = got.expect("the program answers");
        stream.send(b"more\n");
        stream.end();
        said.extend(stream.rest());
        self.note_raw("run", head.as_ref(), &said);
        let ended = waiting.answer("POST");
        self.note("POST", &wait, &ended, Compare::All);
        self.get("/containers/{}/json", "r1");
        self.get("/containers/{}/logs?stdout=1&stderr=1", "r1");
        self.call("DELETE", "/containers/{}?v=1", "r1", None);
    }

    fn stays(&mut self, name: &str) {
        self.create(
            name,
            &json!({
                "Image": "box", "Cmd": ["sh", "-c", STAY], "Hostname": name, "Labels": { "a": "b" },
                "Env": ["A=b c"], "HostConfig": { "Memory": 67_108_864 },
            }),
        );
        self.post("/containers/{}/start", name);
    }

    fn life(&mut self) {
        self.stays("c1");
        self.post("/containers/{}/start", "c1");
        self.get("/containers/json?all=1&size=1", "");
        self.get(
            "/containers/json?filters=%7B%22name%22%3A%5B%22c1%22%5D%7D",
            "",
        );
        self.get("/containers/{}/json?size=1", "c1");
        self.get("/containers/{}/top?ps_args=-o%20comm", "c1");
        self.send(
            "GET",
            "/containers/{}/stats?stream=0&one-shot=1",
            "c1",
            &[],
            b"",
            Compare::Shape,
        );
        self.post("/containers/{}/pause", "c1");
        self.post("/containers/{}/pause", "c1");
        self.post("/containers/{}/unpause", "c1");
        self.call(
            "POST",
            "/containers/{}/update",
            "c1",
            Some(&json!({ "CpuShares": 512 })),
        );
        self.post("/containers/{}/resize?h=40&w=80", "c1");
        self.post("/containers/{}/rename?name=c9", "c1");
        self.get("/containers/{}/json", "c1");
        self.post("/containers/{}/rename?name=c1", "c9");
        self.post("/containers/{}/restart?t=5", "c1");
        self.post("/containers/{}/kill?signal=USR1", "c1");
        self.post("/containers/{}/stop?t=5", "c1");
        self.post("/containers/{}/stop?t=5", "c1");
        self.post("/containers/{}/kill", "c1");
        self.post("/containers/{}/wait", "c1");
        self.get("/containers/{}/changes", "c1");
        self.post("/commit?container={}&repo=done&comment=x&author=me", "c1");
        self.get("/images/{}/json", "done");
        self.get("/images/{}/history", "done");
        self.call("DELETE", "/images/{}", "done", None);
    }

    fn copies(&mut self) {
        let head = self.send(
            "HEAD",
            "/containers/{}/archive?path=/bin/busybox",
            "c1",
            &[],
            b"",
            Compare::All,
        );
        assert!(head.header("x-docker-container-path-stat").is_some());
        let put = "/containers/{}/archive?path=/tmp&noOverwriteDirNonDir=true";
        self.send(
            "PUT",
            put,
            "c1",
            &[TAR],
            &archive("small", b"text"),
            Compare::All,
        );
        let large = chunked(&archive("large", &vec![1; 3 << 20]), 32 * 1024);
        self.send(
            "PUT",
            put,
            "c1",
            &[TAR, "Transfer-Encoding: chunked"],
            &large,
            Compare::All,
        );
        self.send("PUT", put, "c1", &[TAR], b"no archive", Compare::All);
        let got = self.get("/containers/{}/archive?path=/tmp/large", "c1");
        assert!(got.body.len() > 3 << 20 && !got.is_cut);
        self.get("/containers/{}/archive?path=/no/such", "c1");
        self.call("HEAD", "/containers/{}/archive?path=/no/such", "c1", None);
        self.send(
            "GET",
            "/containers/{}/export",
            "c1",
            &[],
            b"",
            Compare::Names,
        );
    }

    fn streams(&mut self) {
        self.post("/containers/{}/start", "c1");
        let slow = "for i in 1 2 3; do echo $i; sleep 0.2; done";
        self.create(
            "l1",
            &json!({ "Image": "box", "Cmd": ["sh", "-c", slow], "Tty": true }),
        );
        self.post("/containers/{}/start", "l1");
        self.get("/containers/{}/logs?follow=1&stdout=1&stderr=1", "l1");
        self.get("/containers/{}/logs?stdout=1&tail=1", "l1");
        self.get("/containers/{}/logs", "l1");
        // An attachment as clients of old make it: the stream begins after a 200.
        let (mut stream, head) = self.raw(
            "POST",
            "/containers/{}/attach?logs=1&stream=0&stdout=1",
            "l1",
            &[],
            b"",
        );
        let said = stream.rest();
        self.note_raw("attach", head.as_ref(), &said);
        self.events();
        self.web_socket();
        let (mut stream, head) = self.raw("GET", "/containers/{}/stats?stream=1", "c1", &[], b"");
        for _ in 0..2 {
            let chunk = stream.chunk().expect("figures go on");
            let mut value: Value = serde_json::from_slice(&chunk).expect("they are JSON");
            shape(&mut value);
            // The first has nothing to compare with.
            let members = value
                .as_object()
                .map(|members| members.keys().cloned().collect::<Vec<_>>());
            self.note_raw(
                "stats",
                head.as_ref().filter(|head| head.status != 200),
                format!("{members:?}").as_bytes(),
            );
        }
    }

    /// Events while they happen, and a look back at them.
    fn events(&mut self) {
        let filter = "%7B%22container%22%3A%5B%22e1%22%5D%7D";
        let events = format!("/events?filters={filter}");
        let (mut stream, head) = self.raw("GET", &events, "", &[], b"");
        assert_eq!(head.map(|head| head.status), Some(200));
        let since = self.time();
        self.create("e1", &json!({ "Image": "box", "Cmd": ["false"] }));
        self.post("/containers/{}/start", "e1");
        self.post("/containers/{}/wait", "e1");
        self.call("DELETE", "/containers/{}", "e1", None);
        let mut lines = String::new();
        while !lines.contains("\"destroy\"") {
            let chunk = stream.chunk().expect("events go on");
            lines.push_str(&String::from_utf8_lossy(&chunk));
        }
        let actions = |text: &str| {
            let events = values(text).expect("events are JSON").into_iter();
            let actions: Vec<Value> = events.map(|event| event["Action"].clone()).collect();
            json!(actions).to_string()
        };
        self.said.push(format!("events: {}", actions(&lines)));
        let target = format!(
            "{V}/events?filters={filter}&since={since}&until={}",
            self.time()
        );
        let past = self.socket.ask("GET", &target, &[], b"");
        self.said
            .push(format!("events before: {}", actions(&past.text())));
    }

    /// Docker's own time, so that nothing else has to agree with it; a second later, since it is cut off.
    fn time(&self) -> String {
        let info = self.socket.ask("GET", "/info", &[], b"");
        let info: Value = serde_json::from_slice(&info.body).expect("it is JSON");
        info["SystemTime"]
            .as_str()
            .expect("it has a time")
            .to_owned()
    }

    fn web_socket(&mut self) {
        let script = "read word; echo got $word";
        self.create(
            "w1",
            &json!({ "Image": "box", "Cmd": ["sh", "-c", script], "OpenStdin": true, "Tty": true }),
        );
        self.post("/containers/{}/start", "w1");
        let headers = [
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Origin: http://docker",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        ];
        let attach = "/containers/{}/attach/ws?stream=1&stdin=1&stdout=1";
        let (mut stream, head) = self.raw("GET", attach, "w1", &headers, b"");
        // A text frame, masked with zeros.
        stream.send(b"\x81\x83\0\0\0\0hi\n");
        let mut said = Vec::new();
        while !String::from_utf8_lossy(&said).contains("got hi") {
            said.extend(stream.exactly(1).expect("the answer comes"));
        }
        let said: Vec<u8> = said.into_iter().filter(u8::is_ascii_alphanumeric).collect();
        self.note_raw("ws", head.as_ref(), &said);
    }

    fn execs(&mut self) {
        let made = self.call(
            "POST",
            "/containers/{}/exec",
            "c1",
            Some(&exec_of(&["sh"], true)),
        );
        let id = Self::id(&made);
        let start = json!({ "Detach": false, "Tty": true }).to_string();
        let (mut stream, head) = self.raw(
            "POST",
            "/exec/{}/start",
            &id,
            &[UPGRADE[0], UPGRADE[1], JSON],
            start.as_bytes(),
        );
        self.post("/exec/{}/resize?h=30&w=100", &id);
        stream.send(b"stty -echo; PS1=; tty; stty size\n");
        stream.send(b"exit 5\n");
        let said = String::from_utf8_lossy(&stream.rest()).into_owned();
        // The shell's prompt comes before or after the echo.
        let size = said.lines().any(|line| line.trim() == "30 100");
        self.note_raw(
            "exec -it",
            head.as_ref(),
            format!("{size} {}", said.contains("/dev/pts/")).as_bytes(),
        );
        self.get("/exec/{}/json", &id);
        self.plain_execs();
    }

    fn plain_execs(&mut self) {
        // Without an upgrade, both streams told apart.
        let made = self.call(
            "POST",
            "/containers/{}/exec",
            "c1",
            Some(&exec_of(&["sh", "-c", "cat; echo e >&2"], false)),
        );
        let id = Self::id(&made);
        let start = json!({ "Detach": false, "Tty": false }).to_string();
        let (mut stream, head) = self.raw("POST", "/exec/{}/start", &id, &[JSON], start.as_bytes());
        stream.send(&vec![b'x'; 100_000]);
        stream.end();
        // How they interleave is chance.
        let [out, err] = told_apart(&stream.rest());
        let x = out.iter().all(|byte| *byte == b'x');
        self.note_raw(
            "exec",
            head.as_ref(),
            format!("{x} {} {}", out.len(), String::from_utf8_lossy(&err)).as_bytes(),
        );
        let made = self.call(
            "POST",
            "/containers/{}/exec",
            "c1",
            Some(&json!({ "Cmd": ["true"], "Env": ["A=b"] })),
        );
        let id = Self::id(&made);
        self.call(
            "POST",
            "/exec/{}/start",
            &id,
            Some(&json!({ "Detach": true })),
        );
        self.call(
            "POST",
            "/containers/{}/exec",
            "c1",
            Some(&json!({ "Cmd": [] })),
        );
        self.call(
            "POST",
            "/containers/{}/exec",
            "l1",
            Some(&json!({ "Cmd": ["true"] })),
        );
        self.get("/exec/{}/json", "no-such");
        self.call("POST", "/exec/{}/start", "no-such", Some(&json!({})));
    }

    fn networks(&mut self) {
        self.get("/networks", "");
        let made = json!({ "Name": "n1", "Driver": "bridge", "CheckDuplicate": true, "Labels": { "com.docker.compose.project": "p" } });
        self.call("POST", "/networks/create", "", Some(&made));
        self.call("POST", "/networks/create", "", Some(&made));
        self.get("/networks/{}", "n1");
        let container = json!({ "Container": "c1", "EndpointConfig": { "Aliases": ["alias"] } });
        self.call("POST", "/networks/{}/connect", "n1", Some(&container));
        self.get("/networks/{}?verbose=true", "n1");
        self.get("/containers/{}/json", "c1");
        self.call("DELETE", "/networks/{}", "n1", None);
        self.call("POST", "/networks/{}/disconnect", "n1", Some(&container));
        self.call("POST", "/networks/{}/disconnect", "n1", Some(&container));
        self.call("DELETE", "/networks/{}", "n1", None);
        self.get("/networks/{}", "n1");
        self.post("/networks/prune", "");
        // A container as compose makes it: of a network of its own, which weft leaves alone.
        let own = json!({ "Name": "p_default", "Driver": "bridge", "IPAM": { "Config": [{ "Subnet": "10.99.0.0/24" }] } });
        self.call("POST", "/networks/create", "", Some(&own));
        self.create("p_web_1", &json!({
            "Image": "box", "Cmd": ["sh", "-c", STAY], "Labels": { "com.docker.compose.service": "web" },
            "HostConfig": { "NetworkMode": "p_default", "Binds": ["v2:/data:rw"], "RestartPolicy": { "Name": "always" } },
            "NetworkingConfig": { "EndpointsConfig": { "p_default": { "Aliases": ["web"], "IPAMConfig": {} } } },
        }));
        self.post("/containers/{}/start", "p_web_1");
        self.get("/containers/json?all=1&filters=%7B%22label%22%3A%5B%22com.docker.compose.service%3Dweb%22%5D%7D", "");
        self.get("/containers/{}/json", "p_web_1");
        self.call("DELETE", "/containers/{}?force=1", "p_web_1", None);
        self.call("DELETE", "/networks/{}", "p_default", None);
    }

    fn volumes(&mut self) {
        self.get("/volumes", "");
        self.call(
            "POST",
            "/volumes/create",
            "",
            Some(&json!({ "Name": "v1", "Labels": { "a": "b" } })),
        );
        self.get("/volumes/{}", "v1");
        self.call("DELETE", "/volumes/{}", "v1", None);
        self.call("DELETE", "/volumes/{}", "v1", None);
        self.get("/volumes/{}", "v1");
        self.post("/volumes/prune", "");
    }

    fn builds(&mut self) {
        let file = "FROM box\nENV A=b\nRUN echo hi > /made && cat /made\nCMD [\"true\"]\n";
        let build = "/build?t=built&nocache=1&rm=1&forcerm=1&networkmode=none";
        self.send(
            "POST",
            build,
            "",
            &[TAR],
            &archive("Dockerfile", file.as_bytes()),
            Compare::All,
        );
        let wrong = archive("Dockerfile", b"FROM box\nRUN exit 7\n");
        let headers = [TAR, "Transfer-Encoding: chunked", "X-Registry-Config: e30="];
        self.send(
            "POST",
            build,
            "",
            &headers,
            &chunked(&wrong, 100),
            Compare::All,
        );
        self.send(
            "POST",
            build,
            "",
            &[TAR],
            &archive("Other", b""),
            Compare::All,
        );
        self.get("/images/{}/json", "built");
        self.call("DELETE", "/images/{}", "built", None);
        self.post("/build/prune?all=1", "");
        self.post("/build/cancel?id=no-such", "");
        // BuildKit: the client serves Docker on a connection of its own, and asks it on another.
        let session = [
            "Connection: Upgrade",
            "Upgrade: h2c",
            "X-Docker-Expose-Session-Uuid: u1",
            "X-Docker-Expose-Session-Name: n1",
            "X-Docker-Expose-Session-Sharedkey: k1",
        ];
        let (mut stream, head) = self.raw("POST", "/session", "", &session, b"");
        let preface = stream.exactly(24);
        self.note_raw("session", head.as_ref(), format!("{preface:?}").as_bytes());
        let (mut stream, head) = self.raw("POST", "/grpc", "", &session[..2], b"");
        stream.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
        let settings = stream.exactly(9);
        self.note_raw("grpc", head.as_ref(), format!("{settings:?}").as_bytes());
    }

    fn others(&mut self) {
        self.get("/plugins", "");
        self.get("/plugins/{}/json", "no-such");
        self.post("/plugins/{}/enable?timeout=0", "no-such");
        self.call("DELETE", "/plugins/{}", "no-such", None);
        for endpoint in [
            "/swarm",
            "/nodes",
            "/services",
            "/tasks",
            "/secrets",
            "/configs",
        ] {
            self.get(endpoint, "");
        }
        self.post("/swarm/leave", "");
        self.call(
            "POST",
            "/services/create",
            "",
            Some(&json!({ "Name": "s" })),
        );
        self.get("/system/df", "");
    }

    fn mistakes(&mut self) {
        self.get("/no-such-page", "");
        self.call("PATCH", "/containers/json", "", None);
        for endpoint in [
            "/containers/{}/json",
            "/containers/{}/top",
            "/containers/{}/changes",
            "/containers/{}/export",
            "/containers/{}/logs?stdout=1",
            "/containers/{}/stats?stream=0",
        ] {
            self.get(endpoint, "no-such");
        }
        for end in [
            "start",
            "stop",
            "restart",
            "kill",
            "pause",
            "unpause",
            "wait",
            "resize?h=1&w=1",
            "attach?stream=1",
            "rename?name=x",
        ] {
            self.post(&format!("/containers/{{}}/{end}"), "no-such");
        }
        self.call("POST", "/containers/{}/update", "no-such", Some(&json!({})));
        self.call(
            "POST",
            "/containers/{}/exec",
            "no-such",
            Some(&json!({ "Cmd": ["true"] })),
        );
        self.call("DELETE", "/containers/{}", "no-such", None);
        self.call("DELETE", "/containers/{}", "c1", None);
        let of = |image: &str, more: Value| {
            let mut config = json!({ "Image": image, "Cmd": ["true"] });
            config
                .as_object_mut()
                .expect("it is one")
                .extend(more.as_object().cloned().unwrap_or_default());
            config
        };
        self.create("x1", &of("no-such", json!({})));
        self.create("c1", &of("box", json!({})));
        self.create("x1", &of("box", json!({ "HostConfig": { "Memory": 1 } })));
        self.create(
            "x1",
            &of("box", json!({ "HostConfig": { "NetworkMode": "no-such" } })),
        );
        self.post("/containers/{}/start", "x1");
        self.create("bad%20name", &of("box", json!({})));
        self.create(
            "x2",
            &of(
                "box",
                json!({ "HostConfig": { "RestartPolicy": { "Name": "no-such" } } }),
            ),
        );
        for target in [
            "/v1.99/info",
            "/v1.0/info",
            "/v1.41//info",
            "/v1.41/containers/../info",
            "/containers/c1/json/",
            "http://docker/_ping",
        ] {
            let answer = self.socket.ask("GET", target, &[], b"");
            self.note("GET", target, &answer, Compare::All);
        }
    }

    fn end(&mut self) {
        for name in ["c1", "l1", "w1", "x1"] {
            self.call("DELETE", "/containers/{}?force=1&v=1", name, None);
        }
        self.post("/containers/prune", "");
        self.post("/images/prune", "");
        self.get("/containers/json?all=1", "");
        self.post("/volumes/prune", "");
    }
}

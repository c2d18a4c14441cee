//! Runs the asking verbs against a daemon made of canned answers: what goes over the socket, what is printed.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixListener;
use std::process::{Command, Output};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use serde_json::{Value, json};
use tempfile::TempDir;

/// A socket in a run directory of its own; answers one request.
struct FakeDaemon {
    dir: TempDir,
    seen: Receiver<(String, String)>,
}

impl FakeDaemon {
    /// Answers all requests with a status line's code and a body.
    fn answering(code: u16, body: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let listener =
            UnixListener::bind(dir.path().join("weft.sock")).expect("the directory is new");
        let (sender, seen) = channel();
        let body = body.to_owned();
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let mut reader = BufReader::new(&stream);
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    if reader.read_line(&mut head).expect("the client speaks HTTP") == 0 {
                        return;
                    }
                }
                let length = head
                    .lines()
                    .find_map(|line| {
                        line.to_ascii_lowercase()
                            .strip_prefix("content-length: ")
                            .map(str::to_owned)
                    })
                    .map_or(0, |length| {
                        length.trim().parse().expect("a length is a number")
                    });
                let mut asked = vec![0; length];
                reader
                    .read_exact(&mut asked)
                    .expect("the body is as long as it says");
                let line = head
                    .lines()
                    .next()
                    .unwrap_or_default()
                    .trim_end_matches(" HTTP/1.1")
                    .to_owned();
                let asked = String::from_utf8(asked).expect("the body is text");
                // Before the answer, so that it is there when the client is done.
                let _nobody_looks = sender.send((line, asked));
                let answer = format!(
                    "HTTP/1.1 {code} X\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
                let _gone = { &stream }.write_all(answer.as_bytes());
            }
        });
        Self { dir, seen }
    }

    fn weft(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_weft"))
            .env_clear()
            .env("WEFT_CONFIG", "/dev/null")
            .arg("--run-dir")
            .arg(self.dir.path())
            .args(args)
            .output()
            .expect("the binary was built with this test")
    }

    /// Returns the request line and the body, which is JSON or empty.
    fn request(&self) -> (String, Value) {
        let (line, body) = self.seen.recv().expect("a request came");
        (line, serde_json::from_str(&body).unwrap_or(Value::Null))
    }
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).expect("stdout is text")
}

fn status() -> Value {
    json!({
        "version": "0.1.0", "name": "da:fa:eb:dc:28:27", "nickname": "host1",
        "peer_id": "00112233445566778899aabbccddeeff", "network": "weft", "port": 6783,
        "membership": "token", "discovery": true, "mtu": 1376, "uptime_s": 5,
        "targets": [{ "address": "192.0.2.7", "state": "connected" }],
        "connections": [{
            "outbound": true, "address": "192.0.2.7:6783", "state": "established",
            "name": "da:fa:eb:dc:28:28", "nickname": "host2", "peer_id": "ff",
            "cipher": "aes-256-gcm",
            "path": { "address": "192.0.2.7:6783", "kind": "direct", "rtt_ms": 0.3, "mtu": 1424, "loss": 0.0 },
        }],
        "engine": {
            "backend": "io_uring", "workers": 2, "offloads": ["vnet_hdr"], "notes": [], "ciphers": [],
            "counters": {},
        },
        // A newer daemon may say more.
        "something_new": 1,
    })
}

#[test]
fn attach_sends_the_words_in_order_and_prints_one_line() {
    let daemon = FakeDaemon::answering(200, r#"{"addresses":["10.2.1.3","10.2.2.1"]}"#);

    let output = daemon.weft(&[
        "attach",
        "--no-multicast-route",
        "10.2.1.3/24",
        "ip:10.2.2.1/24",
        "netns:blue",
    ]);

    assert_eq!(stdout(&output), "10.2.1.3 10.2.2.1\n");
    let (line, body) = daemon.request();
    assert_eq!(line, "POST /attach");
    let expected = json!({
        "container": "netns:blue", "addresses": ["10.2.1.3/24", "ip:10.2.2.1/24"], "multicast_route": false,
        "names": [], "without_dns": false,
    });
    assert_eq!(body, expected);
}

#[test]
fn attach_sends_what_goes_into_the_containers_files() {
    let added = ["--add-host", "a:192.0.2.1", "--add-host", "b:fd00::1"];
    for (flags, wanted) in [
        (
            &["--dns-search", "sub.weave.local"][..],
            json!({ "dns_search": ["sub.weave.local"] }),
        ),
        (&added, json!({ "add_hosts": ["a:192.0.2.1", "b:fd00::1"] })),
        (&["--rewrite-hosts"], json!({ "rewrite_hosts": true })),
        (&["--no-rewrite-hosts"], json!({ "rewrite_hosts": false })),
    ] {
        let daemon = FakeDaemon::answering(
            200,
            r#"{"addresses":["10.2.1.3"],"warnings":["/etc/netns/blue/hosts is not ours and stays as it is"]}"#,
        );
        let output = daemon.weft(&[&["attach"], flags, &["10.2.1.3/24", "netns:blue"]].concat());
        assert_eq!(stdout(&output), "10.2.1.3\n");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            said,
            "note: /etc/netns/blue/hosts is not ours and stays as it is\n"
        );
        let (_, body) = daemon.request();
        for (key, value) in wanted.as_object().unwrap() {
            assert_eq!(&body[key], value, "{body}");
        }
    }
}

#[test]
fn a_refusal_is_the_daemons_line_on_stderr_and_exit_code_1() {
    let daemon = FakeDaemon::answering(
        400,
        r#"{"error":"no container `web`: accepted are names and ids"}"#,
    );

    let output = daemon.weft(&["attach", "10.2.1.3/24", "web"]);

    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "weft: no container `web`: accepted are names and ids\n"
    );
    assert!(output.stdout.is_empty());
}

#[test]
fn an_answer_that_is_no_json_is_named() {
    let daemon = FakeDaemon::answering(200, "<html>");

    let output = daemon.weft(&["status"]);

    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("answer to /status"));
}

#[test]
fn connect_and_forget_send_the_peers_as_typed() {
    let daemon = FakeDaemon::answering(200, "{}");
    assert_eq!(
        stdout(&daemon.weft(&["connect", "--replace", "host2", "[2001:db8::7]:6783"])),
        ""
    );
    let expected = json!({ "peers": ["host2", "[2001:db8::7]:6783"], "replace": true });
    assert_eq!(daemon.request(), ("POST /connect".to_owned(), expected));

    let daemon = FakeDaemon::answering(200, "{}");
    assert_eq!(stdout(&daemon.weft(&["forget", "host2"])), "");
    assert_eq!(
        daemon.request(),
        ("POST /forget".to_owned(), json!({ "peers": ["host2"] }))
    );
}

#[test]
fn status_is_text_for_people_and_json_for_programs() {
    let text = stdout(&FakeDaemon::answering(200, &status().to_string()).weft(&["status"]));
    assert!(
        text.starts_with("\n        Version: 0.1.0\n\n        Service: router\n"),
        "{text}"
    );

    let links =
        stdout(&FakeDaemon::answering(200, &status().to_string()).weft(&["status", "connections"]));
    assert_eq!(
        links,
        "-> 192.0.2.7:6783        established encrypted aes-256-gcm direct rtt=0.3ms mtu=1424 \
         da:fa:eb:dc:28:28(host2)\n"
    );

    let json = stdout(
        &FakeDaemon::answering(200, &status().to_string())
            .weft(&["status", "targets", "-o", "json"]),
    );
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        json,
        json!([{ "address": "192.0.2.7", "state": "connected", "detail": "" }])
    );
}

#[test]
fn a_daemon_without_the_proxy_is_told_from_none() {
    let without = || FakeDaemon::answering(200, &status().to_string());
    let env = without().weft(&["env"]);
    assert_eq!((env.status.code(), stdout(&env).as_str()), (Some(0), ""));
    let config = without().weft(&["config"]);
    assert_eq!(config.status.code(), Some(1));
    for output in [env, config] {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            said.contains("runs without its Docker proxy") && said.contains("--no-proxy"),
            "{said}"
        );
    }
}

#[test]
fn report_is_json_with_everything() {
    let mut report = status();
    report["attachments"] = json!([]);
    report["control_counters"] = json!({ "links_accepted": 3 });

    let text = stdout(&FakeDaemon::answering(200, &report.to_string()).weft(&["report"]));

    let printed: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(printed["name"], "da:fa:eb:dc:28:27");
    assert_eq!(printed["control_counters"]["links_accepted"], 3);
}

#[test]
fn dns_lookup_prints_ipv6_only_if_there_is_nothing_else_or_all_is_wanted() {
    let found = |answer: &str, flags: &[&str]| {
        let daemon = FakeDaemon::answering(200, &format!(r#"{{"addresses":[{answer}]}}"#));
        stdout(&daemon.weft(&[&["dns-lookup", "c1"], flags].concat()))
    };
    let both = r#""10.32.0.1","10.32.0.2","fd57::1""#;
    assert_eq!(found(both, &[]), "10.32.0.1\n10.32.0.2\n");
    assert_eq!(found(both, &["--all"]), "10.32.0.1\n10.32.0.2\nfd57::1\n");
    assert_eq!(
        serde_json::from_str::<Value>(&found(both, &["-o", "json"])).unwrap(),
        json!({ "addresses": ["10.32.0.1", "10.32.0.2"] })
    );
    assert_eq!(found(r#""fd57::1""#, &[]), "fd57::1\n");
    assert_eq!(found("", &["--all"]), "");
}

#[test]
fn ps_prints_a_line_each_and_skips_what_is_not_asked_for() {
    let listed = r#"[{"id":"weave:expose","mac":"da:fa:eb:dc:28:27","addresses":[]},
                     {"id":"blue","mac":"86:00:00:00:00:01","addresses":["10.2.1.3/24"]}]"#;

    let all = stdout(&FakeDaemon::answering(200, listed).weft(&["ps"]));
    assert_eq!(
        all,
        "weave:expose da:fa:eb:dc:28:27\nblue 86:00:00:00:00:01 10.2.1.3/24\n"
    );
    let some = stdout(&FakeDaemon::answering(200, listed).weft(&["ps", "blue", "unknown"]));
    assert_eq!(some, "blue 86:00:00:00:00:01 10.2.1.3/24\n");
}

#[test]
fn bench_follows_the_stream_to_its_result() {
    let result = json!({
        "throughput_gbps": 9.5, "throughput_loss": 0.0, "packets_per_s": 900_000.0, "packets_loss": 0.01,
        "latency_us": [40.0, 50.0, 60.0, 70.0, 80.0], "latency_count": 1000,
    });
    let steps = [
        json!({ "phase": "throughput", "elapsed_s": 0.5, "phase_s": 1.0 }),
        json!({ "phase": "latency", "elapsed_s": 1.0, "phase_s": 1.0, "done": result }),
    ];
    let stream: String = steps.iter().map(|step| format!("{step}\n")).collect();

    let daemon = FakeDaemon::answering(200, &stream);
    let text = stdout(&daemon.weft(&["bench", "host2", "--seconds", "1"]));
    assert!(
        text.contains("9.50 Gbit/s") && text.contains("900 000 frames/s"),
        "{text}"
    );
    assert_eq!(
        daemon.request(),
        (
            "POST /bench".to_owned(),
            json!({ "peer": "host2", "seconds": 1 })
        )
    );

    let cut_short =
        FakeDaemon::answering(200, &format!("{}\n", steps[0])).weft(&["bench", "host2"]);
    assert_eq!(cut_short.status.code(), Some(1));
    let refused = FakeDaemon::answering(
        200,
        &format!("{}\n{{\"error\":\"host2 has gone\"}}\n", steps[0]),
    );
    assert!(
        String::from_utf8_lossy(&refused.weft(&["bench", "host2"]).stderr)
            .contains("host2 has gone")
    );
}

#[test]
fn stop_without_a_pid_file_does_not_wait() {
    let daemon = FakeDaemon::answering(200, "{}");

    assert_eq!(stdout(&daemon.weft(&["stop"])), "");
    // Where its Docker is, which may have containers that need weft.
    assert_eq!(daemon.request().0, "GET /status");
    assert_eq!(daemon.request().0, "POST /stop");
}

#[test]
fn report_fills_a_template_with_our_names_and_weaves() {
    let mut report = status();
    report["attachments"] = json!([]);
    report["control_counters"] = json!({});
    let asked = |template: &str| {
        FakeDaemon::answering(200, &report.to_string()).weft(&["report", "-f", template])
    };

    let output = asked(
        "{{.Router.NickName}} {{.nickname}} {{len .Router.Peers}} {{range .Router.Targets}}<{{.}}>{{end}} \
         {{json (index .Router.Connections 0).Attrs}}",
    );
    assert_eq!(
        stdout(&output),
        r#"host1 host1 2 <192.0.2.7> {"encrypted":true,"mtu":1424,"name":"direct"}"#
    );

    let wrong = asked("{{.Router.Nme}}");
    assert_eq!(wrong.status.code(), Some(1));
    let said = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(said.contains("no field Nme"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

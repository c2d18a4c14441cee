//! The DNS server under load, beside dnsmasq with the same names and the same client. `.ci/long names` keeps a record.
//!
//! ```text
//!  dnsperf in c1 ─ bridge of a ─┬─ weft 169.254.53.1  ─┬─ eth0 ══ eth0 ─ b: dnsmasq 192.0.2.2, the upstream
//!                               └─ dnsmasq 10.2.1.254 ─┘
//! ```
//!
//! When other names are asked, the upstream is asked by the host, too: what the two add is the difference.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::json;
use weft_netns_tests::{Host, Lab, alone_in_lab, record, within};

/// Names that both know.
const NAMES: usize = 1000;
/// Rounds of each, in turns; the median counts.
const ROUNDS: usize = 3;
/// How other names are asked: one after the other, mostly.
const GENTLY: [&str; 5] = ["-Q", "200", "-n", "1", "-v"];
/// Seconds of each round.
const SECONDS: &str = "5";
/// At this rate the 99th percentile is to stay below [`P99_LIMIT_MS`].
const STEADY_RATE: &str = "5000";
const P99_LIMIT_MS: f64 = 5.0;
const WEFT: &str = "169.254.53.1";
const DNSMASQ: &str = "10.2.1.254";
const UPSTREAM: &str = "192.0.2.2";

/// Ends with its test.
struct Dnsmasq(Child);

impl Dnsmasq {
    fn start(on: &Host, flags: &[String]) -> Self {
        // In a session of its own, as weft is: the kernel shares its time among sessions.
        let mut command = on.command("setsid");
        command.args([
            "dnsmasq",
            "--keep-in-foreground",
            "--no-resolv",
            "--no-hosts",
            "--bind-interfaces",
        ]);
        command.args([
            "--conf-file=/dev/null",
            "--user=root",
            "--pid-file=",
            "--local-ttl=1",
        ]);
        command.args(flags);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Self(child.expect("dnsmasq is installed"))
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What one run of dnsperf saw.
#[derive(Debug, Clone, Copy)]
struct Seen {
    per_second: f64,
    lost_percent: f64,
    /// Milliseconds; of runs that list every answer.
    p50: f64,
    p99: f64,
}

fn dnsperf(from: &Host, server: &str, questions: &Path, flags: &[&str]) -> Seen {
    let questions = questions.to_string_lossy().into_owned();
    let words = [
        "dnsperf", "-s", server, "-d", &questions, "-l", SECONDS, "-t", "2",
    ];
    let said = from.run(&[&words, flags].concat());
    let number = |label: &str| {
        let line = said
            .lines()
            .find(|line| line.trim_start().starts_with(label));
        let line = line.unwrap_or_else(|| panic!("dnsperf says no {label}: {said}"));
        line.split(':').nth(1).unwrap_or_default().trim().to_owned()
    };
    let lost = number("Queries lost");
    let share = lost
        .split('(')
        .nth(1)
        .and_then(|part| part.split('%').next());
    let mut waits: Vec<f64> = said
        .lines()
        .filter(|line| line.starts_with("> "))
        .filter_map(|line| line.split_whitespace().last()?.parse::<f64>().ok())
        .map(|seconds| (seconds * 1e6).round() / 1000.0)
        .collect();
    waits.sort_by(f64::total_cmp);
    let at = |percent: usize| {
        let index = waits.len() * percent / 100;
        waits.get(index).copied().unwrap_or_default()
    };
    Seen {
        per_second: number("Queries per second").parse().expect("a rate"),
        lost_percent: share.and_then(|text| text.parse().ok()).expect("a share"),
        p50: at(50),
        p99: at(99),
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn write(path: PathBuf, lines: impl Iterator<Item = String>) -> PathBuf {
    fs::write(&path, lines.collect::<String>()).expect("the lab's folder is writable");
    path
}

/// Both servers with their names, their upstream, and who asks.
struct Range {
    host: Host,
    client: Host,
    /// Names of ours, and three lists of others: no name twice, so nobody answers from a cache.
    own: PathBuf,
    foreign: [PathBuf; 3],
    _servers: [Dnsmasq; 2],
}

impl Range {
    fn new(lab: &Lab) -> Self {
        let hosts = lab.two_hosts();
        let weft = lab.weft(&hosts[0]);
        let launch = ["launch", "--password", "secret", "--dns-upstream", UPSTREAM];
        weft.ok(&[&launch[..], &["--dns-client-rate", "0"]].concat());
        let client = lab.host("client");
        weft.ok(&["attach", "10.2.1.1/24", &client.as_container()]);
        let address = |n: usize| format!("10.9.{}.{}", n / 250, n % 250 + 1);
        for n in 0..NAMES {
            weft.ok(&["dns-add", &address(n), "-h", &format!("n{n}")]);
        }
        let folder = lab.folder();
        let known = write(
            folder.join("hosts"),
            (0..NAMES).map(|n| format!("{} n{n}.weave.local\n", address(n))),
        );
        hosts[0].add_address("weft", &format!("{DNSMASQ}/24"));
        let beside = [
            format!("--listen-address={DNSMASQ}"),
            format!("--addn-hosts={}", known.display()),
            "--local=/weave.local/".to_owned(),
            format!("--server={UPSTREAM}"),
            "--cache-size=1000".to_owned(),
        ];
        let upstream = [
            format!("--listen-address={UPSTREAM}"),
            "--address=/example.org/192.0.2.99".to_owned(),
        ];
        let servers = [
            Dnsmasq::start(&hosts[0], &beside),
            Dnsmasq::start(&hosts[1], &upstream),
        ];
        for (server, name) in [
            (WEFT, "n0.weave.local"),
            (DNSMASQ, "n0.weave.local"),
            (WEFT, "x.example.org"),
        ] {
            let at = format!("@{server}");
            let words = ["dig", "+short", "+time=1", "+tries=1", &at, name];
            within("the first answer", Duration::from_secs(10), || {
                client.output(&words).stdout.starts_with(b"1")
            });
        }
        let own = write(
            folder.join("own"),
            (0..NAMES).map(|n| format!("n{n}.weave.local A\n")),
        );
        let foreign = ["w", "d", "u"].map(|who| {
            let names = (0..20_000).map(|n| format!("{who}{n}.example.org A\n"));
            write(folder.join(who), names)
        });
        let [host, _] = hosts;
        Self {
            host,
            client,
            own,
            foreign,
            _servers: servers,
        }
    }

    /// Runs both in turns.
    fn compare(&self, questions: [&Path; 2], flags: &[&str]) -> [Vec<Seen>; 2] {
        let mut seen = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            for (at, server) in [WEFT, DNSMASQ].into_iter().enumerate() {
                seen[at].push(dnsperf(&self.client, server, questions[at], flags));
            }
        }
        seen
    }
}

#[test]
#[ignore = "measures for two minutes, alone on the machine"]
fn names_are_answered_as_fast_as_by_dnsmasq() {
    alone_in_lab(|lab| {
        let range = Range::new(lab);
        let own = [&*range.own; 2];
        let [for_weft, for_dnsmasq, for_upstream] = &range.foreign;

        let full = range.compare(own, &["-c", "8", "-q", "200"]);
        let steady = range.compare(own, &["-c", "8", "-Q", STEADY_RATE, "-v"]);
        let asked = range.compare([for_weft, for_dnsmasq], &GENTLY);
        let direct = (0..ROUNDS).map(|_| dnsperf(&range.host, UPSTREAM, for_upstream, &GENTLY));
        let direct = direct.collect::<Vec<_>>();

        let of = |seen: &[Seen], value: fn(&Seen) -> f64| median(seen.iter().map(value).collect());
        let figures = |at: usize| {
            json!({
                "queries_per_s": of(&full[at], |seen| seen.per_second).round(),
                "lost_percent": of(&full[at], |seen| seen.lost_percent),
                "at_5000_per_s_p50_ms": of(&steady[at], |seen| seen.p50),
                "at_5000_per_s_p99_ms": of(&steady[at], |seen| seen.p99),
                "forwarded_p50_ms": of(&asked[at], |seen| seen.p50),
                "forwarded_p99_ms": of(&asked[at], |seen| seen.p99),
            })
        };
        let rates = |at: usize| full[at].iter().map(|seen| seen.per_second.round());
        let figures = json!({
            "names": NAMES,
            "rounds": ROUNDS,
            "seconds_each": SECONDS,
            "upstream_itself_p50_ms": of(&direct, |seen| seen.p50),
            "upstream_itself_p99_ms": of(&direct, |seen| seen.p99),
            "weft": figures(0),
            "dnsmasq": figures(1),
            "weft_queries_per_s_each": rates(0).collect::<Vec<_>>(),
            "dnsmasq_queries_per_s_each": rates(1).collect::<Vec<_>>(),
        });
        record("names", &figures);
        let rates = full.map(|seen| of(&seen, |seen| seen.per_second));
        assert!(rates[0] >= rates[1], "fewer than dnsmasq: {figures:#}");
        let p99 = of(&steady[0], |seen| seen.p99);
        assert!(p99 <= P99_LIMIT_MS, "{figures:#}");
    });
}

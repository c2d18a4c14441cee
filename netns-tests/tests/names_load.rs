//! The DNS server under load, beside dnsmasq with the same names and the same client. Prints a record.
//!
//! ```text
//!  WEFT_BIN=target/release/weft cargo test -p weft-netns-tests --test names_load -- --ignored --nocapture
//! ```
//!
//! Both serve on the bridge of one host and are asked by dnsperf in a container on it; dnsmasq on a second host is the
//! upstream of both when other names are asked.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use weft_netns_tests::{Host, alone_in_lab, within};

/// Names that both know.
const NAMES: usize = 1000;
/// Rounds of each, in turns; the median counts.
const ROUNDS: usize = 3;
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
        let mut command = on.command("dnsmasq");
        command.args([
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
        let text = line.split(':').nth(1).unwrap_or_default().trim().to_owned();
        text
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
        .map(|seconds| seconds * 1000.0)
        .collect();
    waits.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let index = (waits.len() as f64 * share) as usize;
        waits.get(index).copied().unwrap_or_default()
    };
    Seen {
        per_second: number("Queries per second").parse().expect("a rate"),
        lost_percent: share.and_then(|text| text.parse().ok()).expect("a share"),
        p50: at(0.5),
        p99: at(0.99),
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

/// Runs both in turns.
fn compare(client: &Host, questions: [&Path; 2], flags: &[&str]) -> [Vec<Seen>; 2] {
    let mut seen = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (at, server) in [WEFT, DNSMASQ].into_iter().enumerate() {
            seen[at].push(dnsperf(client, server, questions[at], flags));
        }
    }
    seen
}

#[test]
#[ignore = "measures for a minute, alone on the machine"]
fn names_are_answered_as_fast_as_by_dnsmasq() {
    alone_in_lab(|lab| {
        let hosts = [lab.host("a"), lab.host("b")];
        lab.link(
            (&hosts[0], "eth0", "192.0.2.1/24"),
            (&hosts[1], "eth0", "192.0.2.2/24"),
        );
        let weft = lab.weft(&hosts[0]);
        let launch = ["launch", "--password", "secret", "--dns-upstream", UPSTREAM];
        weft.ok(&[&launch[..], &["--dns-client-rate", "0"]].concat());
        let client = lab.host("client");
        weft.ok(&["attach", "10.2.1.1/24", &client.as_container()]);
        for n in 0..NAMES {
            let address = format!("10.9.{}.{}", n / 250, n % 250 + 1);
            weft.ok(&["dns-add", &address, "-h", &format!("n{n}")]);
        }
        let folder = lab.folder();
        let known = write(
            folder.join("hosts"),
            (0..NAMES).map(|n| format!("10.9.{}.{} n{n}.weave.local\n", n / 250, n % 250 + 1)),
        );
        hosts[0].add_address("weft", "10.2.1.254/24");
        let beside = [
            format!("--listen-address={DNSMASQ}"),
            format!("--addn-hosts={}", known.display()),
            "--local=/weave.local/".to_owned(),
            format!("--server={UPSTREAM}"),
            "--cache-size=1000".to_owned(),
        ];
        let _beside = Dnsmasq::start(&hosts[0], &beside);
        let upstream = [
            format!("--listen-address={UPSTREAM}"),
            "--address=/example.org/192.0.2.99".to_owned(),
        ];
        let _upstream = Dnsmasq::start(&hosts[1], &upstream);
        for (server, name) in [
            (WEFT, "n0.weave.local"),
            (DNSMASQ, "n0.weave.local"),
            (WEFT, "x.example.org"),
        ] {
            within("the first answer", Duration::from_secs(10), || {
                let at = format!("@{server}");
                client
                    .output(&["dig", "+short", "+time=1", "+tries=1", &at, name])
                    .stdout
                    .starts_with(b"1")
            });
        }
        let own = write(
            folder.join("own"),
            (0..NAMES).map(|n| format!("n{n}.weave.local A\n")),
        );
        // No name twice, and none that the other server has asked for: nobody answers from its cache.
        let foreign = ["w", "d"].map(|who| {
            write(
                folder.join(who),
                (0..20_000).map(|n| format!("{who}{n}.example.org A\n")),
            )
        });

        let full = compare(&client, [&own, &own], &["-c", "8", "-q", "200"]);
        let steady = compare(&client, [&own, &own], &["-c", "8", "-Q", STEADY_RATE, "-v"]);
        let asked = compare(
            &client,
            [&foreign[0], &foreign[1]],
            &["-Q", "200", "-n", "1", "-v"],
        );

        let mut record = String::from(
            "| server | queries/s | lost % | p50 ms at 5000/s | p99 ms at 5000/s | forwarded p50 ms | forwarded p99 ms |\n|---|---|---|---|---|---|---|\n",
        );
        let of = |seen: &[Seen], value: fn(&Seen) -> f64| median(seen.iter().map(value).collect());
        for (at, name) in ["weft", "dnsmasq"].into_iter().enumerate() {
            let _infallible = writeln!(
                record,
                "| {name} | {:.0} | {:.2} | {:.3} | {:.3} | {:.3} | {:.3} |",
                of(&full[at], |seen| seen.per_second),
                of(&full[at], |seen| seen.lost_percent),
                of(&steady[at], |seen| seen.p50),
                of(&steady[at], |seen| seen.p99),
                of(&asked[at], |seen| seen.p50),
                of(&asked[at], |seen| seen.p99),
            );
        }
        println!("{record}\nfull: {full:?}\nsteady: {steady:?}");
        let rates = full.map(|seen| of(&seen, |seen| seen.per_second));
        assert!(
            rates[0] >= rates[1],
            "fewer queries than dnsmasq: {rates:?}"
        );
        assert!(of(&steady[0], |seen| seen.p99) <= P99_LIMIT_MS, "{record}");
    });
}

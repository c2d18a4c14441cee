//! One daemon that knows a thousand peers, and the memory it takes.
//!
//! ```text
//!  a: weft ── 192.0.2.0/24 ── b: the example `crowd`, one peer that brings the records of a thousand
//! ```
//!
//! `WEFT_CROWD` names the program: `cargo build --release -p weft-control --features sim --example crowd`.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use weft_netns_tests::{in_lab, record, say_skipped, within};

const PEERS: usize = 1000;
/// What a daemon may take that knows them.
const RESIDENT_KIB_MAX: u64 = 256 * 1024;
const SECONDS: &str = "40";

#[test]
fn a_daemon_that_knows_a_thousand_peers_stays_small() {
    let Some(crowd) = std::env::var_os("WEFT_CROWD").map(PathBuf::from) else {
        return say_skipped("WEFT_CROWD names no program");
    };
    in_lab(|lab| {
        let hosts = lab.two_hosts();
        let weft = lab.weft(&hosts[0]);
        weft.ok(&["launch"]);
        let pid = weft.pid().expect("it runs").to_string();
        let alone = resident_kib(&pid);
        let mut program = hosts[1].command(&crowd.to_string_lossy());
        program.args([
            "--to",
            "192.0.2.1:6783",
            "--pid",
            &pid,
            "--seconds",
            SECONDS,
        ]);
        let program = program
            .args(["--peers", &PEERS.to_string()])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("the program starts");
        let known = || {
            let peers = weft.json(&["status", "peers"]);
            peers.as_array().map_or(0, Vec::len)
        };
        let took = within("a thousand peers", Duration::from_secs(30), || {
            known() > PEERS
        });
        let output = program.wait_with_output().expect("the program ends");
        assert!(output.status.success(), "{output:?}");
        let said = String::from_utf8_lossy(&output.stdout);
        let largest: u64 = said.trim().parse().expect("it prints a number");
        record(
            "memory",
            &json!({
                "peers": known(),
                "known_after_s": took.as_secs_f64(),
                "resident_kib_alone": alone,
                "resident_kib_max": largest,
            }),
        );
        assert!(largest <= RESIDENT_KIB_MAX, "{largest} KiB, {alone} alone");
    });
}

fn resident_kib(pid: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

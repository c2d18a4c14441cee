//! What the demo does, step by step, with the program's own verbs.

use std::fs;
use std::time::Duration;

use anyhow::{Context, bail};
use weft_control::api::Status;

use crate::args::DemoArgs;
use crate::client::Client;
use crate::demo::findings::{Findings, Member};
use crate::demo::lab::{self, FOLDER, Host};
use crate::demo::measure;
use crate::demo::sandbox::command;
use crate::output;
use crate::token;

/// How long two containers may take to reach each other: links, sessions and paths come up in that time.
const REACH_LIMIT: Duration = Duration::from_secs(15);

/// Plays the demo and returns what came out.
///
/// # Errors
///
/// The first step that failed.
pub(crate) fn play(args: &DemoArgs) -> anyhow::Result<Findings> {
    output::talk(&format!(
        "making {} hosts, each with a container, in network namespaces",
        args.hosts
    ));
    let hosts = lab::build(args.hosts)?;
    let key = format!("{FOLDER}/token");
    fs::write(&key, &*token::generate()).with_context(|| format!("write {key}"))?;

    let mut members = Vec::new();
    for host in &hosts {
        let peers: Vec<String> = (1..host.number)
            .map(|number| lab::host_address(number).to_string())
            .collect();
        output::talk(&match peers.as_slice() {
            [] => format!("{}: weft launch", host.name),
            some => format!("{}: weft launch {}", host.name, some.join(" ")),
        });
        let mut words = vec!["launch", "--no-plugin", "--password-file", &key];
        words.extend(["--nickname", &host.name]);
        words.extend(peers.iter().map(String::as_str));
        let peer_name = weft(host, &words)?;
        members.push(Member {
            host: host.name.clone(),
            peer_name,
            underlay: lab::host_address(host.number),
            container: lab::container_address(host.number),
        });
    }
    for host in &hosts {
        let address = format!("{}/24", lab::container_address(host.number));
        output::talk(&format!(
            "{}: weft attach {address} {}",
            host.name,
            host.container_name()
        ));
        weft(host, &["attach", &address, &host.container_name()])?;
    }
    measure_all(&hosts, members, args.seconds)
}

fn measure_all(hosts: &[Host], members: Vec<Member>, seconds: u8) -> anyhow::Result<Findings> {
    let [first, others @ ..] = hosts else {
        bail!("a demo has two hosts at least")
    };
    let mut round_trips = Vec::new();
    for other in others {
        let address = lab::container_address(other.number);
        output::talk(&format!(
            "c1 to c{}: round trips to {address}",
            other.number
        ));
        let measured =
            measure::round_trips(&first.container, &other.container, address, REACH_LIMIT)
                .with_context(|| format!("c1 to c{}", other.number))?;
        round_trips.push(measured);
    }
    let Some(second) = others.first() else {
        bail!("a demo has two hosts at least")
    };
    output::talk(&format!(
        "c1 to c2: {seconds} s of TCP through the encrypted overlay"
    ));
    let address = lab::container_address(second.number);
    let length = Duration::from_secs(seconds.into());
    let gbit_per_s = measure::throughput(&first.container, &second.container, address, length)?;
    let status: Status =
        Client::new(format!("{}/weft.sock", first.run_dir()).into()).get("/status")?;
    Findings::new(members, &round_trips, gbit_per_s, seconds, &status)
}

/// Runs a verb of weft on a host; returns what it printed, without the line's end.
fn weft(host: &Host, words: &[&str]) -> anyhow::Result<String> {
    let (run_dir, data_dir) = (host.run_dir(), host.data_dir());
    let output = host.machine.within(|| {
        command("/proc/self/exe")
            .args([
                "--config",
                "/dev/null",
                "--run-dir",
                &run_dir,
                "--data-dir",
                &data_dir,
            ])
            .args(words)
            .output()
            .context("start weft")
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    bail!(
        "{}: {}",
        host.name,
        said.trim().trim_start_matches("weft: ")
    )
}

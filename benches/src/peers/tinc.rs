//! tinc 1.0: TAP in switch mode, its default cipher and digest.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::pair::{INNER, OUTER, Pair};
use crate::peers::{Tunnel, folder};
use crate::program::{self, Daemon};
use crate::wait;

/// Underlay 1500 less IP 20, UDP 8, sequence 4, padding up to 16, digest 4, Ethernet 14, and some room.
const MTU: u32 = 1400;
const DEVICE: &str = "tinc0";
/// Its search for the path MTU takes a probe a second.
const DISCOVERY_LIMIT: Duration = Duration::from_secs(30);

pub(super) fn start(pair: &Pair) -> Result<Tunnel> {
    let folder = folder("tinc")?;
    for side in 0..2 {
        configure(&folder, side).context("write tinc's configuration")?;
    }
    for side in 0..2 {
        let (from, to) = (
            format!("{folder}/{side}/hosts/n{side}"),
            format!("{folder}/{}/hosts/n{side}", 1 - side),
        );
        fs::copy(from, to).context("hand over a host file")?;
    }
    let mut daemons = Vec::new();
    for (side, host) in pair.hosts.iter().enumerate() {
        let (config, pid) = (
            format!("{folder}/{side}"),
            format!("--pidfile={folder}/{side}/pid"),
        );
        let mut command = host.command("tincd");
        command.args(["--no-detach", "--config", &config, &pid]);
        daemons.push(Daemon::start(&format!("tinc-{side}"), &mut command)?);
    }
    pair.wait_for_device(DEVICE)?;
    let ends = pair.containers_behind([DEVICE, DEVICE], MTU)?;
    // Until the path MTU is known to fit, frames go through TCP. SIGUSR2 writes what is known into the log.
    let wake = |daemon: &Daemon| {
        program::run(Command::new("kill").args(["-USR2", &daemon.pid().to_string()]))
    };
    let known = wait::until("tinc's path MTU", DISCOVERY_LIMIT, || {
        let _ = ends[0].run("ping", &["-n", "-q", "-c", "1", "-W", "1", INNER[1]]);
        daemons
            .iter()
            .all(|daemon| wake(daemon).is_ok() && knows_path_mtu(&daemon.last_words()))
    });
    known.with_context(|| {
        daemons
            .iter()
            .map(Daemon::last_words)
            .collect::<Vec<_>>()
            .join("\n")
    })?;
    Ok(Tunnel {
        ends,
        address: INNER[1],
        mtu: MTU,
        daemons,
        weft: None,
    })
}

/// The dump says of each node `pmtu 1451 (min 1451 max 1451)`; the search is over when both bounds agree.
fn knows_path_mtu(log: &str) -> bool {
    let bounds = log.lines().filter_map(|line| {
        line.split_once("(min ")?
            .1
            .trim_end_matches(')')
            .split_once(" max ")
    });
    let mut found = bounds
        .filter(|(least, most)| least == most)
        .filter_map(|(least, _)| least.parse::<u32>().ok());
    found.any(|mtu| mtu > MTU)
}

fn configure(folder: &str, side: usize) -> Result<()> {
    let own = format!("{folder}/{side}");
    fs::create_dir_all(format!("{own}/hosts"))?;
    let connect = if side == 0 { "ConnectTo = n1\n" } else { "" };
    let address = OUTER[side];
    fs::write(
        format!("{own}/tinc.conf"),
        format!(
            "Name = n{side}\nMode = switch\nDeviceType = tap\nInterface = {DEVICE}\nAddressFamily = ipv4\n\
             BindToAddress = {address}\n{connect}"
        ),
    )?;
    let key = format!("{own}/rsa_key.priv");
    program::run(Command::new("openssl").args(["genrsa", "-traditional", "-out", &key, "2048"]))?;
    program::run(Command::new("chmod").args(["600", &key]))?;
    let public =
        program::run(Command::new("openssl").args(["rsa", "-in", &key, "-RSAPublicKey_out"]))?;
    fs::write(
        format!("{own}/hosts/n{side}"),
        format!("Address = {address}\n{public}"),
    )?;
    Ok(())
}

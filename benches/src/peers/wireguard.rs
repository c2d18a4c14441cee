//! WireGuard in user space: wireguard-go and boringtun, layer 3, on their own device.

use std::process::Command;

use anyhow::Result;

use crate::install::Tools;
use crate::pair::{INNER, OUTER, Pair};
use crate::peers::{Tunnel, folder};
use crate::program::{self, Daemon};
use crate::wait;

/// WireGuard's usual MTU, which leaves room for an IPv6 underlay.
const MTU: u32 = 1420;
/// Names of the devices; the control sockets lie side by side in one folder, so they differ.
const DEVICES: [&str; 2] = ["wgA", "wgB"];

pub(super) fn boringtun(pair: &Pair, tools: &Tools) -> Result<Tunnel> {
    start(
        pair,
        &tools.of_cargo("boringtun-cli"),
        &["--foreground", "--disable-drop-privileges"],
    )
}

pub(super) fn wireguard_go(pair: &Pair) -> Result<Tunnel> {
    start(pair, "wireguard-go", &["--foreground"])
}

fn start(pair: &Pair, program: &str, arguments: &[&str]) -> Result<Tunnel> {
    let folder = folder("wireguard")?;
    let mut daemons = Vec::new();
    for (host, device) in pair.hosts.iter().zip(DEVICES) {
        let mut command = host.command(program);
        command.args(arguments).arg(device);
        command
            .env("WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD", "1")
            .env("LOG_LEVEL", "error");
        daemons.push(Daemon::start(&format!("wireguard-{device}"), &mut command)?);
    }
    let mut public = Vec::new();
    for device in DEVICES {
        let (private, file) = (
            program::run(Command::new("wg").arg("genkey"))?,
            format!("{folder}/{device}"),
        );
        std::fs::write(&file, private)?;
        public.push(
            program::run(Command::new("sh").args(["-c", "wg pubkey < \"$0\"", &file]))?
                .trim()
                .to_owned(),
        );
    }
    for (side, host) in pair.hosts.iter().enumerate() {
        let (device, other) = (DEVICES[side], 1 - side);
        wait::until("wg to answer", std::time::Duration::from_secs(5), || {
            host.run("wg", &["show", device]).is_ok()
        })?;
        let key = format!("{folder}/{device}");
        let endpoint = format!("{}:51820", OUTER[other]);
        let own = ["set", device, "listen-port", "51820", "private-key", &key];
        let peer = [
            "peer",
            &public[other],
            "allowed-ips",
            "10.99.0.0/24",
            "endpoint",
            &endpoint,
        ];
        host.run("wg", &[&own[..], &peer[..]].concat())?;
    }
    let ends = pair.hosts_on(DEVICES, MTU)?;
    Ok(Tunnel {
        ends,
        address: INNER[1],
        mtu: MTU,
        daemons,
        weft: None,
    })
}

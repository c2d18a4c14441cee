//! Nebula: layer 3, AES-256-GCM, one of the two is the lighthouse.

use std::process::Command;

use anyhow::{Context, Result};

use crate::pair::{INNER, OUTER, Pair};
use crate::peers::{Tunnel, folder};
use crate::program::{self, Daemon};

/// Underlay 1500 less IP 20, UDP 8, header 16, tag 16, and some room.
const MTU: u32 = 1420;
const DEVICE: &str = "nebula0";

pub(super) fn start(pair: &Pair) -> Result<Tunnel> {
    let folder = folder("nebula")?;
    let certify = |arguments: &[&str]| {
        program::run(
            Command::new("nebula-cert")
                .args(arguments)
                .current_dir(&folder),
        )
    };
    certify(&["ca", "-name", "bench"])?;
    let mut daemons = Vec::new();
    for (side, host) in pair.hosts.iter().enumerate() {
        certify(&[
            "sign",
            "-name",
            &side.to_string(),
            "-ip",
            &format!("{}/24", INNER[side]),
        ])?;
        let file = format!("{folder}/{side}.yml");
        std::fs::write(&file, configuration(&folder, side))
            .context("write nebula's configuration")?;
        daemons.push(Daemon::start(
            &format!("nebula-{side}"),
            host.command("nebula").args(["-config", &file]),
        )?);
    }
    pair.wait_for_device(DEVICE)?;
    let ends = pair.hosts_on([DEVICE, DEVICE], MTU)?;
    Ok(Tunnel {
        ends,
        address: INNER[1],
        mtu: MTU,
        daemons,
        weft: None,
    })
}

fn configuration(folder: &str, side: usize) -> String {
    let lighthouses = if side == 0 {
        format!("[\"{}\"]", INNER[1])
    } else {
        "[]".to_owned()
    };
    format!(
        "pki: {{ca: {folder}/ca.crt, cert: {folder}/{side}.crt, key: {folder}/{side}.key}}\n\
         static_host_map: {{\"{}\": [\"{}:4242\"], \"{}\": [\"{}:4242\"]}}\n\
         lighthouse: {{am_lighthouse: {}, interval: 60, hosts: {lighthouses}}}\n\
         listen: {{host: {}, port: 4242, batch: 64, read_buffer: 4194304, write_buffer: 4194304}}\n\
         cipher: aes\n\
         tun: {{dev: {DEVICE}, mtu: {MTU}}}\n\
         logging: {{level: warning}}\n\
         firewall:\n  outbound: [{{port: any, proto: any, host: any}}]\n  inbound: [{{port: any, proto: any, host: any}}]\n",
        INNER[0],
        OUTER[0],
        INNER[1],
        OUTER[1],
        side == 1,
        OUTER[side],
    )
}

//! OpenVPN 2.6: TAP, AES-256-GCM, TLS with both certificates pinned, no kernel offload.

use std::process::Command;

use anyhow::{Context, Result};

use crate::pair::{INNER, OUTER, Pair};
use crate::peers::{Tunnel, folder};
use crate::program::{self, Daemon};

/// Underlay 1500 less IP 20, UDP 8, opcode and packet number 8, tag 16, Ethernet 14.
const MTU: u32 = 1434;
const DEVICE: &str = "ovpn0";

pub(super) fn start(pair: &Pair) -> Result<Tunnel> {
    let folder = folder("openvpn")?;
    let prints = [certificate(&folder, 0)?, certificate(&folder, 1)?];
    let mut daemons = Vec::new();
    for (side, host) in pair.hosts.iter().enumerate() {
        let (own, key) = (
            format!("{folder}/{side}.crt"),
            format!("{folder}/{side}.key"),
        );
        let mut command = host.command("openvpn");
        command.args([
            "--dev",
            DEVICE,
            "--dev-type",
            "tap",
            "--proto",
            "udp",
            "--mode",
            "p2p",
            "--disable-dco",
        ]);
        command.args([
            "--cert",
            &own,
            "--key",
            &key,
            "--peer-fingerprint",
            &prints[1 - side],
        ]);
        command.args([
            "--data-ciphers",
            "AES-256-GCM",
            "--tun-mtu",
            &MTU.to_string(),
            "--mssfix",
            "0",
        ]);
        command.args([
            "--sndbuf",
            "1048576",
            "--rcvbuf",
            "1048576",
            "--fast-io",
            "--txqueuelen",
            "1000",
        ]);
        if side == 0 {
            command.args(["--local", OUTER[0], "--tls-server", "--dh", "none"]);
        } else {
            command.args(["--remote", OUTER[0], "--tls-client"]);
        }
        daemons.push(Daemon::start(&format!("openvpn-{side}"), &mut command)?);
    }
    pair.wait_for_device(DEVICE)?;
    let ends = pair.containers_behind([DEVICE, DEVICE], MTU)?;
    Ok(Tunnel {
        ends,
        address: INNER[1],
        mtu: MTU,
        daemons,
        weft: None,
    })
}

/// Makes a key and a certificate, and returns the certificate's SHA-256 fingerprint.
fn certificate(folder: &str, side: usize) -> Result<String> {
    let openssl = |arguments: &[&str]| program::run(Command::new("openssl").args(arguments));
    let (own, key) = (
        format!("{folder}/{side}.crt"),
        format!("{folder}/{side}.key"),
    );
    let curve = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ];
    let name = [
        "-days",
        "30",
        "-subj",
        "/CN=bench",
        "-keyout",
        &key,
        "-out",
        &own,
    ];
    openssl(&[&["req", "-x509"], &curve[..], &name[..]].concat())?;
    let print = openssl(&["x509", "-in", &own, "-noout", "-fingerprint", "-sha256"])?;
    let (_, print) = print
        .trim()
        .split_once('=')
        .context("read the certificate's fingerprint")?;
    Ok(print.to_owned())
}

//! vpncloud 2.3: TAP in switch mode, AES-256, its own choice of MTU.

use anyhow::{Context, Result};

use crate::install::Tools;
use crate::pair::{INNER, OUTER, Pair};
use crate::peers::Tunnel;
use crate::program::Daemon;

const DEVICE: &str = "vpncloud0";

pub(super) fn start(pair: &Pair, tools: &Tools) -> Result<Tunnel> {
    let program = tools.of_cargo("vpncloud");
    let mut daemons = Vec::new();
    for (side, host) in pair.hosts.iter().enumerate() {
        // It derives its MTU from the device of the default route.
        host.run("ip", &["route", "add", "default", "via", OUTER[1 - side]])?;
        let (listen, other) = (
            format!("{}:3210", OUTER[side]),
            format!("{}:3210", OUTER[1 - side]),
        );
        let mut command = host.command(&program);
        command.args([
            "--type",
            "tap",
            "--mode",
            "switch",
            "--device",
            DEVICE,
            "--no-port-forwarding",
        ]);
        command.args([
            "--listen",
            &listen,
            "--peer",
            &other,
            "--password",
            "bench",
            "--algorithm",
            "aes256",
        ]);
        daemons.push(Daemon::start(&format!("vpncloud-{side}"), &mut command)?);
    }
    pair.wait_for_device(DEVICE)?;
    let mtu = pair.hosts[0].run("cat", &[&format!("/sys/class/net/{DEVICE}/mtu")])?;
    let mtu = mtu.trim().parse().context("read vpncloud's MTU")?;
    let ends = pair.containers_behind([DEVICE, DEVICE], mtu)?;
    Ok(Tunnel {
        ends,
        address: INNER[1],
        mtu,
        daemons,
        weft: None,
    })
}

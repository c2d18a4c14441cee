//! The engine alone, with fixed keys, on one of the backends under comparison.

use std::process::Command;

use anyhow::{Context, Result};
use weft_engine::config::gso_size_max;

use crate::backends::{Backend, TAP};
use crate::pair::{INNER, OUTER, Pair, UNDERLAY_MTU};
use crate::peers::Tunnel;
use crate::program::{self, Daemon};

/// weft's default, which leaves room for relays.
const MTU: u16 = 1376;

/// This same program runs as the child on both hosts.
pub(super) fn start(pair: &Pair, backend: Backend) -> Result<Tunnel> {
    let program = std::env::current_exe().context("find this program")?;
    let program = program.to_string_lossy();
    let (mtu, underlay_mtu) = (MTU.to_string(), UNDERLAY_MTU.to_string());
    let mut daemons = Vec::new();
    for (side, host) in pair.hosts.iter().enumerate() {
        let mut command = host.command(&program);
        command.args(["backend-host", "--backend", &backend.to_string()]);
        command.args(["--side", &(side + 1).to_string(), "--mtu", &mtu]);
        command.args(["--own", OUTER[side], "--other", OUTER[1 - side]]);
        command.args(["--underlay-mtu", &underlay_mtu]);
        daemons.push(Daemon::start(&format!("engine-{side}"), &mut command)?);
    }
    pair.wait_for_device(TAP)?;
    let ends = pair.containers_behind([TAP, TAP], MTU.into())?;
    // As `attach` does: a container's super-frame shall fill one train.
    let size = gso_size_max(MTU).to_string();
    for (end, host) in ends.iter().zip(&pair.hosts) {
        for (netns, device) in [(end, "eth0"), (host, "veth0")] {
            let mut set = Command::new("ip");
            set.args(["-n", netns.name(), "link", "set", device]);
            program::run(set.args(["gso_max_size", &size]))?;
        }
    }
    Ok(Tunnel {
        ends,
        address: INNER[1],
        mtu: MTU.into(),
        daemons,
        weft: None,
    })
}

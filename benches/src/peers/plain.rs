//! What the kernel does alone: the bare veth pair, and VXLAN over it.

use anyhow::Result;

use crate::pair::{INNER, OUTER, Pair, UNDERLAY_MTU};
use crate::peers::Tunnel;

/// What VXLAN adds over IPv4: outer IP 20, UDP 8, VXLAN 8, inner Ethernet 14.
const VXLAN_OVERHEAD: u32 = 50;

/// The underlay itself, from host to host.
pub(super) fn raw(pair: &Pair) -> Result<Tunnel> {
    Ok(Tunnel {
        ends: pair.hosts.clone(),
        address: OUTER[1],
        mtu: UNDERLAY_MTU,
        daemons: Vec::new(),
        weft: None,
    })
}

/// The kernel's VXLAN, unencrypted, behind bridge and veth.
pub(super) fn vxlan(pair: &Pair) -> Result<Tunnel> {
    for (side, host) in pair.hosts.iter().enumerate() {
        let (own, other) = (OUTER[side], OUTER[1 - side]);
        let device = [
            "link", "add", "vxlan0", "type", "vxlan", "id", "42", "dstport", "4789", "dev", "eth0",
        ];
        host.run(
            "ip",
            &[&device[..], &["local", own, "remote", other]].concat(),
        )?;
    }
    let mtu = UNDERLAY_MTU - VXLAN_OVERHEAD;
    let ends = pair.containers_behind(["vxlan0", "vxlan0"], mtu)?;
    Ok(Tunnel {
        ends,
        address: INNER[1],
        mtu,
        daemons: Vec::new(),
        weft: None,
    })
}

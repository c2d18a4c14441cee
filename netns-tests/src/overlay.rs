//! The smallest overlay: two daemons, and a container on each.
//!
//! ```text
//!  one: 10.2.1.1 ─ ethwe ─ host 0 ═ underlay ═ host 1 ─ ethwe ─ two: 10.2.1.2
//! ```

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::host::Host;
use crate::lab::Lab;
use crate::wait;
use crate::weft::Weft;

/// From launch to the first answered ping; both daemons may be slow debug builds on a busy machine.
const READY_LIMIT: Duration = Duration::from_secs(20);

/// Two hosts that run weft, each with a container.
#[derive(Debug)]
pub struct Overlay {
    /// The daemons.
    pub weft: [Weft; 2],
    /// The containers.
    pub containers: [Host; 2],
    /// The containers' addresses.
    pub addresses: [IpAddr; 2],
}

impl Overlay {
    /// Two hosts `a` and `b` on a veth pair (`eth0`, 192.0.2.1 and 192.0.2.2), then as [`Overlay::on`].
    #[must_use]
    pub fn on_a_link(lab: &Lab, flags: &[&str]) -> Self {
        let hosts = lab.two_hosts();
        Self::on(lab, &hosts, "192.0.2.1", flags)
    }

    /// Launches weft on both with the password `secret` and `flags`, the second dialling the first at
    /// `first_address`; attaches 10.2.1.1/24 and 10.2.1.2/24; returns when the containers reach each other.
    ///
    /// # Panics
    ///
    /// If they never do.
    #[must_use]
    pub fn on(lab: &Lab, hosts: &[Host; 2], first_address: &str, flags: &[&str]) -> Self {
        let overlay = Self {
            weft: [lab.weft(&hosts[0]), lab.weft(&hosts[1])],
            containers: [lab.host("one"), lab.host("two")],
            addresses: [
                Ipv4Addr::new(10, 2, 1, 1).into(),
                Ipv4Addr::new(10, 2, 1, 2).into(),
            ],
        };
        overlay.launch(0, flags);
        overlay.launch(1, &[flags, &[first_address]].concat());
        for side in 0..2 {
            overlay.attach(side);
        }
        for weft in &overlay.weft {
            weft.wait_for_path(READY_LIMIT);
        }
        overlay.wait_until_reachable(READY_LIMIT);
        overlay
    }

    /// Launches one side's daemon with the password `secret` and `flags`.
    pub fn launch(&self, side: usize, flags: &[&str]) {
        self.weft[side].ok(&[&["launch", "--password", "secret"], flags].concat());
    }

    /// Attaches one side's container.
    pub fn attach(&self, side: usize) {
        let address = format!("{}/24", self.addresses[side]);
        self.weft[side].ok(&["attach", &address, &self.containers[side].as_container()]);
    }

    /// Waits until the first container reaches the second; returns the time it took.
    ///
    /// # Panics
    ///
    /// If it never does.
    pub fn wait_until_reachable(&self, limit: Duration) -> Duration {
        // Short waits for each answer, so that the time it took is known well.
        let answer = Duration::from_millis(200);
        wait::within("a ping from container to container", limit, || {
            self.containers[0].reaches_within(self.addresses[1], answer)
        })
    }
}

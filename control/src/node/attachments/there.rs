//! Whose attachments count: those of hosts that something leads to.
//!
//! The records of a host that is gone are kept for an hour. Its containers may be elsewhere by then, with the same
//! addresses and other MACs: questions about them must not be answered with MACs that nobody has.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::node::Node;
use crate::peer::PeerId;
use crate::record::RecordKind;

impl Node {
    /// The ways have changed, and with them perhaps who is there.
    pub(in crate::node) fn look_who_is_there(&mut self, now: Instant) {
        self.notice_waiting_namesakes();
        let bodies = self.gossip.bodies(RecordKind::Attachments);
        let there: BTreeSet<PeerId> = bodies
            .filter(|(_, part, _)| *part == 0)
            .map(|(origin, ..)| origin)
            .filter(|origin| self.is_reachable(*origin))
            .collect();
        if there != self.attachments.there {
            self.attachments.there = there;
            self.attachments_changed(now);
            self.wake(self.attachments.due);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::Duration;

    use weft_engine::wire::ethernet::MacAddr;

    use crate::node::exchange::{Input, LocalAttachment};
    use crate::sim::Sim;
    use crate::sim::host::HostSpec;

    /// Which of the two PeerIds is smaller must not decide, so there are several seeds.
    #[test]
    fn an_address_leads_to_its_container_after_its_host_was_reset() {
        for seed in 0..6 {
            let mut sim = Sim::new(seed);
            for name in ["a", "b", "c"] {
                sim.add(HostSpec::new(name).dialling(&["192.0.2.1"]));
            }
            sim.run_for(Duration::from_secs(3));
            let address = IpAddr::from([10, 32, 0, 9]);
            let (old, new) = (MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]));
            let attached = |mac| {
                let addresses = vec![address];
                Input::Attached(vec![LocalAttachment { mac, addresses }])
            };
            sim.input(2, attached(old));
            sim.run_for(Duration::from_secs(1));
            assert_eq!(sim.neighbours(1).mac_of(address), Some(old));

            sim.reset(2);
            sim.run_for(Duration::from_secs(10));
            sim.input(2, attached(new));
            let limit = Duration::from_secs(5);
            sim.run_until(limit, &format!("the new MAC, seed {seed}"), |sim| {
                (0..3).all(|host| sim.neighbours(host).mac_of(address) == Some(new))
            });

            for host in 0..3 {
                let notes = sim.node(host).unwrap().duplicate_notes();
                assert!(notes.is_empty(), "seed {seed}: {notes:?}");
            }
            let route = sim.node(1).unwrap().path_report("10.32.0.9").unwrap();
            assert_eq!(route.peer_id, sim.identity(2).peer_id().to_string());
        }
    }

    #[test]
    fn attachments_of_a_host_that_comes_back_are_known_again() {
        let mut sim = Sim::new(2);
        sim.add(HostSpec::new("a").dialling(&["192.0.2.2"]));
        sim.add(HostSpec::new("b"));
        sim.run_for(Duration::from_secs(3));
        let (mac, address) = (MacAddr([2, 0, 0, 0, 0, 1]), IpAddr::from([10, 32, 0, 9]));
        let addresses = vec![address];
        sim.input(1, Input::Attached(vec![LocalAttachment { mac, addresses }]));
        sim.run_for(Duration::from_secs(1));

        sim.cut(0, 1);
        sim.run_for(Duration::from_secs(30));
        assert_eq!(sim.neighbours(0).mac_of(address), None);
        sim.heal(0, 1);
        sim.run_for(Duration::from_secs(5));
        assert_eq!(sim.neighbours(0).mac_of(address), Some(mac));
    }
}

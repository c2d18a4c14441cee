//! What is in use here by sight: the interfaces of containers against what is noted.
//!
//! What was seen is kept until it is on disk. A store that failed may come back with less, even with what it held long
//! ago, and an address that nobody notes would not be blocked when somebody else owns it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use ipnet::IpNet;

use crate::ipam::Ipam;
use crate::ipam::holdings::{ANONYMOUS, HOST};

/// All owners of addresses that exist.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sight {
    /// What each has on its interface.
    pub present: BTreeMap<String, Vec<IpNet>>,
    /// Owners of whom nothing is known: they are left as they are.
    pub unsure: BTreeSet<String>,
}

impl Ipam {
    /// Holds what is in use against what really exists. What stands on an interface is noted whatever the store says
    /// of it, unless the one that has it by the store has it there, too; what other peers own is fetched back.
    pub(crate) fn present(&mut self, sight: &Sight, now: Instant) {
        let Sight { present, unsure } = sight;
        self.relearning.seen();
        for (holder, addresses) in present {
            if unsure.contains(holder) {
                continue;
            }
            let counts = |address: &&IpNet| holder != HOST || self.is_in_range(address);
            let addresses: Vec<IpNet> = addresses.iter().filter(counts).copied().collect();
            self.holdings.seen(holder, &addresses, now);
            for address in &addresses {
                let known = self.holdings.holder_of(address.addr());
                if known.is_some_and(|known| unsure.contains(known)) {
                    continue;
                }
                let on_its_interface = known
                    .and_then(|known| present.get(known))
                    .is_some_and(|all| all.iter().any(|other| other.addr() == address.addr()));
                if !on_its_interface && self.holdings.has_room_for(holder) {
                    self.holdings.add(holder, *address);
                }
            }
        }
        let gone: Vec<String> = self
            .holdings
            .all()
            .map(|(holder, _)| holder.to_owned())
            .filter(|holder| !present.contains_key(holder) && !unsure.contains(holder))
            .filter(|holder| holder != ANONYMOUS)
            .collect();
        for holder in gone {
            self.holdings.died(&holder, now);
        }
    }

    fn is_in_range(&self, address: &IpNet) -> bool {
        match address.addr() {
            IpAddr::V4(ip) => self.range().contains(ip.into()),
            IpAddr::V6(_) => false,
        }
    }
}

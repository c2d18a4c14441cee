//! Several hosts on one switch, each with a container; pairs of them may be kept apart.
//!
//! ```text
//!  c0 10.2.1.1 ─ weft h0 192.0.2.1 ─┐
//!  c1 10.2.1.2 ─ weft h1 192.0.2.2 ─┼─ switch        keep_apart(0, 2): neither hears the other
//!  c2 10.2.1.3 ─ weft h2 192.0.2.3 ─┘
//! ```

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use serde_json::Value;

use crate::host::Host;
use crate::lab::Lab;
use crate::wait;
use crate::weft::Weft;

/// For one echo while waiting for reachability: short, so that the time it took is known well.
const ANSWER: Duration = Duration::from_millis(200);

/// The hosts, their daemons and containers; all counted from 0.
#[derive(Debug)]
pub struct Mesh {
    /// The switch, with one port for each host, called after it.
    pub switch: Host,
    /// The daemons; [`Weft::host`] is the host.
    pub weft: Vec<Weft>,
    /// A container on each host.
    pub containers: Vec<Host>,
}

impl Mesh {
    /// Hosts, wires and containers; nothing is launched.
    ///
    /// # Panics
    ///
    /// If there are to be more than 99.
    #[must_use]
    pub fn new(lab: &Lab, count: usize) -> Self {
        assert!(count < 100, "addresses end there");
        let switch = lab.switch("switch");
        let (mut weft, mut containers) = (Vec::new(), Vec::new());
        for index in 0..count {
            let host = lab.host(&format!("h{index}"));
            lab.plug(
                &switch,
                &host,
                "eth0",
                &format!("{}/24", Self::underlay(index)),
            );
            weft.push(lab.weft(&host));
            containers.push(lab.host(&format!("c{index}")));
        }
        Self {
            switch,
            weft,
            containers,
        }
    }

    /// A host's underlay address.
    #[must_use]
    pub fn underlay(index: usize) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, last_byte(index)).into()
    }

    /// A container's address.
    #[must_use]
    pub fn overlay(index: usize) -> IpAddr {
        Ipv4Addr::new(10, 2, 1, last_byte(index)).into()
    }

    /// A host.
    #[must_use]
    pub fn host(&self, index: usize) -> &Host {
        self.weft[index].host()
    }

    /// Neither host hears the other any more.
    pub fn keep_apart(&self, one: usize, other: usize) {
        self.deafen(one, other);
        self.deafen(other, one);
    }

    /// Ends [`Mesh::keep_apart`].
    pub fn bring_together(&self, one: usize, other: usize) {
        self.undeafen(one, other);
        self.undeafen(other, one);
    }

    /// A host hears another one no more; the other way still works.
    pub fn deafen(&self, hearer: usize, speaker: usize) {
        let rules = format!("ip saddr {} drop;", Self::underlay(speaker));
        self.host(hearer)
            .add_rules(&format!("deaf{speaker}"), &rules);
    }

    /// Ends [`Mesh::deafen`].
    pub fn undeafen(&self, hearer: usize, speaker: usize) {
        self.host(hearer).remove_rules(&format!("deaf{speaker}"));
    }

    /// Launches a host's daemon as `hN`, with the password `secret`, `flags` and these peers.
    pub fn launch(&self, index: usize, flags: &[&str], peers: &[usize]) {
        let name = format!("h{index}");
        let peers: Vec<String> = peers
            .iter()
            .map(|peer| Self::underlay(*peer).to_string())
            .collect();
        let mut words = vec!["launch", "--password", "secret", "--nickname", &name];
        words.extend(flags);
        words.extend(peers.iter().map(String::as_str));
        self.weft[index].ok(&words);
    }

    /// Attaches a host's container.
    pub fn attach(&self, index: usize) {
        let address = format!("{}/24", Self::overlay(index));
        self.weft[index].ok(&["attach", &address, &self.containers[index].as_container()]);
    }

    /// Launches all in turn, each with the peers that `peers_of` names, and attaches all containers.
    pub fn start(&self, flags: &[&str], peers_of: impl Fn(usize) -> Vec<usize>) {
        for index in 0..self.weft.len() {
            self.launch(index, flags, &peers_of(index));
        }
        for index in 0..self.weft.len() {
            self.attach(index);
        }
    }

    /// Waits until one container gets an answer from another; returns the time it took.
    ///
    /// # Panics
    ///
    /// If it gets none.
    pub fn wait_until_reachable(&self, from: usize, to: usize, limit: Duration) -> Duration {
        wait::within(&format!("a ping from c{from} to c{to}"), limit, || {
            self.containers[from].reaches_within(Self::overlay(to), ANSWER)
        })
    }

    /// As above for every pair, in both directions; the limit is for all together.
    ///
    /// # Panics
    ///
    /// If some pair does not reach each other.
    pub fn wait_until_all_reachable(&self, limit: Duration) -> Duration {
        let (start, count) = (wait::now(), self.weft.len());
        for from in 0..count {
            for to in (0..count).filter(|to| *to != from) {
                let rest = limit.saturating_sub(start.elapsed());
                self.wait_until_reachable(from, to, rest);
            }
        }
        start.elapsed()
    }

    /// What a daemon says about the way to another: an object with `kind`, `why` and more, or null.
    #[must_use]
    pub fn route(&self, from: usize, to: usize) -> Value {
        let (report, name) = (self.weft[from].report(), format!("h{to}"));
        let routes = report["routes"].as_array();
        let found =
            routes.and_then(|routes| routes.iter().find(|route| route["nickname"] == *name));
        found.cloned().unwrap_or(Value::Null)
    }

    /// `direct`, `via …` or `none`; empty if nothing is known.
    #[must_use]
    pub fn way(&self, from: usize, to: usize) -> String {
        self.route(from, to)["kind"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// Waits until a daemon's way to another is direct, or is not; returns the time it took.
    ///
    /// # Panics
    ///
    /// If it does not become so.
    pub fn wait_for_way(&self, from: usize, to: usize, direct: bool, limit: Duration) -> Duration {
        let word = if direct { "direct" } else { "via" };
        wait::within(&format!("h{from} to h{to}: {word}"), limit, || {
            self.way(from, to).starts_with(word)
        })
    }
}

fn last_byte(index: usize) -> u8 {
    u8::try_from(index + 1).expect("a mesh has fewer than 100 hosts")
}

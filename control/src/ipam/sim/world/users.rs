//! What users do and see: requests and their answers, containers, and one address heard from two hosts.

use std::net::IpAddr;

use ipnet::IpNet;

use weft_engine::command::Flow;

use super::{Asked, World};
use crate::ipam::request::{IpamRequestId, Reply, Request};
use crate::ipam::sim::checker::Shown;
use crate::ipam::{Contact, IpamInput};

impl World {
    pub(in crate::ipam::sim) fn ask(&mut self, at: usize, what: Request) {
        self.note(format!("host{at} asks {what:?}"));
        self.numbers += 1;
        let request = IpamRequestId(self.numbers);
        let deadline = None;
        self.asked.insert(
            request.0,
            Asked {
                at: self.now,
                host: at,
                what: what.clone(),
            },
        );
        self.feed(
            at,
            IpamInput::Request {
                request,
                what,
                deadline,
            },
        );
    }

    pub(in crate::ipam::sim) fn with_prefix(&self, address: u32) -> IpNet {
        IpNet::new(IpAddr::V4(address.into()), self.plan.prefix).expect("a prefix of IPv4")
    }

    pub(in crate::ipam::sim) fn new_container(&mut self) -> String {
        self.containers += 1;
        format!("c{}", self.containers)
    }

    pub(super) fn answered(&mut self, asked: &Asked, reply: Option<Reply>) {
        let at = asked.host;
        match (&asked.what, reply) {
            (
                Request::Allocate { holder, .. } | Request::Claim { holder, .. },
                Some(Reply::Addresses(addresses)),
            ) => {
                for address in addresses {
                    let IpAddr::V4(ip) = address.addr() else {
                        continue;
                    };
                    let number = u32::from(ip);
                    if matches!(asked.what, Request::Allocate { .. }) {
                        let blocked = self.hosts[at].blocked.clone();
                        self.checker
                            .asked_again(at, holder, number, &blocked, self.now);
                    }
                    self.checker.acknowledged(at, holder, number, self.now);
                    let container = self.hosts[at].containers.entry(holder.clone()).or_default();
                    if container.died_at.is_none() {
                        container.addresses.insert(number);
                    } else {
                        self.checker.died(at, holder, self.now);
                    }
                    let twice = self.hosts[at]
                        .containers
                        .values()
                        .filter(|other| {
                            other.died_at.is_none() && other.addresses.contains(&number)
                        })
                        .count();
                    if twice > 1 {
                        self.checker.twice_on_one_host(at, number);
                    }
                }
            }
            (Request::Leave, Some(Reply::Left { .. })) => {
                self.checker.gone(at, self.hosts[at].id);
                self.hosts[at].containers.clear();
                self.crash(at);
                self.hosts[at].has_left = true;
            }
            _ => {}
        }
    }

    /// The interface loses its addresses first, then they are freed. What is done to one container is done one after
    /// the other, as the driver does it: an answer that is still awaited goes before.
    pub(in crate::ipam::sim) fn detach(&mut self, at: usize, holder: &str) {
        let is_about = |asked: &Asked| match &asked.what {
            Request::Allocate { holder: other, .. } | Request::Claim { holder: other, .. } => {
                asked.host == at && other == holder
            }
            Request::Lookup { .. }
            | Request::Release { .. }
            | Request::ReleaseAll { .. }
            | Request::Withdraw { .. }
            | Request::Present(_)
            | Request::Prime
            | Request::Remove { .. }
            | Request::Leave => false,
        };
        if self.asked.values().any(is_about) {
            return;
        }
        self.hosts[at].containers.remove(holder);
        self.checker.released(at, holder);
        self.ask(
            at,
            Request::ReleaseAll {
                holder: holder.to_owned(),
            },
        );
    }

    pub(in crate::ipam::sim) fn kill_container(&mut self, at: usize, holder: &str) {
        let now = self.now;
        let is_up = self.hosts[at].is_up();
        self.note(format!("host{at} loses {holder:?}"));
        if let Some(container) = self.hosts[at].containers.get_mut(holder) {
            container.died_at = Some(now);
            container.addresses.clear();
        }
        if is_up {
            self.checker.died(at, holder, now);
            self.feed(at, IpamInput::Died(holder.to_owned()));
        }
    }

    pub(in crate::ipam::sim) fn return_container(&mut self, at: usize, holder: &str) {
        if let Some(container) = self.hosts[at].containers.get_mut(holder) {
            container.died_at = None;
        }
        self.note(format!("host{at} has {holder:?} again"));
        self.checker.returns(at, holder, self.now);
        let holder = holder.to_owned();
        self.feed(at, IpamInput::Lives(holder.clone()));
        self.ask(
            at,
            Request::Allocate {
                holder,
                subnet: None,
            },
        );
    }

    /// Looks for one address that somebody hears from two hosts.
    pub(super) fn watch_the_wire(&mut self, at: usize) {
        let mine = self.hosts[at].addresses();
        // Frames travel in the session of two processes: what was opened for another one of the same identity, a
        // copy or an earlier start, carries none.
        let flow = |a: usize, b: usize| {
            let (a, b) = (&self.hosts[a], &self.hosts[b]);
            let is_it = |(_, boot): &(Contact, u64)| *boot == b.boot;
            let flow = a.flows.get(&b.id).copied();
            flow.filter(|_| a.told.get(&b.id).is_some_and(is_it))
        };
        let hears = |a: usize, b: usize| {
            let (to, from) = (flow(b, a), flow(a, b));
            self.connected(a, b)
                && to == Some(Flow::Open)
                && matches!(from, Some(Flow::Heard | Flow::Open))
        };
        let mut found = Vec::new();
        for other in (0..self.hosts.len()).filter(|other| self.connected(at, *other)) {
            for address in self.hosts[other].addresses().intersection(&mine) {
                let both = self.hosts[at].is_on_the_wire(*address)
                    && self.hosts[other].is_on_the_wire(*address);
                let hearer = (0..self.hosts.len()).find(|hearer| {
                    (*hearer == at || hears(*hearer, at))
                        && (*hearer == other || hears(*hearer, other))
                });
                if let Some(hearer) = hearer.filter(|_| both) {
                    found.push((*address, other, hearer));
                }
            }
        }
        for (address, other, hearer) in found {
            self.checker.twice_on_the_wire(address, at, other, hearer);
        }
    }

    /// What all hosts say of the ring.
    pub(in crate::ipam::sim) fn shown(&self) -> Vec<Shown> {
        (0..self.hosts.len())
            .filter(|at| self.is_admitted(*at))
            .filter_map(|at| {
                let host = &self.hosts[at];
                let ipam = host.ipam.as_ref()?;
                Some(Shown {
                    host: at,
                    ring: ipam.status().genesis,
                    beliefs: ipam.beliefs(),
                    in_use: ipam.in_use(),
                    blocked: host.blocked.clone(),
                })
            })
            .collect()
    }

    pub(in crate::ipam::sim) fn is_up(&self, at: usize) -> bool {
        self.hosts[at].is_up()
    }
}

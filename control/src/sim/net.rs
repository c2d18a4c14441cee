//! The links: dials, bytes in order, held while the way is cut as TCP would hold them.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{HostId, Sim, SimEvent};
use crate::config::DIAL_TIMEOUT;
use crate::link::dialer::{TargetAddress, TargetHost};
use crate::node::exchange::{CloseCause, DialFailure, DialId, Input, LinkId};

/// One TCP connection.
pub(super) struct Wire {
    pub(super) ends: [(HostId, LinkId); 2],
    pub(super) open: bool,
    pub(super) last_arrival: [Instant; 2],
    pub(super) held: Vec<(bool, Option<Bytes>)>,
}

impl Sim {
    pub(super) fn dial(&mut self, host: HostId, dial: DialId, address: &TargetAddress) {
        let life = self.hosts[host].life;
        let TargetHost::Ip(ip) = address.host else {
            let input = Input::DialFailed {
                dial,
                failure: DialFailure::Unresolved,
            };
            return self.at(self.now, SimEvent::Input { host, life, input });
        };
        let to = SocketAddr::new(ip, address.port);
        let latency = self.latency() * 2;
        self.at(
            self.now + latency,
            SimEvent::Open {
                from: host,
                life,
                dial,
                to,
            },
        );
    }

    pub(super) fn host_at(&self, address: IpAddr) -> Option<HostId> {
        self.hosts
            .iter()
            .position(|host| host.address.ip() == address)
    }

    pub(super) fn open(&mut self, from: HostId, life: u64, dial: DialId, to: SocketAddr) {
        let now = self.now;
        let Some(target) = self
            .host_at(to.ip())
            .filter(|target| !self.is_cut(from, *target))
        else {
            let input = Input::DialFailed {
                dial,
                failure: DialFailure::TimedOut,
            };
            return self.at(
                now + DIAL_TIMEOUT,
                SimEvent::Input {
                    host: from,
                    life,
                    input,
                },
            );
        };
        if self.hosts[target].node.is_none() || to.port() != self.hosts[target].address.port() {
            let input = Input::DialFailed {
                dial,
                failure: DialFailure::Refused,
            };
            return self.at(
                now,
                SimEvent::Input {
                    host: from,
                    life,
                    input,
                },
            );
        }
        if self.hosts[from].life != life {
            return;
        }
        self.links += 2;
        let (ours, theirs) = (LinkId(self.links), LinkId(self.links + 1));
        let local = SocketAddr::new(self.hosts[from].address.ip(), 40_000);
        let ends = [(from, ours), (target, theirs)];
        self.wires.push(Wire {
            ends,
            open: true,
            last_arrival: [now; 2],
            held: Vec::new(),
        });
        self.input(
            target,
            Input::LinkOpened {
                link: theirs,
                dial: None,
                remote: local,
                local: to,
            },
        );
        self.input(
            from,
            Input::LinkOpened {
                link: ours,
                dial: Some(dial),
                remote: to,
                local,
            },
        );
    }

    pub(super) fn send(&mut self, host: HostId, link: LinkId, data: Option<Bytes>) {
        let Some(wire) = self
            .wires
            .iter()
            .position(|wire| wire.ends.contains(&(host, link)))
        else {
            return;
        };
        let forward = self.wires[wire].ends[0] == (host, link);
        self.transmit(wire, forward, data);
    }

    pub(super) fn transmit(&mut self, wire: usize, forward: bool, data: Option<Bytes>) {
        let latency = self.latency();
        self.transmit_after(wire, forward, data, latency);
    }

    pub(super) fn transmit_after(
        &mut self,
        wire: usize,
        forward: bool,
        data: Option<Bytes>,
        after: Duration,
    ) {
        let [(a, _), (b, _)] = self.wires[wire].ends;
        let mut data = data;
        if let (Some(tamper), Some(bytes)) = (&mut self.tamper, &data) {
            let mut bytes = bytes.to_vec();
            if !tamper(&mut bytes) {
                return;
            }
            data = Some(bytes.into());
        }
        if self.is_cut(a, b) {
            self.wires[wire].held.push((forward, data));
            return;
        }
        let last = &mut self.wires[wire].last_arrival[usize::from(forward)];
        *last = (self.now + after).max(*last);
        let at = *last;
        self.at(
            at,
            SimEvent::Arrive {
                wire,
                forward,
                data,
            },
        );
    }

    pub(super) fn arrive(&mut self, wire: usize, forward: bool, data: Option<Bytes>) {
        let (host, link) = self.wires[wire].ends[usize::from(forward)];
        if !self.wires[wire].open {
            return;
        }
        match data {
            Some(data) => {
                let data = self.with_what_follows(wire, forward, data);
                self.input(host, Input::LinkData { link, data });
            }
            None => {
                self.wires[wire].open = false;
                self.input(
                    host,
                    Input::LinkClosed {
                        link,
                        cause: CloseCause::Broken,
                    },
                );
            }
        }
    }

    /// TCP keeps no borders: what is close behind is read with what came.
    fn with_what_follows(&mut self, wire: usize, forward: bool, data: Bytes) -> Bytes {
        let close = self.now + self.latency / 4;
        let follows = |event: &SimEvent| {
            matches!(event, SimEvent::Arrive { wire: other, forward: way, data: Some(_) }
                if *other == wire && *way == forward)
        };
        let keys: Vec<_> = self
            .queue
            .range(..(close, 0))
            .filter(|(_, event)| follows(event))
            .map(|(key, _)| *key)
            .collect();
        let mut all = data.to_vec();
        for key in keys {
            if let Some(SimEvent::Arrive {
                data: Some(data), ..
            }) = self.queue.remove(&key)
            {
                all.extend_from_slice(&data);
            }
        }
        all.into()
    }
}

//! A deterministic simulation of two ends and the underlays between them.
//!
//! ```text
//!   end 0 ── address ══ underlay 0 ══ address ── end 1      An underlay has latency, jitter (so it reorders),
//!         └─ address ══ underlay 1 ══ address ─┘            loss, duplicates, an MTU and cuts, each way its own.
//! ```
//!
//! Sealing is taken for granted: what arrives is authentic, but may come from another address than it was sent from.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::path::{Arrival, PathConfig, PathOutput, PathStatus, Paths, SendFailure};

/// Header, kind, meta and tag around a message.
pub(super) const SEAL_LEN: u16 = 34;

pub(in crate::path) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(in crate::path) fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

#[expect(
    clippy::disallowed_methods,
    reason = "an Instant cannot be made otherwise; only differences matter"
)]
pub(in crate::path) fn epoch() -> Instant {
    Instant::now()
}

pub(in crate::path) fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// One direction of an underlay.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way {
    pub(super) latency: Duration,
    pub(super) jitter: Duration,
    pub(super) loss: f64,
    pub(super) duplicates: f64,
    pub(super) mtu: u16,
    pub(super) cut: bool,
    /// Nobody listens at the far end: ICMP port unreachable comes back.
    pub(super) refused: bool,
}

impl Default for Way {
    fn default() -> Self {
        Self {
            latency: ms(5),
            jitter: Duration::ZERO,
            loss: 0.0,
            duplicates: 0.0,
            mtu: 1500,
            cut: false,
            refused: false,
        }
    }
}

/// `ways[i]` leads away from end `i`.
#[derive(Debug, Clone)]
pub(super) struct Underlay {
    pub(super) addresses: [SocketAddr; 2],
    pub(super) ways: [Way; 2],
}

impl Underlay {
    pub(super) fn new(address_0: &str, address_1: &str, way: Way) -> Self {
        Self {
            addresses: [address(address_0), address(address_1)],
            ways: [way; 2],
        }
    }

    pub(super) fn v4(way: Way) -> Self {
        Self::new("192.0.2.1:6783", "198.51.100.2:6783", way)
    }

    pub(super) fn v6(way: Way) -> Self {
        Self::new("[2001:db8::1]:6783", "[2001:db8:1::2]:6783", way)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Told {
    Up(PathStatus),
    Changed(PathStatus),
    Down,
    Observed(SocketAddr),
}

pub(super) struct End {
    pub(super) paths: Paths,
    /// What it said, and how long after the start.
    pub(super) told: Vec<(Duration, Told)>,
    /// Messages sent: when, where to, datagram length.
    pub(super) sent: Vec<(Duration, SocketAddr, u16)>,
    /// Frames go out this often while there is a path.
    pub(super) data_every: Option<Duration>,
    data_at: Instant,
    pub(super) data_received: usize,
    /// Datagrams longer than this, with headers, are refused by its own kernel.
    pub(super) local_mtu: u16,
    /// It is not run (overloaded, suspended); what arrives waits.
    pub(super) stalled: bool,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Flight {
    at: Instant,
    order: u64,
    to_end: usize,
    from: SocketAddr,
    to: SocketAddr,
    len: u16,
    what: What,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Message(Vec<u8>),
    Data,
    Unreachable,
}

pub(super) struct Sim {
    pub(super) start: Instant,
    pub(super) now: Instant,
    pub(super) ends: [End; 2],
    pub(super) underlays: Vec<Underlay>,
    flights: BinaryHeap<Reverse<Flight>>,
    order: u64,
    pub(super) rng: StdRng,
}

impl Sim {
    /// Both ends know each other's addresses and have a session.
    pub(super) fn new(seed: u64, config: PathConfig, underlays: Vec<Underlay>) -> Self {
        let mut sim = Self::without_session(seed, config, underlays);
        sim.introduce();
        for end in 0..2 {
            sim.call(end, |paths, now| paths.session_ready(now));
        }
        sim
    }

    #[expect(clippy::print_stdout, reason = "a failed test shows its seed")]
    pub(super) fn without_session(seed: u64, config: PathConfig, underlays: Vec<Underlay>) -> Self {
        println!("simulation seed {seed}");
        let start = epoch();
        let end = |which: u64| End {
            paths: Paths::new(config, seed * 2 + which, start),
            told: Vec::new(),
            sent: Vec::new(),
            data_every: None,
            data_at: start,
            data_received: 0,
            local_mtu: u16::MAX,
            stalled: false,
        };
        let ends = [end(0), end(1)];
        let rng = StdRng::seed_from_u64(seed ^ 0x5eed);
        Self {
            start,
            now: start,
            ends,
            underlays,
            flights: BinaryHeap::new(),
            order: 0,
            rng,
        }
    }

    /// Control tells each end all addresses of the other.
    pub(super) fn introduce(&mut self) {
        for end in 0..2 {
            let addresses: Vec<_> = self
                .underlays
                .iter()
                .map(|u| u.addresses[1 - end])
                .collect();
            self.call(end, |paths, now| paths.set_candidates(&addresses, now));
        }
    }

    pub(super) fn ways(&mut self, change: impl Fn(&mut Way)) {
        self.underlays
            .iter_mut()
            .flat_map(|underlay| &mut underlay.ways)
            .for_each(change);
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// A random number below this.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.rng.next_u64() % bound
    }

    fn chance(&mut self, share: f64) -> bool {
        let draw = u32::try_from(self.rng.next_u64() >> 32).expect("32 bits");
        f64::from(draw) < share * f64::from(u32::MAX)
    }

    /// Does something to one end and carries out what it asks for.
    pub(super) fn call<T>(&mut self, end: usize, act: impl FnOnce(&mut Paths, Instant) -> T) -> T {
        let result = act(&mut self.ends[end].paths, self.now);
        let elapsed = self.elapsed();
        while let Some(output) = self.ends[end].paths.poll_output() {
            let told = match output {
                PathOutput::Send {
                    to,
                    local,
                    message,
                    datagram_len,
                } => {
                    let bytes = message.as_bytes().to_vec();
                    let plain_len = SEAL_LEN + u16::try_from(bytes.len()).expect("a short message");
                    let len = datagram_len.unwrap_or(plain_len);
                    self.ends[end].sent.push((elapsed, to, len));
                    self.send(
                        end,
                        Arrival { address: to, local },
                        len,
                        What::Message(bytes),
                    );
                    continue;
                }
                PathOutput::Up(status) => Told::Up(status),
                PathOutput::Changed(status) => Told::Changed(status),
                PathOutput::Down => Told::Down,
                PathOutput::Observed(address) => Told::Observed(address),
            };
            self.ends[end].told.push((elapsed, told));
        }
        result
    }

    fn send(&mut self, end: usize, route: Arrival, len: u16, what: What) {
        let Arrival { address: to, local } = route;
        let ip_len = len + if to.is_ipv4() { 28 } else { 48 };
        if ip_len > self.ends[end].local_mtu {
            let refused = What::Unreachable;
            return self.fly(Duration::ZERO, end, (to, to), len, refused);
        }
        let leads_there = |underlay: &&Underlay| underlay.addresses[1 - end] == to;
        let from_there = |underlay: &&Underlay| Some(underlay.addresses[end].ip()) == local;
        let mut ways = self.underlays.iter().filter(leads_there);
        // An address that is gone from this end stops nothing: its kernel chooses another.
        let Some(underlay) = ways.clone().find(from_there).or(ways.next()) else {
            return;
        };
        let (from, way) = (underlay.addresses[end], underlay.ways[end]);
        if way.refused {
            return self.fly(way.latency * 2, end, (to, from), len, What::Unreachable);
        }
        if way.cut || ip_len > way.mtu || self.chance(way.loss) {
            return;
        }
        let copies = 1 + usize::from(self.chance(way.duplicates));
        for _ in 0..copies {
            let jitter_us = u64::try_from(way.jitter.as_micros()).expect("a short time");
            let latency = way.latency + Duration::from_micros(self.below(jitter_us + 1));
            self.fly(latency, 1 - end, (from, to), len, what.clone());
        }
    }

    fn fly(
        &mut self,
        latency: Duration,
        to_end: usize,
        ends: (SocketAddr, SocketAddr),
        len: u16,
        what: What,
    ) {
        self.order += 1;
        let (from, to) = ends;
        let flight = Flight {
            at: self.now + latency,
            order: self.order,
            to_end,
            from,
            to,
            len,
            what,
        };
        self.flights.push(Reverse(flight));
    }

    pub(super) fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.step(end) {}
        self.now = end;
    }

    /// Runs until this holds; how long that took, or `None` if it took longer than `at_most`.
    pub(super) fn run_until(
        &mut self,
        at_most: Duration,
        done: impl Fn(&Self) -> bool,
    ) -> Option<Duration> {
        let (begin, end) = (self.now, self.now + at_most);
        while !done(self) {
            if !self.step(end) {
                self.now = end;
                return None;
            }
        }
        Some(self.now - begin)
    }

    /// Does the next thing due, unless that is later than `end`.
    fn step(&mut self, end: Instant) -> bool {
        let flight = self.flights.peek().map(|Reverse(flight)| flight.at);
        let due = |end: &End| {
            let data = end.data_every.map(|_| end.data_at);
            let machine = end.paths.deadline().filter(|_| !end.stalled);
            data.into_iter().chain(machine).min()
        };
        let next = self.ends.iter().filter_map(due).chain(flight).min();
        let Some(next) = next.filter(|next| *next <= end) else {
            return false;
        };
        self.now = self.now.max(next);
        if flight == Some(next) {
            self.deliver();
            return true;
        }
        for end in 0..2 {
            if self.ends[end].data_every.is_some() && self.ends[end].data_at <= self.now {
                self.send_data(end);
            }
            let deadline = self.ends[end].paths.deadline();
            if deadline.is_some_and(|at| at <= self.now) && !self.ends[end].stalled {
                self.call(end, |paths, now| paths.tick(now));
                let next = self.ends[end].paths.deadline();
                assert!(
                    next.is_none_or(|next| next > self.now),
                    "a tick left something due"
                );
            }
        }
        true
    }

    fn send_data(&mut self, end: usize) {
        self.ends[end].data_at = self.now + self.ends[end].data_every.unwrap_or_default();
        if let Some(path) = self.ends[end].paths.current() {
            self.call(end, |paths, now| paths.carried(now));
            let route = Arrival {
                address: path.address,
                local: self.ends[end].paths.local(),
            };
            self.send(end, route, path.datagram_max, What::Data);
        }
    }

    fn deliver(&mut self) {
        let Some(Reverse(flight)) = self.flights.pop() else {
            return;
        };
        if self.ends[flight.to_end].stalled {
            let later = Flight {
                at: self.now + ms(1),
                ..flight
            };
            return self.flights.push(Reverse(later));
        }
        let Flight {
            to_end,
            from,
            to,
            len,
            what,
            ..
        } = flight;
        let here = |underlay: &Underlay| underlay.addresses[to_end] == to;
        match what {
            What::Unreachable => {
                let failure = if to == from {
                    SendFailure::TooBig
                } else {
                    SendFailure::Unreachable
                };
                self.call(to_end, |paths, now| {
                    paths.sent_failed(from, len, failure, now)
                });
            }
            What::Message(_) | What::Data if !self.underlays.iter().any(here) => {}
            What::Message(mut bytes) => {
                bytes.resize(usize::from(len - SEAL_LEN), 0);
                // Duplicates and late answers are refused; that is all that may go wrong here.
                let arrival = Arrival {
                    address: from,
                    local: Some(to.ip()),
                };
                let _ = self.call(to_end, |paths, now| {
                    paths.handle_message(arrival, len, &bytes, now)
                });
            }
            What::Data => {
                self.ends[to_end].data_received += 1;
                self.call(to_end, |paths, now| paths.heard(from, now));
            }
        }
    }

    pub(super) fn is_up(&self, end: usize) -> bool {
        self.ends[end].paths.current().is_some()
    }

    pub(super) fn both_up(&self) -> bool {
        self.is_up(0) && self.is_up(1)
    }

    pub(super) fn both_down(&self) -> bool {
        !self.is_up(0) && !self.is_up(1)
    }

    pub(super) fn datagram_max(&self, end: usize) -> u16 {
        self.ends[end]
            .paths
            .current()
            .map_or(0, |path| path.datagram_max)
    }

    pub(super) fn address_in_use(&self, end: usize) -> Option<SocketAddr> {
        self.ends[end].paths.current().map(|path| path.address)
    }

    pub(super) fn count(&self, end: usize, wanted: impl Fn(&Told) -> bool) -> usize {
        self.ends[end]
            .told
            .iter()
            .filter(|(_, told)| wanted(told))
            .count()
    }

    pub(super) fn downs(&self, end: usize) -> usize {
        self.count(end, |told| *told == Told::Down)
    }

    /// Messages that this end sent since then, answers left out (they are told by their length).
    pub(super) fn probes_since(
        &self,
        end: usize,
        since: Duration,
    ) -> Vec<(Duration, SocketAddr, u16)> {
        const REPLY: u16 = SEAL_LEN + 30;
        self.ends[end]
            .sent
            .iter()
            .copied()
            .filter(|(at, _, len)| *at >= since && *len != REPLY)
            .collect()
    }
}

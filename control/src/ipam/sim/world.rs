//! The hosts and what happens to them: events in their order, disks, crashes, and what the machines put out.

mod network;
mod users;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;

use super::checker::Checker;
use super::host::{Host, Write};
use super::plan::{Begin, Plan, below};
use crate::ipam::request::Request;
use crate::ipam::sight::Sight;
use crate::ipam::{Faults, Ipam, IpamConfig, IpamInit, IpamInput, IpamNotice, IpamOutput};
use crate::peer::{PeerId, PeerName};
use crate::random::Randomness;

/// Lines of the log that are kept.
const LOG_MAX: usize = 20_000;

/// Something that is to happen.
#[derive(Debug)]
pub(super) enum Event {
    Message {
        from: PeerId,
        to: usize,
        boot: u64,
        body: Vec<u8>,
    },
    Record {
        to: usize,
        origin: PeerId,
        part: u16,
        stamp: (u64, u64),
        body: Vec<u8>,
    },
    Written {
        host: usize,
        boot: u64,
    },
    Reload {
        host: usize,
        boot: u64,
    },
    Tick {
        host: usize,
        boot: u64,
    },
    See {
        host: usize,
    },
    Gossip,
}

/// What a request was for.
#[derive(Debug, Clone)]
struct Asked {
    at: Instant,
    host: usize,
    what: Request,
}

/// Everything.
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) now: Instant,
    pub(super) hosts: Vec<Host>,
    pub(super) random: Randomness,
    pub(super) checker: Checker,
    pub(super) is_calm: bool,
    /// Stores that were lost.
    pub(super) losses: u64,
    faults: Faults,
    events: BTreeMap<u64, Event>,
    queue: BinaryHeap<Reverse<(Instant, u64)>>,
    numbers: u64,
    boots: u64,
    asked: BTreeMap<u64, Asked>,
    containers: u64,
    start: Instant,
    /// How long the last answer took, and whether it was what was asked for.
    pub(super) last_answer: Option<(Duration, bool)>,
    /// What happened last, for the message of a test that fails.
    log: VecDeque<String>,
}

impl World {
    pub(super) fn new(seed: u64, plan: Plan, faults: Faults) -> Self {
        let start = crate::ipam::sim::tests::first_instant();
        let mut random = Randomness::seeded(seed);
        let ids: BTreeSet<PeerId> = (0..plan.hosts).map(|_| PeerId(random.bytes())).collect();
        let mut hosts: Vec<Host> = ids.into_iter().map(|id| Host::new(id, start)).collect();
        // The order of the list is the order in which hosts come, not that of their ids.
        for at in (1..hosts.len()).rev() {
            let other = usize::try_from(below(&mut random, at as u64 + 1)).unwrap_or(0);
            hosts.swap(at, other);
        }
        let mut world = Self {
            plan,
            now: start,
            hosts,
            random,
            checker: Checker::default(),
            is_calm: false,
            losses: 0,
            faults,
            events: BTreeMap::new(),
            queue: BinaryHeap::new(),
            numbers: 0,
            boots: 0,
            asked: BTreeMap::new(),
            containers: 0,
            start,
            last_answer: None,
            log: VecDeque::new(),
        };
        world.schedule(Duration::from_millis(500), Event::Gossip);
        world
    }

    fn note(&mut self, text: String) {
        if self.log.len() >= LOG_MAX {
            self.log.pop_front();
        }
        let at = self.now - self.start;
        self.log
            .push_back(format!("{:.3} {text}", at.as_secs_f64()));
    }

    /// The lines that mention a text.
    pub(super) fn log_about(&self, what: &[&str]) -> Vec<String> {
        let wanted = |line: &&String| what.iter().any(|what| line.contains(what));
        self.log.iter().filter(wanted).cloned().collect()
    }

    pub(super) fn chance(&mut self, percent: u64) -> bool {
        below(&mut self.random, 100) < percent
    }

    pub(super) fn pick(&mut self, count: usize) -> usize {
        usize::try_from(below(&mut self.random, count as u64)).unwrap_or(0)
    }

    fn schedule(&mut self, after: Duration, event: Event) {
        self.numbers += 1;
        self.queue.push(Reverse((self.now + after, self.numbers)));
        self.events.insert(self.numbers, event);
    }

    fn up_to(&mut self, ms: u64) -> Duration {
        Duration::from_micros(100 + below(&mut self.random, ms * 1000))
    }

    /// How long something is on its way, which otherwise takes up to `ms`.
    fn delay(&mut self, ms: u64) -> Duration {
        if self.plan.delay_is_fixed {
            Duration::from_millis(self.plan.delay_ms_max)
        } else {
            self.up_to(ms)
        }
    }

    /// Lets time pass.
    pub(super) fn run_for(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(Reverse((at, number))) = self.queue.peek().copied() {
            if at > end {
                break;
            }
            self.queue.pop();
            self.now = self.now.max(at);
            if let Some(event) = self.events.remove(&number) {
                self.happen(event);
            }
        }
        self.now = end;
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Message {
                from,
                to,
                boot,
                body,
            } => {
                if self.hosts[to].boot == boot {
                    self.feed(to, IpamInput::Message { from, body });
                }
            }
            Event::Record {
                to,
                origin,
                part,
                stamp,
                body,
            } => {
                self.take_record(to, origin, part, stamp, body);
            }
            Event::Written { host, boot } => self.written(host, boot),
            Event::Reload { host, boot } => {
                if self.hosts[host].boot == boot && self.hosts[host].is_up() {
                    let disk = self.hosts[host].disk.clone();
                    self.feed(host, IpamInput::Reloaded(disk));
                }
            }
            Event::Tick { host, boot } => {
                if self.hosts[host].boot == boot {
                    self.feed(host, IpamInput::Tick);
                    self.schedule(Duration::from_millis(100), Event::Tick { host, boot });
                }
            }
            Event::See { host } => self.see(host),
            Event::Gossip => {
                self.gossip();
                self.schedule(Duration::from_millis(500), Event::Gossip);
            }
        }
    }

    pub(super) fn range(&self) -> Ipv4Net {
        Ipv4Net::new(Ipv4Addr::new(10, 0, 0, 0), self.plan.prefix).expect("a prefix of IPv4")
    }

    fn config(&self, at: usize) -> IpamConfig {
        let id = self.hosts[at].id;
        let voters = self.plan.hosts - self.plan.observers - self.plan.late;
        let init = match self.plan.begin {
            Begin::Seeds => IpamInit::Seed(
                self.hosts[..voters]
                    .iter()
                    .map(|host| host.id.name())
                    .collect::<Vec<PeerName>>(),
            ),
            Begin::Consensus if at < voters => IpamInit::Consensus {
                electors: Some(voters),
            },
            Begin::Consensus => IpamInit::Observer,
        };
        let mut config =
            IpamConfig::new(id, id.name(), self.range(), init).with_faults(self.faults);
        config.incarnation = self.boots;
        config
    }

    pub(super) fn start(&mut self, at: usize) {
        if self.hosts[at].is_up() || self.hosts[at].has_left {
            return;
        }
        self.boots += 1;
        self.note(format!("host{at} starts as {}", self.hosts[at].id));
        let config = self.config(at);
        let random = self.random.fork();
        let host = &mut self.hosts[at];
        host.boot = self.boots;
        host.speaks_as = self.boots;
        host.flows.clear();
        host.blocked.clear();
        host.told.clear();
        host.records.retain(|(origin, _), _| *origin != host.id);
        host.last_write_at = self.now;
        let ipam = Ipam::new(config, host.disk.clone(), random, self.now);
        host.ipam = Some(ipam.expect("the disk is whole"));
        let boot = host.boot;
        self.drain(at);
        self.reconcile(at);
        self.schedule(Duration::from_millis(100), Event::Tick { host: at, boot });
        self.network_changed();
    }

    /// A daemon that starts looks at what really exists.
    fn reconcile(&mut self, at: usize) {
        let mut present = BTreeMap::new();
        let mut dead = Vec::new();
        for (holder, container) in &self.hosts[at].containers {
            if container.died_at.is_some() {
                dead.push(holder.clone());
            } else {
                let addresses = container.addresses.iter();
                let addresses = addresses.map(|address| self.with_prefix(*address));
                present.insert(holder.clone(), addresses.collect());
            }
        }
        self.ask(
            at,
            Request::Present(Sight {
                present,
                unsure: BTreeSet::new(),
            }),
        );
        let listed = self.hosts[at]
            .ipam
            .as_ref()
            .map(Ipam::in_use)
            .unwrap_or_default();
        for (holder, _) in listed {
            if !self.hosts[at].containers.contains_key(&holder) {
                dead.push(holder);
            }
        }
        for holder in dead {
            self.checker.returns(at, &holder, self.now);
            self.checker.died(at, &holder, self.now);
            if let Some(container) = self.hosts[at].containers.get_mut(&holder) {
                container.died_at = Some(self.now);
            }
            self.feed(at, IpamInput::Died(holder));
        }
    }

    /// kill -9: of the writes under way, some reach the disk.
    pub(super) fn crash(&mut self, at: usize) {
        if !self.hosts[at].is_up() {
            return;
        }
        self.note(format!("host{at} crashes"));
        let waiting = self.hosts[at].writes.len();
        let reached = self.pick(waiting + 1);
        let host = &mut self.hosts[at];
        let writes: Vec<Write> = host.writes.drain(..).collect();
        for write in writes.into_iter().take(reached) {
            host.apply(write.changes);
        }
        host.ipam = None;
        host.boot = 0;
        host.flows.clear();
        self.asked.retain(|_, asked| asked.host != at);
        self.network_changed();
    }

    fn written(&mut self, at: usize, boot: u64) {
        if self.hosts[at].boot != boot {
            return;
        }
        let Some(write) = self.hosts[at].writes.pop_front() else {
            return;
        };
        let token = write.token;
        if self.hosts[at].disk_fails {
            self.note(format!("host{at} write fails"));
            // What was queued behind it fails with it; the first may have been written all the same.
            if self.chance(50) {
                self.hosts[at].apply(write.changes);
            }
            self.hosts[at].writes.clear();
            self.feed(
                at,
                IpamInput::Persisted {
                    token,
                    durable: false,
                },
            );
            return;
        }
        self.hosts[at].apply(write.changes);
        if self.hosts[at].disk.contains_key(b"g".as_slice()) && self.chance(2) {
            let disk = self.hosts[at].disk.clone();
            self.hosts[at].old_disks.push(disk);
        }
        self.feed(
            at,
            IpamInput::Persisted {
                token,
                durable: true,
            },
        );
    }

    pub(super) fn feed(&mut self, at: usize, input: IpamInput) {
        let now = self.now;
        if let Some(ipam) = &mut self.hosts[at].ipam {
            ipam.handle(input, now);
        }
        self.drain(at);
    }

    fn drain(&mut self, at: usize) {
        let mut shows = false;
        while let Some(output) = self.hosts[at].ipam.as_mut().and_then(Ipam::poll_output) {
            match output {
                IpamOutput::Publish { part, body } => self.publish(at, part, body),
                IpamOutput::Send { to, body } => self.send(at, to, &body),
                IpamOutput::Persist { token, changes } => {
                    let after = self.up_to(self.plan.write_ms_max);
                    let host = &mut self.hosts[at];
                    host.writes.push_back(Write { token, changes });
                    let due = host.last_write_at.max(self.now + after);
                    host.last_write_at = due;
                    let boot = host.boot;
                    self.schedule(due - self.now, Event::Written { host: at, boot });
                }
                IpamOutput::Reload => {
                    let boot = self.hosts[at].boot;
                    self.hosts[at].disk_fails = false;
                    self.schedule(Duration::from_millis(300), Event::Reload { host: at, boot });
                }
                IpamOutput::Answer { request, result } => {
                    shows = true;
                    self.note(format!(
                        "host{at} answers {:?} {result:?}",
                        self.asked.get(&request.0).map(|asked| &asked.what)
                    ));
                    if let Some(asked) = self.asked.remove(&request.0) {
                        self.last_answer = Some((self.now - asked.at, result.is_ok()));
                        self.answered(&asked, result.ok());
                    }
                }
                IpamOutput::Flow { peer, flow } => {
                    shows = true;
                    self.note(format!("host{at} flow with {peer} {flow:?}"));
                    self.hosts[at].flows.insert(peer, flow);
                }
                IpamOutput::Blocked(blocked) => {
                    shows = true;
                    let addresses: Vec<Ipv4Addr> =
                        blocked.iter().map(|one| (*one).into()).collect();
                    self.note(format!("host{at} blocks {addresses:?}"));
                    self.hosts[at].blocked = blocked;
                }
                IpamOutput::Notice(notice) => self.noticed(at, &notice),
            }
        }
        if shows {
            self.watch_the_wire(at);
        }
    }

    fn noticed(&mut self, at: usize, notice: &IpamNotice) {
        self.note(format!("host{at} says {notice:?}"));
        match notice {
            IpamNotice::RingKnown { genesis } => self.checker.ring(genesis.to_string()),
            IpamNotice::Disputed { span } => self.checker.disputed(at, &span.to_string()),
            IpamNotice::Freed { holder } => {
                self.hosts[at].containers.remove(holder);
                self.checker.released(at, holder);
            }
            IpamNotice::Stranger { .. }
            | IpamNotice::Removed { .. }
            | IpamNotice::Readdress { .. }
            | IpamNotice::Settled { .. }
            | IpamNotice::Relearned { .. } => {}
        }
    }
}

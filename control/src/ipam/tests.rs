//! What users are promised, on a few machines whose messages arrive at once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::*;
use crate::ipam::sim::first_instant;

mod flows;
mod full;
mod host;
mod lost;
mod overlap;
mod seats;
mod taken;
mod told;
mod unwritten;

/// One machine with its disk and what it has said.
struct Machine {
    id: PeerId,
    config: IpamConfig,
    ipam: Option<Ipam>,
    disk: StoreContent,
    answers: BTreeMap<u64, Result<Reply, Failure>>,
    notices: Vec<IpamNotice>,
    blocked: BTreeSet<u32>,
    /// Writes are not carried out while this is set.
    holds_writes: bool,
    held: VecDeque<(u64, Vec<StoreChange>)>,
    disk_is_full: bool,
}

struct Net {
    machines: Vec<Machine>,
    now: Instant,
    numbers: u64,
    cut: BTreeSet<usize>,
    flows: Vec<Told>,
}

/// One change of what frames may do, and what each machine had blocked then.
#[derive(Debug)]
struct Told {
    at: usize,
    peer: PeerId,
    flow: Flow,
    blocked: Vec<BTreeSet<u32>>,
}

fn peer(n: u8) -> PeerId {
    PeerId([n; 16])
}

/// Removes a peer that is gone.
fn removal(victim: PeerId) -> Request {
    Request::Remove {
        victim,
        force: false,
        dry_run: false,
    }
}

fn net_of(text: &str) -> IpNet {
    text.parse().unwrap()
}

impl Net {
    fn new(count: u8, range: &str, init: &IpamInit) -> Self {
        let now = first_instant();
        let machines = (1..=count).map(|n| {
            let id = peer(n);
            Machine {
                id,
                config: IpamConfig::new(id, id.name(), range.parse().unwrap(), init.clone()),
                ipam: None,
                disk: StoreContent::new(),
                answers: BTreeMap::new(),
                notices: Vec::new(),
                blocked: BTreeSet::new(),
                holds_writes: false,
                held: VecDeque::new(),
                disk_is_full: false,
            }
        });
        Self {
            machines: machines.collect(),
            now,
            numbers: 0,
            cut: BTreeSet::new(),
            flows: Vec::new(),
        }
    }

    /// Hosts of one network: the first begins alone and owns everything, the others come later.
    fn started(count: u8, range: &str) -> Self {
        let mut net = Self::new(count, range, &IpamInit::Consensus { electors: None });
        for at in 0..usize::from(count) {
            net.start(at);
            net.feed(at, IpamInput::Targets(at.min(1)));
            assert_eq!(net.answer(at, Request::Prime), Ok(Reply::Done));
        }
        net
    }

    fn start(&mut self, at: usize) {
        let machine = &mut self.machines[at];
        let random = Randomness::seeded(at as u64);
        machine.config.incarnation += 1;
        let ipam = Ipam::new(
            machine.config.clone(),
            machine.disk.clone(),
            random,
            self.now,
        );
        machine.ipam = Some(ipam.unwrap());
        self.drain(at);
        self.meet();
    }

    fn kill(&mut self, at: usize) {
        self.machines[at].ipam = None;
        self.machines[at].held.clear();
        self.meet();
    }

    fn is_there(&self, at: usize) -> bool {
        self.machines[at].ipam.is_some() && !self.cut.contains(&at)
    }

    fn meet(&mut self) {
        for at in 0..self.machines.len() {
            let others = (0..self.machines.len())
                .filter(|other| *other != at && self.is_there(at) && self.is_there(*other))
                .map(|other| {
                    let contact = Contact {
                        label: format!("host{other}"),
                        name: self.machines[other].config.name,
                        nickname: String::new(),
                        incarnation: 1,
                        meets: true,
                    };
                    (self.machines[other].id, contact)
                });
            let contacts = others.collect();
            self.feed(at, IpamInput::Reachable(contacts));
        }
    }

    fn feed(&mut self, at: usize, input: IpamInput) {
        let now = self.now;
        if let Some(ipam) = &mut self.machines[at].ipam {
            ipam.handle(input, now);
        }
        self.drain(at);
    }

    fn drain(&mut self, at: usize) {
        while let Some(output) = self.machines[at].ipam.as_mut().and_then(Ipam::poll_output) {
            let from = self.machines[at].id;
            match output {
                IpamOutput::Publish { body, .. } => {
                    for to in 0..self.machines.len() {
                        if to != at && self.is_there(at) && self.is_there(to) && !body.is_empty() {
                            let (origin, body) = (from, body.clone());
                            self.feed(to, IpamInput::Record { origin, body });
                        }
                    }
                }
                IpamOutput::Send { to, body } => {
                    let target = self.machines.iter().position(|machine| machine.id == to);
                    let target = target.filter(|to| self.is_there(at) && self.is_there(*to));
                    if let Some(target) = target {
                        self.feed(target, IpamInput::Message { from, body });
                    }
                }
                IpamOutput::Persist { token, changes } => {
                    self.machines[at].held.push_back((token, changes));
                    if !self.machines[at].holds_writes {
                        self.carry_out_writes(at);
                    }
                }
                IpamOutput::Answer { request, result } => {
                    self.machines[at].answers.insert(request.0, result);
                }
                IpamOutput::Blocked(blocked) => self.machines[at].blocked = blocked,
                IpamOutput::Notice(notice) => self.machines[at].notices.push(notice),
                IpamOutput::Flow { peer, flow } => {
                    let machines = self.machines.iter();
                    let blocked = machines.map(|machine| machine.blocked.clone()).collect();
                    self.flows.push(Told {
                        at,
                        peer,
                        flow,
                        blocked,
                    });
                }
                IpamOutput::Reload => {}
            }
        }
    }

    fn carry_out_writes(&mut self, at: usize) {
        while let Some((token, changes)) = self.machines[at].held.pop_front() {
            let durable = !self.machines[at].disk_is_full;
            if durable {
                for (key, value) in changes {
                    match value {
                        Some(value) => self.machines[at].disk.insert(key, value),
                        None => self.machines[at].disk.remove(&key),
                    };
                }
            }
            self.feed(at, IpamInput::Persisted { token, durable });
        }
    }

    fn run_for(&mut self, span: Duration) {
        let end = self.now + span;
        while self.now < end {
            self.now += Duration::from_millis(100);
            for at in 0..self.machines.len() {
                self.feed(at, IpamInput::Tick);
            }
        }
    }

    fn ask(&mut self, at: usize, what: Request) -> u64 {
        self.numbers += 1;
        let request = IpamRequestId(self.numbers);
        let deadline = None;
        self.feed(
            at,
            IpamInput::Request {
                request,
                what,
                deadline,
            },
        );
        self.numbers
    }

    /// Asks and lets up to ten seconds pass.
    fn answer(&mut self, at: usize, what: Request) -> Result<Reply, Failure> {
        let number = self.ask(at, what);
        for _ in 0..110 {
            if let Some(answer) = self.machines[at].answers.remove(&number) {
                return answer;
            }
            self.run_for(Duration::from_millis(100));
        }
        panic!("no answer in its time");
    }

    fn allocate(&mut self, at: usize, holder: &str, subnet: &str) -> String {
        let subnet = (!subnet.is_empty()).then(|| subnet.parse().unwrap());
        let holder = holder.to_owned();
        match self.answer(at, Request::Allocate { holder, subnet }) {
            Ok(Reply::Addresses(addresses)) => addresses[0].to_string(),
            other => format!("{other:?}"),
        }
    }

    fn claim(&mut self, at: usize, holder: &str, address: &str) -> Result<Reply, Failure> {
        let holder = holder.to_owned();
        let address = net_of(address);
        self.answer(at, Request::Claim { holder, address })
    }

    fn release(&mut self, at: usize, holder: &str) {
        let holder = holder.to_owned();
        self.answer(at, Request::ReleaseAll { holder }).unwrap();
    }

    fn status(&self, at: usize) -> request::IpamStatus {
        self.machines[at].ipam.as_ref().unwrap().status()
    }

    fn owns(&self, at: usize) -> u64 {
        let id = self.machines[at].id;
        let owners = self.status(at).owners;
        owners
            .iter()
            .find(|owner| owner.peer == id)
            .map_or(0, |owner| owner.count)
    }
}

#[test]
fn the_first_addresses_are_those_of_the_walkthrough() {
    let mut net = Net::started(2, "10.32.0.0/12");

    assert_eq!(net.allocate(0, "a2", ""), "10.32.0.1/12");
    assert_eq!(net.allocate(1, "a3", ""), "10.44.0.0/12");
    assert_eq!(net.allocate(0, "a4", ""), "10.32.0.2/12");
    assert_eq!(net.allocate(0, "a2", ""), "10.32.0.1/12", "the same again");
    net.release(0, "a2");
    assert_eq!(
        net.allocate(0, "a5", ""),
        "10.32.0.1/12",
        "the lowest that is free"
    );
}

#[test]
fn subnets_have_addresses_of_their_own() {
    let mut net = Net::started(1, "10.0.3.0/26");
    assert_eq!(net.allocate(0, "c1", "10.0.3.0/28"), "10.0.3.1/28");
    assert_eq!(net.allocate(0, "c1", "10.0.3.32/28"), "10.0.3.33/28");
    assert_eq!(net.allocate(0, "c2", "10.0.3.0/28"), "10.0.3.2/28");
    let outside = net.answer(
        0,
        Request::Allocate {
            holder: "c".into(),
            subnet: "10.9.0.0/24".parse().ok(),
        },
    );
    let why = outside.unwrap_err().to_string();
    let range = "range 10.9.0.0/24 out of bounds: 10.0.3.0/26; ";
    assert!(
        why.starts_with(range) && why.contains("--ipalloc-range"),
        "{why}"
    );
}

#[test]
fn nothing_is_answered_or_said_before_it_is_on_disk() {
    let mut net = Net::started(2, "10.32.0.0/12");
    net.allocate(0, "first", "");
    net.machines[0].holds_writes = true;

    let number = net.ask(
        0,
        Request::Allocate {
            holder: "c".into(),
            subnet: None,
        },
    );
    let other = net.ask(
        1,
        Request::Allocate {
            holder: "d".into(),
            subnet: None,
        },
    );
    assert!(!net.machines[0].answers.contains_key(&number));
    assert!(
        !net.machines[1].answers.contains_key(&other),
        "a gift waits for its write, too"
    );

    net.machines[0].holds_writes = false;
    net.carry_out_writes(0);
    assert!(net.machines[0].answers[&number].is_ok());
    net.run_for(Duration::from_secs(1));
    assert!(net.machines[1].answers[&other].is_ok());
}

#[test]
fn a_killed_host_comes_back_with_what_it_had_acknowledged() {
    let mut net = Net::started(1, "10.32.0.0/12");
    net.allocate(0, "a", "");
    net.allocate(0, "b", "");
    net.kill(0);
    net.start(0);
    assert_eq!(net.allocate(0, "b", ""), "10.32.0.2/12");
    assert_eq!(net.allocate(0, "c", ""), "10.32.0.3/12");
}

#[test]
fn claims_hold_against_others_here_and_elsewhere() {
    let mut net = Net::started(2, "10.32.0.0/12");
    net.allocate(0, "x", "");

    assert!(net.claim(0, "a", "10.32.7.7/12").is_ok());
    assert!(net.claim(0, "a", "10.32.7.7/12").is_ok(), "its own again");
    let held = net.claim(0, "b", "10.32.7.7/12").unwrap_err().to_string();
    assert_eq!(held, "address 10.32.7.7 is already owned by a");
    let elsewhere = net.claim(1, "c", "10.32.7.7/12").unwrap_err().to_string();
    assert_eq!(elsewhere, "address 10.32.7.7 is owned by other peer host0");
    assert!(
        net.claim(1, "d", "10.32.9.9/12").is_ok(),
        "fetched from its owner"
    );
    assert_eq!(
        net.claim(0, "e", "10.32.9.9/12").unwrap_err().to_string(),
        "address 10.32.9.9 is owned by other peer host1"
    );
    assert!(
        net.claim(0, "f", "192.0.2.1/24").is_ok(),
        "outside the range"
    );
    assert!(net.claim(0, "g", "192.0.2.1/24").is_err());
}

#[test]
fn addresses_in_use_at_the_start_are_never_handed_out() {
    let mut net = Net::started(1, "10.32.0.0/12");
    let addresses = vec![net_of("10.32.0.1/12"), net_of("10.32.0.2/12")];
    let holder = ANONYMOUS.to_owned();
    let present = BTreeMap::from([(holder, addresses)]);
    net.answer(
        0,
        Request::Present(Sight {
            present,
            unsure: BTreeSet::new(),
        }),
    )
    .unwrap();

    assert_eq!(net.allocate(0, "a", ""), "10.32.0.3/12");
    assert!(
        net.claim(0, "b", "10.32.0.1/12").is_ok(),
        "a container takes over what was found without a name"
    );
    assert!(net.claim(0, "c", "10.32.0.1/12").is_err());
}

#[test]
fn a_dead_container_keeps_its_address_for_thirty_seconds() {
    let mut net = Net::started(1, "10.32.0.0/12");
    net.allocate(0, "a", "");
    net.feed(0, IpamInput::Died("a".into()));
    net.run_for(Duration::from_secs(29));
    assert_eq!(net.allocate(0, "b", ""), "10.32.0.2/12");
    assert_eq!(net.allocate(0, "a", ""), "10.32.0.1/12", "it is back");
    net.feed(0, IpamInput::Died("a".into()));
    net.run_for(Duration::from_secs(31));
    assert_eq!(net.allocate(0, "c", ""), "10.32.0.1/12");
}

#[test]
fn without_a_quorum_a_request_says_what_it_waits_for() {
    let mut net = Net::new(
        2,
        "10.32.0.0/12",
        &IpamInit::Consensus { electors: Some(3) },
    );
    net.start(0);
    let number = net.ask(
        0,
        Request::Allocate {
            holder: "a".into(),
            subnet: None,
        },
    );
    assert_eq!(
        net.status(0).state,
        "awaiting consensus (quorum: 2, known: 1)"
    );
    let address = net_of("10.32.0.9/12");
    net.ask(
        0,
        Request::Claim {
            holder: "b".into(),
            address,
        },
    );
    net.ask(0, Request::Prime);
    let status = net.status(0);
    let of = |holder: &str, asked: &str| vec![(holder.to_owned(), net_of(asked))];
    assert_eq!(status.pending_allocates, of("a", "10.32.0.0/12"));
    assert_eq!(status.pending_claims, of("b", "10.32.0.9/12"));
    assert_eq!(status.waiting, 3, "the prime, too");
    let election = status.election.map(|it| (it.votes, it.known, it.quorum));
    assert_eq!(election, Some((true, 1, 2)));
    net.release(0, "nobody");
    net.run_for(Duration::from_secs(11));
    let failure = net.machines[0]
        .answers
        .remove(&number)
        .unwrap()
        .unwrap_err();
    assert_eq!(
        failure.to_string(),
        "no ring yet: awaiting consensus (quorum: 2, known: 1)"
    );
    let state = net.status(0).state;
    assert!(
        state.starts_with("awaiting consensus"),
        "still wanted: {state}"
    );

    net.start(1);
    assert_eq!(net.answer(0, Request::Prime), Ok(Reply::Done));
    assert_eq!(net.owns(0) + net.owns(1), 1 << 20);
    assert_eq!(net.status(0).election, None);
}

#[test]
fn an_observer_gets_space_and_never_votes() {
    let mut net = Net::new(
        2,
        "10.32.0.0/12",
        &IpamInit::Consensus { electors: Some(1) },
    );
    net.machines[1].config.init = IpamInit::Observer;
    net.start(1);
    net.start(0);
    assert_eq!(net.allocate(1, "a", ""), "10.40.0.0/12");
    assert_eq!(net.status(1).members, [peer(1)]);
}

#[test]
fn seeds_make_one_ring_without_a_word() {
    let names = [peer(1).name(), peer(2).name()];
    let mut net = Net::new(2, "10.32.0.0/12", &IpamInit::Seed(names.to_vec()));
    net.cut = BTreeSet::from([0, 1]);
    net.start(0);
    net.start(1);
    let apart = [net.allocate(0, "a", ""), net.allocate(1, "b", "")];
    assert!(
        apart.contains(&"10.32.0.1/12".to_owned()) && apart.contains(&"10.40.0.0/12".to_owned()),
        "{apart:?}"
    );
    let seeds = |net: &Net| {
        net.status(0)
            .owners
            .iter()
            .filter_map(|owner| owner.seed)
            .collect::<Vec<_>>()
    };
    assert_eq!(seeds(&net), [peer(2).name()], "not heard of yet");
    net.cut.clear();
    net.meet();
    net.run_for(Duration::from_secs(1));
    assert_eq!((net.owns(0), net.owns(1)), (1 << 19, 1 << 19));
    assert_eq!(seeds(&net), []);
    assert!(net.status(0).strangers.is_empty());
}

#[test]
fn two_networks_that_meet_refuse_each_other_and_go_on() {
    let mut net = Net::new(2, "10.32.0.0/12", &IpamInit::Consensus { electors: None });
    net.cut = BTreeSet::from([0, 1]);
    net.start(0);
    net.start(1);
    net.allocate(0, "a", "");
    net.allocate(1, "b", "");
    net.cut.clear();
    net.meet();
    net.run_for(Duration::from_secs(1));

    for at in [0, 1] {
        assert_eq!(net.status(at).strangers.len(), 1);
        let said = net.machines[at].notices.iter().any(|notice| {
            matches!(notice, IpamNotice::Stranger { why, .. } if why.contains("begun apart"))
        });
        assert!(said);
        assert_eq!(net.allocate(at, "c", ""), "10.32.0.2/12");
    }
}

#[test]
fn other_ranges_are_refused_and_each_is_gone_on_with_where_it_was_left() {
    let mut net = Net::started(2, "10.32.0.0/12");
    net.allocate(0, "a", "");
    net.kill(0);
    net.machines[0].config.range = "10.2.0.0/16".parse().unwrap();
    net.machines[0].config.default_subnet = "10.2.0.0/16".parse().unwrap();
    let earlier = std::mem::take(&mut net.machines[0].disk);
    net.start(0);
    assert_eq!(net.allocate(0, "b", ""), "10.2.0.1/16");
    assert_eq!(net.status(0).strangers, [peer(2)]);

    net.kill(0);
    let range = net.machines[1].config.range;
    (
        net.machines[0].config.range,
        net.machines[0].config.default_subnet,
    ) = (range, range);
    let (config, other) = (net.machines[0].config.clone(), net.machines[0].disk.clone());
    assert!(Ipam::new(config, other, Randomness::seeded(0), net.now).is_err());
    net.machines[0].disk = earlier;
    net.start(0);
    assert_eq!(net.status(0).strangers, []);
    assert_eq!(net.allocate(0, "c", ""), "10.32.0.2/12");
}

#[test]
fn two_who_remove_the_same_peer_each_say_what_they_took_over_themselves() {
    let mut net = Net::started(4, "10.32.0.0/12");
    net.allocate(0, "a", "");
    net.run_for(Duration::from_secs(8));
    let owned = net.owns(0);
    net.kill(0);
    let removal = Request::Remove {
        victim: peer(1),
        force: false,
        dry_run: false,
    };

    let asked = [1, 2].map(|at| (at, net.ask(at, removal.clone())));
    net.run_for(Duration::from_secs(8));

    let mut taken = 0;
    for (at, number) in asked {
        let Some(Ok(Reply::Removed { count, others, .. })) =
            net.machines[at].answers.remove(&number)
        else {
            panic!("{at} has no answer");
        };
        let elsewhere: u64 = others.iter().map(|(_, count)| count).sum();
        assert_eq!(count + elsewhere, owned, "{at}");
        assert!(others.iter().all(|(peer, _)| *peer != net.machines[at].id));
        taken += count;
    }
    assert_eq!(taken, owned);
    let Ok(Reply::Removed { count, others, .. }) = net.answer(3, removal) else {
        panic!("it is gone already");
    };
    let elsewhere: u64 = others.iter().map(|(_, count)| count).sum();
    assert_eq!((count, elsewhere), (0, owned));
}

#[test]
fn a_dead_peer_is_removed_by_most_of_the_others_and_comes_back_without_its_ranges() {
    let mut net = Net::started(3, "10.32.0.0/12");
    let address = net.allocate(0, "a", "");
    net.run_for(Duration::from_secs(8));
    assert_eq!(net.status(1).members.len(), 3);

    let removal = |dry_run| Request::Remove {
        victim: peer(1),
        force: false,
        dry_run,
    };
    assert!(matches!(
        net.answer(1, removal(false)),
        Err(Failure::Alive { .. })
    ));
    net.cut.insert(0);
    net.meet();
    assert_eq!(
        net.answer(1, removal(true)),
        Ok(Reply::Removed {
            count: 1 << 20,
            others: Vec::new(),
            votes: 2,
            majority: 2
        })
    );
    assert_eq!(net.owns(1), 0, "a dry run changes nothing");
    let Ok(Reply::Removed { count, .. }) = net.answer(1, removal(false)) else {
        panic!("it is removed")
    };
    assert_eq!(count, 1 << 20);
    assert!(
        matches!(
            net.answer(1, removal(false)),
            Ok(Reply::Removed { count: 0, .. })
        ),
        "once"
    );
    assert_eq!(net.allocate(1, "b", ""), "10.32.0.1/12");
    assert_eq!(net.allocate(2, "c", ""), "10.44.0.0/12");

    net.cut.clear();
    net.meet();
    net.run_for(Duration::from_secs(3));
    assert!(
        net.machines[0]
            .notices
            .iter()
            .any(|notice| matches!(notice, IpamNotice::Removed { .. }))
    );
    assert!(
        net.machines[0]
            .notices
            .iter()
            .any(|notice| matches!(notice, IpamNotice::Readdress { holder, .. } if holder == "a"))
    );
    assert_eq!(
        net.machines[0].blocked.len(),
        1,
        "{address} is in use elsewhere"
    );
    assert_ne!(net.allocate(0, "a", ""), address);
    assert_eq!(
        net.machines[0].blocked.len(),
        1,
        "it is on the interface still"
    );
    let (holder, address) = ("a".to_owned(), "10.32.0.1".parse().unwrap());
    net.answer(0, Request::Release { holder, address }).unwrap();
    assert!(net.machines[0].blocked.is_empty());
}

#[test]
fn two_hosts_alone_need_force_and_are_told_so() {
    let mut net = Net::started(2, "10.32.0.0/12");
    net.allocate(0, "a", "");
    net.run_for(Duration::from_secs(5));
    net.kill(0);
    let failure = net.answer(
        1,
        Request::Remove {
            victim: peer(1),
            force: false,
            dry_run: false,
        },
    );
    let text = failure.unwrap_err().to_string();
    assert!(
        text.contains("needs 2 of 2 votes, 1 within reach; --force"),
        "{text}"
    );
    let forced = net.answer(
        1,
        Request::Remove {
            victim: peer(1),
            force: true,
            dry_run: false,
        },
    );
    assert!(matches!(forced, Ok(Reply::Removed { count, .. }) if count > 0));
    assert_eq!(net.owns(1), 1 << 20);
}

#[test]
fn hosts_that_leave_one_after_the_other_lose_nothing() {
    let mut net = Net::started(3, "10.32.0.0/12");
    for at in 0..3 {
        net.allocate(at, "a", "");
    }
    net.run_for(Duration::from_secs(5));
    for at in 0..2 {
        let left = net.answer(at, Request::Leave);
        assert!(
            matches!(left, Ok(Reply::Left { heir: Some(_), .. })),
            "{left:?}"
        );
        net.kill(at);
        net.run_for(Duration::from_secs(3));
    }
    assert_eq!(net.owns(2), 1 << 20);
    let alone = net.answer(2, Request::Leave);
    assert_eq!(
        alone,
        Ok(Reply::Left {
            heir: None,
            count: 0
        }),
        "nobody is left to give anything to"
    );
}

/// It may have given ranges away before it was started anew, and then be the only one that knows.
#[test]
fn a_host_that_owns_nothing_leaves_when_an_owner_knows_what_it_knows() {
    let mut net = Net::new(2, "10.32.0.0/12", &IpamInit::Consensus { electors: None });
    net.machines[1].config.init = IpamInit::Observer;
    for at in 0..2 {
        net.start(at);
        assert_eq!(net.answer(at, Request::Prime), Ok(Reply::Done));
    }
    assert_eq!(net.owns(1), 0);
    assert!(net.status(1).genesis.is_some());
    net.cut.insert(1);
    net.meet();
    assert_eq!(net.answer(1, Request::Leave), Err(Failure::Unheard));

    net.cut.clear();
    net.meet();
    // The other leaves at the same moment, and goes last.
    let requests = [1, 0].map(|at| net.ask(at, Request::Leave));
    let (heir, count) = (None, 0);
    let left = Ok(Reply::Left { heir, count });
    net.run_for(Duration::from_secs(1));
    assert_eq!(
        net.machines[1].answers.remove(&requests[0]),
        Some(left.clone())
    );
    net.kill(1);
    net.run_for(Duration::from_secs(2));
    assert_eq!(net.machines[0].answers.remove(&requests[1]), Some(left));
}

#[test]
fn a_host_whose_peers_are_gone_rests() {
    let mut net = Net::started(2, "10.32.0.0/12");
    net.run_for(Duration::from_secs(10));
    net.kill(1);
    net.run_for(Duration::from_secs(10));
    let deadline = net.machines[0].ipam.as_ref().unwrap().deadline();
    assert!(deadline.is_none_or(|at| at > net.now));
}

#[test]
fn a_full_disk_fails_requests_at_once_and_is_got_over() {
    let mut net = Net::started(1, "10.32.0.0/12");
    net.allocate(0, "a", "");
    net.machines[0].disk_is_full = true;
    assert_eq!(
        net.answer(
            0,
            Request::Allocate {
                holder: "b".into(),
                subnet: None
            }
        ),
        Err(Failure::Store)
    );
    assert_eq!(
        net.answer(
            0,
            Request::Allocate {
                holder: "c".into(),
                subnet: None
            }
        ),
        Err(Failure::Store)
    );

    net.machines[0].disk_is_full = false;
    let disk = net.machines[0].disk.clone();
    net.feed(0, IpamInput::Reloaded(disk));
    assert_eq!(net.allocate(0, "d", ""), "10.32.0.2/12");
    assert_eq!(net.allocate(0, "a", ""), "10.32.0.1/12");
}

#[test]
fn a_freed_range_gives_its_upper_half() {
    let mut net = Net::started(2, "10.32.0.0/12");
    net.allocate(0, "a", "");
    net.release(0, "a");
    net.allocate(1, "b", "");
    assert_eq!((net.owns(0), net.owns(1)), (1 << 19, 1 << 19));
}

#[test]
fn a_full_subnet_says_who_has_none_left() {
    let mut net = Net::started(2, "10.0.0.0/29");
    for n in 0..3 {
        net.allocate(0, &format!("a{n}"), "");
        net.allocate(1, &format!("b{n}"), "");
    }
    let full = net.answer(
        0,
        Request::Allocate {
            holder: "c".into(),
            subnet: None,
        },
    );
    assert_eq!(
        full.unwrap_err().to_string(),
        "no free address in 10.0.0.0/29: host1 has none to give"
    );
    net.kill(1);
    let lost = net
        .answer(
            0,
            Request::Allocate {
                holder: "c".into(),
                subnet: None,
            },
        )
        .unwrap_err();
    assert!(
        lost.to_string()
            .contains("out of reach (rmpeer takes over the dead)"),
        "{lost}"
    );
}

#[test]
fn an_address_of_the_default_subnet_has_one_of_ipv6_beside_it() {
    let init = IpamInit::Consensus { electors: None };
    let mut net = Net::new(1, "10.32.0.0/12", &init);
    net.machines[0].config.range6 = "fd57::/64".parse().ok();
    net.start(0);
    let holder = || "a".to_owned();
    let asked = net.answer(
        0,
        Request::Allocate {
            holder: holder(),
            subnet: None,
        },
    );
    let Ok(Reply::Addresses(addresses)) = asked else {
        panic!("{asked:?}")
    };
    assert_eq!(addresses.len(), 2);
    assert!(addresses[1].to_string().starts_with("fd57::") && addresses[1].prefix_len() == 64);
    let subnet = "10.32.0.0/12".parse().ok();
    assert_eq!(
        net.answer(
            0,
            Request::Lookup {
                holder: holder(),
                subnet
            }
        ),
        Ok(Reply::Addresses(addresses))
    );
    assert_eq!(
        net.allocate(0, "a", "10.32.0.0/24"),
        "10.32.0.2/24",
        "another subnet has none"
    );
}

#[test]
fn a_host_that_runs_twice_gives_no_addresses() {
    let mut net = Net::started(1, "10.32.0.0/12");
    net.allocate(0, "a", "");
    net.feed(0, IpamInput::Cloned(true));
    assert_eq!(
        net.answer(
            0,
            Request::Allocate {
                holder: "b".into(),
                subnet: None
            }
        ),
        Err(Failure::Cloned)
    );
    assert_eq!(
        net.allocate(0, "a", ""),
        "10.32.0.1/12",
        "what it has it keeps"
    );
}

//! The figures of a mesh of N hosts: how fast news spread, how much is said, how soon all is whole again.
//!
//! ```text
//!  start all ─► reachable ─► settle ─► idle ─► changes ─► floods ─► split and join ─► settle ─► bad line: changes
//! ```
//!
//! Every host dials the first one and nothing else. Round trips are 50 ms, give or take a tenth. Each stage says its
//! figure; a stage that does not come to its end within its limit has none. All follows from the seed.

use std::time::Duration;

use super::frames::FrameId;
use super::host::HostSpec;
use super::underlay::address_of;
use super::{HostId, Sim};
use crate::record::{RecordKind, Version};

/// Half a round trip.
const LATENCY: Duration = Duration::from_millis(25);
/// Longest wait for all pairs to be reachable after a cold start.
const COLD_START_MAX: Duration = Duration::from_secs(240);
/// Between the moment when all is reachable and stages that count what is said: by then links beyond need have ended.
const SETTLE_LONG: Duration = Duration::from_secs(120);
/// The same where only others follow: it takes long for many hosts.
const SETTLE: Duration = Duration::from_secs(20);
/// The idle stage.
const IDLE: Duration = Duration::from_secs(120);
/// Changes that are followed at most, for how many hosts there is one (in a small mesh soon everybody has a link to
/// everybody), and how long each is followed.
const CHANGES: usize = 12;
const HOSTS_A_CHANGE: usize = 4;
const CHANGE_MAX: Duration = Duration::from_secs(30);
/// Floods that are followed.
const FLOODS: usize = 20;
/// Until all sources have handed out what members need to open their floods.
const FLOODS_SETTLE: Duration = Duration::from_secs(40);
/// Pairs whose frames are followed through the split and the join.
const PAIRS: usize = 20;
/// How long the hosts are parted: links are dead by then.
const SPLIT: Duration = Duration::from_secs(60);
const HEAL_MAX: Duration = Duration::from_secs(60);
/// Between that and the bad line: halves that were parted look for new links, and so do those that have them again.
const SETTLE_HEALED: Duration = Duration::from_secs(45);
/// Between the beginning of the loss and the first change; what is said in this time is counted.
const SETTLE_LOSSY: Duration = Duration::from_secs(60);
/// Share of segments and datagrams lost on the bad line.
const BAD_LOSS: f64 = 0.2;

/// What is measured once all pairs are reachable and the mesh has settled; in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// What is said while nothing happens.
    Idle,
    /// How fast a change of links becomes known.
    Changes,
    /// Broadcasts.
    Floods,
    /// A split in two halves, and its end.
    Heal,
    /// A bad line.
    Lossy,
}

impl Stage {
    /// All, with their names.
    pub const ALL: [(&'static str, Self); 5] = [
        ("idle", Self::Idle),
        ("changes", Self::Changes),
        ("floods", Self::Floods),
        ("heal", Self::Heal),
        ("lossy", Self::Lossy),
    ];
}

/// What one mesh showed.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// Hosts.
    pub hosts: usize,
    /// All randomness comes from it.
    pub seed: u64,
    /// Until each host knows each other.
    pub acquainted_s: Option<f64>,
    /// Until each host has a route to each other.
    pub cold_start_s: Option<f64>,
    /// Control bytes that a host sent until then, on average, in KiB.
    pub cold_start_kib: f64,
    /// Links of a host, on average and at most.
    pub links: (f64, usize),
    /// Hops of a route, on average and at most.
    pub hops: (f64, usize),
    /// Control traffic that an idle host sends, on average and at most, in kbit/s, with headers.
    pub idle_kbit: (f64, f64),
    /// Probes of its paths, in kbit/s on average.
    pub idle_probes_kbit: f64,
    /// Control traffic that a host sends while 20 % are lost, on average, in kbit/s, with headers.
    pub lossy_kbit: f64,
    /// From a change of a host's links until all others know it: median and 99th percentile in ms.
    pub change_ms: Option<(f64, f64)>,
    /// The same with 20 % loss.
    pub change_lossy_ms: Option<(f64, f64)>,
    /// From the end of a split in two halves until all pairs are reachable.
    pub heal_s: Option<f64>,
    /// Floods: copies transmitted for each member, most copies that one member got, members that got none.
    pub flood: (f64, u64, usize),
    /// Most transmissions of one frame between two hosts while routes changed.
    pub transient_hops_max: u64,
    /// Events of the simulation.
    pub events: u64,
    /// The trace hash: the same for the same seed and program.
    pub trace: u64,
}

/// Starts a mesh of that many hosts and runs these stages; tells each stage's end in words, and all that is measured
/// by then.
pub fn run(
    hosts: usize,
    seed: u64,
    stages: &[Stage],
    say: &mut dyn FnMut(&str, &Figures),
) -> Figures {
    let mut mesh = Mesh {
        sim: Sim::new(seed),
        figures: Figures {
            hosts,
            seed,
            ..Figures::default()
        },
    };
    mesh.sim.latency = LATENCY;
    mesh.sim.underlay.weather.jitter_percent = 10;
    say(&format!("{hosts} hosts, seed {seed}"), &mesh.figures);
    mesh.cold_start(hosts, say);
    if stages.contains(&Stage::Idle) || stages.contains(&Stage::Lossy) {
        mesh.sim.run_for(SETTLE_LONG);
    } else if !stages.is_empty() {
        mesh.sim.run_for(SETTLE);
    }
    for (_, stage) in Stage::ALL {
        if stages.contains(&stage) {
            mesh.measure(stage, say);
        }
    }
    mesh.figures.events = mesh.sim.trace.events;
    mesh.figures.trace = mesh.sim.trace.hash;
    mesh.figures
}

struct Mesh {
    sim: Sim,
    figures: Figures,
}

impl Mesh {
    fn measure(&mut self, stage: Stage, say: &mut dyn FnMut(&str, &Figures)) {
        match stage {
            Stage::Idle => self.idle(say),
            Stage::Changes => {
                self.figures.change_ms = self.changes();
                say(&changes_in_words(self.figures.change_ms), &self.figures);
            }
            Stage::Floods => self.floods(say),
            Stage::Heal => self.heal(say),
            Stage::Lossy => self.lossy(say),
        }
    }

    fn cold_start(&mut self, hosts: usize, say: &mut dyn FnMut(&str, &Figures)) {
        let first = address_of(0).to_string();
        for host in 0..hosts {
            let spec = HostSpec::new(format!("h{host}"));
            let targets: &[&str] = if host == 0 { &[] } else { &[&first] };
            self.sim.add(spec.dialling(targets));
        }
        let pace = Duration::from_millis(if hosts > 300 { 500 } else { 100 });
        self.figures.acquainted_s = self
            .sim
            .run_until_seen(COLD_START_MAX, pace, Sim::is_acquainted)
            .map(|took| took.as_secs_f64());
        say(
            &format!("acquainted after {:?} s", self.figures.acquainted_s),
            &self.figures,
        );
        let already = Duration::from_secs_f64(self.figures.acquainted_s.unwrap_or_default());
        let took = self
            .sim
            .run_until_seen(COLD_START_MAX, pace, Sim::is_reachable);
        self.figures.cold_start_s = took.map(|took| (already + took).as_secs_f64());
        self.figures.cold_start_kib =
            self.control_bytes().iter().sum::<u64>() as f64 / 1024.0 / hosts.max(1) as f64;
        say(
            &format!(
                "reachable after {:?} s, {:.0} KiB a host",
                self.figures.cold_start_s, self.figures.cold_start_kib
            ),
            &self.figures,
        );
        if took.is_none() {
            let reach = self.sim.reach();
            say(
                &format!(
                    "{} of {} pairs; looping {}; missing {:?}",
                    reach.reachable,
                    reach.pairs,
                    reach.looping.len(),
                    reach.missing
                ),
                &self.figures,
            );
        }
    }

    /// Bytes that each host has sent for control, on links and in sessions.
    fn control_bytes(&self) -> Vec<u64> {
        let sent = self.sim.hosts.iter().map(|host| host.sent);
        sent.map(|sent| sent.link_bytes + sent.session_bytes)
            .collect()
    }

    fn probe_bytes(&self) -> u64 {
        let hosts = self.sim.hosts.iter();
        hosts.map(|host| host.sent.probe_bytes).sum()
    }

    fn idle(&mut self, say: &mut dyn FnMut(&str, &Figures)) {
        let (before, probes_before) = (self.control_bytes(), self.probe_bytes());
        self.sim.run_for(IDLE);
        let after = self.control_bytes();
        let kbit = |bytes: u64| bytes as f64 * 8.0 / 1000.0 / IDLE.as_secs_f64();
        let sent: Vec<u64> = after.iter().zip(&before).map(|(a, b)| a - b).collect();
        let hosts = sent.len().max(1) as f64;
        self.figures.idle_kbit = (
            kbit(sent.iter().sum()) / hosts,
            kbit(sent.iter().copied().max().unwrap_or_default()),
        );
        self.figures.idle_probes_kbit = kbit(self.probe_bytes() - probes_before) / hosts;
        let links: Vec<_> = self.sim.hosts.iter().map(|host| host.wires.len()).collect();
        self.figures.links = (
            links.iter().sum::<usize>() as f64 / hosts,
            links.iter().copied().max().unwrap_or_default(),
        );
        let reach = self.sim.reach();
        self.figures.hops = (
            reach.hops as f64 / reach.reachable.max(1) as f64,
            reach.hops_max,
        );
        say(
            &format!(
                "idle: {:.2} kbit/s a host, {:.2} at most, probes {:.2}; links {:.1}, at most {}; hops {:.2}, at most {}",
                self.figures.idle_kbit.0,
                self.figures.idle_kbit.1,
                self.figures.idle_probes_kbit,
                self.figures.links.0,
                self.figures.links.1,
                self.figures.hops.0,
                self.figures.hops.1,
            ),
            &self.figures,
        );
    }

    /// Hosts make one link more; how long after it says so does each other host know?
    fn changes(&mut self) -> Option<(f64, f64)> {
        let mut delays = Vec::new();
        let hosts = self.sim.hosts.len();
        let changes = CHANGES.min(hosts / HOSTS_A_CHANGE);
        for change in 0..changes {
            let origin = change * hosts / changes;
            let Some(other) = self.stranger_of(origin) else {
                continue;
            };
            let address = address_of(other).to_string();
            let before = self.sim.said_of_links(origin);
            self.sim.connect(origin, &[&address], false);
            let step = Duration::from_millis(2);
            self.sim
                .run_until_seen(CHANGE_MAX, step, |sim| sim.said_of_links(origin) != before)?;
            let said = self.sim.now;
            let version = self.sim.said_of_links(origin);
            let mut ignorant: Vec<HostId> = (0..hosts).filter(|host| *host != origin).collect();
            let step = Duration::from_millis(5);
            self.sim.run_until_seen(CHANGE_MAX, step, |sim| {
                let delay = (sim.now - said).as_secs_f64() * 1000.0;
                ignorant.retain(|host| {
                    let knows = sim.heard_of_links(*host, origin) >= version;
                    if knows {
                        delays.push(delay);
                    }
                    !knows
                });
                ignorant.is_empty()
            })?;
            self.sim.run_for(Duration::from_secs(1));
        }
        percentiles(&mut delays)
    }

    /// A host that has no link with this one.
    fn stranger_of(&self, host: HostId) -> Option<HostId> {
        let hosts = self.sim.hosts.len();
        let ours = &self.sim.hosts[host].wires;
        (1..hosts)
            .map(|step| (host + hosts / 2 + step) % hosts)
            .find(|other| *other != host && self.sim.hosts[*other].wires.is_disjoint(ours))
    }

    fn floods(&mut self, say: &mut dyn FnMut(&str, &Figures)) {
        let hosts = self.sim.hosts.len();
        let (mut transmissions, mut most, mut missed) = (0, 0, 0);
        for round in 0..2 {
            // The first round makes the sessions that floods to few members need, and asks for the keys of the others.
            (transmissions, most, missed) = (0, 0, 0);
            for flood in 0..FLOODS {
                let source = flood * hosts / FLOODS;
                let frame = self.sim.flood_frame(source);
                self.sim.run_for(Duration::from_secs(2));
                let fate = self.sim.fate(frame);
                transmissions += fate.transmissions;
                most = most.max(fate.arrivals.values().copied().max().unwrap_or_default());
                missed += hosts - 1 - fate.arrivals.len();
            }
            if round == 0 {
                self.sim.run_for(FLOODS_SETTLE);
            }
        }
        let members = (hosts - 1).max(1) * FLOODS;
        self.figures.flood = (transmissions as f64 / members as f64, most, missed);
        say(
            &format!(
                "floods: {:.2} transmissions a member, at most {most} copies, {missed} of {members} missed",
                self.figures.flood.0
            ),
            &self.figures,
        );
    }

    fn heal(&mut self, say: &mut dyn FnMut(&str, &Figures)) {
        let half = self.sim.hosts.len() / 2;
        let pace = Duration::from_millis(100);
        let mut frames = Vec::new();
        // The first of them make the sessions.
        for _ in 0..30 {
            self.send_frames(&mut frames);
            self.sim.run_for(pace);
        }
        self.sim.split(|host| u8::from(host >= half));
        for _ in 0..SPLIT.as_millis() / pace.as_millis() {
            self.send_frames(&mut frames);
            self.sim.run_for(pace);
        }
        self.sim.join();
        let start = self.sim.now;
        while self.figures.heal_s.is_none() && self.sim.now - start < HEAL_MAX {
            self.send_frames(&mut frames);
            self.sim.run_for(pace);
            if self.sim.is_reachable() {
                self.figures.heal_s = Some((self.sim.now - start).as_secs_f64());
            }
        }
        let hops = frames
            .iter()
            .map(|frame| self.sim.fate(*frame).transmissions);
        self.figures.transient_hops_max = hops.max().unwrap_or(0);
        say(
            &format!(
                "healed after {:?} s; a frame crossed {} links at most",
                self.figures.heal_s, self.figures.transient_hops_max
            ),
            &self.figures,
        );
    }

    fn lossy(&mut self, say: &mut dyn FnMut(&str, &Figures)) {
        if self.figures.heal_s.is_some() {
            self.sim.run_for(SETTLE_HEALED);
        }
        self.sim.underlay.weather.loss = BAD_LOSS;
        let before: u64 = self.control_bytes().iter().sum();
        self.sim.run_for(SETTLE_LOSSY);
        let sent = self.control_bytes().iter().sum::<u64>() - before;
        let hosts = self.sim.hosts.len().max(1) as f64;
        self.figures.lossy_kbit = sent as f64 * 8.0 / 1000.0 / SETTLE_LOSSY.as_secs_f64() / hosts;
        say(
            &format!("20 % lost: {:.2} kbit/s a host", self.figures.lossy_kbit),
            &self.figures,
        );
        self.figures.change_lossy_ms = self.changes();
        say(
            &changes_in_words(self.figures.change_lossy_ms),
            &self.figures,
        );
    }

    /// One frame between each of a few pairs, on the same side and across.
    fn send_frames(&mut self, frames: &mut Vec<FrameId>) {
        let hosts = self.sim.hosts.len();
        for pair in 0..PAIRS.min(hosts) {
            let from = pair * hosts / PAIRS.min(hosts);
            let to = (from + 1 + pair * hosts / 7) % hosts;
            if from != to {
                frames.push(self.sim.send_frame(from, to));
            }
        }
    }
}

impl Sim {
    /// The version of what a host says of its own links.
    fn said_of_links(&self, host: HostId) -> Option<Version> {
        self.heard_of_links(host, host)
    }

    /// The version that `host` knows of what another says of its links.
    fn heard_of_links(&self, host: HostId, origin: HostId) -> Option<Version> {
        let origin = self.hosts[origin].identity.peer_id();
        let gossip = self.node(host)?.gossip();
        gossip.version(origin, RecordKind::Topology, 0)
    }

    /// Whether each running host knows each other.
    pub(crate) fn is_acquainted(&self) -> bool {
        let running = self.hosts.iter().filter(|host| host.node.is_some());
        let count = running.clone().count();
        running
            .map(|host| host.engine.peers.len() + 1)
            .all(|known| known >= count)
    }

    /// Whether each running host has a way to each other.
    pub(crate) fn is_reachable(&self) -> bool {
        let running = || (0..self.hosts.len()).filter(|host| self.hosts[*host].node.is_some());
        running().all(|to| running().all(|from| from == to || self.route(from, to).is_some()))
    }
}

fn changes_in_words(ms: Option<(f64, f64)>) -> String {
    format!("changes known after {ms:?} ms (median, p99)")
}

/// The median and the 99th percentile.
fn percentiles(values: &mut [f64]) -> Option<(f64, f64)> {
    values.sort_by(f64::total_cmp);
    let at = |share: usize| values.get((values.len() * share / 100).min(values.len() - 1));
    if values.is_empty() {
        return None;
    }
    Some((*at(50)?, *at(99)?))
}

//! Random scenarios: what happens to a mesh, drawn from a seed, and nothing of how it is judged (checker.rs).
//!
//! ```text
//!  seed ─► hosts, who dials whom ─► [ calm │ cut │ one-way cut │ split │ kill │ power loss │ crash │ flap │ storm ]*
//! ```

use std::collections::BTreeSet;
use std::time::Duration;

use super::host::HostSpec;
use super::underlay::address_of;
use super::{HostId, Sim};
use crate::random::Randomness;

/// Longest life of one trouble.
const TROUBLE_MAX_MS: u32 = 20_000;

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    Cut(HostId, HostId),
    CutOneWay(HostId, HostId),
    /// Hosts below that number on one side, the others on the other.
    Split(HostId),
    Kill(HostId),
    PowerLoss(HostId),
    /// In the middle of what it does, after that many outputs.
    Crash(HostId, usize),
    /// A line that comes and goes, this often a second.
    Flap(HostId, HostId, u32),
    /// Every line loses a fifth of what it carries.
    Storm,
}

/// What happens and how long it lasts before it is mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Episode {
    pub(crate) trouble: Trouble,
    pub(crate) lasts: Duration,
}

/// A whole scenario.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    pub(crate) hosts: usize,
    /// By host: whom it dials.
    pub(crate) targets: Vec<BTreeSet<HostId>>,
    pub(crate) episodes: Vec<Episode>,
}

impl Scenario {
    /// Draws a scenario of 3 to `hosts_max` hosts with so many episodes.
    pub(crate) fn draw(seed: u64, hosts_max: usize, episodes: usize) -> Self {
        let mut random = Randomness::seeded(seed);
        let hosts = 3 + below(&mut random, hosts_max.saturating_sub(2));
        // Each dials an earlier one, so that all hang together; some dial one more.
        let targets = (0..hosts)
            .map(|host| {
                let mut targets = BTreeSet::new();
                if host > 0 {
                    targets.insert(below(&mut random, host));
                    if random.u32().is_multiple_of(3) {
                        targets.insert(below(&mut random, host));
                    }
                }
                targets
            })
            .collect();
        let episodes = (0..episodes)
            .map(|_| Episode {
                trouble: draw_trouble(&mut random, hosts),
                lasts: Duration::from_millis((random.u32() % TROUBLE_MAX_MS).into()),
            })
            .collect();
        Self {
            seed,
            hosts,
            targets,
            episodes,
        }
    }

    /// Makes the mesh and starts it.
    pub(crate) fn begin(&self) -> Sim {
        let mut sim = Sim::new(self.seed);
        sim.latency = Duration::from_millis(10);
        for (host, targets) in self.targets.iter().enumerate() {
            let targets: Vec<_> = targets
                .iter()
                .map(|target| address_of(*target).to_string())
                .collect();
            let targets: Vec<_> = targets.iter().map(String::as_str).collect();
            sim.add(HostSpec::new(format!("h{host}")).dialling(&targets));
        }
        sim
    }
}

fn below(random: &mut Randomness, count: usize) -> usize {
    usize::try_from(random.u32()).unwrap_or_default() % count.max(1)
}

fn draw_trouble(random: &mut Randomness, hosts: usize) -> Trouble {
    let a = below(random, hosts);
    let b = (a + 1 + below(random, hosts - 1)) % hosts;
    match random.u32() % 8 {
        0 => Trouble::Cut(a, b),
        1 => Trouble::CutOneWay(a, b),
        2 => Trouble::Split(1 + below(random, hosts - 1)),
        3 => Trouble::Kill(a),
        4 => Trouble::PowerLoss(a),
        5 => Trouble::Crash(a, below(random, 30)),
        6 => Trouble::Flap(a, b, 1 + random.u32() % 4),
        _ => Trouble::Storm,
    }
}

impl Sim {
    /// Lets an episode happen, calling `look` every `pace` of it, and mends what it did.
    pub(crate) fn undergo(
        &mut self,
        episode: Episode,
        pace: Duration,
        look: &mut dyn FnMut(&mut Self),
    ) {
        let end = self.now + episode.lasts;
        self.strike(episode.trouble);
        let mut flapped_at = self.now;
        let mut down = true;
        while self.now < end {
            self.run_for(pace);
            if let Trouble::Flap(a, b, rate) = episode.trouble
                && self.now - flapped_at >= Duration::from_millis(500) / rate
            {
                flapped_at = self.now;
                down = !down;
                if down {
                    self.cut(a, b)
                } else {
                    self.heal(a, b)
                }
            }
            look(self);
        }
        self.mend(episode.trouble);
    }

    fn strike(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::Cut(a, b) | Trouble::Flap(a, b, _) => self.cut(a, b),
            Trouble::CutOneWay(a, b) => self.cut_one_way(a, b),
            Trouble::Split(border) => self.split(|host| u8::from(host >= border)),
            Trouble::Kill(host) => self.kill(host),
            Trouble::PowerLoss(host) => self.power_off(host),
            Trouble::Crash(host, outputs) => self.crash_after(host, outputs),
            Trouble::Storm => self.underlay.weather.loss = 0.2,
        }
    }

    fn mend(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::Cut(a, b) | Trouble::CutOneWay(a, b) | Trouble::Flap(a, b, _) => {
                self.heal(a, b);
            }
            Trouble::Split(_) => self.join(),
            Trouble::Kill(host) | Trouble::PowerLoss(host) | Trouble::Crash(host, _) => {
                if self.node(host).is_none() {
                    self.start(host);
                }
            }
            Trouble::Storm => self.underlay.weather.loss = 0.0,
        }
    }
}

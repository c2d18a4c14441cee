//! Who reaches whom by the FIBs as they stand: routes followed hop by hop, loops noticed.
//!
//! A hop counts if its path is up and the network lets it pass both ways at this moment. Nothing is sent.

use weft_engine::bridge::NextHop;

use super::datagrams::HOP_LIMIT;
use super::{HostId, Sim};

/// No way there.
const NOWHERE: u16 = u16::MAX;

/// All ordered pairs of running hosts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Reach {
    pub(crate) pairs: usize,
    pub(crate) reachable: usize,
    /// Pairs whose route runs in a circle.
    pub(crate) looping: Vec<(HostId, HostId)>,
    /// Pairs without a way, the first few of them.
    pub(crate) missing: Vec<(HostId, HostId)>,
    /// Hops of the reachable ones, together and at most.
    pub(crate) hops: usize,
    pub(crate) hops_max: usize,
}

impl Reach {
    pub(crate) fn is_whole(&self) -> bool {
        self.pairs == self.reachable
    }
}

enum Fate {
    Arrives(usize),
    Loops,
    Ends,
}

impl Sim {
    /// Keeps the FIB as next hosts by destination, for `reach`.
    pub(super) fn fib_changed(&mut self, host: HostId) {
        let mut next = vec![NOWHERE; self.hosts.len()];
        let engine = &self.hosts[host].engine;
        let host_of = |slot| {
            let peer = engine.peers.get(&slot)?;
            self.labels.get(&peer.label).copied()
        };
        for (slot, hop) in &engine.fib.routes {
            let neighbour = match hop {
                NextHop::Direct => *slot,
                NextHop::Via(neighbour) => *neighbour,
            };
            if let (Some(to), Some(by)) = (host_of(*slot), host_of(neighbour))
                && let Some(entry) = next.get_mut(to)
            {
                *entry = u16::try_from(by).unwrap_or(NOWHERE);
            }
        }
        self.hosts[host].next_hosts = next;
    }

    /// The host that `host` sends to for `to`, if it can, what may be sent `left` times more.
    fn next_host(&self, host: HostId, to: HostId, left: usize) -> Option<HostId> {
        let engine = &self.hosts[host].engine;
        let next = if engine.fib.short.is_empty() {
            usize::from(*self.hosts[host].next_hosts.get(to)?)
        } else {
            let slot = engine.slots.get(&self.hosts[to].engine.label)?;
            let neighbour = engine.next_hop(*slot, u8::try_from(left).ok()?)?;
            let label = engine.peers.get(&neighbour)?.label;
            *self.labels.get(&label)?
        };
        let entry = self.hosts.get(next)?;
        let slot = engine.slots.get(&entry.engine.label)?;
        engine.path(*slot)?;
        let passes = self.underlay.passes(host, next) && self.underlay.passes(next, host);
        (entry.node.is_some() && passes).then_some(next)
    }

    /// The way from one host to another, both included; `None` if there is none.
    pub(crate) fn route(&self, from: HostId, to: HostId) -> Option<Vec<HostId>> {
        let mut way = vec![from];
        while *way.last()? != to {
            let left = (usize::from(HOP_LIMIT) + 1)
                .checked_sub(way.len())
                .filter(|left| *left > 0)?;
            way.push(self.next_host(*way.last()?, to, left)?);
        }
        Some(way)
    }

    /// Looks at all pairs of running hosts.
    pub(crate) fn reach(&self) -> Reach {
        self.reach_among(&|_, _| true)
    }

    /// Looks at the pairs of running hosts that are asked for.
    pub(crate) fn reach_among(&self, wanted: &dyn Fn(HostId, HostId) -> bool) -> Reach {
        let mut reach = Reach::default();
        let running: Vec<_> = (0..self.hosts.len())
            .filter(|host| self.hosts[*host].node.is_some())
            .collect();
        for to in &running {
            for from in running.iter().filter(|from| *from != to) {
                if !wanted(*from, *to) {
                    continue;
                }
                reach.pairs += 1;
                match self.follow(*from, *to) {
                    Fate::Arrives(hops) => {
                        reach.reachable += 1;
                        reach.hops += hops;
                        reach.hops_max = reach.hops_max.max(hops);
                    }
                    Fate::Loops => reach.looping.push((*from, *to)),
                    Fate::Ends if reach.missing.len() < 20 => reach.missing.push((*from, *to)),
                    Fate::Ends => {}
                }
            }
        }
        reach
    }

    fn follow(&self, from: HostId, to: HostId) -> Fate {
        let mut at = from;
        for hops in 0..=usize::from(HOP_LIMIT) {
            if at == to {
                return Fate::Arrives(hops);
            }
            match self.next_host(at, to, usize::from(HOP_LIMIT) - hops) {
                Some(next) => at = next,
                None => return Fate::Ends,
            }
        }
        // Longer than the hop limit: in a circle, or as good as.
        Fate::Loops
    }
}

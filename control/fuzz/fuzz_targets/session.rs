//! Two nodes with a session; the messages that it carries are lost, late, repeated, changed and invented, and the
//! engine reports what it likes. Then all is well again, and a session must be there.

#![no_main]

use std::time::{Duration, Instant};

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use weft_control::node::exchange::{CloseCause, Input as NodeInput, LinkId};
use weft_control_fuzz::input::Input;
use weft_control_fuzz::watched::{Watched, config, identity};
use weft_engine::command::{Event, PeerSlot};
use weft_engine::path::PathStatus;

const REMOTE: [&str; 2] = ["192.0.2.2:6783", "192.0.2.1:6783"];
/// Messages kept to be sent again.
const KEPT_MAX: usize = 32;

struct Pair {
    nodes: [Watched; 2],
    now: Instant,
    link: u64,
    is_linked: bool,
    kept: Vec<Bytes>,
}

impl Pair {
    fn new() -> Self {
        let now = Instant::now();
        let a = Watched::new(config("a", true, &["192.0.2.2"]), identity(1), 1, now);
        let b = Watched::new(config("b", true, &[]), identity(2), 2, now);
        Self {
            nodes: [a, b],
            now,
            link: 0,
            is_linked: false,
            kept: Vec::new(),
        }
    }

    fn engine(&mut self, to: usize, event: Event) {
        self.nodes[to].input(NodeInput::Engine(event), self.now);
    }

    /// Carries what TCP and the engine carry; messages inside the session only if `carry`.
    fn exchange(&mut self, carry: bool) {
        for _ in 0..64 {
            let mut idle = true;
            for from in [0, 1] {
                let to = 1 - from;
                while let Some((link, data)) = self.nodes[from].sent.pop_front() {
                    idle = false;
                    if link.0 == self.link && self.is_linked {
                        self.nodes[to].data(link, &data, self.now);
                    }
                }
                while let Some((slot, index)) = self.nodes[from].installed.pop_front() {
                    idle = false;
                    if self.nodes[from].epochs.contains_key(&index) {
                        let local_index = index;
                        self.engine(from, Event::SessionInstalled { slot, local_index });
                    }
                }
                while carry {
                    let Some((_, message)) = self.nodes[from].carried.pop_front() else {
                        break;
                    };
                    idle = false;
                    self.carry(to, message);
                }
            }
            self.confirm();
            self.close();
            if idle {
                break;
            }
        }
    }

    /// The engines' probes: whoever has the keys of an epoch that the other sends with says so.
    fn confirm(&mut self) {
        for from in [0, 1] {
            let to = 1 - from;
            let active: Vec<_> = self.nodes[from].active.values().copied().collect();
            for index in active {
                let Some((_, local_index)) = self.nodes[from].epochs.get(&index).copied() else {
                    continue;
                };
                if let Some((slot, _)) = self.nodes[to].epochs.get(&local_index).copied() {
                    self.engine(to, Event::SessionConfirmed { slot, local_index });
                }
            }
        }
    }

    fn carry(&mut self, to: usize, message: Bytes) {
        if self.kept.len() == KEPT_MAX {
            self.kept.remove(0);
        }
        self.kept.push(message.clone());
        if let Some(slot) = self.slot(to) {
            self.engine(to, Event::Message { slot, message });
        }
    }

    fn slot(&self, of: usize) -> Option<PeerSlot> {
        self.nodes[of].peers.first().copied()
    }

    fn close(&mut self) {
        let link = LinkId(self.link);
        if self.is_linked && self.nodes.iter().any(|node| node.closed.contains(&link)) {
            self.cut();
        }
    }

    fn cut(&mut self) {
        let link = LinkId(self.link);
        if std::mem::take(&mut self.is_linked) {
            for node in &mut self.nodes {
                if !node.closed.contains(&link) {
                    let cause = CloseCause::Broken;
                    node.input(NodeInput::LinkClosed { link, cause }, self.now);
                }
            }
        }
    }

    /// Lets time pass; dials come through only if `linked`.
    fn wait(&mut self, time: Duration, linked: bool) {
        let end = self.now + time;
        for _ in 0..512 {
            let due = self.nodes.iter().filter_map(|node| node.node.deadline());
            let due = due.min().filter(|due| *due <= end);
            self.now = self.now.max(due.unwrap_or(end));
            for node in &mut self.nodes {
                node.tick_until(self.now);
            }
            self.dials(linked);
            self.exchange(linked);
            if due.is_none() {
                break;
            }
        }
        self.now = end;
    }

    fn dials(&mut self, linked: bool) {
        while let Some(dial) = self.nodes[0].dials.pop_front() {
            if !linked || self.is_linked {
                let failure = weft_control::node::exchange::DialFailure::TimedOut;
                let failed = NodeInput::DialFailed { dial, failure };
                self.nodes[0].input(failed, self.now);
                continue;
            }
            self.link += 1;
            self.is_linked = true;
            let link = LinkId(self.link);
            self.nodes[0].open(link, Some(dial), REMOTE[0], self.now);
            self.nodes[1].open(link, None, REMOTE[1], self.now);
        }
    }

    fn have_session(&self) -> bool {
        let [a, b] = &self.nodes;
        let sends = |node: &Watched| {
            let index = node.active.values().next()?;
            node.epochs.get(index).map(|(_, remote)| *remote)
        };
        sends(a).is_some_and(|index| b.epochs.contains_key(&index))
            && sends(b).is_some_and(|index| a.epochs.contains_key(&index))
    }
}

fn step(pair: &mut Pair, input: &mut Input<'_>) {
    let what = input.byte();
    let to = usize::from(what >> 7);
    match what & 7 {
        0 | 1 => {
            let Some((_, message)) = pair.nodes[1 - to].carried.pop_front() else {
                return;
            };
            let mut message = message.to_vec();
            if what & 1 == 1 {
                let (place, change) = (usize::from(input.short()), input.byte());
                match message.get_mut(place) {
                    Some(byte) => *byte ^= change,
                    None => message.extend_from_slice(input.bytes()),
                }
            }
            pair.carry(to, message.into());
        }
        2 => drop(pair.nodes[1 - to].carried.pop_front()),
        3 => pair.carry(to, Bytes::copy_from_slice(input.bytes())),
        4 => {
            // Another step of a handshake that there is, with any body.
            let nth = usize::from(input.byte());
            let count = pair.kept.len().max(1);
            let id = pair.kept.get(nth % count).and_then(|kept| kept.get(2..10));
            let id = id.map_or_else(|| vec![0; 8], <[u8]>::to_vec);
            let message = [&[5, input.byte() % 7][..], &id, input.bytes()].concat();
            pair.carry(to, message.into());
        }
        5 => {
            let nth = usize::from(input.byte());
            let count = pair.nodes[to].epochs.len().max(1);
            let index = pair.nodes[to].epochs.keys().nth(nth % count).copied();
            let Some(slot) = pair.slot(to) else { return };
            let local_index = index.filter(|_| nth < 240).unwrap_or(7);
            let event = match input.byte() % 4 {
                0 => Event::RekeyDue { slot, local_index },
                1 => Event::SessionWanted { slot },
                2 => Event::PathDown { slot },
                _ => Event::PathUp {
                    slot,
                    path: PathStatus {
                        address: REMOTE[to].parse().expect("an address"),
                        rtt: Duration::from_millis(u64::from(input.short())),
                        rtt_least: Duration::from_millis(u64::from(input.short())),
                        datagram_max: input.short(),
                        loss: 0.5,
                    },
                },
            };
            pair.engine(to, event);
        }
        6 => {
            let time = Duration::from_millis(8 * u64::from(input.short()));
            pair.wait(time, what & 8 != 0);
        }
        _ => {
            let nth = usize::from(input.byte()) % pair.kept.len().max(1);
            if let Some(message) = pair.kept.get(nth).cloned() {
                pair.carry(to, message);
            }
        }
    }
    pair.exchange(false);
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let mut pair = Pair::new();
    pair.wait(Duration::from_secs(2), true);
    assert!(pair.have_session(), "no session to begin with");
    if input.byte() & 1 == 0 {
        pair.cut();
    }
    for _ in 0..48 {
        if input.is_over() {
            break;
        }
        step(&mut pair, &mut input);
    }
    pair.wait(Duration::from_secs(60), true);
    assert!(pair.have_session(), "no session after all is well again");
});

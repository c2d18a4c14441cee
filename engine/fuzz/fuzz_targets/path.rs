//! Any path messages, from any address, at any time: few sends, none to an impossible address, and time goes on.
//!
//! ```text
//!  0  a message of any bytes            4  time passes
//!  1  a probe with fields of its own    5  the session comes or goes
//!  2  the answer to one of ours         6  other candidates
//!  3  frames are heard                  7  the kernel refuses a datagram
//! ```

#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use weft_engine::config::{DATAGRAM_LEN_MAX, PATH_SENDS_MAX};
use weft_engine::path::{
    PATH_MESSAGE_LEN_MAX, PROBE, PROBE_REPLY, PathConfig, PathOutput, Paths, SendFailure,
};
use weft_engine_fuzz::input::Input;

/// `Up`, `Changed` or `Down`, and `Observed`.
const NEWS_MAX: usize = 2;
/// Probes of ours that can be answered by number.
const ASKED_MAX: usize = 64;

struct Bench {
    paths: Paths,
    now: Instant,
    /// Addresses that sent something or were named by control.
    known: Vec<SocketAddr>,
    asked: Vec<(SocketAddr, u64, u16)>,
}

impl Bench {
    fn drain(&mut self) {
        let (mut sends, mut news) = (0, 0);
        while let Some(output) = self.paths.poll_output() {
            let PathOutput::Send {
                to,
                message,
                datagram_len,
                ..
            } = output
            else {
                news += 1;
                if let PathOutput::Up(status) | PathOutput::Changed(status) = output {
                    assert!(usize::from(status.datagram_max) <= DATAGRAM_LEN_MAX);
                    assert!((0.0..=1.0).contains(&status.loss), "{}", status.loss);
                }
                continue;
            };
            sends += 1;
            assert!(self.known.contains(&to), "{to} was never heard of");
            assert!(!to.ip().is_multicast() && !to.ip().is_unspecified() && to.port() != 0);
            assert!(message.as_bytes().len() <= PATH_MESSAGE_LEN_MAX);
            let len = datagram_len.unwrap_or(64);
            assert!(usize::from(len) <= DATAGRAM_LEN_MAX);
            if let [PROBE, _, id @ ..] = message.as_bytes()
                && let Some(id) = id.first_chunk()
            {
                if self.asked.len() == ASKED_MAX {
                    self.asked.remove(0);
                }
                self.asked.push((to, u64::from_be_bytes(*id), len));
            }
        }
        assert!(sends <= PATH_SENDS_MAX, "{sends} sends at once");
        assert!(news <= NEWS_MAX, "{news} times news");
    }

    fn message(&mut self, from: SocketAddr, len: u16, message: &[u8]) {
        self.know(from);
        // Every verdict is fine; what counts is what comes out.
        let _ = self.paths.handle_message(from, len, message, self.now);
    }

    fn know(&mut self, address: SocketAddr) {
        self.known
            .push(SocketAddr::new(address.ip().to_canonical(), address.port()));
    }

    /// Goes to `until`, from deadline to deadline.
    fn wait(&mut self, until: Instant) {
        for _ in 0..256 {
            let Some(due) = self.paths.deadline().filter(|due| *due <= until) else {
                break;
            };
            self.now = self.now.max(due);
            self.paths.tick(self.now);
            self.drain();
        }
        self.now = until;
        self.paths.tick(until);
        self.drain();
        let due = self.paths.deadline();
        assert!(due.is_none_or(|due| due > until), "would spin");
    }
}

fn address(input: &mut Input<'_>) -> SocketAddr {
    let [kind, host] = input.array();
    let ip = match kind % 8 {
        0..=4 => IpAddr::V4(Ipv4Addr::new(192, 0, 2, host % 8)),
        5 => IpAddr::V4(input.array().into()),
        6 => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host.into())),
        _ => IpAddr::V6(input.array().into()),
    };
    let port = if kind < 128 { 6783 } else { input.short() };
    SocketAddr::new(ip, port)
}

fn step(bench: &mut Bench, input: &mut Input<'_>) {
    match input.byte() % 8 {
        0 => {
            let (from, len) = (address(input), input.short());
            bench.message(from, len, input.bytes());
        }
        1 => {
            let (from, len) = (address(input), input.short());
            let flags = input.byte();
            let heard = bench.asked.last().map_or(0, |(_, id, _)| *id);
            let id: [u8; 8] = input.array();
            let probe = [&[PROBE, flags][..], &id, &heard.to_be_bytes()].concat();
            bench.message(from, len, &probe);
        }
        2 => {
            let from_there = input.byte() & 3 != 0;
            let nth = usize::from(input.byte());
            let mut from = address(input);
            let count = bench.asked.len().max(1);
            let Some((to, id, len)) = bench.asked.get(nth % count).copied() else {
                return;
            };
            if from_there {
                from = to;
            }
            let len = if nth & 0x80 == 0 { len } else { input.short() };
            let observed: [u8; 18] = input.array();
            let reply = [
                &[PROBE_REPLY, 0][..],
                &id.to_be_bytes(),
                &len.to_be_bytes(),
                &observed,
            ];
            bench.message(from, 64, &reply.concat());
        }
        3 => {
            let from = address(input);
            bench.know(from);
            bench.paths.heard(from, bench.now);
            bench.paths.carried(bench.now);
        }
        4 => {
            let ms = u64::from(input.short());
            bench.wait(bench.now + Duration::from_millis(ms));
        }
        5 if input.byte() & 1 == 0 => bench.paths.session_ready(bench.now),
        5 => bench.paths.session_lost(),
        6 => {
            let count = input.byte() % 12;
            let addresses: Vec<_> = (0..count).map(|_| address(input)).collect();
            addresses.iter().for_each(|address| bench.know(*address));
            bench.paths.set_candidates(&addresses, bench.now);
        }
        _ => {
            let (to, len) = (address(input), input.short());
            let failure = if len & 1 == 0 {
                SendFailure::TooBig
            } else {
                SendFailure::Unreachable
            };
            bench.paths.sent_failed(to, len, failure, bench.now);
        }
    }
    bench.drain();
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let now = Instant::now();
    let config = PathConfig {
        underlay_mtu: input.short(),
        ..PathConfig::default()
    };
    let mut bench = Bench {
        paths: Paths::new(config, 7, now),
        now,
        known: Vec::new(),
        asked: Vec::new(),
    };
    bench.paths.session_ready(now);
    for _ in 0..256 {
        if input.is_over() {
            break;
        }
        step(&mut bench, &mut input);
    }
});

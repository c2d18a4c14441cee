//! Makes a running daemon know a thousand peers, over one real link, and says how much memory it then has.
//!
//! ```text
//!  cargo run --release -p weft-control --features sim --example crowd -- --to 192.0.2.1:6783 --pid PID
//!      [--peers 1000] [--seconds 30] [--seed 1]
//! ```
//!
//! Prints the largest resident size of the process while the link was up, in KiB. The daemon must have open
//! membership.
#![expect(clippy::print_stdout, reason = "a program for the terminal")]
#![expect(
    clippy::disallowed_methods,
    reason = "a program on a real network has a real clock"
)]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use std::{env, fs};

use weft_control::sim::crowd::Crowd;

/// How long we listen before we see whether something is due.
const TURN: Duration = Duration::from_millis(50);

struct Arguments {
    to: SocketAddr,
    pid: u32,
    peers: usize,
    seconds: u64,
    seed: u64,
}

fn main() {
    let arguments = read_arguments();
    let start = Instant::now();
    let mut crowd = Crowd::new(arguments.peers, arguments.seed, start);
    let mut stream = TcpStream::connect(arguments.to)
        .unwrap_or_else(|error| panic!("connect to {}: {error}", arguments.to));
    stream
        .set_read_timeout(Some(TURN))
        .expect("a socket takes a timeout");
    let (mut buffer, mut largest) = (vec![0; 64 * 1024], 0);
    let end = start + Duration::from_secs(arguments.seconds);
    while Instant::now() < end {
        stream
            .write_all(&crowd.take_outbox())
            .expect("the daemon listens");
        match stream.read(&mut buffer) {
            Ok(0) => panic!("the daemon ended the link"),
            Ok(len) => crowd.receive(&buffer[..len], Instant::now()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => panic!("the link broke: {error}"),
        }
        crowd.tick(Instant::now());
        assert!(!crowd.is_over(), "the daemon refused us");
        largest = largest.max(resident_kib(arguments.pid));
    }
    assert!(crowd.is_up(), "no link came to be");
    println!("{largest}");
}

fn read_arguments() -> Arguments {
    let (mut to, mut pid, mut peers, mut seconds, mut seed) = (None, None, 1000, 30, 1);
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let value = arguments.next().unwrap_or_default();
        match argument.as_str() {
            "--to" => to = value.parse().ok(),
            "--pid" => pid = value.parse().ok(),
            "--peers" => peers = value.parse().expect("--peers takes a number"),
            "--seconds" => seconds = value.parse().expect("--seconds takes a number"),
            "--seed" => seed = value.parse().expect("--seed takes a number"),
            _ => panic!("unknown argument {argument}; the first lines of the source name them"),
        }
    }
    Arguments {
        to: to.expect("--to takes an address and a port"),
        pid: pid.expect("--pid takes the number of the daemon's process"),
        peers,
        seconds,
        seed,
    }
}

/// The resident size of a process now.
fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

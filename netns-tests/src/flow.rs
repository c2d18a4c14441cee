//! Traffic between two hosts whose every byte is checked, paced traffic that is counted, and floods.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};

use crate::host::Host;
use crate::wait;

/// Length of the repeated pattern: a prime, so that a lost, doubled or moved segment never fits.
const PATTERN_LEN: usize = 65_521;
/// A read that takes longer has failed: the flow stands still.
const STALL_LIMIT: Duration = Duration::from_secs(30);
/// What may wait for a receiver that does not run at the moment; bytes.
const BACKLOG: usize = 8 * 1024 * 1024;
/// Datagrams in one segmented send of a flood, below the kernel's limit of 64.
const FLOOD_TRAIN: usize = 60;

/// A TCP stream that runs until it is finished.
#[derive(Debug)]
pub struct Stream {
    stop: Arc<AtomicBool>,
    received: Arc<AtomicU64>,
    sender: JoinHandle<()>,
    receiver: JoinHandle<StreamReport>,
}

/// What arrived of a stream.
#[derive(Debug, Clone, Copy)]
pub struct StreamReport {
    /// Bytes, each of them right.
    pub bytes: u64,
    /// From the first byte to the last.
    pub length: Duration,
    /// The longest time in which no byte arrived.
    pub longest_silence: Duration,
}

impl StreamReport {
    /// Its mean rate.
    #[must_use]
    pub fn gbit_per_s(&self) -> f64 {
        #[expect(
            clippy::cast_precision_loss,
            reason = "a rate needs no more than 52 bits"
        )]
        let bits = self.bytes as f64 * 8.0;
        bits / self.length.as_secs_f64() / 1e9
    }
}

impl Stream {
    /// Connects from one host to an address of the other and sends as fast as it can.
    ///
    /// # Panics
    ///
    /// If the hosts do not reach each other.
    #[must_use]
    pub fn start(from: &Host, to: &Host, address: IpAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let received = Arc::new(AtomicU64::new(0));
        let listener =
            to.inside(|| TcpListener::bind((address, 0)).expect("the address is this host's"));
        let target = listener
            .local_addr()
            .expect("a bound socket has an address");
        let count = Arc::clone(&received);
        let receiver = to.spawn(move || receive(&listener, &count));
        let flag = Arc::clone(&stop);
        let sender = from.spawn(move || send(target, u64::MAX, &flag));
        Self {
            stop,
            received,
            sender,
            receiver,
        }
    }

    /// Bytes that arrived so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Waits until something more arrives; returns the time it took.
    ///
    /// # Panics
    ///
    /// If nothing does within `limit`.
    pub fn wait_for_more(&self, limit: Duration) -> Duration {
        let before = self.received();
        wait::within("more of the stream", limit, || self.received() > before)
    }

    /// Ends it and says what arrived.
    ///
    /// # Panics
    ///
    /// If a byte was wrong, or the stream stood still for 30 seconds.
    #[must_use]
    pub fn finish(self) -> StreamReport {
        self.stop.store(true, Ordering::Relaxed);
        self.sender
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        self.receiver
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Sends `bytes` over TCP from one host to an address of the other.
///
/// # Panics
///
/// If a byte is wrong or missing, or the stream stands still for 30 seconds.
pub fn transfer(from: &Host, to: &Host, address: IpAddr, bytes: u64) -> StreamReport {
    let listener =
        to.inside(|| TcpListener::bind((address, 0)).expect("the address is this host's"));
    let target = listener
        .local_addr()
        .expect("a bound socket has an address");
    let receiver = to.spawn(move || receive(&listener, &AtomicU64::new(0)));
    from.inside(|| send(target, bytes, &AtomicBool::new(false)));
    let report = receiver
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    assert_eq!(report.bytes, bytes, "bytes that arrived");
    report
}

/// One period of the pattern, from a small generator: nothing in it repeats that matters.
fn pattern() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..PATTERN_LEN).map(|_| next()).collect()
}

fn send(target: SocketAddr, bytes: u64, stop: &AtomicBool) {
    let mut stream =
        TcpStream::connect_timeout(&target, STALL_LIMIT).expect("the receiver is reachable");
    stream
        .set_write_timeout(Some(STALL_LIMIT))
        .expect("the limit is not zero");
    let pattern = pattern();
    let mut left = bytes;
    while left > 0 && !stop.load(Ordering::Relaxed) {
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(PATTERN_LEN);
        stream
            .write_all(&pattern[..part])
            .expect("the stream moves on");
        left -= part as u64;
    }
    stream
        .shutdown(Shutdown::Write)
        .expect("a connected stream can be ended");
    // The receiver closes when it has read everything.
    let end = stream.read(&mut [0]);
    assert!(
        end.is_ok_and(|len| len == 0),
        "the receiver ends the stream"
    );
}

fn receive(listener: &TcpListener, count: &AtomicU64) -> StreamReport {
    let (mut stream, _) = listener.accept().expect("the sender connects");
    stream
        .set_read_timeout(Some(STALL_LIMIT))
        .expect("the limit is not zero");
    let pattern = pattern();
    let mut buffer = vec![0; 256 * 1024];
    let (mut at, mut bytes, mut longest) = (0, 0_u64, Duration::ZERO);
    let start = wait::now();
    let mut last = start;
    loop {
        let len = match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(len) => len,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("the stream stands still after {bytes} bytes");
            }
            Err(error) => panic!("the stream broke after {bytes} bytes: {error}"),
        };
        let arrived = wait::now();
        longest = longest.max(arrived - last);
        last = arrived;
        at = check(&buffer[..len], &pattern, at, bytes);
        bytes += len as u64;
        count.store(bytes, Ordering::Relaxed);
    }
    StreamReport {
        bytes,
        length: last - start,
        longest_silence: longest,
    }
}

/// Compares what arrived with the pattern from `at` on; returns where the next byte lies in it.
fn check(mut arrived: &[u8], pattern: &[u8], mut at: usize, offset: u64) -> usize {
    while !arrived.is_empty() {
        let len = arrived.len().min(pattern.len() - at);
        let (part, rest) = arrived.split_at(len);
        assert!(
            part == &pattern[at..at + len],
            "the stream has a wrong byte near {offset}"
        );
        at = (at + len) % pattern.len();
        arrived = rest;
    }
    at
}

/// What became of a paced flow.
#[derive(Debug, Clone, Copy)]
pub struct Paced {
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams that arrived, each counted once and each byte right.
    pub received: u64,
}

impl Paced {
    /// The share that arrived, 0 to 1.
    #[must_use]
    pub fn share(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "counts of a few seconds")]
        let share = self.received as f64 / self.sent as f64;
        share
    }
}

/// Sends UDP datagrams of `payload` bytes at `per_s` a second from one host to an address of the other.
///
/// With `segmented`, 40 of them leave in each send, and the kernel cuts them apart.
///
/// # Panics
///
/// If a byte of a datagram is wrong.
#[must_use]
pub fn pace(
    from: &Host,
    to: &Host,
    address: IpAddr,
    load: (usize, u32),
    length: Duration,
    segmented: bool,
) -> Paced {
    let (payload, per_s) = load;
    let socket = to.inside(|| UdpSocket::bind((address, 0)).expect("the address is this host's"));
    let target = socket.local_addr().expect("a bound socket has an address");
    socket
        .set_read_timeout(Some(Duration::from_millis(500)))
        .expect("the limit is not zero");
    // Only root outside user namespaces may have so much; others get what the system allows.
    let _ = setsockopt(&socket, sockopt::RcvBufForce, &BACKLOG)
        .or_else(|_| setsockopt(&socket, sockopt::RcvBuf, &BACKLOG));
    let done = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&done);
    let receiver = to.spawn(move || count_datagrams(&socket, payload, &flag));
    let sent = from.inside(|| send_paced(target, (payload, per_s), length, segmented));
    done.store(true, Ordering::Relaxed);
    let received = receiver
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    Paced { sent, received }
}

/// A datagram's number in its first eight bytes, then the pattern from a place that the number says.
fn numbered(number: u64, payload: usize, pattern: &[u8]) -> Vec<u8> {
    let start = usize::try_from(number % 1009).expect("below 1009");
    [
        &number.to_be_bytes()[..],
        &pattern[start..start + payload - 8],
    ]
    .concat()
}

fn send_paced(target: SocketAddr, load: (usize, u32), length: Duration, segmented: bool) -> u64 {
    let (payload, per_s) = load;
    let any: SocketAddr = if target.is_ipv4() {
        ([0; 4], 0).into()
    } else {
        ([0_u16; 8], 0).into()
    };
    let socket = UdpSocket::bind(any).expect("any port will do");
    socket.connect(target).expect("a UDP socket connects");
    let train = if segmented { 40 } else { 1 };
    if segmented {
        let size = i32::try_from(payload).expect("a datagram's length fits");
        setsockopt(&socket, sockopt::UdpGsoSegment, &size)
            .expect("the kernel has UDP segmentation");
    }
    let pattern = pattern();
    let start = wait::now();
    let mut sent = 0;
    while start.elapsed() < length {
        let due = u128::from(per_s) * start.elapsed().as_nanos() / 1_000_000_000;
        while u128::from(sent) + train <= due {
            let last = sent + u64::try_from(train).expect("a small number");
            let bytes: Vec<u8> = (sent..last)
                .flat_map(|number| numbered(number, payload, &pattern))
                .collect();
            // A full queue is a loss like any other, and the receiver's count shows it.
            let _ = socket.send(&bytes);
            sent = last;
        }
        wait::pause(Duration::from_millis(1));
    }
    sent
}

fn count_datagrams(socket: &UdpSocket, payload: usize, done: &AtomicBool) -> u64 {
    let pattern = pattern();
    let mut buffer = vec![0; 65_536];
    let mut seen = Vec::new();
    loop {
        let Ok(len) = socket.recv(&mut buffer) else {
            if done.load(Ordering::Relaxed) {
                break;
            }
            continue;
        };
        assert_eq!(len, payload, "length of a datagram");
        let mut number = [0; 8];
        number.copy_from_slice(&buffer[..8]);
        let number = u64::from_be_bytes(number);
        assert!(
            buffer[..len] == numbered(number, payload, &pattern),
            "datagram {number} has a wrong byte"
        );
        seen.push(number);
    }
    seen.sort_unstable();
    let count = seen.len();
    seen.dedup();
    assert_eq!(seen.len(), count, "no datagram arrives twice");
    count as u64
}

/// Sends `per_s` datagrams a second to `target` until `stop` is set; returns how many left.
///
/// Each is `payload` bytes from `fill`, which gets a running number and the datagram's bytes.
pub fn flood(
    from: &Host,
    target: SocketAddr,
    load: (usize, u32),
    stop: Arc<AtomicBool>,
    fill: impl Fn(u64, &mut [u8]) + Send + 'static,
) -> JoinHandle<u64> {
    let (payload, per_s) = load;
    from.spawn(move || {
        let any: SocketAddr = if target.is_ipv4() {
            ([0; 4], 0).into()
        } else {
            ([0_u16; 8], 0).into()
        };
        let socket = UdpSocket::bind(any).expect("any port will do");
        socket.connect(target).expect("a UDP socket connects");
        let size = i32::try_from(payload).expect("a datagram's length fits");
        setsockopt(&socket, sockopt::UdpGsoSegment, &size)
            .expect("the kernel has UDP segmentation");
        let mut bytes = vec![0; payload * FLOOD_TRAIN];
        let (start, mut sent) = (wait::now(), 0_u64);
        while !stop.load(Ordering::Relaxed) {
            if sent > due(start, per_s) {
                wait::pause(Duration::from_micros(200));
                continue;
            }
            for (datagram, number) in bytes.chunks_mut(payload).zip(sent..) {
                fill(number, datagram);
            }
            // Refused while nobody listens, and full queues: both are part of a flood.
            let _ = socket.send(&bytes);
            sent += FLOOD_TRAIN as u64;
        }
        sent
    })
}

fn due(start: Instant, per_s: u32) -> u64 {
    let due = u128::from(per_s) * start.elapsed().as_nanos() / 1_000_000_000;
    u64::try_from(due).unwrap_or(u64::MAX)
}
